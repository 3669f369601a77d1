"""The numbers by name: Envoy's text names for ``/stats``, families with labels for Prometheus. Pure.

Owns: every statistic's name; what it means is in :mod:`redisha.admin.names`. Never: counts anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeAlias

from redisha.admin import ServerState, Snapshot, members
from redisha.admin.names import GAUGES, HELP, RENAMED, SKIPPED
from redisha.core import EndpointStats, Latency
from redisha.health.state import Health

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from redisha.refill import RefillStats
    from redisha.scrub import ScrubStats

Value: TypeAlias = int | float | Latency

QUANTILES = (("p50", "0.5"), ("p90", "0.9"), ("p99", "0.99"), ("p999", "0.999"))


def is_gauge(name: str) -> bool:
    """Whether a field goes up and down."""
    return name in GAUGES or name.endswith("_active")


def numbers(record: Any) -> Iterator[tuple[str, Value]]:
    """The numeric fields of one of the core's records."""
    for each in fields(record):
        value = getattr(record, each.name)
        if isinstance(value, int | Latency) and not isinstance(value, bool) and each.name not in SKIPPED:
            yield each.name, value


# --- Envoy's text names -----------------------------------------------------------------------------------------------


def samples(snapshot: Snapshot) -> list[tuple[str, Value]]:
    """Every statistic as (Envoy's name, value), sorted by name."""
    return sorted(_samples(snapshot), key=lambda sample: sample[0])


def _samples(snapshot: Snapshot) -> Iterator[tuple[str, Value]]:
    stats = snapshot.stats
    owners = [_flat(snapshot.prefixes.get(listener.name, listener.name)) for listener in stats.listeners]
    for owner, listener in zip(owners, stats.listeners, strict=True):
        yield from ((f"redis.{owner}.{name}", value) for name, value in numbers(listener))
    # Commands are counted by the process; with one listener that is the listener.
    owner = owners[0] if len(owners) == 1 else "all"
    for command in stats.commands:
        yield f"redis.{owner}.command.{command.name}.total", command.total
    for cluster, names in snapshot.clusters.items():
        yield from _cluster_samples(snapshot, cluster, names)
    for replica in stats.replicas:
        prefix = f"replica.{_flat(replica.primary)}.{_flat(replica.mirror)}"
        yield from ((f"{prefix}.{name}", value) for name, value in numbers(replica))
        if replica.is_copy:
            yield f"{prefix}.in_sync", int(replica.in_sync)
    for (primary, mirror), scrub in snapshot.scrubs.items():
        prefix = f"replica.{_flat(primary)}.{_flat(mirror)}"
        yield from ((f"{prefix}.{name}", value) for name, value in _scrubbed(scrub))
    for refill in snapshot.refills.values():
        prefix = f"replica.{_flat(refill.primary)}.{_flat(refill.mirror)}"
        yield from ((f"{prefix}.{name}", value) for name, value in _refilled(refill))
    for field, labels, value in members.numbers(snapshot):
        yield ".".join(["group", *(_flat(each) for each in labels.values()), field]), value
    for each in stats.logs:
        yield from ((f"log.{_flat(each.primary)}.{name}", value) for name, value in numbers(each))
    yield from ((f"worker.{name}", value) for name, value in numbers(stats.worker))
    yield "server.live", int(snapshot.state is ServerState.LIVE)
    yield "server.ready", int(not snapshot.missing)
    yield from snapshot.counters.items()
    yield from snapshot.gauges.items()


def _scrubbed(scrub: ScrubStats) -> Iterator[tuple[str, int]]:
    for name in ("runs_total", "keys_total", "differ_total", "failures_total", "last_run"):
        yield f"scrub_{name}", getattr(scrub, name)


def _refilled(refill: RefillStats) -> Iterator[tuple[str, int]]:
    yield "refill_running", int(refill.active)
    yield "refill_done", refill.done
    yield "refill_expected", refill.total
    for name in ("runs_total", "keys_total", "failures_total"):
        yield f"refill_{name}", getattr(refill, name)


def _cluster_samples(snapshot: Snapshot, cluster: str, names: Iterable[str]) -> Iterator[tuple[str, Value]]:
    prefix = f"cluster.{cluster}"
    endpoints = [each for each in snapshot.stats.endpoints if each.cluster == cluster]
    for name, value in numbers(EndpointStats()):
        if isinstance(value, int):
            yield f"{prefix}.{name}", sum(getattr(each, name) for each in endpoints)
    for each in endpoints:
        owner = prefix if len(endpoints) == 1 else f"{prefix}.endpoint.{_flat(each.id)}"
        yield f"{owner}.upstream_rq_time_us", each.upstream_rq_time_us
    yield f"{prefix}.membership_total", len(endpoints)
    yield f"{prefix}.membership_healthy", sum(each.ready for each in endpoints)
    verdicts = [health.verdict for key, health in snapshot.health.items() if key.cluster == cluster]
    for name in ("attempt", "success", "failure", "network_failure"):
        yield f"{prefix}.health_check.{name}", sum(getattr(verdict, name) for verdict in verdicts)
    yield f"{prefix}.health_check.healthy", sum(verdict.health is Health.HEALTHY for verdict in verdicts)
    states = [snapshot.names[name] for name in names if name in snapshot.names]
    for name in ("attempt", "success", "failure"):
        yield f"{prefix}.update_{name}", sum(getattr(state, name) for state in states)


def _flat(name: str) -> str:
    """A colon ends the name in ``name: value``, so it has no place inside."""
    return name.replace(":", "_")


def shown(value: Value) -> str:
    """A value as ``/stats`` prints it; a histogram as Envoy does, by percentiles."""
    if not isinstance(value, Latency):
        return str(value)
    if not value.count:
        return "No recorded values"
    return f"P50({value.p50}) P90({value.p90}) P99({value.p99}) P99.9({value.p999}) P100({value.max})"


