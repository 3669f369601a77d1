"""Whose turn it is, and what is done with what differs: :mod:`redisha.scrub`."""

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from redisha import scrub
from redisha.background import Job, Stopped
from redisha.config.load import parse
from redisha.core import DataPlane, ReplicaStats
from redisha.derive import Scope, Server
from redisha.scrub import LARGER, Pair, Sample, Scrubs

CONFIG = parse(
    "listeners: [{bind: 0.0.0.0:1, routes: [{cluster: a, mirrors: [{cluster: b}, {cluster: c}]}]}]\n"
    "clusters: {a: {endpoints: h:1}, b: {endpoints: h:2}, c: {endpoints: h:3}}",
    "f.yaml",
    {},
).config

A, B, C = "a/h:1", "b/h:2", "c/h:3"


def pair(mirror: str = B, **fields: Any) -> Pair:
    cluster = mirror.partition("/")[0]
    return Pair(
        Server(A, "a", "127.0.0.1:1", **fields), Server(mirror, cluster, "127.0.0.1:2"), Scope(CONFIG, "a", cluster)
    )


def replica(mirror: str = B, state: str = "in_sync", sole: str = "yes") -> ReplicaStats:
    return ReplicaStats(A, mirror, state, sole=sole)


class Plane(DataPlane):
    """Remembers what was doubted."""

    def __init__(self) -> None:
        self.doubted: list[tuple[str, str, list[tuple[int, bytes]]]] = []

    def doubt(self, primary: str, mirror: str, keys: Any) -> None:
        self.doubted.append((primary, mirror, list(keys)))


class Setup:
    """Scrubs with a clock and a comparison of the test's own."""

    def __init__(self, *pairs: Pair, interval: float = 600.0) -> None:
        self.now = 1000.0
        self.plane = Plane()
        self.asked: list[tuple[str, int]] = []
        self.answer: Callable[[Job], Sample] = lambda job: Sample(100)
        self.scrubs = Scrubs(self.plane, self._compare, lambda: self.now)
        self.scrubs.configure(pairs or (pair(),), interval, 100)

    def _compare(self, pair: Pair, count: int, job: Job) -> Sample:
        self.asked.append((pair.mirror.name, count))
        return self.answer(job)

    async def look(self, *replicas: ReplicaStats, after: float = 0.0) -> None:
        """Time goes on, and what is due runs to its end."""
        self.now += after
        self.scrubs.look(replicas or (replica(),))
        await self.rest()

    async def rest(self) -> None:
        async with asyncio.timeout(5):
            while self.scrubs._task is not None:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.002)

    @property
    def stats(self) -> Any:
        return self.scrubs.stats()[A, B]


async def test_it_is_due_every_interval() -> None:
    setup = Setup()
    await setup.look(after=599)
    assert setup.asked == []
    await setup.look(after=2)
    await setup.look(after=1)
    assert setup.asked == [(B, 100)]
    await setup.look(after=600)
    assert (setup.stats.runs_total, setup.stats.keys_total, setup.stats.last_keys) == (2, 200, 100)
    assert setup.stats.last_run > 1_700_000_000
    assert setup.plane.doubted == []


@pytest.mark.parametrize(
    "found", [replica(state="catching_up"), replica(state="unproven"), replica(sole="no"), replica(sole=""), replica(C)]
)
async def test_only_what_should_be_equal_is_compared(found: ReplicaStats) -> None:
    setup = Setup()
    await setup.look(found, after=601)
    assert setup.asked == []
    await setup.look(replica())
    assert setup.asked == [(B, 100)]


async def test_never() -> None:
    setup = Setup(interval=0)
    setup.scrubs.hurry(A)
    await setup.look(after=10_000)
    assert setup.asked == []


@pytest.mark.parametrize("odd", [pair(alone=False), Pair(Server(A, "a", None), pair().mirror, pair().scope)])
async def test_what_cannot_be_compared_is_left_alone(odd: Pair) -> None:
    setup = Setup(odd)
    await setup.look(after=601)
    assert setup.asked == []


async def test_what_differs_is_copied_again(caplog: pytest.LogCaptureFixture) -> None:
    setup = Setup()
    setup.answer = lambda job: Sample(100, ((0, b"secret-key"), (3, b"\xff")))
    await setup.look(after=601)
    assert setup.plane.doubted == [(A, B, [(0, b"secret-key"), (3, b"\xff")])]
    assert (setup.stats.differ_total, setup.stats.last_differ) == (2, 2)
    assert f"scrub of {A} -> {B}: 2 of 100 keys differ; they are copied again" in caplog.text
    assert "secret-key" not in caplog.text


