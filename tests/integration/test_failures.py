"""What clients are told when something behind the sidecar fails, and that nobody else notices."""

import signal
import time
from functools import partial
from pathlib import Path

import pytest

from support import configs, wait
from support.hooked import BLOCKED
from support.redis_server import RedisServer
from support.relay import Direction
from support.sidecar import HOOKED, Sidecar
from support.wire import ClosedError, Conn, encode

NOT_SENT = (b"-UNAVAILABLE ", b"-TIMEOUT ")
ANY_FAILURE = (*NOT_SENT, b"-INDOUBT ")


@pytest.fixture
def server(redis_server) -> RedisServer:
    """The Redis behind."""
    return redis_server()


def works(proxy: Sidecar) -> bool:
    """Whether a new client's write is answered as it should be."""
    with proxy.conn() as conn:
        return conn.command("SET", "works", "yes") == b"+OK\r\n"


def test_upstream_down_and_back(sidecar, server: RedisServer) -> None:
    """Down: an error that names the cluster and says that nothing was sent. Back: the same connection works."""
    proxy = sidecar(configs.pass_through(server.address))
    with proxy.conn() as conn:
        assert conn.command("SET", "k", "v") == b"+OK\r\n"
        server.kill()
        reply = wait.until(lambda: _failure(conn, "SET", "k", "w"), "the failure is noticed")
        assert reply.startswith(b"-UNAVAILABLE ")
        assert b"redis-001" in reply
        assert conn.command("PING") == b"+PONG\r\n"
        assert conn.command("GET", "k").startswith(b"-UNAVAILABLE ")
        server.start()
        wait.until(lambda: conn.command("SET", "k", "again") == b"+OK\r\n", "it works again on the same connection")
        assert conn.command("GET", "k") == b"$5\r\nagain\r\n"


def _failure(conn: Conn, *command: str) -> bytes:
    """The reply if it says "not sent"; a write caught in the middle says INDOUBT and is looked over."""
    reply = conn.command(*command)
    assert reply.startswith((b"+", *ANY_FAILURE)), reply
    return reply if reply.startswith(NOT_SENT) else b""


def test_down_from_the_start(sidecar, redis_server) -> None:
    """No Redis yet: the sidecar runs, is not ready, answers with an error, and works as soon as there is one."""
    server = redis_server(start=False)
    proxy = sidecar(configs.pass_through(server.address), ready=False)
    wait.until(lambda: proxy.get_status("/ready")[0] == 503, "the admin port answers")
    with proxy.conn() as conn:
        assert conn.command("GET", "k").startswith(b"-UNAVAILABLE ")
        assert conn.command("PING") == b"+PONG\r\n"
        server.start()
        wait.until(lambda: conn.command("GET", "k") == b"$-1\r\n", "it works")
    wait.until(proxy.is_ready, "it is ready")


def test_unresolvable_name(sidecar) -> None:
    """A name nobody knows: an error that names the cluster; the connection goes on."""
    config = configs.pass_through("no-such-host.invalid:6379", discovery="strict_dns")
    proxy = sidecar(config, ready=False)
    wait.until(lambda: proxy.get_status("/ready")[0] == 503, "the admin port answers")
    with proxy.conn() as conn:
        for _ in range(3):
            reply = conn.command("SET", "k", "v")
            assert reply.startswith(b"-UNAVAILABLE ")
            assert b"redis-001" in reply
        assert conn.command("PING") == b"+PONG\r\n"
    proxy.stop()


def test_no_route(sidecar, server: RedisServer) -> None:
    """A key that no prefix matches: an error, and the neighbours in the pipeline are served."""
    config = configs.pass_through(server.address)
    config["listeners"][0]["routes"][0]["prefix"] = "app:"
    proxy = sidecar(config)
    with proxy.conn() as conn:
        replies = conn.pipeline(("SET", "app:k", 1), ("SET", "other", 1), ("GET", "app:k"))
        assert replies[0] == b"+OK\r\n"
        assert replies[1].startswith(b"-")
        assert replies[2] == b"$1\r\n1\r\n"
    assert server.cli("EXISTS", "other") == 0


def test_timeout_is_one_requests_own(sidecar, server: RedisServer) -> None:
    """A request past ``op_timeout`` fails alone: a later neighbour on the same upstream gets its own reply."""
    proxy = sidecar(configs.pass_through(server.address, op_timeout="600ms"))
    with proxy.conn() as late, proxy.conn() as neighbour:
        assert late.command("SET", "k", "v") == b"+OK\r\n"
        assert neighbour.command("SET", "n", 41) == b"+OK\r\n"
        server.pause()
        try:
            late.send(encode("INCR", "counter") + encode("GET", "k"))
            write, read = late.replies(2, timeout=5)
            neighbour.send_command("INCR", "n")
        finally:
            server.resume()
        # The write may have been applied (and will be): saying anything else would be a lie.
        assert write.startswith(b"-INDOUBT ")
        assert read.startswith((b"-TIMEOUT ", b"-INDOUBT "))
        assert b"redis-001" in write
        assert neighbour.reply() == b":42\r\n"
        # The late replies were swallowed, not handed to whoever asked next.
        assert late.pipeline(("GET", "k"), ("ECHO", "x"), ("GET", "counter")) == [
            b"$1\r\nv\r\n",
            b"$1\r\nx\r\n",
            b"$1\r\n1\r\n",
        ]


