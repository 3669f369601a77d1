"""What Dynomite's REST tells and sets, of a redisha: :class:`redisha.admin.dynomite.DynomiteView`.

Owns: the consistency that was set there. It is for clients that come from then on, is in each plan from then on, also
after a reload, and ends with the process.
Never: counts anything; the numbers are the data plane's, under Dynomite's names.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from redisha.admin import ServerState
from redisha.config.dynomite.levels import from_native, to_native
from redisha.core import ListenerStats, Stats, command_flags
from redisha.group.status import Data, GroupStatus, MemberStatus, Role
from redisha.plan import Plan, PlanConsistency, PlanListener

if TYPE_CHECKING:
    from redisha.overview import Running

log = logging.getLogger(__name__)

GROUP_PORT = "group"
"""The port of a plan's listener that has a consistency."""

PEER_PORT = "peers"
"""The port of the listener where other members come in."""

_SCRIPTS = frozenset({"eval", "evalsha", "fcall"})
"""What may write, without a flag that says so."""

_COUNTED = {
    "redis_req_get": "get",
    "redis_req_set": "set",
    "redis_req_del": "del",
    "redis_req_incr_decr": "incr incrby incrbyfloat decr decrby",
    "redis_req_keys": "keys",
    "redis_req_mget": "mget",
    "redis_req_scan": "scan",
    "redis_req_sort": "sort",
    "redis_req_lreqm": "lrem",  # as Dynomite spells it
    "redis_req_sunion": "sunion",
    "redis_req_ping": "ping",
    "redis_req_lists": "lindex linsert llen lmove lmpop lpop lpos lpush lpushx lrange lset ltrim "
    "rpop rpoplpush rpush rpushx blmove blmpop blpop brpop brpoplpush",
    "redis_req_sets": "sadd scard sdiff sdiffstore sinter sintercard sinterstore sismember smembers smismember smove "
    "spop srandmember srem sscan sunionstore",
    "redis_req_hashes": "hdel hexists hget hgetall hincrby hincrbyfloat hkeys hlen hmget hmset hrandfield hscan hset "
    "hsetnx hstrlen hvals",
    "redis_req_sortedsets": "zadd zcard zcount zdiff zdiffstore zincrby zinter zintercard zinterstore zlexcount zmpop "
    "zmscore zpopmax zpopmin zrandmember zrange zrangebylex zrangebyscore zrangestore zrank zrem zremrangebylex "
    "zremrangebyrank zremrangebyscore zrevrange zrevrangebylex zrevrangebyscore zrevrank zscan zscore zunion "
    "zunionstore bzmpop bzpopmax bzpopmin",
}
_COUNTER_OF = {command: counter for counter, commands in _COUNTED.items() for command in commands.split()}
_OTHER = "redis_req_other"


class DynomiteSide:
    """The view.

    Args:
        now: what runs.
        apply: compiles and applies a plan anew.
    """

    def __init__(self, now: Running, apply: Callable[[], None]) -> None:
        self._now = now
        self._apply = apply
        self._set: dict[Literal["read", "write"], str] = {}

    def adapt(self, plan: Plan) -> Plan:
        """The plan with the consistency that was set, for the listeners of a group."""
        if not self._set:
            return plan
        return replace(plan, listeners=tuple(self._adapted(each) for each in plan.listeners))

    def _adapted(self, listener: PlanListener) -> PlanListener:
        if listener.port != GROUP_PORT:
            return listener
        return replace(listener, consistency=replace(listener.consistency, **self._set))

    # --- what is told -------------------------------------------------------------------------------------------------

    def group(self) -> GroupStatus:
        """The group as this member sees it; for a sidecar without a group one of itself alone."""
        now = self._now
        if now.member is not None:
            return now.member.status()
        host, live = os.uname().nodename, now.state is ServerState.LIVE
        me = MemberStatus(host, leader=host, role=Role.LEADER, data=Data.COMPLETE, in_sync=live)
        return GroupStatus(next(iter(now.loaded.config.clusters), ""), me, ())

    def consistency(self) -> tuple[str, str]:
        """Of reads and of writes, in Dynomite's words."""
        found = PlanConsistency()
        if self._now.plan is not None:
            found = next((each.consistency for each in self._now.plan.listeners if each.port == GROUP_PORT), found)
        return from_native("read", found.read), from_native("write", found.write)

    def request_counters(self) -> dict[str, int]:
        """Numbers by the names that Dynomite's ``/info`` has."""
        stats = self._now.plane.stats()
        plan = self._now.plan
        between = {each.name for each in plan.listeners if each.port == PEER_PORT} if plan is not None else set()
        clients = [each for each in stats.listeners if each.name not in between]
        members = [each for each in stats.listeners if each.name in between]
        found = dict(_latencies(clients)) | dict(_clients(stats, clients)) | dict(_members(members))
        return found | dict(_own_redis(stats, self._own_cluster()))

    def uptime(self) -> int:
        """Seconds since the start."""
        return self._now.uptime

    def _own_cluster(self) -> str:
        config = self._now.loaded.config
        return config.group.name if config.group is not None else next(iter(config.clusters), "")

    # --- what is set --------------------------------------------------------------------------------------------------

    def set_consistency(self, which: Literal["read", "write"], level: str) -> None:
        """Set one of them for clients that come from now on; the level is one of Dynomite's, in capital letters.

        Raises:
            UnsupportedError: there is no group whose consistency it could be.
            RedishaError: the plan was refused; nothing was changed.
        """
        if self._now.loaded.config.group is None:
            from redisha.admin.dynomite import UnsupportedError  # its server is there when this is called

            raise UnsupportedError("without a group each command has one server to ask")
        before = dict(self._set)
        self._set[which] = to_native(which, level)
        try:
            self._apply()
        except Exception:
            self._set = before
            raise
        log.info("%s_consistency is %s until this process ends", which, self._set[which])

    def set_state(self, state: str) -> None:
        """Take another state.

        Raises:
            UnsupportedError: always; a member's state follows from what it can do.
        """
        from redisha.admin.dynomite import NO_STATE, UnsupportedError

        raise UnsupportedError(NO_STATE)

    def peer(self, verb: str, name: str) -> None:
        """Do something to a peer.

        Raises:
            UnsupportedError: always.
        """
        from redisha.admin.dynomite import NO_PEER, UnsupportedError

        raise UnsupportedError(NO_PEER)


