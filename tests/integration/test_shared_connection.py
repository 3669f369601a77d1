"""Clients share a connection to Redis: what one of them does is nobody else's business."""

import re
import threading
from pathlib import Path

import pytest

from support import configs, wait
from support.compare import assert_equal
from support.redis_server import RedisServer
from support.relay import Direction
from support.sidecar import Sidecar
from support.wire import Arg, ClosedError, Conn, encode

MIB = 1 << 20


@pytest.fixture
def server(redis_server) -> RedisServer:
    """The Redis behind."""
    return redis_server()


def endpoint(proxy: Sidecar, cluster: str = "redis-001") -> dict:
    """The counters of a cluster's only endpoint."""
    return next(each for each in proxy.stats()["endpoints"] if each["cluster"] == cluster)


def peak_memory(proxy: Sidecar) -> int:
    """The most memory the sidecar ever had, in bytes."""
    status = Path(f"/proc/{proxy.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


def calls(server: RedisServer, command: str) -> int:
    """How often a server has executed a command."""
    with server.client() as client:
        return client.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0)


def neighbours_are_served(conn: Conn) -> None:
    """Every reply belongs to its command."""
    numbers = range(10, 50)
    assert conn.pipeline(*[("SET", f"n{n}", f"v{n}") for n in numbers]) == [b"+OK\r\n"] * len(numbers)
    mixed: list[tuple[Arg, ...]] = [("ECHO", f"e{n}") if n % 2 else ("GET", f"n{n}") for n in numbers]
    expected = [b"$3\r\n%c%d\r\n" % (b"ve"[n % 2], n) for n in numbers]
    assert conn.pipeline(*mixed) == expected


REPLICATION: list[tuple[Arg, ...]] = [
    ("REPLCONF", "ACK", 0),
    ("REPLCONF", "listening-port", 6379),
    ("SYNC",),
    ("PSYNC", "?", -1),
    ("psync", "?", -1),
]


@pytest.mark.parametrize("mirrors", [False, True], ids=["pass-through", "mirrored"])
def test_nobody_else_is_concerned_by_a_replica(sidecar, redis_server, server: RedisServer, mirrors: bool) -> None:
    """Once REPLCONF ACK, which has no reply, moved everybody's replies by one, and SYNC sent the data set to others."""
    config = configs.mirrored(server.address, redis_server().address) if mirrors else None
    proxy = sidecar(config or configs.pass_through(server.address))
    with proxy.conn() as other:
        assert other.command("SET", "k", "v") == b"+OK\r\n"
        for command in REPLICATION:
            with proxy.conn() as one:
                if mirrors:
                    assert one.command(*command).startswith(b"-ERR "), command
                else:
                    one.send(encode(*command))
                neighbours_are_served(other)
            with proxy.conn() as one:
                replies = one.pipeline(("MULTI",), ("SET", "t", 1), command, ("EXEC",), ("GET", "k"))
                assert replies[:2] == [b"+OK\r\n", b"+QUEUED\r\n"]
                assert replies[2].startswith(b"-ERR "), command
                assert replies[3].startswith(b"-EXECABORT "), command
                assert replies[4] == b"$1\r\nv\r\n"
            neighbours_are_served(other)
    if mirrors:
        assert endpoint(proxy)["upstream_cx_destroy"] == 0
        assert calls(server, "replconf") + calls(server, "sync") + calls(server, "psync") == 0


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in-a-transaction"])
def test_argument_larger_than_the_server_takes(sidecar, redis_server, inside: bool) -> None:
    """Once an argument above the server's proto-max-bulk-len made Redis close the connection of all clients."""
    server = redis_server(proto_max_bulk_len="1mb")
    proxy = sidecar(configs.mirrored(server.address, redis_server().address))
    with proxy.conn() as one, proxy.conn() as other:
        assert other.command("SET", "k", "v") == b"+OK\r\n"
        if inside:
            replies = one.pipeline(("MULTI",), ("SET", "x", b"v" * (3 * MIB)), ("EXEC",))
            assert endpoint(proxy)["upstream_cx_destroy"] == 0, replies[-1]
            assert replies[-1].startswith(b"-EXECABORT ")
        else:
            for _ in range(3):
                reply = one.command("SET", "x", b"v" * (3 * MIB))
                assert reply.startswith(b"-ERR ")
                assert b"proto-max-bulk-len" in reply
        assert one.command("SET", "x", b"v" * MIB) == b"+OK\r\n"
        neighbours_are_served(other)
    assert endpoint(proxy)["upstream_cx_destroy"] == 0


