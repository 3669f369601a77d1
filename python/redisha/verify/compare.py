"""Two servers compared, key by key.

Owns: the way through databases and keys. What it does with pages is in :mod:`redisha.verify.walk`, with a key that
is not the same there in :mod:`redisha.verify.recheck`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from redisha.verify import functions, keys
from redisha.verify.case import Case, Verdict
from redisha.verify.copier import Copier
from redisha.verify.errors import NoDatabaseError, ServerError
from redisha.verify.options import Options, Progress, Tell
from redisha.verify.recheck import Recheck
from redisha.verify.report import Counts, Difference, Report
from redisha.verify.server import Server
from redisha.verify.side import Side, hidden, open_sides, wanted
from redisha.verify.walk import Walk


async def compare(
    a: Server,
    b: Server,
    options: Options = Options(),  # noqa: B008 - it is frozen
    progress: Tell | None = None,
    found: Callable[[int, bytes], None] | None = None,
) -> Report:
    """Compare two servers.

    Args:
        a: one server; with ``options.repair`` the one that is right.
        b: the other.
        options: what to compare, and how patiently.
        progress: told how far it is, often.
        found: told database and key of each key that differs, once, however many there are.

    Raises:
        ServerError: a server cannot be asked or written, or they are the same.
    """
    started = time.monotonic()
    async with open_sides(a, b) as sides:
        copier = None
        if options.repair:
            copier = await Copier.open(*((side.looks, side.facts) for side in sides))
        run = _Comparison(*sides, options, copier, progress, found)
        try:
            await run.all()
        except BaseExceptionGroup as group:
            raise _first(group) from None
    run.report.seconds = time.monotonic() - started
    return run.report


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error of a group that tells most: one of ours, if there is one."""
    ours = group.subgroup(ServerError)
    inner = (ours or group).exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


class _Comparison:
    def __init__(
        self,
        a: Side,
        b: Side,
        options: Options,
        copier: Copier | None,
        progress: Tell | None,
        found: Callable[[int, bytes], None] | None,
    ) -> None:
        self.report = Report(a.facts, b.facts, repair=options.repair, sampled=options.sample is not None)
        self._a, self._b = a, b
        self._options = options
        self._tell, self._tell_found = progress, found
        self._recheck = Recheck(a, b, options.passes, options.settle, copier, self._found, self._close)
        self._copier = copier
        self._done = self._total = self._differing = 0

    async def all(self) -> None:
        """Compare everything that the options name."""
        for side in (self._a, self._b):
            if side.facts.role == "slave":
                self.report.notes.append(f"{side.address} is a replica of {side.facts.master}")
            if not side.facts.dump:
                self.report.notes.append(f"{side.address} refuses DUMP: keys were read by type, which takes longer")
        keys_a, keys_b = self._a.facts.keys, self._b.facts.keys
        named = self._options.databases
        databases = sorted(keys_a.keys() | keys_b.keys() if named is None else named)
        each = {number: keys_a.get(number, 0) + keys_b.get(number, 0) for number in databases}
        self._total = sum(each.values())
        if self._options.sample is not None:
            self._total = min(self._total, self._options.sample)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._recheck.run())
            for number in databases:
                self.report.databases[number] = Counts()
                share = self._share(each[number], sum(each.values()))
                if await self._enter(number):
                    await (self._whole(number) if share is None else self._part(number, share))
                    self._advance("looking again at what differs", number, 0)
            self._recheck.end()
        if self._options.everything:
            await self._functions()

    def _share(self, keys_here: int, keys_all: int) -> int | None:
        """How many keys of a database to look at; None for all."""
        sample = self._options.sample
        if sample is None or sample >= keys_all:
            return None
        return -(-sample * keys_here // keys_all)

    async def _enter(self, database: int) -> bool:
        """Go to a database; False if one of the servers does not have it."""
        missing = []
        for side in (self._a, self._b):
            try:
                await side.use(database)
            except NoDatabaseError as error:
                missing.append(side)
                self.report.notes.append(str(error))
        if len(missing) == 2:
            raise NoDatabaseError("; ".join(self.report.notes[-2:]))
        counts = self.report.databases[database]
        if self._a in missing:
            counts.only_b = self._b.facts.keys.get(database, 0)
        elif self._b in missing:
            counts.only_a = self._a.facts.keys.get(database, 0)
        return not missing

    async def _whole(self, database: int) -> None:
        match = self._options.match
        await self._values(database, self._wanted(database, keys.scan(self._a.keys, match)))
        await self._extra(database, self._wanted(database, keys.scan(self._b.keys, match)))

    async def _part(self, database: int, share: int) -> None:
        for side, count in ((self._a, share - share // 2), (self._b, share // 2)):
            await self._values(database, self._wanted(database, keys.sample(side.keys, count, self._options.match)))

    def _wanted(self, database: int, batches: AsyncIterator[list[bytes]]) -> AsyncIterator[list[bytes]]:
        return wanted(batches, hidden(database, self._a, self._b), self._options.only)

    async def _values(self, database: int, batches: AsyncIterator[list[bytes]]) -> None:
        """Compare the values of keys."""
        async for found, count in Walk(self._a, self._b, batches).found():
            self.report.databases[database].same += found.same
            for key in found.suspects:
                await self._recheck.add(database, key)
            self._advance("comparing", database, count)

    async def _extra(self, database: int, batches: AsyncIterator[list[bytes]]) -> None:
        """Find keys of B that A does not have."""
        async for batch in batches:
            for key in await keys.absent(self._a.keys, batch):
                await self._recheck.add(database, key)
            self._advance("looking for keys that only B has", database, len(batch))

    async def _functions(self) -> None:
        options = self._options
        ours, theirs, found = await functions.settled(self._a, self._b, options.passes, options.settle)
        for libraries in (ours, theirs):
            if libraries.refused:
                self.report.notes.append(f"functions were not compared: {libraries.refused}")
                return
        errors: dict[bytes, str] = {}
        left = found
        if self._copier is not None and found:
            errors = await functions.copy(ours, self._b.looks, found)
            left = (await functions.settled(self._a, self._b, 0, 0.0))[2]
        kinds = list(found.values())
        same = len(ours.codes.keys() & theirs.codes.keys()) - kinds.count("different")
        counts = Counts(same, *(kinds.count(what) for what in ("different", "only_a", "only_b")))
        counts.repaired = sum(name not in left for name in found)
        self.report.functions = counts
        for difference in functions.as_differences(found, errors, left):
            self._list(difference)

    def _found(self, case: Case, verdict: Verdict) -> None:
        del verdict
        self._differing += 1
        if self._tell_found is not None:
            self._tell_found(case.database, case.key)

    def _close(self, case: Case, verdict: Verdict) -> None:
        counts = self.report.databases[case.database]
        if verdict is Verdict.IN_FLIGHT:
            counts.in_flight += 1
        elif case.found is None:
            counts.same += verdict is Verdict.SAME
        else:
            repaired = verdict in {Verdict.SAME, Verdict.GONE}
            setattr(counts, case.found.value, getattr(counts, case.found.value) + 1)
            counts.repaired += repaired
            self._list(Difference(case.database, case.key, case.found.value, case.detail, repaired, case.error))
        self._advance("looking again at what differs", case.database, 0)

    def _list(self, difference: Difference) -> None:
        if len(self.report.differences) < self._options.limit:
            self.report.differences.append(difference)
        else:
            self.report.more += 1

    def _advance(self, what: str, database: int, count: int) -> None:
        self._done += count
        if self._tell is not None:
            waiting = self._recheck.count
            self._tell(Progress(what, database, self._done, self._total, self._differing, waiting))
