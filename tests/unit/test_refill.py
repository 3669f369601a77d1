"""A primary that lost data is filled again from its mirror: :mod:`redisha.refill`."""

import asyncio
import json
import logging
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from redisha import refill
from redisha.background import Job, Stopped
from redisha.config.load import parse
from redisha.core import DataPlane
from redisha.derive import Scope, Server
from redisha.refill import Rates, Refills
from redisha.scrub import Pair

CONFIG = parse(
    "listeners: [{bind: 0.0.0.0:1, routes: [{cluster: a, mirrors: [{cluster: b}]}]}]\n"
    "clusters: {a: {endpoints: h:1}, b: {endpoints: h:2}}",
    "f.yaml",
    {},
).config
A, B = "a/h:1", "b/h:2"


def pair(**fields: Any) -> Pair:
    return Pair(Server(A, "a", "127.0.0.1:1", **fields), Server(B, "b", "127.0.0.1:2"), Scope(CONFIG, "a", "b"))


class Core:
    """A core that holds the primary."""

    def __init__(self) -> None:
        self.state = "held"
        self.told: list[tuple[str, bool]] = []

    def stats(self) -> bytes:
        return json.dumps({"replicas": [{"primary": A, "mirror": B, "state": self.state}]}).encode()

    def refilled(self, primary: str, ok: bool) -> None:
        self.told.append((primary, ok))


class Setup:
    """Refills with a copy of the test's own."""

    def __init__(self) -> None:
        self.core = Core()
        self.pairs = {(A, B): pair()}
        self.copies: list[Rates] = []
        self.copy: Callable[[Job], None] = lambda job: None
        self.refills = Refills(DataPlane(self.core), self._copy, lambda name: self.pairs.get(name))  # type: ignore[arg-type]

    def _copy(self, pair: Pair, rates: Rates, job: Job) -> None:
        self.copies.append(rates)
        self.copy(job)

    async def fill(self) -> Any:
        self.refills.begin(A, B, "it lost data")
        return await self.rest()

    async def rest(self) -> Any:
        async with asyncio.timeout(5):
            await asyncio.wait([self.refills._tasks[A]])
        return self.stats

    @property
    def stats(self) -> Any:
        return self.refills.stats()[A]


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for name in ("BACKOFF_FIRST", "BACKOFF_LAST", "HOPELESS_PAUSE", "LOOK_EVERY"):
        monkeypatch.setattr(refill, name, 0.005)
    monkeypatch.setattr(refill, "HELD_WITHIN", 0.2)


@pytest.fixture
def setup() -> Setup:
    return Setup()


