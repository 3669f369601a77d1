"""The admin server: HTTP on a port of its own, Envoy's paths and shapes where Envoy has them.

``app`` speaks HTTP, ``api`` answers, ``metrics`` names the numbers, ``page`` is the front page; none is imported
before the data plane serves. What they may know and do is this file's :class:`View`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from redisha.core import Stats
    from redisha.group.merge import MergeStats
    from redisha.group.status import GroupStatus
    from redisha.health.monitor import EndpointHealth, EndpointKey
    from redisha.refill import RefillStats
    from redisha.resolve import NameState
    from redisha.scrub import ScrubStats


class ServerState(StrEnum):
    """What the process is doing, in Envoy's words."""

    PRE_INITIALIZING = "PRE_INITIALIZING"
    """No plan is in force yet."""
    LIVE = "LIVE"
    DRAINING = "DRAINING"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the admin server can tell, at one moment.

    Attributes:
        state: what the process is doing.
        missing: why it is not ready, one text per reason; empty when it is.
        stats: the data plane's counters.
        clusters: each cluster of the plan with the names it resolves (none for literals).
        health: what the probes say, by endpoint.
        names: what is known of each name.
        listeners: (listener, address as bound).
        scrubs: what the comparisons in the background found, by primary and mirror.
        refills: primaries that are being filled again from a mirror, or were.
        prefixes: the name that a listener's statistics have, where it is not the listener's.
        counters: the control plane's own counters, by their full name.
        gauges: the control plane's own gauges, by their full name.
        group: the group as this member sees it; None without one.
        leaderless: why nobody leads the group, in words; empty while somebody does.
        leader_changes: how often another leadership was seen since the start.
        merges: what was merged of the writes that other members took while they led, too; None where nothing is.
    """

    state: ServerState
    missing: tuple[str, ...]
    stats: Stats
    clusters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    health: Mapping[EndpointKey, EndpointHealth] = field(default_factory=dict)
    names: Mapping[str, NameState] = field(default_factory=dict)
    listeners: tuple[tuple[str, str], ...] = ()
    scrubs: Mapping[tuple[str, str], ScrubStats] = field(default_factory=dict)
    refills: Mapping[str, RefillStats] = field(default_factory=dict)
    prefixes: Mapping[str, str] = field(default_factory=dict)
    counters: Mapping[str, int] = field(default_factory=dict)
    gauges: Mapping[str, int] = field(default_factory=dict)
    group: GroupStatus | None = None
    leaderless: str = ""
    leader_changes: int = 0
    merges: MergeStats | None = None


class UnknownClusterError(LookupError):
    """No cluster of this name has a mirror or is one.

    Attributes:
        known: those that have or are.
    """

    def __init__(self, cluster: str, known: tuple[str, ...]) -> None:
        super().__init__(f"no cluster '{cluster}' has a mirror or is one; known: {', '.join(known) or 'none'}")
        self.known = known


class UnknownMemberError(LookupError):
    """The group has no member of this name, or there is no group; says which there are."""


class NotHandedOverError(Exception):
    """The leadership was not handed over; says why."""


class View(Protocol):
    """What the admin server asks of the supervisor."""

    def snapshot(self) -> Snapshot:
        """The state now."""

    def server_info(self) -> dict[str, Any]:
        """Version, state, uptime, configuration file; ready for JSON."""

    def config_dump(self) -> dict[str, Any]:
        """The configuration and the plan in force without secrets; ready for JSON."""

    def resync(self, cluster: str, action: str) -> tuple[str, ...]:
        """Start, pause, resume or accept the replicas of a cluster; returns their names.

        Raises:
            UnknownClusterError: no cluster of this name has a mirror or is one.
            ValueError: there is no such action.
        """

    async def hand_over(self, member: str) -> str:
        """Let a member lead the group, whoever leads now; returns who leads then.

        Raises:
            UnknownMemberError: there is no such member, or no group.
            NotHandedOverError: it was not handed over to that one.
            TimeoutError: it goes on, and has not come to its end yet.
        """

    def drain(self) -> None:
        """Begin the graceful end."""

    def quit(self) -> None:
        """End at once."""

    def set_log_level(self, level: str) -> None:
        """Log from this level on.

        Raises:
            ValueError: there is no such level.
        """