def test_upstream_closes_in_the_middle_of_a_reply(sidecar, relay, server: RedisServer) -> None:
    """Half a reply is never passed off as a whole one: an error, and the client's connection works on."""
    between = relay(server.port)
    proxy = sidecar(configs.pass_through(between.address))
    server.cli("SET", "k", "twenty bytes of value")
    for size in (1, 4, 5, 12, 26):
        with proxy.conn() as conn:
            wait.until(partial(_exists, conn), "the upstream is connected")
            between.close_after(size, b"GET")
            replies = conn.pipeline(("GET", "k"), ("GET", "k"))
            assert all(reply.startswith(ANY_FAILURE) for reply in replies), (size, replies)
            assert conn.command("PING") == b"+PONG\r\n"


def _exists(conn: Conn) -> bool:
    return conn.command("EXISTS", "k") == b":1\r\n"


def test_upstream_closes_in_the_middle_of_a_large_reply(sidecar, relay, server: RedisServer) -> None:
    """A large reply may have been passed on in part: then the client's connection ends, and nothing is made up."""
    between = relay(server.port)
    proxy = sidecar(configs.pass_through(between.address))
    value = b"x" * (4 << 20)
    with server.conn() as conn:
        conn.command("SET", "big", value)
    between.close_after(1 << 20, b"GET")
    with proxy.conn() as conn:
        conn.send_command("GET", "big")
        try:
            reply = conn.reply()
        except ClosedError:
            pass  # a part of it was passed on
        else:
            assert reply.startswith(ANY_FAILURE)
            assert conn.command("PING") == b"+PONG\r\n"
    wait.until(lambda: works(proxy), "other clients are served")
    with proxy.conn() as conn:
        assert len(conn.command("GET", "big")) > len(value)


