"""Running one unit of the suite to its end.

The suite ends a unit at the first error that no assertion of a test raised, such as an error reply where none was
expected; and a test that fails an assertion may leave behind what fails the next (a setting, an open transaction). So
only the first failure of a run is believed: the unit is run again without that test, with fresh servers, until nothing
fails. When there are too many failures for that, the suite is told to go on after errors, in a last round of which
every failure counts.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from conformance.modes import Stage, stage
from conformance.output import End, Run, read
from support.ports import free_port
from support.process import spawn

_RUNNER = Path(__file__).with_name("run.tcl")
_PROGRAMS = ("redis-server", "redis-cli", "redis-benchmark", "redis-check-aof", "redis-check-rdb")
# Of the suite's own two processes; nothing is started on them with a server of ours.
_PORTS = 500


@dataclass(frozen=True)
class Options:
    """How the suite is run; the same for all modes."""

    resp3: bool = False
    """Every client begins with HELLO 3."""
    slow: bool = False
    """Also the tests that are tagged so."""
    more: tuple[str, ...] = ()
    """Options of the suite besides."""
    rounds: int = 60
    """At most so many runs of a unit."""
    deadline: float = 600.0
    """Seconds for all rounds of a unit; after half of them comes the last."""
    silence: int = 120
    """Seconds without progress after which a test counts as hanging."""

    def words(self) -> list[str]:
        """For the suite's command line."""
        words = ["--clients", "1", "--singledb", "--timeout", str(self.silence), *self.more]
        return words if self.slow else [*words, "--tags", "-slow"]


@dataclass
class Result:
    """What a unit came to in a mode."""

    passed: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    ended: str = ""
    """Why it did not come to its end; empty if it did."""
    unequal: str | None = None
    """In what the servers differed afterwards; None where there is only one."""
    left_out: int = 0
    """How many tests were not to be run."""
    tags: dict[str, frozenset[str]] = field(default_factory=dict)
    """Test → the suite's tags."""
    rounds: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    """Seconds of the longest test."""


def prepare(suite: Path, work: Path) -> Path:
    """A copy of the suite to run in, so that two runs do not disturb each other, with the installed programs."""
    tree = work / "suite"
    shutil.copytree(suite / "tests", tree / "tests")
    (tree / "tests" / "tmp").mkdir(exist_ok=True)
    (tree / "src").mkdir()
    for name in _PROGRAMS:
        place = shutil.which(name)
        if place is not None:
            (tree / "src" / name).symlink_to(place)
    return tree


def units(tree: Path) -> list[str]:
    """All that the suite has."""
    listed = subprocess.run(
        ["tclsh", "tests/test_helper.tcl", "--list-tests"], cwd=tree, capture_output=True, text=True, check=True
    )
    return listed.stdout.split()


def run_unit(
    tree: Path, mode: str, unit: str, options: Options, logs: Path, without: frozenset[str] = frozenset()
) -> Result:
    """Run a unit until it comes to its end, each time with fresh servers.

    Args:
        tree: from :func:`prepare`.
        mode: of :data:`~conformance.modes.MODES`.
        unit: its name.
        options: how the suite is run.
        logs: a folder that keeps what was printed.
        without: tests that are not run.
    """
    result = Result(left_out=len(without))
    start = time.monotonic()
    while True:
        spent = time.monotonic() - start
        result.rounds += 1
        last = result.rounds == options.rounds or spent > options.deadline / 2
        folder = logs / f"round-{result.rounds}"
        folder.mkdir(parents=True)
        with stage(mode, folder) as running:
            suite = _Suite(tree, unit, options, tuple(sorted(without | result.failed.keys())), last)
            run = suite.run(running, folder, options.deadline - spent)
            died = running.ended()
            again = _learn(result, run, died, every=last) and not last
            if not again and len(running.servers) > 1:
                result.unequal = running.unequal()
        if not again:
            break
    result.passed = run.passed - result.failed.keys()
    result.longest, result.tags = run.longest, run.tags
    result.ended = died or _why(run, options)
    result.seconds = time.monotonic() - start
    return result


def _learn(result: Result, run: Run, died: str, *, every: bool) -> bool:
    """Note what failed: the first, or all of them; whether another round without that says more."""
    failed = dict(run.failed)
    if run.end in (End.EXCEPTION, End.SILENT) and run.last is not None:
        failed[run.last] = died or run.reason
    if every:
        result.failed |= failed
    fresh = [name for name in failed if name not in result.failed]
    if not fresh:
        return False
    result.failed[fresh[0]] = failed[fresh[0]]
    return True


def _why(run: Run, options: Options) -> str:
    where = f"in: {run.last}" if run.last is not None else "outside of a test"
    match run.end:
        case End.DONE:
            return f"went on after an error {where}: {run.reason}" if run.reason else ""
        case End.CUT:
            return f"it was not through in {options.deadline:g} s, the last was {where}"
        case _:
            return f"{run.end.value} {where}: {run.reason}"


@dataclass(frozen=True)
class _Suite:
    """A command line of the suite."""

    tree: Path
    unit: str
    options: Options
    without: tuple[str, ...]
    """The tests that are skipped."""
    goes_on: bool
    """After errors outside of assertions."""

    def run(self, running: Stage, folder: Path, seconds: float) -> Run:
        skipfile, log = folder / "skipped", folder / "output"
        skipfile.write_text("".join(f"{_pattern(name)}\n" for name in self.without))
        argv = [
            "setsid",
            "env",
            "-C",
            str(self.tree),
            "TERM=dumb",
            *(["REDISHA_RESP3=1"] if self.options.resp3 else []),
        ]
        argv += ["tclsh", str(_RUNNER), "--host", "127.0.0.1", "--port", str(running.port), "--single", self.unit]
        argv += ["--baseport", str(free_port()), "--portcount", str(_PORTS), "--skipfile", str(skipfile)]
        argv += [*self.options.words(), *(["--durable"] if self.goes_on else [])]
        # Digests are asked by DEBUG, which is refused where there are several servers; we compare these ourselves.
        argv += ["--ignore-digest"] if len(running.servers) > 1 else []
        process = spawn(argv, log)
        try:
            process.wait(max(seconds, 1.0))
        except subprocess.TimeoutExpired:
            pass
        finally:
            # The suite's second process and what it started are in a session of their own, led by this process.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return read(log.read_text(errors="replace"))


def _pattern(name: str) -> str:
    """A line of the suite's skipfile that means this test."""
    return f"/^{re.escape(name)}$" if name.startswith("/") else name
