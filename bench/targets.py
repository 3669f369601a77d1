"""What redisha set out to reach, as functions of a report. A target is stated as reached or missed, never asserted."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.report import Report

_KB, _MB = 1024, 1024 * 1024
_MIRRORED = "redisha-mirrored"
_LEADER, _QUORUM, _FOLLOWER = "group-leader", "group-leader-quorum", "group-follower"


@dataclass(frozen=True)
class Target:
    """A figure and its bound."""

    text: str
    figure: Callable[[Report], float | None]
    """None when what it needs was not measured."""
    bound: float
    unit: str
    at_least: bool = False

    def verdict(self, report: Report) -> tuple[str, str]:
        """(the figure, "reached" or "missed") as text."""
        value = self.figure(report)
        if value is None:
            return "-", "not measured"
        good = value >= self.bound if self.at_least else value <= self.bound
        return f"{value:.2f} {self.unit}".rstrip(), "reached" if good else "missed"

    @property
    def limit(self) -> str:
        """The bound as text."""
        return f"{'≥' if self.at_least else '≤'} {self.bound:g} {self.unit}".rstrip()


def _cpu(workload: str) -> Callable[[Report], float | None]:
    """Our proxy's CPU per request."""

    def figure(report: Report) -> float | None:
        found = report.median(_MIRRORED, workload)
        return found.proxy_cpu if found else None

    return figure


def _cpu_ratio(workload: str, engine: str, ours: str = _MIRRORED) -> Callable[[Report], float | None]:
    """Our proxy's CPU per request against another engine's."""
    return lambda report: report.ratio(ours, engine, workload, "proxy_cpu")


def _rate_ratio(workload: str, engine: str, ours: str = _MIRRORED) -> Callable[[Report], float | None]:
    """Our requests per second against another engine's."""
    return lambda report: report.ratio(ours, engine, workload, "requests_per_second")


def _p50_ratio(workload: str, engine: str, ours: str) -> Callable[[Report], float | None]:
    """Our median latency against another engine's."""
    return lambda report: report.ratio(ours, engine, workload, "p50_ms")


def _memory(report: Report) -> float | None:
    found = report.memory.get(_MIRRORED)
    return max(after for _, after in found) / _MB if found else None


def _idle(report: Report) -> float | None:
    return report.footprint.bytes_per_idle_connection / _KB if report.footprint else None


def _start(report: Report) -> float | None:
    return report.footprint.second_start_seconds if report.footprint else None


TARGETS = (
    Target("mirrored SET, 50 clients, pipeline 1: proxy CPU against the echo's", _cpu_ratio("set", "echo"), 1.3, "x"),
    Target("the same against Envoy's", _cpu_ratio("set", "envoy"), 0.7, "x"),
    Target("the same: throughput against direct", _rate_ratio("set", "direct"), 0.8, "x", at_least=True),
    Target(
        "GET, 50 clients, pipeline 1: throughput against direct", _rate_ratio("get", "direct"), 0.9, "x", at_least=True
    ),
    Target("mirrored SET, pipeline 32: proxy CPU per request", _cpu("set-p32"), 0.6, "µs"),
    Target("GET, pipeline 32: proxy CPU per request", _cpu("get-p32"), 0.45, "µs"),
    Target("mirrored SET of 16 KB: proxy CPU against Envoy's", _cpu_ratio("set-16k", "envoy"), 0.6, "x"),
    Target(
        "SET at a group's leader: proxy CPU against the mirrored route's",
        _cpu_ratio("set", _MIRRORED, _LEADER),
        1.1,
        "x",
    ),
    Target("the same, pipeline 32", _cpu_ratio("set-p32", _MIRRORED, _LEADER), 1.1, "x"),
    Target(
        "SET of level quorum: throughput against direct", _rate_ratio("set", "direct", _QUORUM), 0.7, "x", at_least=True
    ),
    Target("the same: median latency against direct", _p50_ratio("set", "direct", _QUORUM), 2, "x"),
    Target(
        "SET at a follower: throughput against direct",
        _rate_ratio("set", "direct", _FOLLOWER),
        0.55,
        "x",
        at_least=True,
    ),
    Target("GET at a follower: proxy CPU against passing through", _cpu_ratio("get", "redisha", _FOLLOWER), 1.1, "x"),
    Target("resident memory after all workloads", _memory, 64, "MB"),
    Target("memory of an idle connection", _idle, 2, "KB"),
    Target("second start, from exec to ready", _start, 0.6, "s"),
)
