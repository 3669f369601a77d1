"""The primary is restarted: what was acknowledged is on it afterwards, if need be from its mirror."""

import shutil

import pytest

from support import wait
from support.crowd import Crowd
from support.equality import markers
from support.stage import AOF, Stage, always

PRIMARY = "redis-001"


def _another_primary(scene: Stage, run_id: str) -> bool:
    """Whether the sidecar is connected to another process than that."""
    now = scene.endpoint(PRIMARY)
    return now["state"] == "ready" and now["run_id"] != run_id


def _primary_is_back(scene: Stage, crowd: Crowd, run_id: str) -> None:
    """The sidecar has noticed the new process and serves writes again."""
    wait.until(lambda: _another_primary(scene, run_id), "the sidecar knows the new primary", 30, every=0.05)
    crowd.acknowledges(200, timeout=40)


@pytest.mark.timeout(120)
def test_restarted_with_its_data(stage, seed: int) -> None:
    """``kill -9`` and an append-only file: it has all it had acknowledged, and the mirror stays its copy."""
    scene = stage(primary=AOF)
    run_id = scene.endpoint(PRIMARY)["run_id"]
    with Crowd(scene.proxy.port, seed=seed) as crowd:
        crowd.acknowledges(500)
        # The mirror was filled a moment ago: until the next generation begins, everything counts as just written.
        wait.until(lambda: scene.replica()["dirty_buckets"] < 1 << 20, "that is over")
        with scene.healing("log", "buckets", noticed=always):
            scene.primary.kill()
            scene.primary.start()
            _primary_is_back(scene, crowd, run_id)
    scene.assert_healed(crowd)


@pytest.mark.timeout(120)
def test_restarted_empty(stage, seed: int) -> None:
    """Without persistence: refilled from its mirror before it serves anyone. Nothing acknowledged is missing."""
    scene = stage()
    run_id = scene.endpoint(PRIMARY)["run_id"]
    with Crowd(scene.proxy.port, seed=seed, wild=0) as crowd:
        crowd.acknowledges(500)
        with scene.healing("log", "buckets", "full", noticed=always):
            scene.primary.restart()
            _primary_is_back(scene, crowd, run_id)
    assert scene.primary.cli("DBSIZE") > 1_000
    scene.assert_healed(crowd)


@pytest.mark.chaos
@pytest.mark.timeout(240)
def test_restarted_empty_under_mixed_load(stage, seed: int) -> None:
    """The same while keys of short lives and scripts without repeatable effects are written."""
    scene = stage()
    run_id = scene.endpoint(PRIMARY)["run_id"]
    with Crowd(scene.proxy.port, seed=seed, wild=2) as crowd:
        crowd.acknowledges(500)
        with scene.healing("log", "buckets", "full", noticed=always):
            scene.primary.restart()
            _primary_is_back(scene, crowd, run_id)
    scene.assert_healed(crowd)


@pytest.mark.chaos
@pytest.mark.timeout(240)
def test_restarted_from_an_old_file(stage, seed: int) -> None:
    """Its marker is older than what the sidecar knows: it is refilled, as an empty one is."""
    scene = stage(primary=AOF)
    directory, copy = scene.primary.directory / "appendonlydir", scene.primary.directory / "copy"
    with Crowd(scene.proxy.port, seed=seed, wild=0) as crowd:
        crowd.acknowledges(200)
        shutil.copytree(directory, copy)
        for _ in range(3):  # so that the generation grows, and the old file's is not among those that the map knows
            generation = scene.replica()["generation"]
            scene.mirror.restart()
            scene.until(
                lambda now, was=generation: now["generation"] > was and now["state"] == "in_sync", "it is a new one"
            )
            crowd.acknowledges(100)
        run_id = scene.endpoint(PRIMARY)["run_id"]
        with scene.healing("log", "buckets", "full", noticed=always):
            scene.primary.kill()
            shutil.rmtree(directory)
            copy.rename(directory)
            scene.primary.start()
            _primary_is_back(scene, crowd, run_id)
    scene.assert_healed(crowd)


