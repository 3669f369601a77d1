"""``redisha run FILE``: the sidecar."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from redisha.errors import RedishaError
from redisha.logs import LEVELS

if TYPE_CHECKING:
    from redisha.supervisor import Supervisor

_EPILOG = """\b
Signals:
  SIGTERM, SIGINT  drain: hand over a leadership, stop accepting, let clients finish what is in flight, exit 0; a second
                   one exits at once
  SIGHUP           read FILE again; a file that is wrong changes nothing. A changed FILE is noticed by itself, too

\b
Exit codes:
  0    drained after SIGTERM, SIGINT, /drain_listeners, or ended by /quitquitquit
  1    FILE is wrong (a state_dir that cannot be used and a mirror that is its own primary included); standard error
       says where
  2    the command line is wrong
  3    an address is in use or cannot be bound
  4    the data plane refused the plan: a fault of redisha, please report it
  70   the data plane died; the log has the reason. Let your supervisor start redisha again
  130  a second SIGINT, 143 a second SIGTERM

\b
Is it ready?  curl http://127.0.0.1:8001/ready   (with admin: {bind: 127.0.0.1:8001} in FILE)
              200 LIVE, or 503 and what is missing. For a liveness probe take /healthz
What does it do?  /help on the same port lists everything it can tell
"""


@click.command(epilog=_EPILOG)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--admin", metavar="HOST:PORT|off", help="The admin server's address instead of the one in FILE.")
@click.option("--log-level", type=click.Choice(LEVELS), default="info", show_default=True, help="What is logged.")
@click.option(
    "--log-format",
    type=click.Choice(["auto", "text", "json"]),
    default="auto",
    show_default=True,
    help="How it is logged; auto is text on a terminal and JSON otherwise.",
)
@click.option(
    "--drain-timeout",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long clients have to finish after SIGTERM.",
)
@click.option(
    "--state-dir",
    metavar="DIR|memory",
    help="Where it is kept what a mirror may lack, instead of the state_dir in FILE.  [default: /var/lib/redisha or "
    "the user's state directory]",
)
@click.option("--check-only", is_flag=True, help="Read FILE, say what is wrong with it, and exit; binds nothing.")
def run(
    file: Path,
    admin: str | None,
    log_level: str,
    log_format: str,
    drain_timeout: float,
    state_dir: str | None,
    check_only: bool,
) -> None:
    """Run the sidecar: serve the listeners of FILE until SIGTERM.

    FILE is redisha's own YAML, an Envoy bootstrap file with a redis_proxy filter, or a Dynomite file. A Redis or a name
    that is not there yet does not stop the start: the sidecar serves what it can and says on /ready what is missing.
    """
    from redisha import logs
    from redisha.config.load import load

    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # Until the supervisor listens to it: the file is being read anyway.
    logs.setup(log_level, as_json=None if log_format == "auto" else log_format == "json")
    _check_admin(admin)
    loaded = load(file)
    if check_only:
        for warning in loaded.warnings:
            click.echo(f"warning: {warning}", err=True)
        click.echo(f"{file}: fine")
        return

    from redisha import process
    from redisha.supervisor import Options, Supervisor

    limit = process.raise_file_limit()
    if limit < loaded.config.limits.max_clients:
        logging.getLogger(__name__).warning(
            "the limit of open files is %d, below limits.max_clients of %d", limit, loaded.config.limits.max_clients
        )
    try:
        code = _live(Supervisor(loaded, Options(admin, drain_timeout, state_dir)))
    except RedishaError as error:
        print(f"redisha: {error}", file=sys.stderr)
        code = error.exit_code
    # Not by the interpreter's own end: that would wait for a data plane that died, and it breaks threads that are in
    # the midst of an extension (the file watch) or of the system's resolver.
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


def _check_admin(admin: str | None) -> None:
    from redisha.config.scalars import parse_bind

    if admin is None or admin == "off":
        return
    try:
        parse_bind(admin)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--admin") from None


def _live(supervisor: "Supervisor") -> int:
    """Run the supervisor on uvloop, or on asyncio's own loop where uvloop is not installed."""
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(supervisor.run())
