"""Two sidecars in a group, each with a Redis of its own, for tests of what an operator does."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from support import wait
from support.ports import free_port
from support.redis_server import RedisServer
from support.sidecar import Sidecar

NAMES = ("redis-001", "redis-002")


class Pair:
    """Two members. Started by :meth:`start`.

    Args:
        redis: starts a Redis.
        sidecar: makes a sidecar.
        passwords: of the two Redis servers.
        more: lines that each file has besides.
    """

    def __init__(
        self,
        redis: Callable[..., RedisServer],
        sidecar: Callable[..., Sidecar],
        passwords: tuple[str, str] = ("", ""),
        more: tuple[str, str] = ("", ""),
    ) -> None:
        self.servers = [redis() for _ in NAMES]
        for server, password in zip(self.servers, passwords, strict=True):
            if password:
                server.client().config_set("requirepass", password)
        peers = [free_port(), free_port()]
        self.sidecars = [
            sidecar(self._file(number, peers, passwords[number], more[number]), start=False) for number in (0, 1)
        ]

    def _file(self, number: int, peers: list[int], password: str, more: str) -> str:
        auth = f", auth: {{password: {password}}}" if password else ""
        return (
            'admin: {bind: "127.0.0.1:{admin}"}\n'
            'listeners: [{bind: "127.0.0.1:{port}", group: cache}]\n'
            f'group: {{name: cache, member: {NAMES[number]}, listen: "127.0.0.1:{peers[number]}", '
            f'redis: "127.0.0.1:{self.servers[number].port}", peers: ["127.0.0.1:{peers[1 - number]}"]{auth}}}\n{more}'
        )

    def start(self, *, ready: bool = True) -> None:
        """Start both, and wait until one leads and the other is in sync, unless told otherwise."""
        for sidecar in self.sidecars:
            sidecar.start(ready=False)
        for sidecar in self.sidecars:
            wait.until(lambda sidecar=sidecar: sidecar.get_status("/healthz"), "the admin server answers", 20)  # type: ignore[misc]
        if ready:
            self.wait_in_sync()

    def wait_in_sync(self) -> str:
        """Wait until both say that both are in sync; returns who leads."""
        return wait.until(self._agreed, "both members are in sync", 20)

    def _agreed(self) -> str:
        groups = [self.group(number) for number in (0, 1)]
        leaders = {each["leader"] for each in groups}
        well = all(member["in_sync"] for each in groups for member in each["members"])
        return leaders.pop() if well and len(leaders) == 1 else ""

    def group(self, number: int) -> dict[str, Any]:
        """What a member tells of the group."""
        found: dict[str, Any] = json.loads(self.sidecars[number].get("/group"))
        return found

    def follower(self) -> int:
        """Who does not lead: 0 or 1."""
        return 1 - NAMES.index(self.wait_in_sync())

    def redisha(self, number: int, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command, asked of a member's admin server."""
        argv = [sys.executable, "-m", "redisha", *arguments, "--admin", f"127.0.0.1:{self.sidecars[number].admin_port}"]
        return subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=40, check=False)
