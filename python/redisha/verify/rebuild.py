"""A value made anew on another server by ordinary commands, in pieces: where ``RESTORE`` cannot be had.

Owns: which commands write a type. The value grows under a name of its own and takes its place at the end, so nobody
sees a half of it; what is left behind by an interruption goes away by itself.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeAlias

from redisha.core import ReplyError, encode_command
from redisha.verify import streams
from redisha.verify.chunks import GoneError, Value, chunks
from redisha.verify.digest import Element
from redisha.verify.link import Link, parse

Command: TypeAlias = Sequence[bytes]

SPARE = b"redisha:verify:"
_SPARE_LIFE_MS = b"600000"


async def rebuild(source: Value, moment: int, target: Link, counters: bool) -> str:
    """Copy a value.

    Args:
        source: the value.
        moment: when it expires, in milliseconds; negative for never.
        target: the other server, in the right database.
        counters: both servers know what only 7.0 and newer know of a stream.

    Returns:
        Why it was not done; empty if it was. A value that is gone is deleted there.
    """
    spare = SPARE + secrets.token_hex(8).encode()
    some = False
    try:
        async for commands in _commands(source, spare, counters):
            some = True
            error = await _run(target, [*commands, (b"PEXPIRE", spare, _SPARE_LIFE_MS)])
            if error:
                await target.call(b"DEL", spare)
                return error
    except GoneError:
        await target.call(b"DEL", spare)
        return "it changed while it was copied"
    if not some:
        return await _run(target, [(b"DEL", source.key)])
    life = (b"PEXPIREAT", spare, b"%d" % moment) if moment >= 0 else (b"PERSIST", spare)
    return await _run(target, [life, (b"RENAME", spare, source.key)])


async def _run(target: Link, commands: Sequence[Command]) -> str:
    raw = await target.request(b"".join(encode_command(list(command)) for command in commands), len(commands))
    for reply in parse(raw, len(commands)):
        if isinstance(reply, ReplyError):
            return str(reply.args[0])
    return ""


async def _commands(source: Value, spare: bytes, counters: bool) -> AsyncIterator[list[Command]]:
    """What builds the value, in pieces."""
    if source.kind == "stream":
        async for commands in _stream(source, spare, counters):
            yield commands
        return
    if source.kind == "string":
        yield [(b"SET", spare, b"")]
    async for chunk in chunks(source):
        yield _WRITERS[source.kind](spare, chunk)


def _string(spare: bytes, chunk: Sequence[Element]) -> list[Command]:
    return [(b"APPEND", spare, data) for (data,) in chunk]


def _list(spare: bytes, chunk: Sequence[Element]) -> list[Command]:
    return [(b"RPUSH", spare, *(item for (item,) in chunk))]


def _set(spare: bytes, chunk: Sequence[Element]) -> list[Command]:
    return [(b"SADD", spare, *(item for (item,) in chunk))]


def _zset(spare: bytes, chunk: Sequence[Element]) -> list[Command]:
    return [(b"ZADD", spare, *(part for member, score in chunk for part in (score, member)))]


def _hash(spare: bytes, chunk: Sequence[Element]) -> list[Command]:
    commands: list[Command] = [(b"HSET", spare, *(part for element in chunk for part in element[:2]))]
    expiring = [element for element in chunk if len(element) > 2]
    return commands + [(b"HPEXPIREAT", spare, time, b"FIELDS", b"1", name) for name, _, time in expiring]


_WRITERS: dict[str, Callable[[bytes, Sequence[Element]], list[Command]]] = {
    "string": _string,
    "list": _list,
    "set": _set,
    "zset": _zset,
    "hash": _hash,
}


async def _stream(source: Value, spare: bytes, counters: bool) -> AsyncIterator[list[Command]]:
    """Entries, then ids, then groups. A pending entry that was deleted cannot be made again: it stays missing."""
    # A stream that has no entry: made by a group that goes again.
    yield [(b"XGROUP", b"CREATE", spare, b"redisha", b"0", b"MKSTREAM"), (b"XGROUP", b"DESTROY", spare, b"redisha")]
    async for chunk in chunks(source):
        yield [(b"XADD", spare, *entry) for entry in chunk]
    info = await streams.head(source)
    known = (b"ENTRIESADDED", info.added, b"MAXDELETEDID", info.deleted_id) if counters else ()
    yield [(b"XSETID", spare, info.last_id, *known)]
    for group in info.groups:
        read = (b"ENTRIESREAD", group.read) if counters and group.read else ()
        yield [
            (b"XGROUP", b"CREATE", spare, group.name, group.last_id, *read),
            *((b"XGROUP", b"CREATECONSUMER", spare, group.name, consumer) for consumer in group.consumers),
        ]
        async for entries in streams.pending(source, group.name):
            yield [
                (
                    *(b"XCLAIM", spare, group.name, consumer, b"0", entry),
                    *(b"RETRYCOUNT", b"%d" % count, b"FORCE", b"JUSTID"),
                )
                for entry, consumer, count in entries
            ]
