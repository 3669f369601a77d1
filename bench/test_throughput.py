"""The workloads as a pytest-benchmark suite: every engine that is there, in small rounds, side by side.

``make bench`` runs it. One benchmark is one run of redis-benchmark; its time is for all requests of the run, and its
requests per second and CPU per request are in its ``extra_info``. At the end: the report of ``python -m bench.run``.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.cpu import resident_bytes
from bench.engines import ENGINES, Running
from bench.footprint import footprint
from bench.measure import calibrate, measure
from bench.redis import Redis, redis_pair
from bench.report import Report
from bench.run import prepare, targets
from bench.workloads import DEFAULT, WORKLOADS

_ROUNDS = 3
_SECONDS = 1.0


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Redis, Redis]]:
    """The primary and the mirror of all engines."""
    with redis_pair(tmp_path_factory.mktemp("redis")) as pair:
        yield pair


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> Iterator[Report]:
    """What all benchmarks add to; printed at the end."""
    made = Report()
    yield made
    capture: Any = pytestconfig.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"\n\n{made.markdown()}\n{targets(made)}")


@pytest.fixture
def running(
    request: pytest.FixtureRequest, tmp_path: Path, servers: tuple[Redis, Redis], report: Report
) -> Iterator[Running]:
    """One engine, started for one workload."""
    engine = ENGINES[request.param]
    if reason := engine.missing():
        report.skipped[engine.name] = reason
        pytest.skip(reason)
    with engine.start(tmp_path, *servers) as started:
        before = sum(map(resident_bytes, started.pids))
        yield started
        if started.pids:
            memory = before, sum(map(resident_bytes, started.pids))
            report.memory.setdefault(engine.name, []).append(memory)


# The workload is the outer loop: engines that are compared are measured one right after the other.
@pytest.mark.parametrize("workload", DEFAULT)
@pytest.mark.parametrize("running", ENGINES, indirect=True)
def test_throughput(
    benchmark: Any,
    request: pytest.FixtureRequest,
    running: Running,
    workload: str,
    servers: tuple[Redis, Redis],
    report: Report,
) -> None:
    """Requests per second, percentiles and CPU of one workload on one engine."""
    benchmark.group = workload
    engine = request.node.callspec.params["running"]
    prepare(WORKLOADS[workload], *servers)
    requests = calibrate(running.port, WORKLOADS[workload], _SECONDS)

    def once() -> None:
        report.add(engine, workload, measure(running, WORKLOADS[workload], requests, *servers))

    benchmark.pedantic(once, rounds=_ROUNDS, iterations=1)
    found = report.median(engine, workload)
    assert found is not None
    benchmark.extra_info |= vars(found) | {"requests": requests}


def test_footprint(benchmark: Any, servers: tuple[Redis, Redis], report: Report) -> None:
    """Idle connections and the second start."""
    if reason := ENGINES["redisha-mirrored"].missing():
        pytest.skip(reason)
    for server in servers:
        server.flush()
    report.footprint = benchmark.pedantic(footprint, args=servers, rounds=1, iterations=1)
