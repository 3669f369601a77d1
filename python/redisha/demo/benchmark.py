"""``redis-benchmark`` against a port, and its CSV."""

import csv
import io
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from redisha.demo.children import DemoError

TESTS = ("SET", "GET", "LPUSH", "LPOP")
"""What is measured, in the order of the table."""

WRITES = frozenset({"SET", "LPUSH", "LPOP"})
"""Those that write."""

_TIMEOUT = 120.0


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of ``redis-benchmark``: requests per second and the median latency in milliseconds."""

    rate: float
    p50_ms: float


Figures: TypeAlias = dict[str, Figure]
"""By test."""


def best(rounds: Sequence[Figures], test: str) -> Figure:
    """The best of several rounds: what is in the way only makes it slower."""
    return max((each[test] for each in rounds), key=lambda figure: figure.rate)


def is_there() -> bool:
    """Whether ``redis-benchmark`` is installed."""
    return shutil.which("redis-benchmark") is not None


def measure(port: int, requests: int) -> Figures:
    """The figure of each test of :data:`TESTS`, with 50 clients, no pipelining and values of 3 bytes.

    Raises:
        DemoError: ``redis-benchmark`` failed.
    """
    argv = ["redis-benchmark", "-p", str(port), "-t", ",".join(TESTS).lower(), "-n", str(requests), "--csv"]
    try:
        done = subprocess.run(  # noqa: S603 - as above
            argv, capture_output=True, text=True, check=False, timeout=_TIMEOUT, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise DemoError(f"redis-benchmark took more than {_TIMEOUT:g} s") from None
    found = parse(done.stdout)
    if done.returncode != 0 or not found.keys() >= set(TESTS):
        raise DemoError(f"redis-benchmark failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return found


def parse(text: str) -> Figures:
    """What ``redis-benchmark --csv`` printed: ``"test","rps",…,"p50_latency_ms",…``, one line per test."""
    rows = csv.DictReader(io.StringIO(text))
    return {
        str(row["test"]).upper(): Figure(float(row["rps"]), float(row["p50_latency_ms"]))
        for row in rows
        if row.get("rps") and row.get("p50_latency_ms")
    }
