"""Data that is not ours: a mirror with data of its own, and two sidecars that mirror to each other's primary."""

import shutil
from pathlib import Path

import pytest

from support import configs, wait
from support.compare import Snapshot, snapshot
from support.crowd import Crowd
from support.equality import contents, unequal
from support.redis_server import RedisServer
from support.sidecar import Sidecar
from support.stage import AOF, Replica, Stage, fill, scanned


def _foreign(mirror: RedisServer) -> None:
    """Data nobody told redisha of: some keys have the primary's names, in two databases."""
    mirror.cli("MSET", *[each for n in range(100) for each in (f"fill:{n}", "foreign")])
    mirror.cli("MSET", *[each for n in range(200) for each in (f"own:{n}", "foreign")])
    mirror.cli("RPUSH", "fill:200", "foreign", "list")
    mirror.cli("SET", "own", "foreign", db=5)


def _is_unproven(now: Replica) -> bool:
    """It has all that can be added, and nothing is on its way."""
    return now["state"] == "unproven" and now["lag"] == now["repair_keys"] == 0


def _is_added(primary: RedisServer, mirror: RedisServer, before: Snapshot) -> bool:
    """The mirror has what it had, and of the primary's keys those that it had not."""
    left, right = contents(primary), contents(mirror)
    return right == left | before


@pytest.mark.timeout(120)
def test_foreign_data_at_first_contact(stage, redis_server, sidecar, tmp_path: Path, seed: int) -> None:
    """Nothing of it is overwritten or deleted, what is missing is added, and it is never called in sync."""
    primary, mirror = redis_server(), redis_server()
    fill(primary, 2_000, databases=(0, 1))
    _foreign(mirror)
    before = snapshot(mirror)
    state = tmp_path / "own-state"
    state.mkdir()
    made = configs.mirrored(primary.address, mirror.address) | {"state_dir": str(state)}
    scene = Stage("foreign", primary, mirror, sidecar(made), state)
    with Crowd(scene.proxy.port, seed=seed, writers=2) as crowd:
        now = scene.until(
            lambda now: now["state"] == "unproven" and now["resync_runs_total"] > 0,
            "what is missing is added",
        )
        assert now["sole"] == "no"
        assert now["unproven_keys"] >= 101
        crowd.acknowledges(300)
    scene.until(_is_unproven, "it has the writes")
    wait.until(lambda: _is_added(primary, mirror, before), "nothing is changed, what is missing is added", every=0.1)
    crowd.assert_undisturbed()
    # The operator's word makes it ours.
    with scene.healing("full", noticed=scanned):
        scene.order("full")
    scene.assert_healed(crowd)


@pytest.mark.chaos
@pytest.mark.timeout(120)
def test_foreign_data_and_the_sidecar_killed(stage, redis_server, sidecar, tmp_path: Path) -> None:
    """What was not ours is not ours after a restart of the sidecar, with or without its state, or of the mirror."""
    primary, mirror = redis_server(), redis_server(**AOF)
    fill(primary, 2_000)
    _foreign(mirror)
    before = snapshot(mirror)
    state = tmp_path / "own-state"
    state.mkdir()
    made = configs.mirrored(primary.address, mirror.address) | {"state_dir": str(state)}
    scene = Stage("foreign", primary, mirror, sidecar(made), state)

    def forget() -> None:
        shutil.rmtree(state)
        state.mkdir()

    for meanwhile in (lambda: None, forget, mirror.restart):
        scene.until(_is_unproven, "what is missing is added")
        assert {place: value for place, value in contents(mirror).items() if place in before} == before
        scene.restart_proxy(meanwhile)
    scene.until(_is_unproven, "what is missing is added")
    assert {place: value for place, value in contents(mirror).items() if place in before} == before
    assert contents(primary).keys() <= contents(mirror).keys()