def test_script_that_names_one_key_ten_thousand_times(sidecar, redis_server, server: RedisServer) -> None:
    """Once each mention was a copy of its own: 10,000 DUMPs of a large key, and everybody waited behind them."""
    mirror = redis_server()
    proxy = sidecar(configs.mirrored(server.address, mirror.address))
    with server.conn() as conn:
        conn.command("SET", "big", b"v" * 100_000)
    with proxy.conn() as one, proxy.conn(timeout=2) as other:
        assert other.command("SET", "k", "v") == b"+OK\r\n"
        one.send_command("EVAL", "return 1", 10_000, *["big"] * 10_000)
        neighbours_are_served(other)
        assert one.reply() == b":1\r\n"
        neighbours_are_served(other)
    assert_equal(server, mirror)
    assert calls(server, "dump") < 10
    assert proxy.stats()["replicas"][0]["lost_total"] == 0


def test_transaction_that_names_one_key_thousands_of_times(sidecar, redis_server, server: RedisServer) -> None:
    """The same with one key in thousands of commands of one transaction."""
    mirror = redis_server()
    proxy = sidecar(configs.mirrored(server.address, mirror.address))
    with server.conn() as conn:
        conn.command("SET", "big", b"v" * 100_000)
    script = ("EVAL", "return redis.call('append', KEYS[1], math.random())", 1, "big")
    with proxy.conn() as one, proxy.conn(timeout=2) as other:
        one.send(encode("MULTI") + encode(*script) * 2_000 + encode("EXEC"))
        neighbours_are_served(other)
        assert len(one.replies(2_002)) == 2_002
        neighbours_are_served(other)
    assert_equal(server, mirror)
    assert calls(server, "dump") < 10


def test_script_that_names_ten_thousand_keys(sidecar, redis_server, server: RedisServer) -> None:
    """Many different keys are copied little by little: nobody waits behind all of them, and all arrive."""
    mirror = redis_server()
    proxy = sidecar(configs.mirrored(server.address, mirror.address))
    script = "for i, k in ipairs(KEYS) do redis.call('set', k, math.random()) end return 1"
    with proxy.conn() as one, proxy.conn(timeout=2) as other:
        one.send_command("EVAL", script, 5_000, *[f"key{n}" for n in range(5_000)])
        neighbours_are_served(other)
        assert one.reply() == b":1\r\n"
    assert assert_equal(server, mirror) > 5_000
    assert proxy.stats()["replicas"][0]["lost_total"] == 0


PUSHED = {
    "short-push": b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n",
    "long-push": b">2\r\n$10\r\ninvalidate\r\n$100000\r\n" + b"x" * 60_000,
}


@pytest.mark.parametrize("pushed", PUSHED.values(), ids=PUSHED.keys())
def test_pushed_message(sidecar, relay, server: RedisServer, pushed: bytes) -> None:
    """Once a push that came between replies was taken for one of them; a long one was even streamed to its client."""
    between = relay(server.port)
    proxy = sidecar(configs.pass_through(between.address))
    with proxy.conn() as one, proxy.conn() as other:
        assert [conn.command("SET", "k", "v") for conn in (one, other)] == [b"+OK\r\n"] * 2
        between.stall(Direction.DOWN)
        one.send_command("GET", "k")
        other.send_command("INCR", "n")
        wait.until(lambda: server.cli("EXISTS", "n"), "Redis has both commands")
        between.inject(pushed)
        for conn in (one, other):
            assert conn.reply().startswith(b"-INDOUBT ")
        between.flow(Direction.DOWN)
        wait.until(lambda: one.command("GET", "k") == b"$1\r\nv\r\n", "it works again")
        neighbours_are_served(other)
    assert endpoint(proxy)["upstream_cx_protocol_error"] == 1


