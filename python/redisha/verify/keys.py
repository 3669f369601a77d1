"""The keys of a database in pages of which the values fit into little memory.

Owns: ``SCAN`` and the question how large values are. Never: looks at a value.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from redisha.core import ReplyError, encode_command
from redisha.verify.encode import EXISTS, TYPE, USAGE, columns, number, per_key
from redisha.verify.errors import ServerError, check, refusal
from redisha.verify.link import Link, parse

SCAN_COUNT = 1000
"""Keys that one SCAN is asked for."""

SCAN_BYTES = 256 << 10
"""Of the keys themselves in one page; past it the next page is asked to be smaller."""

PAGE_BYTES = 1 << 20
"""Of values, as the servers hold them, asked for at once."""

LARGE = 1 << 20
"""A value from here on is read in pieces."""

UNSIZED_KEYS = 64
"""Keys of a page when a server does not tell sizes."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some keys.

    Attributes:
        keys: their values are asked for at once.
        large: their values are too large for that.
    """

    keys: list[bytes]
    large: list[bytes]

    @property
    def count(self) -> int:
        """All keys of the page."""
        return len(self.keys) + len(self.large)


async def scan(link: Link, match: bytes | None = None) -> AsyncIterator[list[bytes]]:
    """All keys of the link's database; the next page is under way while one is looked at.

    A key may come twice while the server makes its table smaller, as ``SCAN`` is documented.
    """
    count = 128
    waiting = link.request(*_scan(b"0", count, match))
    while True:
        cursor, keys = _scanned(link, await waiting)
        if cursor != b"0":
            size = sum(map(len, keys))
            count = max(count // 2, 1) if size > SCAN_BYTES else min(count * 2, SCAN_COUNT)
            waiting = link.request(*_scan(cursor, count, match))
        if keys:
            yield list(dict.fromkeys(keys))
        if cursor == b"0":
            return


async def sample(link: Link, wanted: int, match: bytes | None = None) -> AsyncIterator[list[bytes]]:
    """About ``wanted`` keys from random places of the link's database; a key may come again."""
    found = 0
    for _ in range(max(2 * wanted, 16)):  # with a pattern that nothing matches, too, it ends
        if found >= wanted:
            return
        cursor = b"%d" % secrets.randbits(48)
        _, keys = _scanned(link, await link.request(*_scan(cursor, min(wanted - found, 100), match)))
        keys = list(dict.fromkeys(keys))[: wanted - found]
        found += len(keys)
        if keys:
            yield keys


def _scan(cursor: bytes, count: int, match: bytes | None) -> tuple[bytes, int]:
    command = [b"SCAN", cursor, b"COUNT", b"%d" % count, *([b"MATCH", match] if match is not None else [])]
    return encode_command(command), 1


def _scanned(link: Link, raw: bytes) -> tuple[bytes, list[bytes]]:
    match parse(raw, 1)[0]:
        case [bytes(cursor), list(keys)]:
            return cursor, keys
        case ReplyError() as error:
            raise refusal(link.address, "SCAN", error)
        case other:
            raise ServerError(f"{link.address} is no Redis: it answered SCAN with {other!r:.60}")


async def typed(batches: AsyncIterator[list[bytes]], link: Link) -> AsyncIterator[tuple[list[bytes], list[bytes]]]:
    """Keys that are strings on this server, and the others; one batch is under way while the next comes."""
    waiting: deque[tuple[list[bytes], asyncio.Future[bytes]]] = deque()
    async for keys in batches:
        waiting.append((keys, link.request(*per_key(keys, TYPE))))
        if len(waiting) > 1:
            yield _parted(link, *(await _answered(waiting)))
    while waiting:
        yield _parted(link, *(await _answered(waiting)))


async def _answered(waiting: deque[tuple[list[bytes], asyncio.Future[bytes]]]) -> tuple[list[bytes], bytes]:
    keys, raw = waiting.popleft()
    return keys, await raw


def _parted(link: Link, keys: list[bytes], raw: bytes) -> tuple[list[bytes], list[bytes]]:
    if raw == b"+string\r\n" * len(keys):
        return keys, []
    types = columns(raw, len(keys), TYPE)[0]
    check(link.address, "TYPE", types)
    strings = [key for key, kind in zip(keys, types, strict=True) if kind == b"string"]
    return strings, [key for key, kind in zip(keys, types, strict=True) if kind != b"string"]


class Sizing:
    """Keys whose sizes are under way.

    Args:
        keys: the keys.
        links: the servers to ask; none where one of them does not tell.
    """

    def __init__(self, keys: list[bytes], links: Sequence[Link]) -> None:
        self._keys = keys
        commands = per_key(keys, USAGE) if links else (b"", 0)
        self._sizes = [link.request(*commands) for link in links]

    async def pages(self) -> list[Page]:
        """The keys in pages by the size of their values, the larger one where the servers differ."""
        keys = self._keys
        each = [numbers(await raw, len(keys)) for raw in self._sizes]
        if not each:
            return [Page(keys[start : start + UNSIZED_KEYS], []) for start in range(0, len(keys), UNSIZED_KEYS)]
        return pack(keys, each[0] if len(each) == 1 else list(map(max, *each)))


async def sized(batches: AsyncIterator[list[bytes]], links: Sequence[Link]) -> AsyncIterator[Page]:
    """Keys in pages, as by :class:`Sizing`; the sizes of one batch are under way while the next comes."""
    waiting: deque[Sizing] = deque()
    async for keys in batches:
        waiting.append(Sizing(keys, links))
        if len(waiting) > 1:
            for page in await waiting.popleft().pages():
                yield page
    while waiting:
        for page in await waiting.popleft().pages():
            yield page


async def absent(link: Link, keys: Sequence[bytes]) -> list[bytes]:
    """Which of the keys a server does not have.

    Raises:
        ServerError: it refuses ``EXISTS``.
    """
    # One command for all of them costs the server half; a node of a cluster refuses it.
    if await link.call(b"EXISTS", *keys) == len(keys):
        return []
    replies = columns(await link.request(*per_key(keys, EXISTS)), len(keys), EXISTS)[0]
    check(link.address, "EXISTS", replies)
    return [key for key, reply in zip(keys, replies, strict=True) if reply == 0]


async def sizes_of(link: Link, keys: Sequence[bytes]) -> list[int]:
    """How large the values are on a server that tells it; 0 for a key that is not there."""
    return numbers(await link.request(*per_key(keys, USAGE)), len(keys))


def numbers(raw: bytes, count: int) -> list[int]:
    """Integer replies as numbers; 0 for anything else."""
    if b"$" not in raw and b"-" not in raw and b"_" not in raw:
        return list(map(int, raw[1:-2].split(b"\r\n:")))
    return [number(each) for each in parse(raw, count)]


def pack(keys: Sequence[bytes], sizes: Sequence[int]) -> list[Page]:
    """Cut keys into pages whose values are not larger than :data:`PAGE_BYTES` together."""
    if max(sizes) < LARGE and sum(sizes) <= PAGE_BYTES:
        return [Page(list(keys), [])]
    pages = [Page([], [])]
    room = PAGE_BYTES
    for key, size in zip(keys, sizes, strict=True):
        if size >= LARGE:
            pages[-1].large.append(key)
            continue
        if size > room and pages[-1].keys:
            pages.append(Page([], []))
            room = PAGE_BYTES
        pages[-1].keys.append(key)
        room -= size
    return pages
