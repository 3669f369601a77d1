"""One connection to one Redis on which many commands are under way.

Owns: the socket, the order of replies, the current database, and when a silent server counts as lost.
Never: knows what is asked for. A request's replies are given as bytes; :func:`parse` looks into them.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from typing import cast

from redisha.core import ReplyError, ReplyReader, encode_command
from redisha.verify.errors import NoDatabaseError, ServerError, refusal
from redisha.verify.server import Server

_WATCH = 1.0


def parse(raw: bytes, count: int) -> list[object]:
    """``count`` replies as values; an error reply is a :class:`~redisha.core.ReplyError` instance."""
    reader = ReplyReader()
    reader.feed(raw)
    return [reader.next() for _ in range(count)]


class Link(asyncio.Protocol):
    """A connection; made by :meth:`open`.

    Args:
        server: where and as whom.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.address = server.address
        self.database = 0
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = ReplyReader()
        self._waiting: deque[tuple[int, asyncio.Future[bytes]]] = deque()
        self._out: list[bytes] = []
        self._heard = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._error: ServerError | None = None

    @classmethod
    async def open(cls, server: Server) -> Link:
        """Connect and authenticate.

        Raises:
            ServerError: there is nobody, or the password is wrong.
        """
        link = cls(server)
        try:
            async with asyncio.timeout(server.connect_timeout):
                await link._connect()
        except TimeoutError:
            raise ServerError(
                f"{link.address} cannot be reached: no connection within {server.connect_timeout:g} s"
            ) from None
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise ServerError(f"{link.address} cannot be reached: {reason}; is a Redis running there?") from None
        try:
            await link._greet()
        except BaseException:
            link.close()
            raise
        return link

    async def _connect(self) -> None:
        if self.address.startswith("unix:"):
            await self._loop.create_unix_connection(lambda: self, self.address.removeprefix("unix:"))
        else:
            host, _, port = self.address.rpartition(":")
            await self._loop.create_connection(lambda: self, host.strip("[]"), int(port))

    async def _greet(self) -> None:
        if self.server.password is not None:
            names = [self.server.username.encode()] if self.server.username is not None else []
            reply = await self.call(b"AUTH", *names, self.server.password.encode())
            if isinstance(reply, ReplyError):
                raise refusal(self.address, "AUTH", reply)
        # Both for good manners: an operator sees who it is, and a cache's idea of what is used stays (7.2 and newer).
        reply = await self.call(b"CLIENT", b"SETNAME", b"redisha-verify")
        if isinstance(reply, ReplyError) and ("protected mode" in str(reply) or "max number of clients" in str(reply)):
            raise refusal(self.address, "connections", reply)
        await self.call(b"CLIENT", b"NO-TOUCH", b"ON")

    def request(self, commands: bytes, count: int) -> asyncio.Future[bytes]:
        """Send encoded commands; the future has their ``count`` replies as bytes.

        Everything that is asked for in one turn of the loop leaves in one write.
        """
        future: asyncio.Future[bytes] = self._loop.create_future()
        if self._error is not None:
            future.set_exception(self._error)
            future.exception()
            return future
        if not self._waiting:
            self._heard = self._loop.time()
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(commands)
        self._waiting.append((count, future))
        return future

    async def call(self, *args: bytes) -> object:
        """One command and its reply; an error reply is returned, not raised."""
        return parse(await self.request(encode_command(list(args)), 1), 1)[0]

    async def ask(self, *args: bytes) -> object:
        """One command and its reply.

        Raises:
            ServerError: the reply is an error, too.
        """
        reply = await self.call(*args)
        if isinstance(reply, ReplyError):
            raise refusal(self.address, args[0].decode(), reply)
        return reply

    async def use(self, database: int) -> None:
        """Work in this database from now on; waits for the server's word, so that no command runs in another.

        Raises:
            NoDatabaseError: there is no such database.
        """
        if database == self.database:
            return
        reply = await self.call(b"SELECT", b"%d" % database)
        if isinstance(reply, ReplyError):
            text = str(reply.args[0])
            if "out of range" in text or "not allowed in cluster" in text:
                raise NoDatabaseError(f"{self.address} has no database {database}: raise 'databases' in its redis.conf")
            raise refusal(self.address, "SELECT", reply)
        self.database = database

    def close(self) -> None:
        """Drop the connection; whoever waits gets an error."""
        self._fail(ServerError(f"the connection to {self.address} was closed"))

    def _flush(self) -> None:
        if self._transport is not None and self._error is None:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the socket is there."""
        self._transport = cast("asyncio.Transport", transport)
        self._watch = self._loop.call_later(_WATCH, self._check)

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes of replies."""
        self._heard = self._loop.time()
        self._reader.feed(data)
        try:
            while self._waiting:
                raw = self._reader.take(self._waiting[0][0])
                if not isinstance(raw, bytes):
                    return
                _, future = self._waiting.popleft()
                if not future.done():
                    future.set_result(raw)
        except ValueError as error:
            self._fail(ServerError(f"{self.address} does not speak Redis's protocol: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the server or the network ended it."""
        reason = str(exc) if exc is not None else "it was closed by the server; its log may say why"
        self._fail(ServerError(f"the connection to {self.address} was lost: {reason}"))

    def _check(self) -> None:
        limit = self.server.reply_timeout
        if self._waiting and self._loop.time() - self._heard > limit:
            self._fail(ServerError(f"{self.address} does not answer: nothing came within {limit:g} s"))
            return
        self._watch = self._loop.call_later(min(_WATCH, limit), self._check)

    def _fail(self, error: ServerError) -> None:
        if self._error is not None:
            return
        self._error = error
        if self._watch is not None:
            self._watch.cancel()
        if self._transport is not None:
            self._transport.abort()
        while self._waiting:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_exception(error)
                future.exception()  # whoever waits gets it; if nobody does any more, that is no news
