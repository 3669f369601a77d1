"""What a client that has a connection of its own is told, byte for byte as by the Redis itself."""

import re
from collections.abc import Callable

import pytest

from support import configs, wait
from support.equality import markers
from support.redis_server import RedisServer
from support.sidecar import Sidecar
from support.wire import Arg, Conn

Servers = Callable[..., RedisServer]
Sidecars = Callable[..., Sidecar]
Step = tuple[tuple[Arg, ...], int]
"""A command, and how many replies and messages it brings."""

MESSAGE: Step = (("PUBLISH", "c", "m"), 1)
"""By another client."""


@pytest.fixture(scope="module")
def server(module_redis_server: Servers) -> RedisServer:
    """The Redis behind."""
    return module_redis_server()


@pytest.fixture(scope="module")
def proxy(module_sidecar: Sidecars, server: RedisServer) -> Sidecar:
    """A route without mirrors to it."""
    return module_sidecar(configs.pass_through(server.address))


def _told(port: int, steps: list[Step]) -> list[bytes]:
    """All that a client is told that does this, one after the other, and then asks for the end."""
    told = []
    with Conn(port) as conn, Conn(port) as other:
        for words, count in steps:
            if words == MESSAGE[0]:
                assert other.command(*words) == b":1\r\n"
            else:
                conn.send_command(*words)
            told += conn.replies(count)
        conn.send_command("PING", "the end")
        while not told or b"the end" not in told[-1]:
            told.append(conn.reply())
        assert conn.silent_for(0.1)
    return [re.sub(rb"(\$2\r\nid\r\n:)\d+", rb"\1", reply) for reply in told]


@pytest.mark.parametrize(
    "steps",
    [
        [MESSAGE, (("PING",), 1), (("SUBSCRIBE", "d", "c"), 2), MESSAGE, (("UNSUBSCRIBE",), 2), (("GET", "k"), 1)],
        [(("PSUBSCRIBE", "p*"), 1), MESSAGE, (("GET", "k"), 1), (("RESET",), 1), (("GET", "k"), 1)],
        [(("HELLO", 3), 1), MESSAGE, (("PING",), 1), (("HELLO", 2), 1), (("UNSUBSCRIBE", "c"), 1)],
    ],
    ids=["unsubscribe", "reset", "and-back"],
)
def test_a_subscriber_goes_back_to_resp2(server: RedisServer, proxy: Sidecar, steps: list[Step]) -> None:
    """Once the Redis's reply to redisha's own HELLO was passed on, and each later reply was that to the one before."""
    begin: list[Step] = [(("HELLO", 3), 1), (("SUBSCRIBE", "c"), 1), (("HELLO", 2), 1)]
    assert _told(proxy.port, begin + steps) == _told(server.port, begin + steps)


@pytest.mark.parametrize(
    "steps",
    [
        [(("CLIENT", "REPLY", "OFF"), 0), (("UNSUBSCRIBE", "c"), 1), (("CLIENT", "REPLY", "ON"), 1)],
        [(("CLIENT", "REPLY", "OFF"), 0), (("PUNSUBSCRIBE",), 1), (("CLIENT", "REPLY", "ON"), 1)],
        [(("CLIENT", "REPLY", "SKIP"), 0), (("UNSUBSCRIBE", "c", "d"), 2)],
        [(("CLIENT", "REPLY", "SKIP"), 0), (("RESET",), 0), (("GET", "k"), 1)],
        [(("SUBSCRIBE", "c"), 1), (("EXEC",), 1), MESSAGE, (("UNSUBSCRIBE",), 1), (("EXEC",), 1)],
        [(("SUBSCRIBE", "c"), 1), (("CLIENT", "NOSUCH"), 1), (("CLIENT", "ID"), 1), (("UNSUBSCRIBE",), 1)],
    ],
    ids=["off", "off-patterns", "skip", "skip-reset", "exec", "client"],
)
def test_what_is_no_usual_reply(server: RedisServer, proxy: Sidecar, steps: list[Step]) -> None:
    """Once UNSUBSCRIBE was silent under CLIENT REPLY OFF, RESET after SKIP was not; EXEC and CLIENT differed."""
    assert _told(proxy.port, steps) == _told(server.port, steps)


def test_a_tracking_client_sees_no_library_of_redisha(redis_server: Servers, sidecar: Sidecars) -> None:
    """Once it did where its connection was its own: markers of a time when there were mirrors."""
    server, mirror = redis_server(), redis_server()
    mirrored = sidecar(configs.mirrored(server.address, mirror.address))
    wait.until(lambda: markers(server), "the Redis is marked")
    mirrored.stop()
    proxy = sidecar(configs.pass_through(server.address))
    with proxy.conn() as conn, proxy.conn() as plain:
        conn.command("HELLO", 3)
        assert conn.command("CLIENT", "TRACKING", "ON") == b"+OK\r\n"
        assert conn.command("GET", "k") == b"_\r\n"
        lists: list[tuple[Arg, ...]] = [("FUNCTION", "LIST"), ("FUNCTION", "LIST", "LIBRARYNAME", "redisha_*")]
        assert conn.pipeline(*lists) == plain.pipeline(*lists) == [b"*0\r\n"] * 2
        own = "#!lua name=mine\nredis.register_function('f', function() return 1 end)"
        assert conn.command("FUNCTION", "LOAD", own) == b"$4\r\nmine\r\n"
        [listed] = conn.pipeline(("FUNCTION", "LIST"))
        assert listed.startswith(b"*1\r\n%3\r\n$12\r\nlibrary_name\r\n$4\r\nmine\r\n")
        assert b"redisha" not in listed
        assert conn.command("FCALL", "f", 0) == b":1\r\n"
    assert markers(server)
