"""What clients send while a script or a Redis that hangs holds up the connection that all share."""

import contextlib
from collections.abc import Callable

import pytest

from support import configs, wait
from support.redis_server import RedisServer
from support.sidecar import Sidecar
from support.wire import Arg, Conn, encode

Servers = Callable[..., RedisServer]
Sidecars = Callable[..., Sidecar]

MIB = 1 << 20
SHORT = encode("EVAL", "return 1", 0)
CLIENTS = 60


def _lives(proxy: Sidecar) -> None:
    """It runs, and has no panic to tell."""
    assert proxy.exit_code() is None
    assert "panic" not in proxy.log()


def _two_servers(one: RedisServer, two: RedisServer) -> configs.Config:
    """Keys that begin with ``a:`` are at the first one, the others at the second."""
    config = configs.pass_through(two.address)
    config["clusters"]["redis-002"] = configs.cluster(one.address)
    config["listeners"][0]["routes"].insert(0, {"prefix": "a:", "cluster": "redis-002"})
    return config


def _connections(server: RedisServer) -> int:
    with server.client() as client:
        return int(client.info("clients")["connected_clients"])


def test_a_split_command_while_two_servers_run_scripts(redis_server: Servers, sidecar: Sidecars) -> None:
    """Once the second server's connection of its own took the place of the first one's: the process ended."""
    one, two = redis_server(busy_reply_threshold="50"), redis_server(busy_reply_threshold="50")
    proxy = sidecar(_two_servers(one, two))
    with contextlib.ExitStack() as cleanup:
        conn, *others = [cleanup.enter_context(proxy.conn()) for _ in range(5)]
        assert conn.command("MSET", "a:k", "one", "k", "two") == b"+OK\r\n"
        for other, key in zip(others, ("a:k", "k"), strict=False):  # so that connections stand ready
            before = _connections(one if key == "a:k" else two)
            assert other.command("WATCH", key) == b"+OK\r\n"
            wait.until(lambda k=key, n=before: _connections(one if k == "a:k" else two) >= n + 2, "they do")
        for other, key in zip(others[2:], ("a:k", "k"), strict=True):
            other.send_command("EVAL", "while true do end", 1, key)
        assert others[3].silent_for(0.3)
        assert conn.command("MGET", "a:k", "k").startswith(b"-BUSY ")
        for server in (one, two):
            assert server.cli("SCRIPT", "KILL")
        assert all(b"killed" in other.reply() for other in others[2:])
        assert conn.command("MGET", "a:k", "k") == b"*2\r\n$3\r\none\r\n$3\r\ntwo\r\n"
    _lives(proxy)


