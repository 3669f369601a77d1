"""The values of many keys compared fast: which question is asked of which key, and how many are under way.

Owns: the order of questions and their bounds. :mod:`redisha.verify.fast` asks and compares.

::

    keys ─► TYPE at A ─┬─ strings ─► their first 4 kB, and when they expire, of both ─┬─► the same, or suspicious
                       └─ others ─► size at both ─┬─ small ─► DUMP, and when ───────────┘      ▲
                             ▲                    └─ large ────────────────────────────────────┘
                             └─ strings that are longer
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator

from redisha.verify import fast, keys
from redisha.verify.fast import Found
from redisha.verify.side import Side

WINDOW = 3
"""Pages under way at once."""

FEWEST = 32
"""Strings asked for at once, however long they are."""


class Walk:
    """One walk over keys of one database.

    Args:
        a: one server; in the database on its connections ``keys`` and ``pages``.
        b: the other.
        batches: the keys.
    """

    def __init__(self, a: Side, b: Side, batches: AsyncIterator[list[bytes]]) -> None:
        self._a, self._b = a, b
        self._batches = batches
        self._dump = a.facts.dump and b.facts.dump
        self._tell_size = [a.keys, b.keys] if a.facts.memory and b.facts.memory else []
        self._sizing: deque[keys.Sizing] = deque()
        self._under_way: deque[tuple[fast.Page, int]] = deque()
        self._ready: deque[tuple[Found, int]] = deque()
        self._portion = FEWEST
        self._long: list[bytes] = []

    async def found(self) -> AsyncIterator[tuple[Found, int]]:
        """What was found, with the number of keys that are through."""
        async for strings, others in keys.typed(self._batches, self._a.keys):
            await self._strings(strings)
            self._size(others)
            if len(self._sizing) > 1:
                await self._sized()
            while self._ready:
                yield self._ready.popleft()
        while self._sizing or self._under_way or self._long:
            self._size([])
            while self._sizing:
                await self._sized()
            while self._under_way:
                await self._take()
            while self._ready:
                yield self._ready.popleft()

    async def _strings(self, strings: list[bytes]) -> None:
        start = 0
        while start < len(strings):
            portion = strings[start : start + self._portion]
            start += len(portion)
            await self._put(fast.heads(self._a, self._b, portion), len(portion))

    def _size(self, others: list[bytes]) -> None:
        """Ask for sizes, also of strings that turned out to be long."""
        if others or self._long:
            self._sizing.append(keys.Sizing(others + self._long, self._tell_size))
            self._long = []

    async def _sized(self) -> None:
        for page in await self._sizing.popleft().pages():
            exact = page.large if self._dump else [*page.keys, *page.large]
            if exact:
                self._ready.append((Found(suspects=exact), len(exact)))
            if self._dump and page.keys:
                await self._put(fast.dumps(self._a, self._b, page.keys), len(page.keys))

    async def _put(self, page: fast.Page, count: int) -> None:
        self._under_way.append((page, count))
        if len(self._under_way) >= WINDOW:
            await self._take()

    async def _take(self) -> None:
        page, count = self._under_way.popleft()
        found = await page.judge()
        self._long += found.long
        # As many strings as are likely to fit into a page.
        fit = count * keys.PAGE_BYTES // max(found.bytes, 1)
        self._portion = max(FEWEST, min(fit, 2 * self._portion, keys.SCAN_COUNT))
        self._ready.append((found, count - len(found.long)))
