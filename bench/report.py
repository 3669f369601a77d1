"""What a run of the benches came to, as Markdown and as JSON."""

import json
import os
import platform
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.footprint import Footprint
from bench.measure import Measurement, median
from bench.workloads import WORKLOADS

_MB = 1024 * 1024


@dataclass
class Report:
    """Everything measured so far."""

    runs: dict[str, dict[str, list[Measurement]]] = field(default_factory=dict)
    """workload → engine → one measurement per round."""
    memory: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """engine → resident bytes before and after the workloads, per round."""
    skipped: dict[str, str] = field(default_factory=dict)
    """engine → why, and how to get it."""
    footprint: Footprint | None = None

    def add(self, engine: str, workload: str, measurement: Measurement) -> None:
        """Take one round's measurement."""
        self.runs.setdefault(workload, {}).setdefault(engine, []).append(measurement)

    def median(self, engine: str, workload: str) -> Measurement | None:
        """The median of the rounds; None if there was none."""
        runs = self.runs.get(workload, {}).get(engine)
        return median(runs) if runs else None

    def ratio(self, one: str, other: str, workload: str, figure: str) -> float | None:
        """The median of the rounds' ratios of two engines; what changes from round to round falls out of it."""
        runs = self.runs.get(workload, {})
        pairs = list(zip(runs.get(one, []), runs.get(other, []), strict=False))
        return statistics.median(getattr(a, figure) / getattr(b, figure) for a, b in pairs) if pairs else None

    def json(self) -> str:
        """All there is, with every round."""
        return json.dumps({"machine": machine(), **asdict(self)}, indent=1)

    def markdown(self) -> str:
        """The tables, without the targets."""
        parts = ["# Measurements", *(f"- {name}: {value}" for name, value in machine().items()), ""]
        for workload in self.runs:
            parts += [f"## {WORKLOADS[workload].title}", "", *self._table(workload), ""]
        parts += ["## Resident memory", "", "| engine | before | after |", "|---|--:|--:|"]
        for engine, rounds in self.memory.items():
            before, after = (max(each[side] for each in rounds) / _MB for side in (0, 1))
            parts.append(f"| {engine} | {before:.0f} MB | {after:.0f} MB |")
        parts += ["", *(f"- {engine} was skipped: {reason}" for engine, reason in self.skipped.items())]
        return "\n".join(parts)

    def _table(self, workload: str) -> list[str]:
        lines = [
            "| engine | req/s | of direct | p50 ms | p99 ms | proxy µs/req | Redis µs/req | mirror µs/req | rounds |",
            "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
        ]
        direct = self.median("direct", workload)
        for engine, runs in self.runs[workload].items():
            found = median(runs)
            share = f"{found.requests_per_second / direct.requests_per_second:.2f}" if direct else "-"
            lines.append(
                f"| {engine} | {found.requests_per_second:,.0f} | {share} | {found.p50_ms:.3f} | {found.p99_ms:.3f} "
                f"| {found.proxy_cpu:.2f} | {found.primary_cpu:.2f} | {found.mirror_cpu:.2f} | {len(runs)} |"
            )
        return lines


def machine() -> dict[str, str]:
    """Where this was measured, and what."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
    return {
        "commit": commit(),
        "kernel": platform.release(),
        "CPU": f"{len(models)} x {models[0]}" if models else platform.machine(),
        "Python": platform.python_version(),
        "load average at the end": f"{os.getloadavg()[0]:.1f}",
    }


def commit() -> str:
    """The commit that is checked out, read from the repository's files."""
    git = Path(__file__).resolve().parent.parent / ".git"
    try:
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head[:12]
        ref = head.removeprefix("ref: ")
        if (git / ref).exists():
            return (git / ref).read_text().strip()[:12]
        packed = (git / "packed-refs").read_text().splitlines()
        return next(line.split()[0][:12] for line in packed if line.endswith(f" {ref}"))
    except (OSError, StopIteration):
        return "unknown"