# --- Prometheus -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Family:
    """One metric: its name without the prefix ``redisha_``, its kind, and its samples as (labels, value)."""

    name: str
    kind: str
    help: str
    samples: list[tuple[dict[str, str], Value]]


def families(snapshot: Snapshot) -> list[Family]:
    """Every statistic as families with labels, in the order of their names."""
    found: dict[str, Family] = {}
    for name, field, labels, value in _labelled(snapshot):
        family = found.setdefault(name, Family(name, _kind(field, value), HELP[field], []))
        family.samples.append((labels, value))
    for text, value in snapshot.counters.items():
        name = text.replace(".", "_")
        found[name] = Family(name, "counter", f"Control plane: {text}.", [({}, value)])
    for text, value in snapshot.gauges.items():
        name = text.replace(".", "_")
        found[name] = Family(name, "gauge", f"Control plane: {text}.", [({}, value)])
    return [found[name] for name in sorted(found)]


def _kind(field: str, value: Value) -> str:
    if isinstance(value, Latency):
        return "summary"
    return "gauge" if is_gauge(field) else "counter"


Labelled: TypeAlias = tuple[str, str, dict[str, str], Value]
"""Name, field (the key of ``HELP``), labels, value."""


def _labelled(snapshot: Snapshot) -> Iterator[Labelled]:
    stats = snapshot.stats
    for listener in stats.listeners:
        yield from _of("", listener, {"listener": listener.name})
    for command in stats.commands:
        yield "command", "command_total", {"command": command.name}, command.total
    for endpoint in stats.endpoints:
        labels = {"cluster": endpoint.cluster, "endpoint": endpoint.id}
        yield from _of("", endpoint, labels)
        yield "endpoint_ready", "endpoint_ready", labels, int(endpoint.ready)
    for replica in stats.replicas:
        labels = {"primary": replica.primary, "mirror": replica.mirror}
        yield from _of("replica_", replica, labels)
        yield "replica_state", "replica_state", labels | {"state": replica.state}, 1
    yield from _cared_for(snapshot)
    for field, labels, value in members.numbers(snapshot):
        yield f"group_{field.removesuffix('_total')}", f"group_{field}", labels, value
    for each in stats.logs:
        yield from _of("log_", each, {"primary": each.primary})
    yield from _of("worker_", stats.worker, {})
    yield from _probed(snapshot)
    for host, state in snapshot.names.items():
        labels = {"name": host}
        yield "dns_attempt", "dns_attempt_total", labels, state.attempt
        yield "dns_success", "dns_success_total", labels, state.success
        yield "dns_failure", "dns_failure_total", labels, state.failure
        yield "dns_addresses", "dns_addresses", labels, len(state.addresses)
    yield "server_live", "server_live", {}, int(snapshot.state is ServerState.LIVE)
    yield "server_ready", "server_ready", {}, int(not snapshot.missing)


def _of(prefix: str, record: Any, labels: dict[str, str]) -> Iterator[Labelled]:
    for field, value in numbers(record):
        yield prefix + RENAMED.get(field, field.removesuffix("_total")), field, labels, value


def _cared_for(snapshot: Snapshot) -> Iterator[Labelled]:
    for (primary, mirror), scrub in snapshot.scrubs.items():
        labels = {"primary": primary, "mirror": mirror}
        for field, value in _scrubbed(scrub):
            yield "replica_" + field.removesuffix("_total"), field, labels, value
    for refill in snapshot.refills.values():
        labels = {"primary": refill.primary, "mirror": refill.mirror}
        for field, value in _refilled(refill):
            yield "replica_" + field.removesuffix("_total"), field, labels, value


def _probed(snapshot: Snapshot) -> Iterator[Labelled]:
    for key, health in snapshot.health.items():
        labels = {"cluster": key.cluster, "endpoint": key.id}
        verdict, facts = health.verdict, health.facts
        yield "endpoint_healthy", "endpoint_healthy", labels, int(verdict.health is Health.HEALTHY)
        for name in ("attempt", "success", "failure", "network_failure"):
            yield f"health_check_{name}", f"health_check_{name}_total", labels, getattr(verdict, name)
        if facts is not None:
            yield "redis_used_memory_bytes", "redis_used_memory_bytes", labels, facts.used_memory
            yield "redis_maxmemory_bytes", "redis_maxmemory_bytes", labels, facts.maxmemory
            yield "redis_evicted_keys", "redis_evicted_keys", labels, facts.evicted_keys
            yield "redis_may_evict", "redis_may_evict", labels, int(facts.may_evict)
            yield "redis_loading", "redis_loading", labels, int(facts.loading)


class SnapshotCollector:
    """A collector of ``prometheus_client`` for one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """The families in the library's form."""
        from prometheus_client.core import Metric  # 28 ms and 4 MB, for who scrapes

        for family in families(self._snapshot):
            name = f"redisha_{family.name}"
            metric = Metric(name, family.help, family.kind)
            for labels, value in family.samples:
                if isinstance(value, Latency):
                    for attribute, quantile in QUANTILES:
                        metric.add_sample(name, labels | {"quantile": quantile}, getattr(value, attribute))
                    metric.add_sample(f"{name}_count", labels, value.count)
                    metric.add_sample(f"{name}_sum", labels, value.sum)
                else:
                    metric.add_sample(name + ("_total" if family.kind == "counter" else ""), labels, value)
            yield metric


def prometheus(snapshot: Snapshot) -> str:
    """Prometheus's text format."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(SnapshotCollector(snapshot))
    return generate_latest(registry).decode()
