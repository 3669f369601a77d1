"""The control plane's only door to the data plane: :mod:`redisha._core` with types and with asyncio.

Owns: the typed form of the counters (:class:`Stats`), the typed form of events, and the watch on the core's descriptor.
Never: decides anything, logs, or keeps state that the data plane has.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from redisha import _core
from redisha._core import BindError, PlanError, ReplyError, ReplyReader, bucket, encode_command
from redisha.group.status import GroupStatus, parse_group

if TYPE_CHECKING:
    import asyncio

__all__ = [
    "BindError",
    "CommandStats",
    "CoreLike",
    "DataPlane",
    "EndpointStats",
    "Event",
    "EventKind",
    "Latency",
    "ListenerStats",
    "LogStats",
    "PlanError",
    "ReplicaStats",
    "ReplyError",
    "ReplyReader",
    "Stats",
    "WorkerStats",
    "bucket",
    "command_flags",
    "encode_command",
    "parse_stats",
    "version",
]

T = TypeVar("T")


class EventKind(StrEnum):
    """What happened on the data plane; the texts are those of ``_core.Event.kind``."""

    APPLIED = "applied"
    UPSTREAM_UP = "upstream_up"
    UPSTREAM_DOWN = "upstream_down"
    REPLICA = "replica"
    LOST = "lost"
    OVERFLOW = "overflow"
    HEALED = "healed"
    PRIMARY = "primary"
    REFILL = "refill"
    SAME_SERVER = "same_server"
    MAP = "map"
    GROUP = "group"
    ASK = "ask"
    ANSWER = "answer"
    MERGE = "merge"
    REDIRECTED = "redirected"
    LISTENER = "listener"
    DRAINED = "drained"
    WORKER_DIED = "worker_died"
    OTHER = "other"

    @classmethod
    def _missing_(cls, value: object) -> EventKind:
        """A kind that a newer core knows and we do not is logged, not fatal."""
        return cls.OTHER


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened on the data plane, told once and in order.

    Attributes:
        kind: what happened.
        subject: what it happened to, ``cluster/endpoint`` for an endpoint, ``P -> M`` for a replica.
        detail: why, in words; may be empty.
    """

    kind: EventKind
    subject: str
    detail: str

    @property
    def replica(self) -> tuple[str, str] | None:
        """Primary and mirror, each as ``cluster/endpoint``, where the subject is a replica."""
        primary, arrow, mirror = self.subject.partition(" -> ")
        return (primary, mirror) if arrow else None


class RawEvent(Protocol):
    """An event as the core gives it."""

    @property
    def kind(self) -> str:
        """What happened."""

    @property
    def subject(self) -> str:
        """What it happened to."""

    @property
    def detail(self) -> str:
        """Why, in words."""


class CoreLike(Protocol):
    """What the control plane needs of ``_core.Core``; see the stub for meanings. Tests of pure logic pass their own."""

    def apply(self, plan: bytes, /) -> int:
        """Put a plan in force."""

    def fileno(self) -> int:
        """A descriptor that is readable while there are events."""

    def drain_events(self) -> list[Any]:
        """All events since the last call (each a :class:`RawEvent`)."""

    def stats(self) -> bytes:
        """All counters as JSON."""

    def listeners(self) -> list[tuple[str, str]]:
        """(name, address as bound) of every listener in force."""

    def resync(self, cluster: str, action: str, /) -> None:
        """Start, pause, resume or accept, for the replicas whose primary or mirror belongs to a cluster."""

    def refilled(self, primary: str, ok: bool, /) -> None:
        """The copying after the event ``refill`` ended."""

    def doubt(self, primary: str, mirror: str, keys: list[tuple[int, bytes]], /) -> None:
        """These keys (database, key) were found to differ: copy them."""

    def group(self) -> str:
        """What is known of the group, as JSON."""

    def lead(self, term: int, /) -> None:
        """This member leads."""

    def follow(self, term: int, leader: str, /) -> None:
        """Another one does."""

    def yield_lead(self, on: bool, /) -> None:
        """Take no more commands, or take them again."""

    def count(self, members: list[str], /) -> None:
        """Those that a quorum counts."""

    def arbiter_beat(self, age_ms: int, /) -> None:
        """The arbiter renewed the leadership."""

    def ask(self, peer: str, number: int, message: str, /) -> None:
        """A question to another member."""

    def answer(self, number: int, message: str, /) -> None:
        """The answer to another's."""

    def merged(self, peer: str, ok: bool, /) -> None:
        """What a member wrote alone was looked at."""

    def begin_drain(self, limit_ms: int, /) -> None:
        """Stop accepting and let sessions finish."""

    def join(self, timeout_ms: int, /) -> bool:
        """Stop the worker and wait for it."""


