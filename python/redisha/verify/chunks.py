"""Values read in pieces of bounded size, type by type.

Owns: which commands read a type. Never: compares, or writes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from redisha.core import ReplyError
from redisha.verify.digest import Element
from redisha.verify.errors import ServerError, refusal
from redisha.verify.link import Link

CHUNK_BYTES = 256 << 10
"""What one piece should have; a single element may have more."""

_SMALL = 64 << 10
_MOST = 10_000
_LENGTHS = {"list": b"LLEN", "set": b"SCARD", "hash": b"HLEN", "zset": b"ZCARD", "stream": b"XLEN"}


class GoneError(Exception):
    """The key went away or changed its type while it was read."""


@dataclass(slots=True)
class Value:
    """One key on one server, to be read.

    Attributes:
        link: the server, in the right database.
        key: the key.
        kind: its type, as ``TYPE`` says it.
        size: bytes that it takes there, about; 0 when unknown.
        field_expiry: fields of a hash may expire on this server.
    """

    link: Link
    key: bytes
    kind: str
    size: int = 0
    field_expiry: bool = False

    async def ask(self, *args: bytes) -> Any:
        """One command about the key.

        Raises:
            GoneError: the key is of another type by now, or is gone where the command needs one.
            ServerError: the server refuses the command.
        """
        reply = await self.link.call(*args)
        if isinstance(reply, ReplyError):
            text = str(reply.args[0])
            if text.startswith(("WRONGTYPE", "NOGROUP", "ERR no such key")):
                raise GoneError
            raise refusal(self.link.address, args[0].decode(), reply)
        return reply

    async def first(self) -> int:
        """How many elements to ask for at first; where the size is unknown, one, and then more and more."""
        if 0 < self.size <= _SMALL:
            return _MOST
        length = await self.ask(_LENGTHS[self.kind], self.key) if self.size else 0
        return self.next(length, self.size) if length else 1

    def next(self, count: int, size: int) -> int:
        """How many elements to ask for after ``count`` had ``size`` bytes."""
        return max(1, min(CHUNK_BYTES * count // max(size, 1), count * 4, _MOST))


async def chunks(value: Value) -> AsyncIterator[list[Element]]:
    """The elements of a value; nothing if the key is gone.

    A string's only element is its next bytes; a hash's are (field, value) or (field, value, expiry in ms); a sorted
    set's are (member, score as text); a stream's are (id, field, value, …).

    Raises:
        GoneError: see there.
        ServerError: it is of a type that only ``DUMP`` can read.
    """
    reader = _READERS.get(value.kind)
    if reader is None:
        raise ServerError(f"{value.link.address}: no command but DUMP reads the type {value.kind}, and DUMP is refused")
    async for chunk in reader(value):
        yield chunk


async def _string(value: Value) -> AsyncIterator[list[Element]]:
    start = 0
    while True:
        data = await value.ask(b"GETRANGE", value.key, b"%d" % start, b"%d" % (start + CHUNK_BYTES - 1))
        if data:
            yield [(data,)]
        start += CHUNK_BYTES
        if len(data) < CHUNK_BYTES:
            return


async def _list(value: Value) -> AsyncIterator[list[Element]]:
    async for items in _by_rank(value, b"LRANGE"):
        yield [(item,) for item in items]


async def _zset(value: Value) -> AsyncIterator[list[Element]]:
    async for items in _by_rank(value, b"ZRANGE", b"WITHSCORES"):
        yield [[member, score] for member, score in zip(items[::2], items[1::2], strict=True)]


async def _by_rank(value: Value, command: bytes, *options: bytes) -> AsyncIterator[list[bytes]]:
    start, count = 0, await value.first()
    width = 1 + len(options)
    while True:
        items = await value.ask(command, value.key, b"%d" % start, b"%d" % (start + count - 1), *options)
        if items:
            yield items
        if len(items) < count * width:
            return
        start += count
        count = value.next(count, sum(map(len, items)))


async def _set(value: Value) -> AsyncIterator[list[Element]]:
    async for items in _by_cursor(value, b"SSCAN"):
        yield [(item,) for item in items]


async def _hash(value: Value) -> AsyncIterator[list[Element]]:
    async for items in _by_cursor(value, b"HSCAN"):
        fields, values = items[::2], items[1::2]
        if not value.field_expiry:
            yield [[name, each] for name, each in zip(fields, values, strict=True)]
            continue
        times = await value.ask(b"HPEXPIRETIME", value.key, b"FIELDS", b"%d" % len(fields), *fields)
        expiring = [[b"%d" % time] if time >= 0 else [] for time in times]
        yield [[name, each, *rest] for name, each, rest in zip(fields, values, expiring, strict=True)]


async def _by_cursor(value: Value, command: bytes) -> AsyncIterator[list[bytes]]:
    cursor, count = b"0", await value.first()
    while True:
        cursor, items = await value.ask(command, value.key, cursor, b"COUNT", b"%d" % count)
        if items:
            yield items
        if cursor == b"0":
            return
        count = value.next(count, sum(map(len, items)))


async def _stream(value: Value) -> AsyncIterator[list[Element]]:
    start, count = b"-", await value.first()
    while True:
        entries = await value.ask(b"XRANGE", value.key, start, b"+", b"COUNT", b"%d" % count)
        chunk: list[Element] = [(entry, *fields) for entry, fields in entries]
        if chunk:
            yield chunk
        if len(chunk) < count:
            return
        start = b"(" + chunk[-1][0]
        count = value.next(count, sum(len(part) for entry in chunk for part in entry))


_READERS: dict[str, Callable[[Value], AsyncIterator[list[Element]]]] = {
    "string": _string,
    "list": _list,
    "set": _set,
    "hash": _hash,
    "zset": _zset,
    "stream": _stream,
}

TYPES = frozenset(_READERS)
"""Types that can be read in pieces."""
