"""WATCH and commands that block, when plans change meanwhile or the Redis stalls."""

from collections.abc import Callable

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
