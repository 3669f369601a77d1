"""The admin server's answers: one small function per path.

Each takes the view and the request and gives a response; none but the hand-over of a leadership waits for anything.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any, TypeAlias

from redisha.admin import ServerState, Snapshot, UnknownClusterError, View, members, metrics, page
from redisha.admin import replicas as mirrors
from redisha.admin.app import HTML, Request, Response, json_answer
from redisha.admin.leadership import LEADER_QUERY, group, leader
from redisha.core import EndpointStats, Latency
from redisha.health.evictions import advice
from redisha.health.monitor import EndpointHealth, EndpointKey
from redisha.health.probe import Facts
from redisha.health.state import Health
from redisha.resync import ACTIONS

Answer: TypeAlias = Callable[[View, Request], Response | Awaitable[Response]]

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path: its method, what it does in a line, the function that does it, and an example of its query."""

    method: str
    path: str
    help: str
    answer: Answer
    query: str = ""


class Api:
    """Finds the endpoint of a request.

    Args:
        view: what the endpoints may know and do.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._endpoints = {endpoint.path: endpoint for endpoint in ENDPOINTS}

    def __call__(self, request: Request) -> Response | Awaitable[Response]:
        """Answer a request; an unknown path gets 404 with the known ones, a wrong method 405."""
        endpoint = self._endpoints.get(request.path)
        if endpoint is None:
            listing = page.listing((each.method, each.path, each.help) for each in ENDPOINTS)
            return Response(f"unknown path: {request.path}\n\n{listing}", HTTPStatus.NOT_FOUND)
        method = "GET" if request.method == "HEAD" else request.method
        if method != endpoint.method:
            return Response(
                f"{request.path} takes {endpoint.method}, not {request.method}"
                f" (curl -X {endpoint.method} 'http://.../{request.path.removeprefix('/')}{endpoint.query}')\n",
                HTTPStatus.METHOD_NOT_ALLOWED,
                allow=endpoint.method,
            )
        return endpoint.answer(self._view, request)


def _lines(lines: Iterable[str]) -> Response:
    return Response("".join(f"{line}\n" for line in lines))


def _wants_json(request: Request) -> bool:
    return request.query.get("format") == "json"


# --- pages ------------------------------------------------------------------------------------------------------------


def front(view: View, request: Request) -> Response:
    """A page that links every path."""
    table = [(each.method, each.path, each.help) for each in ENDPOINTS]
    return Response(page.front(view.snapshot(), view.server_info(), table), content_type=HTML)


def help_(view: View, request: Request) -> Response:
    """The same as text."""
    return Response(page.listing((each.method, each.path, each.help) for each in ENDPOINTS))


# --- readiness --------------------------------------------------------------------------------------------------------


def ready(view: View, request: Request) -> Response:
    """200 and ``LIVE``, or 503 and what is missing, one reason per line."""
    snapshot = view.snapshot()
    if not snapshot.missing and snapshot.state is ServerState.LIVE:
        return Response(f"{snapshot.state}\n")
    state = "NOT READY" if snapshot.state is ServerState.LIVE else str(snapshot.state)
    lines = [state, *snapshot.missing]
    return Response("".join(f"{line}\n" for line in lines), HTTPStatus.SERVICE_UNAVAILABLE)


def healthz(view: View, request: Request) -> Response:
    """200 whenever the control plane can answer: for a liveness probe, which must not depend on any Redis."""
    return Response("OK\n")


# --- statistics -------------------------------------------------------------------------------------------------------


def stats(view: View, request: Request) -> Response:
    """Envoy's text, or ``format=json``, or ``format=prometheus``."""
    form = request.query.get("format", "text")
    if form == "prometheus":
        return prometheus(view, request)
    if form not in {"text", "json"}:
        return Response(f"format must be text, json or prometheus: {form}\n", HTTPStatus.BAD_REQUEST)
    try:
        keep = re.compile(request.query.get("filter", ""))
    except re.error as error:
        return Response(f"filter is no regular expression: {error}\n", HTTPStatus.BAD_REQUEST)
    snapshot = view.snapshot()
    chosen = [(name, value) for name, value in metrics.samples(snapshot) if keep.search(name)]
    if "usedonly" in request.query:
        chosen = [(name, value) for name, value in chosen if (value.count if isinstance(value, Latency) else value)]
    if form == "text":
        return _lines(f"{name}: {metrics.shown(value)}" for name, value in chosen)
    return json_answer(_stats_document(snapshot, chosen))


def _stats_document(snapshot: Snapshot, chosen: list[tuple[str, metrics.Value]]) -> dict[str, Any]:
    """Envoy's list under ``stats``, and beside it the data plane's own document with its records in full."""
    named = [
        {"name": name, "histogram": asdict(value)} if isinstance(value, Latency) else {"name": name, "value": value}
        for name, value in chosen
    ]
    return {
        "stats": named,
        **asdict(snapshot.stats),
        "health": [_probe_document(key, health) for key, health in snapshot.health.items()],
        "names": {name: asdict(state) for name, state in snapshot.names.items()},
        "control": {**snapshot.counters, **snapshot.gauges},
        "group": members.document(snapshot),
    }


