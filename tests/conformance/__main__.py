"""``python -m conformance``: run the suite in all modes and print a table; 1 if a mode passes less than a bare Redis.

What is chosen comes from the environment, as ``make conformance`` has it:

- ``CONFORMANCE_UNITS``, ``CONFORMANCE_MODES``: names, separated by blanks; all by default.
- ``CONFORMANCE_RESP3=1``: every client of the suite begins with ``HELLO 3``.
- ``CONFORMANCE_SLOW=1``: also the tests that are tagged as slow.
- ``CONFORMANCE_SECONDS``: for each unit and mode.
- ``CONFORMANCE_OPTIONS``: options of the suite besides, such as ``--accurate``.
"""

import dataclasses
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from conformance.expected import load
from conformance.modes import MODES
from conformance.report import DIRECT, Report
from conformance.source import MissingError, suite, version
from conformance.unit import Options, Result, prepare, run_unit, units

_SILENCE = 15


def main() -> int:
    """Run what the environment chooses."""
    # A shell's background job ignores Ctrl-C: as if this ran in the foreground.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    modes = _chosen("CONFORMANCE_MODES", list(MODES))
    try:
        source = suite()
    except MissingError as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 2
    options = Options(
        resp3=os.environ.get("CONFORMANCE_RESP3", "") not in {"", "0"},
        slow=os.environ.get("CONFORMANCE_SLOW", "") not in {"", "0"},
        deadline=float(os.environ.get("CONFORMANCE_SECONDS") or Options.deadline),
        more=tuple(os.environ.get("CONFORMANCE_OPTIONS", "").split()),
    )
    logs = Path(tempfile.mkdtemp(prefix="redisha-conformance-"))
    _tell(f"the suite of Redis {version(source)}; logs are in {logs}")
    report = Report(load())
    with tempfile.TemporaryDirectory(prefix="redisha-conformance-work-") as work:
        tree = prepare(source, Path(work))
        try:
            for unit in _chosen("CONFORMANCE_UNITS", units(tree)):
                _unit(report, tree, unit, modes, options, logs)
                (logs / "report.json").write_text(report.json())
        except KeyboardInterrupt:
            _tell("interrupted; this is what there is")
    print(report.markdown())
    _tell(f"all reasons in full are in {logs / 'report.json'}")
    return 0 if report.good() else 1


def _chosen(variable: str, known: list[str]) -> list[str]:
    chosen = os.environ.get(variable, "").split()
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise SystemExit(f"conformance: {variable} has unknown names: {', '.join(unknown)}; known: {', '.join(known)}")
    return chosen or known


def _unit(report: Report, tree: Path, unit: str, modes: list[str], options: Options, logs: Path) -> None:
    """Run a unit directly, and then in the chosen modes, unless nothing of it can be run against a server of ours."""
    for mode in [DIRECT, *(mode for mode in modes if mode != DIRECT)]:
        start = time.monotonic()
        without: frozenset[str] = frozenset() if mode == DIRECT else report.left_out(unit, mode)
        try:
            result = run_unit(tree, mode, unit, options, logs / mode / unit.replace("/", "-"), without)
        except AssertionError as error:
            result = Result(ended=f"the servers did not start: {error}", seconds=time.monotonic() - start)
        if mode == DIRECT and not result.passed and not result.failed and not result.ended:
            _tell(f"{unit}: no test for a server that is given")
            return
        report.add(unit, mode, result)
        if mode == DIRECT:
            # Elsewhere a test hangs that takes many times as long as the longest directly.
            options = dataclasses.replace(options, silence=round(_SILENCE + 5 * result.longest))
        _tell(
            f"{unit} {mode}: {len(result.passed)} passed, {len(result.failed)} failed, "
            f"{report.not_run(unit, mode)} not run ({result.left_out} of them left out), "
            f"{result.rounds} rounds, {result.seconds:.0f} s{', UNEQUAL' if result.unequal else ''}"
        )


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
