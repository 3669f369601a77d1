"""Writes a configuration in the native form, such that reading it gives the same configuration.

Fields that have their default value are left out, but for those an operator looks for.
"""

from collections.abc import Iterable
from typing import Any

from redisha.config.group import Arbiter
from redisha.config.model import (
    Cluster,
    Config,
    DynomiteStats,
    Group,
    Health,
    Limits,
    Listener,
    ListenerAuth,
    Mirror,
    Resync,
    Route,
    Scrub,
    Section,
    UpstreamAuth,
)
from redisha.config.scalars import format_duration, format_size
from redisha.config.secret import Secret
from redisha.config.yamltext import comment, flow, scalar
from redisha.errors import Problem

_SIZES = ("max_request", "max_output", "memory", "log_bytes")


def to_yaml(config: Config, source: str = "", warnings: Iterable[Problem] = ()) -> str:
    """The configuration as native YAML.

    Args:
        config: What to write; secrets are written as references.
        source: The file it was read from, for the comment at the top.
        warnings: Comments at the top.
    """
    lines = [comment(f"converted from {source}")] if source else []
    lines += [comment(str(warning)) for warning in warnings]
    document: dict[str, Any] = {}
    if config.admin is not None:
        document["admin"] = {"bind": config.admin.bind}
    if config.dynomite_stats is not None:
        document["dynomite_stats"] = _dynomite_stats(config.dynomite_stats)
    if config.state_dir is not None:
        document["state_dir"] = config.state_dir
    blocks = [f"{key}: {flow(value)}" for key, value in document.items()]
    blocks.append("listeners:")
    for listener in config.listeners:
        blocks += _listener(listener)
    if config.group is not None:
        blocks.append("group:")
        blocks += [f"  {key}: {flow(value)}" for key, value in _group(config.group).items()]
    if config.clusters:
        blocks.append("clusters:")
    for name, cluster in config.clusters.items():
        blocks.append(f"  {scalar(name)}:")
        blocks += [f"    {key}: {flow(value)}" for key, value in _cluster(cluster).items()]
    resync = _resync(config.resync)
    if resync:
        blocks.append(f"resync: {flow(resync)}")
    limits = _limits(config.limits)
    if limits:
        blocks.append(f"limits: {flow(limits)}")
    return "\n".join([*lines, *blocks]) + "\n"


def _listener(listener: Listener) -> list[str]:
    fields: dict[str, Any] = {"name": listener.name}
    if listener.stat_prefix is not None:
        fields["stat_prefix"] = listener.stat_prefix
    fields["bind"] = list(listener.bind)
    if listener.auth is not None:
        fields["auth"] = _auth(listener.auth)
    if listener.case_insensitive:
        fields["case_insensitive"] = True
    for key in ("group", "write_consistency", "read_consistency"):
        if (value := getattr(listener, key)) is not None:
            fields[key] = value
    lines = [
        f"{'  - ' if number == 0 else '    '}{key}: {flow(value)}" for number, (key, value) in enumerate(fields.items())
    ]
    if listener.group is None or listener.routes:
        lines += ["    routes:", *(f"      - {flow(_route(route))}" for route in listener.routes)]
    return lines


def _auth(auth: ListenerAuth) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if auth.passwords:
        fields["passwords"] = [password.reference for password in auth.passwords]
    if auth.users:
        fields["users"] = [{"name": user.name.reference, "password": user.password.reference} for user in auth.users]
    return fields


def _route(route: Route) -> dict[str, Any]:
    fields: dict[str, Any] = {"prefix": route.prefix, "cluster": route.cluster}
    if route.remove_prefix:
        fields["remove_prefix"] = True
    if route.mirrors:
        fields["mirrors"] = [_mirror(mirror) for mirror in route.mirrors]
    return fields


def _mirror(mirror: Mirror) -> dict[str, Any]:
    fields: dict[str, Any] = {"cluster": mirror.cluster, "reads": mirror.reads}
    if not mirror.is_copy:
        fields["fraction"] = int(mirror.fraction) if mirror.fraction.is_integer() else mirror.fraction
    return fields


