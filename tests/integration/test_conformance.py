"""A short slice of ``make conformance``: two small units of Redis's own suite, through a sidecar."""

from pathlib import Path

import pytest

from conformance.expected import load
from conformance.report import DIRECT, Report
from conformance.source import MissingError, suite
from conformance.unit import Options, prepare, run_unit

pytestmark = pytest.mark.timeout(240)
_FETCH_SECONDS = 30.0


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The suite, where it can run."""
    try:
        source = suite(_FETCH_SECONDS)
    except MissingError as error:
        pytest.skip(f"the test suite of Redis cannot be had: {error}")
    return prepare(source, tmp_path_factory.mktemp("suite"))


@pytest.mark.parametrize("unit", ["unit/type/incr", "unit/keyspace"])
def test_what_passes_directly_passes_through_a_sidecar(tree: Path, unit: str, tmp_path: Path) -> None:
    report = Report(load())
    report.add(unit, DIRECT, run_unit(tree, DIRECT, unit, Options(), tmp_path / DIRECT))
    without = report.left_out(unit, "pass")
    report.add(unit, "pass", run_unit(tree, "pass", unit, Options(), tmp_path / "pass", without))
    assert len(report.results[unit][DIRECT].passed) > 20
    assert report.good(), report.markdown()
