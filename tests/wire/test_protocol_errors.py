"""What is not RESP, and clients that behave badly: the same texts as Redis, and nobody else notices."""

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from support import configs, wait
from support.redis_server import RedisServer
from support.sidecar import Sidecar
from support.wire import ClosedError, Conn, encode

_INLINE_MAX = 64 * 1024

# Each is sent after a PING. Nothing is sent beyond the byte that makes it wrong: unread bytes would
# turn the close into a reset, which may overtake the error text.
MALFORMED: dict[str, bytes] = {
    "count-not-a-number": b"*abc\r\n",
    "count-empty": b"*\r\n",
    "count-leading-zero": b"*01\r\n",
    "count-plus": b"*+1\r\n",
    "count-space": b"* 1\r\n",
    "count-too-large": b"*2147483648\r\n",
    "count-huge": b"*99999999999999999999999\r\n",
    "no-bulk": b"*1\r\n:1\r\n",
    "no-bulk-but-text": b"*1\r\nPING\r\n",
    "no-bulk-but-simple": b"*2\r\n$4\r\nPING\r\n+x\r\n",
    "nested": b"*1\r\n*1\r\n",
    "nested-bomb": b"*2\r\n$4\r\nPING\r\n*1000000\r\n",
    "length-not-a-number": b"*1\r\n$abc\r\n",
    "length-empty": b"*1\r\n$\r\n",
    "length-negative": b"*1\r\n$-1\r\n",
    "length-leading-zero": b"*1\r\n$04\r\n",
    "length-too-large": b"*1\r\n$536870913\r\n",
    "length-huge": b"*1\r\n$99999999999999999999999\r\n",
    "second-length-wrong": b"*2\r\n$4\r\nECHO\r\n$x\r\n",
    "inline-too-long": b"x" * (_INLINE_MAX + 1),
    "count-line-too-long": b"*" + b"1" * _INLINE_MAX,
    "length-line-too-long": b"*1\r\n$" + b"1" * _INLINE_MAX,
    "unbalanced-quotes": b'SET k "abc\r\n',
    "unbalanced-quotes-single": b"SET k 'abc\r\n",
    "quote-followed-by-text": b'SET k "abc"def\r\n',
}


@pytest.fixture(scope="module")
def redis_direct(module_redis_server) -> RedisServer:
    """Redis itself: what it answers is right."""
    return module_redis_server()


@pytest.fixture(scope="module")
def behind(module_redis_server) -> RedisServer:
    """The Redis behind the sidecar."""
    return module_redis_server()


@pytest.fixture(scope="module", params=["direct-again", "pass-through"])
def connect(request: pytest.FixtureRequest, behind: RedisServer) -> Callable[..., Conn]:
    """How to reach ``behind``."""
    if request.param == "direct-again":
        return behind.conn
    proxy: Sidecar = request.getfixturevalue("proxy")
    return proxy.conn


@pytest.fixture(scope="module")
def proxy(module_sidecar, behind: RedisServer) -> Sidecar:
    """A sidecar in front of ``behind``."""
    return module_sidecar(configs.pass_through(behind.address))


@pytest.fixture
def bystander(connect: Callable[..., Conn]) -> Iterator[Conn]:
    """Another client: it is served before and after."""
    with connect() as conn:
        assert conn.command("PING") == b"+PONG\r\n"
        yield conn
        assert conn.command("PING", "after") == b"$5\r\nafter\r\n"


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed(redis_direct: RedisServer, connect: Callable[..., Conn], bystander: Conn, data: bytes) -> None:
    """Redis's own error text, after the replies to what came before, and then the end."""
    seen = []
    for open_conn in (redis_direct.conn, connect):
        with open_conn() as conn:
            conn.send(encode("PING") + data)
            seen.append(conn.until_closed())
    assert seen[1] == seen[0]
    assert seen[1].startswith(b"+PONG\r\n-ERR Protocol error")


@pytest.mark.parametrize(
    "data", [b"*3\r\n$3\r\nSET\r\n", b"*1000000\r\n", b"$", b"*2\r\n$4\r\nECHO\r\n$5\r\nab", b"PI"]
)
def test_unfinished_is_waited_for(connect: Callable[..., Conn], bystander: Conn, data: bytes) -> None:
    """Half a command is no error: nothing is answered, and others are served meanwhile."""
    with connect() as conn:
        conn.send(data)
        for number in range(50):
            assert bystander.command("PING", f"{number:02}") == b"$2\r\n%02d\r\n" % number
        assert conn.silent_for(0.05)


