"""A TCP relay in front of a real server that can be cut, delayed, stalled and garbled.

It runs an event loop in a thread of its own; its methods may be called from any thread and have taken
effect when they return.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from support import wait
from support.ports import free_port

T = TypeVar("T")


class Direction(Enum):
    """Which way bytes go."""

    UP = "to the server"
    DOWN = "to the client"

    @property
    def other(self) -> "Direction":
        """The opposite."""
        return Direction.UP if self is Direction.DOWN else Direction.DOWN


@dataclass
class _Trap:
    """What :meth:`Relay.close_after` asked for."""

    size: int
    needle: bytes
    direction: Direction
    caught: bool = False
    """Whether a connection is being counted."""


class _Link:
    """One accepted connection and its connection to the server."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.writers = {Direction.UP: server, Direction.DOWN: client}
        self.left: dict[Direction, int] = {}
        """Bytes that still go this way before the connection is reset."""

    async def end(self) -> None:
        """Reset both sides, and wait until they are closed."""
        self.reset()
        for writer in self.writers.values():
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def reset(self) -> None:
        """Close both sides with a reset."""
        for writer in self.writers.values():
            sock: socket.socket | None = writer.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class Relay:
    """Listens on :attr:`port` and relays to ``target`` (a port of 127.0.0.1)."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = free_port()
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._delay = dict.fromkeys(Direction, 0.0)
        self._trap: _Trap | None = None
        self._open = {direction: asyncio.Event() for direction in Direction}
        self._accepting = True
        self._stopping = False
        self._accepted = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"relay-{self.port}", daemon=True)

    @property
    def address(self) -> str:
        """``host:port``, as in an ``endpoints`` list."""
        return f"127.0.0.1:{self.port}"

    @property
    def accepted(self) -> int:
        """How many connections it has accepted."""
        return self._accepted

    def start(self) -> None:
        """Listen."""
        for event in self._open.values():
            event.set()
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(5)

    def stop(self) -> None:
        """Reset all connections and stop listening."""
        if self._loop.is_closed():
            return
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result(5)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)
        self._loop.close()

    def cut(self) -> None:
        """Reset every connection there is. New ones are accepted."""
        self._do(self._cut)

    def refuse(self) -> None:
        """Reset every connection, and each new one at once, until :meth:`accept`."""
        self._do(lambda: self._set_accepting(False))
        self.cut()

    def accept(self) -> None:
        """Take new connections again."""
        self._do(lambda: self._set_accepting(True))

    def delay(self, seconds: float, direction: Direction = Direction.DOWN) -> None:
        """Hold each piece of data back for so long."""
        self._do(lambda: self._delay.__setitem__(direction, seconds))

    def stall(self, direction: Direction) -> None:
        """Pass nothing more in this direction; connections stay open."""
        self._do(self._open[direction].clear)

    def flow(self, direction: Direction) -> None:
        """End a :meth:`stall`."""
        self._do(self._open[direction].set)

    def inject(self, data: bytes, direction: Direction = Direction.DOWN) -> int:
        """Put ``data`` between what is relayed, on every connection; returns how many those are."""

        def put() -> int:
            for link in self._links:
                link.writers[direction].write(data)
            return len(self._links)

        return self._do(put)

    def close_after(self, size: int, needle: bytes, direction: Direction = Direction.DOWN) -> None:
        """Close a connection after ``size`` bytes: in the middle of a reply, say. Works once.

        It is the first connection on which ``needle`` goes to the server (health probes have connections of
        their own), and the bytes are counted from the piece of data that has it.
        """
        self._do(lambda: self._set_trap(_Trap(size, needle, direction)))

    def wait_closed(self, timeout: float = 10.0) -> None:
        """Wait until :meth:`close_after` has closed a connection."""
        wait.until(lambda: self._trap is None, "the relay closes a connection", timeout)

    def _do(self, call: Callable[[], T]) -> T:
        """Call in the loop's thread and return the result."""

        async def run() -> T:
            return call()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(5)

    def _set_trap(self, trap: "_Trap") -> None:
        self._trap = trap

    def _set_accepting(self, accepting: bool) -> None:
        self._accepting = accepting

    def _cut(self) -> None:
        for link in list(self._links):
            link.reset()

    async def _listen(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._listener.setblocking(False)
        self._acceptor = self._loop.create_task(self._accept())

    async def _accept(self) -> None:
        """Accept until :meth:`stop`, which connects once more to be noticed.

        asyncio's own server would lose a connection that comes while it is closed.
        """
        with self._listener:
            while True:
                sock, _ = await self._loop.sock_accept(self._listener)
                if self._stopping:
                    sock.close()
                    return
                self._accepted += 1
                task = self._loop.create_task(self._serve(sock))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _shut(self) -> None:
        self._stopping = True
        socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        await self._acceptor
        self._accepting = False
        self._cut()
        for event in self._open.values():
            event.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, sock: socket.socket) -> None:
        """Relay one connection until both directions have ended."""
        reader, writer = await asyncio.open_connection(sock=sock)
        try:
            if not self._accepting:
                raise ConnectionRefusedError
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            await _Link(writer, writer).end()
            return
        link = _Link(writer, up_writer)
        self._links.add(link)
        await asyncio.gather(self._pump(link, reader, Direction.UP), self._pump(link, up_reader, Direction.DOWN))
        self._links.discard(link)
        if link.left and self._trap is not None:
            self._trap.caught = False  # it ended by itself: the next one will do
        await link.end()

    async def _pump(self, link: _Link, reader: asyncio.StreamReader, direction: Direction) -> None:
        """Relay one direction until it ends; the end is passed on."""
        writer = link.writers[direction]
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                await self._open[direction].wait()
                if self._delay[direction]:
                    await asyncio.sleep(self._delay[direction])
                trap = self._trap
                if trap is not None and direction is Direction.UP and not trap.caught and trap.needle in data:
                    trap.caught = True
                    link.left[trap.direction] = trap.size
                if direction in link.left:
                    data = data[: link.left[direction]]
                    link.left[direction] -= len(data)
                writer.write(data)
                await writer.drain()
                if link.left.get(direction) == 0:
                    self._trap = None
                    # A reset could overtake the bytes just written; an orderly end cannot.
                    writer.close()
                    link.writers[direction.other].transport.abort()
                    return
            if writer.can_write_eof() and not writer.is_closing():
                writer.write_eof()
