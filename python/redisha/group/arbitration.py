"""A member's dealings with the arbiter: looking at its record, having its vote, and keeping it.

Owns: the record as it was last seen, and for how long it has been the same.
Never: decides; two changes at a time.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable

from redisha.group.arbiter import Arbiter, ArbiterError, ConflictError, Record
from redisha.group.view import NEVER

log = logging.getLogger(__name__)


class Arbitration:
    """One member's view of the arbiter.

    Args:
        arbiter: the third party.
        limit: seconds for one question to it.
        clock: seconds, of a clock that goes on while the machine sleeps.

    Attributes:
        record: the record as it was last seen; None: there is none, or it was never seen.
        up: whether the arbiter answered the last time.
    """

    def __init__(self, arbiter: Arbiter, limit: float, clock: Callable[[], float]) -> None:
        self._arbiter = arbiter
        self._limit = limit
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._version: str | None = None
        self._since = 0.0
        self._looked = 0.0
        self._renewed: float | None = None
        self._problem = ""
        self.record: Record | None = None
        self.up = False

    @property
    def age_ms(self) -> int:
        """How long the record has been seen to stay the same.

        Counted from the end of the first look to the beginning of the last one: a member that slept in between, or
        could not reach the arbiter, has not seen that nobody renewed it.
        """
        return max(0, int((self._looked - self._since) * 1000))

    @property
    def renewed_ms(self) -> int:
        """Milliseconds since the sending of the newest change by this member that succeeded."""
        return NEVER if self._renewed is None else math.ceil((self._clock() - self._renewed) * 1000)

    async def look(self) -> None:
        """See the record again."""
        async with self._one_at_a_time:
            await self._look()

    def is_free(self, member: str, lease_ms: int) -> bool:
        """Whether this member can have the arbiter's vote: no other has renewed the record for the time of a lease."""
        return self.record is None or self.record.leader == member or self.age_ms >= lease_ms

    async def claim(self, record: Record, lease_ms: int) -> bool:
        """Have the arbiter's vote: put this record in the place of the one that was last seen.

        Args:
            record: of a term above.
            lease_ms: for how long nobody may have renewed the one that is there.

        Returns:
            Whether it is known to be there now; False also where somebody has changed it since it was seen.
        """
        async with self._one_at_a_time:
            if self._version is None or not self.is_free(record.leader, lease_ms):
                return False
            if self.record is not None and self.record.term >= record.term:
                return False
            return await self._put(record) is True

    async def renew(self, make: Callable[[], Record]) -> bool:
        """Keep the leadership of a record of this member, or tell the arbiter of one that others have elected.

        Args:
            make: gives the record when it is its turn. It must not change one of a newer leadership.

        Returns:
            Whether it is known to be there now; False also where another leads that term, or a newer one.
        """
        async with self._one_at_a_time:
            for _ in range(2):  # A change of ours may have been made without our knowing: then look, and try again.
                if self._version is None and not await self._look():
                    return False
                record = make()
                if self.record is not None and _is_over(record, self.record):
                    return False
                done = await self._put(record)
                if done is not None:
                    return done
            return False

    async def _look(self) -> bool:
        begun = self._clock()
        try:
            async with asyncio.timeout(self._limit):
                record, version = await self._arbiter.read()
        except (ArbiterError, TimeoutError) as error:
            self._failed(error)
            return False
        if version != self._version or record != self.record:
            self._since = self._clock()
        self.record, self._version, self._looked = record, version, begun
        self._answered()
        return True

    async def _put(self, record: Record) -> bool | None:
        """Change it. None: somebody changed it before, or it is not known; it must be looked at again."""
        begun = self._clock()
        version, self._version = self._version or "", None
        try:
            async with asyncio.timeout(self._limit):
                self._version = await self._arbiter.write(record, version)
        except ConflictError:
            self._answered()
            return None
        except (ArbiterError, TimeoutError) as error:
            self._failed(error)
            return False
        self.record, self._since, self._looked, self._renewed = record, self._clock(), begun, begun
        self._answered()
        return True

    def _answered(self) -> None:
        if not self.up and self._problem:
            log.info("the arbiter answers again")
        self.up, self._problem = True, ""

    def _failed(self, error: Exception) -> None:
        text = str(error) or f"no answer within {self._limit:g} s"
        if text != self._problem:
            log.warning("the arbiter cannot be asked: %s", text)
        self.up, self._problem = False, text


def _is_over(mine: Record, seen: Record) -> bool:
    """Whether the leadership of one record was replaced by that of another."""
    return seen.term > mine.term or (seen.term == mine.term and seen.leader != mine.leader)
