"""What a stream has besides its entries: ids, groups, consumers, and what is pending.

Owns: reading it. The times at which something was delivered or a consumer was seen are not data.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from redisha.verify.chunks import Value

_PENDING = 1000


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group.

    Attributes:
        name: its name.
        last_id: the last id it delivered.
        read: entries it ever read, as ``XINFO`` says; empty where it is unknown, or the version has none.
        consumers: names, in order.
    """

    name: bytes
    last_id: bytes
    read: bytes
    consumers: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Head:
    """A stream without entries.

    Attributes:
        length: entries.
        last_id: the last id it gave.
        added: entries it ever had; empty before 7.0.
        deleted_id: the largest id that was deleted; empty before 7.0.
        groups: by name.
    """

    length: int
    last_id: bytes
    added: bytes
    deleted_id: bytes
    groups: tuple[Group, ...]


async def head(value: Value) -> Head:
    """Read it.

    Raises:
        GoneError: the key is no stream any more.
    """
    info = _mapping(await value.ask(b"XINFO", b"STREAM", value.key))
    groups = []
    for each in map(_mapping, await value.ask(b"XINFO", b"GROUPS", value.key)):
        consumers = map(_mapping, await value.ask(b"XINFO", b"CONSUMERS", value.key, each[b"name"]))
        names = sorted(consumer[b"name"] for consumer in consumers)
        groups.append(Group(each[b"name"], each[b"last-delivered-id"], _text(each.get(b"entries-read")), tuple(names)))
    return Head(
        info[b"length"],
        info[b"last-generated-id"],
        _text(info.get(b"entries-added")),
        _text(info.get(b"max-deleted-entry-id")),
        tuple(sorted(groups, key=lambda group: group.name)),
    )


async def pending(value: Value, group: bytes) -> AsyncIterator[list[tuple[bytes, bytes, int]]]:
    """Entries that were delivered and not acknowledged, by id: (id, consumer, deliveries)."""
    start = b"-"
    while True:
        entries = await value.ask(b"XPENDING", value.key, group, start, b"+", b"%d" % _PENDING)
        if entries:
            yield [(entry, consumer, count) for entry, consumer, _, count in entries]
        if len(entries) < _PENDING:
            return
        start = b"(" + entries[-1][0]


async def elements(value: Value, counters: bool) -> AsyncIterator[list[Sequence[bytes]]]:
    """All of it in the form that a digest takes.

    Args:
        value: the stream.
        counters: with what only 7.0 and newer keep: entries ever added and read, the largest deleted id.
    """
    info = await head(value)
    yield [(b"stream", info.last_id, *((info.added, info.deleted_id) if counters else ()))]
    for group in info.groups:
        yield [(b"group", group.name, group.last_id, *((group.read,) if counters else ()), *group.consumers)]
        async for entries in pending(value, group.name):
            yield [(entry, consumer, b"%d" % count) for entry, consumer, count in entries]


def _mapping(flat: Sequence[Any]) -> dict[bytes, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _text(value: object) -> bytes:
    if isinstance(value, int):
        return b"%d" % value
    return value if isinstance(value, bytes) else b""
