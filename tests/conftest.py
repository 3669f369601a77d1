"""Fixtures of all tests: factories for real servers, sidecars and relays, cleaned up whatever happens."""

import contextlib
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.redis_server import RedisServer
from support.relay import Relay
from support.sidecar import ConfigInput, Sidecar

RedisFactory = Callable[..., RedisServer]
SidecarFactory = Callable[..., Sidecar]
RelayFactory = Callable[[int], Relay]

_running: list[Sidecar] = []

# What a test starts by itself keeps nothing on this machine; the sidecars of the fixtures have folders of their own.
os.environ["REDISHA_STATE_DIR"] = "memory"
# A shell's background job ignores Ctrl-C, and so would all that it starts: as if the tests ran in the foreground.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Show the logs of the sidecars that a failed test has."""
    report: Any = yield
    if report.failed:
        for sidecar in _running:
            report.sections.append((f"log of the sidecar on {sidecar.ports}", sidecar.log()[-20_000:]))
    return report


@contextlib.contextmanager
def _redis_servers(root: Path) -> Iterator[RedisFactory]:
    """A factory of started servers, each killed at the end."""
    count = itertools.count(1)
    with contextlib.ExitStack() as cleanup:

        def make(*, unixsocket: bool = False, start: bool = True, **options: str) -> RedisServer:
            server = RedisServer(root / f"redis-{next(count)}", unixsocket=unixsocket, **options)
            cleanup.callback(server.kill)
            if start:
                server.start()
            return server

        yield make


@contextlib.contextmanager
def _sidecars(root: Path) -> Iterator[SidecarFactory]:
    """A factory of started sidecars, each killed at the end."""
    count = itertools.count(1)
    with contextlib.ExitStack() as cleanup:

        def make(config: ConfigInput, *, start: bool = True, ready: bool = True, **options: Any) -> Sidecar:
            sidecar = Sidecar(root / f"sidecar-{next(count)}", config, **options)
            _running.append(sidecar)
            cleanup.callback(_running.remove, sidecar)
            cleanup.callback(sidecar.kill)
            if start:
                sidecar.start(ready=ready)
            return sidecar

        yield make


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisFactory]:
    """``redis_server(**options)`` starts a real Redis; ``unixsocket=True`` gives it a socket file too."""
    with _redis_servers(tmp_path) as make:
        yield make


@pytest.fixture(scope="module")
def module_redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisFactory]:
    """As ``redis_server``; the servers live as long as the module's tests."""
    with _redis_servers(tmp_path_factory.mktemp("redis")) as make:
        yield make


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[SidecarFactory]:
    """``sidecar(config)`` starts a sidecar and waits until it is ready."""
    with _sidecars(tmp_path) as make:
        yield make


@pytest.fixture(scope="module")
def module_sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SidecarFactory]:
    """As ``sidecar``; the sidecars live as long as the module's tests."""
    with _sidecars(tmp_path_factory.mktemp("sidecar")) as make:
        yield make


@pytest.fixture
def relay() -> Iterator[RelayFactory]:
    """``relay(port)`` puts a relay in front of a port of 127.0.0.1."""
    with contextlib.ExitStack() as cleanup:

        def make(target: int) -> Relay:
            made = Relay(target)
            cleanup.callback(made.stop)
            made.start()
            return made

        yield make
