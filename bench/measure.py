"""One measurement: redis-benchmark against a running engine, and what it cost whom."""

import csv
import io
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields

from bench.cpu import cpu_seconds
from bench.engines import Running
from bench.redis import Redis
from bench.workloads import Workload

_PROBE_SECONDS = 0.3
_FIRST_GUESS = 4_000
_SETTLE_LIMIT = 2.0
_SETTLE_STEP = 0.02
_IDLE_SHARE = 0.02


@dataclass(frozen=True)
class Measurement:
    """What one run, or the median of several, came to. CPU is in µs per request."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    proxy_cpu: float
    primary_cpu: float
    mirror_cpu: float


def median(runs: Sequence[Measurement]) -> Measurement:
    """The median of each figure by itself."""
    return Measurement(*(statistics.median(getattr(run, field.name) for run in runs) for field in fields(Measurement)))


def run_benchmark(port: int, workload: Workload, requests: int) -> dict[str, str]:
    """Run redis-benchmark and return its row of figures."""
    argv = ["redis-benchmark", "-p", str(port), "-n", str(requests), *workload.arguments, "--csv"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    if done.returncode or len(rows) != 1:
        raise RuntimeError(f"{' '.join(argv)} failed: {done.stdout[-500:]}{done.stderr[-500:]}")
    return rows[0]


def calibrate(port: int, workload: Workload, seconds: float) -> int:
    """How many requests take about ``seconds``. Warms up everything on the way."""
    requests = _FIRST_GUESS * workload.pipeline
    while True:
        begin = time.monotonic()
        rate = float(run_benchmark(port, workload, requests)["rps"])
        if time.monotonic() - begin >= _PROBE_SECONDS:
            step = workload.clients * workload.pipeline
            return max(int(rate * seconds) // step, 1) * step
        requests *= 4


def measure(engine: Running, workload: Workload, requests: int, primary: Redis, mirror: Redis) -> Measurement:
    """Run ``requests`` requests and count what each process spent until all is quiet again."""
    groups = (engine.pids, (primary.pid,), (mirror.pid,))
    _settle(groups)
    before = [_cpu(pids) for pids in groups]
    row = run_benchmark(engine.port, workload, requests)
    _settle(groups)
    spent = [(_cpu(pids) - start) / requests * 1e6 for pids, start in zip(groups, before, strict=True)]
    return Measurement(float(row["rps"]), float(row["p50_latency_ms"]), float(row["p99_latency_ms"]), *spent)


def _cpu(pids: Sequence[int]) -> float:
    return sum(map(cpu_seconds, pids))


def _settle(groups: Sequence[Sequence[int]]) -> None:
    """Wait until nobody works any more: what a mirror does late is part of the cost too."""
    deadline = time.monotonic() + _SETTLE_LIMIT
    while time.monotonic() < deadline:
        before = sum(map(_cpu, groups))
        time.sleep(_SETTLE_STEP)
        if sum(map(_cpu, groups)) - before < _IDLE_SHARE * _SETTLE_STEP:
            return