async def test_libraries_of_functions_that_differ_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    setup = Setup()
    for libraries in (2, 2, 0, 1):
        setup.answer = lambda job, libraries=libraries: Sample(100, (), libraries)
        await setup.look(after=601)
    said = [record.message for record in caplog.records]
    assert said == [
        f"scrub of {A} -> {B}: {count} libraries of functions differ; to copy them: redisha resync b --full"
        for count in (2, 1)
    ]
    assert setup.plane.doubted == []


async def test_what_fell_behind_meanwhile_is_no_news() -> None:
    setup = Setup()

    def answer(job: Job) -> Sample:
        setup.scrubs.look((replica(state="resync"),))
        return Sample(100, ((0, b"k"),))

    setup.answer = answer
    await setup.look(after=601)
    assert (setup.plane.doubted, setup.stats.runs_total) == ([], 0)


async def test_a_pair_that_left_the_plan_meanwhile_is_no_news() -> None:
    setup = Setup()

    def answer(job: Job) -> Sample:
        setup.scrubs.configure((), 600, 100)
        return Sample(100, ((0, b"k"),))

    setup.answer = answer
    await setup.look(after=601)
    assert setup.plane.doubted == []
    assert setup.scrubs.stats() == {}


async def test_a_failure_is_told_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    setup = Setup()

    def answer(job: Job) -> Sample:
        raise OSError("connection refused")

    setup.answer = answer
    await setup.look(after=601)
    await setup.look(after=601)
    assert (setup.stats.failures_total, setup.stats.error, setup.stats.runs_total) == (2, "connection refused", 0)
    assert caplog.text.count("connection refused") == 1
    setup.answer = lambda job: Sample(1)
    await setup.look(after=601)
    assert setup.stats.error == ""


async def test_one_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub, "LIMIT", 0.05)
    setup = Setup()
    stopped = threading.Event()

    def answer(job: Job) -> Sample:
        while not job.stopped:
            stopped.wait(0.01)
        stopped.set()
        raise Stopped

    setup.answer = answer
    await setup.look(after=601)
    assert await asyncio.to_thread(stopped.wait, 5)
    assert "took more than" in setup.stats.error


async def test_one_at_a_time_each_in_its_turn() -> None:
    setup = Setup(pair(B), pair(C))
    both = (replica(B), replica(C))
    await setup.look(*both, after=601)
    await setup.look(*both, after=1)
    await setup.look(*both, after=1)
    assert setup.asked == [(B, 100), (C, 100)]


async def test_after_evictions_more_is_compared_and_soon_but_not_all_the_time() -> None:
    setup = Setup()
    setup.scrubs.hurry("z/elsewhere:1")
    setup.scrubs.hurry(B)
    await setup.look(after=1)
    assert setup.asked == []
    await setup.look(after=2)
    assert setup.asked == [(B, 100 * LARGER)]
    setup.scrubs.hurry(A)
    await setup.look(after=10)
    assert len(setup.asked) == 1
    await setup.look(after=60)
    assert setup.asked == [(B, 100 * LARGER)] * 2
    await setup.look(after=601)
    assert setup.asked[2:] == [(B, 100)]


async def test_evictions_during_a_scrub_count_for_the_next() -> None:
    setup = Setup()

    def answer(job: Job) -> Sample:
        setup.scrubs.hurry(B)
        return Sample(1)

    setup.answer = answer
    await setup.look(after=601)
    setup.answer = lambda job: Sample(1)
    await setup.look(after=3)
    assert setup.asked == [(B, 100), (B, 100 * LARGER)]


async def test_a_new_plan_keeps_the_turns_and_a_new_interval_counts_from_now() -> None:
    setup = Setup()
    setup.now += 500
    setup.scrubs.configure((pair(),), 600, 50)
    await setup.look(after=101)
    assert setup.asked == [(B, 50)]
    setup.scrubs.configure((pair(),), 60, 50)
    await setup.look(after=61)
    assert len(setup.asked) == 2


async def test_close_does_not_wait_for_a_thread_that_hangs() -> None:
    setup = Setup()
    release = threading.Event()

    def answer(job: Job) -> Sample:
        release.wait(10)
        return Sample(1)

    setup.answer = answer
    setup.now += 601
    setup.scrubs.look((replica(),))
    await asyncio.sleep(0.02)
    async with asyncio.timeout(1):
        await setup.scrubs.close()
    release.set()
