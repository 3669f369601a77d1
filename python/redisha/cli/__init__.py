"""The command line. ``redisha run FILE`` is the sidecar; the other commands help with its file and show what it does.

A command's module is imported when the command is called, so that ``redisha run`` starts with what it needs.
"""

import importlib
import importlib.util
import sys

import click

from redisha import __version__
from redisha.errors import RedishaError

# Name → what `redisha --help` says. The command is the attribute of that name in the module of that name.
COMMANDS = {
    "run": "Run the sidecar: serve the listeners of FILE.",
    "check": "Say whether FILE is right, and what it does.",
    "convert": "Print FILE, for example an Envoy or a Dynomite file, in redisha's own form.",
    "demo": "See it work with Redis servers of its own, in a minute.",
    "status": "Show what a running sidecar does.",
    "leader": "Let another member of the group lead.",
    "init": "Empty this member's Redis, so that it gets another member's data.",
    "resync": "Bring a running sidecar's mirrors up to date by hand.",
    "verify": "Compare two Redis servers key by key.",
}

HELP = """Make standalone Redis servers highly available, without Sentinel and without Cluster.

redisha is a sidecar. Each Redis has one, clients talk to any of them as to a Redis, and the sidecars of a group make
their Redis servers behave as one: one leads and puts all writes in one order, the others have the same data a moment
later. When a Redis or a sidecar is lost, another leads about a second later; one that is back gets what it missed.

\b
    # redisha.yaml beside redis-001; beside redis-002 the two names are in each other's place
    admin: {bind: 127.0.0.1:8001}
    listeners:
      - {bind: [0.0.0.0:6380], group: cache}
    group:
      name: cache
      member: redis-001
      listen: 0.0.0.0:8101
      redis: redis-001:6379
      peers: [redis-002:8101]

\b
    redisha check redisha.yaml      is it right, and what does it do?
    redisha run redisha.yaml        serve; SIGHUP reads the file again, SIGTERM hands over and drains
    redis-cli -p 6380 set k v       both servers have it
    redisha status                  who leads, and how is each member?
    redisha leader redis-002        before a restart: let another member lead

Without a group, a route leads to a cluster and may have mirrors. So an Envoy bootstrap file with a redis_proxy filter
runs unchanged, and so does a Dynomite file whose nodes are full copies of each other, as a group: redisha run
envoy.yaml, redisha run dynomite.yaml
"""


class LazyGroup(click.Group):
    """A group whose commands are modules of this package."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands that this version has, in the order of :data:`COMMANDS`."""
        del ctx
        return [name for name in COMMANDS if importlib.util.find_spec(f"{__name__}.{name}") is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None if there is none of this name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command = getattr(importlib.import_module(f"{__name__}.{cmd_name}"), cmd_name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{__name__}.{cmd_name}.{cmd_name} is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self.list_commands(ctx)])


@click.group(
    cls=LazyGroup, help=HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120}
)
@click.version_option(__version__, prog_name="redisha")
def cli() -> None:
    """Choose a command."""


def main() -> None:
    """Run the command line and exit with the command's code; a known failure is one message on standard error."""
    try:
        cli(prog_name="redisha")
    except RedishaError as error:
        print(f"redisha: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