GARBAGE = {
    "text": b"garbage\r\n",
    "http": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "zeros": b"\x00" * 100,
    "huge-bulk": b"$99999999999999999999\r\n",
    "bad-length": b"$abc\r\n",
    "deep-arrays": b"*1\r\n" * 100_000,
    "a-reply-nobody-asked-for": b"$5\r\nwrong\r\n",
    "a-push": b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
def test_upstream_sends_garbage(sidecar, relay, server: RedisServer, garbage: bytes) -> None:
    """While idle or while a reply is waited for: never handed to a client, the upstream is connected again."""
    between = relay(server.port)
    proxy = sidecar(configs.pass_through(between.address))
    with proxy.conn() as conn:
        assert conn.command("SET", "k", "right") == b"+OK\r\n"
        # Idle.
        assert between.inject(garbage) > 0
        wait.until(lambda: proxy.stats()["endpoints"][0]["upstream_cx_protocol_error"] > 0, "it is noticed")
        answers = [wait.until(lambda: _answer_or_nothing(conn, garbage), "it works again") for _ in range(5)]
        assert set(answers) == {b"$5\r\nright\r\n"}
        if garbage == GARBAGE["a-reply-nobody-asked-for"]:
            return  # in place of an outstanding reply it cannot be told from a right one
        # A reply is outstanding.
        between.stall(Direction.DOWN)
        conn.send_command("GET", "k")
        between.inject(garbage)
        reply = conn.reply()
        between.flow(Direction.DOWN)
        assert reply.startswith(ANY_FAILURE) or reply == b"$5\r\nright\r\n"
        assert wait.until(lambda: _answer_or_nothing(conn, garbage), "it works again") == b"$5\r\nright\r\n"


def _answer_or_nothing(conn: Conn, garbage: bytes) -> bytes:
    """The reply to GET, or nothing when it is an honest failure."""
    reply = conn.command("GET", "k")
    assert garbage[:20] not in reply
    return b"" if reply.startswith(ANY_FAILURE) else reply


def test_port_in_use(sidecar, redis_server, server: RedisServer) -> None:
    """A listener's port is taken: the sidecar ends with an error that names the address."""
    config = configs.pass_through(redis_server().address)
    config["listeners"][0]["bind"] = [server.address]
    proxy = sidecar(config, ready=False)
    assert proxy.wait_exit() != 0
    assert server.address in proxy.log()
    assert "in use" in proxy.log().lower()
    assert "Traceback" not in proxy.log()


def test_admin_port_in_use(sidecar, server: RedisServer) -> None:
    """The same for the admin port."""
    config = configs.pass_through(server.address)
    config["admin"]["bind"] = server.address
    proxy = sidecar(config, ready=False)
    assert proxy.wait_exit() != 0
    assert server.address in proxy.log()
    assert "Traceback" not in proxy.log()


def test_configuration_error(sidecar, server: RedisServer) -> None:
    """A wrong file: an error with the place, and no Traceback."""
    config = configs.pass_through(server.address)
    config["listeners"][0]["routes"][0]["cluster"] = "redis-0001"
    proxy = sidecar(config, ready=False)
    assert proxy.wait_exit() != 0
    assert "redis-0001" in proxy.log()
    assert "Traceback" not in proxy.log()


def test_reload(sidecar, redis_server, server: RedisServer) -> None:
    """SIGHUP with another upstream: clients stay connected, the new one answers; a bad file changes nothing."""
    other = redis_server()
    other.cli("SET", "who", "other")
    server.cli("SET", "who", "server")
    proxy = sidecar(configs.pass_through(server.address))
    with proxy.conn() as conn:
        assert conn.command("GET", "who") == b"$6\r\nserver\r\n"
        proxy.reload(configs.pass_through(other.address))
        wait.until(lambda: conn.command("GET", "who") == b"$5\r\nother\r\n", "the new upstream answers")
        proxy.file.write_text("listeners: [")
        proxy.signal(signal.SIGHUP)
        wait.until(lambda: proxy.file.name in proxy.log(), "the bad file is reported")
        assert conn.command("GET", "who") == b"$5\r\nother\r\n"


def test_sigterm_answers_what_is_in_flight(sidecar, server: RedisServer) -> None:
    """SIGTERM with requests in flight: all are answered, the connections end, the exit code is 0."""
    proxy = sidecar(configs.pass_through(server.address))
    with proxy.conn() as conn, proxy.conn() as idle:
        assert idle.command("PING") == b"+PONG\r\n"
        server.pause()
        try:
            conn.send(b"".join(encode("INCR", "n") for _ in range(100)))
            wait.until(
                lambda: sum(each["downstream_rq_active"] for each in proxy.stats()["listeners"]) >= 64,
                "as many requests as a session may have are in flight, and more have arrived",
            )
            proxy.signal(signal.SIGTERM)
            wait.until(lambda: _refuses(proxy.port), "no new clients are accepted")
        finally:
            server.resume()
        assert conn.replies(100) == [b":%d\r\n" % number for number in range(1, 101)]
        assert conn.until_closed() == b""
        assert idle.until_closed() == b""
    assert proxy.wait_exit() == 0


def _refuses(port: int) -> bool:
    try:
        Conn(port, timeout=1.0).close()
    except ConnectionRefusedError:
        return True
    return False


def test_sigterm_of_an_idle_sidecar(sidecar, server: RedisServer) -> None:
    """SIGTERM and SIGINT with nothing to do: the end, soon, with 0."""
    for sig in (signal.SIGTERM, signal.SIGINT):
        proxy = sidecar(configs.pass_through(server.address))
        proxy.signal(sig)
        assert proxy.wait_exit(5) == 0


def test_upstream_by_unix_socket(sidecar, redis_server) -> None:
    """An endpoint may be a socket file."""
    server = redis_server(unixsocket=True)
    proxy = sidecar(configs.pass_through(f"unix:{server.unixsocket}"))
    assert works(proxy)
    assert server.cli("GET", "works") == b"yes"


def test_listener_on_a_unix_socket(sidecar, server: RedisServer, tmp_path: Path) -> None:
    """A listener may be a socket file, beside its port."""
    config = configs.pass_through(server.address)
    path = tmp_path / "redisha.sock"
    config["listeners"][0]["bind"].append(f"unix:{path}")
    proxy = sidecar(config)
    with Conn(unix=str(path)) as conn:
        assert conn.command("SET", "k", "v") == b"+OK\r\n"
    assert works(proxy)


def test_panic_ends_the_process(sidecar, server: RedisServer) -> None:
    """A panic of the data plane ends the process with an error that the log tells; it never hangs with open ports."""
    proxy = sidecar(configs.pass_through(server.address), program=HOOKED)
    with proxy.conn() as conn:
        assert conn.command("PING") == b"+PONG\r\n"
        proxy.signal(signal.SIGUSR1)
        assert proxy.wait_exit(10) == 70
        assert conn.until_closed() == b""
    assert "panic" in proxy.log()
    assert _refuses(proxy.port)


def test_blocked_control_plane_is_not_the_clients_business(sidecar, server: RedisServer) -> None:
    """The control plane does nothing for two seconds, with the GIL in its hands: old and new clients are served."""
    proxy = sidecar(configs.pass_through(server.address), program=HOOKED)
    slowest, served = 0.0, 0
    with proxy.conn() as old:
        assert old.command("PING") == b"+PONG\r\n"
        proxy.signal(signal.SIGUSR2)
        end = time.monotonic() + BLOCKED
        while time.monotonic() < end:
            before = time.monotonic()
            assert old.command("INCR", "served").startswith(b":")
            assert works(proxy)
            slowest = max(slowest, time.monotonic() - before)
            served += 1
    assert served > 100
    assert slowest < 0.5
    wait.until(proxy.is_ready, "the control plane answers again")