def test_reply_that_comes_before_its_command_was_sent(sidecar, relay, server: RedisServer) -> None:
    """Once a reply nobody asked for was given to a command that Redis had not got: a write seemed done that was not."""
    between = relay(server.port)
    proxy = sidecar(configs.pass_through(between.address))
    with proxy.conn() as one:
        assert one.command("SET", "k", "v") == b"+OK\r\n"
        between.stall(Direction.UP)
        one.send_command("SET", "x", b"v" * (48 * MIB))  # more than all the buffers on the way
        wait.until(lambda: endpoint(proxy)["upstream_rq_active"] == 1, "it is on its way")
        between.inject(b"+OK\r\n")
        assert one.reply().startswith((b"-INDOUBT ", b"-UNAVAILABLE "))
        between.flow(Direction.UP)
        wait.until(lambda: one.command("GET", "k") == b"$1\r\nv\r\n", "it works again")
    assert server.cli("EXISTS", "x") == 0


def test_muted_large_reply(sidecar, server: RedisServer) -> None:
    """Once a large reply that nobody wanted (CLIENT REPLY OFF) was held as a whole: 300 MB, past every bound."""
    with server.conn() as conn:
        conn.command("SET", "big", b"v" * (64 * MIB))
    config = configs.pass_through(server.address)
    config["limits"] = {"max_output": "1MB"}
    proxy = sidecar(config)
    with proxy.conn() as one, proxy.conn() as other:
        neighbours_are_served(other)
        before = peak_memory(proxy)
        one.send(encode("CLIENT", "REPLY", "OFF") + encode("GET", "big") + encode("CLIENT", "REPLY", "ON"))
        assert one.reply() == b"+OK\r\n"
        assert one.command("ECHO", "x") == b"$1\r\nx\r\n"
        neighbours_are_served(other)
    assert calls(server, "get") > 0
    assert peak_memory(proxy) - before < 16 * MIB
    assert endpoint(proxy)["upstream_cx_destroy"] == 0


@pytest.mark.parametrize("command", ["GET", "EVAL"])
def test_large_reply_of_a_mirrored_transaction(sidecar, redis_server, server: RedisServer, command: str) -> None:
    """Once such a reply, which must be seen whole to know the effects, broke the connection when it was too large."""
    mirror = redis_server()
    config = configs.mirrored(server.address, mirror.address)
    config["limits"] = {"max_output": "1MB"}
    proxy = sidecar(config)
    with server.conn() as conn:
        conn.command("SET", "big", b"v" * (3 * MIB))
    large = ("GET", "big") if command == "GET" else ("EVAL", "return redis.call('get', KEYS[1])", 1, "big")
    with proxy.conn() as one, proxy.conn() as other:
        assert other.command("SET", "k", "v") == b"+OK\r\n"
        one.send(b"".join(encode(*each) for each in [("MULTI",), ("INCR", "n"), large, ("EXEC",)]))
        assert one.replies(3)[2] == b"+QUEUED\r\n"
        neighbours_are_served(other)
        try:
            reply = one.reply()
        except ClosedError:
            pass  # it had more to read than a client may have
        else:
            assert len(reply) > 3 * MIB or reply.startswith(b"-INDOUBT ")
        neighbours_are_served(other)
        wait.until(lambda: mirror.cli("GET", "n") == b"1", "the effect is at the mirror")
    assert endpoint(proxy)["upstream_cx_destroy"] == 0


def test_replies_ahead_of_their_turn_are_bounded(sidecar, server: RedisServer) -> None:
    """Once what the proxy answers itself piled up behind a slow command: 400 MB of ECHO behind one GET."""
    proxy = sidecar(configs.pass_through(server.address, op_timeout="30s"))
    value, count = b"v" * MIB, 64
    with proxy.conn() as one, proxy.conn() as other:
        assert [conn.command("SET", "k", "v") for conn in (one, other)] == [b"+OK\r\n"] * 2
        before = peak_memory(proxy)
        server.pause()
        try:
            sender = threading.Thread(target=one.send, args=(encode("GET", "k") + encode("ECHO", value) * count,))
            sender.start()
            sender.join(0.4)
            assert sender.is_alive(), "the proxy has read everything"
            assert peak_memory(proxy) - before < 16 * MIB
        finally:
            server.resume()
        assert one.reply() == b"$1\r\nv\r\n"
        assert one.replies(count) == [b"$%d\r\n%b\r\n" % (MIB, value)] * count
        sender.join(5)
        neighbours_are_served(other)


BUSY = "local function now() local t = redis.call('TIME') return t[1] * 1000000 + t[2] end \
local start = now() while now() - start < 400000 do end"


