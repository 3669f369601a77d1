"""WATCH and commands that block, when plans change meanwhile or the Redis stalls."""

import contextlib
from collections.abc import Callable

import pytest

from support import configs, wait
from support.equality import assert_same
from support.redis_server import RedisServer
from support.sidecar import Sidecar
from support.wire import Conn, encode

Servers = Callable[..., RedisServer]
Sidecars = Callable[..., Sidecar]


def _blocks(port: int) -> bool:
    with Conn(port) as conn:
        return b"flags=b" in conn.command("CLIENT", "LIST")


def _calls(server: RedisServer, name: str) -> int:
    return int(server.client().info("commandstats").get(f"cmdstat_{name}", {"calls": 0})["calls"])


def test_a_mirror_comes_while_a_client_blocks(redis_server: Servers, sidecar: Sidecars) -> None:
    """What it would be given by the Redis itself no mirror would hear of: it is told to ask again."""
    server, mirror = redis_server(), redis_server()
    proxy = sidecar(configs.pass_through(server.address))
    with Conn(proxy.port) as conn, Conn(proxy.port) as other:
        conn.send(encode("BLPOP", "k", 0))
        wait.until(lambda: _blocks(proxy.port), "it blocks")
        proxy.reload(configs.mirrored(server.address, mirror.address))
        assert conn.replies(1)[0].startswith(b"-UNBLOCKED ")
        conn.send(encode("BLPOP", "k", 0))
        assert other.command("RPUSH", "k", "a", "b") == b":2\r\n"
        assert conn.replies(1) == [b"*2\r\n$1\r\nk\r\n$1\r\na\r\n"]
        assert_same(server, mirror, within=10)


def test_the_mirror_goes_while_a_client_blocks(redis_server: Servers, sidecar: Sidecars) -> None:
    server, mirror = redis_server(), redis_server()
    proxy = sidecar(configs.mirrored(server.address, mirror.address))
    with Conn(proxy.port) as conn, Conn(proxy.port) as other:
        conn.send(encode("BLPOP", "k", 0))
        wait.until(lambda: _blocks(proxy.port), "it blocks")
        proxy.reload(configs.pass_through(server.address))
        assert other.command("RPUSH", "k", "a") == b":1\r\n"
        assert conn.replies(1) == [b"*2\r\n$1\r\nk\r\n$1\r\na\r\n"]


def test_who_waits_does_not_ask_again_and_again(redis_server: Servers, sidecar: Sidecars) -> None:
    server, mirror = redis_server(), redis_server()
    proxy = sidecar(configs.mirrored(server.address, mirror.address))
    with Conn(proxy.port) as conn:
        assert conn.command("BLPOP", "k", "0.5") == b"*-1\r\n"
    assert _calls(server, "lpop") == 1


def test_exec_of_watched_keys_in_another_database(redis_server: Servers, sidecar: Sidecars) -> None:
    server, mirror = redis_server(), redis_server()
    proxy = sidecar(configs.mirrored(server.address, mirror.address))
    with Conn(proxy.port) as conn, Conn(proxy.port) as other:
        conn.command("SELECT", "3")
        conn.command("WATCH", "k")
        assert other.command("SET", "x", "y") == b"+OK\r\n"  # the shared connection is in database 0
        conn.send(encode("MULTI") + encode("SET", "k", "v") + encode("EXEC"))
        assert conn.replies(3)[2] == b"*1\r\n+OK\r\n"
        assert other.command("GET", "x") == b"$1\r\ny\r\n"
        assert_same(server, mirror)


