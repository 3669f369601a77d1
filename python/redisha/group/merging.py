"""What another member wrote while it led, too, becomes part of this leader's history, key by key.

Owns: which keys are looked at, in which order things happen, and what is said to the leader's sequencer.
Never: decides (:mod:`redisha.group.later` does), or writes to the other member: a resync does, once this has ended.

::

    theirs: MARKS, JOURNAL, SCAN ─▶ keys ─▶ DUMP on both ─▶ differ? ─▶ judge ─┬─ lost ──┐
    ours:   JOURNAL ─────────────────────────────────────────────────▲        └─ taken ─┴─▶ conflicts.jsonl ─▶ MERGE

It may break anywhere and be run again: what was taken is equal then.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from redisha.background import Job
from redisha.core import ReplyError, encode_command
from redisha.group.conflicts import Conflict, Conflicts
from redisha.group.later import Fate, Known, Marks, PeerAddress, Reason, Value
from redisha.group.merge import MergeReport
from redisha.group.peerlink import Greeting, PeerLink
from redisha.group.values import Pair, differing, read
from redisha.verify import functions, keys
from redisha.verify.errors import refusal
from redisha.verify.link import parse
from redisha.verify.look import look
from redisha.verify.side import MARKERS, Side

log = logging.getLogger(__name__)

PAYLOAD_MOST = 32 << 20
"""Bytes of a payload past which a value is not taken over."""

READ_MOST = 64 << 20
"""Bytes of memory that a value takes past which its payload is not even asked for."""

_AT_ONCE = 1000
_UNREADABLE = ("ERR DUMP payload version or checksum are wrong", "ERR Bad data format")


@dataclass(frozen=True, slots=True)
class Members:
    """Who is merged.

    Attributes:
        greeting: the leader, as it greets.
        own: the leader's peer port.
        other: that of the one that led, too.
        other_member: what that is called.
        others: whether the group has further members.
    """

    greeting: Greeting
    own: PeerAddress
    other: PeerAddress
    other_member: str
    others: bool


async def run(members: Members, conflicts: Conflicts, job: Job, report: MergeReport) -> None:
    """Merge.

    Raises:
        ServerError: a member cannot be asked, or this one leads no more.
        ConflictsError: a value could not be kept.
        Stopped: the job shall end.
    """
    began = int(time.time() * 1000)
    greeting = members.greeting
    async with AsyncExitStack() as stack:
        own = await PeerLink.reach(members.own, greeting.member, greeting)
        stack.callback(own.close)
        other = await PeerLink.reach(members.other, members.other_member, greeting)
        stack.callback(other.close)
        sides = [Side(await link.learn(), (link, link, link)) for link in (own, other)]
        marks = await other.marks(greeting.member)
        theirs = await other.journal()
        # A leader's journal may have a million keys: those that nobody will ask for are left out.
        ours = await own.journal(lambda db, name: theirs.listed((db, name)) is not None or marks.has(db, name))
        foreign = await own.marks(members.other_member) if members.others else None
        known = Known(ours, theirs, foreign, began)
        await _Merging(members, sides, known, marks, conflicts, job, report).all()


class _Merging:
    def __init__(
        self,
        members: Members,
        sides: Sequence[Side],
        known: Known,
        marks: Marks,
        conflicts: Conflicts,
        job: Job,
        report: MergeReport,
    ) -> None:
        self._ours, self._theirs = sides
        self._known, self._marks = known, marks
        self._group, self._member, self._other = members.greeting.group, members.greeting.member, members.other_member
        self._conflicts = conflicts
        self._job, self._report = job, report

    async def all(self) -> None:
        """All databases, and the libraries."""
        ours, theirs = self._ours, self._theirs
        links = [ours.keys, theirs.keys] if ours.facts.memory and theirs.facts.memory else []
        for db in sorted(ours.facts.keys.keys() | theirs.facts.keys.keys() | self._known.theirs.keys.keys()):
            await ours.use(db)
            await theirs.use(db)
            async for batch in self._candidates(db):
                for page in await keys.Sizing(batch, links).pages():
                    self._job.check()
                    if page.keys:
                        await self._page(db, page.keys)
                    for name in page.large:
                        await self._large(db, name)
        if self._marks.functions:
            await self._libraries()

    async def _candidates(self, db: int) -> AsyncIterator[list[bytes]]:
        """Keys that theirs may have written alone."""
        theirs = self._known.theirs
        noted = theirs.keys.get(db, {})
        listed = [name for name in noted if name != MARKERS]
        for start in range(0, len(listed), _AT_ONCE):
            yield listed[start : start + _AT_ONCE]
        if self._marks.empty:
            return

        def wanted(batch: list[bytes]) -> list[bytes]:
            return [n for n in batch if n not in noted and n != MARKERS and self._marks.has(db, n)]

        async for batch in keys.scan(self._theirs.keys):
            if found := wanted(batch):
                yield found
        if not (theirs.trusted and theirs.all):
            return  # a key that only ours has stays, unless theirs may have deleted it
        async for batch in keys.scan(self._ours.keys):
            if (found := wanted(batch)) and (found := await keys.absent(self._theirs.keys, found)):
                yield found

    # --- a page -------------------------------------------------------------------------------------------------------

    async def _page(self, db: int, names: Sequence[bytes]) -> None:
        """Look at keys whose values are small together."""
        pairs = await differing(self._ours, self._theirs, await read(self._ours, self._theirs, names))
        await self._settle(db, len(names), pairs)

    async def _large(self, db: int, name: bytes) -> None:
        """Look at a key that is large on a member."""
        sizes = [(await keys.sizes_of(side.keys, [name]))[0] for side in (self._ours, self._theirs)]
        if max(sizes) <= READ_MOST:
            return await self._page(db, [name])
        [seen] = await look(self._ours, self._theirs, [name])
        ours, theirs = (
            Value(None, max(each.expiry, 0), size, each.kind) if each is not None else None
            for each, size in zip((seen.a, seen.b), sizes, strict=True)
        )
        same = seen.equal or seen.expiring or (ours is None and theirs is None)
        await self._settle(db, 1, [] if same else [Pair(name, ours, theirs)])
        return None

    async def _settle(self, db: int, looked_at: int, pairs: Sequence[Pair]) -> None:
        """Do what is to be done with keys that differ."""
        lost: list[Conflict] = []
        taken: list[tuple[Pair, int]] = []
        for pair in pairs:
            verdict = self._known.judge((db, pair.name), pair.ours is not None, pair.theirs is not None)
            if verdict.fate is Fate.LOST:
                lost += self._lost(db, pair, verdict.reason)
            elif verdict.fate is Fate.TAKEN and is_too_large(pair.theirs):
                lost += self._lost(db, pair, Reason.NOT_APPLIED)
            elif verdict.fate is Fate.TAKEN:
                taken.append((pair, verdict.at))
                lost += self._lost(db, pair, verdict.reason, ours=True)
        self._report.keys += looked_at
        self._report.differing += len(pairs)
        self._job.done = self._report.keys
        self._keep(lost)
        if taken:
            self._keep(await self._take(db, taken))

    async def _take(self, db: int, taken: Sequence[tuple[Pair, int]]) -> list[Conflict]:
        """Say to the leader's sequencer what theirs has; what it does not take is a conflict.

        Raises:
            ServerError: it leads no more, or its Redis takes nothing now.
        """
        link = self._ours.pages
        commands = b"".join(_command(db, pair, at) for pair, at in taken)
        replies = parse(await link.request(commands, len(taken)), len(taken))
        lost: list[Conflict] = []
        for (pair, _), reply in zip(taken, replies, strict=True):
            if isinstance(reply, ReplyError):
                if not str(reply.args[0]).startswith(_UNREADABLE):
                    raise refusal(link.address, "REDISHA MERGE", reply)
                lost += self._lost(db, pair, Reason.NOT_APPLIED)
            elif reply == b"KEPT":  # a client wrote it in this moment
                lost += self._lost(db, pair, Reason.LATER_WRITE)
            else:
                self._report.applied += 1
        return lost

    async def _libraries(self) -> None:
        """Libraries that ours does not have, or has in another form: none is taken over."""
        ours, theirs = await functions.read(self._ours), await functions.read(self._theirs)
        if refused := ours.refused or theirs.refused:
            log.warning("group %s: what libraries %s loaded is not known: %s", self._group, self._other, refused)
            return
        lost = [each for each in theirs.codes.items() if ours.codes.get(each[0]) != each[1]]
        self._keep(
            [Conflict(self._group, self._member, self._other, Reason.NOT_APPLIED, library=library) for library in lost]
        )

    # --- what is lost -------------------------------------------------------------------------------------------------

    def _lost(self, db: int, pair: Pair, reason: Reason | None, ours: bool = False) -> list[Conflict]:
        """The value of one side, if it has one: theirs, or ours."""
        value, journal = (pair.ours, self._known.ours) if ours else (pair.theirs, self._known.theirs)
        if value is None or reason is None:
            return []
        winner, loser = (self._other, self._member) if ours else (self._member, self._other)
        key = (db, pair.name)
        return [Conflict(self._group, winner, loser, reason, key, value, journal.listed(key))]

    def _keep(self, lost: Sequence[Conflict]) -> None:
        self._report.conflicts += self._conflicts.add(self._other, lost)


def is_too_large(value: Value | None) -> bool:
    """Whether a value is not taken over for its size."""
    return value is not None and (value.payload is None or len(value.payload) > PAYLOAD_MOST)


def _command(db: int, pair: Pair, at: int) -> bytes:
    theirs = pair.theirs
    payload, expires = (theirs.payload or b"", theirs.expires) if theirs is not None else (b"", 0)
    return encode_command([b"REDISHA", b"MERGE", b"%d" % db, pair.name, b"%d" % at, b"%d" % expires, payload])
