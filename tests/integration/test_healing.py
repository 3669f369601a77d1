"""A mirror that missed something gets it again, and the primary's clients do not pay for it."""

import random

import pytest

from support import configs, wait
from support.compare import assert_equal
from support.redis_server import RedisServer
from support.sidecar import Sidecar
from support.wire import Arg, Conn

MIB = 1 << 20


@pytest.fixture
def primary(redis_server) -> RedisServer:
    """The Redis that clients are answered by."""
    return redis_server()


@pytest.fixture
def mirror(redis_server) -> RedisServer:
    """The Redis that must be its copy."""
    return redis_server()


def replica(proxy: Sidecar) -> dict:
    """The only replica's state and counters."""
    [found] = proxy.stats()["replicas"]
    return found


def endpoint(proxy: Sidecar, cluster: str = "redis-001") -> dict:
    """A cluster's only endpoint."""
    return next(each for each in proxy.stats()["endpoints"] if each["cluster"] == cluster)


def is_whole(proxy: Sidecar) -> bool:
    """Nothing is on its way, nothing is in doubt."""
    now = replica(proxy)
    return now["state"] in ("in_sync", "unproven") and now["lag"] == 0 and now["repair_keys"] == 0


def calls(server: RedisServer, command: str) -> int:
    """How often a server has executed a command."""
    with server.client() as client:
        return client.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0)


def count_for(server: RedisServer, command: str, seconds: float) -> int:
    """How often a server executes a command in so many seconds, by its own clock."""
    before = calls(server, command)
    end = float(server.cli("INFO", "server")["server_time_usec"]) + seconds * 1e6
    wait.until(lambda: float(server.cli("INFO", "server")["server_time_usec"]) > end, "the time is over", every=0.1)
    return calls(server, command) - before


def test_other_database_heals_without_traffic(sidecar, primary: RedisServer, mirror: RedisServer) -> None:
    """Once the copy of a key in another database waited for a SELECT that only a client's command would have sent."""
    proxy = sidecar(configs.mirrored(primary.address, mirror.address, mirror_settings={"op_timeout": "300ms"}))
    with proxy.conn() as conn:
        assert conn.pipeline(("SELECT", 3), ("SET", "k", 1)) == [b"+OK\r\n"] * 2
        wait.until(lambda: mirror.cli("GET", "k", db=3) == b"1", "the mirror has it")
        mirror.pause()
        assert conn.command("INCR", "k") == b":2\r\n"
    try:
        wait.until(lambda: replica(proxy)["repair_keys"] == 1, "the key is in doubt")
        primary.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")  # what was proven must be proven again
        wait.until(lambda: endpoint(proxy)["upstream_cx_destroy"] == 1, "the connection is lost")
        wait.until(lambda: endpoint(proxy)["state"] == "ready", "and is back")
    finally:
        mirror.resume()
    assert assert_equal(primary, mirror) == 1
    wait.until(lambda: is_whole(proxy), "nothing is in doubt")


def test_key_in_doubt_that_is_larger_than_what_may_be_held(sidecar, primary: RedisServer, mirror: RedisServer) -> None:
    """Once the copy of such a key broke the primary's connection, was asked for again, and so on: for all clients."""
    config = configs.mirrored(primary.address, mirror.address)
    config["limits"] = {"max_output": "1MB"}
    primary.cli("SET", "big", random.Random(5).randbytes(3_000_000))  # DUMP does not make it smaller
    proxy = sidecar(config)
    with proxy.conn() as conn, proxy.conn() as other:
        assert conn.command("SET", "k", 0) == b"+OK\r\n"
        script = "return redis.call('setrange', KEYS[1], 0, math.random())"
        assert conn.command("EVAL", script, 1, "big") == b":3000000\r\n"
        wait.until(lambda: replica(proxy)["unrepaired_keys"] == 1, "it is given up, and counted")
        for number in range(1, 200):
            assert other.command("INCR", "k") == b":%d\r\n" % number
        wait.until(lambda: replica(proxy)["state"] == "diverged", "it is shown")
        wait.until(lambda: mirror.cli("GET", "k") == b"199", "the mirror gets what can be sent")
    assert endpoint(proxy)["upstream_cx_destroy"] == 0
    assert calls(primary, "dump") < 5


