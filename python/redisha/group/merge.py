"""Two members led at once, and now one follows the other: what it wrote meanwhile is merged before it is overwritten.

Owns: the runs (one per member at a time, on a thread each), what is known of them, and the word to the data plane.
Never: merges; :mod:`redisha.group.merging` does, and is imported only where that is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from redisha.background import Job, Stopped, in_thread
from redisha.core import DataPlane, Event
from redisha.group.conflicts import Conflicts
from redisha.group.later import PeerAddress
from redisha.plan import peer_cluster

log = logging.getLogger(__name__)

LOOK_EVERY = 0.05
"""Seconds between two looks at whether a merge shall end."""


@dataclass(slots=True)
class MergeReport:
    """What a merge did.

    Attributes:
        keys: looked at.
        differing: of these.
        applied: of these; the leader took over the other member's value, or that the key is gone.
        conflicts: values and libraries that lost, and were kept.
        seconds: how long it took.
    """

    keys: int = 0
    differing: int = 0
    applied: int = 0
    conflicts: int = 0
    seconds: float = 0.0


def merge(
    own: PeerAddress,
    other: PeerAddress,
    group: str,
    member: str,
    secret: str | None,
    other_member: str,
    conflicts: Conflicts,
    stop: Job,
    *,
    others: bool = False,
) -> MergeReport:
    """Merge what another member wrote while it led, too, into this leader's history. Blocks; for a thread.

    Every wait is bounded; the whole takes as long as there are keys to look at. It may be run again after any error.

    Args:
        own: this member's peer port.
        other: the other member's.
        group: the group's name.
        member: this member, which leads.
        secret: the group's.
        other_member: the other one.
        conflicts: where values go that lose.
        stop: is told how far it is; ends it.
        others: whether the group has further members, which may have led between the two.

    Raises:
        RedishaError: a member cannot be asked or leads no more, or a value could not be kept.
        Stopped: it was stopped.
    """
    # With all that it needs it is imported on its thread: most members never merge.
    from redisha.group.merging import Members, run
    from redisha.group.peerlink import Greeting

    stop.check()
    report = MergeReport()
    members = Members(Greeting(group, member, secret), own, other, other_member, others)

    async def supervised() -> None:
        task = asyncio.ensure_future(run(members, conflicts, stop, report))
        while not (await asyncio.wait([task], timeout=LOOK_EVERY))[0]:
            if stop.stopped:
                task.cancel()
                await asyncio.wait([task])
                raise Stopped
        task.result()

    asyncio.run(supervised())
    conflicts.end(other_member)
    report.seconds = stop.seconds
    return report


Work: TypeAlias = Callable[..., MergeReport]
"""What runs on the thread: :func:`merge`."""


@dataclass(frozen=True, slots=True)
class MergeStats:
    """All merges since the start.

    Attributes:
        running: members that are being merged now.
        runs_total: merges that were begun.
        failures_total: of these that failed.
        keys_total: keys looked at by those that succeeded.
        applied_total: values of other members that were taken over.
        conflicts_total: values that lost and were kept, also by merges that failed later.
        last_error: why the last one failed; empty when it did not.
        last_seconds: how long the last one took that succeeded.
    """

    running: tuple[str, ...] = ()
    runs_total: int = 0
    failures_total: int = 0
    keys_total: int = 0
    applied_total: int = 0
    conflicts_total: int = 0
    last_error: str = ""
    last_seconds: float = 0.0


class _Run:
    """A merge that runs: what stops it, and what waits for its end."""

    def __init__(self) -> None:
        self.job = Job()
        self.task: asyncio.Task[None] | None = None


class Merges:
    """Does what the event ``merge`` asks for.

    Args:
        plane: is asked who is who, and told the end.
        secret: gives the group's secret, as it is now.
        conflicts: where values go that lose.
        work: merges.
    """

    def __init__(
        self, plane: DataPlane, secret: Callable[[], str | None], conflicts: Conflicts, work: Work = merge
    ) -> None:
        self._plane = plane
        self._secret = secret
        self._conflicts = conflicts
        self._work = work
        self._runs: dict[str, _Run] = {}
        self._stats = MergeStats()
        self._told: dict[str, str] = {}

    @property
    def stats(self) -> MergeStats:
        """What was merged so far."""
        return replace(self._stats, running=tuple(self._runs), conflicts_total=self._conflicts.total)

    def on_merge(self, event: Event) -> None:
        """Merge the member whose peer port is the event's subject.

        The data plane hears of the end; if the merge failed, it asks again.
        """
        running = self._runs.get(event.subject)
        if running is not None:
            running.job.stop()  # it is of a leadership that has ended; the data plane asks again when it hears that
            return
        run = self._runs[event.subject] = _Run()
        run.task = asyncio.create_task(self._run(event.subject, run), name=f"merge {event.subject}")

    async def close(self) -> None:
        """Stop; a merge that hangs is left behind on its daemon thread."""
        runs = list(self._runs.values())
        for run in runs:
            run.job.stop()
        tasks = [run.task for run in runs if run.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, peer: str, run: _Run) -> None:
        self._change(runs_total=self._stats.runs_total + 1)
        ok = False
        try:
            report = await self._attempt(peer, run.job)
            run.job.check()
            self._succeeded(peer, report)
            ok = True
        except Stopped:
            log.info("the merge with %s was stopped", peer)
        except Exception as error:
            self._failed(peer, error)
        finally:
            del self._runs[peer]
        with contextlib.suppress(RuntimeError):  # the data plane has ended
            self._plane.merged(peer, ok=ok)

    async def _attempt(self, peer: str, job: Job) -> MergeReport:
        group = self._plane.group()
        peers = [each for each in group.peers if each.status.member != group.me.member] if group else []
        named = next((each.status.member for each in peers if each.id == peer), "")
        if group is None or not named:
            raise LookupError(f"{peer} is no other member of a group")
        own = next((address for name, address in self._plane.listeners() if name == f"{group.name} peers"), None)
        cluster = peer_cluster(group.name, peer)
        other = next((each.address for each in self._plane.stats().endpoints if each.cluster == cluster), None)
        if not own or not other:
            raise LookupError(f"the address of {peer if own else 'the own peer port'} is not known")
        level = logging.DEBUG if peer in self._told else logging.WARNING
        log.log(level, "group %s: member %s led, too; what it wrote is being merged", group.name, named)
        names = (group.name, group.me.member, self._secret(), named)
        conflicts, work = self._conflicts, self._work
        others = len(peers) > 1
        return await in_thread(lambda: work(own, other, *names, conflicts, job, others=others), f"merge {peer}")

    def _succeeded(self, peer: str, report: MergeReport) -> None:
        stats = self._stats
        self._told.pop(peer, None)
        self._change(
            keys_total=stats.keys_total + report.keys,
            applied_total=stats.applied_total + report.applied,
            last_error="",
            last_seconds=report.seconds,
        )
        level = logging.WARNING if report.conflicts else logging.INFO
        log.log(
            level,
            "merged what %s wrote while it led: %d keys looked at, %d taken over, %d values lost%s, %.1f s",
            peer,
            report.keys,
            report.applied,
            report.conflicts,
            f" and kept in {self._conflicts.path}" if report.conflicts and self._conflicts.path else "",
            report.seconds,
        )

    def _failed(self, peer: str, error: Exception) -> None:
        text = str(error) or type(error).__name__
        self._change(failures_total=self._stats.failures_total + 1, last_error=text)
        level = logging.DEBUG if text == self._told.get(peer) else logging.ERROR
        self._told[peer] = text
        log.log(level, "what %s wrote while it led could not be merged, trying again: %s", peer, text)

    def _change(self, **fields: object) -> None:
        self._stats = replace(self._stats, **fields)  # type: ignore[arg-type]  # fields of MergeStats
