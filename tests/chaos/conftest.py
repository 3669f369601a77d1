"""Fixtures of the chaos tests: a stage of real processes, seeds and rounds, and the report of how all was healed.

``make test`` runs a short slice with one seed. ``make chaos`` sets ``CHAOS=1``: everything that is marked ``chaos``
runs too, each test for ``CHAOS_ROUNDS`` seeds from ``CHAOS_SEED`` on.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import redis
from support import wait
from support.redis_server import RedisServer
from support.stage import Stage, Told, config, fill

StageFactory = Callable[..., Stage]

_ALL = bool(os.environ.get("CHAOS"))
_ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "2")) if _ALL else 1
_FIRST = int(os.environ.get("CHAOS_SEED", "1"))

_told = pytest.StashKey[list[Told]]()


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, wherever these tests are run from."""
    config.addinivalue_line("markers", "chaos: only in make chaos (or with CHAOS=1)")
    config.stash[_told] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long ones out unless they are asked for."""
    if _ALL or "chaos" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("chaos") is not None]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One round for each seed."""
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(_FIRST, _FIRST + _ROUNDS))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The report: which scenario was healed how."""
    told = config.stash[_told]
    if not told or not _ALL:
        return
    terminalreporter.section("how it was healed")
    width = max(len(each.scenario) for each in told)
    terminalreporter.write_line(f"{'scenario':{width}}  {'how':8} {'keys copied':>11} {'seconds':>8}  in its own words")
    for each in told:
        terminalreporter.write_line(
            f"{each.scenario:{width}}  {each.how:8} {each.keys:11} {each.seconds:8.1f}  {each.text}"
        )


@pytest.fixture
def stage(request: pytest.FixtureRequest, tmp_path: Path, redis_server: Any, sidecar: Any) -> Iterator[StageFactory]:
    """``stage()`` is a primary with some data, an empty mirror and a sidecar that has made them equal.

    ``primary`` and ``mirror`` are options of the servers; ``behind`` is a relay's factory, to be put in front of the
    mirror. The primary has ``keys`` keys in each of the ``databases``. ``ready=False`` does not wait for the first
    resync, ``start=False`` does not even start the sidecar. ``state`` is made unless told otherwise.
    Other options are those of :func:`support.stage.config`.
    """
    made: list[Stage] = []

    def make(
        *,
        primary: dict[str, str] | None = None,
        mirror: dict[str, str] | None = None,
        behind: Callable[[int], Any] | None = None,
        state: Path = tmp_path / "state",
        state_made: bool = True,
        keys: int = 1_000,
        databases: Sequence[int] = (0, 1),
        start: bool = True,
        ready: bool = True,
        **options: Any,
    ) -> Stage:
        one, two = redis_server(**(primary or {})), redis_server(**(mirror or {}))
        fill(one, keys, databases=databases)
        address = behind(two.port).address if behind is not None else two.address
        if state_made:
            state.mkdir(exist_ok=True)
        proxy = sidecar(config(one.address, address, state, **options), start=False)
        scene = Stage(request.node.name, one, two, proxy, state)
        made.append(scene)
        if start:
            proxy.start(ready=False)
        if start and ready:
            scene.until_whole()
            with contextlib.suppress(AssertionError):  # where functions are out of reach its marker is elsewhere
                wait.until(lambda: "data=complete" in _libraries(two), "the mirror has its first marker", 1)
        return scene

    yield make
    for scene in made:
        request.config.stash[_told] += scene.told


def _libraries(server: RedisServer) -> str:
    """Function libraries with their code, as text."""
    try:
        return repr(server.cli("FUNCTION", "LIST", "WITHCODE"))
    except redis.ResponseError:
        return ""
