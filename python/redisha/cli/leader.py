"""``redisha leader MEMBER``: let another member of the group lead."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from redisha.admin.client import DEFAULT, AdminClient, AnswerError
from redisha.cli import members
from redisha.cli.status import connect
from redisha.errors import RedishaError

EVERY = 0.1
"""Seconds between two looks."""

_EPILOG = """\b
Clients notice nothing but a moment's wait: the leader takes no more commands, MEMBER gets the last effects, is elected
with the leader's vote, and what has waited goes there. Nothing that was answered is lost, and no command is run twice.

\b
Examples:
  redisha leader redis-002                          asks the sidecar whose admin server is at 127.0.0.1:8001
  redisha leader redis-002 --admin redis-001:8001   asks another one; any member can be asked
  redisha leader redis-002 && kubectl rollout restart deployment redis-001

\b
Exit codes:
  0    MEMBER leads now
  1    it does not, and standard error says why: it is no member, not in sync, down, or leads already
  2    the command line is wrong
  69   no sidecar answers there
"""


@click.command(epilog=_EPILOG)
@click.argument("member")
@click.option("--admin", metavar="HOST:PORT", help=f"The sidecar's admin address.  [default: {DEFAULT}]")
@click.option("-c", "--config", "file", type=click.Path(path_type=Path), help="Take the admin address from this file.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=15.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait until MEMBER leads.",
)
def leader(member: str, admin: str | None, file: Path | None, timeout: float) -> None:
    """Let MEMBER lead its group: the leadership is handed over in order.

    For a restart or an upgrade of the machine that leads. MEMBER must be in sync. A member that ends by SIGTERM hands
    over by itself, and one whose Redis is lost does so, too; this command is for the moment that you choose.
    """
    client = connect(admin, file)
    try:
        answer = json.loads(client.post("/leader", member=member))
    except AnswerError as error:
        raise RedishaError(str(error)) from None
    if answer["leader"] != member:
        answer = _wait(client, member, timeout)
    click.echo(f"{member} leads now, term {answer['term']}")


def _wait(client: AdminClient, member: str, timeout: float) -> dict[str, Any]:
    """Wait until a hand-over that takes longer has come to its end.

    Raises:
        RedishaError: the member does not lead in time.
    """
    deadline = time.monotonic() + timeout
    while True:
        group = members.ask(client)
        if group is not None and group["leader"] == member:
            return group
        if time.monotonic() >= deadline:
            leads = group["leader"] if group is not None else ""
            raise RedishaError(
                f"{member} does not lead after {timeout:g} s, {leads or 'nobody'} does; the log of "
                f"{leads or member} says why, and how it goes on: redisha status"
            )
        time.sleep(EVERY)
