"""The scrub: every while, a random sample of keys of each mirror that should be equal is compared with its primary.

Owns: when which mirror's turn is, and what the runs found.
Never: compares (:mod:`redisha.verify` does), or copies (the data plane does, in order with the writes).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from redisha.background import Job, Stopped, in_thread
from redisha.core import DataPlane, ReplicaStats
from redisha.derive import Scope, Server

log = logging.getLogger(__name__)

LARGER = 10
"""How many times the usual sample is looked at after evictions."""

SOON = 2.0
"""Seconds until then: what was evicted together is found together."""

CALM = 60.0
"""Seconds at least between two larger scrubs of one mirror."""

LIMIT = 120.0
"""Seconds after which a run is given up."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A primary and one mirror of it.

    Attributes:
        primary: the one.
        mirror: the other.
        scope: which keys they have in common.
    """

    primary: Server
    mirror: Server
    scope: Scope

    @property
    def name(self) -> tuple[str, str]:
        """The names of both."""
        return self.primary.name, self.mirror.name

    @property
    def lone(self) -> bool:
        """Whether each holds all keys of its cluster, so that their keys are the same."""
        return self.primary.alone and self.mirror.alone

    @property
    def reachable(self) -> bool:
        """Whether the addresses of both are known."""
        return self.primary.address is not None and self.mirror.address is not None

    def __str__(self) -> str:
        return f"{self.primary.name} -> {self.mirror.name}"


@dataclass(frozen=True, slots=True)
class Sample:
    """What a comparison found.

    Attributes:
        compared: keys.
        differing: those that differ, as (database, key), each read again before it was believed.
        libraries: libraries of functions that differ.
    """

    compared: int
    differing: tuple[tuple[int, bytes], ...] = ()
    libraries: int = 0


class Compare(Protocol):
    """Compares a random sample of keys. Runs on a thread; raises what goes wrong, or :class:`Stopped`."""

    def __call__(self, pair: Pair, count: int, job: Job) -> Sample:
        """``count`` keys of the pair."""


@dataclass(frozen=True, slots=True)
class ScrubStats:
    """What the scrubs of one mirror found.

    Attributes:
        runs_total: comparisons that came to their end.
        keys_total: keys compared.
        differ_total: keys that differed, and were handed to the data plane to be copied.
        failures_total: comparisons that failed.
        last_run: when the last one ended, in seconds since 1970; 0 for never.
        last_keys: keys of the last one.
        last_differ: of them, those that differed.
        error: why the last one failed; empty when it did not.
        running: whether one runs.
    """

    runs_total: int = 0
    keys_total: int = 0
    differ_total: int = 0
    failures_total: int = 0
    last_run: int = 0
    last_keys: int = 0
    last_differ: int = 0
    error: str = ""
    running: bool = False


@dataclass(slots=True)
class _State:
    """One mirror's turn."""

    pair: Pair
    due: float
    larger: bool = False
    larger_at: float | None = None
    libraries: int = 0
    stats: ScrubStats = ScrubStats()


class Scrubs:
    """Runs one comparison at a time, each mirror in its turn.

    Args:
        plane: takes the keys that differ.
        compare: compares a sample.
        clock: seconds that do not go back.
    """

    def __init__(self, plane: DataPlane, compare: Compare, clock: Callable[[], float] = time.monotonic) -> None:
        self._plane = plane
        self._compare = compare
        self._clock = clock
        self._interval = 0.0
        self._sample = 0
        self._states: dict[tuple[str, str], _State] = {}
        self._in_sync: set[tuple[str, str]] = set()
        self._job: Job | None = None
        self._task: asyncio.Task[None] | None = None

    def configure(self, pairs: Iterable[Pair], interval: float, sample: int) -> None:
        """Scrub exactly these from now on; ``interval`` seconds, 0 for never, and keys per run."""
        now = self._clock()
        known, self._states = self._states, {}
        changed = interval != self._interval
        self._interval, self._sample = interval, sample
        for pair in pairs:
            state = known.pop(pair.name, None) or _State(pair, now + interval)
            self._states[pair.name] = state
            state.pair = pair
            state.due = now + interval if changed else state.due

    def hurry(self, server: str) -> None:
        """Compare more, and soon, of each mirror that this server has or is: it evicted keys."""
        now = self._clock()
        for name, state in self._states.items():
            if server not in name or state.larger:
                continue
            earliest = now + SOON if state.larger_at is None else max(now + SOON, state.larger_at + CALM)
            state.due, state.larger = min(state.due, earliest), True

    def look(self, replicas: Iterable[ReplicaStats]) -> None:
        """Begin the comparison that is due, if any; called every second or so."""
        self._in_sync = {(each.primary, each.mirror) for each in replicas if each.in_sync and each.sole == "yes"}
        if not self._interval or self._task is not None:
            return
        now = self._clock()
        due = [
            state
            for name, state in self._states.items()
            if name in self._in_sync and state.due <= now and state.pair.lone and state.pair.reachable
        ]
        if due:
            state = min(due, key=lambda state: state.due)
            self._job = Job()
            self._task = asyncio.create_task(self._run(state, self._job), name=f"scrub {state.pair}")

    def stats(self) -> Mapping[tuple[str, str], ScrubStats]:
        """What the scrubs of each mirror found, by primary and mirror."""
        return {name: state.stats for name, state in self._states.items()}

    async def close(self) -> None:
        """Stop; a comparison that hangs is left behind on its daemon thread."""
        self._states = {}
        if self._job is not None:
            self._job.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, state: _State, job: Job) -> None:
        pair, count, now = state.pair, self._sample, self._clock()
        if state.larger:
            count, state.larger, state.larger_at = count * LARGER, False, now
        state.due = now + self._interval
        state.stats = replace(state.stats, running=True)
        try:
            async with asyncio.timeout(LIMIT):
                found = await in_thread(lambda: self._compare(pair, count, job), f"scrub {pair}")
        except Stopped:
            pass
        except TimeoutError:
            job.stop()
            self._failed(state, f"it took more than {LIMIT:g} s")
        except Exception as error:
            self._failed(state, str(error) or type(error).__name__)
        else:
            self._ended(state, pair, found)
        finally:
            state.stats = replace(state.stats, running=False)
            self._job = self._task = None

    def _failed(self, state: _State, error: str) -> None:
        before = state.stats
        state.stats = replace(before, failures_total=before.failures_total + 1, error=error)
        log.log(
            logging.DEBUG if before.error == error else logging.WARNING, "scrub of %s failed: %s", state.pair, error
        )

    def _ended(self, state: _State, pair: Pair, found: Sample) -> None:
        if pair.name not in self._in_sync or self._states.get(pair.name) is not state:
            return  # It fell behind meanwhile: what differs there is no news.
        differ = len(found.differing)
        before = state.stats
        state.stats = replace(
            before,
            runs_total=before.runs_total + 1,
            keys_total=before.keys_total + found.compared,
            differ_total=before.differ_total + differ,
            last_run=int(time.time()),
            last_keys=found.compared,
            last_differ=differ,
            error="",
        )
        if differ:
            log.warning("scrub of %s: %d of %d keys differ; they are copied again", pair, differ, found.compared)
            self._plane.doubt(*pair.name, found.differing)
        else:
            log.debug("scrub of %s: %d keys are equal", pair, found.compared)
        if found.libraries and found.libraries != state.libraries:
            log.warning(
                "scrub of %s: %d libraries of functions differ; to copy them: redisha resync %s --full",
                pair,
                found.libraries,
                pair.mirror.cluster,
            )
        state.libraries = found.libraries