def prometheus(view: View, request: Request) -> Response:
    """Prometheus's text format."""
    return Response(metrics.prometheus(view.snapshot()), content_type=PROMETHEUS)


# --- clusters and replicas --------------------------------------------------------------------------------------------


def clusters(view: View, request: Request) -> Response:
    """Envoy's ``cluster::address::key::value``, or ``format=json``."""
    snapshot = view.snapshot()
    groups = {
        name: [each for each in snapshot.stats.endpoints if each.cluster == name]
        for name in dict.fromkeys([*snapshot.clusters, *(each.cluster for each in snapshot.stats.endpoints)])
    }
    if _wants_json(request):
        return json_answer(
            {
                "cluster_statuses": [
                    {"name": name, "host_statuses": [_host_document(snapshot, each) for each in endpoints]}
                    for name, endpoints in groups.items()
                ]
            }
        )
    lines = []
    for name, endpoints in groups.items():
        lines.append(f"{name}::observability_name::{name}")
        lines.append(f"{name}::membership_total::{len(endpoints)}")
        for endpoint in endpoints:
            keys = _host_keys(snapshot, endpoint)
            lines += [f"{name}::{endpoint.address}::{key}::{value}" for key, value in keys.items()]
    return _lines(lines)


def _host_keys(snapshot: Snapshot, endpoint: EndpointStats) -> dict[str, int | str]:
    health = snapshot.health.get(EndpointKey(endpoint.cluster, endpoint.id), EndpointHealth())
    counters = {name: value for name, value in metrics.numbers(endpoint) if isinstance(value, int)}
    keys: dict[str, int | str] = {name.removeprefix("upstream_"): value for name, value in counters.items()}
    facts = health.facts or Facts()
    return keys | {
        "hostname": endpoint.id,
        "state": endpoint.state,
        "reason": endpoint.reason,
        "health_flags": _flags(endpoint, health),
        "probe": health.verdict.reason or str(health.verdict.health),
        "run_id": endpoint.run_id,
        "redis_version": endpoint.version,
        "maxmemory": facts.maxmemory,
        "maxmemory_policy": facts.maxmemory_policy,
        "evicted_keys": facts.evicted_keys,
        "warning": advice(facts) if _is_mirrored(snapshot, endpoint) else "",
        "weight": 1,
    }


def _is_mirrored(snapshot: Snapshot, endpoint: EndpointStats) -> bool:
    name = f"{endpoint.cluster}/{endpoint.id}"
    return any(each.is_copy and name in (each.primary, each.mirror) for each in snapshot.stats.replicas)


def _flags(endpoint: EndpointStats, health: EndpointHealth) -> str:
    """Envoy's flags: ``healthy``, or what is wrong, each with a leading slash."""
    flags = []
    if health.verdict.health is Health.UNHEALTHY:
        flags.append("/failed_active_hc")
    if not endpoint.ready:
        flags.append("/not_connected")
    return "".join(flags) or "healthy"


def _host_document(snapshot: Snapshot, endpoint: EndpointStats) -> dict[str, Any]:
    health = snapshot.health.get(EndpointKey(endpoint.cluster, endpoint.id), EndpointHealth())
    counters = [(name, value) for name, value in metrics.numbers(endpoint) if isinstance(value, int)]
    return {
        "address": _address_document(endpoint.address),
        "stats": [{"name": name.removeprefix("upstream_"), "value": value} for name, value in counters],
        "health_status": {"state": endpoint.state, "reason": endpoint.reason, "flags": _flags(endpoint, health)},
        "hostname": endpoint.id,
        "weight": 1,
        "run_id": endpoint.run_id,
        "redis_version": endpoint.version,
        "latency_us": asdict(endpoint.upstream_rq_time_us),
        "probe": _probe_document(EndpointKey(endpoint.cluster, endpoint.id), health),
    }


def _address_document(address: str) -> dict[str, Any]:
    if address.startswith("unix:"):
        return {"pipe": {"path": address.removeprefix("unix:")}}
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port) if port.isdecimal() else 0}}


def _probe_document(key: EndpointKey, health: EndpointHealth) -> dict[str, Any]:
    return {
        "cluster": key.cluster,
        "endpoint": key.id,
        **asdict(health.verdict),
        "took_ms": round(health.took * 1000, 3),
        "facts": asdict(health.facts) if health.facts is not None else None,
    }


def replicas(view: View, request: Request) -> Response:
    """State, lag, resync, scrubs and refills of every replica."""
    snapshot = view.snapshot()
    if _wants_json(request):
        return json_answer(
            {
                "replicas": mirrors.documents(snapshot),
                "refills": mirrors.refill_documents(snapshot),
                "logs": [asdict(each) for each in snapshot.stats.logs],
            }
        )
    if not snapshot.stats.replicas:
        return Response("no route has a mirror\n")
    return _lines(mirrors.lines(snapshot))


