"""When a Redis counts as healthy: thresholds with hysteresis, as pure values.

Never: asks a clock, a socket or a log; the caller passes the time and does what a transition asks for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class Health(StrEnum):
    """What the probes say of an endpoint."""

    UNKNOWN = "unknown"
    """Not probed yet."""
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class Failure(StrEnum):
    """Why a probe failed, as Envoy counts it."""

    NETWORK = "network"
    """It did not connect, or the connection was lost."""
    TIMEOUT = "timeout"
    """It did not answer in time."""
    AUTH = "auth"
    """It refused our name and password, or wants some."""
    LOADING = "loading"
    """It is alive and reads its data from disk."""
    ACTIVE = "active"
    """It answered something else than it should."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """How many equal results in a row turn an endpoint over. Both are at least 1."""

    healthy: int = 2
    unhealthy: int = 3

    def __post_init__(self) -> None:
        if self.healthy < 1 or self.unhealthy < 1:
            raise ValueError("a threshold is at least 1")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One probe's result in short: ``failure`` is None when it passed; ``reason`` says in words why not."""

    failure: Failure | None = None
    reason: str = ""

    @property
    def passed(self) -> bool:
        """Whether the endpoint answered as it should."""
        return self.failure is None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is thought of one endpoint.

    Attributes:
        health: the state.
        since: when it began, in the caller's seconds.
        streak: results in a row that speak against the state.
        reason: why the last probe failed; empty when it passed.
        attempt: probes so far; success and failure are their parts.
        network_failure: failures to connect or to answer in time, part of failure.
    """

    health: Health = Health.UNKNOWN
    since: float = 0.0
    streak: int = 0
    reason: str = ""
    attempt: int = 0
    success: int = 0
    failure: int = 0
    network_failure: int = 0


@dataclass(frozen=True, slots=True)
class Transition:
    """An endpoint's health changed."""

    before: Health
    after: Health
    reason: str


def judge(verdict: Verdict, outcome: Outcome, thresholds: Thresholds, now: float) -> tuple[Verdict, Transition | None]:
    """Take one more result into account.

    The first result decides alone (an endpoint must be usable at once, and a dead one must not look alive); after that
    a state is left only when ``thresholds`` results in a row speak against it.

    Args:
        verdict: what was thought so far.
        outcome: the probe's result.
        thresholds: how many results it takes.
        now: seconds of any clock that does not go back.

    Returns:
        What is thought now, and the change if there was one.
    """
    counted = replace(
        verdict,
        attempt=verdict.attempt + 1,
        success=verdict.success + outcome.passed,
        failure=verdict.failure + (not outcome.passed),
        network_failure=verdict.network_failure + (outcome.failure in (Failure.NETWORK, Failure.TIMEOUT)),
        reason=outcome.reason,
    )
    target = Health.HEALTHY if outcome.passed else Health.UNHEALTHY
    if target is verdict.health:
        return replace(counted, streak=0), None
    needed = thresholds.healthy if outcome.passed else thresholds.unhealthy
    streak = verdict.streak + 1
    if verdict.health is not Health.UNKNOWN and streak < needed:
        return replace(counted, streak=streak), None
    turned = replace(counted, health=target, since=now, streak=0)
    return turned, Transition(verdict.health, target, outcome.reason)
