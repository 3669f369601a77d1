"""The vote of a third party: one record, changed by compare-and-set, that every member of a group can reach.

A group of two has no majority when one is gone. An arbiter holds a :class:`Record`; whoever changes it to a higher
term, after its leader has stopped renewing it, has the arbiter's vote. It holds no data of users.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class ArbiterError(Exception):
    """The arbiter cannot be reached, or refuses us; says what to do. As far as is known nothing was changed."""


class ConflictError(ArbiterError):
    """Somebody changed the record since it was read."""


@dataclass(frozen=True, slots=True)
class Record:
    """What an arbiter keeps.

    Attributes:
        term: of the leadership.
        leader: the member that has it.
        in_sync: the members of which a leader may be elected, and whose acknowledgement a write waits for.
        beat: grows with each renewal by the leader: a record that stays the same for the time of a lease is of a leader
            that is gone (both sides only ever compare their own clocks with themselves).
    """

    term: int
    leader: str
    in_sync: tuple[str, ...] = ()
    beat: int = 0


class Arbiter(Protocol):
    """A place for one record."""

    async def read(self) -> tuple[Record | None, str]:
        """The record (None: there is none yet) and its version, to be given to :meth:`write`.

        Raises:
            ArbiterError: it cannot be read.
        """

    async def write(self, record: Record, version: str) -> str:
        """Replace the record that has this version (of :meth:`read` or of the last write); gives the new version.

        Raises:
            ConflictError: it has another version.
            ArbiterError: it is not known whether it was written.
        """

    async def close(self) -> None:
        """Give connections back."""
