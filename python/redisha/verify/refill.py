"""One server filled from another, whole.

Owns: the way through databases and keys, and what the source lacks. :mod:`redisha.verify.copier` copies. Made for a
time in which nobody writes: a key that changes meanwhile is copied as it was at one moment, without order.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from redisha.core import ReplyError
from redisha.verify import functions, keys
from redisha.verify.copier import Copier
from redisha.verify.encode import DEL, columns, per_key
from redisha.verify.errors import ServerError
from redisha.verify.options import Progress, Tell
from redisha.verify.server import Server
from redisha.verify.side import Side, hidden, open_sides, wanted

_WINDOW = 3
_ERRORS = 10


@dataclass(slots=True)
class CopyReport:
    """What was copied.

    Attributes:
        keys: that the source had.
        bytes: of values, as ``DUMP`` gives them.
        deleted: keys and libraries that only the target had.
        functions: libraries that were copied.
        failed: keys and libraries that could not be copied or deleted.
        errors: why, of the first of them.
        seconds: how long it took.
    """

    keys: int = 0
    bytes: int = 0
    deleted: int = 0
    functions: int = 0
    failed: int = 0
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """The target has all of the source."""
        return not self.failed

    def fail(self, what: str, error: str) -> None:
        """Count something that could not be copied."""
        self.failed += 1
        if len(self.errors) < _ERRORS:
            self.errors.append(f"{what}: {error}")


@dataclass(frozen=True, slots=True)
class Limits:
    """How fast a copy may be; 0 for no limit."""

    keys_per_second: int = 0
    bytes_per_second: int = 0


async def copy_all(
    source: Server,
    target: Server,
    *,
    delete_extra: bool,
    only: Callable[[bytes], bool] | None = None,
    limits: Limits = Limits(),
    progress: Tell | None = None,
) -> CopyReport:
    """Copy every key of every database and every library of functions; redisha's own markers stay as they are.

    Args:
        source: the server that is right.
        target: the one to fill.
        delete_extra: delete what the source does not have.
        only: only keys for which this is true, and no functions; others are neither copied nor deleted.
        limits: how fast it may be.
        progress: told how far it is, often.

    Raises:
        ServerError: a server cannot be asked or written, lacks a database, or they are the same.
    """
    started = time.monotonic()
    async with open_sides(source, target) as (a, b):
        copier = await Copier.open((a.pages, a.facts), (b.pages, b.facts))
        run = _Copy((a, b), copier, delete_extra, only, limits, progress)
        await run.all()
    run.report.bytes = copier.bytes
    run.report.seconds = time.monotonic() - started
    return run.report


class _Copy:
    def __init__(
        self,
        sides: tuple[Side, Side],
        copier: Copier,
        delete_extra: bool,
        only: Callable[[bytes], bool] | None,
        limits: Limits,
        progress: Tell | None,
    ) -> None:
        self.report = CopyReport()
        self._source, self._target = source, target = sides
        self._copier = copier
        self._delete = delete_extra
        self._only = only
        self._limits = limits
        self._tell = progress
        self._started = time.monotonic()
        self._total = sum(source.facts.keys.values()) + (sum(target.facts.keys.values()) if delete_extra else 0)
        self._done = 0

    async def all(self) -> None:
        ours, theirs = self._source.facts.keys.keys(), self._target.facts.keys.keys()
        # First what is to go: a target that is nearly full needs the room.
        for number in sorted(theirs if self._delete else ()):
            await self._use(number)
            await self._remove(number, self._wanted(number, keys.scan(self._target.keys)))
        for number in sorted(ours):
            await self._use(number)
            await self._copy(number, self._wanted(number, keys.scan(self._source.keys)))
        if self._only is None:
            await self._functions()

    def _wanted(self, database: int, batches: AsyncIterator[list[bytes]]) -> AsyncIterator[list[bytes]]:
        return wanted(batches, hidden(database, self._source, self._target), self._only)

    async def _use(self, database: int) -> None:
        await self._source.use(database)
        await self._target.use(database)

    async def _copy(self, database: int, batches: AsyncIterator[list[bytes]]) -> None:
        links = [self._source.keys] if self._source.facts.memory else []
        read: deque[tuple[list[bytes], asyncio.Future[bytes]]] = deque()
        written: deque[tuple[list[bytes], asyncio.Future[bytes]]] = deque()

        async def forward() -> None:
            page, raw = read.popleft()
            written.append((page, self._copier.write(page, await raw)))
            if len(written) >= _WINDOW:
                await self._finish(*written.popleft())

        async for page in keys.sized(batches, links):
            if page.keys:
                read.append((page.keys, self._copier.read(page.keys)))
            if len(read) >= _WINDOW:
                await forward()
            if page.large:
                self._note(await self._copier.copy(page.large))
            self.report.keys += page.count
            self._advance("copying", database, page.count)
            await self._pace()
        while read:
            await forward()
        while written:
            await self._finish(*written.popleft())
        await self._pace()

    async def _pace(self) -> None:
        """Wait if it is ahead of the limits."""
        keys_limit, bytes_limit = self._limits.keys_per_second, self._limits.bytes_per_second
        due = max(
            self.report.keys / keys_limit if keys_limit else 0.0,
            self._copier.bytes / bytes_limit if bytes_limit else 0.0,
        )
        ahead = self._started + due - time.monotonic()
        if ahead > 0:
            await asyncio.sleep(ahead)

    async def _finish(self, page: list[bytes], written: asyncio.Future[bytes]) -> None:
        self._note(await self._copier.finish(page, written))

    def _note(self, errors: dict[bytes, str]) -> None:
        for key, error in errors.items():
            self.report.fail(f"key {key[:100]!r}", error)

    async def _remove(self, database: int, batches: AsyncIterator[list[bytes]]) -> None:
        """Delete keys of the target that the source does not have."""
        async for batch in batches:
            extra = await keys.absent(self._source.keys, batch)
            if extra:
                replies = columns(await self._target.keys.request(*per_key(extra, DEL)), len(extra), DEL)[0]
                for key, reply in zip(extra, replies, strict=True):
                    if isinstance(reply, ReplyError):
                        self.report.fail(f"key {key[:100]!r}", str(reply.args[0]))
                    else:
                        self.report.deleted += reply == 1
            self._advance("deleting what the source does not have", database, len(batch))

    async def _functions(self) -> None:
        ours, theirs, found = await functions.settled(self._source, self._target, 0, 0.0)
        for libraries in (ours, theirs):
            if libraries.refused:
                raise ServerError(f"functions cannot be copied: {libraries.refused}")
        todo = {name: what for name, what in found.items() if self._delete or what != "only_b"}
        errors = await functions.copy(ours, self._target.looks, todo)
        for name, error in errors.items():
            self.report.fail(f"library {name.decode(errors='backslashreplace')}", error)
        for name, what in todo.items():
            self.report.deleted += what == "only_b" and name not in errors
            self.report.functions += what != "only_b" and name not in errors

    def _advance(self, what: str, database: int, count: int) -> None:
        self._done += count
        if self._tell is not None:
            self._tell(Progress(what, database, self._done, self._total, bytes=self._copier.bytes))
