"""``redis-benchmark`` directly and through a sidecar, in rounds that take turns, and the table of the best."""

import time

from redisha.demo import benchmark
from redisha.demo.children import install
from redisha.demo.report import Report
from redisha.demo.sidecars import Sidecar
from redisha.demo.stage import Stage


def can_be_told(report: Report) -> bool:
    """Whether there is a ``redis-benchmark``; says so if not."""
    there = benchmark.is_there()
    if not there:
        report.line(f"skipped: there is no redis-benchmark on the PATH; install it with: {install('redis-tools')}")
    return there


def tell(report: Report, stage: Stage, sidecar: Sidecar, requests: int, rounds: int) -> float:
    """Measure a Redis of its own directly, and through a sidecar; tell both.

    Args:
        report: is told.
        stage: where the Redis that is measured directly is started.
        sidecar: through which it is measured.
        requests: of each test, per round.
        rounds: of both.

    Returns:
        The seconds that were spent on what went through the sidecar.

    Raises:
        DemoError: ``redis-benchmark`` failed.
    """
    direct: list[benchmark.Figures] = []
    through: list[benchmark.Figures] = []
    with report.progress("measuring", 2 * rounds) as advance:
        bare = stage.server("redis-bare")
        seconds = 0.0
        for number in range(rounds):
            advance(2 * number, "directly")
            direct.append(benchmark.measure(bare.port, requests))
            advance(2 * number + 1, f"through {sidecar.name}")
            begin = time.monotonic()
            through.append(benchmark.measure(sidecar.port, requests))
            seconds += time.monotonic() - begin
        stage.retire(bare)
    rows = []
    for test in benchmark.TESTS:
        one, other = benchmark.best(direct, test), benchmark.best(through, test)
        rows.append((test, *_cells(one), *_cells(other), f"{other.rate / one.rate:.0%}"))
    report.table(("", "direct req/s", "p50 ms", "sidecar req/s", "p50 ms", "of direct"), rows)
    report.line("(the article measured, on another machine: Envoy 43–55 % of direct, Dynomite 68–96 %)", "dim")
    return seconds


def _cells(figure: benchmark.Figure) -> tuple[str, str]:
    return f"{figure.rate:,.0f}", f"{figure.p50_ms:.3f}"
