"""A mirror that was away, slow, wrong or emptied becomes equal again by itself, under load; no client notices."""

import random
import shutil

import pytest

from support import wait
from support.breakages import BREAKAGES, Breakage, Scene
from support.crowd import Crowd
from support.stage import AOF, Stage, refused, restarted, scanned


@pytest.mark.timeout(120)
@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda each: each.name)
def test_broken_and_mended(stage, relay, breakage: Breakage, seed: int) -> None:
    """Each thing that can happen to a mirror, once."""
    relays: list = []

    def behind(port: int):
        relays.append(relay(port))
        return relays[-1]

    scene = stage(**breakage.options, behind=behind if breakage.behind_relay else None)
    with Crowd(scene.proxy.port, seed=seed) as crowd:
        crowd.acknowledges(300)
        broken = Scene(scene, crowd, *relays)
        with scene.healing(*breakage.kinds, noticed=breakage.noticed):
            breakage.breaks(broken)
            breakage.mends(broken)
        crowd.acknowledges(200)
    scene.assert_healed(crowd)
    crowd.assert_undisturbed()


@pytest.mark.chaos
@pytest.mark.timeout(240)
def test_broken_again_while_it_is_healed(stage, seed: int) -> None:
    """Killed in the middle of its resync, three times: what is half copied is never called in sync."""
    scene = stage(mirror=AOF, keys=3_000, rate=4_000)
    with Crowd(scene.proxy.port, seed=seed) as crowd:
        for _ in range(3):
            before = scene.replica()
            scene.mirror.kill()
            crowd.acknowledges(300)
            scene.mirror.start()
            scene.until(lambda now, was=before: scanned(was, now), "a resync has begun")
        with scene.healing("buckets", "full", noticed=restarted):
            scene.mirror.restart()
    scene.assert_healed(crowd)
    crowd.assert_undisturbed()


@pytest.mark.chaos
@pytest.mark.timeout(240)
def test_emptied_again_while_it_is_filled(stage, seed: int) -> None:
    """A mirror without persistence ends in the middle of a full resync: nothing of the first half counts."""
    scene = stage(keys=3_000, rate=1_500, ready=False)
    with Crowd(scene.proxy.port, seed=seed) as crowd:
        scene.until(lambda now: now["resync_done"] > 500, "it is half filled")
        assert scene.replica()["state"] == "resync"
        scene.mirror.restart()
        scene.until(lambda now: now["restarts_total"] == 1, "it is another one")
        scene.until(lambda now: now["resync_done"] > 500, "it is half filled again")
        with scene.healing("full", noticed=restarted):
            scene.mirror.restart()
    scene.assert_healed(crowd)


@pytest.mark.chaos
@pytest.mark.timeout(240)
def test_everything_in_a_row(stage, seed: int) -> None:
    """One breakage after the other on the same servers, in the order of the seed."""
    scene = stage(mirror=AOF)
    chosen = [each for each in BREAKAGES if not each.behind_relay and each.name not in ("restarted-empty", "overflow")]
    random.Random(seed).shuffle(chosen)
    with Crowd(scene.proxy.port, seed=seed) as crowd:
        for breakage in chosen:
            broken = Scene(scene, crowd)
            with scene.healing(*breakage.kinds, noticed=breakage.noticed, name=f" {breakage.name}"):
                breakage.breaks(broken)
                breakage.mends(broken)
    scene.assert_healed(crowd)
    crowd.assert_undisturbed()


@pytest.mark.chaos
@pytest.mark.timeout(240)
def test_older_than_the_map(stage, seed: int) -> None:
    """Its append-only file is from before the generations that the map knows: only a full resync will do."""
    scene = stage(mirror=AOF)
    copy = scene.mirror.directory / "copy"
    shutil.copytree(scene.mirror.directory / "appendonlydir", copy)
    first = scene.replica()["generation"]
    with Crowd(scene.proxy.port, seed=seed) as crowd, scene.proxy.conn() as conn:

        def advances() -> bool:
            # Many keys, so that a generation does not last longer than need be.
            conn.pipeline(*[("SET", f"many:{number}", crowd.answered) for number in range(3_000)])
            return scene.replica()["generation"] >= first + 4

        wait.until(advances, "four generations have begun", 120, every=1.0)
        with scene.healing("full", noticed=restarted):
            scene.mirror.kill()
            shutil.rmtree(scene.mirror.directory / "appendonlydir")
            copy.rename(scene.mirror.directory / "appendonlydir")
            scene.mirror.start()
    scene.assert_healed(crowd)
    crowd.assert_undisturbed()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("sidecar_killed", [False, pytest.param(True, marks=pytest.mark.chaos)])
def test_data_replaced_in_the_same_process(stage, redis_server, sidecar_killed: bool, seed: int) -> None:
    """It was another server's replica for a while: all its data, the marker included, is the other's.

    Nothing tells the sidecar but the refused writes. It is filled, or shown as unproven; by the operator's word it is
    equal again. It is never called in sync before it is.
    """
    scene = stage()
    other = redis_server(repl_diskless_sync_delay="0")
    other.cli("SET", "other", "data")
    with Crowd(scene.proxy.port, seed=seed) as crowd:
        crowd.acknowledges(200)
        before = scene.replica()
        scene.mirror.cli("REPLICAOF", other.host, other.port)
        wait.until(lambda: scene.mirror.cli("GET", "other") == b"data", "it has the other's data", 20)
        crowd.acknowledges(200)
        scene.until(lambda now: refused(before, now), "writes are refused")
        if sidecar_killed:
            scene.proxy.kill()
        scene.mirror.cli("REPLICAOF", "NO", "ONE")
        if sidecar_killed:
            scene.proxy.start(ready=False)
        scene.until(lambda now: now["state"] in ("unproven", "in_sync"), "it has come to an end")
        crowd.acknowledges(200)
        if scene.until(lambda now: now["state"] in ("unproven", "in_sync"), "an end")["state"] == "unproven":
            with scene.healing("full", noticed=scanned):
                scene.order("full")
    scene.assert_healed(crowd)


def healed_text(scene: Stage) -> str:
    """In redisha's own words."""
    return scene.replica()["healed"]


def test_first_contact_with_an_empty_mirror(stage) -> None:
    """Data from before there was a sidecar: a full copy, and then in sync; the account says how many."""
    scene = stage()
    now = scene.replica()
    assert now["resync_full_total"] == 1
    assert now["resync_keys_total"] >= 2_000
    assert healed_text(scene).startswith("full")
    assert now["sole"] == "yes"
    scene.assert_healed()
