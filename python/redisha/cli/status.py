"""``redisha status``: what a running sidecar does."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from redisha.admin.client import DEFAULT, AdminClient, address_in
from redisha.cli import members
from redisha.cli.words import BAD, GOOD, bar, coloured, coloured_state, duration
from redisha.config.scalars import ScalarError
from redisha.errors import RedishaError

EVERY = 1.0
"""Seconds from one look to the next with ``--watch``."""

_EPILOG = """\b
Examples:
  redisha status                        the sidecar whose admin server is at 127.0.0.1:8001
  redisha status -c redisha.yaml        the one that runs this file
  redisha status --watch                again every second, until Ctrl-C
  redisha status && deploy              go on only when all copies are equal

\b
Exit codes:
  0    every mirror is in_sync (or sampled: no copy), and so is every member of the group, which has a leader
  1    some is not, or nobody leads
  2    the command line is wrong
  69   no sidecar answers there

\b
The states of members and mirrors are explained in docs/operations.md. To let another member lead: redisha leader
--help. To bring a mirror up to date by hand: redisha resync --help
"""


@click.command(epilog=_EPILOG)
@click.option("--admin", metavar="HOST:PORT", help=f"The sidecar's admin address.  [default: {DEFAULT}]")
@click.option("-c", "--config", "file", type=click.Path(path_type=Path), help="Take the admin address from this file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (with --watch: one per line).")
@click.option("-w", "--watch", is_flag=True, help="Look again every second, until Ctrl-C.")
def status(admin: str | None, file: Path | None, as_json: bool, watch: bool) -> None:
    """Show what a running sidecar does: listeners, servers, its group, and how far each mirror is.

    Of a group it shows who leads, and for each member what lacks there. Every member can be asked; lag in bytes and
    milliseconds only the leader knows. The star marks the member that was asked.

    The exit code says whether every member and every mirror is in_sync.
    """
    client = connect(admin, file)
    while True:
        found = look(client)
        well = all(each["state"] in ("in_sync", "sampled") for each in mirrors(found))
        code = 0 if members.well(found["group"]) and well else 1
        if as_json:
            click.echo(json.dumps(found, indent=None if watch else 1))
        else:
            if watch and sys.stdout.isatty():
                click.clear()
            click.echo("\n".join(lines(found, str(client), time.time())))
        if not watch:
            sys.exit(code)
        try:
            sys.stdout.flush()
            time.sleep(EVERY)
        except KeyboardInterrupt:
            sys.exit(code)


def connect(admin: str | None, file: Path | None) -> AdminClient:
    """The admin server that the options name.

    Raises:
        UsageError: both are given, or the address is none.
        RedishaError: the file is wrong, or names no admin address.
    """
    if admin is not None and file is not None:
        raise click.UsageError("--admin and --config both name the sidecar; give one of them")
    try:
        return AdminClient(admin or (address_in(file) if file is not None else DEFAULT))
    except ScalarError as error:
        hint = f" ({error.hint})" if error.hint else ""
        if file is not None:
            raise RedishaError(f"{file}: admin.bind: {error}{hint}; name the address with --admin HOST:PORT") from None
        raise click.BadParameter(f"{error}{hint}", param_hint="--admin") from None


def look(client: AdminClient) -> dict[str, Any]:
    """Everything that is shown, as one document.

    Raises:
        UnreachableError: no sidecar answers.
    """
    info, replicas = client.get("/server_info"), client.get("/replicas")
    return {
        "server": {key: value for key, value in info.items() if key != "events"},
        "listeners": _listeners(client),
        "clusters": client.get("/clusters")["cluster_statuses"],
        "replicas": replicas["replicas"],
        "refills": replicas["refills"],
        "group": members.ask(client),
    }


def mirrors(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The replicas that are mirrors: what there is to say of a member's, the group says."""
    return [each for each in found["replicas"] if not each.get("member")]


def _listeners(client: AdminClient) -> list[dict[str, Any]]:
    counted = {each["name"]: each for each in client.get("/stats")["listeners"]}
    return [
        {
            "name": each["name"],
            "address": _address(each["local_address"]),
            "clients": counted.get(each["name"], {}).get("downstream_cx_active", 0),
            "commands": counted.get(each["name"], {}).get("downstream_rq_total", 0),
        }
        for each in client.get("/listeners")["listener_statuses"]
    ]


def _address(document: dict[str, Any]) -> str:
    if "pipe" in document:
        return f"unix:{document['pipe']['path']}"
    place = document["socket_address"]
    if not place["address"]:
        return ""  # its name has not resolved
    host = f"[{place['address']}]" if ":" in place["address"] else place["address"]
    return f"{host}:{place['port_value']}"


# --- as text ----------------------------------------------------------------------------------------------------------


