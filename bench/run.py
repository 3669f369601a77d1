"""``python -m bench.run``: measure all engines side by side and print a report in Markdown."""

import argparse
import contextlib
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.cpu import resident_bytes
from bench.engines import ENGINES, Engine, Running
from bench.footprint import footprint
from bench.measure import calibrate, measure
from bench.redis import Redis, redis_pair
from bench.report import Report
from bench.targets import TARGETS
from bench.workloads import DEFAULT, WORKLOADS, Workload

_RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Plan:
    """What to measure, and how long."""

    engines: list[str]
    workloads: list[str]
    rounds: int
    seconds: float
    footprint: bool


def main() -> None:
    """Parse the command line, measure, print, and keep the figures under ``bench/results``."""
    plan = _arguments()
    report = run(plan)
    print(report.markdown())
    print(targets(report))
    _RESULTS.mkdir(exist_ok=True)
    result = _RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    result.write_text(report.json())
    print(f"\nEvery round is in {result.relative_to(_RESULTS.parent.parent)}.")


def targets(report: Report) -> str:
    """The targets and whether they were reached."""
    lines = ["\n## Targets", "", "| target | bound | measured | |", "|---|--:|--:|---|"]
    for target in TARGETS:
        figure, verdict = target.verdict(report)
        lines.append(f"| {target.text} | {target.limit} | {figure} | {verdict} |")
    return "\n".join(lines)


def run(plan: Plan) -> Report:
    """Measure round by round; in each, every engine once, in alternating order."""
    report = Report(skipped={name: why for name in plan.engines if (why := ENGINES[name].missing())})
    usable = [name for name in plan.engines if name not in report.skipped]
    counts: dict[tuple[str, str], int] = {}
    with tempfile.TemporaryDirectory() as name, redis_pair(Path(name)) as (primary, mirror):
        for number in range(plan.rounds):
            for engine in usable if number % 2 == 0 else reversed(usable):
                _say(f"round {number + 1} of {plan.rounds}: {engine}")
                _one_round(report, ENGINES[engine], plan, counts, primary, mirror)
        if plan.footprint and "redisha-mirrored" in usable:
            _say("footprint")
            for server in (primary, mirror):
                server.flush()
            report.footprint = footprint(primary, mirror)
    return report


def _one_round(
    report: Report, engine: Engine, plan: Plan, counts: dict[tuple[str, str], int], primary: Redis, mirror: Redis
) -> None:
    """Start the engine, run every workload on it, stop it."""
    with contextlib.ExitStack() as cleanup:
        directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
        for server in (primary, mirror):
            server.flush()
        running = cleanup.enter_context(engine.start(directory, primary, mirror))
        before = _memory(running)
        for name in plan.workloads:
            workload = WORKLOADS[name]
            prepare(workload, primary, mirror)
            if (engine.name, name) not in counts:
                counts[engine.name, name] = calibrate(running.port, workload, plan.seconds)
            report.add(engine.name, name, measure(running, workload, counts[engine.name, name], primary, mirror))
        if running.pids:
            report.memory.setdefault(engine.name, []).append((before, _memory(running)))


def prepare(workload: Workload, primary: Redis, mirror: Redis) -> None:
    """Bring both servers into the same state before every run; one that works on strings finds its keys."""
    for server in (primary, mirror):
        server.flush()
        if workload.command in ("get", "set"):
            server.fill(workload.keys, workload.size)


def _memory(running: Running) -> int:
    return sum(map(resident_bytes, running.pids))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _arguments() -> Plan:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=main.__doc__)
    parser.add_argument("--engines", help=f"comma-separated; default: all of {','.join(ENGINES)}")
    parser.add_argument("--workloads", help=f"comma-separated; default: {','.join(DEFAULT)}; of {','.join(WORKLOADS)}")
    parser.add_argument("--rounds", type=int, default=5, help="rounds to take the median of (5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement (3)")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that everything works")
    parser.add_argument("--no-footprint", action="store_true", help="leave out idle connections and start time")
    given = parser.parse_args()
    engines = given.engines.split(",") if given.engines else list(ENGINES)
    workloads = given.workloads.split(",") if given.workloads else list(DEFAULT)
    if unknown := [*(set(engines) - set(ENGINES)), *(set(workloads) - set(WORKLOADS))]:
        parser.error(f"not known: {', '.join(unknown)}")
    rounds, seconds = (1, 0.7) if given.quick else (given.rounds, given.seconds)
    return Plan(engines, workloads, rounds, seconds, not given.no_footprint)


if __name__ == "__main__":
    main()
