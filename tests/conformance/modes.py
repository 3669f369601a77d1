"""What answers on the port that the suite is pointed at: a bare Redis, or redisha in one of its forms."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import redis
from support.configs import mirrored, pass_through
from support.equality import assert_same
from support.group_pair import Pair
from support.redis_server import RedisServer
from support.sidecar import ConfigInput, Sidecar

_EQUAL_WITHIN = 20.0


@dataclass(frozen=True)
class Stage:
    """Running servers and sidecars."""

    port: int
    servers: tuple[RedisServer, ...]
    """All that must hold the same in the end."""
    sidecars: tuple[Sidecar, ...] = ()

    def unequal(self) -> str:
        """In what the servers differ; empty if in nothing."""
        first, *others = self.servers
        try:
            for other in others:
                assert_same(first, other, within=_EQUAL_WITHIN)
        except AssertionError as error:
            return str(error)
        except (redis.RedisError, OSError) as error:
            return f"cannot be compared: {error}"
        return ""

    def ended(self) -> str:
        """Which sidecar has ended by itself, and its last words; empty if none."""
        for sidecar in self.sidecars:
            if sidecar.exit_code() is not None:
                return f"redisha ended with {sidecar.exit_code()}:\n{sidecar.log()[-2_000:]}"
        return ""


class _Maker:
    """Starts servers and sidecars below a folder."""

    def __init__(self, root: Path, cleanup: contextlib.ExitStack) -> None:
        self._root = root
        self._cleanup = cleanup
        self._count = itertools.count(1)

    def redis(self) -> RedisServer:
        # Redis's own continuous integration permits the same to the server that it points the suite at.
        server = RedisServer(
            self._root / f"redis-{next(self._count)}",
            enable_debug_command="yes",
            enable_protected_configs="yes",
            enable_module_command="yes",
        )
        self._cleanup.callback(server.kill)
        server.start()
        return server

    def sidecar(self, config: ConfigInput, *, start: bool = True) -> Sidecar:
        sidecar = Sidecar(self._root / f"sidecar-{next(self._count)}", config)
        self._cleanup.callback(sidecar.kill)
        if start:
            sidecar.start()
        return sidecar


def _direct(make: _Maker) -> Stage:
    server = make.redis()
    return Stage(server.port, (server,))


def _pass(make: _Maker) -> Stage:
    server = make.redis()
    sidecar = make.sidecar(pass_through(server.address))
    return Stage(sidecar.port, (server,), (sidecar,))


def _mirrored(make: _Maker) -> Stage:
    primary, mirror = make.redis(), make.redis()
    sidecar = make.sidecar(mirrored(primary.address, mirror.address))
    return Stage(sidecar.port, (primary, mirror), (sidecar,))


def _group(make: _Maker, *, leader: bool) -> Stage:
    pair = Pair(make.redis, make.sidecar)
    pair.start()
    follower = pair.follower()
    member = 1 - follower if leader else follower
    return Stage(pair.sidecars[member].port, tuple(pair.servers), tuple(pair.sidecars))


MODES: dict[str, Callable[[_Maker], Stage]] = {
    "direct": _direct,
    "pass": _pass,
    "mirrored": _mirrored,
    "group-leader": lambda make: _group(make, leader=True),
    "group-follower": lambda make: _group(make, leader=False),
}


@contextlib.contextmanager
def stage(mode: str, root: Path) -> Iterator[Stage]:
    """Fresh servers and sidecars of a mode; all are ended afterwards."""
    with contextlib.ExitStack() as cleanup:
        yield MODES[mode](_Maker(root, cleanup))
