"""A Redis Cluster's slot map: what nodes say, and which of them is believed."""

from typing import Any

import pytest

from redisha.config.load import parse
from redisha.config.scalars import Tcp
from redisha.plan import PlanSlots, compile_plan
from redisha.slots import Answer, Node, Range, SlotMap, agree, read_info, read_slots

ASKED = Tcp("10.0.0.9", 7009)


def node(host: str | None, port: int, *more: Any) -> list[Any]:
    return [host.encode() if host is not None else None, port, b"id", *more]


def at(host: str, port: int) -> Node:
    return Node(f"{host}:{port}", f"{host}:{port}")


def owned(*masters: int) -> SlotMap:
    """A map of ten slots for each of these ports."""
    return SlotMap(tuple(Range(10 * n, 10 * n + 9, at("h", port)) for n, port in enumerate(masters)))


def test_a_map_is_read() -> None:
    reply = [
        [8000, 16383, node("10.0.0.2", 7002), node("10.0.0.4", 7004), node("10.0.0.3", 7003)],
        [0, 7998, node("10.0.0.1", 7001)],
        [7999, 7999, node("10.0.0.1", 7001)],
    ]
    found = read_slots(reply, ASKED)
    one, two = at("10.0.0.1", 7001), at("10.0.0.2", 7002)
    replicas = (at("10.0.0.3", 7003), at("10.0.0.4", 7004))
    assert found.ranges == (Range(0, 7999, one), Range(8000, 16383, two, replicas))
    assert (found.masters, found.replicas, found.covered) == ((one, two), replicas, 16384)
    assert read_slots([], ASKED) == SlotMap(())


def test_a_node_may_not_know_its_own_address_or_have_a_name() -> None:
    extra = [b"ip", b"10.0.0.1"]
    reply = [
        [0, 0, node("", 7001)],
        [1, 1, node(None, 7002)],
        [2, 2, node("redis-1.local", 7003, extra), node("gone.local", 7005, [])],
        [3, 3, node("::1", 7004)],
        [4, 4, node("nobody.local", 7006, [])],
    ]
    assert [(each.master.id, each.master.address, each.replicas) for each in read_slots(reply, ASKED).ranges] == [
        ("10.0.0.9:7001", "10.0.0.9:7001", ()),
        ("10.0.0.9:7002", "10.0.0.9:7002", ()),
        ("redis-1.local:7003", "10.0.0.1:7003", ()),
        ("[::1]:7004", "[::1]:7004", ()),
    ]


@pytest.mark.parametrize(
    "reply",
    [
        b"OK",
        None,
        [1],
        [[0, 16384, node("h", 1)]],
        [[5, 4, node("h", 1)]],
        [[0, 1]],
        [[0, 1, [b"h"]]],
        [[0, 1, node("h", 0)]],
    ],
)
def test_what_is_no_map_is_refused(reply: object) -> None:
    with pytest.raises(ValueError, match="not a"):
        read_slots(reply, ASKED)


def test_info() -> None:
    assert read_info(b"cluster_state:ok\r\ncluster_current_epoch:12\r\n") == (True, 12)
    assert read_info(b"cluster_state:fail\r\ncluster_current_epoch:x\r\n") == (False, 0)
    assert read_info(ValueError("NOPERM")) == (True, 0)


def test_who_is_believed() -> None:
    old, new = owned(1, 2), owned(1, 3)
    assert agree([]) is None
    assert agree([Answer(SlotMap(()), epoch=9)]) is None
    assert agree([Answer(SlotMap(()), epoch=9), Answer(old)]) == old
    assert agree([Answer(old, epoch=5), Answer(old, epoch=5), Answer(new, epoch=5)]) == old, "most of them"
    assert agree([Answer(old, epoch=5), Answer(old, epoch=5), Answer(new, epoch=6)]) == new, "the newest"
    assert agree([Answer(old, is_ok=False, epoch=7), Answer(new, epoch=6)]) == new, "one that is cut off"
    assert agree([Answer(old, is_ok=False, epoch=7), Answer(new, is_ok=False, epoch=6)]) == old


CONFIG = """
listeners: [{bind: "0.0.0.0:6380", catch_all: a}]
clusters: {a: {type: redis_cluster, endpoints: "10.0.0.1:7001", discovery: static, read_policy: %s}}
"""


@pytest.mark.parametrize(("policy", "endpoints"), [("master", 2), ("any", 3)])
def test_the_plan_has_the_map(policy: str, endpoints: int) -> None:
    config = parse(CONFIG % policy, "f.yaml", {}).config
    masters = at("10.0.0.1", 7001), at("10.0.0.2", 7002)
    slot_map = SlotMap(
        (Range(0, 99, masters[1], (at("10.0.0.3", 7003),)), Range(100, 16383, masters[0], (masters[1],)))
    )
    (cluster,) = compile_plan(config, {}, 1, maps={"a": slot_map}).clusters
    assert [each.id for each in cluster.endpoints] == ["10.0.0.2:7002", "10.0.0.1:7001", "10.0.0.3:7003"][:endpoints]
    replicas = (2,) if policy == "any" else ()
    assert cluster.slots == (PlanSlots(0, 99, 0, replicas), PlanSlots(100, 16383, 1, (0,)))
    assert (cluster.balance, cluster.reads, cluster.redirects, cluster.hash_tags) == ("slots", policy, True, True)


def test_until_there_is_a_map_the_seeds_are_asked() -> None:
    (cluster,) = compile_plan(parse(CONFIG % "master", "f.yaml", {}).config, {}, 1).clusters
    assert ([each.id for each in cluster.endpoints], cluster.slots) == (["10.0.0.1:7001"], ())