@pytest.fixture
def busy(redis_server):
    """A Redis, and how to make it busy with a script for 0.4 s (in the background)."""
    server = redis_server(busy_reply_threshold="50")
    threads = []

    def begin() -> threading.Thread:
        threads.append(threading.Thread(target=server.cli, args=("EVAL", BUSY, 0)))
        threads[-1].start()
        with server.conn() as conn:
            wait.until(lambda: conn.command("GET", "k").startswith(b"-BUSY "), "Redis is busy", every=0.001)
        return threads[-1]

    yield server, begin
    for thread in threads:
        thread.join(10)


def test_select_while_a_script_runs(sidecar, busy) -> None:
    """Once a SELECT that Redis was too busy for counted as refused for good: the database was gone for everybody."""
    server, begin = busy
    proxy = sidecar(configs.pass_through(server.address))
    with proxy.conn() as one, proxy.conn() as other:
        assert other.command("SET", "k", "zero") == b"+OK\r\n"
        script = begin()
        assert one.command("SELECT", 1).startswith(b"-BUSY ")
        script.join(10)
        for conn in (one, other):
            assert conn.pipeline(("SELECT", 1), ("SET", "k", "one"), ("GET", "k")) == [
                b"+OK\r\n",
                b"+OK\r\n",
                b"$3\r\none\r\n",
            ]
        assert other.pipeline(("SELECT", 0), ("GET", "k"))[1] == b"$4\r\nzero\r\n"


def test_everybody_is_answered_while_a_script_runs(sidecar, busy) -> None:
    """Once the first command was told -BUSY and all others were told nothing until the script's end, however long."""
    server, begin = busy
    proxy = sidecar(configs.pass_through(server.address, op_timeout="150ms"))
    with proxy.conn() as one, proxy.conn() as other:
        assert [conn.command("SET", "k", "v") for conn in (one, other)] == [b"+OK\r\n"] * 2
        script = begin()
        assert one.command("GET", "k").startswith((b"-BUSY ", b"-TIMEOUT "))
        for conn in (one, other):  # from here on the proxy knows that Redis is busy
            conn.send(encode("GET", "k") * 2)
        for reply in one.replies(2) + other.replies(2):
            assert reply.startswith((b"-BUSY ", b"-TIMEOUT ")), reply
        assert script.is_alive(), "the answers came with the script's end"
        script.join(10)
        wait.until(lambda: one.command("GET", "k") == b"$1\r\nv\r\n", "it works again")
        neighbours_are_served(other)


def test_write_into_another_database_while_a_script_runs(sidecar, busy) -> None:
    """Once the injected SELECT failed, and a write that Redis got after the script's end landed in database 0."""
    server, begin = busy
    proxy = sidecar(configs.pass_through(server.address))
    with proxy.conn() as one, proxy.conn() as other:
        assert one.pipeline(("SELECT", 1), ("SET", "k", 1)) == [b"+OK\r\n"] * 2
        assert other.command("SET", "k", 0) == b"+OK\r\n"
        script = begin()
        reply = one.command("SET", "large", b"v" * (4 * MIB))
        assert reply.startswith((b"-BUSY ", b"-INDOUBT ", b"-UNAVAILABLE "))
        script.join(10)
        wait.until(lambda: one.command("SET", "later", 1) == b"+OK\r\n", "it works again")
        neighbours_are_served(other)
    assert not server.cli("EXISTS", "large", "later", db=0)
    assert server.cli("EXISTS", "later", db=1)


def test_mirror_busy_with_a_script_when_a_database_is_first_used(sidecar, busy, redis_server) -> None:
    """Once a mirror too busy for its first SELECT never got that database: every write to it was lost."""
    mirror, begin = busy
    primary = redis_server()
    proxy = sidecar(configs.mirrored(primary.address, mirror.address))
    with proxy.conn() as conn:
        assert conn.command("SET", "k", 0) == b"+OK\r\n"
        wait.until(lambda: mirror.cli("EXISTS", "k"), "the mirror gets writes")
        script = begin()
        assert conn.pipeline(("SELECT", 2), *[("INCR", "n")] * 50)[-1] == b":50\r\n"
        assert conn.pipeline(("SELECT", 0), ("INCR", "n"))[-1] == b":1\r\n"
        script.join(10)
    assert assert_equal(primary, mirror) == 3
    assert proxy.stats()["replicas"][0]["lost_total"] == 0
