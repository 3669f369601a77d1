"""``redisha demo``: see it work."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from redisha.errors import RedishaError

if TYPE_CHECKING:
    from redisha.demo.play import Suggestions
    from redisha.demo.report import Report
    from redisha.demo.stage import Stage

    Walk = Callable[[Stage, Report], Callable[[], Suggestions]]

_EPILOG = """\b
What you see, of a group:
  1  the group starts: two redis-server, two sidecars; one of them leads
  2  a write at the side that follows, and that it reads its own write
  3  both sides at once at one counter and one queue: no number twice, no element twice
  4  the leader's Redis is killed under load (kill -9): no client sees an error; it comes back
  5  the leader's sidecar is killed under load; the other one leads; it comes back
  6  redisha leader: the leadership is handed over under load
  7  redis-benchmark: SET, GET, LPUSH, LPOP directly and through the sidecar
After each the two Redis servers are compared key by key: the Sync column.

\b
What you see with --envoy, of two sidecars that mirror to each other, as Envoy does it:
  1  the pair starts: two redis-server, two sidecars, from the article's Envoy file
  2  one write, and what arrives at the second server
  3  writes through both sides at once, then the Sync column: both servers compared key by key
  4  the mirror's Redis is restarted under load and gets what it missed
  5  a mirror is killed under load, comes back with its data, then without, and heals by itself
  6  a primary loses its data and gets it back from its mirror before it serves
  7  prefix routes: departments and employees
  8  redis-benchmark: SET, GET, LPUSH, LPOP directly and through the sidecar

\b
Needs:  redis-server (7.0 or newer) on the PATH, and redis-benchmark for the last part
Ports:  free ones of 127.0.0.1; nothing listens on another address
Files:  a temporary folder, removed at the end together with all that was started

\b
Exit codes:
  0    all was as it should be, also when Ctrl-C ended it after the last part
  1    something is missing or was not as it should be; standard error says what
  130  Ctrl-C before the last part was over; 143 SIGTERM, 129 SIGHUP
"""


@click.command(epilog=_EPILOG)
@click.option("--quick", is_flag=True, help="All of it, but with less load.")
@click.option("--envoy", is_flag=True, help="Two sidecars that mirror to each other, and mirrored routes, not a group.")
def demo(quick: bool, envoy: bool) -> None:
    """See it work with Redis servers of its own, in a minute.

    Starts two redis-server and two sidecars, writes through both, kills servers and sidecars under load, and compares
    the servers key by key. On a terminal everything stays up afterwards, to play with, until Ctrl-C; otherwise it ends.
    Nothing is left behind.
    """
    from redisha.demo import servers
    from redisha.demo.stage import Stage, Stopped

    version = servers.check_version()
    try:
        from redisha.demo.play import stay
        from redisha.demo.report import Report

        parts, walk = _mirrored(quick) if envoy else _group(quick)
    except ModuleNotFoundError as error:
        raise RedishaError(
            f"the demo needs the Python package '{error.name}'; install it with: "
            f"{sys.executable} -m pip install {error.name}"
        ) from None

    report = Report(parts)
    done = False
    try:
        with Stage() as stage:
            report.title(f"redisha demo, with Redis {version}; everything is in {stage.folder}")
            suggestions = walk(stage, report)
            done = True
            if report.is_terminal and sys.stdin.isatty():
                stay(report, suggestions())
    except Stopped as stopped:
        report.line(f"{'ended' if done else stopped.signal.name + ': stopped'}; nothing is left behind")
        sys.exit(0 if done else 128 + stopped.signal)


def _group(quick: bool) -> tuple[int, Walk]:
    """The walk through a group: how many parts it has, and how it is walked."""
    from redisha.demo.group_tour import FULL, PARTS, QUICK, GroupTour
    from redisha.demo.play import for_group

    def walk(stage: Stage, report: Report) -> Callable[[], Suggestions]:
        members = GroupTour(stage, report, QUICK if quick else FULL).walk()
        return lambda: for_group(members)

    return PARTS, walk


def _mirrored(quick: bool) -> tuple[int, Walk]:
    """The same of mirrored routes."""
    from redisha.demo.play import for_pair
    from redisha.demo.tour import FULL, PARTS, QUICK, Tour

    def walk(stage: Stage, report: Report) -> Callable[[], Suggestions]:
        pair = Tour(stage, report, QUICK if quick else FULL).walk()
        return lambda: for_pair(pair)

    return PARTS, walk