@dataclass(frozen=True, slots=True)
class Latency:
    """A histogram's summary. ``sum`` and the quantiles are microseconds."""

    count: int = 0
    sum: int = 0
    p50: int = 0
    p90: int = 0
    p99: int = 0
    p999: int = 0
    max: int = 0


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """The worker thread: turns of its loop, CPU it used (µs), its clock (ms), its memory budget in use (bytes)."""

    turns: int = 0
    now_ms: int = 0
    memory_bytes: int = 0
    plan_generation: int = 0


@dataclass(frozen=True, slots=True)
class ListenerStats:
    """One listener, in Envoy's words; ``*_active`` are gauges, ``*_bytes_*`` bytes, the rest counters."""

    name: str = ""
    downstream_cx_total: int = 0
    downstream_cx_active: int = 0
    downstream_cx_destroy: int = 0
    downstream_cx_protocol_error: int = 0
    downstream_cx_rx_bytes_total: int = 0
    downstream_cx_tx_bytes_total: int = 0
    downstream_cx_max_clients: int = 0
    downstream_cx_idle_timeout: int = 0
    downstream_cx_handshake_timeout: int = 0
    downstream_cx_output_overflow: int = 0
    downstream_cx_memory_overflow: int = 0
    downstream_cx_drain_close: int = 0
    downstream_cx_paused: int = 0
    downstream_rq_total: int = 0
    downstream_rq_active: int = 0
    downstream_rq_local: int = 0
    downstream_rq_error: int = 0
    downstream_rq_no_route: int = 0
    downstream_rq_unsupported: int = 0
    downstream_rq_time_us: Latency = field(default_factory=Latency)


@dataclass(frozen=True, slots=True)
class CommandStats:
    """How often a command was accepted, over all listeners."""

    name: str = ""
    total: int = 0


@dataclass(frozen=True, slots=True)
class EndpointStats:
    """One endpoint of a cluster; ``state`` is ``ready``, ``connecting`` or ``down``, ``reason`` says why not ready."""

    cluster: str = ""
    id: str = ""
    address: str = ""
    state: str = "connecting"
    reason: str = ""
    run_id: str = ""
    version: str = ""
    upstream_cx_total: int = 0
    upstream_cx_active: int = 0
    upstream_cx_connect_fail: int = 0
    upstream_cx_destroy: int = 0
    upstream_cx_protocol_error: int = 0
    upstream_cx_rx_bytes_total: int = 0
    upstream_cx_tx_bytes_total: int = 0
    upstream_rq_total: int = 0
    upstream_rq_active: int = 0
    upstream_rq_timeout: int = 0
    upstream_rq_indoubt: int = 0
    upstream_rq_unavailable: int = 0
    upstream_internal_redirect_succeeded_total: int = 0
    upstream_internal_redirect_failed_total: int = 0
    upstream_rq_time_us: Latency = field(default_factory=Latency)

    @property
    def ready(self) -> bool:
        """Whether the data plane has a usable connection to it."""
        return self.state == "ready"


