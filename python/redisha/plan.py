"""Compiles a configuration and resolved names into the plan that the data plane walks. Pure.

The dataclasses are the plan's JSON, field by field; the data plane refuses every other one.
"""

import ipaddress
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from redisha.config.model import Cluster, Config, Group, Listener, ListenerAuth, Mirror, Resync
from redisha.config.model import Limits as ConfigLimits
from redisha.config.scalars import Address, Tcp, parse_endpoint
from redisha.slots import SlotMap


@dataclass(frozen=True, slots=True)
class Target:
    """A host name that an endpoint has instead of an address.

    Attributes:
        host: The name.
        refresh_ms: After how many milliseconds it is to be asked for again.
        respect_dns_ttl: Whether the TTL of the answer counts instead, where it is known.
    """

    host: str
    refresh_ms: int
    respect_dns_ttl: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the process, in bytes and milliseconds; a time or a rate of 0 is no limit."""

    max_clients: int
    max_request: int
    max_output: int
    memory_bytes: int
    log_bytes: int
    idle_timeout_ms: int
    handshake_timeout_ms: int
    resync_keys_per_s: int
    resync_bytes_per_s: int


@dataclass(frozen=True, slots=True)
class PlanUser:
    """A name (None is the default user) and a password that a client may AUTH with."""

    name: str | None
    password: str


MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class PlanMirror:
    """A cluster that receives a route's writes, and its reads if ``reads`` is ``include``.

    ``fraction``: of a million commands those that it gets; with less than all it is no copy.
    """

    cluster: str
    reads: str
    fraction: int = MILLION


@dataclass(frozen=True, slots=True)
class PlanRoute:
    """Key prefix → cluster; the prefix "" takes what no other does."""

    prefix: str
    remove_prefix: bool
    cluster: str
    mirrors: tuple[PlanMirror, ...]


@dataclass(frozen=True, slots=True)
class PlanConsistency:
    """What clients of a group get: who has a write (one, quorum, all), who answers a read (one, leader)."""

    write: str = "one"
    read: str = "one"


@dataclass(frozen=True, slots=True)
class PlanListener:
    """Where clients come in. Without users no AUTH is asked.

    ``port``: clients of ``routes``, of the ``group``, or its other members (``peers``).
    """

    name: str
    bind: tuple[str, ...]
    users: tuple[PlanUser, ...]
    case_insensitive: bool
    routes: tuple[PlanRoute, ...]
    port: str = "routes"
    consistency: PlanConsistency = PlanConsistency()


@dataclass(frozen=True, slots=True)
class PlanEndpoint:
    """One server. The id stays the same from plan to plan; the address may change under it.

    Without an address its name has not resolved yet; what a mirror is to get waits in the log meanwhile.
    """

    id: str
    address: str | None


@dataclass(frozen=True, slots=True)
class PlanSlots:
    """A run of hash slots and who has them: indices of the cluster's endpoints."""

    first: int
    last: int
    master: int
    replicas: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PlanRing:
    """The ring that keys are spread over: how many points it has, and what places servers on it."""

    minimum: int
    maximum: int
    function: str


@dataclass(frozen=True, slots=True)
class PlanCluster:
    """A named set of servers.

    ``balance``: how commands are spread over them; ``ring`` and ``choices`` belong to ``ring_hash`` and
    ``least_request``.

    A Redis Cluster's keys are spread by slot (``balance`` is ``slots``). Until its map is known, its endpoints are
    those of the configuration, and redirections tell where keys are.
    """

    name: str
    endpoints: tuple[PlanEndpoint, ...]
    balance: str
    hash_tags: bool
    connect_timeout_ms: int
    op_timeout_ms: int
    username: str | None
    password: str | None
    slots: tuple[PlanSlots, ...] = ()
    reads: str = "master"
    redirects: bool = False
    ring: PlanRing = PlanRing(1024, 8 * 1024**2, "xx_hash")
    choices: int = 2


@dataclass(frozen=True, slots=True)
class PlanGroup:
    """The group that this sidecar is a member of; times in milliseconds.

    Attributes:
        name: the group's.
        member: this one's.
        local: the cluster of its own Redis.
        peers: the clusters of the other members' peer ports, one each.
        secret: what all members know; None: nothing is asked.
        heartbeat_ms: time between two beats.
        timeout_ms: a member that answers none for so long is taken for gone.
        min_in_sync: members that must be in sync for a write of ``quorum`` or ``all``.
        consistent: the side without a majority takes no writes.
    """

    name: str
    member: str
    local: str
    peers: tuple[str, ...]
    secret: str | None
    heartbeat_ms: int
    timeout_ms: int
    min_in_sync: int
    consistent: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What the data plane does, whole. Each plan replaces the one before.

    ``host`` is the machine's name, by which the data plane knows its own markers again. ``state_dir`` is the
    folder of the dirty maps, None to keep them in memory; both it and ``workers``, the threads that serve clients, stay
    the same from plan to plan.
    """

    generation: int
    host: str
    state_dir: str | None
    limits: Limits
    listeners: tuple[PlanListener, ...]
    clusters: tuple[PlanCluster, ...]
    group: PlanGroup | None = None
    workers: int = 1

    def to_json(self) -> bytes:
        """The plan as the data plane reads it. Holds passwords: never log it."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":")).encode()


