"""A reload while much is on its way: a new mirror lacks nothing of it, and nobody waits where nothing can come."""

import threading

import pytest

from support import configs, wait
from support.compare import assert_equal
from support.redis_server import RedisServer
from support.sidecar import Sidecar
from support.wire import encode
from support.workers import conn_on, with_workers

# Takes 30 ms.
SLOW = """
local function now() local t = redis.call('TIME'); return t[1] * 1000000 + t[2] end
local begin = now()
while now() - begin < 30000 do end
return 1
"""
SCRIPTS = 40
KEYS = 20
WINDOW = 400
"""Commands at once that a session has shown to be answered, so that as many may be on their way."""


def state(proxy: Sidecar) -> str:
    """Of the only mirror."""
    [replica] = proxy.stats()["replicas"]
    return replica["state"]


@pytest.mark.parametrize("who", ["one-that-tracks", "one-at-another-worker"])
def test_a_first_mirror_has_what_was_on_its_way(redis_server, sidecar, who: str) -> None:
    """Once the first worker's shared connections alone were waited for: the mirror was in sync without the rest."""
    primary, mirror = redis_server(), redis_server()
    workers = 2 if who == "one-at-another-worker" else 1
    proxy: Sidecar = sidecar(with_workers(configs.pass_through(primary.address, op_timeout="20s"), workers))
    with conn_on(proxy, workers - 1, workers) as conn:
        if who == "one-that-tracks":
            conn.command("HELLO", 3)
            assert conn.command("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "none:") == b"+OK\r\n"
        for _ in range(4):
            conn.pipeline(*[("SET", "k", "v")] * WINDOW)
        for number in range(KEYS):
            primary.cli("SET", f"k:{number}", "old")
        padding = b"p" * 17_000  # so that Redis does not read it all at once
        writes = b"".join(encode("SET", f"k:{number}", "new") for number in range(KEYS)) + encode("INCR", "counter")
        sends = threading.Thread(target=conn.send, args=(encode("EVAL", SLOW, 0, padding) * SCRIPTS + writes,))
        sends.start()
        wait.until(lambda: proxy.stats()["endpoints"][0]["upstream_rq_active"] > SCRIPTS, "all is on its way")
        after = configs.mirrored(primary.address, mirror.address, op_timeout="20s")
        proxy.reload(with_workers(after, workers))
        replies = [conn.reply(timeout=30) for _ in range(SCRIPTS + KEYS + 1)]
        sends.join()
        assert replies == [b":1\r\n"] * SCRIPTS + [b"+OK\r\n"] * KEYS + [b":1\r\n"]
        wait.until(lambda: state(proxy) == "in_sync", "the mirror is in sync", timeout=20)
        assert_equal(primary, mirror)


def moved(one: RedisServer, other: RedisServer, *, moves: bool) -> configs.Config:
    """Two clusters; what begins with ``b:`` is at the other one, or still at the first."""
    config = configs.pass_through(one.address)
    config["clusters"]["other"] = configs.cluster(other.address)
    config["listeners"][0]["routes"].append({"prefix": "b:", "cluster": "other" if moves else "redis-001"})
    return config


def test_who_blocks_for_a_key_that_moves_is_told(redis_server, sidecar) -> None:
    """Once it blocked at the old Redis for ever: nothing was pushed there any more."""
    one, other = redis_server(), redis_server()
    proxy: Sidecar = sidecar(moved(one, other, moves=False))
    with proxy.conn() as waits, proxy.conn() as stays, proxy.conn() as pushes:
        waits.send_command("BLPOP", "b:list", 0)
        stays.send_command("BLPOP", "a:list", 0)
        wait.until(lambda: one.client().info("clients")["blocked_clients"] == 2, "they block")
        proxy.reload(moved(one, other, moves=True))
        assert waits.reply().startswith(b"-UNBLOCKED ")
        assert pushes.pipeline(("RPUSH", "b:list", "v"), ("RPUSH", "a:list", "v")) == [b":1\r\n"] * 2
        assert stays.reply() == b"*2\r\n$6\r\na:list\r\n$1\r\nv\r\n"
        assert waits.command("BLPOP", "b:list", 0) == b"*2\r\n$6\r\nb:list\r\n$1\r\nv\r\n"