@dataclass(frozen=True, slots=True)
class ReplicaStats:
    """One replica: a mirror's Redis following a primary's log.

    ``lag`` is committed effects that it has not acknowledged, ``lag_bytes`` their size, ``lost_total`` effects that it
    did not get as such (dropped from the full log, or of keys not known); a resync heals that. ``resync`` is what runs
    or ran last: empty, ``log``, ``buckets`` or ``full``, the last two perhaps with ``, add-only``. ``resync_done`` of
    ``resync_total`` (an estimate) are the keys that it looked at; ``resync_limit`` the copies it may have in flight.
    ``sole`` says whether this sidecar is the mirror's only writer: ``yes``, ``no``, or empty while not known.

    The state of a mirror that gets a part of the commands is ``sampled``: ``lost_total`` are those that were not sent
    because it was away or busy, and most other numbers stay 0.
    """

    primary: str = ""
    mirror: str = ""
    state: str = "down"
    reason: str = ""
    lag: int = 0
    lag_bytes: int = 0
    acked_total: int = 0
    sent_total: int = 0
    lost_total: int = 0
    error_total: int = 0
    differ_total: int = 0
    resync_keys_total: int = 0
    repair_keys: int = 0
    restarts_total: int = 0
    resync: str = ""
    resync_bytes_total: int = 0
    resync_done: int = 0
    resync_total: int = 0
    resync_rate: int = 0
    resync_limit: int = 0
    resync_runs_total: int = 0
    resync_full_total: int = 0
    unproven_keys: int = 0
    unrepaired_keys: int = 0
    dirty_buckets: int = 0
    generation: int = 0
    sole: str = ""
    healed: str = ""

    @property
    def in_sync(self) -> bool:
        """Whether it is equal to its primary, but for what is on the way."""
        return self.state == "in_sync"

    @property
    def is_copy(self) -> bool:
        """Whether it is to be equal; one that gets a part of the commands is not."""
        return self.state != "sampled"


@dataclass(frozen=True, slots=True)
class LogStats:
    """One sequencer's log; ``bytes`` of at most ``limit``."""

    primary: str = ""
    entries: int = 0
    bytes: int = 0
    limit: int = 0
    committed_total: int = 0
    overflow_total: int = 0


@dataclass(frozen=True, slots=True)
class Stats:
    """A snapshot of every counter and gauge of the data plane."""

    worker: WorkerStats = field(default_factory=WorkerStats)
    listeners: tuple[ListenerStats, ...] = ()
    commands: tuple[CommandStats, ...] = ()
    endpoints: tuple[EndpointStats, ...] = ()
    replicas: tuple[ReplicaStats, ...] = ()
    logs: tuple[LogStats, ...] = ()


def parse_stats(data: bytes) -> Stats:
    """Read the core's JSON.

    A field that is missing keeps its default and an unknown one is skipped, so a core that counts more than this file
    knows stays readable.

    Args:
        data: what ``Core.stats()`` gave.

    Raises:
        ValueError: it is not JSON, or not an object.
    """
    raw = json.loads(data)
    if not isinstance(raw, dict):
        raise ValueError("stats: not an object")  # noqa: TRY004 - one error type for every wrong form
    return Stats(
        worker=_record(WorkerStats, raw.get("worker", {})),
        listeners=_records(ListenerStats, raw, "listeners"),
        commands=_records(CommandStats, raw, "commands"),
        endpoints=_records(EndpointStats, raw, "endpoints"),
        replicas=_records(ReplicaStats, raw, "replicas"),
        logs=_records(LogStats, raw, "logs"),
    )


def _record(kind: type[T], raw: Mapping[str, Any]) -> T:
    known = {each.name for each in fields(kind)}  # type: ignore[arg-type]  # every T here is a dataclass
    return kind(
        **{
            name: _record(Latency, value) if isinstance(value, dict) else value
            for name, value in raw.items()
            if name in known
        }
    )


def _records(kind: type[T], raw: Mapping[str, Any], name: str) -> tuple[T, ...]:
    return tuple(_record(kind, each) for each in raw.get(name, ()))


