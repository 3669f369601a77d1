"""Writes a configuration in the native form, such that reading it gives the same configuration.

Fields that have their default value are left out, but for those an operator looks for.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from redisha.config.model import Cluster, Config, Health, Limits, Listener, ListenerAuth, Resync, Route, Scrub
from redisha.config.scalars import format_duration, format_size
from redisha.errors import Problem

# Text that every YAML reader takes for text, also within [] and {}.
_PLAIN = re.compile(
    r"(?!(?:null|true|false|yes|no|on|off|y|n)\Z)[A-Za-z][A-Za-z0-9_./-]*(?::[A-Za-z0-9_./-]+)*\Z", re.I | re.ASCII
)
_ADDRESS = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}:[0-9]{1,5}\Z", re.ASCII)
_QUANTITY = re.compile(r"[0-9]+(?:ms|s|m|h|KB|MB|GB)\Z", re.ASCII)

_SIZES = ("max_request", "max_output", "memory", "log_bytes")


def to_yaml(config: Config, source: str = "", warnings: Iterable[Problem] = ()) -> str:
    """The configuration as native YAML.

    Args:
        config: What to write; secrets are written as references.
        source: The file it was read from, for the comment at the top.
        warnings: Comments at the top.
    """
    lines = [_comment(f"converted from {source}")] if source else []
    lines += [_comment(str(warning)) for warning in warnings]
    document: dict[str, Any] = {}
    if config.admin is not None:
        document["admin"] = {"bind": config.admin.bind}
    if config.state_dir is not None:
        document["state_dir"] = config.state_dir
    blocks = [f"{key}: {_flow(value)}" for key, value in document.items()]
    blocks.append("listeners:")
    for listener in config.listeners:
        blocks += _listener(listener)
    blocks.append("clusters:")
    for name, cluster in config.clusters.items():
        blocks.append(f"  {_scalar(name)}:")
        blocks += [f"    {key}: {_flow(value)}" for key, value in _cluster(cluster).items()]
    resync = _resync(config.resync)
    if resync:
        blocks.append(f"resync: {_flow(resync)}")
    limits = _limits(config.limits)
    if limits:
        blocks.append(f"limits: {_flow(limits)}")
    return "\n".join([*lines, *blocks]) + "\n"


def _comment(text: str) -> str:
    return "# " + "".join(char if char.isprintable() else " " for char in text)


def _listener(listener: Listener) -> list[str]:
    fields: dict[str, Any] = {"name": listener.name}
    if listener.stat_prefix is not None:
        fields["stat_prefix"] = listener.stat_prefix
    fields["bind"] = list(listener.bind)
    if listener.auth is not None:
        fields["auth"] = _auth(listener.auth)
    if listener.case_insensitive:
        fields["case_insensitive"] = True
    lines = [
        f"{'  - ' if number == 0 else '    '}{key}: {_flow(value)}"
        for number, (key, value) in enumerate(fields.items())
    ]
    return [*lines, "    routes:", *(f"      - {_flow(_route(route))}" for route in listener.routes)]


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
        fields["mirrors"] = [{"cluster": mirror.cluster, "reads": mirror.reads} for mirror in route.mirrors]
    return fields


def _cluster(cluster: Cluster) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "endpoints": list(cluster.endpoints),
        "discovery": cluster.discovery,
        "balance": cluster.balance,
        "connect_timeout": format_duration(cluster.connect_timeout),
        "op_timeout": format_duration(cluster.op_timeout),
    }
    if cluster.dns_refresh != Cluster.model_fields["dns_refresh"].default:
        fields["dns_refresh"] = format_duration(cluster.dns_refresh)
    if cluster.respect_dns_ttl:
        fields["respect_dns_ttl"] = True
    if cluster.hash_tags:
        fields["hash_tags"] = True
    if cluster.auth is not None:
        user = cluster.auth.username
        fields["auth"] = ({"username": user.reference} if user is not None else {}) | {
            "password": cluster.auth.password.reference
        }
    health = _health(cluster.health)
    return fields | ({"health": health} if health else {})


def _health(health: Health) -> dict[str, Any]:
    durations = ("interval", "timeout")
    return {
        key: format_duration(value) if key in durations else value
        for key, value in health.model_dump().items()
        if value != Health.model_fields[key].default
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


def _flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return _scalar(value) if isinstance(value, str) else str(value)


def _scalar(text: str) -> str:
    """Text without quotes where no reader can take it for something else, otherwise in JSON's quotes."""
    if any(pattern.match(text) for pattern in (_PLAIN, _ADDRESS, _QUANTITY)):
        return text
    # JSON leaves DEL and the C1 controls as they are; YAML allows them only escaped.
    return re.sub(
        "[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]",
        lambda match: f"\\u{ord(match[0]):04x}",
        json.dumps(text, ensure_ascii=False),
    )
