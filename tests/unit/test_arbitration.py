"""A member's dealings with the arbiter: :mod:`redisha.group.arbitration`."""

import asyncio

from redisha.group.arbiter import ArbiterError, ConflictError, Record
from redisha.group.arbitration import Arbitration
from redisha.group.view import NEVER


class Third:
    """An arbiter in memory; ``fails`` are what the next calls raise, None for none, after they did their work."""

    def __init__(self) -> None:
        self.record: Record | None = None
        self.version = 0
        self.fails: list[Exception | None] = []
        self.hangs = False

    async def read(self) -> tuple[Record | None, str]:
        await self._now()
        return self.record, str(self.version)

    async def write(self, record: Record, version: str) -> str:
        if version != str(self.version):
            raise ConflictError("changed")
        self.put(record)
        await self._now()
        return str(self.version)

    def put(self, record: Record) -> None:
        self.record, self.version = record, self.version + 1

    async def _now(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.fails and (problem := self.fails.pop(0)) is not None:
            raise problem

    async def close(self) -> None:
        """Nothing is kept open."""


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def made() -> tuple[Third, Clock, Arbitration]:
    third, clock = Third(), Clock()
    return third, clock, Arbitration(third, 0.05, clock)


async def test_a_record_is_old_only_if_it_was_seen_to_be() -> None:
    third, clock, one = made()
    third.put(Record(1, "b"))
    await one.look()
    clock.now += 10  # It slept: nobody knows what happened meanwhile.
    assert one.age_ms == 0
    await one.look()
    assert one.age_ms == 10_000
    third.put(Record(1, "b", beat=1))
    await one.look()
    assert one.age_ms == 0


async def test_a_vote_is_had_once_the_record_is_old() -> None:
    third, clock, one = made()
    third.put(Record(1, "b"))
    assert not await one.claim(Record(2, "a"), 800)  # It was never seen.
    await one.look()
    assert not await one.claim(Record(2, "a"), 800)
    clock.now += 0.81
    await one.look()
    assert not await one.claim(Record(1, "a"), 800)  # No higher term.
    assert await one.claim(Record(2, "a"), 800)
    assert third.record == Record(2, "a")
    assert one.renewed_ms == 0


async def test_no_vote_of_a_record_that_was_changed_meanwhile() -> None:
    third, clock, one = made()
    third.put(Record(1, "b"))
    await one.look()
    clock.now += 1
    await one.look()
    third.put(Record(1, "b", beat=9))
    assert not await one.claim(Record(2, "a"), 800)
    assert third.record == Record(1, "b", beat=9)


async def test_the_first_record_and_the_own_one_are_free() -> None:
    third, _, one = made()
    await one.look()
    assert await one.claim(Record(1, "a"), 800)
    assert await one.claim(Record(2, "a"), 800)
    assert third.record == Record(2, "a")


async def test_a_renewal_goes_on_after_a_change_without_an_answer() -> None:
    third, clock, one = made()
    beats = iter(range(1, 99))
    third.fails = [None, ArbiterError("lost")]  # Read, and write: it was written all the same.
    assert not await one.renew(lambda: Record(3, "a", beat=next(beats)))
    assert (one.up, one.renewed_ms) == (False, NEVER)
    clock.now += 1
    assert await one.renew(lambda: Record(3, "a", beat=next(beats)))
    assert third.record == Record(3, "a", beat=2)
    assert (one.up, one.renewed_ms) == (True, 0)


async def test_a_renewal_replaces_older_leaderships_only() -> None:
    third, _, one = made()
    third.put(Record(2, "b"))
    assert await one.renew(lambda: Record(3, "a"))
    third.put(Record(4, "b"))
    assert not await one.renew(lambda: Record(3, "a", beat=1))
    assert not await one.renew(lambda: Record(4, "a"))
    assert third.record == one.record == Record(4, "b")


async def test_the_age_of_a_renewal_counts_from_its_sending() -> None:
    third, clock, one = made()
    slow = third.write

    async def write(record: Record, version: str) -> str:
        clock.now += 0.3
        return await slow(record, version)

    third.write = write  # type: ignore[method-assign]
    assert await one.renew(lambda: Record(1, "a"))
    assert one.renewed_ms in (300, 301)


async def test_an_arbiter_that_hangs_is_not_up() -> None:
    third, _, one = made()
    third.hangs = True
    await one.look()
    assert not one.up
    assert not await one.renew(lambda: Record(1, "a"))