def test_many_who_wait_for_a_script_take_one_connection(redis_server: Servers, sidecar: Sidecars) -> None:
    """Once each took one of its own: a Redis that hung for half a second was flooded, and clients were refused."""
    server = redis_server(maxclients=str(CLIENTS // 2))
    proxy = sidecar(configs.pass_through(server.address))
    with contextlib.ExitStack() as cleanup:
        runs, *conns = [cleanup.enter_context(proxy.conn()) for _ in range(1 + CLIENTS)]
        assert runs.command("SET", "k", "v") == b"+OK\r\n"
        assert all(conn.command("GET", "k") == b"$1\r\nv\r\n" for conn in conns)
        before = _connections(server)
        server.pause()
        try:
            runs.send(SHORT)
            assert runs.silent_for(0.2)
            for conn in conns:
                conn.send_command("GET", "k")
            assert runs.silent_for(0.3)
        finally:
            server.resume()
        assert [conn.reply() for conn in conns] == [b"$1\r\nv\r\n"] * CLIENTS
        assert runs.reply() == b":1\r\n"
        assert _connections(server) <= before + 2
    _lives(proxy)


def test_the_redis_is_replaced_while_many_wait_for_a_script(redis_server: Servers, sidecar: Sidecars) -> None:
    """Once those of them that left took connections with them that all share, and the process ended."""
    old, new, *servers = [redis_server() for _ in range(8)]
    before, after = [configs.pass_through(each.address, op_timeout="3s") | {"workers": 1} for each in (old, new)]
    proxy = sidecar(before)
    new.cli("SET", "k", "new")
    with contextlib.ExitStack() as cleanup:
        runs, other = [cleanup.enter_context(proxy.conn()) for _ in range(2)]
        conns = [cleanup.enter_context(proxy.conn()) for _ in range(10)]
        assert all(conn.command("GET", "k") == b"$-1\r\n" for conn in conns)
        old.pause()
        runs.send(SHORT)
        assert runs.silent_for(0.2)
        for conn in conns:
            conn.send_command("GET", "k")
        assert runs.silent_for(0.2)
        proxy.reload(after)
        assert [conn.reply() for conn in conns] == [b"$3\r\nnew\r\n"] * 10
        assert runs.reply().startswith(b"-INDOUBT ")
        wait.until(lambda: len(proxy.stats()["endpoints"]) == 1, "the old one is gone", timeout=20)
        for number, server in enumerate(servers):
            after["clusters"][f"more-{number}"] = configs.cluster(server.address)
            after["listeners"][0]["routes"].insert(0, {"prefix": f"{number}:", "cluster": f"more-{number}"})
        proxy.reload(after)
        keys = ["k", *(f"{number}:k" for number in range(len(servers)))]
        for key in keys:
            wait.until(lambda k=key: other.command("SET", k, 1) == b"+OK\r\n", "the servers are there")
        for conn in conns:
            conn.close()
        wait.until(lambda: proxy.stats()["listeners"][0]["downstream_cx_active"] == 2, "they are gone")
        assert [other.command("SET", key, 2) for key in keys] == [b"+OK\r\n"] * len(keys)
    _lives(proxy)


@pytest.mark.parametrize(
    ("held_by", "commands", "replies", "last"),
    [
        (SHORT, [("SET", "x", 2)], [b"+OK\r\n"], b"2"),
        (SHORT, [("APPEND", "x", "+")], [b":2\r\n"], b"1+"),
        (
            b"",
            [("WATCH", "x"), ("MULTI",), ("SET", "x", 2), ("EXEC",)],
            [b"+OK\r\n", b"+OK\r\n", b"+QUEUED\r\n", b"*1\r\n+OK\r\n"],
            b"2",
        ),
    ],
    ids=["script", "script-append", "watch"],
)
def test_nothing_overtakes_what_was_answered_by_time(
    redis_server: Servers,
    sidecar: Sidecars,
    held_by: bytes,
    commands: list[tuple[Arg, ...]],
    replies: list[bytes],
    last: bytes,
) -> None:
    """Once what a session sent next took another connection, and the older value was the last."""
    server = redis_server()
    proxy = sidecar(configs.pass_through(server.address, op_timeout="2s"))
    with proxy.conn() as conn, proxy.conn() as watches:
        assert conn.command("SET", "x", 0) == b"+OK\r\n"
        before = _connections(server)
        assert watches.command("WATCH", "y") == b"+OK\r\n"  # so that connections stand ready
        wait.until(lambda: _connections(server) >= before + 2, "they do")
        server.pause()
        try:
            # Redis reads the large one for a while, and looks at other connections meanwhile.
            large = encode("SET", "large", b"v" * MIB)
            conn.send(held_by + large + encode("SET", "x", 1) + encode("SET", "end", 1))
            late = conn.replies(held_by.count(b"EVAL") + 3)
            assert all(reply.startswith(b"-INDOUBT ") for reply in late)
            conn.send(b"".join(encode(*command) for command in commands))
            assert conn.silent_for(0.1)
        finally:
            server.resume()
        assert conn.replies(len(commands)) == replies
        wait.until(lambda: server.cli("EXISTS", "end"), "what was sent before has been done")
        assert server.cli("GET", "x") == last
    _lives(proxy)


def test_who_has_read_too_early_can_end_the_script(redis_server: Servers, sidecar: Sidecars) -> None:
    """Once a client whose read was late was shut out until the script ended: it could not even kill it."""
    server = redis_server()
    server.cli("CONFIG", "SET", "busy-reply-threshold", "50")
    proxy = sidecar(configs.pass_through(server.address, op_timeout="1s"))
    with proxy.conn() as runs, proxy.conn() as reads:
        runs.send_command("EVAL", "while true do end", 0)
        reads.send_command("GET", "k")
        assert reads.reply().startswith((b"-INDOUBT ", b"-BUSY "))
        assert reads.command("GET", "k").startswith(b"-BUSY ")
        assert reads.command("SET", "k", "v").startswith(b"-BUSY ")
        assert reads.command("SCRIPT", "KILL") == b"+OK\r\n"
        wait.until(lambda: reads.command("SET", "k", "v") == b"+OK\r\n", "the script has ended")


def test_what_waits_on_an_own_connection_is_bounded(redis_server: Servers, sidecar: Sidecars) -> None:
    """Once a tracking client could have any amount of memory taken while its Redis hung, and nobody counted it."""
    server = redis_server()
    proxy = sidecar(configs.pass_through(server.address, op_timeout="60s"))
    large = encode("SET", "k", b"v" * MIB)
    with proxy.conn() as conn, proxy.conn() as other:
        conn.command("HELLO", 3)
        assert conn.command("CLIENT", "TRACKING", "ON") == b"+OK\r\n"
        assert conn.command("GET", "k") == b"_\r\n"
        assert other.command("SET", "k", "v") == b"+OK\r\n"
        assert conn.reply().startswith(b">2\r\n$10\r\ninvalidate\r\n")
        server.pause()
        try:
            sent = _send_until_nobody_reads(conn, large * 96)
            assert sent < 48 * MIB
            held = proxy.stats()["worker"]["memory_bytes"]
            assert MIB < held < 24 * MIB
        finally:
            server.resume()
        # Then it goes on where it stopped.
        rest = len(large) - sent % len(large)
        conn.send(large[len(large) - rest :])
        assert conn.replies(sent // len(large) + 1) == [b"+OK\r\n"] * (sent // len(large) + 1)
        assert conn.command("STRLEN", "k") == b":%d\r\n" % MIB
    _lives(proxy)


def test_what_waits_on_own_connections_counts_for_who_sent_it(redis_server: Servers, sidecar: Sidecars) -> None:
    """Once it was nobody's: many clients together held more than the budget, and none of them was closed."""
    server = redis_server()
    config = configs.pass_through(server.address, op_timeout="60s")
    config["limits"] = {"memory": "16MB"}
    proxy = sidecar(config)

    def closed() -> int:
        return int(proxy.stats()["listeners"][0]["downstream_cx_memory_overflow"])

    with contextlib.ExitStack() as cleanup:
        other, *conns = [cleanup.enter_context(proxy.conn()) for _ in range(25)]
        for conn in conns:
            assert conn.pipeline(("WATCH", "k"), ("GET", "k")) == [b"+OK\r\n", b"$-1\r\n"]
            conn.command("HELLO", 3)
            assert conn.command("CLIENT", "TRACKING", "ON") == b"+OK\r\n"
        server.pause()
        try:
            for conn in conns:
                with contextlib.suppress(ConnectionError):
                    _send_until_nobody_reads(conn, encode("SET", "k", b"v" * (MIB // 2)) * 12, 0.1)
            wait.until(closed, "some were closed")
            wait.until(lambda: proxy.stats()["worker"]["memory_bytes"] <= 16 * MIB, "it is within the budget")
            assert closed() < len(conns)
        finally:
            server.resume()
        wait.until(lambda: other.command("GET", "end") == b"$-1\r\n", "it works")
    _lives(proxy)


def _send_until_nobody_reads(conn: Conn, data: bytes, seconds: float = 1) -> int:
    """Send until the other side has not read for a while; returns how many bytes were sent."""
    sent = 0
    conn.socket.settimeout(seconds)
    with contextlib.suppress(TimeoutError):
        while sent < len(data):
            sent += conn.socket.send(data[sent : sent + MIB])
    return sent


def test_a_tracked_xread_that_gets_no_answer(redis_server: Servers, sidecar: Sidecars) -> None:
    """Once it was taken for one that blocks, which may take any time; with BLOCK it is."""
    server = redis_server()
    proxy = sidecar(configs.pass_through(server.address, op_timeout="500ms"))
    read: tuple[Arg, ...] = ("COUNT", 1, "STREAMS", "s", 0)
    with proxy.conn() as conn, proxy.conn() as other:
        for each in (conn, other):
            each.command("HELLO", 3)
            assert each.command("CLIENT", "TRACKING", "ON") == b"+OK\r\n"
            assert each.command("GET", "k") == b"_\r\n"
        server.pause()
        try:
            other.send_command("XREAD", "BLOCK", 0, *read)
            conn.send_command("XREAD", *read)
            assert conn.reply().startswith(b"-INDOUBT ")
            assert other.silent_for(0.2)
        finally:
            server.resume()
        wait.until(lambda: conn.command("GET", "k") == b"_\r\n", "it works again")
        assert server.cli("XADD", "s", "1-1", "f", "v") == b"1-1"
        invalid = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\ns\r\n"
        entries = b"%1\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n"
        assert other.replies(2) == [invalid, entries]
        conn.send_command("XREAD", *read)
        assert conn.replies(2) == [invalid, entries]
