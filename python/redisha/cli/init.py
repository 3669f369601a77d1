"""``redisha init --from MEMBER``: this member's own data goes away, and it gets the group's."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import click

from redisha import emptying
from redisha.admin.client import DEFAULT, AdminClient
from redisha.cli import members
from redisha.cli.filling import Filling
from redisha.cli.status import connect
from redisha.config.group import Group
from redisha.config.load import load
from redisha.errors import RedishaError
from redisha.verify.server import Server

_EPILOG = """\b
When is it needed?  When two members have data and no common history, so that nobody leads. `redisha status` and the log
                    say so. The data of one of them must go away, and only you know whose.
When is it not?     A member that was away, was emptied or is new is filled by itself.

\b
What is done:
  1  through the admin server it is checked that MEMBER can be reached, has data, and is not this member
  2  you are asked
  3  on this member's own Redis (group.redis in its file): FLUSHALL and FUNCTION FLUSH
  4  the leader fills it; that is waited for, until this member is in sync

\b
Examples, on the machine (in the pod) of the member whose data is to go away:
  redisha init --from redis-001
  redisha init --from redis-001 -c redisha.yaml --yes

\b
Exit codes:
  0    this member is in sync
  1    it was refused, and nothing was removed; or the Redis was emptied, and what it gets does not come: standard error
       says which
  2    the command line is wrong
  3    this member's Redis cannot be reached, or refuses
  69   no sidecar answers there
"""


@click.command(epilog=_EPILOG)
@click.option("--from", "source", required=True, metavar="MEMBER", help="Whose data this member is to have.")
@click.option("--admin", metavar="HOST:PORT", help=f"This sidecar's admin address.  [default: {DEFAULT}]")
@click.option(
    "-c",
    "--config",
    "file",
    type=click.Path(path_type=Path),
    help="This sidecar's file.  [default: the one that it says it runs]",
)
@click.option("--yes", is_flag=True, help="Do not ask; needed without a terminal.")
@click.option(
    "--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="How long to wait.  [default: no limit]"
)
def init(source: str, admin: str | None, file: Path | None, yes: bool, timeout: float | None) -> None:
    """Empty this member's own Redis, so that it gets the data that MEMBER has.

    Run it beside the member whose data is to go away. EVERYTHING in that Redis is removed: keys of all databases, and
    functions.
    """
    client = connect(admin, file)
    group = members.ask(client)
    if group is None:
        raise RedishaError(f"the sidecar at {client} is in no group")
    me = str(group["member"])
    if _is_done(group, source):
        click.echo(f"{me} is in sync with {group['leader']}: it has the same data already, nothing was done")
        return
    check(group, source)
    server = own_redis(client, file)
    run_id = _run_id(client, group["name"])
    found = asyncio.run(emptying.contents(server))
    if not yes:
        _confirm(
            f"{me}'s Redis at {server.address} has {found.keys:,} keys. All are REMOVED, and it gets what {source} has."
        )
    asyncio.run(emptying.empty(server, run_id))
    click.echo(f"{me}: {found.keys:,} keys removed from {server.address}")
    if not Filling(client, server, me).follow(timeout):
        sys.exit(1)


def _is_done(group: dict[str, Any], source: str) -> bool:
    me = group["members"][0]
    known = {each["member"]: each for each in group["members"][1:]}
    follows = bool(group["leader"]) and me["role"] == "follower" and me["in_sync"]
    return bool(follows and known.get(source, {}).get("in_sync"))


def check(group: dict[str, Any], source: str) -> None:
    """See that this member's data may go away, and that there is other data.

    Raises:
        RedishaError: it may not, or there is none.
    """
    me, leader = group["members"][0], group["leader"]
    known = {each["member"]: each for each in group["members"] if each["member"]}
    if source not in known:
        raise RedishaError(f"group {group['name']} has no member '{source}'; known: {', '.join(sorted(known))}")
    if source == me["member"]:
        raise RedishaError(
            f"this is {source} itself: run this on the member whose data is to go away; --from names the one whose "
            "data is kept"
        )
    if me["role"] == "leader":
        raise RedishaError(
            f"{me['member']} leads the group, and the others have its data: let another lead first (redisha leader "
            f"{source}), if that is what you want"
        )
    other = known[source]
    if other["state"] in ("down", "connecting"):
        raise RedishaError(f"{source} is {other['state']}: {other['reason'] or 'not heard'}; nothing was removed")
    if other["data"] not in ("complete", "foreign"):
        raise RedishaError(f"{source} has no data to be copied, its Redis is {other['data']}; nothing was removed")
    if leader and leader != source and not other["in_sync"]:
        raise RedishaError(
            f"{leader} leads, and {source} is not in sync with it: a member gets what the leader has. Say --from "
            f"{leader}, or run this on {source} as well"
        )


def own_redis(client: AdminClient, file: Path | None) -> Server:
    """The Redis of this member, with user and password, as its file says.

    Raises:
        ConfigError: the file is wrong, or cannot be read here.
        RedishaError: it has no group.
    """
    path = file if file is not None else Path(client.get("/server_info")["config"]["path"])
    group: Group | None = load(path).config.group
    if group is None:
        raise RedishaError(f"{path} has no group; name the file of this sidecar with -c FILE")
    auth = group.auth
    return Server(
        group.redis,
        auth.username.value if auth is not None and auth.username is not None else None,
        auth.password.value if auth is not None else None,
    )


def _run_id(client: AdminClient, cluster: str) -> str:
    """Which process the sidecar is connected to, so that no other one is emptied.

    Raises:
        RedishaError: it is connected to none.
    """
    for each in client.get("/clusters")["cluster_statuses"]:
        for host in each["host_statuses"]:
            if each["name"] == cluster and host["health_status"]["state"] == "ready":
                return str(host["run_id"])
    raise RedishaError(f"the sidecar at {client} is not connected to its Redis: start that first; nothing was removed")


def _confirm(question: str) -> None:
    """Ask whether it is meant.

    Raises:
        UsageError: there is nobody to ask.
        Abort: it is not.
    """
    if not _has_terminal():
        raise click.UsageError("nothing is removed without being asked for twice: add --yes")
    click.echo(question, err=True)
    click.confirm("Go on?", abort=True, err=True)


def _has_terminal() -> bool:
    return sys.stdin.isatty()
