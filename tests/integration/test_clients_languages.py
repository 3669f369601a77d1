"""Clients of other languages, as they are by default, see through a sidecar what Redis itself shows them."""

import pytest

from support import configs
from support.client_programs import PROGRAMS, Program, UnavailableError
from support.compare import assert_equal
from support.redis_server import RedisServer
from support.sidecar import Sidecar

BINARY = bytes(range(256)).hex()
DEFAULTS = {"go-redis": "3", "ioredis": "3", "node-redis": "3", "jedis": "2", "redis-rs": "2"}
"""Which protocol they speak unless they are told."""


@pytest.fixture(scope="module")
def server(module_redis_server) -> RedisServer:
    """Redis itself, and the one behind the sidecar without mirrors."""
    return module_redis_server()


@pytest.fixture(scope="module")
def pair(module_redis_server) -> tuple[RedisServer, RedisServer]:
    """A primary and its mirror."""
    return module_redis_server(), module_redis_server()


@pytest.fixture(scope="module")
def plain(module_sidecar, server: RedisServer) -> Sidecar:
    """A sidecar without mirrors."""
    sidecar: Sidecar = module_sidecar(configs.pass_through(server.address))
    return sidecar


@pytest.fixture(scope="module")
def mirrored(module_sidecar, pair: tuple[RedisServer, RedisServer]) -> Sidecar:
    """A sidecar with a mirror."""
    sidecar: Sidecar = module_sidecar(configs.mirrored(pair[0].address, pair[1].address))
    return sidecar


@pytest.fixture(scope="module", params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> Program:
    """A built program."""
    found = PROGRAMS[request.param]
    try:
        found.language.built()
    except UnavailableError as why:
        pytest.skip(str(why))
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("protocol", ["default", "other"])
def test_a_client_sees_what_redis_shows(
    program: Program,
    protocol: str,
    server: RedisServer,
    plain: Sidecar,
    mirrored: Sidecar,
    pair: tuple[RedisServer, RedisServer],
) -> None:
    spoken = DEFAULTS[program.name]
    if protocol == "other":
        protocol = spoken = {"2": "3", "3": "2"}[spoken]
    seen = program.sees(server.port, protocol)
    assert seen["client"] == program.name
    assert seen["ping"] == "PONG"
    assert seen["resp"] == spoken
    assert seen["binary"] == BINARY
    assert seen["pipeline"] == [1000, 500_500]
    assert seen["receivers"] == 200
    assert seen["messages"].split() == [f"news/{number}" for number in range(100)]
    assert len(seen["matched"].split()) == 100
    assert seen["script"] == [["one"], ["one", "two"]]
    assert seen["scanned"] == 1000
    assert program.sees(plain.port, protocol) == seen
    assert program.sees(mirrored.port, protocol) == seen
    assert assert_equal(*pair) > 1000
