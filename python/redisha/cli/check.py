"""``redisha check FILE``: is the file right, and what does it do."""

import json
import os
from pathlib import Path
from typing import Any

import click

from redisha.config.advice import advise
from redisha.config.load import Loaded, load
from redisha.config.model import Cluster, Config, Group, Listener, Resync, Route
from redisha.config.scalars import format_duration, format_size
from redisha.errors import ConfigError
from redisha.statedir import Preview, choose, preview

_FORMS = {"native": "redisha's own form", "envoy": "an Envoy bootstrap file", "dynomite": "a Dynomite file"}


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: times in milliseconds, sizes in bytes.")
def check(file: Path, as_json: bool) -> None:
    """Say whether FILE is right, and what it does.

    Prints every problem with its line, or else where each key goes, what is ignored, and advice. The exit code is 0
    when the file can be run, otherwise 1. Nothing is connected to, and no name is resolved.
    """
    try:
        loaded = load(file)
    except ConfigError as error:
        if as_json:
            problems = [problem.as_dict() for problem in error.problems]
            click.echo(json.dumps({"ok": False, "file": str(file), "problems": problems}, indent=2))
        else:
            click.echo(str(error), err=True)
            count = len(error.problems)
            click.echo(f"{file}: {count} problem{'s' if count > 1 else ''}", err=True)
        raise SystemExit(error.exit_code) from None
    if as_json:
        click.echo(json.dumps(_as_dict(loaded), indent=2))
    else:
        click.echo("\n".join(summary(loaded)))


def summary(loaded: Loaded) -> list[str]:
    """The lines that tell what a configuration does."""
    config = loaded.config
    lines = [f"{loaded.source}: fine ({_FORMS[loaded.kind]})", ""]
    for listener in config.listeners:
        lines += _listener(listener)
    if config.group is not None:
        lines += _group(config.group)
    width = max(map(len, config.clusters), default=0)
    lines += [f"cluster {name:<{width}}  {_cluster(cluster)}" for name, cluster in config.clusters.items()]
    if config.admin is not None:
        lines.append(f"admin {config.admin.bind}")
    if config.dynomite_stats is not None:
        lines.append(f"Dynomite's REST {config.dynomite_stats.bind}")
    sampled = any(route.mirrors for listener in config.listeners for route in listener.routes)
    if config.group is not None or sampled:
        state = _state(config)
        lines.append(f"state {state.path or 'in memory'}{f' ({state.note})' if state.note and state.ok else ''}")
        lines += [f"resync {_resync(config.resync)}"] if _mirrors(config) else []
        lines += [] if state.ok else ["", f"warning: {state.note}"]
    lines += ["", *(f"note: {note}" for note in loaded.notes)] if loaded.notes else []
    lines += ["", *(f"warning: {warning}" for warning in loaded.warnings)] if loaded.warnings else []
    advice = advise(config)
    return [*lines, "", *(f"advice: {text}" for text in advice)] if advice else lines


def _mirrors(config: Config) -> bool:
    return any(route.copies for listener in config.listeners for route in listener.routes)


def _state(config: Config) -> Preview:
    """The folder that `redisha run` would use now, without options, in this environment and as this user."""
    return preview(choose(None, os.environ, config), config, os.environ)


def _resync(resync: Resync) -> str:
    keys, size, scrub = resync.max_keys_per_second, resync.max_bytes_per_second, resync.scrub
    bounds = [f"{keys} keys/s"] if keys else []
    bounds += [f"{format_size(size)}/s"] if size else []
    limit = f"at most {' and '.join(bounds)}" if bounds else "as fast as clients allow"
    every = format_duration(scrub.interval)
    return f"{limit}, {f'a scrub of {scrub.sample} keys every {every}' if scrub.interval else 'no scrub'}"


def _listener(listener: Listener) -> list[str]:
    asked = ", clients must AUTH" if listener.auth is not None else ""
    lines = [f"listener {listener.name} on {', '.join(listener.bind)}{asked}"]
    if listener.group is not None:
        levels = (("writes", listener.write_consistency), ("reads", listener.read_consistency))
        own = "".join(f", {what} {level}" for what, level in levels if level is not None)
        return [*lines, f"  everything  → group {listener.group}{own}", ""]
    shown = [(_keys(route, listener), _way(route)) for route in listener.routes]
    if all(route.prefix for route in listener.routes):
        shown.append(("everything else", "no route: an error"))
    width = max(len(keys) for keys, _ in shown)
    return [*lines, *(f"  {keys:<{width}}  → {way}" for keys, way in shown), ""]