def test_exec_of_watched_keys_at_a_redis_that_stalls(redis_server: Servers, sidecar: Sidecars) -> None:
    """It waits for what was sent before it, but no longer than `op_timeout`."""
    server, mirror = redis_server(), redis_server()
    proxy = sidecar(configs.mirrored(server.address, mirror.address, op_timeout="300ms"))
    with Conn(proxy.port) as conn, Conn(proxy.port) as other:
        conn.command("WATCH", "k")
        server.pause()
        try:
            other.send(encode("SET", "x", "y"))
            assert other.replies(1)[0].startswith(b"-INDOUBT ")
            conn.send(encode("MULTI") + encode("SET", "k", "v") + encode("EXEC"))
            assert conn.replies(3)[2].startswith(b"-TIMEOUT ")
        finally:
            server.resume()
        wait.until(lambda: other.command("SET", "x", "z") == b"+OK\r\n", "the Redis answers")
        assert conn.command("GET", "k") == b"$-1\r\n"
        assert_same(server, mirror)


@pytest.mark.parametrize("before", [("GET", "k"), ("SCRIPT", "LOAD", "return 1")])
def test_others_are_told_that_a_script_runs(redis_server: Servers, sidecar: Sidecars, before: tuple[str, ...]) -> None:
    """It keeps the connection that all share: what is sent meanwhile goes beside it, and Redis itself says BUSY."""
    server = redis_server(busy_reply_threshold="50")
    proxy = sidecar(configs.pass_through(server.address))
    with Conn(proxy.port) as runs, Conn(proxy.port) as other, Conn(proxy.port) as third:
        assert third.command("MULTI") == b"+OK\r\n"
        assert third.command("INCR", "n") == b"+QUEUED\r\n"
        runs.send(encode(*before) + encode("EVAL", "while true do end", 0))
        wait.until(lambda: other.command("PING").startswith(b"-BUSY "), "it says so")
        assert other.command("SET", "k", 1).startswith(b"-BUSY ")
        assert other.command("EVAL", "return 1", 0).startswith(b"-BUSY ")
        assert third.command("EXEC").startswith(b"-EXECABORT Transaction discarded because of: BUSY ")
        assert other.command("SCRIPT", "KILL") == b"+OK\r\n"
        assert b"killed" in runs.replies(2)[1]
        assert other.command("SET", "k", 1) == b"+OK\r\n"
        assert [c.command("PING") for c in (runs, other, third)] == [b"+PONG\r\n"] * 3
    assert server.client().get("n") is None


def test_who_is_held_up_by_a_script_gets_its_reply_after_it(redis_server: Servers, sidecar: Sidecars) -> None:
    """Longer than connect_timeout, shorter than the time after which Redis says BUSY: nobody hears of it."""
    server = redis_server()
    proxy = sidecar(configs.pass_through(server.address, connect_timeout="250ms"))
    script = """
        local now = function() local t = redis.call('TIME'); return t[1] * 1000 + t[2] / 1000 end
        local till = now() + 900
        repeat until now() > till
        return 1
    """
    with Conn(proxy.port) as runs, Conn(proxy.port) as other:
        assert other.command("SET", "k", 1) == b"+OK\r\n"
        runs.send(encode("EVAL", script, 0))
        assert runs.silent_for(0.2)
        assert other.pipeline(("GET", "k"), ("PING",)) == [b"$1\r\n1\r\n", b"+PONG\r\n"]
        assert runs.reply() == b":1\r\n"


def test_exec_tells_why_a_command_was_not_queued(redis_server: Servers, sidecar: Sidecars) -> None:
    server = redis_server()
    proxy = sidecar(configs.pass_through(server.address))
    with Conn(proxy.port) as conn:
        assert conn.pipeline(("MULTI",), ("SET", "k", 1)) == [b"+OK\r\n", b"+QUEUED\r\n"]
        server.client().config_set("maxmemory", 1)
        reason = b"OOM command not allowed when used memory > 'maxmemory'.\r\n"
        assert conn.command("EXEC") == b"-EXECABORT Transaction discarded because of: " + reason
        server.client().config_set("maxmemory", 0)
        assert conn.pipeline(("MULTI",), ("SET", "k", 1), ("EXEC",))[2] == b"*1\r\n+OK\r\n"


