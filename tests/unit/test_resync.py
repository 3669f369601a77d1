"""What follows from a plan, from events and from an operator's word: :mod:`redisha.resync`."""

import asyncio
import json
import logging
import threading
from typing import Any

import pytest

from redisha.background import Job, Stopped
from redisha.config.load import parse
from redisha.core import DataPlane, Event, EventKind, ReplicaStats
from redisha.health.probe import Facts
from redisha.plan import compile_plan
from redisha.resync import ACTIONS, Caretaker
from redisha.scrub import Pair, Sample

TEXT = """
listeners: [{bind: 0.0.0.0:1, routes: [{prefix: "x:", cluster: a, mirrors: [{cluster: b}]}, {cluster: c}]}]
clusters: {a: {endpoints: 10.0.0.1:1}, b: {endpoints: name:2}, c: {endpoints: 10.0.0.3:3}}
resync: {max_keys_per_second: 5, max_bytes_per_second: 7KB, scrub: {interval: 10s, sample: 3}}
"""
A, B = "a/10.0.0.1:1", "b/name:2"


class Core:
    """A core that holds the primary and remembers its orders."""

    def __init__(self) -> None:
        self.orders: list[tuple[Any, ...]] = []

    def stats(self) -> bytes:
        return json.dumps({"replicas": [{"primary": A, "mirror": B, "state": "held"}]}).encode()

    def resync(self, *order: str) -> None:
        self.orders.append(("resync", *order))

    def refilled(self, *order: Any) -> None:
        self.orders.append(("refilled", *order))

    def doubt(self, *order: Any) -> None:
        self.orders.append(("doubt", *order))


class Setup:
    """A caretaker whose tools are the test's own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.core = Core()
        self.compared: list[tuple[Pair, int]] = []
        self.copying = threading.Event()
        self.care = Caretaker(DataPlane(self.core), self._compare, self._copy, lambda: self.now)  # type: ignore[arg-type]
        self.configure()

    def configure(self, text: str = TEXT) -> None:
        config = parse(text, "f.yaml", {}).config
        self.care.configure(config, compile_plan(config, {"name": ["10.0.0.2"]}, 1))

    def _compare(self, pair: Pair, count: int, job: Job) -> Sample:
        self.compared.append((pair, count))
        return Sample(count)

    def _copy(self, pair: Pair, rates: Any, job: Job) -> None:
        self.copying.set()
        while not job.stopped:
            threading.Event().wait(0.002)
        self.core.orders.append(("copy ended", rates.keys, rates.bytes))
        raise Stopped

    def look(self, after: float = 0.0, **facts: Facts) -> None:
        self.now += after
        self.care.look((ReplicaStats(A, B, "in_sync", sole="yes"),), {A: facts["a"]} if facts else {})


@pytest.fixture
async def setup() -> Any:
    setup = Setup()
    yield setup
    await setup.care.close()


async def test_a_pair_knows_its_servers_and_its_keys(setup: Setup) -> None:
    setup.look(11)
    await asyncio.sleep(0.05)
    ((pair, count),) = setup.compared
    assert (pair.name, count) == ((A, B), 3)
    assert (pair.primary.address, pair.mirror.address) == ("10.0.0.1:1", "10.0.0.2:2")
    assert pair.scope.has(b"x:1")
    assert not pair.scope.has(b"y")


async def test_evictions_bring_a_larger_scrub(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    setup.look(1, a=Facts("r", maxmemory=5, maxmemory_policy="allkeys-lru"))
    setup.look(1, a=Facts("r", evicted_keys=9, maxmemory=5, maxmemory_policy="allkeys-lru"))
    setup.look(3)
    await asyncio.sleep(0.05)
    assert [count for _, count in setup.compared] == [30]
    assert f"{A} has the maxmemory-policy allkeys-lru" in caplog.text
    assert f"{A} evicted 9 keys by itself" in caplog.text


async def test_what_a_server_without_mirrors_evicts_is_its_own_affair(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    lru = Facts("r", maxmemory=5, maxmemory_policy="allkeys-lru")
    setup.care.look((), {"c/10.0.0.3:3": lru})
    assert caplog.text == ""


@pytest.mark.parametrize("action", ACTIONS)
async def test_an_operators_word_goes_to_the_data_plane(setup: Setup, action: str) -> None:
    setup.care.resync("a", action)
    assert setup.core.orders == [("resync", "a", action)]
    setup.care.resync("b", action)
    assert setup.core.orders[-1] == ("resync", "b", action)
    # It is the primary that is accepted, whichever of the two is named.
    assert setup.core.orders[1:-1] == ([("resync", "a", "accept")] if action == "accept" else [])
    assert setup.care.names("a") == setup.care.names("b") == (f"{A} -> {B}",)
    assert setup.care.names("c") == ()


async def test_accept_waits_until_nothing_is_written_to_the_primary_any_more(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    setup.care.on_refill(Event(EventKind.REFILL, f"{A} -> {B}", "it lost data"))
    assert await asyncio.to_thread(setup.copying.wait, 5)
    setup.care.resync("a", "accept")
    async with asyncio.timeout(5):
        while len(setup.core.orders) < 2:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.002)
    assert setup.core.orders == [("copy ended", 5, 7168), ("resync", "a", "accept")]
    assert setup.care.refills()[A].state == "stopped"


async def test_a_reload_without_the_mirror_stops_its_refill(setup: Setup) -> None:
    setup.care.on_refill(Event(EventKind.REFILL, f"{A} -> {B}", ""))
    assert await asyncio.to_thread(setup.copying.wait, 5)
    setup.configure(TEXT.replace(", mirrors: [{cluster: b}]", ""))
    async with asyncio.timeout(5):
        while ("refilled", A, False) not in setup.core.orders:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.002)
    assert setup.care.scrubs() == {}


async def test_an_event_without_a_pair_is_no_refill(setup: Setup) -> None:
    setup.care.on_refill(Event(EventKind.REFILL, A, ""))
    assert setup.care.refills() == {}