def test_byte_by_byte(redis_direct: RedisServer, connect: Callable[..., Conn], bystander: Conn) -> None:
    """A pipeline that comes in single bytes is understood as if it came at once."""
    data = (
        encode("SET", "k", b"\r\n$1\r\n")
        + b"GET k\r\n"
        + encode("MULTI")
        + encode("INCR", "n")
        + encode("EXEC")
        + encode("ECHO", "")
        + encode("NOSUCH", "a")
        + b"*0\r\n"
        + encode("DEL", "k", "n")
    )
    seen = []
    for open_conn in (redis_direct.conn, connect):
        with open_conn() as conn:
            for number in range(len(data)):
                conn.send(data[number : number + 1])
                if number % 16 == 0:  # now and then let the other side read what there is
                    time.sleep(0.001)
            seen.append(conn.replies(8))
    assert seen[1] == seen[0]


def test_cut_at_every_byte(connect: Callable[..., Conn], bystander: Conn) -> None:
    """A command sent in two pieces, cut at each place there is."""
    data = encode("SET", "cut", b"a\r\nb") + encode("GET", "cut")
    with connect() as conn:
        for cut in range(1, len(data)):
            conn.send(data[:cut])
            conn.send(data[cut:])
            assert conn.replies(2) == [b"+OK\r\n", b"$4\r\na\r\nb\r\n"], f"cut at {cut}"


def test_gone_in_the_middle(connect: Callable[..., Conn], bystander: Conn) -> None:
    """Clients that vanish with half a command sent, or with replies unread, leave nothing behind."""
    for number in range(50):
        conn = connect()
        conn.send(encode("SET", "k", "v") * 20 + encode("GET", "k")[: number % 20])
        if number % 2:
            conn.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        conn.close()


def test_half_close_gets_all_replies(proxy: Sidecar) -> None:
    """A client that sends a pipeline and then closes its sending side still gets every reply, then the end.

    Redis itself drops what does not fit into the socket's buffer, so there is nothing to compare with.
    """
    with proxy.conn() as conn:
        conn.command("SET", "big", b"v" * 20_000)
        conn.send(encode("INCR", "half") * 500 + encode("GET", "big") * 100 + encode("ECHO", "last"))
        conn.half_close()
        data = conn.until_closed()
    assert data.endswith(b"$4\r\nlast\r\n")
    assert data.count(b":") == 500
    assert len(data) > 100 * 20_000


def test_half_close_in_the_middle_of_a_command(connect: Callable[..., Conn], bystander: Conn) -> None:
    """The end in the middle of a command: what was complete is answered, the rest is dropped."""
    with connect() as conn:
        conn.send(encode("ECHO", "whole") + encode("SET", "k", "v")[:-3])
        conn.half_close()
        assert conn.until_closed() == b"$5\r\nwhole\r\n"


def test_never_reads(behind: RedisServer, proxy: Sidecar) -> None:
    """A client that asks for much and reads nothing costs bounded memory, and nobody else waits for it."""
    behind.cli("SET", "huge", b"x" * (1 << 20))
    with proxy.conn() as other, proxy.conn(rcvbuf=4096) as deaf:
        assert other.command("PING") == b"+PONG\r\n"
        sender = threading.Thread(target=_send_while_possible, args=(deaf, encode("GET", "huge") * 400))
        sender.start()
        slowest = 0.0
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            before = time.monotonic()
            assert other.command("INCR", "served") > b":0"
            slowest = max(slowest, time.monotonic() - before)
        sender.join(10)
        assert not sender.is_alive()
        assert slowest < 1.0, f"another client waited {slowest:.2f} s"
        assert proxy.memory_bytes() < 256 << 20
    # Its memory goes when it goes.
    wait.until(lambda: proxy.memory_bytes() < 160 << 20, "memory of the client that never read is given back")


def _send_while_possible(conn: Conn, data: bytes) -> None:
    """Send until all is sent, or nothing goes for a second, or the peer closed."""
    conn.socket.settimeout(1.0)
    try:
        conn.socket.sendall(data)
    except OSError:
        return


def test_slow_reader_gets_everything(behind: RedisServer, connect: Callable[..., Conn], bystander: Conn) -> None:
    """A client that reads slowly, within the bound, loses nothing."""
    behind.cli("SET", "large", bytes(range(256)) * 400)
    with connect(rcvbuf=4096) as conn:
        conn.send(encode("GET", "large") * 50 + encode("ECHO", "end"))
        time.sleep(0.05)
        replies = conn.replies(51)
    assert replies[-1] == b"$3\r\nend\r\n"
    assert set(replies[:-1]) == {b"$102400\r\n" + bytes(range(256)) * 400 + b"\r\n"}


def test_request_over_the_limit_is_refused(proxy: Sidecar) -> None:
    """A command larger than ``max_request`` (64 MB) gets an error and the end, before it was all taken in."""
    with proxy.conn() as other, proxy.conn() as conn:
        conn.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n" + b"x" * 1000)
        try:
            assert conn.reply(5).startswith(b"-ERR Protocol error")
        except ClosedError as closed:
            pytest.fail(f"closed without a word: {closed}")
        assert conn.until_closed() == b""
        assert other.command("PING") == b"+PONG\r\n"
