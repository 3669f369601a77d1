"""Who waits is told in time, whatever he waits for; and who holds most memory pays for it."""

import contextlib
import random
import re
import signal
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


@pytest.mark.parametrize(
    ("how", "reply"), [("TIMEOUT", b":0\r\n"), ("ERROR", b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n")]
)
def test_a_wait_can_be_ended(sidecar, redis_server, how: str, reply: bytes) -> None:
    """Once CLIENT UNBLOCK did not know of it where writes are mirrored."""
    proxy = sidecar(configs.mirrored(redis_server().address, redis_server().address))
    with proxy.conn() as waits, proxy.conn() as other:
        number = int(waits.command("CLIENT", "ID")[1:])
        waits.send_command("WAIT", 5, 0)
        wait.until(lambda: other.command("CLIENT", "UNBLOCK", number, how) == b":1\r\n", "it waits")
        assert waits.reply() in (reply, b":1\r\n" if how == "TIMEOUT" else reply)
        assert waits.command("PING") == b"+PONG\r\n"


@pytest.mark.parametrize("held", ["wait", "pause"])
def test_who_waits_does_not_hold_up_the_end(sidecar, redis_server, held: str) -> None:
    """Once a WAIT, or a client that was paused, had SIGTERM take all of the time that a drain may take."""
    proxy = sidecar(configs.mirrored(redis_server().address, redis_server().address))
    with proxy.conn() as waits, proxy.conn() as other:
        if held == "wait":
            waits.send_command("WAIT", 5, 0)
        else:
            assert other.command("CLIENT", "PAUSE", 100_000) == b"+OK\r\n"
            waits.send_command("SET", "k", "v")
        assert waits.silent_for(0.2)
        proxy.signal(signal.SIGTERM)
        wait.until(lambda: proxy.exit_code() == 0, "it has ended", timeout=8)
        assert waits.reply() == (b":1\r\n" if held == "wait" else b"+OK\r\n")


def test_who_waits_is_not_kept_waiting_by_others(sidecar, redis_server) -> None:
    """Once a write tried as many of those in line as it could serve, whatever they waited for."""
    proxy = sidecar(configs.mirrored(redis_server().address, redis_server().address))
    with contextlib.ExitStack() as cleanup:
        conns = [cleanup.enter_context(proxy.conn()) for _ in range(4)]
        audit, other = cleanup.enter_context(proxy.conn()), cleanup.enter_context(proxy.conn())
        for group in ("mail", "audit"):
            assert other.command("XGROUP", "CREATE", "s", group, "$", "MKSTREAM") == b"+OK\r\n"
        for number, conn in enumerate(conns):
            conn.send_command("XREADGROUP", "GROUP", "mail", f"c{number}", "BLOCK", 0, "STREAMS", "s", ">")
            wait.until(lambda n=number + 1: _blocked(other) == n, "it waits")
        audit.send_command("XREADGROUP", "BLOCK", 10, "BLOCK", 0, "GROUP", "audit", "c", "STREAMS", "s", ">")
        wait.until(lambda: _blocked(other) == 5, "and so does the other group's")
        other.command("XADD", "s", "1-1", "f", "v")
        entry = b"*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n"
        assert audit.reply(timeout=2) == conns[0].reply(timeout=2) == entry
        assert all(conn.silent_for(0.05) for conn in conns[1:])


def _blocked(conn: Conn) -> int:
    """How many clients wait, as INFO has it."""
    found = re.search(rb"blocked_clients:(\d+)", conn.command("INFO", "clients"))
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize(
    "command", [("BLMOVE", "source", "target", "LEFT", "LEFT", 0), ("BLPOP", "other", "source", 0)]
)
def test_who_goes_while_it_is_tried_blocks_nobody(sidecar, redis_server, command: tuple[str | int, ...]) -> None:
    """Once what it had waited for stayed its own for ever: the next in line got nothing."""
    primary = redis_server()
    proxy = sidecar(configs.mirrored(primary.address, redis_server().address))
    with proxy.conn() as other, proxy.conn() as next_:
        with proxy.conn() as goes:
            goes.send_command(*command)
            wait.until(lambda: _blocked(other) == 1, "it waits")
            primary.pause()
            try:
                # (The attempt fails: of another type is the target, or the first key.)
                kind = "target" if command[0] == "BLMOVE" else "other"
                other.send(encode("SET", kind, "string") + encode("RPUSH", "source", "a"))
                assert other.silent_for(0.2)
                goes.close()
                wait.until(lambda: proxy.stats()["listeners"][0]["downstream_cx_active"] == 2, "it is gone")
            finally:
                primary.resume()
        assert other.replies(2) == [b"+OK\r\n", b":1\r\n"]
        assert next_.command("LPOP", "source") == b"$1\r\na\r\n"
        next_.send_command("BLPOP", "source", 0)
        wait.until(lambda: _blocked(other) == 1, "the next one waits")
        assert other.command("RPUSH", "source", "b") == b":1\r\n"
        assert next_.reply(timeout=2) == b"*2\r\n$6\r\nsource\r\n$1\r\nb\r\n"


def test_a_target_that_was_of_another_type_for_a_moment(sidecar, redis_server) -> None:
    """Once a source of another type was taken for such a target, and who waited got a WRONGTYPE."""
    proxy = sidecar(configs.mirrored(redis_server().address, redis_server().address))
    with proxy.conn() as waits, proxy.conn() as other:
        waits.send_command("BLMOVE", "source", "target", "LEFT", "LEFT", 0)
        wait.until(lambda: _blocked(other) == 1, "it waits")
        assert other.pipeline(("SET", "source", "v"), ("DEL", "source")) == [b"+OK\r\n", b":1\r\n"]
        assert waits.silent_for(0.2)
        assert other.command("RPUSH", "source", "a") == b":1\r\n"
        assert waits.reply() == b"$1\r\na\r\n"
