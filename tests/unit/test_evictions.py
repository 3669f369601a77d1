"""Keys that a Redis throws away by itself: :mod:`redisha.health.evictions`."""

import pytest

from redisha.health.evictions import TELL_AGAIN, Evictions, Findings, advice
from redisha.health.probe import Facts, facts_of

LRU = Facts("run1", maxmemory_policy="allkeys-lru", maxmemory=1000)


def facts(evicted: int, run_id: str = "run1", policy: str = "noeviction") -> dict[str, Facts]:
    return {"a/h:1": Facts(run_id, evicted_keys=evicted, maxmemory_policy=policy, maxmemory=1000)}


@pytest.mark.parametrize(
    ("policy", "maxmemory", "may"),
    [("noeviction", 1000, False), ("allkeys-lru", 0, False), ("volatile-ttl", 1, True), ("", 1, False)],
)
def test_who_may_evict(policy: str, maxmemory: int, may: bool) -> None:
    found = facts_of({"maxmemory_policy": policy, "maxmemory": str(maxmemory)})
    assert found.may_evict == may
    assert bool(advice(found)) == may


def test_a_policy_is_told_once_and_again_when_it_changes() -> None:
    watch = Evictions()
    (text,) = watch.look({"a/h:1": LRU}, 0).warnings
    assert text.startswith(
        "a/h:1 has the maxmemory-policy allkeys-lru and maxmemory 1000: what it evicts is not mirrored"
    )
    assert watch.look({"a/h:1": LRU}, 1) == Findings()
    assert watch.look(facts(0), 2) == Findings()
    assert len(watch.look({"a/h:1": LRU}, 3).warnings) == 1


def test_growth_is_told_but_not_all_the_time() -> None:
    watch = Evictions()
    assert watch.look(facts(100), 0) == Findings()  # it may be years since
    assert watch.look(facts(100), 1) == Findings()
    found = watch.look(facts(101), 2)
    assert found.evicted == ("a/h:1",)
    assert "a/h:1 evicted 1 key by itself" in found.warnings[0]
    assert watch.look(facts(105), 3) == Findings(evicted=("a/h:1",))
    assert watch.look(facts(106), 4) == Findings(evicted=("a/h:1",))
    (text,) = watch.look(facts(106), 2 + TELL_AGAIN).warnings
    assert "evicted 5 keys" in text


def test_a_restarted_server_counts_from_0() -> None:
    watch = Evictions()
    watch.look(facts(100), 0)
    assert watch.look(facts(0, "run2"), 1) == Findings()
    assert watch.look(facts(3, "run3"), 2).evicted == ("a/h:1",)
    assert watch.look(facts(1, "run3"), 3) == Findings()  # CONFIG RESETSTAT


def test_a_server_that_left_the_plan_is_forgotten() -> None:
    watch = Evictions()
    watch.look({"a/h:1": LRU}, 0)
    watch.look({}, 1)
    assert len(watch.look({"a/h:1": LRU}, 2).warnings) == 1
