"""``redisha verify A_URL B_URL``: are two Redis servers equal, key by key."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from redisha.verify import Options, Progress, Report, Server

_EPILOG = """\b
Where the servers are:
  redis://host:port   redis://user:password@host:port   redis://:password@host   unix:///run/redis.sock
  In a password %40 stands for @ and so on; '${NAME}' is taken from the environment (mind the quotes), so that
  it is not seen in the list of processes

\b
Examples:
  redisha verify redis://redis-001:6379 redis://redis-002:6379
  redisha verify --sample 10000 --json redis://redis-001 redis://redis-002
  redisha verify --repair redis://redis-001 redis://redis-002      # redis-002 becomes as redis-001 is

\b
Exit codes:
  0    equal, or equal after --repair
  1    something differs
  2    the command line is wrong
  3    a server cannot be reached, read or written; standard error says why
  130  Ctrl-C
"""


class Url(click.ParamType["Server"]):
    """A server's URL."""

    name = "url"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Server:
        """Read it; what it says of secrets is never shown."""
        from redisha.config.scalars import ScalarError
        from redisha.config.secret import Secrets
        from redisha.verify import parse_url

        try:
            server = parse_url(str(value))
            if server.password is None:
                return server
            return replace(server, password=Secrets(os.environ, Path.cwd()).resolve(server.password).value)
        except (ValueError, ScalarError) as error:
            self.fail(str(error), param, ctx)


@click.command(epilog=_EPILOG)
@click.argument("a", metavar="A_URL", type=Url())
@click.argument("b", metavar="B_URL", type=Url())
@click.option("--repair", is_flag=True, help="Make B as A is: copy what differs, delete what A does not have.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--db",
    "databases",
    multiple=True,
    type=click.IntRange(min=0),
    metavar="N",
    help="Only this database; may be repeated.",
)
@click.option("--match", metavar="GLOB", help="Only keys of this pattern, as SCAN takes it.")
@click.option("--sample", type=click.IntRange(min=1), metavar="N", help="Only about N keys, from random places.")
@click.option(
    "--passes",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    metavar="N",
    help="How often a key that differs is looked at again.",
)
@click.option(
    "--settle",
    type=click.FloatRange(min=0),
    default=0.5,
    show_default=True,
    metavar="SECONDS",
    help="How long before it is.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    metavar="N",
    help="How many differences are listed.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a server may be silent.",
)
def verify(
    a: Server,
    b: Server,
    repair: bool,
    as_json: bool,
    databases: tuple[int, ...],
    match: str | None,
    sample: int | None,
    passes: int,
    settle: float,
    limit: int,
    timeout: float,
) -> None:
    """Compare every key of every database of two Redis servers, and their functions.

    Compared are types, values and expiry times in milliseconds, however the servers keep them. Both may be in use: a
    key that differs is looked at again before it is reported, because a mirror is always a moment behind. No sidecar is
    needed. Nothing is written, except with --repair to B.
    """
    from redisha.errors import RedishaError
    from redisha.verify import Options
    from redisha.verify.text import lines

    options = Options(
        databases=frozenset(databases) or None,
        match=match.encode(errors="surrogateescape") if match is not None else None,
        sample=sample,
        passes=passes,
        settle=settle,
        limit=limit,
        repair=repair,
    )
    a, b = (replace(each, reply_timeout=timeout) for each in (a, b))
    try:
        with _bar() as tell:
            report = _compare(a, b, options, tell)
    except KeyboardInterrupt:
        print("redisha: stopped", file=sys.stderr)
        sys.exit(130)
    except RedishaError as error:
        if as_json:
            click.echo(json.dumps({"equal": None, "error": str(error)}, indent=2))
        raise
    click.echo(json.dumps(report.as_dict(), indent=2) if as_json else "\n".join(lines(report)))
    sys.exit(0 if report.equal else 1)


def _compare(a: Server, b: Server, options: Options, tell: Callable[[Progress], None] | None) -> Report:
    """Compare on uvloop, or on asyncio's own loop where uvloop is not installed."""
    from redisha.verify import compare

    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(compare(a, b, options, tell))


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None] | None]:
    """A progress bar on standard error if that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} keys, {task.fields[rate]:,.0f} a second, ready in"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("connecting", total=0, rate=0.0, note="")

        def tell(progress: Progress) -> None:
            note = f"{progress.differing:,} differ" if progress.differing else ""
            bar.update(
                task,
                description=f"database {progress.database}: {progress.what}",
                completed=min(progress.done, progress.total),
                total=progress.total,
                rate=bar.tasks[0].speed or 0.0,
                note=note,
            )

        yield tell
