"""Keys that differed are looked at again until it is clear what they are, and repaired if that is wanted.

Owns: when a key is looked at again, how many wait for it, and the repair. :mod:`redisha.verify.case` judges.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias

from redisha.verify.case import DIFFERENCES, Case, Verdict, judge
from redisha.verify.copier import Copier
from redisha.verify.errors import NoDatabaseError
from redisha.verify.look import Look, look
from redisha.verify.side import Side

WAITING_MOST = 50_000
"""Keys that wait; more have to wait until these are through, so that memory stays bounded."""

WAITING_BYTES = 8 << 20
"""Of their names."""

_BATCH = 512
_COPIES = 3

Told: TypeAlias = Callable[[Case, Verdict], None]


class Recheck:
    """The keys under suspicion.

    Args:
        a: one server; its connection ``looks`` belongs to this object.
        b: the other.
        passes: how often a key is looked at again.
        settle: seconds between two looks.
        copier: how to repair; None to leave all as it is.
        found: told once of each key that differs, before it is repaired.
        close: told when a key is through.
    """

    def __init__(
        self,
        a: Side,
        b: Side,
        passes: int,
        settle: float,
        copier: Copier | None,
        found: Told,
        close: Told,
    ) -> None:
        self._a, self._b = a, b
        self._passes, self._settle = passes, settle
        self._copier = copier
        self._found, self._close = found, close
        self._fresh: deque[Case] = deque()
        self._waiting: deque[Case] = deque()  # by `due`: all wait equally long
        self._bytes = 0
        self._ended = False
        self._changed = asyncio.Event()
        self._room = asyncio.Event()

    @property
    def count(self) -> int:
        """Keys that are not through."""
        return len(self._fresh) + len(self._waiting)

    async def add(self, database: int, key: bytes) -> None:
        """Take a key up; waits while there are too many."""
        while self.count >= WAITING_MOST or self._bytes >= WAITING_BYTES:
            self._room.clear()
            await self._room.wait()
        self._bytes += len(key)
        self._fresh.append(Case(database, key))
        self._changed.set()

    def end(self) -> None:
        """No more keys come; :meth:`run` ends when all are through."""
        self._ended = True
        self._changed.set()

    async def run(self) -> None:
        """Look at keys as they come and as they are due.

        Raises:
            ServerError: a server is lost, or refuses what is needed.
        """
        loop = asyncio.get_running_loop()
        while not (self._ended and self.count == 0):
            batch = self._due(loop.time())
            if batch:
                await self._look(batch, loop.time())
                continue
            pause = self._waiting[0].due - loop.time() if self._waiting else None
            self._changed.clear()
            if self._ended and self._waiting:
                await asyncio.sleep(pause or 0)
                continue
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _due(self, now: float) -> list[Case]:
        """Keys of one database whose time has come."""
        queue = self._waiting if self._waiting and self._waiting[0].due <= now else self._fresh
        batch: list[Case] = []
        while queue and len(batch) < _BATCH and queue[0].due <= now:
            if batch and queue[0].database != batch[0].database:
                break
            batch.append(queue.popleft())
        return batch

    async def _look(self, batch: Sequence[Case], now: float) -> None:
        database = batch[0].database
        looks = await self._views(database, [case.key for case in batch])
        differing = []
        for case, view in zip(batch, looks, strict=True):
            verdict = judge(case, view, self._passes)
            if verdict is Verdict.AGAIN:
                self._wait(case, now)
            elif verdict in DIFFERENCES and self._repairable(case, verdict, view.detail):
                differing.append(case)
            else:
                self._through(case, verdict)
        if differing and self._copier is not None:
            await self._repair(self._copier, database, differing)

    async def _views(self, database: int, keys: Sequence[bytes]) -> list[Look]:
        await self._a.looks.use(database)
        await self._b.looks.use(database)
        return await look(self._a, self._b, keys)

    def _repairable(self, case: Case, verdict: Verdict, detail: str) -> bool:
        """Tell of a difference, and whether to repair it (again)."""
        if case.found is None:
            case.found, case.detail = verdict, detail
            self._found(case, verdict)
        if self._copier is None or case.error:
            return False
        if case.copies >= _COPIES:
            case.error = f"it still differs after {_COPIES} copies"
            return False
        return True

    async def _repair(self, copier: Copier, database: int, cases: Sequence[Case]) -> None:
        """Copy keys from A to B, or delete them there, and look again later."""
        try:
            await copier.use(database)
            errors = await copier.copy([case.key for case in cases])
        except NoDatabaseError as error:
            errors = {case.key: str(error) for case in cases}
        for case in cases:
            case.error = errors.get(case.key, "")
            case.copies += 1
            case.looks, case.a, case.b = 0, b"", b""
            self._wait(case, asyncio.get_running_loop().time())

    def _wait(self, case: Case, now: float) -> None:
        case.due = now + self._settle
        self._waiting.append(case)

    def _through(self, case: Case, verdict: Verdict) -> None:
        self._bytes -= len(case.key)
        self._close(case, verdict)
        self._room.set()