def test_connections_stand_ready_for_who_comes_next(redis_server: Servers, sidecar: Sidecars) -> None:
    """Once one was needed there are spare ones, which stay; they go when nobody has needed one for a while."""
    server = redis_server()
    proxy = sidecar(configs.pass_through(server.address))

    def opened() -> set[str]:
        return {client["id"] for client in clients.client_list()}

    with Conn(proxy.port) as conn, Conn(proxy.port) as other, server.client() as clients:
        before = opened()
        assert conn.command("WATCH", "k") == b"+OK\r\n"
        wait.until(lambda: len(opened() - before) >= 5, "they are open")
        ready = opened() - before
        assert other.silent_for(0.3)
        assert len(ready - opened()) <= 1  # (a probe's may be among them)
        other.send(encode("BLPOP", "k", 0))  # and is there before what is sent after it
        assert conn.command("RPUSH", "k", "v") == b":1\r\n"
        assert other.reply() == b"*2\r\n$1\r\nk\r\n$1\r\nv\r\n"


def test_who_waits_here_is_a_blocked_client(redis_server: Servers, sidecar: Sidecars) -> None:
    proxy = sidecar(configs.mirrored(redis_server().address, redis_server().address))
    with Conn(proxy.port) as waits, Conn(proxy.port) as paused, Conn(proxy.port) as conn:
        waits.send(encode("BLPOP", "k", 0))
        wait.until(lambda: b"\r\nblocked_clients:1\r\n" in conn.command("INFO", "clients"), "it blocks")
        assert conn.command("CLIENT", "PAUSE", 60_000, "WRITE") == b"+OK\r\n"
        paused.send(encode("SET", "a", 1))
        wait.until(lambda: b"\r\nblocked_clients:2\r\n" in conn.command("INFO"), "it is paused")
        assert conn.command("CLIENT", "UNPAUSE") == b"+OK\r\n"
        assert paused.reply() == b"+OK\r\n"


def test_messages_come_although_replies_are_off(redis_server: Servers, sidecar: Sidecars) -> None:
    proxy = sidecar(configs.pass_through(redis_server().address))
    with Conn(proxy.port) as conn, Conn(proxy.port) as other:
        conn.send(encode("CLIENT", "REPLY", "OFF") + encode("SUBSCRIBE", "c"))
        assert conn.reply() == b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"
        assert other.command("PUBLISH", "c", "m") == b":1\r\n"
        assert conn.reply() == b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n"


def _replaced(old: RedisServer, proxy: Sidecar, conns: list[Conn], after: configs.Config) -> None:
    """They ask for connections of their own at a Redis that hangs, and are told by the one that takes its place."""

    def opened() -> int:
        return sum(endpoint["upstream_cx_total"] for endpoint in proxy.stats()["endpoints"])

    before = opened()
    old.pause()
    for conn in conns:
        conn.send_command("BLPOP", "q", 1)
    wait.until(lambda: opened() >= before + len(conns), "each has one")
    proxy.reload(after)
    assert [conn.reply() for conn in conns] == [b"*-1\r\n"] * len(conns)