def targets(config: Config) -> tuple[Target, ...]:
    """The names to resolve, each once, in the order of the file.

    A name of several clusters is asked for as often as the most eager one wants. IP addresses and Unix sockets need no
    resolving and are not among them.
    """
    found: dict[str, Target] = {}
    for cluster in config.clusters.values():
        for endpoint in cluster.endpoints:
            host = _name(parse_endpoint(endpoint))
            if host is not None:
                known = found.get(host, Target(host, cluster.dns_refresh, respect_dns_ttl=False))
                found[host] = Target(
                    host,
                    min(known.refresh_ms, cluster.dns_refresh),
                    respect_dns_ttl=known.respect_dns_ttl or cluster.respect_dns_ttl,
                )
    for peer in config.group.peers if config.group is not None else ():
        host = _name(parse_endpoint(peer))
        if host is not None and config.group is not None:
            known = found.get(host, Target(host, config.group.dns_refresh, respect_dns_ttl=False))
            found[host] = replace(known, refresh_ms=min(known.refresh_ms, config.group.dns_refresh))
    return tuple(found.values())


def compile_plan(
    config: Config,
    resolved: Mapping[str, Sequence[str]],
    generation: int,
    state_dir: str | None = None,
    host: str = "",
    maps: Mapping[str, SlotMap] | None = None,
) -> Plan:
    """The plan of a configuration.

    Args:
        config: What was read.
        resolved: The IP addresses of each host name, in any order. A name that is missing, or has none, gives an
            endpoint without an address.
        generation: The number of the plan, greater than that of the plan before.
        state_dir: The folder of the dirty maps; None for memory only.
        host: The name of this machine.
        maps: The slot maps of Redis Clusters, by the cluster's name, as far as they are known.
    """
    known = maps or {}
    own = [_cluster(name, cluster, resolved, known.get(name)) for name, cluster in config.clusters.items()]
    peers = _peers(config.group, resolved) if config.group is not None else []
    return Plan(
        generation=generation,
        host=host,
        state_dir=state_dir,
        limits=_limits(config.limits, config.resync),
        listeners=(
            *(_listener(listener, config.group, peers) for listener in config.listeners),
            *((_peer_port(config.group, peers),) if config.group is not None else ()),
        ),
        clusters=(*own, *peers),
        group=_group(config.group, peers) if config.group is not None else None,
        workers=config.workers,
    )


