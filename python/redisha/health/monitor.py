"""Keeps probing the plan's endpoints and keeps the current view of them.

Owns: one task and one connection per endpoint.
Never: changes routing; the data plane knows its own connections best. The view is for readiness texts, statistics, logs
and (later) leadership.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from redisha.health.probe import Facts, Probe, Report
from redisha.health.state import Health, Thresholds, Transition, Verdict, judge
from redisha.health.talk import Target

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Checks:
    """How an endpoint is probed.

    Attributes:
        target: where and as whom.
        interval: seconds between the end of a probe and the next.
        timeout: seconds for one probe.
        thresholds: how many results turn it over.
        may_be_replica: whether it is as it should be when it follows another Redis.
    """

    target: Target
    interval: float = 1.0
    timeout: float = 1.0
    thresholds: Thresholds = Thresholds()  # noqa: RUF009 - frozen
    may_be_replica: bool = False


@dataclass(frozen=True, slots=True)
class EndpointKey:
    """An endpoint of a cluster: the cluster's name and the endpoint's id, as in the plan."""

    cluster: str
    id: str

    def __str__(self) -> str:
        return f"{self.cluster}/{self.id}"


@dataclass(frozen=True, slots=True)
class EndpointHealth:
    """The current view of one endpoint.

    Attributes:
        verdict: healthy or not, since when, and the counters.
        facts: what it last said of itself; None before the first answer.
        took: seconds of the last probe.
    """

    verdict: Verdict = Verdict()  # noqa: RUF009 - frozen
    facts: Facts | None = None
    took: float = 0.0


OnTransition = Callable[[EndpointKey, Transition], None]


class Monitor:
    """Probes endpoints in the background.

    Args:
        on_transition: called in the loop when an endpoint's health changed.
    """

    def __init__(self, on_transition: OnTransition | None = None) -> None:
        self._on_transition = on_transition
        self._checks: dict[EndpointKey, Checks] = {}
        self._tasks: dict[EndpointKey, asyncio.Task[None]] = {}
        self._view: dict[EndpointKey, EndpointHealth] = {}

    def watch(self, endpoints: Mapping[EndpointKey, Checks]) -> None:
        """Probe exactly these endpoints from now on; those that stay as they were are not disturbed."""
        for key in [key for key, checks in self._checks.items() if checks != endpoints.get(key)]:
            self._tasks.pop(key).cancel()
            del self._checks[key], self._view[key]
        for key, checks in endpoints.items():
            if key not in self._tasks:
                self._checks[key] = checks
                self._view[key] = EndpointHealth()
                self._tasks[key] = asyncio.create_task(self._keep(key, checks), name=f"probe {key}")

    def view(self) -> dict[EndpointKey, EndpointHealth]:
        """What is known of each endpoint now."""
        return dict(self._view)

    async def close(self) -> None:
        """Stop probing and close the connections."""
        tasks = list(self._tasks.values())
        self.watch({})
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, key: EndpointKey, checks: Checks) -> None:
        probe = Probe(checks.target, checks.timeout)
        try:
            while True:
                self._take(key, checks, await probe.ask())
                await asyncio.sleep(checks.interval)
        finally:
            probe.close()

    def _take(self, key: EndpointKey, checks: Checks, report: Report) -> None:
        before = self._view[key]
        verdict, transition = judge(before.verdict, report.outcome, checks.thresholds, time.monotonic())
        self._view[key] = EndpointHealth(verdict, report.facts or before.facts, report.took)
        self._note_facts(key, before.facts, report.facts, checks.may_be_replica)
        if transition is not None:
            _tell(key, transition)
            if self._on_transition is not None:
                self._on_transition(key, transition)

    @staticmethod
    def _note_facts(key: EndpointKey, before: Facts | None, now: Facts | None, may_be_replica: bool) -> None:
        if now is None:
            return
        if before is not None and before.run_id != now.run_id:
            log.warning("%s was restarted: its run id is another one", key)
        if before is None and now.role == "slave" and not may_be_replica:
            log.warning("%s is a replica of another Redis: it will refuse writes", key)


def _tell(key: EndpointKey, transition: Transition) -> None:
    if transition.after is Health.HEALTHY:
        log.info("%s is healthy", key)
    else:
        log.warning("%s is unhealthy: %s", key, transition.reason)
