"""A conversation with one Redis, beside the data plane: what the control plane itself asks.

Owns: one connection, kept from question to question.
Never: uses a connection of the data plane, or limits time; who asks does.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from redisha.core import ReplyError, ReplyReader, encode_command

READ_CHUNK = 65536
REPLY_LIMIT = 1 << 20
"""Bytes of one reply; an ``INFO`` has about 6,000."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where and as whom to ask.

    Attributes:
        address: ``host:port``, ``[v6]:port`` or ``unix:/path``, as the plan gives it to the data plane.
        username: for AUTH; None for the default user.
        password: for AUTH; None when the server asks for none. Not shown by ``repr``.
    """

    address: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)


class TooLongError(Exception):
    """A reply is longer than any that is asked for."""


class RefusedError(Exception):
    """The server refused AUTH, in these words."""


class Talk:
    """A connection that is made when it is needed.

    Args:
        target: where and as whom.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._replies = ReplyReader()

    @property
    def is_open(self) -> bool:
        """Whether there is a connection from the last question."""
        return self._streams is not None

    async def call(self, *args: bytes) -> object:
        """One command and its reply, an error reply included; connects if need be.

        Raises:
            OSError: there is no connection.
            RefusedError: the server refused AUTH.
            TooLongError: the reply is too long.
            ValueError: the server does not speak RESP.
        """
        if self._streams is None:
            await self._connect()
        return await self._exchange(*args)

    def close(self) -> None:
        """Drop the connection; the next question makes a new one."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def _connect(self) -> None:
        self._replies = ReplyReader()
        address = self._target.address
        if address.startswith("unix:"):
            self._streams = await asyncio.open_unix_connection(address.removeprefix("unix:"))
        else:
            host, _, port = address.rpartition(":")
            self._streams = await asyncio.open_connection(host.strip("[]"), int(port))
        if self._target.password is None:
            return
        names = [self._target.username.encode()] if self._target.username is not None else []
        reply = await self._exchange(b"AUTH", *names, self._target.password.encode())
        if isinstance(reply, ReplyError):
            raise RefusedError(str(reply.args[0]) if reply.args else "")

    async def _exchange(self, *args: bytes) -> object:
        if self._streams is None:
            raise ConnectionResetError("not connected")
        reader, writer = self._streams
        writer.write(encode_command(list(args)))
        read = 0
        while (reply := self._replies.next()) is NotImplemented:
            data = await reader.read(READ_CHUNK)
            if not data:
                raise ConnectionResetError("connection closed by the server")
            read += len(data)
            if read > REPLY_LIMIT:
                raise TooLongError(f"its reply is longer than {REPLY_LIMIT} bytes")
            self._replies.feed(data)
        return reply
