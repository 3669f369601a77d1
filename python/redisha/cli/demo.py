"""``redisha demo``: see it work."""

import sys

import click

from redisha.errors import RedishaError

_EPILOG = """\b
What you see:
  1  the pair starts: two redis-server, two sidecars, from the article's Envoy file
  2  one write, and what arrives at the second server
  3  writes through both sides at once, then the Sync column: both servers compared key by key
  4  the mirror's Redis is restarted under load and gets what it missed
  5  a mirror is killed under load, comes back with its data, then without, and heals by itself
  6  a primary loses its data and gets it back from its mirror before it serves
  7  prefix routes: departments and employees
  8  redis-benchmark: SET, GET, LPUSH, LPOP directly and through the sidecar

\b
Needs:  redis-server (7.0 or newer) on the PATH, and redis-benchmark for part 8
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
def demo(quick: bool) -> None:
    """See it work with Redis servers of its own, in a minute.

    Starts two redis-server and two sidecars, writes through both, restarts a server under load, kills others and
    deletes their data, and compares the servers key by key. On a terminal everything stays up afterwards, to play with,
    until Ctrl-C; otherwise it ends. Nothing is left behind.
    """
    from redisha.demo import servers
    from redisha.demo.stage import Stage, Stopped

    version = servers.check_version()
    try:
        from redisha.demo.play import stay
        from redisha.demo.report import Report
        from redisha.demo.tour import FULL, PARTS, QUICK, Tour
    except ModuleNotFoundError as error:
        raise RedishaError(
            f"the demo needs the Python package '{error.name}'; install it with: "
            f"{sys.executable} -m pip install {error.name}"
        ) from None

    report = Report(PARTS)
    done = False
    try:
        with Stage() as stage:
            report.title(f"redisha demo, with Redis {version}; everything is in {stage.folder}")
            pair = Tour(stage, report, QUICK if quick else FULL).walk()
            done = True
            if report.is_terminal and sys.stdin.isatty():
                stay(report, pair)
    except Stopped as stopped:
        report.line(f"{'ended' if done else stopped.signal.name + ': stopped'}; nothing is left behind")
        sys.exit(0 if done else 128 + stopped.signal)
    report.heading("Done. Nothing is left behind.")
