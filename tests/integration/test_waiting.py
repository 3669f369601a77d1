"""Who waits is told in time, whatever he waits for; and who holds most memory pays for it."""

import contextlib
import random
import re
import time
from pathlib import Path

import pytest

from support import configs, wait
from support.redis_server import RedisServer
from support.sidecar import Sidecar
from support.wire import Conn, encode

MIB = 1 << 20
NOTHING_SENT = re.compile(rb"-TIMEOUT cluster redis-001: .* nothing was sent")


@pytest.fixture
def server(redis_server) -> RedisServer:
    """The Redis behind."""
    return redis_server()


def endpoint(proxy: Sidecar) -> dict:
    """The only endpoint."""
    [found] = proxy.stats()["endpoints"]
    return found


def reconnected(proxy: Sidecar, server: RedisServer) -> None:
    """A new connection to Redis, on which no database is proven."""
    before = endpoint(proxy)["upstream_cx_destroy"]
    server.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    wait.until(lambda: endpoint(proxy)["upstream_cx_destroy"] == before + 1, "the connection is lost")
    wait.until(lambda: endpoint(proxy)["state"] == "ready", "and is back")


def refused_in_time(*conns: Conn) -> None:
    """Each is told within a second or so that nothing was sent (the servers' ``op_timeout`` is 300 ms)."""
    before = time.monotonic()
    for conn in conns:
        assert NOTHING_SENT.match(conn.reply(timeout=3))
    assert time.monotonic() - before < 1.5


def test_waiting_for_a_proof_of_the_database(sidecar, server: RedisServer) -> None:
    """Once a session whose database had to be proven again waited for as long as Redis hung, without an answer."""
    proxy = sidecar(configs.pass_through(server.address, op_timeout="300ms"))
    with proxy.conn() as one, proxy.conn() as two, proxy.conn() as zero:
        for conn in (one, two):
            assert conn.pipeline(("SELECT", 3), ("SET", "k", "three")) == [b"+OK\r\n"] * 2
        reconnected(proxy, server)
        server.pause()
        try:
            one.send_command("GET", "k")
            two.send_command("INCR", "n")
            refused_in_time(one, two)
            # And so on: nobody waits for what is known to hang.
            one.send_command("MULTI")
            assert one.reply() == b"+OK\r\n"
            one.send(encode("INCR", "n") + encode("EXEC"))
            assert one.reply() == b"+QUEUED\r\n"
            refused_in_time(one)
            zero.send_command("GET", "k")
            assert zero.reply(timeout=3).startswith((b"-INDOUBT ", b"-TIMEOUT "))
        finally:
            server.resume()
        wait.until(lambda: one.command("GET", "k") == b"$5\r\nthree\r\n", "it works again")
        assert two.command("INCR", "n") == b":1\r\n"
        assert zero.command("GET", "k") == b"$-1\r\n"


def test_select_of_a_database_that_nobody_used_yet(sidecar, server: RedisServer) -> None:
    """Once such a SELECT counted as late from the start; it waits like any command, and no longer."""
    proxy = sidecar(configs.pass_through(server.address, op_timeout="400ms"))
    with proxy.conn() as one, proxy.conn() as two:
        assert one.command("SET", "k", "zero") == b"+OK\r\n"
        server.pause()
        try:
            one.send_command("SELECT", 5)
            assert one.silent_for(0.15)
        finally:
            server.resume()
        assert one.reply() == b"+OK\r\n"
        assert one.command("SET", "k", "five") == b"+OK\r\n"
        server.pause()
        try:
            two.send_command("SELECT", 6)
            assert two.reply(timeout=3).startswith((b"-TIMEOUT ", b"-INDOUBT "))
            one.send_command("SELECT", 7)
            assert one.reply(timeout=3).startswith((b"-TIMEOUT ", b"-INDOUBT "))
        finally:
            server.resume()
        # What was refused has not happened, also once the late reply is here.
        wait.until(lambda: two.command("GET", "k") == b"$4\r\nzero\r\n", "it works again, in database 0")
        assert one.command("GET", "k") == b"$4\r\nfive\r\n"
        for _ in range(3):
            assert two.pipeline(("SELECT", 6), ("GET", "k"), ("SELECT", 0), ("GET", "k"))[1::2] == [
                b"$-1\r\n",
                b"$4\r\nzero\r\n",
            ]


def test_first_use_of_many_databases_of_a_distant_redis(sidecar, relay, server: RedisServer) -> None:
    """Once the first SELECT of each database was told INDOUBT at the next look at timeouts, 20 ms later."""
    between = relay(server.port)
    proxy = sidecar(configs.pass_through(between.address))
    between.delay(0.05)
    for db in range(1, 7):
        with proxy.conn() as conn:
            assert conn.command("SELECT", db) == b"+OK\r\n"
            assert conn.command("SET", "k", db) == b"+OK\r\n"


def test_waiting_for_room(sidecar, server: RedisServer) -> None:
    """Once a client that came when the connection was full waited for as long as Redis hung, without an answer."""
    proxy = sidecar(configs.pass_through(server.address, op_timeout="300ms"))
    fills = [proxy.conn() for _ in range(8)]
    value = random.Random(3).randbytes(2 * MIB)
    with proxy.conn() as new, proxy.conn() as old:
        try:
            assert old.command("SET", "k", "v") == b"+OK\r\n"
            server.pause()
            for conn in fills:
                conn.send_command("SET", "large", value)
            for conn in fills:
                assert conn.reply(timeout=3).startswith((b"-INDOUBT ", b"-TIMEOUT "))
            old.send_command("GET", "k")
            new.send_command("SET", "n", 1)
            refused_in_time(old, new)
            server.resume()
            wait.until(lambda: old.command("GET", "k") == b"$1\r\nv\r\n", "it works again")
            assert new.command("GET", "n") == b"$-1\r\n"
        finally:
            server.resume()
            for conn in fills:
                conn.close()