@pytest.mark.chaos
@pytest.mark.timeout(240)
def test_killed_while_it_is_refilled(stage, seed: int) -> None:
    """Twice empty: the half that it had got does not count."""
    scene = stage(keys=3_000, rate=4_000)
    with Crowd(scene.proxy.port, seed=seed, wild=0) as crowd:
        crowd.acknowledges(300)
        scene.primary.restart()
        wait.until(lambda: scene.primary.cli("DBSIZE") > 0, "the refill has begun", 30)
        run_id = scene.endpoint(PRIMARY)["run_id"]
        with scene.healing("log", "buckets", "full", noticed=always):
            scene.primary.restart()
            _primary_is_back(scene, crowd, run_id)
    assert scene.primary.cli("DBSIZE") > 1_000
    scene.assert_healed(crowd)


@pytest.mark.chaos
@pytest.mark.timeout(240)
def test_restarted_empty_while_there_is_no_sidecar(stage, seed: int) -> None:
    """The new sidecar finds a primary without a marker, and a mirror that is complete."""
    scene = stage()
    with Crowd(scene.proxy.port, seed=seed, wild=0) as crowd:
        crowd.acknowledges(300)
        crowd.rest()
        scene.until_whole()
        with scene.healing("log", "buckets", "full", noticed=always):
            scene.restart_proxy(scene.primary.restart)
            crowd.go_on()
            crowd.acknowledges(200, timeout=40)
    assert scene.primary.cli("DBSIZE") > 1_000
    scene.assert_healed(crowd)


@pytest.mark.chaos
@pytest.mark.timeout(240)
def test_restarted_with_its_data_while_there_is_no_sidecar(stage, seed: int) -> None:
    """Sidecar and primary are killed in the middle of writes; what the mirror had not got is copied."""
    scene = stage(primary=AOF)

    def restart() -> None:
        scene.primary.kill()
        scene.primary.start()

    with Crowd(scene.proxy.port, seed=seed) as crowd:
        crowd.acknowledges(500)
        with scene.healing("buckets", "full", noticed=always):
            scene.restart_proxy(restart)
            crowd.acknowledges(200, timeout=40)
    scene.assert_healed(crowd)


@pytest.mark.chaos
@pytest.mark.timeout(240)
def test_both_restarted_empty(stage, seed: int) -> None:
    """Nothing is left: the primary is held and says so, until an operator accepts it as it is; then both are equal."""
    scene = stage(keys=0)
    run_id = scene.endpoint(PRIMARY)["run_id"]
    with Crowd(scene.proxy.port, seed=seed, wild=0) as crowd:
        crowd.acknowledges(200)
    scene.primary.kill()
    scene.mirror.kill()
    scene.mirror.start()
    scene.primary.start()
    wait.until(lambda: _another_primary(scene, run_id), "the sidecar knows the new primary", 30)
    with scene.proxy.conn() as conn:
        reply = wait.until(lambda: conn.command("SET", "k", 1), "an answer")
        if reply.startswith(b"-UNAVAILABLE"):
            scene.order("accept", PRIMARY)
            wait.until(lambda: conn.command("SET", "k", 1) == b"+OK\r\n", "it is served again", 20)
    scene.until_whole()
    assert scene.mirror.cli("GET", "k") == b"1"


def test_markers_say_who_is_who(stage) -> None:
    """After a first contact both servers carry the marker of one set, complete."""
    scene = stage()
    [(one, primary)] = markers(scene.primary).items()
    [(two, mirror)] = markers(scene.mirror).items()
    assert one == two
    assert "role=primary" in primary
    assert "role=mirror" in mirror
    for line in (primary, mirror):
        assert "data=complete" in line
        assert "sole=yes" in line or "role=primary" in line


def test_markers_are_hidden(stage) -> None:
    """A client's FUNCTION LIST shows no marker, and its DBSIZE and KEYS no key of redisha's."""
    scene = stage(keys=0)
    with scene.proxy.conn() as conn:
        assert conn.command("FUNCTION", "LIST") == b"*0\r\n"
        assert conn.command("DBSIZE") == b":0\r\n"
    assert markers(scene.primary)
    assert markers(scene.mirror)
