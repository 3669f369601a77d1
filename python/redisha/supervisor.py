"""The life of ``redisha run``: start, reload, follow the names, drain, end.

Owns: the process's state (:class:`ServerState`), the configuration in force, and the order of things.
Never: is on a client's way; if this file is blocked for seconds, no client notices.

::

    file ─▶ resolve ─▶ compile ─▶ core.apply ─▶ admin ─▶ LIVE ─▶ (ready once every route has an endpoint)
    SIGHUP, file changed ─▶ the same again; a bad file changes nothing       name changed ─▶ compile ─▶ core.apply
    SIGTERM, SIGINT, /drain_listeners ─▶ DRAINING ─▶ 0      again ─▶ at once      worker died ─▶ 70 at once
    a mirror that is its own primary ─▶ 1 at once, while starting
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import time
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

import redisha
from redisha import core, derive, logs, process
from redisha.admin import NotHandedOverError, ServerState, Snapshot, UnknownClusterError, UnknownMemberError
from redisha.config.load import Loaded, load
from redisha.config.model import Config
from redisha.core import DataPlane, Event, EventKind
from redisha.dynomite_side import DynomiteSide
from redisha.errors import ConfigError, DataPlaneError, ListenError, PlanError, Problem, RedishaError
from redisha.filewatch import FileWatch, fingerprint
from redisha.group.expand import expand
from redisha.health.monitor import Monitor
from redisha.health.probe import Facts
from redisha.overview import Overview, Running
from redisha.plan import compile_plan
from redisha.resolve import Lookup, Resolver
from redisha.resync import Caretaker
from redisha.slotwatch import SlotWatch
from redisha.statedir import StateDir

if TYPE_CHECKING:
    from redisha.admin.app import AdminServer

log = logging.getLogger(__name__)

EXIT_WORKER_DIED = DataPlaneError.exit_code

START_RESOLVE_LIMIT = 1.0
"""Seconds that the start waits for names. One that takes longer joins when it answers."""

RELOAD_RESOLVE_LIMIT = 2.0
"""Seconds that a reload waits for new names."""

DRAIN_GRACE = 1.0
"""Seconds beyond the drain limit after which the control plane ends without the data plane's word."""

JOIN_LIMIT = 2.0
"""Seconds to wait for the worker thread's end."""

TICK = 1.0
"""Seconds between two looks at readiness and memory."""

STARTING = 10.0
"""Seconds after the start in which a mirror that turns out to be its own primary ends the process, like a wrong file.
Later it would end a service that others use: then it is an error in the log, and the mirror stays refused."""

HAND_OVER_LIMIT = 7.0
"""Seconds that a request to hand the leadership over is waited for; what takes longer goes on."""

LOOK_AT_FILES = 5
"""Ticks between two looks at the configuration's files, for changes that the file watch cannot see."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says.

    Attributes:
        admin: the admin address instead of the file's; ``off`` for none; None to take the file's.
        drain_timeout: seconds that clients have to finish after SIGTERM.
        state_dir: the folder of the dirty maps instead of the file's; ``memory`` for none; None to take the file's.
    """

    admin: str | None = None
    drain_timeout: float = 10.0
    state_dir: str | None = None


class End(Enum):
    """Why the process ends."""

    DRAIN = "drain"
    NOW = "now"
    DIED = "died"
    REFUSED = "refused"
    """What the file says cannot be run, as was found out only now."""


