"""Two members led at once: whose write of a key is the later one, and what is lost by that. Pure.

Owns: the rules, and the forms of what is known: what members wrote (``REDISHA JOURNAL``), what another may lack
(``REDISHA MARKS``), and values. Never: looks into a value.

*Ours* is the member that leads now, *theirs* the one that led, too, and follows now.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import TypeAlias

Key: TypeAlias = tuple[int, bytes]
"""Database and name."""

UNKNOWN_TIME = 1
"""The time of a write of which only is known that ours has not written the key since. It loses against any other."""


PeerAddress: TypeAlias = str
"""``host:port`` of a member's peer port; where it listens on all its addresses, its own port is meant."""


class Reason(StrEnum):
    """Why a value was lost."""

    LATER_WRITE = "later_write"
    """The winner wrote the key later."""
    DELETED = "deleted"
    """The winner deleted the key later."""
    UNPROVEN = "unproven"
    """It is not known that the loser wrote it later; its Redis was started since, for example."""
    NOT_APPLIED = "not_applied"
    """It is the later one, and could not be taken over: it is too large, or a library, or of a newer Redis."""


class Fate(Enum):
    """What becomes of theirs where a key differs."""

    LEFT = "left"
    """Nothing is to be done: ours stays, and theirs is no value that would be lost."""
    LOST = "lost"
    """Ours stays; theirs is kept as a conflict."""
    TAKEN = "taken"
    """Ours becomes as theirs, unless ours is written meanwhile."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done with a key that differs.

    Attributes:
        fate: that.
        at: when theirs was written, milliseconds since 1970; where it is taken.
        reason: why the loser's value is kept as a conflict; None: it is not.
        written: when the loser wrote its value; None: not known.
    """

    fate: Fate
    at: int = 0
    reason: Reason | None = None
    written: int | None = None


@dataclass(frozen=True, slots=True)
class Value:
    """A key that is there.

    Attributes:
        payload: ``DUMP``'s; None where the value is too large to be read.
        expires: milliseconds since 1970; 0: never.
        size: bytes of the payload, or of memory where that is not known.
        kind: the type, as ``TYPE`` says it; empty where it is not known.
    """

    payload: bytes | None
    expires: int
    size: int
    kind: str


@dataclass(frozen=True, slots=True)
class Marks:
    """Keys of which a member does not know whether another one has what it has, by buckets: others are among them.

    Attributes:
        all: every key.
        functions: libraries, too.
        bits: a bit for each bucket.
        bucket: gives the bucket of a key.
    """

    all: bool
    functions: bool
    bits: bytes
    bucket: Callable[[int, bytes], int]

    @property
    def empty(self) -> bool:
        """Whether there is no key."""
        return not self.all and not self.bits.strip(b"\0")

    def has(self, db: int, name: bytes) -> bool:
        """Whether a key is among them."""
        if self.all:
            return True
        number = self.bucket(db, name)
        return bool(self.bits[number >> 3] & 1 << (number & 7))


@dataclass(frozen=True, slots=True)
class Journal:
    """What a member wrote while it led and another did not follow.

    Attributes:
        trusted: its Redis is the one that these writes went to.
        all: any key may have been written then, milliseconds since 1970; 0: none but these.
        keys: database → key → when it was written.
        complete: a key that is not in it was not written.
    """

    trusted: bool
    all: int
    keys: dict[int, dict[bytes, int]] = field(default_factory=dict)
    complete: bool = False

    def listed(self, key: Key) -> int | None:
        """When the key was written, where it was noted by its name."""
        return self.keys.get(key[0], {}).get(key[1])

    def at(self, key: Key) -> int | None:
        """When the key was written, or may have been; None: not known."""
        return max(self.listed(key) or 0, self.all) or None


@dataclass(frozen=True, slots=True)
class Known:
    """What both members say of their writes.

    Attributes:
        ours: journal of the leader.
        theirs: of the other one.
        foreign: what ours has that theirs may lack, where further members may have led meanwhile: what ours has from
            them is in no journal. None: there are no further members.
        until: when theirs wrote its last at the latest, milliseconds since 1970. A clock that is ahead must not make
            it win against what clients write to ours while the merge runs.
    """

    ours: Journal
    theirs: Journal
    foreign: Marks | None
    until: int

    def judge(self, key: Key, ours_there: bool, theirs_there: bool) -> Verdict:
        """The rules.

        Args:
            key: it differs.
            ours_there: ours has the key; else it deleted it, or never had it.
            theirs_there: the same of theirs.
        """
        ours, theirs = self.ours.at(key), self.theirs.at(key)
        foreign = ours is None and self.foreign is not None and self.foreign.has(*key)
        if not self.theirs.trusted:
            return _lost(theirs_there, Reason.UNPROVEN)
        if theirs is None:
            return self._without_time(ours, foreign, ours_there, theirs_there)
        at = min(theirs, self.until)
        if ours is not None and ours >= at:
            return _lost(theirs_there, _how(ours_there))
        # What ours has not written is what both had.
        return Verdict(Fate.TAKEN, at, _how(theirs_there) if ours is not None or foreign else None)

    def _without_time(self, ours: int | None, foreign: bool, ours_there: bool, theirs_there: bool) -> Verdict:
        """Theirs did not note when it wrote the key, if it did."""
        written = ours is not None or foreign
        # Perhaps it was evicted there: nothing is deleted without a proof.
        if not theirs_there or (self.theirs.complete and written):
            return Verdict(Fate.LEFT)
        if written:
            return _lost(theirs_there, Reason.UNPROVEN if foreign else _how(ours_there))
        return Verdict(Fate.TAKEN, UNKNOWN_TIME)


def _how(winner_there: bool) -> Reason:
    return Reason.LATER_WRITE if winner_there else Reason.DELETED


def _lost(there: bool, reason: Reason) -> Verdict:
    return Verdict(Fate.LOST, reason=reason) if there else Verdict(Fate.LEFT)  # a deletion has no value to keep