def _keys(route: Route, listener: Listener) -> str:
    if not route.prefix:
        return "everything" if len(listener.routes) == 1 else "everything else"
    case = " in any case" if listener.case_insensitive else ""
    return f"{route.prefix}…{case}"


def _way(route: Route) -> str:
    way = route.cluster + (" without the prefix" if route.remove_prefix and route.prefix else "")
    for mirror in route.mirrors:
        what = "writes" if mirror.reads == "exclude" else "writes and reads"
        part = "" if mirror.is_copy else f" (sampled: {mirror.fraction:g} %, no copy)"
        way += f", {what} also → {mirror.cluster}{part}"
    return way


def _group(group: Group) -> list[str]:
    kind = _arbiter(group)
    arbiter = f"the arbiter is {kind}" if kind is not None else "no arbiter"
    secret = "members know each other by a secret" if group.secret is not None else "no secret"
    beats = f"a beat every {format_duration(group.heartbeat)}, gone after {group.missed_heartbeats} missed"
    return [
        f"group {group.name}, member {group.member or 'named like the machine'}",
        f"  its Redis  {group.redis}, connect {format_duration(group.connect_timeout)}, "
        f"command {format_duration(group.op_timeout)}{', with AUTH' if group.auth is not None else ''}",
        f"  peers      {' '.join(group.peers)}, peer port {group.listen}, {secret}",
        f"  writes     {group.write_consistency}, reads {group.read_consistency}, min_in_sync {group.min_in_sync}",
        f"  partition  {group.on_partition}, {arbiter}; {beats}",
        "",
    ]


def _arbiter(group: Group) -> str | None:
    """What has the vote that a group of two lacks."""
    if group.arbiter is None:
        return None
    return "kubernetes" if group.arbiter.kubernetes is not None else "etcd"


def _cluster(cluster: Cluster) -> str:
    parts = [" ".join(cluster.endpoints)]
    if cluster.type == "redis_cluster":
        parts.append(f"Redis Cluster, slot map asked every {format_duration(cluster.refresh)}")
        parts.append(f"reads from {cluster.read_policy}")
    if cluster.balance != "maglev":
        parts.append(f"balance {cluster.balance}")
    if cluster.discovery == "strict_dns":
        parts.append(f"names asked again every {format_duration(cluster.dns_refresh)}")
    parts.append(f"connect {format_duration(cluster.connect_timeout)}")
    parts.append(f"command {format_duration(cluster.op_timeout)}")
    if cluster.auth is not None:
        parts.append("with AUTH")
    return ", ".join(parts)


def _as_dict(loaded: Loaded) -> dict[str, Any]:
    config: Config = loaded.config
    state = _state(config)
    return {
        "ok": True,
        "file": str(loaded.source),
        "kind": loaded.kind,
        "admin": config.admin.bind if config.admin is not None else None,
        "listeners": [
            listener.model_dump(mode="json", exclude={"auth"}) | {"auth": listener.auth is not None}
            for listener in config.listeners
        ],
        "clusters": {
            name: cluster.model_dump(mode="json", exclude={"auth"}) | {"auth": cluster.auth is not None}
            for name, cluster in config.clusters.items()
        },
        "group": (
            config.group.model_dump(mode="json", exclude={"auth", "secret", "arbiter"})
            | {
                "auth": config.group.auth is not None,
                "secret": config.group.secret is not None,
                "arbiter": _arbiter(config.group),
            }
            if config.group is not None
            else None
        ),
        "dynomite_stats": config.dynomite_stats.model_dump(mode="json") if config.dynomite_stats is not None else None,
        "state_dir": {"path": str(state.path) if state.path is not None else None, "ok": state.ok, "note": state.note},
        "resync": config.resync.model_dump(mode="json"),
        "limits": config.limits.model_dump(mode="json"),
        "notes": [note.as_dict() for note in loaded.notes],
        "warnings": [warning.as_dict() for warning in loaded.warnings],
        "advice": advise(config),
    }
