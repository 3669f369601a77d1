"""Keys that move, end or are large while the mirror is late or being repaired."""

import random

import pytest

from support import wait
from support.crowd import Crowd, Movers
from support.equality import assert_same
from support.relay import Direction
from support.stage import AOF, Replica, Stage, fill, restarted, scanned
from support.wire import Arg

MOVED = (2, 3, 4)
"""Databases where nobody has a ledger."""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["buckets", pytest.param("full", marks=pytest.mark.chaos)])
def test_moved_while_repaired(stage, kind: str, seed: int) -> None:
    """Renamed, copied, moved and swapped between databases, and databases emptied, while a resync copies the keys."""
    scene = stage(mirror=AOF if kind == "buckets" else {}, keys=2_000, rate=8_000, start=False)
    fill(scene.primary, 500, "m", databases=MOVED)
    scene.proxy.start()
    movers = [(Movers(seed * 10 + number, MOVED), MOVED) for number in range(2)]
    with Crowd(scene.proxy.port, seed=seed, writers=2, wild=0, others=movers) as crowd:
        scene.until(lambda now: now["resync_runs_total"] > 0, "the first resync has begun")
        crowd.acknowledges(800)
        crowd.stop()
    scene.until_in_sync()
    with Crowd(scene.proxy.port, seed=seed + 1, name="d", writers=2, wild=0, others=movers) as again:
        again.acknowledges(300)
        # FLUSHDB and SWAPDB name no key: with one of them in the map, everything is looked at.
        with scene.healing(kind, "full", noticed=restarted):
            scene.mirror.kill()
            again.acknowledges(300)
            scene.mirror.start()
            scene.until(lambda now: scanned({"resync_runs_total": 1}, now), "the second resync has begun")
            again.acknowledges(500)
            again.stop()
    scene.assert_healed(crowd, again)


@pytest.mark.timeout(120)
def test_made_anew_while_repaired(stage) -> None:
    """Keys that were deleted while the mirror was away, and are made again at any time of the resync: without what was.

    A key may be missing when the primary is looked through, and be there again when the mirror is.
    """
    scene = stage(mirror=AOF, keys=1_500, rate=3_000)
    names = [f"anew:{number}" for number in range(400)]
    with scene.proxy.conn() as conn:
        conn.pipeline(*[("SADD", name, "old") for name in names])
        scene.until_whole()
        before = scene.replica()
        scene.mirror.kill()
        conn.pipeline(*[("DEL", name) for name in names])
        scene.order("full")
        scene.mirror.start()
        scene.until(lambda now: scanned(before, now), "the resync has begun")
        for start in range(0, len(names), 20):
            now = scene.replica()
            conn.pipeline(*[("SADD", name, "new") for name in names[start : start + 20]])
            scene.until(lambda later, was=now: _goes_on(was, later), "it goes on, or is over")
    scene.assert_healed()


def _goes_on(before: Replica, now: Replica) -> bool:
    return now["state"] != "resync" or now["resync_done"] > before["resync_done"]


def _lives(number: int, rng: random.Random) -> list[tuple[Arg, ...]]:
    """A counter with a life of some milliseconds: made, made longer, renamed, and written at its end."""
    key, life = f"t:{number % 40}", rng.randint(1, 20)
    return rng.choice(
        [
            [("INCR", key), ("PEXPIRE", key, life)],
            [("INCR", key), ("PEXPIRE", key, life), ("INCR", key)],
            [("SET", key, 1, "PX", life), ("INCR", key), ("INCR", key)],
            [("INCRBY", key, 5), ("PEXPIRE", key, life, "NX"), ("APPEND", key, "0")],
            [("MULTI",), ("INCR", key), ("PEXPIRE", key, life), ("EXEC",)],
            [("SET", key, 7, "KEEPTTL"), ("PEXPIRE", key, life), ("SETRANGE", key, 2, "x")],
            [("EVAL", "local n = redis.call('incr', KEYS[1]); return redis.call('pexpire', KEYS[1], 7)", 1, key)],
            [("HINCRBY", f"{key}:h", "f", 1), ("PEXPIRE", f"{key}:h", life), ("HINCRBY", f"{key}:h", "g", 1)],
            [("SADD", f"{key}:s", "a"), ("PEXPIRE", f"{key}:s", life), ("SADD", f"{key}:s", "b")],
            [("RPUSH", f"{key}:l", "a"), ("PEXPIRE", f"{key}:l", life), ("RPUSH", f"{key}:l", "b")],
        ]
    )