class DataPlane:
    """The data plane as the control plane sees it. Every method but :meth:`join` returns at once.

    Args:
        core: the core to wrap; a new one when left out.
    """

    def __init__(self, core: CoreLike | None = None) -> None:
        self._core: CoreLike = core if core is not None else _core.Core()
        self._loop: asyncio.AbstractEventLoop | None = None

    def apply(self, plan: bytes) -> int:
        """Put a plan in force and return its generation; the first call starts the worker.

        Raises:
            PlanError: the plan is wrong; nothing was changed.
            BindError: a new listener cannot be bound; nothing was changed.
        """
        return self._core.apply(plan)

    def watch(self, loop: asyncio.AbstractEventLoop, callback: Callable[[Event], None]) -> None:
        """Call ``callback`` in ``loop`` for each event, in order, until :meth:`unwatch`."""
        self.unwatch()
        self._loop = loop
        loop.add_reader(self._core.fileno(), self._deliver, callback)

    def unwatch(self) -> None:
        """Deliver no more events."""
        if self._loop is not None:
            self._loop.remove_reader(self._core.fileno())
            self._loop = None

    def _deliver(self, callback: Callable[[Event], None]) -> None:
        for event in self.events():
            callback(event)

    def events(self) -> list[Event]:
        """All events since the last call, oldest first. Never waits."""
        return [Event(EventKind(raw.kind), raw.subject, raw.detail) for raw in self._core.drain_events()]

    def stats(self) -> Stats:
        """A snapshot of all counters and gauges."""
        return parse_stats(self._core.stats())

    def listeners(self) -> list[tuple[str, str]]:
        """(name, address as bound) of every listener in force; a port 0 of the plan is the real one here."""
        return self._core.listeners()

    def resync(self, cluster: str, action: str) -> None:
        """Start, pause, resume or accept, for the replicas whose primary or mirror belongs to a cluster.

        Raises:
            ValueError: there is no such action.
        """
        self._core.resync(cluster, action)

    def refilled(self, primary: str, ok: bool) -> None:
        """The copying after ``REFILL`` ended: ``primary`` (``cluster/endpoint``) has all, or it was given up."""
        self._core.refilled(primary, ok)

    def doubt(self, primary: str, mirror: str, keys: Sequence[tuple[int, bytes]]) -> None:
        """Have these keys (database, key) copied to the mirror, in order with the writes: they were found to differ."""
        self._core.doubt(primary, mirror, list(keys))

    def group(self) -> GroupStatus | None:
        """What is known of the group; None while there is none."""
        text = self._core.group()
        return parse_group(text) if text else None

    def lead(self, term: int) -> None:
        """This member leads the term. One that is not newer than the term it knows changes nothing."""
        self._core.lead(term)

    def follow(self, term: int, leader: str) -> None:
        """The member ``leader`` leads the term; empty: nobody is known to. An older term changes nothing."""
        self._core.follow(term, leader)

    def yield_lead(self, on: bool) -> None:
        """Commands wait, so that another may lead, while what is in the log goes on to it; or they are taken again."""
        self._core.yield_lead(on)

    def count(self, members: Sequence[str]) -> None:
        """The members whose acknowledgement a quorum needs, this one included (``on_partition: consistent``)."""
        self._core.count(list(members))

    def arbiter_beat(self, age_ms: int) -> None:
        """The arbiter has renewed this member's leadership; it was asked ``age_ms`` milliseconds ago."""
        self._core.arbiter_beat(age_ms)

    def ask(self, peer: str, number: int, message: str) -> None:
        """Ask another member's control plane; ``ANSWER`` with this number follows, empty if that member is gone."""
        self._core.ask(peer, number, message)

    def answer(self, number: int, message: str) -> None:
        """Answer another member's question (the number is the subject of ``ASK``)."""
        self._core.answer(number, message)

    def merged(self, peer: str, *, ok: bool) -> None:
        """What the member at this address wrote alone was looked at, or could not be: then ``MERGE`` comes again."""
        self._core.merged(peer, ok)

    def begin_drain(self, limit: float) -> None:
        """Stop accepting and close each session once idle, all after ``limit`` seconds; ``DRAINED`` tells the end."""
        self._core.begin_drain(round(limit * 1000))

    def join(self, timeout: float) -> bool:
        """Stop the worker and wait up to ``timeout`` seconds for it; returns whether it has ended."""
        return self._core.join(round(timeout * 1000))


@functools.cache
def command_flags() -> Mapping[str, Sequence[str]]:
    """The flags of each command (``readonly``, ``write`` …) by its name in small letters."""
    return {each["name"]: tuple(each["flags"]) for each in json.loads(_core.command_table())}


def version() -> str:
    """The core's version."""
    return _core.__version__
