"""The refill: a primary that lost data is held by the data plane until everything was copied back from its mirror.

Owns: the attempts, their progress, and the word to the data plane at the end.
Never: decides that a refill is due (the data plane does), or copies (:mod:`redisha.verify` does, on a thread).
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from redisha.background import Job, Stopped, in_thread
from redisha.core import DataPlane
from redisha.scrub import Pair

log = logging.getLogger(__name__)

ATTEMPTS = 10
"""Attempts without a single key copied after which a refill is given up."""

BACKOFF_FIRST = 0.5
BACKOFF_LAST = 30.0
"""Seconds between two attempts: doubles from the one to the other."""

HOPELESS_PAUSE = 10.0
"""Seconds until the data plane hears that a refill was given up: it asks again at once while the mirror is there."""

HELD_WITHIN = 2.0
"""Seconds for the data plane to show that it holds the primary."""

SENT_WITHIN = 0.1
"""Seconds for a server to take what was sent to it before the copying ended."""

LOOK_EVERY = 0.5
"""Seconds between two looks at whether it still does."""

TELL_EVERY = 5.0
"""Seconds between two words about the progress of a refill."""


class Copy(Protocol):
    """Makes one Redis the copy of another. Runs on a thread; raises what goes wrong, :class:`Stopped` when asked to."""

    def __call__(self, pair: Pair, rates: Rates, job: Job) -> None:
        """Copy every key that the pair has in common from the mirror to the primary, and remove the others there."""


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast a copy may be; 0 is no limit."""

    keys: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class RefillStats:
    """A primary that is being filled again from its mirror, or was.

    Attributes:
        primary: the one that lost data.
        mirror: the one that has it.
        state: ``running``, ``waiting`` (for the next attempt), ``done``, ``failed`` (given up) or ``stopped``.
        reason: why it was needed.
        error: why the last attempt failed; empty when it did not.
        attempts: attempts of this refill.
        done: keys looked at, those that are to go included; in the end keys copied.
        total: keys to look at; 0 while that is not known.
        bytes: bytes copied.
        rate: keys per second.
        seconds: how long it runs, or took.
        runs_total: refills of this primary that were asked for.
        keys_total: keys looked at in all of them.
        failures_total: attempts that failed.
    """

    primary: str
    mirror: str
    state: str = "running"
    reason: str = ""
    error: str = ""
    attempts: int = 0
    done: int = 0
    total: int = 0
    bytes: int = 0
    rate: int = 0
    seconds: float = 0.0
    runs_total: int = 0
    keys_total: int = 0
    failures_total: int = 0

    @property
    def active(self) -> bool:
        """Whether it goes on."""
        return self.state in ("running", "waiting")


class HopelessError(Exception):
    """A refill that no repetition helps."""


