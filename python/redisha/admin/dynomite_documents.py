"""The two documents of Dynomite's REST: ``/info`` and ``/cluster_describe``. Pure.

Owns: Dynomite's names of numbers. Never: counts anything. A number that redisha has no equal for is 0, because who asks
expects each of them to be there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redisha.config.dynomite_stats import DynomiteStats
from redisha.group.status import GroupStatus, PeerStatus

TOP = """
latency_max latency_999th latency_99th latency_95th latency_mean
payload_size_max payload_size_999th payload_size_99th payload_size_95th payload_size_mean
average_cross_region_rtt 99_cross_region_rtt average_cross_zone_latency 99_cross_zone_latency
average_server_latency 99_server_latency average_cross_region_queue_wait 99_cross_region_queue_wait
average_cross_zone_queue_wait 99_cross_zone_queue_wait average_server_queue_wait 99_server_queue_wait
client_out_queue_99 server_in_queue_99 server_out_queue_99 dnode_client_out_queue_99 peer_in_queue_99
peer_out_queue_99 remote_peer_out_queue_99 remote_peer_in_queue_99
alloc_msgs free_msgs alloc_mbufs free_mbufs dyn_memory
"""
"""Numbers of the process; latencies in microseconds, ``dyn_memory`` in kilobytes."""

POOL = """
client_eof client_err client_connections client_read_requests client_write_requests client_dropped_requests
client_non_quorum_w_responses client_non_quorum_r_responses server_ejects
dnode_client_eof dnode_client_err dnode_client_connections dnode_client_in_queue dnode_client_in_queue_bytes
dnode_client_out_queue dnode_client_out_queue_bytes
peer_dropped_requests peer_timedout_requests remote_peer_dropped_requests remote_peer_timedout_requests
remote_peer_failover_requests peer_eof peer_err peer_timedout remote_peer_timedout peer_connections peer_forward_error
peer_requests peer_request_bytes peer_responses peer_response_bytes peer_ejected_at peer_ejects
peer_in_queue remote_peer_in_queue peer_in_queue_bytes remote_peer_in_queue_bytes
peer_out_queue remote_peer_out_queue peer_out_queue_bytes remote_peer_out_queue_bytes peer_mismatch_requests
forward_error fragments stats_count
"""
"""Numbers of the pool, which is the group."""

SERVER = """
server_eof server_err server_timedout server_ejected_at server_dropped_requests server_timedout_requests
read_requests read_request_bytes write_requests write_request_bytes
read_responses read_response_bytes write_responses write_response_bytes
in_queue in_queue_bytes out_queue out_queue_bytes
redis_req_get redis_req_set redis_req_del redis_req_incr_decr redis_req_keys redis_req_mget redis_req_scan
redis_req_sort redis_req_lreqm redis_req_sunion redis_req_ping redis_req_lists redis_req_sets redis_req_hashes
redis_req_sortedsets redis_req_other
"""
"""Numbers of this member's own Redis."""


@dataclass(frozen=True, slots=True)
class Here:
    """This member, as Dynomite tells of a node.

    Attributes:
        host: the machine's name.
        address: of its peer port, ``ip:port``.
        redis: its own Redis, ``host:port``.
        version: of redisha.
        stats: where it and the others are in Dynomite's words.
    """

    host: str
    address: str
    redis: str
    version: str
    stats: DynomiteStats


def info(here: Here, group: GroupStatus, counters: Mapping[str, int], uptime: int, now: int) -> dict[str, Any]:
    """The document of ``/info``.

    Args:
        here: this member.
        group: the group as it sees it.
        counters: numbers by Dynomite's names; others are passed over.
        uptime: seconds since the start.
        now: seconds since 1970.
    """
    numbers = _queues(here, group) | dict(counters)

    def chosen(names: str) -> dict[str, int]:
        return {name: numbers.get(name, 0) for name in names.split()}

    return {
        "service": "dynomite",
        "source": here.host,
        "version": here.version,
        "uptime": uptime,
        "timestamp": now,
        "rack": here.stats.rack,
        "dc": here.stats.datacenter,
        **chosen(TOP),
        group.name: {**chosen(POOL), here.redis: chosen(SERVER)},
    }


def describe(here: Here, group: GroupStatus) -> dict[str, Any]:
    """The document of ``/cluster_describe``: datacenters, their racks, their nodes."""
    host, port = _split(here.address)
    known = host if host not in ("0.0.0.0", "::") else here.host  # noqa: S104  # compared, not bound
    nodes = [(here.stats.datacenter, here.stats.rack, _node(known, here.host, port, here.stats.token))]
    for peer in others(group):
        # Several members may stand behind one name: then the identity has the address as well.
        name, _, ip = peer.id.partition("/")
        host, port = _split(name)
        datacenter, rack, token = _place(here.stats, peer)
        nodes.append((datacenter, rack, _node(ip or host, host, port, token)))
    centers: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for datacenter, rack, node in nodes:
        centers.setdefault(datacenter, {}).setdefault(rack, []).append(node)
    return {
        "dcs": [
            {"name": center, "racks": [{"name": rack, "servers": servers} for rack, servers in racks.items()]}
            for center, racks in centers.items()
        ]
    }


def others(group: GroupStatus) -> list[PeerStatus]:
    """The other members, without this one where a common name led back to it."""
    return [peer for peer in group.peers if not peer.status.member or peer.status.member != group.me.member]


def _node(name: str, host: str, port: int, token: int) -> dict[str, Any]:
    return {"name": name, "host": host, "port": port, "token": token}


def _place(stats: DynomiteStats, peer: PeerStatus) -> tuple[str, str, int]:
    """Datacenter, rack and token. One that no file tells is a full copy, and so a rack of its own."""
    for node in stats.nodes:
        if node.peer == peer.id.partition("/")[0]:
            return node.datacenter, node.rack, node.token
    return stats.datacenter, peer.status.member or peer.id, stats.token


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port) if port.isdecimal() else 0


def _queues(here: Here, group: GroupStatus) -> dict[str, int]:
    """What the group's own status tells: connections to the others, and what they have not acknowledged."""
    found = {"peer_connections": sum(peer.up for peer in others(group))}
    for peer in others(group):
        remote = "remote_" if _place(here.stats, peer)[0] != here.stats.datacenter else ""
        for key, value in (("peer_in_queue", peer.lag), ("peer_in_queue_bytes", peer.lag_bytes)):
            found[remote + key] = found.get(remote + key, 0) + value
    return found