def test_mirror_that_takes_shorter_arguments_than_the_primary(sidecar, redis_server, primary: RedisServer) -> None:
    """A mirror that closes its connection for one key gets everything else, and is asked ever more rarely."""
    mirror = redis_server(proto_max_bulk_len="1mb")
    proxy = sidecar(configs.mirrored(primary.address, mirror.address))
    with proxy.conn() as conn:
        assert conn.command("SET", "k", 1) == b"+OK\r\n"
        assert conn.command("SET", "large", random.Random(7).randbytes(3 * MIB)) == b"+OK\r\n"
        assert conn.command("SET", "k", 2) == b"+OK\r\n"
        wait.until(lambda: mirror.cli("GET", "k") == b"2", "what follows is mirrored", timeout=4)
    assert count_for(primary, "dump", 0.7) < 5
    assert replica(proxy)["repair_keys"] + replica(proxy)["lost_total"] == 1
    assert endpoint(proxy)["upstream_cx_destroy"] == 0
    mirror.cli("CONFIG", "SET", "proto-max-bulk-len", "512mb")
    assert assert_equal(primary, mirror) == 2


def test_mirror_without_memory_does_not_load_the_primary(sidecar, primary: RedisServer, mirror: RedisServer) -> None:
    """Once refused copies were asked for again at once: thousands of DUMPs a second on an idle primary, for nothing."""
    proxy = sidecar(configs.mirrored(primary.address, mirror.address))
    with proxy.conn() as conn:
        assert conn.command("SET", "k", 1) == b"+OK\r\n"
        wait.until(lambda: is_whole(proxy), "the mirror has it")
        mirror.cli("CONFIG", "SET", "maxmemory", 1)
        assert set(conn.pipeline(*[("SET", f"k{n}", n) for n in range(3_000)])) == {b"+OK\r\n"}
    wait.until(lambda: replica(proxy)["error_total"] >= 3_000, "the mirror has refused everything")
    assert count_for(primary, "dump", 1.0) < 10
    seen = replica(proxy)
    assert seen["state"] == "catching_up"
    assert seen["repair_keys"] == 3_000
    assert seen["lost_total"] == 0


def test_reason_of_a_refusal_is_shown(sidecar, primary: RedisServer, mirror: RedisServer) -> None:
    """While keys wait because the mirror refuses them, its state says why."""
    proxy = sidecar(configs.mirrored(primary.address, mirror.address))
    with proxy.conn() as conn:
        assert conn.command("SET", "k", 1) == b"+OK\r\n"
        wait.until(lambda: is_whole(proxy), "the mirror has it")
        mirror.cli("CONFIG", "SET", "maxmemory", 1)
        assert set(conn.pipeline(*[("SET", f"k{n}", n) for n in range(100)])) == {b"+OK\r\n"}
    wait.until(lambda: replica(proxy)["state"] == "catching_up", "keys wait")
    wait.until(lambda: "OOM" in replica(proxy)["reason"], "it says why", timeout=1)


def test_mirror_heals_soon_after_it_has_memory_again(sidecar, primary: RedisServer, mirror: RedisServer) -> None:
    """A refusal makes the next try later; the copies that were refused together are one refusal, not 64."""
    proxy = sidecar(configs.mirrored(primary.address, mirror.address))
    with proxy.conn() as conn:
        assert conn.command("SET", "k", 1) == b"+OK\r\n"
        wait.until(lambda: is_whole(proxy), "the mirror has it")
        mirror.cli("CONFIG", "SET", "maxmemory", 1)
        assert set(conn.pipeline(*[("SET", f"k{n}", n) for n in range(100)])) == {b"+OK\r\n"}
    wait.until(lambda: replica(proxy)["error_total"] >= 100, "the mirror has refused everything")
    mirror.cli("CONFIG", "SET", "maxmemory", 0)
    assert assert_equal(primary, mirror, within=5) == 101
    wait.until(lambda: is_whole(proxy), "nothing is in doubt")


def test_log_overflow_with_a_stalled_mirror(sidecar, primary: RedisServer, mirror: RedisServer) -> None:
    """Once a mirror that stood still kept every byte of the log: its bound was none, and nothing said so."""
    config = configs.mirrored(primary.address, mirror.address, mirror_settings={"op_timeout": "30s"})
    config["limits"] = {"log_bytes": "4MB"}
    proxy = sidecar(config)
    value = b"v" * 50_000
    with proxy.conn() as conn:
        assert conn.command("SET", "k", 0) == b"+OK\r\n"
        wait.until(lambda: is_whole(proxy), "the mirror has it")
        before = proxy.memory_bytes()
        mirror.pause()
        try:
            wait.until(
                lambda: _writes(conn, value) and replica(proxy)["lost_total"] > 0, "effects are dropped", every=0.1
            )
            for _ in range(20):
                _writes(conn, value)
                wait.until(lambda: proxy.stats()["logs"][0]["bytes"] < 8 * MIB, "the log is within its bound", 1)
            assert proxy.memory_bytes() - before < 64 * MIB
        finally:
            mirror.resume()
        now = proxy.stats()["logs"][0]
        assert now["limit"] == 4 * MIB
        assert now["overflow_total"] > 0
        assert conn.command("SET", "last", 1) == b"+OK\r\n"
        wait.until(lambda: mirror.cli("GET", "last") == b"1", "what follows is mirrored")
        wait.until(lambda: replica(proxy)["state"] == "in_sync", "what was dropped is copied")
        assert replica(proxy)["resync_runs_total"] >= 2
    assert assert_equal(primary, mirror) == 22
    assert endpoint(proxy)["upstream_cx_destroy"] == 0
    assert "effects are dropped" in proxy.log()


