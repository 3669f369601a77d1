"""``redisha resync CLUSTER``: bring mirrors up to date by hand."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import click

from redisha.admin.client import DEFAULT, AdminClient, AnswerError
from redisha.cli.status import connect
from redisha.cli.words import bar, coloured_state
from redisha.errors import RedishaError

EVERY = 0.25
"""Seconds between two looks with ``--wait``."""

PATIENCE = 3.0
"""Seconds after which a resync that has not begun counts as not needed."""

SETTLED = frozenset({"in_sync", "unproven", "diverged", "refused", "paused"})
"""States that do not end by waiting."""

_QUESTIONS = {
    "full": "Every key of the mirror is compared, and what the primary does not have is DELETED there, whoever wrote "
    "it. From then on this sidecar counts as the mirror's only writer.",
    "accept": "The primary's data counts as right as it is. What it has lost is lost, and its mirrors lose it, too.",
}

_EPILOG = """\b
What is done:
  (nothing)   what is needed: the keys that may differ, or all of them when that is not known
  --full      every key is compared and copied; also for a mirror that has data of its own and counts as `unproven`
  --pause     stop until --resume; writes still go to the mirror
  --resume    go on
  --accept    a primary that is held, or not proven, after it lost data: serve what it has

\b
Examples:
  redisha resync redis-002 --wait       and show how far it is
  redisha resync redis-002 --full --yes
  redisha resync redis-001 --accept     when its mirror is gone for good

\b
Exit codes:
  0    it was asked for; with --wait: every mirror of the cluster is in_sync
  1    it was refused; with --wait: some mirror is not in_sync and will not be by waiting, or the time is over
  2    the command line is wrong
  69   no sidecar answers there
"""


@click.command(epilog=_EPILOG)
@click.argument("cluster")
@click.option("--full", "action", flag_value="full", help="Compare and copy every key.")
@click.option("--pause", "action", flag_value="pause", help="Stop a resync until --resume.")
@click.option("--resume", "action", flag_value="resume", help="Go on after --pause.")
@click.option("--accept", "action", flag_value="accept", help="Take a primary's data as it is.")
@click.option("--admin", metavar="HOST:PORT", help=f"The sidecar's admin address.  [default: {DEFAULT}]")
@click.option("-c", "--config", "file", type=click.Path(path_type=Path), help="Take the admin address from this file.")
@click.option("--wait", is_flag=True, help="Show how far it is, until it is done.")
@click.option(
    "--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="With --wait: for how long.  [default: no limit]"
)
@click.option("--yes", is_flag=True, help="Do not ask; needed for --full and --accept without a terminal.")
def resync(
    cluster: str,
    action: str | None,
    admin: str | None,
    file: Path | None,
    wait: bool,
    timeout: float | None,
    yes: bool,
) -> None:
    """Bring the mirrors of CLUSTER up to date by hand.

    CLUSTER is the name in the configuration of a mirror, or of a primary for all its mirrors. Normally nothing needs
    to be done: a mirror that was away catches up by itself.
    """
    chosen = action or "start"
    if wait and chosen == "pause":
        raise click.UsageError("--pause cannot be waited for: the mirror stays behind until --resume")
    if timeout is not None and not wait:
        raise click.UsageError("--timeout needs --wait")
    client = connect(admin, file)
    if chosen in _QUESTIONS and not yes:
        _confirm(chosen)
    before = _runs(client) if wait else {}
    try:
        answer = json.loads(client.post("/resync", cluster=cluster, action=chosen, format="json"))
    except AnswerError as error:
        raise RedishaError(_refused(error, client)) from None
    for name in answer["replicas"]:
        click.echo(f"{chosen}: {name}")
    if wait and not Watch(client, answer["replicas"], before).follow(timeout):
        sys.exit(1)


def _confirm(action: str) -> None:
    """Ask whether it is meant.

    Raises:
        UsageError: there is nobody to ask.
        Abort: it is not.
    """
    if not _has_terminal():
        raise click.UsageError(f"--{action} is not done without being asked for twice: add --yes")
    click.echo(_QUESTIONS[action], err=True)
    click.confirm("Go on?", abort=True, err=True)


def _has_terminal() -> bool:
    return sys.stdin.isatty()


def _refused(error: AnswerError, client: AdminClient) -> str:
    if error.status == HTTPStatus.NOT_FOUND and "cluster" not in str(error):
        return f"the sidecar at {client} is of an older version, which cannot be asked to resync"
    return str(error)


# --- waiting ----------------------------------------------------------------------------------------------------------


def _replicas(client: AdminClient) -> dict[str, dict[str, Any]]:
    return {f"{each['primary']} -> {each['mirror']}": each for each in client.get("/replicas")["replicas"]}


def _runs(client: AdminClient) -> dict[str, int]:
    return {name: each["resync_runs_total"] for name, each in _replicas(client).items()}


@dataclass(slots=True)
class Watch:
    """Follows mirrors until they are equal, or will not be.

    Attributes:
        client: the sidecar.
        names: the replicas.
        before: how many resyncs each had before it was asked for one.
        clock: seconds that do not go back.
    """

    client: AdminClient
    names: list[str]
    before: dict[str, int]
    clock: Callable[[], float] = time.monotonic

    def follow(self, timeout: float | None) -> bool:
        """Show how far it is until the end; returns whether every mirror is in_sync."""
        started = self.clock()
        screen = _Screen()
        while True:
            elapsed = self.clock() - started
            known = _replicas(self.client)
            replicas = {name: known[name] for name in self.names if name in known}
            screen.show(replicas)
            if all(self._done(name, each, elapsed) for name, each in replicas.items()):
                return all(each["state"] == "in_sync" for each in replicas.values())
            if timeout is not None and elapsed >= timeout:
                click.echo(f"not in sync after {timeout:g} s; it goes on, see: redisha status", err=True)
                return False
            time.sleep(EVERY)

    def _done(self, name: str, replica: dict[str, Any], elapsed: float) -> bool:
        """Whether nothing will change by waiting."""
        begun = replica["resync_runs_total"] != self.before.get(name) or elapsed >= PATIENCE
        return begun and replica["state"] in SETTLED


class _Screen:
    """On a terminal the lines are written over; elsewhere a line is written when there is news."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._height = 0
        self._news: dict[str, str] = {}

    def show(self, replicas: dict[str, dict[str, Any]]) -> None:
        """How far each is."""
        if self._terminal:
            # Back to the first line, and no line is wrapped: one that is too long is cut off.
            click.echo((f"\x1b[{self._height}F\x1b[J" if self._height else "") + "\x1b[?7l", nl=False)
        self._height = len(replicas)
        for name, each in replicas.items():
            progress = each["progress"]
            percent = progress["percent"] if progress is not None else None
            news = f"{each['state']}{each['reason']}{int(percent // 10) if percent is not None else ''}"
            if self._terminal or self._news.get(name) != news:
                self._news[name] = news
                click.echo(_line(name, each))
        if self._terminal:
            click.echo("\x1b[?7h", nl=False)


def _line(name: str, replica: dict[str, Any]) -> str:
    reason = f": {replica['reason']}" if replica["reason"] else ""
    how_far = f"  {bar(replica['progress'])}" if replica["progress"] is not None else ""
    return f"{name}  {coloured_state(replica['state'])}{reason}{how_far}"