async def test_all_is_copied_and_the_data_plane_hears_of_it(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    def copy(job: Job) -> None:
        job.done, job.total, job.bytes = 7, 7, 700

    setup.copy = copy
    setup.refills.rates = Rates(10, 20)
    stats = await setup.fill()
    assert setup.core.told == [(A, True)]
    assert setup.copies == [Rates(10, 20)]
    assert (stats.state, stats.active, stats.attempts, stats.done, stats.bytes, stats.keys_total, stats.runs_total) == (
        ("done", False, 1, 7, 700, 7, 1)
    )
    assert f"{A} is being filled from its mirror {B}: it lost data" in caplog.text
    assert f"{A} is filled: 7 keys copied from {B}" in caplog.text


async def test_a_failure_is_tried_again_until_it_works(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    def copy(job: Job) -> None:
        job.done = 5
        if len(setup.copies) < 4:
            raise OSError("connection refused")

    setup.copy = copy
    stats = await setup.fill()
    assert setup.core.told == [(A, True)]
    assert (stats.attempts, stats.failures_total, stats.done, stats.keys_total) == (4, 3, 5, 20)
    warned = [
        each.message for each in caplog.records if each.levelno == logging.WARNING and "trying again" in each.message
    ]
    assert warned == [f"{A} could not be filled from {B}, trying again: connection refused"]


async def test_it_is_given_up_after_many_attempts_in_vain(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    def copy(job: Job) -> None:
        job.done = 3  # never further than that
        raise OSError("no space")

    setup.copy = copy
    stats = await setup.fill()
    assert setup.core.told == [(A, False)]
    assert (stats.state, stats.attempts) == ("failed", refill.ATTEMPTS + 1)
    assert "10 attempts failed, the last one with: no space" in stats.error
    assert "redisha resync CLUSTER --accept" in caplog.text


async def test_one_that_comes_further_each_time_is_not_given_up(setup: Setup) -> None:
    def copy(job: Job) -> None:
        job.done = len(setup.copies)
        if job.done < 3 * refill.ATTEMPTS:
            raise OSError("reset")

    setup.copy = copy
    assert (await setup.fill()).state == "done"


async def test_clusters_of_several_servers_are_not_mixed_up(setup: Setup) -> None:
    setup.pairs[A, B] = pair(alone=False)
    stats = await setup.fill()
    assert (setup.copies, setup.core.told, stats.state) == ([], [(A, False)], "failed")
    assert "several servers" in stats.error


async def test_a_name_that_does_not_resolve_yet_is_waited_for(setup: Setup) -> None:
    known = setup.pairs[A, B]
    setup.pairs[A, B] = Pair(known.primary, Server(B, "b", None), known.scope)
    setup.refills.begin(A, B, "")
    async with asyncio.timeout(5):
        while setup.stats.failures_total < 2:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.002)
    assert "does not resolve" in setup.stats.error
    setup.pairs[A, B] = known
    assert (await setup.rest()).state == "done"


class Endless:
    """A copy that goes on until it is told to stop."""

    def __init__(self) -> None:
        self.running = threading.Event()
        self.ended = threading.Event()

    def __call__(self, job: Job) -> None:
        self.running.set()
        job.total = 100
        while not job.stopped:
            job.done = 10
            self.ended.wait(0.002)
        self.ended.set()
        raise Stopped


async def test_progress_is_seen_while_it_runs(setup: Setup) -> None:
    setup.copy = endless = Endless()
    setup.refills.begin(A, B, "")
    assert await asyncio.to_thread(endless.running.wait, 5)
    async with asyncio.timeout(5):
        while setup.stats.done != 10:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.002)
    assert (setup.stats.state, setup.stats.total, setup.stats.active) == ("running", 100, True)
    await setup.refills.close()


async def test_what_an_operator_accepts_is_not_written_to_any_more(setup: Setup) -> None:
    setup.copy = endless = Endless()
    setup.refills.begin(A, B, "")
    assert await asyncio.to_thread(endless.running.wait, 5)
    assert setup.refills.running("a") == setup.refills.running("b") == [A]
    assert setup.refills.running("c") == []
    await setup.refills.stop(A)
    assert endless.ended.is_set()
    assert (setup.stats.state, setup.core.told, setup.refills.running("a")) == ("stopped", [], [])


async def test_a_primary_that_clients_write_to_is_never_written_to(setup: Setup) -> None:
    """The operator's word came before the event."""
    setup.core.state = "resync"
    stats = await setup.fill()
    assert (setup.copies, stats.state, setup.core.told) == ([], "stopped", [(A, False)])


@pytest.mark.parametrize("state", ["down", "connecting"])
async def test_a_mirror_that_is_away_does_not_tell_whether_its_primary_is_held(setup: Setup, state: str) -> None:
    setup.core.state = state
    assert (await setup.fill()).state == "done"


async def test_it_ends_when_the_primary_is_held_no_more(setup: Setup) -> None:
    setup.copy = endless = Endless()
    setup.refills.begin(A, B, "")
    assert await asyncio.to_thread(endless.running.wait, 5)
    setup.core.state = "catching_up"
    assert (await setup.rest()).state == "stopped"
    assert endless.ended.is_set()


async def test_the_state_may_show_a_moment_later(setup: Setup) -> None:
    setup.core.state = "in_sync"
    setup.refills.begin(A, B, "")
    await asyncio.sleep(0.06)
    assert setup.copies == []
    setup.core.state = "held"
    assert (await setup.rest()).state == "done"


async def test_a_primary_that_is_lost_again_is_filled_from_the_start(setup: Setup) -> None:
    setup.copy = endless = Endless()
    setup.refills.begin(A, B, "first")
    assert await asyncio.to_thread(endless.running.wait, 5)
    setup.copy = lambda job: None
    setup.refills.begin(A, B, "second")
    stats = await setup.rest()
    assert endless.ended.is_set()
    assert (stats.state, stats.reason, stats.runs_total) == ("done", "second", 2)
    assert setup.core.told == [(A, True)]


async def test_a_pair_that_left_the_plan_is_stopped(setup: Setup) -> None:
    setup.copy = endless = Endless()
    setup.refills.begin(A, B, "")
    assert await asyncio.to_thread(endless.running.wait, 5)
    setup.pairs.clear()
    setup.refills.look()
    assert (await setup.rest()).state == "stopped"
    assert setup.core.told == [(A, False)]


async def test_close_does_not_wait_for_a_copy_that_hangs(setup: Setup) -> None:
    release, running = threading.Event(), threading.Event()

    def copy(job: Job) -> None:
        running.set()
        release.wait(10)

    setup.copy = copy
    setup.refills.begin(A, B, "")
    assert await asyncio.to_thread(running.wait, 5)
    async with asyncio.timeout(1):
        await setup.refills.close()
    release.set()
    assert setup.core.told == []


async def test_a_fault_of_ours_ends_in_a_word_to_the_data_plane(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(setup.core, "stats", lambda: SimpleNamespace())
    stats = await setup.fill()
    assert (stats.state, setup.core.told) == ("failed", [(A, False)])
    assert "Traceback" in caplog.text
