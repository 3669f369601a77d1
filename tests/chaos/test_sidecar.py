"""The sidecar is killed by SIGKILL and started again: its state directory says what the mirror may lack."""

import shutil

import pytest

from support.breakages import BREAKAGES, EMPTY, KILLED, Breakage, Scene
from support.crowd import Crowd
from support.stage import AOF, always


@pytest.mark.timeout(120)
def test_killed(stage, seed: int) -> None:
    """Alone, under load: only what was on its way is copied."""
    scene = stage()
    with Crowd(scene.proxy.port, seed=seed) as crowd:
        crowd.acknowledges(500)
        with scene.healing("buckets", "log", noticed=always):
            scene.restart_proxy()
        crowd.acknowledges(200)
    scene.assert_healed(crowd)


@pytest.mark.chaos
@pytest.mark.timeout(240)
def test_killed_again_and_again(stage, seed: int) -> None:
    """Five times, at once after it answers again."""
    scene = stage(mirror=AOF)
    with Crowd(scene.proxy.port, seed=seed) as crowd:
        for _ in range(4):
            scene.restart_proxy()
            crowd.acknowledges(30)
        with scene.healing("buckets", "full", noticed=always):
            scene.restart_proxy()
    scene.assert_healed(crowd)


def _combined(scene_of, breakage: Breakage, seed: int, relay, *, mended_meanwhile: bool) -> None:
    relays: list = []

    def behind(port: int):
        relays.append(relay(port))
        return relays[-1]

    scene = scene_of(**breakage.options, behind=behind if breakage.behind_relay else None)
    with Crowd(scene.proxy.port, seed=seed) as crowd:
        crowd.acknowledges(300)
        broken = Scene(scene, crowd, *relays)
        with scene.healing(*breakage.after_restart, noticed=always):
            breakage.breaks(broken)
            if mended_meanwhile:
                scene.restart_proxy(lambda: breakage.mends(broken))
            else:
                scene.restart_proxy()
                crowd.acknowledges(200)
                assert breakage.name == "reset" or scene.replica()["state"] != "in_sync"
                breakage.mends(broken)
        crowd.acknowledges(200)
    scene.assert_healed(crowd)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("breakage", [KILLED, EMPTY], ids=lambda each: each.name)
def test_killed_while_the_mirror_is_away(stage, relay, breakage: Breakage, seed: int) -> None:
    """The mirror comes back while there is no sidecar: with its data, or empty."""
    _combined(stage, breakage, seed, relay, mended_meanwhile=True)


@pytest.mark.chaos
@pytest.mark.timeout(240)
@pytest.mark.parametrize("mended_meanwhile", [True, False], ids=["mended-meanwhile", "mended-after"])
@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda each: each.name)
def test_killed_while_the_mirror_is_broken(stage, relay, breakage: Breakage, mended_meanwhile: bool, seed: int) -> None:
    """In each of the things that can happen to a mirror."""
    _combined(stage, breakage, seed, relay, mended_meanwhile=mended_meanwhile)


@pytest.mark.timeout(120)
def test_state_lost(stage, seed: int) -> None:
    """The state directory is emptied while the sidecar is away: everything is compared, and it is healed."""
    scene = stage(mirror=AOF)

    def lose() -> None:
        shutil.rmtree(scene.state)
        scene.state.mkdir()

    with Crowd(scene.proxy.port, seed=seed) as crowd:
        crowd.acknowledges(300)
        with scene.healing("full", noticed=always):
            scene.restart_proxy(lose)
    scene.assert_healed(crowd)


@pytest.mark.chaos
@pytest.mark.timeout(240)
def test_twice_within_one_resync(stage, seed: int) -> None:
    """Killed when a full resync is at its beginning, and when it is under way: a half copied mirror stays partial."""
    scene = stage(keys=3_000, rate=1_500, ready=False)
    with Crowd(scene.proxy.port, seed=seed) as crowd:
        scene.until(lambda now: now["resync_done"] > 100, "it has begun")
        assert scene.replica()["state"] == "resync"
        scene.restart_proxy()
        scene.until(lambda now: now["resync_done"] > 1_500, "it is under way again")
        assert scene.replica()["state"] == "resync"
        with scene.healing("full", noticed=always, timeout=60):
            scene.restart_proxy()
    scene.assert_healed(crowd)