def test_thousands_of_late_commands_are_told_together(sidecar, server: RedisServer) -> None:
    """Many commands that are late are told so in time, not little by little."""
    proxy = sidecar(configs.pass_through(server.address, op_timeout="300ms"))
    conns = [proxy.conn() for _ in range(20)]
    try:
        assert conns[0].command("SET", "k", "v") == b"+OK\r\n"
        server.pause()
        for conn in conns:
            conn.send(encode("GET", "k") * 500)
        before = time.monotonic()
        for conn in conns:
            replies = conn.replies(500, timeout=10)
            assert all(reply.startswith((b"-INDOUBT ", b"-TIMEOUT ")) for reply in replies)
        assert time.monotonic() - before < 5
        server.resume()
        wait.until(lambda: conns[0].command("GET", "k") == b"$1\r\nv\r\n", "it works again")
    finally:
        server.resume()
        for conn in conns:
            conn.close()


def memory(proxy: Sidecar) -> int:
    """The most memory the sidecar ever had, in bytes."""
    status = Path(f"/proc/{proxy.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


def closed_for_memory(proxy: Sidecar) -> int:
    """Clients that were closed because they held most."""
    return proxy.stats()["listeners"][0]["downstream_cx_memory_overflow"]


def test_memory_budget_closes_who_holds_most(sidecar, server: RedisServer) -> None:
    """Once each client was bounded and all together were not: enough of them took all the memory there was."""
    config = configs.pass_through(server.address)
    config["limits"] = {"memory": "32MB", "max_request": "64MB"}
    proxy = sidecar(config)
    with proxy.conn() as small, proxy.conn() as middle, proxy.conn() as large, proxy.conn() as idle:
        assert [conn.command("SET", "k", "v") for conn in (small, middle, large, idle)] == [b"+OK\r\n"] * 4
        before = memory(proxy)
        for conn, count in ((small, 2), (middle, 8)):
            assert conn.command("MULTI") == b"+OK\r\n"
            assert conn.pipeline(*[("SET", f"k{n}", b"v" * MIB) for n in range(count)]) == [b"+QUEUED\r\n"] * count
        assert large.command("MULTI") == b"+OK\r\n"
        _feed_until_closed(large, 60)
        assert closed_for_memory(proxy) == 1
        assert memory(proxy) - before < 96 * MIB
        assert small.command("EXEC") == b"*2\r\n" + b"+OK\r\n" * 2
        assert middle.command("EXEC") == b"*8\r\n" + b"+OK\r\n" * 8
        assert idle.command("GET", "k") == b"$1\r\nv\r\n"
    assert server.cli("DBSIZE") == 9


def _feed_until_closed(conn: Conn, count: int) -> None:
    """Queue one MB after the other until the proxy has had enough."""
    try:
        for number in range(count):
            conn.send_command("SET", f"large{number}", b"v" * MIB)
    except ConnectionError:
        return
    conn.until_closed()


def test_memory_budget_counts_replies_that_nobody_reads(sidecar, server: RedisServer) -> None:
    """The same with clients that ask and do not read: those that hold most go, and the others are served."""
    server.cli("SET", "big", b"v" * (6 * MIB))
    config = configs.pass_through(server.address)
    config["limits"] = {"memory": "24MB", "max_output": "64MB"}
    proxy = sidecar(config)
    lazy = [proxy.conn(rcvbuf=4096) for _ in range(12)]
    try:
        with proxy.conn() as other:
            assert other.command("SET", "k", "v") == b"+OK\r\n"
            for conn in lazy:
                conn.send_command("GET", "big")
            wait.until(lambda: closed_for_memory(proxy) > 0, "some were closed")
            wait.until(lambda: proxy.stats()["worker"]["memory_bytes"] <= 24 * MIB, "the rest is within the budget")
            assert other.command("GET", "k") == b"$1\r\nv\r\n"
            assert closed_for_memory(proxy) < len(lazy)
    finally:
        for conn in lazy:
            conn.close()
    wait.until(lambda: proxy.stats()["worker"]["memory_bytes"] < 8 * MIB, "it is given back")


@pytest.mark.parametrize("mirrored", [False, True], ids=["pass", "mirrored"])
def test_clients_that_block_wake_nobody(sidecar, redis_server, mirrored: bool) -> None:
    """Once the worker looked at every connection 50 times a second while one client blocked."""
    servers = [redis_server().address for _ in range(2 if mirrored else 1)]
    proxy = sidecar(configs.mirrored(*servers) if mirrored else configs.pass_through(*servers))
    with contextlib.ExitStack() as cleanup:
        conns = [cleanup.enter_context(proxy.conn()) for _ in range(20)]
        for number, conn in enumerate(conns):
            conn.send_command("BLPOP", f"k{number}", 0)

        def is_quiet() -> bool:
            before = proxy.stats()["worker"]
            time.sleep(1)
            after = proxy.stats()["worker"]
            return after["turns"] - before["turns"] < (after["now_ms"] - before["now_ms"]) / 60

        wait.until(is_quiet, "fewer than 17 turns a second", timeout=15)
        with proxy.conn() as other:
            assert other.command("BLPOP", "other", 0.3) == b"*-1\r\n"
            for number, conn in enumerate(conns):
                assert other.command("RPUSH", f"k{number}", "v") == b":1\r\n"
                assert conn.reply() == b"*2\r\n$%d\r\nk%d\r\n$1\r\nv\r\n" % (len(f"k{number}"), number)