@pytest.mark.parametrize("then", ["subscribe", "execute"])
def test_the_redis_is_replaced_before_own_connections_stand(
    redis_server: Servers, sidecar: Sidecars, then: str
) -> None:
    """Once a session kept the key of a connection that the reload had removed, and took another's for its own."""
    old, new, mirror = redis_server(), redis_server(), redis_server()
    proxy = sidecar(configs.pass_through(old.address, op_timeout="20s"))
    with contextlib.ExitStack() as cleanup:
        first, *conns = [cleanup.enter_context(proxy.conn()) for _ in range(6)]
        watchers = [cleanup.enter_context(proxy.conn()) for _ in range(5)]
        assert first.command("GET", "k") == b"$-1\r\n"
        _replaced(old, proxy, conns, configs.mirrored(new.address, mirror.address))
        assert [conn.command("WATCH", "k") for conn in watchers] == [b"+OK\r\n"] * 5
        for number, conn in enumerate(conns):
            if then == "subscribe":
                channel = b"$2\r\nc%d\r\n" % number
                assert conn.command("SUBSCRIBE", f"c{number}") == b"*3\r\n$9\r\nsubscribe\r\n" + channel + b":1\r\n"
                assert first.command("PUBLISH", f"c{number}", "m") == b":1\r\n"
                assert conn.reply() == b"*3\r\n$7\r\nmessage\r\n" + channel + b"$1\r\nm\r\n"
            else:
                assert conn.command("WATCH", "z") == b"+OK\r\n"
                assert conn.pipeline(("MULTI",), ("ECHO", number), ("EXEC",))[2] == b"*1\r\n$1\r\n%d\r\n" % number
        assert [conn.command("PING") for conn in watchers] == [b"+PONG\r\n"] * 5
        assert first.command("SET", "k", "changed") == b"+OK\r\n"
        for conn in watchers:
            assert conn.pipeline(("MULTI",), ("SET", "k", "mine"), ("EXEC",))[2] == b"*-1\r\n"
        assert_same(new, mirror)
    assert proxy.exit_code() is None


def test_who_asked_a_replaced_redis_for_a_connection_leaves(redis_server: Servers, sidecar: Sidecars) -> None:
    """Once those that left took connections with them that all share, and the process ended."""
    old, *servers = [redis_server() for _ in range(5)]
    proxy = sidecar(configs.pass_through(old.address, op_timeout="20s"))
    config = configs.mirrored(servers[0].address, servers[1].address)
    with Conn(proxy.port) as other:
        assert other.command("GET", "k") == b"$-1\r\n"
        with contextlib.ExitStack() as cleanup:
            conns = [cleanup.enter_context(proxy.conn()) for _ in range(5)]
            _replaced(old, proxy, conns, config)
            more = {f"more-{number}": server for number, server in enumerate(servers[2:])}
            for name, server in more.items():
                config["clusters"][name] = configs.cluster(server.address)
                config["listeners"][0]["routes"].insert(0, {"prefix": f"{name}:", "cluster": name})
            proxy.reload(config)
            keys = ["k", *(f"{name}:k" for name in more)]
            for key in keys:
                wait.until(lambda k=key: other.command("SET", k, 1) == b"+OK\r\n", "the servers are there")
        wait.until(lambda: proxy.stats()["listeners"][0]["downstream_cx_active"] == 1, "they are gone")
        assert [other.command("SET", key, 2) for key in keys] == [b"+OK\r\n"] * len(keys)
    assert proxy.exit_code() is None


@pytest.mark.parametrize("watched", [False, True], ids=["plain", "watched"])
def test_multi_before_and_exec_after_a_reload(redis_server: Servers, sidecar: Sidecars, watched: bool) -> None:
    """Once EXEC was refused although nothing had been queued before the reload."""
    server, other = redis_server(), redis_server()
    proxy = sidecar(configs.pass_through(server.address))
    with Conn(proxy.port) as conn:
        if watched:
            assert conn.command("WATCH", "k") == b"+OK\r\n"
        assert conn.command("MULTI") == b"+OK\r\n"
        proxy.reload(configs.pass_through(server.address, op_timeout="4s"))
        assert conn.pipeline(("SET", "k", 1), ("EXEC",)) == [b"+QUEUED\r\n", b"*1\r\n+OK\r\n"]
        assert conn.pipeline(("MULTI",), ("SET", "k", 2)) == [b"+OK\r\n", b"+QUEUED\r\n"]
        proxy.reload(configs.pass_through(other.address))
        assert conn.command("EXEC").startswith(b"-EXECABORT ")
        assert conn.pipeline(("MULTI",), ("SET", "k", 3), ("EXEC",))[2] == b"*1\r\n+OK\r\n"
    assert [each.cli("GET", "k") for each in (server, other)] == [b"1", b"3"]
