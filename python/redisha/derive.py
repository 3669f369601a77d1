"""What follows from a configuration: names to ask for, endpoints to probe, readiness, what may be shown. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from redisha.admin import ServerState
from redisha.config.model import Config, Section
from redisha.config.scalars import Tcp, parse_endpoint
from redisha.config.secret import Secret
from redisha.core import EndpointStats
from redisha.health.monitor import Checks, EndpointKey
from redisha.health.probe import Target as ProbeTarget
from redisha.health.state import Thresholds
from redisha.plan import Plan, targets
from redisha.resolve import NameState, Policy


def policies(config: Config) -> dict[str, Policy]:
    """How each name of the configuration is resolved."""
    return {each.host: Policy(each.refresh_ms / 1000, each.respect_dns_ttl) for each in targets(config)}


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
        health = config.clusters[cluster.name].health
        for endpoint in cluster.endpoints:
            if endpoint.address is None:
                continue
            found[EndpointKey(cluster.name, endpoint.id)] = Checks(
                ProbeTarget(endpoint.address, cluster.username, cluster.password),
                interval=health.interval / 1000,
                timeout=health.timeout / 1000,
                thresholds=Thresholds(health.healthy_threshold, health.unhealthy_threshold),
            )
    return found


def primary_clusters(config: Config) -> tuple[str, ...]:
    """The clusters that a route leads to, mirrors aside; each once."""
    return tuple(dict.fromkeys(route.cluster for listener in config.listeners for route in listener.routes))


def missing(
    state: ServerState, config: Config, endpoints: Sequence[EndpointStats], names: Mapping[str, NameState]
) -> tuple[str, ...]:
    """Why the process is not ready: one text per reason, none when it is.

    It is ready when it is live and every cluster that a route leads to has an endpoint the data plane is connected to.
    A mirror that is away does not make it unready: nobody would be served better elsewhere.
    """
    if state is ServerState.PRE_INITIALIZING:
        return ("no plan is in force yet",)
    if state is ServerState.DRAINING:
        return ("draining: no new clients are accepted",)
    hosts = cluster_hosts(config)
    reasons = []
    for cluster in primary_clusters(config):
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
            str(key): "[redacted]" if key in {"password", "username"} and each is not None else redacted(each)
            for key, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [redacted(each) for each in value]
    return value