def _latencies(listeners: Sequence[ListenerStats]) -> Iterator[tuple[str, int]]:
    """Latencies in microseconds, of the listener that has most to tell: histograms cannot be added."""
    busiest = max(listeners, key=lambda each: each.downstream_rq_time_us.count, default=None)
    if busiest is not None:
        time = busiest.downstream_rq_time_us
        yield "latency_max", time.max
        yield "latency_999th", time.p999
        yield "latency_99th", time.p99
        yield "latency_95th", time.p99  # of the quantiles that are kept, the next one above
        yield "latency_mean", time.sum // time.count if time.count else 0


def _clients(stats: Stats, listeners: Sequence[ListenerStats]) -> Iterator[tuple[str, int]]:
    reads, writes, _ = _reads_and_writes(stats)
    yield "client_connections", sum(each.downstream_cx_active for each in listeners)
    yield "client_eof", sum(each.downstream_cx_destroy for each in listeners)
    yield "client_err", sum(each.downstream_cx_protocol_error for each in listeners)
    yield "client_dropped_requests", sum(each.downstream_rq_error for each in listeners)
    yield "client_read_requests", reads
    yield "client_write_requests", writes


def _members(listeners: Sequence[ListenerStats]) -> Iterator[tuple[str, int]]:
    """Of the peer port."""
    yield "dnode_client_connections", sum(each.downstream_cx_active for each in listeners)
    yield "dnode_client_eof", sum(each.downstream_cx_destroy for each in listeners)
    yield "dnode_client_err", sum(each.downstream_cx_protocol_error for each in listeners)


def _own_redis(stats: Stats, cluster: str) -> Iterator[tuple[str, int]]:
    reads, writes, counted = _reads_and_writes(stats)
    own = [each for each in stats.endpoints if each.cluster == cluster]
    yield "read_requests", reads
    yield "write_requests", writes
    yield "in_queue", sum(each.upstream_rq_active for each in own)
    yield "server_eof", sum(each.upstream_cx_destroy for each in own)
    yield "server_err", sum(each.upstream_cx_protocol_error for each in own)
    yield "server_timedout", sum(each.upstream_rq_timeout for each in own)
    yield "server_dropped_requests", sum(each.upstream_rq_unavailable for each in own)
    yield "average_server_latency", max((each.upstream_rq_time_us.p50 for each in own), default=0)
    yield "99_server_latency", max((each.upstream_rq_time_us.p99 for each in own), default=0)
    yield from counted.items()


def _reads_and_writes(stats: Stats) -> tuple[int, int, dict[str, int]]:
    """Commands that only read, those that may write, and Dynomite's counters of single commands and types."""
    flags = command_flags()
    reads = writes = 0
    counted: dict[str, int] = {}
    for command in stats.commands:
        if "readonly" in flags.get(command.name, ()):
            reads += command.total
        elif "write" in flags.get(command.name, ()) or command.name in _SCRIPTS:
            writes += command.total
        counter = _COUNTER_OF.get(command.name, _OTHER)
        counted[counter] = counted.get(counter, 0) + command.total
    return reads, writes, counted