class Supervisor:
    """One running sidecar; what the admin server sees (:class:`redisha.admin.View`) is this object.

    Args:
        loaded: the configuration to start with.
        options: what the command line says.
        plane: the data plane; a new one by default.
        lookup: how names are looked up, instead of the system's way.
        care: what keeps primaries and mirrors equal; the usual one by default.
    """

    def __init__(
        self,
        loaded: Loaded,
        options: Options | None = None,
        plane: DataPlane | None = None,
        lookup: Lookup | None = None,
        care: Caretaker | None = None,
    ) -> None:
        self._options = options or Options()
        self._plane = plane or DataPlane()
        # What runs beside.
        self._resolver = Resolver(self._on_addresses, lookup)
        self._monitor = Monitor()
        self._slots = SlotWatch(self._on_addresses)
        self._care = care or Caretaker(self._plane)
        self._state_dir = StateDir(self._options.state_dir, os.environ)
        self._watch = FileWatch(self._on_files)
        self._servers: list[AdminServer] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._asks: set[asyncio.Task[str]] = set()
        # What is in force, and the files' contents at the last try to read them.
        self._now = Running(self._plane, self._resolver, self._monitor, self._care, self._state_dir, _expanded(loaded))
        self._overview = Overview(self._now)
        self._read = fingerprint(loaded.files)
        self._dynomite = DynomiteSide(self._now, self._reapply)
        # What is asked of the two loops: the control loop, and the one that waits for the end.
        self._work = asyncio.Event()
        self._reload_reason = ""
        self._readdress = False
        self._end: End | None = None
        self._end_signal: signal.Signals | None = None
        self._refusal: ConfigError | None = None
        self._asked = asyncio.Event()
        self._finished = asyncio.Event()
        # What was told.
        self._missing: tuple[str, ...] | None = None

    async def run(self) -> int:
        """Live until the end, and return the exit code.

        Raises:
            ConfigError: the state directory cannot be used, or a mirror is its own primary.
            ListenError: an address cannot be bound.
            PlanError: the data plane refused the first plan.
        """
        loop = asyncio.get_running_loop()
        for sig in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sig, self._on_end_signal, sig)
        loop.add_signal_handler(signal.SIGHUP, self._ask_reload, "SIGHUP")
        self._plane.watch(loop, self._on_event)
        try:
            await self._start()
            await self._asked.wait()
            if self._end is End.DRAIN:
                if self._now.member is not None:
                    await self._now.member.leave()
                await self._drain()
            if self._refusal is not None:
                raise self._refusal
            return self._exit_code()
        finally:
            await self._close()

    # --- start and end ------------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        self._resolver.add(derive.policies(self._now.loaded.config))
        await self._resolver.first_answers(START_RESOLVE_LIMIT)
        self._slots.watch(derive.watched(self._now.loaded.config, self._resolver.addresses()))
        await self._slots.first_answers(START_RESOLVE_LIMIT)
        await self._state_dir.take(self._now.loaded.config, str(self._now.loaded.source))
        self._put(self._now.loaded.config)
        self._join_group()
        await self._start_admin()
        self._tasks = [asyncio.create_task(self._control()), asyncio.create_task(self._tick())]
        self._tell_warnings()
        log.info(
            "running",
            extra={
                "version": redisha.__version__,
                "file": str(self._now.loaded.source),
                "kind": self._now.loaded.kind,
                "listeners": ", ".join(f"{name} on {address}" for name, address in self._plane.listeners()),
                "admin": self._now.admin or "off",
                "state_dir": str(self._state_dir),
                "pid": os.getpid(),
            },
        )
        self._look_at_readiness()

    def _join_group(self) -> None:
        group = self._now.loaded.config.group
        if group is None:
            return
        from redisha.group.arbiter import ArbiterError  # most sidecars are in no group
        from redisha.group.ballot import BallotError
        from redisha.group.member import Member

        try:
            self._now.member = Member(self._plane, group, self._state_dir.path)
        except (ArbiterError, BallotError) as error:
            raise ConfigError(Problem(str(self._now.loaded.source), None, "group", str(error))) from error
        self._now.member.start()

    async def _start_admin(self) -> None:
        config = self._now.loaded.config
        address = self._wanted_admin(config)
        from redisha.admin.app import AdminServer  # after the data plane serves

        if address is not None:
            from redisha.admin.api import Api

            server = AdminServer(Api(self))
            self._servers.append(server)
            self._now.admin = await server.start(address)
        if config.dynomite_stats is not None:
            from redisha.admin import dynomite

            api = dynomite.DynomiteApi(self._dynomite, lambda: self._now.loaded.config, os.uname().nodename)
            server = AdminServer(api, dynomite.NAME, dynomite.HINT)
            self._servers.append(server)
            log.info("Dynomite's REST on %s", await server.start(config.dynomite_stats.bind))

    def _wanted_admin(self, config: Config) -> str | None:
        if self._options.admin is not None:
            return None if self._options.admin == "off" else self._options.admin
        return config.admin.bind if config.admin is not None else None

    def _on_end_signal(self, sig: signal.Signals) -> None:
        if self._end is not None:
            log.warning("%s again: ending at once", sig.name)
            self._end_signal = sig
            self._ask_end(End.NOW)
        else:
            log.info("%s: draining for at most %g s", sig.name, self._options.drain_timeout)
            self._ask_end(End.DRAIN)

    def _ask_end(self, end: End) -> None:
        if self._end is not End.DIED:
            self._end = end
        self._asked.set()
        if end is not End.DRAIN:
            self._finished.set()

    async def _drain(self) -> None:
        self._now.state = ServerState.DRAINING
        limit = self._options.drain_timeout
        self._plane.begin_drain(limit)
        try:
            async with asyncio.timeout(limit + DRAIN_GRACE):
                await self._finished.wait()
        except TimeoutError:
            log.error("the data plane has not drained within %g s", limit + DRAIN_GRACE)  # noqa: TRY400 - no traceback

    def _exit_code(self) -> int:
        if self._end is End.DIED:
            return EXIT_WORKER_DIED
        if self._end_signal is not None:
            return 128 + self._end_signal
        return 0

    async def _close(self) -> None:
        for task in (*self._tasks, *self._asks):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._asks, return_exceptions=True)
        self._watch.close()
        if self._now.member is not None:
            await self._now.member.close()
        await self._care.close()
        await self._monitor.close()
        await self._slots.close()
        await self._resolver.close()
        for server in self._servers:
            await server.close()
        self._plane.unwatch()
        if self._end is not End.DIED and not self._plane.join(JOIN_LIMIT):
            log.error("the data plane has not ended within %g s", JOIN_LIMIT)
        self._state_dir.close()
        log.info("ended", extra={"seconds": f"{time.monotonic() - self._now.started:.1f}"})

    # --- plans --------------------------------------------------------------------------------------------------------

    def _put(self, config: Config, *, always: bool = True) -> None:
        """Compile and apply; unless ``always``, a plan that would change nothing is not applied.

        Raises:
            ListenError: an address cannot be bound; nothing was changed.
            PlanError: the data plane refused the plan; nothing was changed.
        """
        generation = self._now.generation + 1
        addresses, host = self._resolver.addresses(), os.uname().nodename
        plan = compile_plan(config, addresses, generation, self._state_dir.path, host, self._slots.maps())
        plan = self._dynomite.adapt(plan)
        if not always and self._now.plan is not None and replace(self._now.plan, generation=generation) == plan:
            return
        try:
            self._plane.apply(plan.to_json())
        except core.BindError as error:
            raise ListenError(error.strerror or str(error)) from error
        except core.PlanError as error:
            raise PlanError(str(error)) from error
        self._now.plan = plan
        self._monitor.watch(derive.checks(config, plan))
        self._slots.watch(derive.watched(config, addresses))
        self._care.configure(config, plan)

    def _reapply(self) -> None:
        """Compile and apply anew: what an operator set beside the file is part of a plan."""
        self._put(self._now.loaded.config)

    async def _control(self) -> None:
        """Do what was asked, one thing at a time."""
        while True:
            await self._work.wait()
            self._work.clear()
            reason, self._reload_reason = self._reload_reason, ""
            readdress, self._readdress = self._readdress, False
            try:
                if reason:
                    await self._reload(reason)
                elif readdress:
                    self._put(self._now.loaded.config, always=False)
            except RedishaError as error:
                log.error("new addresses cannot be applied: %s", error)  # noqa: TRY400 - the text says it all
            except Exception:
                log.exception("the control plane failed; the data plane goes on")

    def _on_addresses(self, name: str) -> None:
        del name
        self._readdress = True
        self._work.set()

    def _ask_reload(self, reason: str) -> None:
        self._reload_reason = reason
        self._work.set()

    def _on_files(self) -> None:
        now = fingerprint(self._now.loaded.files)
        # One that cannot be read is on its way: an editor or a ConfigMap is putting it in place.
        if now != self._read and None not in now:
            self._ask_reload("file changed")

    async def _reload(self, reason: str) -> None:
        before = self._now.loaded
        self._read = fingerprint(before.files)
        try:
            loaded = _expanded(load(before.source))
            _same_group(before.config, loaded.config)
            _same_workers(before.config, loaded.config)
            self._resolver.add(derive.policies(loaded.config))
            await self._resolver.first_answers(RELOAD_RESOLVE_LIMIT)
            known = derive.watched(before.config, self._resolver.addresses())
            self._slots.watch(known | derive.watched(loaded.config, self._resolver.addresses()))
            await self._slots.first_answers(RELOAD_RESOLVE_LIMIT)
            await self._state_dir.take(loaded.config, str(loaded.source))
            self._put(loaded.config)
        except Exception as error:
            self._reload_failed(reason, error)
            names = derive.policies(before.config)
            self._resolver.add(names)
            self._resolver.keep_only(names)
            self._slots.watch(derive.watched(before.config, self._resolver.addresses()))
            return
        self._resolver.keep_only(derive.policies(loaded.config))
        self._now.loaded, self._read = loaded, fingerprint(loaded.files)
        self._watch.watch(loaded.files)
        self._now.reloads.succeeded()
        log.info("configuration reloaded", extra={"reason": reason, "generation": self._now.generation})
        self._tell_warnings()
        if self._wanted_admin(loaded.config) != self._wanted_admin(before.config):
            log.warning("the admin address changes with the next start; it stays %s", self._now.admin or "off")
        old, new = before.config.dynomite_stats, loaded.config.dynomite_stats
        if (old.bind if old is not None else None) != (new.bind if new is not None else None):
            log.warning("the address of Dynomite's REST changes with the next start")

    def _reload_failed(self, reason: str, error: Exception) -> None:
        self._now.reloads.failed(reason, error)
        known = isinstance(error, RedishaError)
        problems = [str(each) for each in error.problems] if isinstance(error, ConfigError) else [str(error)]
        for problem in problems:
            log.error("reload refused, nothing was changed: %s", problem, exc_info=None if known else error)

    def _tell_warnings(self) -> None:
        for warning in self._now.loaded.warnings:
            log.warning("%s", warning)

    # --- events and readiness -----------------------------------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        self._now.chronicle.take(event)
        match event.kind:
            case EventKind.APPLIED:
                self._now.in_force = int(event.subject) if event.subject.isdecimal() else self._now.in_force
                if self._now.state is ServerState.PRE_INITIALIZING:
                    self._now.state = ServerState.LIVE
            case EventKind.DRAINED:
                self._finished.set()
            case EventKind.WORKER_DIED:
                self._ask_end(End.DIED)
            case EventKind.REDIRECTED:
                self._slots.ask_soon(event.subject)
            case EventKind.UPSTREAM_DOWN:
                self._slots.ask_soon(event.subject.partition("/")[0], lost=True)
            case EventKind.REFILL:
                self._care.on_refill(event)
            case EventKind.GROUP | EventKind.ASK | EventKind.ANSWER | EventKind.MERGE if self._now.member is not None:
                self._now.member.on_event(event)
            case EventKind.SAME_SERVER if self._starting:
                self._refuse(event)
            case _:
                pass
        self._look_at_readiness()

    @property
    def _starting(self) -> bool:
        young = time.monotonic() - self._now.started < STARTING
        return self._now.reloads.success == 0 and (young or self._missing is None)

    def _refuse(self, event: Event) -> None:
        """A mirror is the very server that it would mirror: no file that says so can be right."""
        message = f"{event.subject}: {event.detail or 'the mirror and its primary are the same Redis'}"
        hint = "name another server as the mirror, or remove it"
        self._refusal = ConfigError(Problem(str(self._now.loaded.source), None, "", message, hint))
        self._ask_end(End.REFUSED)

    def _look_at_readiness(self) -> None:
        """Tell it when it changes: ``ready`` once, later what is missing and that it is back."""
        if self._end is not None or not self._tasks:
            return  # It ends, or "running" was not told yet.
        now = self._overview.missing()
        if self._missing is None and not now:
            log.info("ready", extra={"seconds": f"{time.monotonic() - self._now.started:.3f}"})
        elif self._missing is not None and now != self._missing:
            if now:
                log.warning("not ready: %s", "; ".join(now))
            else:
                log.info("every route can be served again")
        if self._missing is not None or not now:
            self._missing = now

    async def _tick(self) -> None:
        await asyncio.sleep(TICK)
        self._watch.watch(self._now.loaded.files)
        trimmer, allocator = process.Trimmer(), process.Allocator()
        for tick in itertools.count():
            self._look_at_readiness()
            if tick % LOOK_AT_FILES == 0:
                self._on_files()
            stats = self._plane.stats()
            self._care.look(stats.replicas, self._facts())
            requests = sum(listener.downstream_rq_total for listener in stats.listeners)
            if trimmer.due(process.resident_bytes(), allocator.free_bytes, requests, time.monotonic()):
                allocator.trim()
                trimmer.trimmed(allocator.free_bytes())
            await asyncio.sleep(TICK)

    def _facts(self) -> dict[str, Facts]:
        """What each Redis says of itself, by its name."""
        return {str(key): each.facts for key, each in self._monitor.view().items() if each.facts is not None}

    # --- what the admin server sees and does --------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """The state now."""
        return self._overview.snapshot()

    def server_info(self) -> dict[str, Any]:
        """Version, state, uptime and configuration file; ready for JSON."""
        return self._overview.server_info()

    def config_dump(self) -> dict[str, Any]:
        """The configuration and the plan in force without secrets; ready for JSON."""
        return self._overview.config_dump()

    def resync(self, cluster: str, action: str) -> tuple[str, ...]:
        """Start, pause, resume or accept the replicas of a cluster; their names.

        Raises:
            UnknownClusterError: no cluster of this name has a mirror or is one.
            ValueError: there is no such action.
        """
        known = derive.mirrored_clusters(self._now.loaded.config)
        if cluster not in known:
            raise UnknownClusterError(cluster, known)
        self._care.resync(cluster, action)
        log.info("asked to resync", extra={"cluster": cluster, "action": action})
        return self._care.names(cluster)

    async def hand_over(self, member: str) -> str:
        """Let a member lead the group, whoever leads now; returns who leads then.

        Raises:
            UnknownMemberError: there is no such member, or no group.
            NotHandedOverError: it was not handed over to that one.
            TimeoutError: it goes on, and has not come to its end yet.
        """
        if self._now.member is None:
            raise UnknownMemberError("this sidecar is in no group")
        from redisha.group.handover import HandOverError

        log.info("asked to let %s lead", member)
        work = asyncio.create_task(self._now.member.lead(member))
        self._asks.add(work)
        work.add_done_callback(self._handed_over)
        try:
            async with asyncio.timeout(HAND_OVER_LIMIT):
                return await asyncio.shield(work)  # it goes on when who asked is gone
        except HandOverError as error:
            raise NotHandedOverError(str(error)) from error

    def _handed_over(self, work: asyncio.Task[str]) -> None:
        self._asks.discard(work)
        if not work.cancelled() and (error := work.exception()) is not None:
            log.warning("the leadership was not handed over: %s", error)

    def drain(self) -> None:
        """Begin the graceful end."""
        if self._end is None:
            log.info("asked to drain: for at most %g s", self._options.drain_timeout)
            self._ask_end(End.DRAIN)

    def quit(self) -> None:
        """End at once."""
        log.info("asked to quit")
        self._ask_end(End.NOW)

    def set_log_level(self, level: str) -> None:
        """Log from this level on.

        Raises:
            ValueError: there is no such level.
        """
        if level not in logs.LEVELS:
            raise ValueError(f"log level must be one of {', '.join(logs.LEVELS)}: {level}")
        logging.getLogger().setLevel(level.upper())
        log.info("log level: %s", level)


def _expanded(loaded: Loaded) -> Loaded:
    """The same file, with the cluster and the routes that its group stands for."""
    return replace(loaded, config=expand(loaded.config))


def _same_group(before: Config, after: Config) -> None:
    """What a reload cannot change.

    Raises:
        ConfigError: the group, its member or what its elections rest on is another one.
    """
    fixed = ("name", "member", "listen", "redis", "on_partition", "arbiter", "heartbeat", "missed_heartbeats")
    old, new = before.group, after.group
    changed = [name for name in fixed if getattr(old, name, None) != getattr(new, name, None)]
    if (old is None) != (new is None) or (old is not None and changed):
        text = f"a reload cannot change the group ({', '.join(changed) or 'joining or leaving one'})"
        raise ConfigError(Problem("group", None, "", text, "restart redisha: the other members go on meanwhile"))


def _same_workers(before: Config, after: Config) -> None:
    """The same.

    Raises:
        ConfigError: the number of workers is another one.
    """
    if before.workers != after.workers:
        text = f"a reload cannot change the number of workers from {before.workers} to {after.workers}"
        raise ConfigError(Problem("workers", None, "", text, "restart redisha, or write the old number"))
