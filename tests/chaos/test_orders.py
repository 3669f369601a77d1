"""An operator's orders: pause, go on, do it all again."""

import pytest

from support import wait
from support.crowd import Crowd
from support.stage import AOF, Stage, restarted, scanned


@pytest.mark.timeout(120)
def test_pause_and_resume(stage, seed: int) -> None:
    """While a resync is paused nothing more is looked at, live writes go on, and it is never called in sync."""
    scene = stage(keys=3_000, rate=3_000, ready=False)
    with Crowd(scene.proxy.port, seed=seed, writers=2) as crowd:
        scene.until(lambda now: now["resync_done"] > 100, "it has begun")
        scene.order("pause")
        scene.until(lambda now: now["state"] == "paused", "it is paused")
        done = _standstill(scene)
        crowd.acknowledges(300)
        now = scene.replica()
        assert now["state"] == "paused"
        assert now["resync_done"] == done < now["resync_total"]
        with scene.healing("full", "log", noticed=lambda before, now: now["state"] != "paused"):
            scene.order("resume")
    scene.assert_healed(crowd)
    crowd.assert_undisturbed()
    assert scene.replica()["resync_full_total"] == 1


def _standstill(scene: Stage) -> int:
    """How many keys are looked at, once that number does not change between two looks any more."""
    seen = [-1]

    def stands() -> bool:
        seen.append(scene.replica()["resync_done"])
        return seen[-1] == seen[-2]

    wait.until(stands, "nothing more is looked at", every=0.3)
    return seen[-1]


def test_paused_replica_that_is_in_sync(stage) -> None:
    """Paused before it is needed: what the mirror misses is not scanned for until it is resumed."""
    scene = stage(mirror=AOF)
    scene.order("pause")
    scene.mirror.kill()
    with scene.proxy.conn() as conn:
        assert set(conn.pipeline(*[("SET", f"k{n}", n) for n in range(100)])) == {b"+OK\r\n"}
    scene.mirror.start()
    scene.until(lambda now: now["restarts_total"] == 1 and now["state"] == "paused", "it waits for the order")
    with scene.healing("buckets", noticed=scanned):
        scene.order("resume")
    scene.assert_healed()


@pytest.mark.timeout(120)
def test_full_by_hand_after_a_direct_writer(stage, seed: int) -> None:
    """Keys were deleted, changed and added behind redisha's back: a full resync by hand makes both equal again."""
    scene = stage()
    scene.mirror.cli("DEL", *[f"fill:{n}" for n in range(100)])
    scene.mirror.cli("MSET", *[each for n in range(100, 200) for each in (f"fill:{n}", "changed")])
    scene.mirror.cli("MSET", *[each for n in range(100) for each in (f"added:{n}", "changed")], db=1)
    scene.mirror.cli("PEXPIRE", "fill:300", 3_600_000)
    scene.mirror.cli("SET", "only", "here", db=9)
    with Crowd(scene.proxy.port, seed=seed, writers=2) as crowd:
        with scene.healing("full", noticed=scanned):
            scene.order("full")
        crowd.acknowledges(200)
    scene.assert_healed(crowd)
    crowd.assert_undisturbed()


def test_start_by_hand_when_nothing_is_missing(stage) -> None:
    """It is looked over, and in sync again."""
    scene = stage(keys=0)
    scene.order("start")
    scene.until_whole()
    scene.assert_healed()


def test_order_for_the_primary_is_for_its_mirrors(stage) -> None:
    """An order names a cluster; that of the primary means all its mirrors."""
    scene = stage(keys=0)
    with scene.healing("full", noticed=scanned):
        scene.order("full", "redis-001")
    scene.assert_healed()


@pytest.mark.chaos
@pytest.mark.timeout(240)
def test_full_by_hand_again_and_again_under_load(stage, seed: int) -> None:
    """An order in the middle of what it orders."""
    scene = stage(mirror=AOF, keys=3_000, rate=5_000)
    with Crowd(scene.proxy.port, seed=seed) as crowd:
        for action in ("full", "full", "start", "pause", "full", "resume", "start"):
            scene.order(action)
            crowd.acknowledges(100)
        scene.mirror.restart()
        with scene.healing("full", noticed=lambda before, now: restarted({"restarts_total": 0}, now)):
            scene.order("full")
    scene.assert_healed(crowd)
    crowd.assert_undisturbed()