def _write_short_lives(scene: Stage, seed: int, rounds: int) -> None:
    rng = random.Random(seed)
    with scene.proxy.conn() as conn:
        for round_ in range(rounds):
            conn.pipeline(*[each for number in range(20) for each in _lives(round_ * 7 + number, rng)])


@pytest.mark.timeout(120)
@pytest.mark.parametrize("late", ["paused", "delayed"])
def test_counters_that_expire_within_milliseconds(stage, relay, late: str, seed: int) -> None:
    """While the mirror stands still or is late by more than they live: no immortal counter on it, and none too old."""
    relays: list = []

    def behind(port: int):
        relays.append(relay(port))
        return relays[-1]

    scene = stage(behind=behind, op_timeout="5s")
    if late == "delayed":
        relays[0].delay(0.05, Direction.UP)
        _write_short_lives(scene, seed, 80)
        relays[0].delay(0.0, Direction.UP)
    else:
        for part in range(2):
            scene.mirror.pause()
            try:
                _write_short_lives(scene, seed * 10 + part, 30)
                end = _milliseconds(scene) + 50
                wait.until(lambda end=end: _milliseconds(scene) > end, "their lives are over")
            finally:
                scene.mirror.resume()
            scene.until_whole()
    scene.assert_healed()
    assert not [key for key in scene.mirror.cli("KEYS", "t:*") if scene.primary.cli("EXISTS", key) == 0]


def _milliseconds(scene: Stage) -> int:
    seconds, microseconds = scene.primary.cli("TIME")
    return int(seconds) * 1000 + int(microseconds) // 1000


LARGE = 42 << 20


def _one_string(scene: Stage, rng: random.Random) -> None:
    with scene.primary.client(socket_timeout=60) as client:
        client.set("large", rng.randbytes(LARGE))


def _one_list(scene: Stage, rng: random.Random) -> None:
    with scene.primary.client(socket_timeout=60) as client:
        for _ in range(42):
            client.rpush("large", *[rng.randbytes(10_000) for _ in range(105)])


def _one_hash(scene: Stage, rng: random.Random) -> None:
    with scene.primary.client(socket_timeout=60) as client:
        for part in range(42):
            client.hset("large", mapping={f"{part}.{n}": rng.randbytes(1_000) for n in range(1_050)})


@pytest.mark.chaos
@pytest.mark.timeout(240)
@pytest.mark.parametrize("make", [_one_string, _one_list, _one_hash], ids=["string", "list", "hash"])
def test_one_key_of_more_than_40_mb(stage, make, seed: int) -> None:
    """Copied, or shown as what cannot be: never "in sync" without it. The others are copied, the clients are served."""
    scene = stage(start=False, op_timeout="10s")
    make(scene, random.Random(seed))
    scene.proxy.start()
    with Crowd(scene.proxy.port, seed=seed, writers=2, wild=0) as crowd:
        crowd.acknowledges(300)
    now = scene.until(
        lambda now: now["state"] in ("in_sync", "diverged") and now["lag"] == 0 and now["repair_keys"] == 0,
        "it has come to an end",
        90,
    )
    assert scene.mirror.cli("DBSIZE") >= scene.primary.cli("DBSIZE") - 1
    if now["state"] == "in_sync":
        assert now["unrepaired_keys"] == 0
        assert_same(scene.primary, scene.mirror)
    else:
        assert now["unrepaired_keys"] == 1
        assert "large" in now["reason"]
    crowd.assert_kept(scene.primary)
    assert scene.endpoint("redis-001")["upstream_cx_destroy"] == 0


def test_large_and_small_keys_written_by_clients(stage) -> None:
    """A key of 8 MB in doubt is copied between the small ones."""
    scene = stage(keys=0)
    value = random.Random(1).randbytes(8 << 20)
    with scene.proxy.conn() as conn, scene.proxy.conn() as other:
        assert conn.command("SET", "large", value) == b"+OK\r\n"
        scene.mirror.kill()
        assert conn.command("APPEND", "large", b"x") == b":%d\r\n" % (len(value) + 1)
        assert other.command("SET", "small", 1) == b"+OK\r\n"
        with scene.healing("full", noticed=restarted):
            scene.mirror.start()
    scene.assert_healed()