def _writes(conn: Conn, value: bytes) -> bool:
    """One MB of writes to few keys."""
    return set(conn.pipeline(*[("SET", f"k{n}", value) for n in range(20)])) == {b"+OK\r\n"}


def test_mirror_that_comes_back_empty_is_filled(sidecar, primary: RedisServer, mirror: RedisServer) -> None:
    """Once a mirror that came back empty was told to be in sync."""
    proxy = sidecar(configs.mirrored(primary.address, mirror.address))
    with proxy.conn() as conn:
        assert set(conn.pipeline(*[("SET", f"k{n}", n) for n in range(100)])) == {b"+OK\r\n"}
        wait.until(lambda: replica(proxy)["state"] == "in_sync" and mirror.cli("DBSIZE") == 100, "it is in sync")
        mirror.restart()
        wait.until(lambda: replica(proxy)["restarts_total"] == 1, "the restart is noticed")
        assert replica(proxy)["state"] != "in_sync" or mirror.cli("DBSIZE") == 100
        assert conn.command("SET", "after", 1) == b"+OK\r\n"
        wait.until(lambda: replica(proxy)["state"] == "in_sync", "it is filled")
        assert replica(proxy)["healed"].startswith("full: ")
        assert assert_equal(primary, mirror) == 101


def test_mirror_that_was_only_cut_off_is_in_sync_again(
    sidecar, relay, primary: RedisServer, mirror: RedisServer
) -> None:
    """The same Redis on a new connection has what it acknowledged."""
    between = relay(mirror.port)
    proxy = sidecar(configs.mirrored(primary.address, between.address))
    with proxy.conn() as conn:
        assert conn.command("SET", "k", 1) == b"+OK\r\n"
        wait.until(lambda: is_whole(proxy), "it is in sync")
        between.cut()
        wait.until(lambda: endpoint(proxy, "redis-002")["upstream_cx_destroy"] == 1, "the connection is lost")
        wait.until(lambda: replica(proxy)["state"] == "in_sync", "it is in sync")
        assert replica(proxy)["restarts_total"] == 0
    assert assert_equal(primary, mirror) == 1


def _swap_in_doubt(proxy: Sidecar, mirror: RedisServer, *swap: tuple[Arg, ...]) -> None:
    """Swap the databases 0 and 1 while two keys of database 0 are in doubt."""
    with proxy.conn() as conn:
        assert conn.pipeline(("SET", "k", "old"), ("SET", "same", 1)) == [b"+OK\r\n"] * 2
        assert conn.pipeline(("SELECT", 1), ("SET", "k", "one"), ("SELECT", 0)) == [b"+OK\r\n"] * 3
        wait.until(lambda: is_whole(proxy) and mirror.cli("DBSIZE", db=1) == 1, "the mirror has it")
        mirror.cli("ACL", "SETUSER", "default", "-set", "-restore")
        assert conn.pipeline(("SET", "k", "new"), ("SET", "fresh", 1)) == [b"+OK\r\n"] * 2
        wait.until(lambda: replica(proxy)["repair_keys"] == 2, "both are in doubt")
        conn.pipeline(*swap)
        wait.until(lambda: mirror.cli("DBSIZE", db=0) == 1, "the mirror has swapped them")
        mirror.cli("ACL", "SETUSER", "default", "+@all")


def test_swapdb_while_keys_are_in_doubt(sidecar, primary: RedisServer, mirror: RedisServer) -> None:
    """Once a key in doubt was copied to the database where it had been, and stayed wrong in the one where it was."""
    proxy = sidecar(configs.mirrored(primary.address, mirror.address))
    _swap_in_doubt(proxy, mirror, ("SWAPDB", 0, 1))
    assert assert_equal(primary, mirror, within=8) == 4
    assert primary.cli("GET", "k", db=1) == b"new"
    assert replica(proxy)["lost_total"] == 0


def test_swapdb_in_a_transaction_while_keys_are_in_doubt(sidecar, primary: RedisServer, mirror: RedisServer) -> None:
    """The same inside MULTI: healed, or at least counted and shown."""
    proxy = sidecar(configs.mirrored(primary.address, mirror.address))
    _swap_in_doubt(proxy, mirror, ("MULTI",), ("SWAPDB", 0, 1), ("EXEC",))
    if replica(proxy)["lost_total"] == 0:
        assert assert_equal(primary, mirror, within=8) == 4
    else:
        wait.until(lambda: replica(proxy)["state"] == "diverged", "it is shown")
