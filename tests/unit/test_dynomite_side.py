"""What Dynomite's REST is told of a redisha, and what it sets, without a server."""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from redisha.admin import ServerState
from redisha.admin.dynomite import NO_PEER, NO_STATE, UnsupportedError
from redisha.admin.dynomite_documents import POOL, SERVER, TOP
from redisha.config.load import parse
from redisha.core import CommandStats, DataPlane, EndpointStats, Latency, ListenerStats, Stats
from redisha.dynomite_side import DynomiteSide
from redisha.errors import PlanError
from redisha.group.expand import expand
from redisha.overview import Running
from redisha.plan import Plan, compile_plan
from support.groups import LED

GROUP = """
listeners:
  - {name: first, bind: "127.0.0.1:8102", group: cache}
  - {name: second, bind: "127.0.0.1:8103", group: cache, write_consistency: all}
group: {name: cache, member: redis-001, listen: 0.0.0.0:8101, redis: "127.0.0.1:6379", peers: [redis-002:8101]}
"""
ALONE = "listeners: [{bind: 127.0.0.1:8102, catch_all: own}]\nclusters: {own: {endpoints: [redis:6379]}}\n"

STATS = Stats(
    listeners=(
        ListenerStats("first", downstream_cx_active=2, downstream_cx_destroy=5, downstream_rq_error=1),
        ListenerStats("second", downstream_cx_active=1, downstream_rq_time_us=Latency(4, 100, 20, 30, 40, 50, 60)),
        ListenerStats("cache peers", downstream_cx_active=7, downstream_rq_time_us=Latency(9, 9, 9, 9, 9, 9, 9)),
    ),
    commands=tuple(CommandStats(*each) for each in (("get", 5), ("incrby", 3), ("hset", 2), ("eval", 1), ("ping", 4))),
    endpoints=(
        EndpointStats("cache", "127.0.0.1:6379", upstream_rq_timeout=2, upstream_rq_time_us=Latency(p50=8, p99=9)),
        EndpointStats("cache~redis-002:8101", "redis-002:8101", upstream_rq_timeout=50),
    ),
)


class Sidecar:
    """A sidecar that applies plans."""

    def __init__(self, text: str) -> None:
        self.refuse = False
        loaded = parse(text, "redisha.yaml")
        loaded = replace(loaded, config=expand(loaded.config))
        plane = cast("DataPlane", SimpleNamespace(stats=lambda: STATS))
        nothing: Any = None
        self.now = Running(plane, nothing, nothing, nothing, nothing, loaded, ServerState.LIVE)
        self.side = DynomiteSide(self.now, self.apply)
        self.apply()

    def apply(self) -> None:
        if self.refuse:
            raise PlanError("no")
        self.now.plan = self.side.adapt(compile_plan(self.now.loaded.config, {}, self.now.generation + 1))

    @property
    def levels(self) -> list[tuple[str, str, str]]:
        plan = self.now.plan
        assert isinstance(plan, Plan)
        return [(each.port, each.consistency.write, each.consistency.read) for each in plan.listeners]


def test_a_level_is_set_in_each_plan_from_then_on() -> None:
    sidecar = Sidecar(GROUP)
    assert sidecar.side.consistency() == ("DC_ONE", "DC_ONE")
    assert sidecar.levels == [("group", "one", "one"), ("group", "all", "one"), ("peers", "one", "one")]
    sidecar.side.set_consistency("write", "DC_QUORUM")
    sidecar.side.set_consistency("read", "DC_SAFE_QUORUM")
    assert sidecar.side.consistency() == ("DC_SAFE_QUORUM", "DC_SAFE_QUORUM")
    assert sidecar.levels[:2] == [("group", "quorum", "leader")] * 2
    assert sidecar.levels[2] == ("peers", "one", "one"), "what members say to each other names its own"
    sidecar.apply()
    assert sidecar.levels[:2] == [("group", "quorum", "leader")] * 2, "a reload does not forget it"
    sidecar.side.set_consistency("read", "DC_ONE")
    assert sidecar.levels[0] == ("group", "quorum", "one")


def test_a_level_that_is_refused_is_not_kept() -> None:
    sidecar = Sidecar(GROUP)
    sidecar.refuse = True
    with pytest.raises(PlanError):
        sidecar.side.set_consistency("write", "DC_QUORUM")
    sidecar.refuse = False
    sidecar.apply()
    assert sidecar.levels[0] == ("group", "one", "one")


def test_what_cannot_be_ordered() -> None:
    side = Sidecar(GROUP).side
    with pytest.raises(UnsupportedError, match=NO_STATE):
        side.set_state("standby")
    with pytest.raises(UnsupportedError, match=NO_PEER):
        side.peer("down", "all")
    with pytest.raises(UnsupportedError, match="without a group"):
        Sidecar(ALONE).side.set_consistency("read", "DC_ONE")


def test_counters() -> None:
    found = Sidecar(GROUP).side.request_counters()
    assert found.keys() <= {*TOP.split(), *POOL.split(), *SERVER.split()}
    assert {name: value for name, value in found.items() if value} == {
        "latency_max": 60,
        "latency_999th": 50,
        "latency_99th": 40,
        "latency_95th": 40,
        "latency_mean": 25,
        "client_connections": 3,
        "client_eof": 5,
        "client_dropped_requests": 1,
        "client_read_requests": 5,
        "client_write_requests": 6,
        "dnode_client_connections": 7,
        "read_requests": 5,
        "write_requests": 6,
        "server_timedout": 2,
        "average_server_latency": 8,
        "99_server_latency": 9,
        "redis_req_get": 5,
        "redis_req_incr_decr": 3,
        "redis_req_hashes": 2,
        "redis_req_ping": 4,
        "redis_req_other": 1,
    }


def test_the_group_is_the_members_and_without_one_it_is_alone() -> None:
    sidecar = Sidecar(GROUP)
    member: Any = SimpleNamespace(status=lambda: LED)
    sidecar.now.member = member
    assert sidecar.side.group() is LED
    alone = Sidecar(ALONE).side
    status = alone.group()
    assert (status.name, status.peers, status.me.in_sync, str(status.me.role)) == ("own", (), True, "leader")
    assert alone.consistency() == ("DC_ONE", "DC_ONE")
    assert json.dumps(alone.request_counters())
