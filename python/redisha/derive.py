"""What follows from a configuration: names to ask for, endpoints to probe, readiness, what may be shown. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from redisha.admin import ServerState
from redisha.config.balancing import WITHOUT_HASH
from redisha.config.model import Cluster, Config, Listener, Route, Section
from redisha.config.scalars import Tcp, parse_endpoint
from redisha.config.secret import Secret
from redisha.core import EndpointStats
from redisha.health.monitor import Checks, EndpointKey
from redisha.health.state import Thresholds
from redisha.health.talk import Target
from redisha.plan import Plan, addresses, targets
from redisha.resolve import NameState, Policy
from redisha.slotwatch import Watched


def policies(config: Config) -> dict[str, Policy]:
    """How each name of the configuration is resolved."""
    return {each.host: Policy(each.refresh_ms / 1000, each.respect_dns_ttl) for each in targets(config)}


def watched(config: Config, resolved: Mapping[str, Sequence[str]]) -> dict[str, Watched]:
    """The Redis Clusters, whose slot maps are asked for."""
    return {
        name: Watched(
            addresses(cluster, resolved),
            cluster.refresh / 1000,
            cluster.health.timeout / 1000,
            cluster.auth.username.value if cluster.auth is not None and cluster.auth.username is not None else None,
            cluster.auth.password.value if cluster.auth is not None else None,
        )
        for name, cluster in config.clusters.items()
        if cluster.type == "redis_cluster"
    }


def cluster_hosts(config: Config) -> dict[str, tuple[str, ...]]:
    """The names that each cluster's endpoints have; literals and Unix sockets have none."""
    found = {}
    for name, cluster in config.clusters.items():
        addresses = [parse_endpoint(each) for each in cluster.endpoints]
        names = [each.host for each in addresses if isinstance(each, Tcp) and not each.is_ip]
        found[name] = tuple(dict.fromkeys(names))
    return found


def checks(config: Config, plan: Plan) -> dict[EndpointKey, Checks]:
    """How each endpoint of the plan is probed."""
    found = {}
    for cluster in plan.clusters:
        if cluster.name not in config.clusters:
            continue  # another member of the group: it is seen by its beats
        health = config.clusters[cluster.name].health
        for endpoint in cluster.endpoints:
            if endpoint.address is None:
                continue
            found[EndpointKey(cluster.name, endpoint.id)] = Checks(
                Target(endpoint.address, cluster.username, cluster.password),
                interval=health.interval / 1000,
                timeout=health.timeout / 1000,
                thresholds=Thresholds(health.healthy_threshold, health.unhealthy_threshold),
                may_be_replica=_may_have_replicas(config.clusters[cluster.name]),
            )
    return found


def _may_have_replicas(cluster: Cluster) -> bool:
    """Whether an endpoint may follow another Redis: in a Redis Cluster, and where any copy of the data will do."""
    return cluster.type == "redis_cluster" or cluster.balance in WITHOUT_HASH


def primary_clusters(config: Config) -> tuple[str, ...]:
    """The clusters that a route leads to, mirrors aside; each once."""
    return tuple(dict.fromkeys(route.cluster for route in _routes(config)))


def mirrored_clusters(config: Config) -> tuple[str, ...]:
    """The clusters that have a mirror or are one; each once, in the order of the file."""
    found = {name for pair in mirrored_pairs(config) for name in pair}
    return tuple(name for name in config.clusters if name in found)


def mirrored_pairs(config: Config) -> tuple[tuple[str, str], ...]:
    """(primary's cluster, mirror's cluster) of every mirror that gets everything; each once."""
    return tuple(dict.fromkeys((route.cluster, each.cluster) for route in _routes(config) for each in route.copies))


@dataclass(frozen=True, slots=True)
class Server:
    """A Redis of the plan, as one connects to it beside the data plane.

    Attributes:
        name: ``cluster/endpoint``, as in events and statistics.
        cluster: its cluster.
        address: where it is; None while its name does not resolve.
        username: for AUTH; None for the default user.
        password: for AUTH; None when none is asked.
        alone: whether it is its cluster's only one, so that it holds all of the cluster's keys.
        connect_timeout: seconds for connecting.
        op_timeout: seconds for one command.
    """

    name: str
    cluster: str
    address: str | None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    alone: bool = True
    connect_timeout: float = 0.25
    op_timeout: float = 5.0