def lines(found: dict[str, Any], address: str, now: float) -> Iterator[str]:
    """The document for people; ``now`` in seconds since 1970."""
    server = found["server"]
    state = coloured(server["state"], GOOD) if server["ready"] else coloured("not ready", BAD)
    up = duration(int(server["uptime_current_epoch"].removesuffix("s")))
    yield f"redisha {server['version']} at {address}: {state}, up {up}"
    config = server["config"]
    yield f"  {config['file']}, plan {config['generation_in_force']}; state in {server['state_dir']}"
    group = found["group"]
    # Why nobody leads, the group says.
    elsewhere = f"group {group['name']}: nobody leads" if group is not None else " "
    yield from (f"  {coloured(text, BAD)}" for text in server["missing"] if not text.startswith(elsewhere))
    if error := server["config"]["last_reload_error"]:
        yield f"  {coloured('the last reload was refused', BAD)}: {error['error']}"
    yield ""
    yield from _table(
        "listener",
        [
            (each["name"], each["address"], f"{each['clients']:,} clients", f"{each['commands']:,} commands")
            for each in found["listeners"]
        ],
    )
    servers = [each for each in found["clusters"] if group is None or not each["name"].startswith(f"{group['name']}~")]
    yield from _table(
        "server", [_server(cluster["name"], each) for cluster in servers for each in cluster["host_statuses"]]
    )
    if group is not None:
        yield from members.lines(group)
    for replica in mirrors(found):
        yield from _replica(replica, now)
    for refill in found["refills"]:
        yield from _refill(refill)
    if group is None and not found["replicas"]:
        yield "no route has a mirror"


def _server(cluster: str, host: dict[str, Any]) -> tuple[str, ...]:
    status = host["health_status"]
    reason = f" ({status['reason']})" if status["reason"] else ""
    probe = host["probe"]
    health = (
        coloured_state(probe["health"])
        if probe["health"] != "unhealthy"
        else f"{coloured_state('unhealthy')} ({probe['reason']})"
    )
    version = f"Redis {host['redis_version']}" if host["redis_version"] else ""
    return (
        cluster,
        _address(host["address"]) or host["hostname"],
        coloured_state(status["state"]) + reason,
        health,
        version,
    )


def _replica(replica: dict[str, Any], now: float) -> Iterator[str]:
    kind = f" ({replica['resync']})" if replica["state"] in ("resync", "paused") and replica["resync"] else ""
    reason = f": {replica['reason']}" if replica["reason"] else ""
    yield f"mirror    {replica['primary']} -> {replica['mirror']}  {coloured_state(replica['state'])}{kind}{reason}"
    if replica["progress"] is not None:
        yield f"          {bar(replica['progress'])}"
    backlog = _backlog(replica) if replica["state"] != "sampled" else _part(replica)
    yield f"          {', '.join(backlog)}"
    if replica["healed"]:
        yield f"          last healed: {replica['healed']}"
    if (scrub := replica["scrub"]) is not None and (said := _scrub(scrub, now)):
        yield f"          scrub: {said}"
    yield from (f"          {coloured(text, BAD)}" for text in replica["warnings"])
    yield ""


def _backlog(replica: dict[str, Any]) -> Iterator[str]:
    yield f"lag {replica['lag']:,} writes"
    for field, text in (
        ("repair_keys", "keys to repair"),
        ("dirty_buckets", "dirty buckets"),
        ("unproven_keys", "keys not proven equal"),
        ("unrepaired_keys", "keys that cannot be copied"),
    ):
        if replica[field] and (replica["state"] != "in_sync" or field != "dirty_buckets"):
            yield f"{replica[field]:,} {text}"


def _part(replica: dict[str, Any]) -> Iterator[str]:
    """What there is to say of a mirror that gets a part of the commands."""
    yield f"a part of the commands: {replica['sent_total']:,} sent"
    if replica["lost_total"]:
        yield f"{replica['lost_total']:,} dropped"
    if replica["error_total"]:
        yield f"{replica['error_total']:,} answered with an error"


def _scrub(scrub: dict[str, Any], now: float) -> str:
    if scrub["error"]:
        return coloured(f"failed: {scrub['error']}", BAD)
    if not scrub["last_run"]:
        return "runs for the first time" if scrub["running"] else ""
    differ = f"{scrub['last_differ']:,} differed and were copied again" if scrub["last_differ"] else "all equal"
    return f"{scrub['last_keys']:,} keys {duration(max(0, now - scrub['last_run']))} ago, {differ}"


def _refill(refill: dict[str, Any]) -> Iterator[str]:
    error = f": {refill['error']}" if refill["error"] else ""
    yield f"refill    {refill['primary']} <- {refill['mirror']}  {coloured_state(refill['state'])}{error}"
    if refill["state"] in ("running", "waiting"):
        yield f"          {bar(refill)}"
    yield ""


def _table(title: str, rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Rows with aligned columns, the title before each; colours do not count as width."""
    if not rows:
        return
    widths = [max(len(click.unstyle(cell)) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell + " " * (width - len(click.unstyle(cell))) for cell, width in zip(row, widths, strict=True)]
        yield f"{title:<10}{'  '.join(cells)}".rstrip()
    yield ""
