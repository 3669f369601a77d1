"""What is told of a running sidecar: to the admin server, to its log, to who asks whether it is ready.

Owns: nothing that changes; :class:`Running` is the supervisor's, and this file only reads it.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import redisha
from redisha import core, derive, process
from redisha.admin import ServerState, Snapshot
from redisha.config.load import Loaded
from redisha.core import DataPlane
from redisha.events import Chronicle, timestamp
from redisha.group.status import Role
from redisha.health.monitor import Monitor
from redisha.plan import Plan
from redisha.resolve import Resolver
from redisha.resync import Caretaker
from redisha.statedir import StateDir

if TYPE_CHECKING:
    from redisha.group.member import Member


@dataclass(slots=True)
class Reloads:
    """How often the file was read again, and what was wrong the last time."""

    success: int = 0
    failure: int = 0
    error: dict[str, str] | None = None

    def succeeded(self) -> None:
        """It is in force."""
        self.success += 1
        self.error = None

    def failed(self, reason: str, error: Exception) -> None:
        """It was refused; ``reason`` says why it was read at all."""
        self.failure += 1
        self.error = {"time": timestamp(), "reason": reason, "error": str(error)}


@dataclass(slots=True)
class Running:
    """The parts of one sidecar and what is in force; the supervisor changes it.

    Attributes:
        plane: the data plane.
        resolver: names and their addresses.
        monitor: the probes.
        care: what keeps primaries and mirrors equal.
        state_dir: where dirty maps lie.
        loaded: the configuration in force.
        state: what the process is doing.
        plan: the newest plan; None before the first.
        in_force: the generation that the data plane runs.
        reloads: of the file.
        member: this sidecar as a member of its group; None without one.
        admin: where the admin server listens; empty: nowhere.
        chronicle: what the data plane told.
        started: seconds of the monotonic clock.
    """

    plane: DataPlane
    resolver: Resolver
    monitor: Monitor
    care: Caretaker
    state_dir: StateDir
    loaded: Loaded
    state: ServerState = ServerState.PRE_INITIALIZING
    plan: Plan | None = None
    in_force: int = 0
    reloads: Reloads = field(default_factory=Reloads)
    member: Member | None = None
    admin: str = ""
    chronicle: Chronicle = field(default_factory=Chronicle)
    started: float = field(default_factory=time.monotonic)

    @property
    def generation(self) -> int:
        """Of the newest plan; 0 before the first."""
        return self.plan.generation if self.plan is not None else 0

    @property
    def uptime(self) -> int:
        """Seconds since the start."""
        return int(time.monotonic() - self.started)


class Overview:
    """The reading half of :class:`redisha.admin.View`.

    Args:
        now: what runs.
    """

    def __init__(self, now: Running) -> None:
        self._now = now

    def missing(self) -> tuple[str, ...]:
        """Why the sidecar is not ready, one text per reason; none when it is.

        A member of a group serves its clients through whoever leads. So what it needs is a leader, and its own Redis
        only while it leads itself.
        """
        now = self._now
        if now.state is not ServerState.LIVE:
            return derive.missing(now.state, now.loaded.config, (), {})
        elsewhere: frozenset[str] = frozenset()
        if now.member is not None:
            if now.member.reason:
                return (f"group {now.member.group.name}: nobody leads: {now.member.reason}",)
            if now.member.status().me.role is Role.FOLLOWER:
                elsewhere = frozenset({now.member.group.name})
        return derive.missing(
            now.state, now.loaded.config, now.plane.stats().endpoints, now.resolver.states(), elsewhere
        )

    def snapshot(self) -> Snapshot:
        """The state now."""
        now = self._now
        config = now.loaded.config
        return Snapshot(
            state=now.state,
            missing=self.missing(),
            stats=now.plane.stats(),
            clusters=derive.cluster_hosts(config),
            health=now.monitor.view(),
            names=now.resolver.states(),
            listeners=tuple(now.plane.listeners()),
            scrubs=now.care.scrubs(),
            refills=now.care.refills(),
            prefixes={each.name: each.stat_prefix for each in config.listeners if each.stat_prefix},
            counters={
                "config.reload_success": now.reloads.success,
                "config.reload_failure": now.reloads.failure,
            },
            gauges={
                "config.generation": now.generation,
                "server.uptime": now.uptime,
                "server.memory_resident": process.resident_bytes(),
                "server.concurrency": 1,
            },
            group=now.member.status() if now.member is not None else None,
            leaderless=now.member.reason if now.member is not None else "",
            leader_changes=now.member.leader_changes if now.member is not None else 0,
            merges=now.member.merges.stats if now.member is not None else None,
        )

    def server_info(self) -> dict[str, Any]:
        """Version, state, uptime and configuration file; ready for JSON."""
        now, missing = self._now, self.missing()
        return {
            "version": redisha.__version__,
            "core_version": core.version(),
            "state": str(now.state),
            "ready": not missing,
            "missing": list(missing),
            "uptime_current_epoch": f"{now.uptime}s",
            "pid": os.getpid(),
            "config": {
                "file": str(now.loaded.source),
                "path": str(now.loaded.source.absolute()),
                "kind": now.loaded.kind,
                "generation": now.generation,
                "generation_in_force": now.in_force,
                "reload_success": now.reloads.success,
                "reload_failure": now.reloads.failure,
                "last_reload_error": now.reloads.error,
                "warnings": [str(warning) for warning in now.loaded.warnings],
            },
            "admin": now.admin,
            "state_dir": str(now.state_dir),
            "events": now.chronicle.recent(),
        }

    def config_dump(self) -> dict[str, Any]:
        """The configuration and the plan in force without secrets; ready for JSON."""
        now = self._now
        return {
            "config": derive.redacted(now.loaded.config),
            "plan": derive.redacted(asdict(now.plan)) if now.plan is not None else None,
        }