def servers(plan: Plan) -> dict[str, Server]:
    """Every Redis of the plan by its name."""
    return {
        (name := f"{cluster.name}/{endpoint.id}"): Server(
            name,
            cluster.name,
            endpoint.address,
            cluster.username,
            cluster.password,
            len(cluster.endpoints) == 1,
            cluster.connect_timeout_ms / 1000,
            cluster.op_timeout_ms / 1000,
        )
        for cluster in plan.clusters
        if plan.group is None or cluster.name not in plan.group.peers
        for endpoint in cluster.endpoints
    }


class Scope:
    """Which keys a mirror has in common with its primary: those of the routes that name both.

    Args:
        config: the configuration.
        primary: the primary's cluster.
        mirror: the mirror's cluster.
    """

    def __init__(self, config: Config, primary: str, mirror: str) -> None:
        self._tables = [
            _Table(listener, primary, mirror)
            for listener in config.listeners
            if any(_leads(route, primary, mirror) for route in listener.routes)
        ]

    @property
    def whole(self) -> bool:
        """Whether that is every key."""
        return any(table.whole for table in self._tables)

    def has(self, key: bytes) -> bool:
        """Whether both have this key, named as the Redis servers name it."""
        return any(table.has(key) for table in self._tables)


class _Table:
    """One listener's routes, longest prefix first; each with whether it leads to the pair."""

    def __init__(self, listener: Listener, primary: str, mirror: str) -> None:
        self._folded = listener.case_insensitive
        routes = sorted(listener.routes, key=lambda route: -len(route.prefix.encode()))
        self._routes = [
            (self._fold(route.prefix.encode()), route.remove_prefix, _leads(route, primary, mirror)) for route in routes
        ]
        self.whole = any(not prefix and leads for prefix, _, leads in self._routes) and all(
            leads and not (cut and prefix) for prefix, cut, leads in self._routes
        )

    def has(self, key: bytes) -> bool:
        return self.whole or any(
            self._taken(prefix + key if cut else key) == number
            for number, (prefix, cut, leads) in enumerate(self._routes)
            if leads
        )

    def _taken(self, key: bytes) -> int | None:
        """Which route takes a key as a client names it."""
        folded = self._fold(key)
        return next((number for number, (prefix, _, _) in enumerate(self._routes) if folded.startswith(prefix)), None)

    def _fold(self, key: bytes) -> bytes:
        return key.lower() if self._folded else key


def _leads(route: Route, primary: str, mirror: str) -> bool:
    return route.cluster == primary and any(each.cluster == mirror for each in route.copies)


def _routes(config: Config) -> list[Route]:
    return [route for listener in config.listeners for route in listener.routes]


def missing(
    state: ServerState,
    config: Config,
    endpoints: Sequence[EndpointStats],
    names: Mapping[str, NameState],
    elsewhere: Set[str] = frozenset(),
) -> tuple[str, ...]:
    """Why the process is not ready: one text per reason, none when it is.

    It is ready when it is live and every cluster that a route leads to has an endpoint the data plane is connected to.
    A mirror that is away does not make it unready: nobody would be served better elsewhere. The clusters in
    ``elsewhere`` are served by others, and need no endpoint here.
    """
    if state is ServerState.PRE_INITIALIZING:
        return ("no plan is in force yet",)
    if state is ServerState.DRAINING:
        return ("draining: no new clients are accepted",)
    hosts = cluster_hosts(config)
    reasons = []
    for cluster in primary_clusters(config):
        if cluster in elsewhere:
            continue
        here = [each for each in endpoints if each.cluster == cluster]
        if any(each.ready for each in here):
            continue
        why = [f"{each.id} is {each.state}{f' ({each.reason})' if each.reason else ''}" for each in here]
        why += [
            f"{host} does not resolve: {names[host].error or 'no answer yet'}"
            for host in hosts[cluster]
            if host in names and not names[host].addresses
        ]
        reasons.append(f"cluster {cluster} has no ready endpoint: {'; '.join(why) or 'it has none'}")
    return tuple(reasons)


def redacted(value: object) -> Any:
    """A configuration or a plan as plain data for JSON, without its secrets."""
    if isinstance(value, Secret):
        return "[redacted]"
    if isinstance(value, Section):
        return {name: redacted(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {
            str(key): "[redacted]" if key in {"password", "username", "secret"} and each is not None else redacted(each)
            for key, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [redacted(each) for each in value]
    return value
