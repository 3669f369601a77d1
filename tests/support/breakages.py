"""What can happen to a mirror, as data: how it is broken, how it is mended, and how it must be healed.

Each is used alone and together with a sidecar that is killed meanwhile.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from support import wait
from support.crowd import Crowd
from support.redis_server import RedisServer
from support.relay import Direction, Relay
from support.stage import AOF, Noticed, Stage, always, refused, restarted

Step = Callable[["Scene"], None]


@dataclass
class Scene:
    """What the steps of a breakage work on."""

    stage: Stage
    crowd: Crowd
    relay: Relay | None = None

    @property
    def mirror(self) -> RedisServer:
        """The one that is broken."""
        return self.stage.mirror


@dataclass(frozen=True)
class Breakage:
    """One thing that can happen to a mirror."""

    name: str
    breaks: Step
    mends: Step
    kinds: tuple[str, ...]
    """How it may be healed."""
    after_restart: tuple[str, ...] = ("buckets",)
    """How it may be healed by a sidecar that was killed meanwhile."""
    noticed: Noticed = always
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the stage."""
    behind_relay: bool = False


def _nothing(scene: Scene) -> None:
    """Nothing is left to be done."""


def _kill(scene: Scene) -> None:
    scene.mirror.kill()
    scene.crowd.acknowledges(400)


def _start(scene: Scene) -> None:
    scene.mirror.start()


def _stop_signal(scene: Scene) -> None:
    """SIGSTOP until the sidecar does not call it in sync any more: longer than ``op_timeout``."""
    scene.mirror.pause()
    scene.crowd.acknowledges(200)
    scene.stage.until(lambda now: now["state"] != "in_sync", "the silence is noticed")
    scene.crowd.acknowledges(200)


def _continue_signal(scene: Scene) -> None:
    scene.mirror.resume()


def _old_file(scene: Scene) -> None:
    """A copy of the append-only files is made, much is written after it, and it is what the mirror starts from."""
    directory = scene.mirror.directory / "appendonlydir"
    copy = scene.mirror.directory / "copy"
    shutil.copytree(directory, copy)
    scene.crowd.acknowledges(1_000)
    scene.mirror.kill()
    shutil.rmtree(directory)
    copy.rename(directory)
    scene.crowd.acknowledges(200)


def _no_memory(scene: Scene) -> None:
    before = scene.stage.replica()
    scene.mirror.cli("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1mb")
    scene.crowd.acknowledges(400)
    scene.stage.until(lambda now: refused(before, now), "writes are refused")
    scene.stage.until(lambda now: now["state"] != "in_sync" and "OOM" in now["reason"], "it is shown, with the reason")


def _memory(scene: Scene) -> None:
    scene.mirror.cli("CONFIG", "SET", "maxmemory", "0")


def _read_only(scene: Scene) -> None:
    """A replica of a server that cannot be reached: it keeps its data and refuses writes."""
    before = scene.stage.replica()
    scene.mirror.cli("REPLICAOF", "127.0.0.1", "1")
    scene.crowd.acknowledges(400)
    scene.stage.until(lambda now: refused(before, now), "writes are refused")
    scene.stage.until(lambda now: now["state"] != "in_sync", "it is shown")


def _own_master(scene: Scene) -> None:
    scene.mirror.cli("REPLICAOF", "NO", "ONE")


def _reset(scene: Scene) -> None:
    """The connection ends in the middle of batches, and of replies, again and again."""
    assert scene.relay is not None
    for size in (1, 30, 1_000):
        for direction in Direction:
            scene.relay.close_after(size, b"INCR", direction)
            scene.relay.wait_closed(20)
    scene.relay.cut()


def _deaf(scene: Scene) -> None:
    """The mirror gets everything, its replies do not come back, and then the connection ends."""
    assert scene.relay is not None
    scene.relay.stall(Direction.DOWN)
    scene.crowd.acknowledges(300)
    scene.stage.until(lambda now: now["state"] != "in_sync", "the silence is noticed")
    scene.relay.cut()


def _hearing(scene: Scene) -> None:
    assert scene.relay is not None
    scene.relay.flow(Direction.DOWN)


def _overflow(scene: Scene) -> None:
    """More is written than the log holds while the mirror stands still."""
    before = scene.stage.replica()
    scene.mirror.pause()

    def overflows() -> bool:
        with scene.stage.proxy.conn() as conn:
            conn.pipeline(*[("SET", f"large:{number}", bytes(10_000)) for number in range(50)])
        return scene.stage.replica()["lost_total"] > before["lost_total"]

    wait.until(overflows, "the log overflows", 30)
    scene.crowd.acknowledges(300)


EMPTY = Breakage("restarted-empty", _kill, _start, ("full",), ("full",), restarted)
KILLED = Breakage("killed", _kill, _start, ("buckets",), ("buckets",), restarted, {"mirror": AOF})

BREAKAGES = (
    KILLED,
    EMPTY,
    Breakage("stopped", _stop_signal, _continue_signal, ("log", "buckets")),
    Breakage("old-file", _old_file, _start, ("full", "buckets"), ("full", "buckets"), restarted, {"mirror": AOF}),
    Breakage("no-memory", _no_memory, _memory, ("log", "buckets")),
    Breakage("read-only", _read_only, _own_master, ("log", "buckets")),
    Breakage("reset", _reset, _nothing, ("log", "buckets"), behind_relay=True),
    Breakage("deaf", _deaf, _hearing, ("log", "buckets"), behind_relay=True),
    Breakage("overflow", _overflow, _continue_signal, ("buckets",), options={"limits": {"log_bytes": "256KB"}}),
)