def addresses(cluster: Cluster, resolved: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Where the endpoints of a cluster are, as the configuration has them; those that do not resolve are left out."""
    found = [each for endpoint in cluster.endpoints for each in _endpoints(endpoint, resolved)]
    return tuple(dict.fromkeys(each.address for each in found if each.address is not None))


def peer_cluster(group: str, peer: str) -> str:
    """The name of the cluster that a member's peer port is, in the plan and in statistics."""
    return f"{group}~{peer}"


def _peers(group: Group, resolved: Mapping[str, Sequence[str]]) -> list[PlanCluster]:
    """The other members' peer ports: a cluster of one endpoint for each address."""
    endpoints = [found for peer in group.peers for found in _endpoints(peer, resolved)]
    return [
        PlanCluster(
            name=peer_cluster(group.name, endpoint.id),
            endpoints=(endpoint,),
            balance="maglev",
            hash_tags=False,
            connect_timeout_ms=group.connect_timeout,
            op_timeout_ms=group.op_timeout,
            username=None,
            password=None,
        )
        for endpoint in endpoints
    ]


def _group(group: Group, peers: Sequence[PlanCluster]) -> PlanGroup:
    return PlanGroup(
        name=group.name,
        member=group.member or "",
        local=group.name,
        peers=tuple(peer.name for peer in peers),
        secret=group.secret.value if group.secret is not None else None,
        heartbeat_ms=group.heartbeat,
        timeout_ms=group.heartbeat * group.missed_heartbeats,
        min_in_sync=group.min_in_sync,
        consistent=group.on_partition == "consistent",
    )


def _group_route(group: Group, peers: Sequence[PlanCluster]) -> PlanRoute:
    return PlanRoute("", False, group.name, tuple(PlanMirror(peer.name, "exclude") for peer in peers))


def _peer_port(group: Group, peers: Sequence[PlanCluster]) -> PlanListener:
    return PlanListener(
        name=f"{group.name} peers",
        bind=(group.listen,),
        users=(),
        case_insensitive=False,
        routes=(_group_route(group, peers),),
        port="peers",
    )


def _limits(limits: ConfigLimits, resync: Resync) -> Limits:
    return Limits(
        max_clients=limits.max_clients,
        max_request=limits.max_request,
        max_output=limits.max_output,
        memory_bytes=limits.memory,
        log_bytes=limits.log_bytes,
        idle_timeout_ms=limits.idle_timeout,
        handshake_timeout_ms=limits.handshake_timeout,
        resync_keys_per_s=resync.max_keys_per_second,
        resync_bytes_per_s=resync.max_bytes_per_second,
    )


def _listener(listener: Listener, group: Group | None, peers: Sequence[PlanCluster]) -> PlanListener:
    if group is not None and listener.group is not None:
        return PlanListener(
            name=listener.name,
            bind=listener.bind,
            users=_users(listener.auth),
            case_insensitive=False,
            routes=(_group_route(group, peers),),
            port="group",
            consistency=PlanConsistency(
                listener.write_consistency or group.write_consistency,
                listener.read_consistency or group.read_consistency,
            ),
        )
    return PlanListener(
        name=listener.name,
        bind=listener.bind,
        users=_users(listener.auth),
        case_insensitive=listener.case_insensitive,
        routes=tuple(
            PlanRoute(
                prefix=route.prefix,
                remove_prefix=route.remove_prefix,
                cluster=route.cluster,
                mirrors=tuple(_mirror(mirror) for mirror in route.mirrors),
            )
            for route in listener.routes
        ),
    )


def _mirror(mirror: Mirror) -> PlanMirror:
    part = MILLION if mirror.is_copy else min(round(mirror.fraction * MILLION / 100), MILLION - 1)
    return PlanMirror(mirror.cluster, mirror.reads, part)


def _users(auth: ListenerAuth | None) -> tuple[PlanUser, ...]:
    if auth is None:
        return ()
    users = [PlanUser(None, password.value) for password in auth.passwords]
    users += [PlanUser(user.name.value, user.password.value) for user in auth.users]
    return tuple(dict.fromkeys(users))


def _cluster(
    name: str, cluster: Cluster, resolved: Mapping[str, Sequence[str]], slot_map: SlotMap | None
) -> PlanCluster:
    auth = cluster.auth
    plan = PlanCluster(
        name=name,
        endpoints=tuple(found for endpoint in cluster.endpoints for found in _endpoints(endpoint, resolved)),
        balance=cluster.balance,
        hash_tags=cluster.hash_tags,
        connect_timeout_ms=cluster.connect_timeout,
        op_timeout_ms=cluster.op_timeout,
        username=auth.username.value if auth is not None and auth.username is not None else None,
        password=auth.password.value if auth is not None else None,
        redirects=cluster.enable_redirection,
        ring=PlanRing(cluster.minimum_ring_size, cluster.maximum_ring_size, cluster.ring_hash_function),
        choices=cluster.choice_count,
    )
    return _by_slot(plan, cluster.read_policy, slot_map) if cluster.type == "redis_cluster" else plan


def _by_slot(plan: PlanCluster, reads: str, slot_map: SlotMap | None) -> PlanCluster:
    """The cluster with the endpoints of its slot map: its masters first, its replicas if they are read from."""
    plan = replace(plan, balance="slots", hash_tags=True, redirects=True, reads=reads)
    if slot_map is None:
        return plan
    nodes = dict.fromkeys([*slot_map.masters, *(slot_map.replicas if reads != "master" else ())])
    at = {node: index for index, node in enumerate(nodes)}
    return replace(
        plan,
        endpoints=tuple(PlanEndpoint(node.id, node.address) for node in nodes),
        slots=tuple(
            PlanSlots(each.first, each.last, at[each.master], tuple(at[one] for one in each.replicas if one in at))
            for each in slot_map.ranges
        ),
    )


def _endpoints(endpoint: str, resolved: Mapping[str, Sequence[str]]) -> list[PlanEndpoint]:
    """One endpoint of the configuration: as it is, or one per address of its name."""
    address = parse_endpoint(endpoint)
    host = _name(address)
    if host is None or not isinstance(address, Tcp):
        return [PlanEndpoint(endpoint, endpoint)]
    ips = _one_family(resolved.get(host, ()))
    if not ips:
        return [PlanEndpoint(endpoint, None)]
    if len(ips) == 1:
        return [PlanEndpoint(endpoint, str(Tcp(ips[0], address.port)))]
    return [PlanEndpoint(f"{endpoint}/{ip}", str(Tcp(ip, address.port))) for ip in ips]


def _one_family(addresses: Sequence[str]) -> list[str]:
    """The addresses in a fixed order. One server often has an address of each family: then the IPv4 ones count."""
    known = {ipaddress.ip_address(address) for address in addresses}
    chosen = {address for address in known if address.version == 4} or known
    return [str(address) for address in sorted(chosen, key=int)]


def _name(address: Address) -> str | None:
    """The host name of an address that has one."""
    return address.host if isinstance(address, Tcp) and not address.is_ip else None