def resync(view: View, request: Request) -> Response:
    """What an operator asks of the mirrors of a cluster."""
    cluster, action = request.query.get("cluster"), request.query.get("action", "start")
    if not cluster:
        return Response(f"say which: POST /resync{RESYNC_QUERY}\n", HTTPStatus.BAD_REQUEST)
    try:
        names = view.resync(cluster, action)
    except UnknownClusterError as error:
        return Response(f"{error}\n", HTTPStatus.NOT_FOUND)
    except ValueError as error:
        return Response(f"{error}\n", HTTPStatus.BAD_REQUEST)
    if _wants_json(request):
        return json_answer({"cluster": cluster, "action": action, "replicas": list(names)})
    return Response("".join(f"{action}: {name}\n" for name in names) or f"{action}: no replica yet\n")


# --- the process ------------------------------------------------------------------------------------------------------


def config_dump(view: View, request: Request) -> Response:
    """The configuration and the plan in force, without secrets."""
    return json_answer(view.config_dump())


def server_info(view: View, request: Request) -> Response:
    """Version, state, uptime and configuration file."""
    return json_answer(view.server_info())


def listeners(view: View, request: Request) -> Response:
    """Envoy's ``name::address``, or ``format=json``."""
    bound = view.snapshot().listeners
    if _wants_json(request):
        document = [{"name": name, "local_address": _address_document(address)} for name, address in bound]
        return json_answer({"listener_statuses": document})
    return _lines(f"{name}::{address}" for name, address in bound)


def memory(view: View, request: Request) -> Response:
    """Memory in bytes: what the system counts, and the data plane's budget in use."""
    return json_answer(memory_document() | {"data_plane": view.snapshot().stats.worker.memory_bytes})


def memory_document() -> dict[str, int]:
    """What the system counts, in bytes: resident now and at most, and what the process asked for."""
    names = {"VmRSS": "resident", "VmHWM": "resident_peak", "RssAnon": "resident_anonymous", "VmData": "data"}
    found: dict[str, int] = {}
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name in names:
                    found[names[name]] = int(value.split()[0]) * 1024
    except OSError:
        pass  # Not Linux: what we know of ourselves has to do.
    return found | {"python_objects": len(gc.get_objects())}


def drain_listeners(view: View, request: Request) -> Response:
    """Begin the graceful end."""
    view.drain()
    return Response("OK\n")


def quitquitquit(view: View, request: Request) -> Response:
    """End at once."""
    view.quit()
    return Response("OK\n")


def logging_(view: View, request: Request) -> Response:
    """Change the level of the log."""
    level = request.query.get("level")
    if level is None:
        return Response("say which: POST /logging?level=debug|info|warning|error\n", HTTPStatus.BAD_REQUEST)
    try:
        view.set_log_level(level)
    except ValueError as error:
        return Response(f"{error}\n", HTTPStatus.BAD_REQUEST)
    return Response(f"log level: {level}\n")


RESYNC_QUERY = "?cluster=NAME&action=" + "|".join(ACTIONS)

ENDPOINTS = (
    Endpoint("GET", "/", "this page", front),
    Endpoint("GET", "/help", "this list as text", help_),
    Endpoint("GET", "/ready", "200 LIVE when every route can be served, else 503 and what is missing", ready),
    Endpoint("GET", "/healthz", "200 while the process runs, whatever the Redis servers do", healthz),
    Endpoint("GET", "/stats", "statistics: ?filter=regex, ?usedonly, ?format=json|prometheus", stats),
    Endpoint("GET", "/stats/prometheus", "statistics in Prometheus's text format", prometheus),
    Endpoint("GET", "/clusters", "clusters and their endpoints: ?format=json", clusters),
    Endpoint("GET", "/replicas", "mirrors: state, lag, resync, scrubs: ?format=json", replicas),
    Endpoint("GET", "/group", "who leads the group, and how each member is, as JSON", group),
    Endpoint("GET", "/listeners", "listeners and their addresses: ?format=json", listeners),
    Endpoint("GET", "/config_dump", "configuration and plan in force, without secrets", config_dump),
    Endpoint("GET", "/server_info", "version, state, uptime, configuration file", server_info),
    Endpoint("GET", "/memory", "memory in bytes", memory),
    Endpoint("POST", "/resync", f"bring mirrors up to date by hand: {RESYNC_QUERY}", resync, RESYNC_QUERY),
    Endpoint("POST", "/leader", f"let a member lead the group: {LEADER_QUERY}", leader, LEADER_QUERY),
    Endpoint(
        "POST", "/logging", "change the level of the log: ?level=debug|info|warning|error", logging_, "?level=debug"
    ),
    Endpoint("POST", "/drain_listeners", "stop accepting, let clients finish, then exit", drain_listeners),
    Endpoint("POST", "/quitquitquit", "exit at once", quitquitquit),
)
