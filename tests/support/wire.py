"""RESP as raw bytes over a blocking socket, with deadlines.

A reply is handed over exactly as it came, so that two servers can be compared byte for byte. Nothing
here turns a reply into a value, except :func:`children`, which cuts an aggregate into its elements.
"""

import socket
import time
from types import TracebackType
from typing import Self

Arg = str | bytes | int | float

_AGGREGATES = {b"*": 1, b"~": 1, b">": 1, b"%": 2, b"|": 2}
_BULKS = (b"$", b"=", b"!")
_LINES = (b"+", b"-", b":", b"_", b",", b"#", b"(")


class ProtocolError(Exception):
    """The bytes are not RESP."""


class ClosedError(Exception):
    """The peer closed or reset the connection before the reply was complete. ``rest`` is what came."""

    def __init__(self, rest: bytes) -> None:
        super().__init__(f"closed by the peer, after {rest[:200]!r}")
        self.rest = rest


def encode(*args: Arg) -> bytes:
    """One command as an array of bulk strings."""
    parts = [b"*%d\r\n" % len(args)]
    for arg in args:
        data = arg if isinstance(arg, bytes) else str(arg).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


class _Scan:
    """Where one reply ends. Resumes where it stopped, so a long reply is looked at once."""

    def __init__(self, start: int) -> None:
        self.position = start
        self._missing = 1

    def feed(self, buffer: bytearray) -> bool:
        """Whether the reply is complete; then ``position`` is its end."""
        while self._missing:
            end = buffer.find(b"\r\n", self.position)
            if end < 0:
                return False
            kind = bytes(buffer[self.position : self.position + 1])
            after = end + 2
            if kind in _LINES:
                size = 0
            elif kind in _BULKS or kind in _AGGREGATES:
                try:
                    size = int(buffer[self.position + 1 : end])
                except ValueError:
                    raise ProtocolError(f"no length: {bytes(buffer[self.position : end])!r}") from None
            else:
                raise ProtocolError(f"no type: {bytes(buffer[self.position : end])[:80]!r}")
            if kind in _BULKS and size >= 0:
                after += size + 2
                if len(buffer) < after:
                    return False
            if kind in _AGGREGATES and size > 0:
                self._missing += size * _AGGREGATES[kind]
            # An attribute is not a value: the value follows it.
            if kind != b"|":
                self._missing -= 1
            self.position = after
        return True


def split(data: bytes) -> list[bytes]:
    """The replies that ``data`` consists of."""
    buffer, replies, start = bytearray(data), [], 0
    while start < len(buffer):
        scan = _Scan(start)
        if not scan.feed(buffer):
            raise ProtocolError(f"not complete: {data[start:][:80]!r}")
        replies.append(data[start : scan.position])
        start = scan.position
    return replies


def children(reply: bytes) -> tuple[bytes, list[bytes]]:
    """The head line of an aggregate and its elements (a map's: keys and values); no elements for other types."""
    end = reply.index(b"\r\n") + 2
    if reply[:1] not in _AGGREGATES:
        return reply, []
    return reply[:end], split(reply[end:])


class Conn:
    """One connection to a Redis or to a sidecar."""

    def __init__(
        self, port: int = 0, *, host: str = "127.0.0.1", unix: str | None = None, timeout: float = 10.0, rcvbuf: int = 0
    ) -> None:
        """Connect. ``timeout`` is the deadline of each call; ``rcvbuf`` makes the socket's buffer small."""
        self.timeout = timeout
        self._buffer = bytearray()
        self.socket = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        self.socket.settimeout(timeout)
        if rcvbuf:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        try:
            if unix is None:
                self.socket.connect((host, port))
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            else:
                self.socket.connect(unix)
        except BaseException:
            self.socket.close()
            raise

    def send(self, data: bytes) -> None:
        """Send all of ``data``."""
        self.socket.settimeout(self.timeout)
        self.socket.sendall(data)

    def send_command(self, *args: Arg) -> None:
        """Send one command and do not wait."""
        self.send(encode(*args))

    def command(self, *args: Arg) -> bytes:
        """Send one command and return its reply."""
        self.send(encode(*args))
        return self.reply()

    def pipeline(self, *commands: tuple[Arg, ...]) -> list[bytes]:
        """Send the commands in one write and return their replies."""
        self.send(b"".join(encode(*command) for command in commands))
        return self.replies(len(commands))

    def reply(self, timeout: float | None = None) -> bytes:
        """The next reply. :class:`ClosedError` when the peer closes first, ``TimeoutError`` past the deadline."""
        return self.replies(1, timeout)[0]

    def replies(self, count: int, timeout: float | None = None) -> list[bytes]:
        """The next ``count`` replies; the deadline is for all of them together."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        found: list[bytes] = []
        start = 0
        scan = _Scan(0)
        try:
            while len(found) < count:
                if scan.feed(self._buffer):
                    found.append(bytes(self._buffer[start : scan.position]))
                    start = scan.position
                    scan = _Scan(start)
                elif not self._read(deadline):
                    raise ClosedError(bytes(self._buffer))
        except TimeoutError:
            seen = bytes(self._buffer[start:])
            raise TimeoutError(
                f"reply {len(found) + 1} of {count} is missing, {len(seen)} bytes: {seen[:200]!r}"
            ) from None
        del self._buffer[:start]
        return found

    def until_closed(self, timeout: float | None = None) -> bytes:
        """All bytes up to the peer's close (or reset)."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while self._read(deadline):
            pass
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def silent_for(self, seconds: float) -> bool:
        """Whether nothing comes for ``seconds``: no byte and no close."""
        if self._buffer:
            return False
        try:
            self._read(time.monotonic() + seconds)
        except TimeoutError:
            return True
        return False

    def half_close(self) -> None:
        """Say that nothing more will be sent; go on reading."""
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, deadline: float) -> bool:
        """Read once; whether there was something. A reset counts as a close."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.socket.settimeout(left)
        try:
            data = self.socket.recv(1 << 18)
        except ConnectionError:
            return False
        self._buffer += data
        return bool(data)
