"""The numbers by name: Envoy's text names for ``/stats``, families with labels for Prometheus. Pure.

Owns: every statistic's name and help text. Never: counts anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeAlias

from redisha.admin import ServerState, Snapshot
from redisha.core import EndpointStats, Latency
from redisha.health.state import Health

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from redisha.refill import RefillStats
    from redisha.scrub import ScrubStats

Value: TypeAlias = int | Latency

QUANTILES = (("p50", "0.5"), ("p90", "0.9"), ("p99", "0.99"), ("p999", "0.999"))

HELP = {
    # listeners
    "downstream_cx_total": "Client connections accepted.",
    "downstream_cx_active": "Client connections open now.",
    "downstream_cx_destroy": "Client connections closed.",
    "downstream_cx_protocol_error": "Client connections closed for bytes that are not RESP.",
    "downstream_cx_rx_bytes_total": "Bytes received from clients.",
    "downstream_cx_tx_bytes_total": "Bytes sent to clients.",
    "downstream_cx_max_clients": "Client connections refused because max_clients was reached.",
    "downstream_cx_idle_timeout": "Client connections closed for being idle.",
    "downstream_cx_handshake_timeout": "Client connections closed for not authenticating in time.",
    "downstream_cx_output_overflow": "Client connections closed for not reading their replies.",
    "downstream_cx_memory_overflow": "Client connections closed for holding most of a used-up memory budget.",
    "downstream_cx_drain_close": "Client connections closed by draining.",
    "downstream_cx_paused": "Times that reading from a client was paused by a bound.",
    "downstream_rq_total": "Commands received from clients.",
    "downstream_rq_active": "Commands of clients not answered yet.",
    "downstream_rq_local": "Commands answered by the proxy itself.",
    "downstream_rq_error": "Commands answered with an error of the proxy.",
    "downstream_rq_no_route": "Commands whose key has no route.",
    "downstream_rq_unsupported": "Commands refused because the proxy does not support them there.",
    "downstream_rq_time_us": "From a command's arrival to its reply, in microseconds.",
    # endpoints
    "upstream_cx_total": "Connections made to the endpoint.",
    "upstream_cx_active": "Connections to the endpoint open now.",
    "upstream_cx_connect_fail": "Connections to the endpoint that were refused or timed out.",
    "upstream_cx_destroy": "Connections to the endpoint that ended.",
    "upstream_cx_protocol_error": "Connections closed because the endpoint sent bytes that are not RESP.",
    "upstream_cx_rx_bytes_total": "Bytes received from the endpoint.",
    "upstream_cx_tx_bytes_total": "Bytes sent to the endpoint.",
    "upstream_rq_total": "Commands sent to the endpoint.",
    "upstream_rq_active": "Commands that the endpoint has not answered yet.",
    "upstream_rq_timeout": "Commands that the endpoint did not answer in time.",
    "upstream_rq_indoubt": "Commands whose connection was lost before the reply: they may have been applied.",
    "upstream_rq_unavailable": "Commands refused because the endpoint was not connected: not one byte was sent.",
    "upstream_rq_time_us": "From a command's sending to the endpoint's reply, in microseconds.",
    # replicas
    "lag": "Committed effects that the replica has not acknowledged.",
    "lag_bytes": "Bytes of committed effects that the replica has not acknowledged.",
    "acked_total": "Effects that the replica acknowledged.",
    "sent_total": "Effects sent to the replica.",
    "lost_total": "Effects that the replica did not get as such (full log, unknown keys); a resync heals that.",
    "error_total": "Effects that the replica answered with an error.",
    "differ_total": "Effects to which the replica's reply was not the primary's.",
    "resync_keys_total": "Keys copied to the replica by resync.",
    "repair_keys": "Keys in doubt on the replica, to be copied.",
    "restarts_total": "Times that the replica's Redis was another process when it was connected to again.",
    "resync_bytes_total": "Bytes copied to the replica by resync.",
    "resync_done": "Keys that the running resync has looked at.",
    "resync_total": "Keys that the running resync has to look at, as an estimate.",
    "resync_rate": "Keys per second that the running resync looks at.",
    "resync_limit": "Copies that the resync may have in flight now; it adapts to the latency that clients see.",
    "resync_runs_total": "Resyncs by buckets or in full that were begun.",
    "resync_full_total": "Full resyncs that were begun.",
    "unproven_keys": "Keys that were there already when a resync could only add: not compared, not proven equal.",
    "unrepaired_keys": "Keys that cannot be copied to the replica.",
    "dirty_buckets": "Buckets of keys, of 1,048,576, that may differ on the replica.",
    "generation": "Generation of the dirty map that is being written.",
    # scrubs and refills
    "scrub_runs_total": "Comparisons of a random sample of keys that came to their end.",
    "scrub_keys_total": "Keys compared by them.",
    "scrub_differ_total": "Keys that differed, and were copied again.",
    "scrub_failures_total": "Comparisons that failed.",
    "scrub_last_run": "When the last one ended, in seconds since 1970; 0 for never.",
    "refill_running": "1 while the primary is held and filled again from the mirror.",
    "refill_done": "Keys that the running refill has looked at; of the last one, keys copied.",
    "refill_expected": "Keys that it has to look at, as far as it is known.",
    "refill_runs_total": "Refills of the primary from the mirror.",
    "refill_keys_total": "Keys that they looked at or copied.",
    "refill_failures_total": "Attempts that failed.",
    # logs
    "entries": "Effects in the log.",
    "bytes": "Bytes in the log.",
    "limit": "Bytes that the log may have.",
    "committed_total": "Effects committed to the log.",
    "overflow_total": "Effects dropped from the full log before every replica had them.",
    # worker
    "turns": "Turns of the worker's loop.",
    "memory_bytes": "Bytes of the memory budget in use: partial requests, queued replies, logs.",
    "plan_generation": "Generation of the plan that the worker runs.",
    # control plane
    "command_total": "Commands received from clients, by name.",
    "endpoint_ready": "1 while the data plane has a usable connection to the endpoint.",
    "endpoint_healthy": "1 while the control plane's probes of the endpoint pass.",
    "health_check_attempt_total": "Probes of the endpoint.",
    "health_check_success_total": "Probes that passed.",
    "health_check_failure_total": "Probes that failed.",
    "health_check_network_failure_total": "Probes that failed to connect or to get an answer in time.",
    "redis_used_memory_bytes": "Memory that the Redis says it uses.",
    "redis_maxmemory_bytes": "Memory that the Redis may use; 0 for no limit.",
    "redis_evicted_keys": "Keys that the Redis has evicted since its start.",
    "redis_may_evict": "1 while the Redis throws keys away when it is full, which no mirror hears of.",
    "redis_loading": "1 while the Redis reads its data from disk.",
    "replica_state": "1 for the state the replica is in.",
    "dns_attempt_total": "Lookups of the name.",
    "dns_success_total": "Lookups that gave addresses.",
    "dns_failure_total": "Lookups that failed; the last good addresses stay in use.",
    "dns_addresses": "Addresses in use for the name.",
    "server_live": "1 while the server is live, 0 while it starts or drains.",
    "server_ready": "1 while every route has a ready endpoint.",
}

GAUGES = frozenset(
    {
        "lag",
        "lag_bytes",
        "repair_keys",
        "resync_done",
        "resync_total",
        "resync_rate",
        "resync_limit",
        "unproven_keys",
        "unrepaired_keys",
        "dirty_buckets",
        "generation",
        "scrub_last_run",
        "refill_running",
        "refill_done",
        "refill_expected",
        "entries",
        "bytes",
        "limit",
        "memory_bytes",
        "plan_generation",
        "endpoint_ready",
        "endpoint_healthy",
        "redis_used_memory_bytes",
        "redis_maxmemory_bytes",
        "redis_evicted_keys",  # starts again with the Redis
        "redis_may_evict",
        "redis_loading",
        "replica_state",
        "dns_addresses",
        "server_live",
        "server_ready",
    }
)
"""Fields that go up and down, besides ``*_active``."""

RENAMED = {"resync_total": "resync_expected"}
"""Gauges whose names would be taken for counters', under the names that Prometheus gets."""

SKIPPED = frozenset({"now_ms"})
"""Fields that are no statistic."""


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
        yield f"{prefix}.in_sync", int(replica.in_sync)
    for (primary, mirror), scrub in snapshot.scrubs.items():
        prefix = f"replica.{_flat(primary)}.{_flat(mirror)}"
        yield from ((f"{prefix}.{name}", value) for name, value in _scrubbed(scrub))
    for refill in snapshot.refills.values():
        prefix = f"replica.{_flat(refill.primary)}.{_flat(refill.mirror)}"
        yield from ((f"{prefix}.{name}", value) for name, value in _refilled(refill))
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
    if isinstance(value, int):
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
