"""A real ``redis-server`` of the demo: append-only file synced every second, a folder and a port of its own."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from redisha.demo.children import PORT_TRIES, Child, DemoError, free_port, require

if TYPE_CHECKING:
    from redis import Redis

_OLDEST = (7, 0)
_DATA = "appendonlydir"
_IN_USE = "Could not create server TCP listening socket"


class RedisServer:
    """One Redis. Port and folder stay the same when it is restarted.

    Args:
        name: how the demo calls it.
        folder: a folder to make for it.
    """

    def __init__(self, name: str, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.name = name
        self.port = free_port()
        self._folder = folder
        self._child: Child | None = None

    @property
    def url(self) -> str:
        """How ``redisha verify`` calls it."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            DemoError: it does not start.
        """
        tries = PORT_TRIES if self._child is None else 1
        for left in reversed(range(tries)):
            self._child = child = Child(self._argv(), self._folder / "redis.log")
            child.wait_until(self._answers, f"{self.name} answers")
            if child.exit_code() is None:
                return
            if not left or _IN_USE not in child.output():
                raise DemoError(f"redis-server ended with {child.exit_code()}:\n{child.output()}")
            self.port = free_port()

    def ask_to_end(self) -> None:
        """SIGTERM: it writes what it has and ends."""
        if self._child is not None:
            self._child.ask_to_end()

    def end(self) -> None:
        """The same, and wait."""
        if self._child is not None:
            self._child.end()

    def kill(self) -> int:
        """``kill -9``; returns the process id that it had."""
        if self._child is None:
            raise DemoError(f"{self.name} does not run")
        self._child.kill()
        return self._child.pid

    def lose_data(self) -> None:
        """Delete what it has on disk, while it does not run."""
        shutil.rmtree(self._folder / _DATA, ignore_errors=True)

    def client(self, database: int = 0) -> "Redis":
        """A redis-py client straight to it, without a sidecar; gives bytes."""
        from redis import Redis

        return Redis(host="127.0.0.1", port=self.port, db=database, socket_timeout=10)

    @property
    def options(self) -> str:
        """How one would start it by hand."""
        return " ".join(self._argv()[1:]).replace("--save  ", "--save '' ") + " --daemonize yes"

    def _argv(self) -> list[str]:
        settings = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": self._folder,
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "appenddirname": _DATA,
        }
        argv = ["redis-server"]
        for name, value in settings.items():
            argv += [f"--{name}", str(value)]
        return argv

    def _answers(self) -> bool:
        from redis import RedisError

        with self.client() as client:
            try:
                return bool(client.ping())
            except RedisError:  # not there yet, or still loading
                return False


def check_version() -> str:
    """The version of the ``redis-server`` on the PATH.

    Raises:
        DemoError: there is none, or it is too old for this demo.
    """
    path = require("redis-server", "redis-server")
    text = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    match = re.search(r"v=((\d+)\.(\d+)\S*)", text)
    if match is None:
        raise DemoError(f"'{path} --version' says something unknown: {text.strip() or 'nothing'}")
    if (int(match[2]), int(match[3])) < _OLDEST:
        raise DemoError(f"{path} is Redis {match[1]}: the demo compares expiry times by a command of Redis 7.0")
    return match[1]