class Pair:
    """The seed's two sidecars: each one's primary is the other's mirror."""

    def __init__(self, redis_server, sidecar, root: Path, **options: str) -> None:
        self.servers = [redis_server(**options), redis_server(**options)]
        self.proxies: list[Sidecar] = []
        for number, (own, other) in enumerate((self.servers, self.servers[::-1])):
            state = root / f"pair-{number}"
            state.mkdir()
            made = configs.mirrored(own.address, other.address, mirror_settings={"op_timeout": "500ms"})
            self.proxies.append(sidecar(made | {"state_dir": str(state)}))
        for proxy in self.proxies:
            wait.until(lambda proxy=proxy: self.settled(proxy), "the pair is up", 20)

    @staticmethod
    def settled(proxy: Sidecar) -> bool:
        """Nothing is on its way, whatever can be proven."""
        [now] = proxy.stats()["replicas"]
        return now["state"] in ("in_sync", "unproven") and now["lag"] == now["repair_keys"] == 0

    def crowds(self, seed: int) -> tuple[Crowd, Crowd]:
        """Clients of both sides, on keys of their own. Scripts without repeatable effects are left out."""
        one, two = (
            Crowd(proxy.port, seed=seed + number * 50, name="ab"[number], writers=2, wild=0)
            for number, proxy in enumerate(self.proxies)
        )
        return one, two

    def assert_undamaged(self, one: Crowd, two: Crowd) -> None:
        """Each server has what its own clients were told; what it lacks of the other's has been added."""
        for crowd in (one, two):
            crowd.stop()
        for proxy in self.proxies:
            wait.until(lambda proxy=proxy: self.settled(proxy), "nothing is on its way", 40, every=0.1)
        one.assert_kept(self.servers[0])
        two.assert_kept(self.servers[1])
        left, right = contents(self.servers[0]), contents(self.servers[1])
        assert not [place for place in left.keys() - right.keys() if place[1].startswith(b"a")], (
            "not added to the second"
        )
        assert not [place for place in right.keys() - left.keys() if place[1].startswith(b"b")], (
            "not added to the first"
        )
        states = [proxy.stats()["replicas"][0]["state"] for proxy in self.proxies]
        assert states != ["in_sync", "in_sync"] or not unequal(*self.servers), "called in sync, and differs"


@pytest.mark.timeout(120)
def test_pair_one_redis_killed(redis_server, sidecar, tmp_path: Path, seed: int) -> None:
    """One Redis is killed and comes back with its append-only file, while both sides are written to."""
    pair = Pair(redis_server, sidecar, tmp_path, **AOF)
    one, two = pair.crowds(seed)
    with one, two:
        one.acknowledges(300)
        two.acknowledges(300)
        pair.servers[0].kill()
        two.acknowledges(300)
        pair.servers[0].start()
        one.acknowledges(300)
    pair.assert_undamaged(one, two)


@pytest.mark.chaos
@pytest.mark.timeout(120)
def test_pair_one_redis_stopped(redis_server, sidecar, tmp_path: Path, seed: int) -> None:
    """One Redis stands still for longer than the other sidecar waits for it."""
    pair = Pair(redis_server, sidecar, tmp_path)
    one, two = pair.crowds(seed)
    with one, two:
        two.acknowledges(300)
        pair.servers[0].pause()
        wait.until(lambda: pair.proxies[1].stats()["replicas"][0]["state"] != "in_sync", "it is noticed")
        two.acknowledges(300)
        pair.servers[0].resume()
        one.acknowledges(300)
    pair.assert_undamaged(one, two)


@pytest.mark.timeout(120)
def test_pair_one_sidecar_killed(redis_server, sidecar, tmp_path: Path, seed: int) -> None:
    """One sidecar is killed and comes back with its state."""
    pair = Pair(redis_server, sidecar, tmp_path)
    one, two = pair.crowds(seed)
    with one, two:
        one.acknowledges(300)
        pair.proxies[0].kill()
        two.acknowledges(300)
        pair.proxies[0].start(ready=False)
        one.acknowledges(300)
    pair.assert_undamaged(one, two)


@pytest.mark.chaos
@pytest.mark.timeout(180)
def test_pair_one_redis_and_its_sidecar_killed(redis_server, sidecar, tmp_path: Path, seed: int) -> None:
    """A whole side is away, and comes back with what it had."""
    pair = Pair(redis_server, sidecar, tmp_path, **AOF)
    one, two = pair.crowds(seed)
    with one, two:
        one.acknowledges(300)
        pair.proxies[0].kill()
        pair.servers[0].kill()
        two.acknowledges(500)
        pair.servers[0].start()
        pair.proxies[0].start(ready=False)
        one.acknowledges(300)
    pair.assert_undamaged(one, two)


@pytest.mark.chaos
@pytest.mark.timeout(180)
def test_pair_one_redis_restarted_empty(redis_server, sidecar, tmp_path: Path, seed: int) -> None:
    """One Redis loses everything: the other side loses nothing by that, and adds what it has."""
    pair = Pair(redis_server, sidecar, tmp_path)
    one, two = pair.crowds(seed)
    with one, two:
        one.acknowledges(300)
        two.acknowledges(300)
    for proxy in pair.proxies:
        wait.until(lambda proxy=proxy: pair.settled(proxy), "nothing is on its way", 20)
    before = contents(pair.servers[1])
    pair.servers[0].restart()
    wait.until(lambda: contents(pair.servers[0]).keys() >= before.keys(), "everything is added again", 40, every=0.2)
    for proxy in pair.proxies:
        wait.until(lambda proxy=proxy: pair.settled(proxy), "nothing is on its way", 20)
    assert contents(pair.servers[1]) == before
    assert contents(pair.servers[0]) == before