def _cluster(cluster: Cluster) -> dict[str, Any]:
    fields: dict[str, Any] = {"type": cluster.type} if cluster.type != "standalone" else {}
    fields |= {
        "endpoints": list(cluster.endpoints),
        "discovery": cluster.discovery,
        "balance": cluster.balance,
        "connect_timeout": format_duration(cluster.connect_timeout),
        "op_timeout": format_duration(cluster.op_timeout),
    }
    for key in ("minimum_ring_size", "maximum_ring_size", "ring_hash_function", "choice_count"):
        if (value := getattr(cluster, key)) != Cluster.model_fields[key].default:
            fields[key] = value
    if cluster.dns_refresh != Cluster.model_fields["dns_refresh"].default:
        fields["dns_refresh"] = format_duration(cluster.dns_refresh)
    if cluster.respect_dns_ttl:
        fields["respect_dns_ttl"] = True
    if cluster.hash_tags:
        fields["hash_tags"] = True
    if cluster.enable_redirection:
        fields["enable_redirection"] = True
    if cluster.read_policy != "master":
        fields["read_policy"] = cluster.read_policy
    if cluster.refresh != Cluster.model_fields["refresh"].default:
        fields["refresh"] = format_duration(cluster.refresh)
    return fields | _towards_redis(cluster.auth, cluster.health)


def _towards_redis(auth: UpstreamAuth | None, health: Health) -> dict[str, Any]:
    """The fields ``auth`` and ``health``, as clusters and groups have them."""
    fields: dict[str, Any] = {}
    if auth is not None:
        fields["auth"] = _credentials(auth.username, auth.password)
    probes = _health(health)
    return fields | ({"health": probes} if probes else {})


def _credentials(username: Secret | None, password: Secret) -> dict[str, Any]:
    return ({"username": username.reference} if username is not None else {}) | {"password": password.reference}


def _health(health: Health) -> dict[str, Any]:
    durations = ("interval", "timeout")
    return {
        key: format_duration(value) if key in durations else value
        for key, value in health.model_dump().items()
        if value != Health.model_fields[key].default
    }


def _group(group: Group) -> dict[str, Any]:
    fields: dict[str, Any] = {"name": group.name}
    if group.member is not None:
        fields["member"] = group.member
    fields |= {"listen": group.listen, "redis": group.redis, "peers": list(group.peers)}
    for key in ("write_consistency", "read_consistency", "min_in_sync", "on_partition"):
        fields[key] = getattr(group, key)
    if group.arbiter is not None:
        fields["arbiter"] = _arbiter(group.arbiter)
    if group.secret is not None:
        fields["secret"] = group.secret.reference
    for key in ("heartbeat", "connect_timeout", "op_timeout", "dns_refresh"):
        if (value := getattr(group, key)) != Group.model_fields[key].default:
            fields[key] = format_duration(value)
    if group.missed_heartbeats != Group.model_fields["missed_heartbeats"].default:
        fields["missed_heartbeats"] = group.missed_heartbeats
    return fields | _towards_redis(group.auth, group.health)


def _arbiter(arbiter: Arbiter) -> dict[str, Any]:
    if arbiter.kubernetes is not None:
        return {"kubernetes": _said(arbiter.kubernetes)}
    assert arbiter.etcd is not None  # noqa: S101  # an arbiter is one of the two
    etcd = arbiter.etcd
    fields: dict[str, Any] = {"endpoints": list(etcd.endpoints), "key": etcd.key}
    return {"etcd": fields | (_credentials(etcd.username, etcd.password) if etcd.password is not None else {})}


def _dynomite_stats(stats: DynomiteStats) -> dict[str, Any]:
    fields = {"bind": stats.bind} | _said(stats)
    return fields | ({"nodes": [_said(node) for node in stats.nodes]} if stats.nodes else {})


def _said(section: Section) -> dict[str, Any]:
    """A section's single values that differ from their defaults."""
    fields = type(section).model_fields
    return {
        key: value
        for key, value in section.model_dump(exclude={"nodes"}).items()
        if fields[key].is_required() or value != fields[key].default
    }


def _limits(limits: Limits) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key, value in limits.model_dump().items():
        if value == Limits.model_fields[key].default:
            continue
        fields[key] = _size(value) if key in _SIZES else format_duration(value) if value and "timeout" in key else value
    return fields


def _resync(resync: Resync) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if resync.max_keys_per_second:
        fields["max_keys_per_second"] = resync.max_keys_per_second
    if resync.max_bytes_per_second:
        fields["max_bytes_per_second"] = _size(resync.max_bytes_per_second)
    scrub: dict[str, Any] = {}
    if resync.scrub.interval != Scrub().interval:
        scrub["interval"] = format_duration(resync.scrub.interval) if resync.scrub.interval else 0
    if resync.scrub.sample != Scrub().sample:
        scrub["sample"] = resync.scrub.sample
    return fields | ({"scrub": scrub} if scrub else {})


def _size(value: int) -> str | int:
    text = format_size(value)
    return value if text.isdigit() else text