class Refills:
    """Fills primaries again from their mirrors.

    Args:
        plane: is told the end.
        copy: copies.
        pairs: finds a pair by the names of its primary and mirror; None when it is in the plan no more.
    """

    def __init__(self, plane: DataPlane, copy: Copy, pairs: Callable[[tuple[str, str]], Pair | None]) -> None:
        self._plane = plane
        self._copy = copy
        self._pairs = pairs
        self.rates = Rates()
        self._stats: dict[str, RefillStats] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._jobs: dict[str, Job] = {}
        self._released: set[str] = set()

    def begin(self, primary: str, mirror: str, reason: str) -> None:
        """Fill ``primary`` again from ``mirror``; one that runs already for it begins anew."""
        before = self._tasks.get(primary)
        self._ask_to_stop(primary)
        known = self._stats.get(primary)
        self._stats[primary] = RefillStats(
            primary,
            mirror,
            reason=reason,
            runs_total=1 + (known.runs_total if known else 0),
            keys_total=known.keys_total if known else 0,
            failures_total=known.failures_total if known else 0,
        )
        self._released.discard(primary)
        self._jobs[primary] = job = Job()
        self._tasks[primary] = asyncio.create_task(self._run(primary, mirror, job, before), name=f"refill {primary}")

    def running(self, cluster: str) -> list[str]:
        """The primaries that are being filled where the cluster is that of the primary or of its mirror."""
        active = [stats for stats in self._stats.values() if stats.active]
        pairs = [pair for stats in active if (pair := self._pairs((stats.primary, stats.mirror))) is not None]
        return [pair.primary.name for pair in pairs if cluster in (pair.primary.cluster, pair.mirror.cluster)]

    async def stop(self, primary: str) -> None:
        """End the filling of one primary, whose data counts as it is: the data plane does not wait for it any more.

        Nothing is written there any more when this returns.
        """
        self._released.add(primary)
        self._ask_to_stop(primary)
        task = self._tasks.get(primary)
        if task is not None:
            await asyncio.wait([task])
            await asyncio.sleep(SENT_WITHIN)

    def look(self) -> None:
        """Stop what the plan does not have any more."""
        for name, stats in self._stats.items():
            if stats.active and self._pairs((stats.primary, stats.mirror)) is None:
                self._ask_to_stop(name)

    def stats(self) -> dict[str, RefillStats]:
        """How far each is, by primary."""
        for name, job in self._jobs.items():
            self._note(name, job)
        return dict(self._stats)

    async def close(self) -> None:
        """Stop; a copy that hangs is left behind on its daemon thread."""
        for job in self._jobs.values():
            job.stop()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ask_to_stop(self, primary: str) -> None:
        job = self._jobs.get(primary)
        if job is not None:
            job.stop()

    async def _run(self, primary: str, mirror: str, job: Job, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        log.warning("%s is being filled from its mirror %s: %s", primary, mirror, self._stats[primary].reason)
        state = "failed"
        try:
            await self._until_held(primary, mirror, job)
            await self._until_copied(primary, mirror, job)
            state = "done"
        except Stopped:
            state = "stopped"
        except HopelessError as error:
            self._change(primary, state="failed", error=str(error))
            self._tell_end(self._stats[primary])
            await self._pause(HOPELESS_PAUSE, job)
        except Exception as error:
            log.exception("the filling of %s failed", primary)
            self._change(primary, error=str(error))
        superseded = self._jobs.get(primary) is not job
        if not superseded:
            self._note(primary, job)
            del self._jobs[primary]
            stats = self._change(primary, state=state)
            if primary not in self._released:
                self._plane.refilled(primary, state == "done")
            if state != "failed":
                self._tell_end(stats)

    async def _until_held(self, primary: str, mirror: str, job: Job) -> None:
        """Wait a moment for the data plane to say that clients do not write to the primary.

        Raises:
            Stopped: they do: an operator took its data as it is, before this began. (Where the data plane was only late
                to show it, it asks again.)
        """
        end = time.monotonic() + HELD_WITHIN
        while self._is_held(primary, mirror) is False:
            job.check()
            if time.monotonic() > end:
                raise Stopped
            await asyncio.sleep(0.05)

    def _is_held(self, primary: str, mirror: str) -> bool | None:
        """Whether the primary waits to be filled; None where its mirror's state does not tell."""
        states = [
            each.state for each in self._plane.stats().replicas if (each.primary, each.mirror) == (primary, mirror)
        ]
        known = {"held": True, "down": None, "connecting": None}
        return known.get(states[0], False) if states else None

    async def _until_copied(self, primary: str, mirror: str, job: Job) -> None:
        """Copy, again and again while it fails.

        Raises:
            Stopped: it shall end.
            HopelessError: no repetition would help, or there were too many.
        """
        in_vain, most = 0, 0
        while True:
            job.check()
            job.restart()
            stats = self._stats[primary]
            self._check_source(mirror, stats.reason)
            self._change(primary, state="running", attempts=stats.attempts + 1)
            try:
                await self._attempt(_fillable(self._pairs((primary, mirror))), job)
            except (Stopped, HopelessError):
                raise
            except Exception as error:
                self._failed(primary, mirror, str(error) or type(error).__name__)
            else:
                return
            finally:
                self._change(primary, keys_total=stats.keys_total + job.done)
            in_vain = 0 if job.done > most else in_vain + 1
            most = max(most, job.done)
            if in_vain >= ATTEMPTS:
                raise HopelessError(f"{ATTEMPTS} attempts failed, the last one with: {self._stats[primary].error}")
            await self._pause(min(BACKOFF_LAST, BACKOFF_FIRST * 2 ** max(0, in_vain - 1)), job)

    def _check_source(self, mirror: str, reason: str) -> None:
        """Make sure that the mirror is the process which the data plane named: another one may have lost its data.

        Raises:
            HopelessError: it is another one; the data plane decides anew.
        """
        named = re.search(r"run_id (\w+)", reason)
        now = [each.run_id for each in self._plane.stats().endpoints if f"{each.cluster}/{each.id}" == mirror]
        if named is not None and now and now[0] != named[1]:
            raise HopelessError(f"{mirror} was restarted: what it has now is not known")

    async def _attempt(self, pair: Pair, job: Job) -> None:
        work = asyncio.ensure_future(
            in_thread(lambda: self._copy(pair, self.rates, job), f"refill {pair.primary.name}")
        )
        try:
            told = time.monotonic()
            while not (await asyncio.wait([work], timeout=LOOK_EVERY))[0]:
                if self._is_held(*pair.name) is False:
                    job.stop()
                if time.monotonic() >= told + TELL_EVERY:
                    told = time.monotonic()
                    self._tell_progress(pair.primary.name, job)
            await work
        finally:
            work.cancel()

    async def _pause(self, seconds: float, job: Job) -> None:
        end = time.monotonic() + seconds
        while not job.stopped and time.monotonic() < end:  # noqa: ASYNC110 - the stop is a thread's event
            await asyncio.sleep(min(0.1, seconds))

    # --- what is told -------------------------------------------------------------------------------------------------

    def _change(self, primary: str, **fields: object) -> RefillStats:
        stats = replace(self._stats[primary], **fields)  # type: ignore[arg-type]  # fields of RefillStats
        self._stats[primary] = stats
        return stats

    def _note(self, primary: str, job: Job) -> None:
        self._change(
            primary,
            done=job.done,
            total=max(job.total, job.done),
            bytes=job.bytes,
            rate=round(job.done / job.seconds) if job.seconds else 0,
            seconds=round(job.seconds, 1),
        )

    def _failed(self, primary: str, mirror: str, error: str) -> None:
        before = self._stats[primary]
        self._change(primary, state="waiting", error=error, failures_total=before.failures_total + 1)
        level = logging.DEBUG if before.error == error else logging.WARNING
        log.log(level, "%s could not be filled from %s, trying again: %s", primary, mirror, error)

    def _tell_progress(self, primary: str, job: Job) -> None:
        of = f" of {job.total}" if job.total else ""
        log.info("filling %s: %d%s keys, %d per second", primary, job.done, of, job.done / max(job.seconds, 0.001))

    def _tell_end(self, stats: RefillStats) -> None:
        if stats.state == "done":
            log.info(
                "%s is filled: %d keys copied from %s in %.1f s", stats.primary, stats.done, stats.mirror, stats.seconds
            )
        elif stats.state == "stopped":
            log.warning("the filling of %s from %s was stopped", stats.primary, stats.mirror)
        else:
            log.error(
                "%s cannot be filled from its mirror %s: %s; if its data is right as it is, say so: "
                "redisha resync CLUSTER --accept",
                stats.primary,
                stats.mirror,
                stats.error,
            )


def _fillable(pair: Pair | None) -> Pair:
    """The pair, where its mirror has all that the primary had.

    Raises:
        HopelessError: it has not.
        OSError: an address is not known yet.
    """
    if pair is None:
        raise Stopped
    if not pair.lone:
        raise HopelessError("a cluster of several servers cannot be filled: no server of the mirror has the same keys")
    if not pair.reachable:
        raise OSError("its name does not resolve")
    return pair
