"""A sidecar of the demo: ``redisha run`` with a file, as an operator would start it."""

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from redisha.demo.children import PORT_TRIES, Child, DemoError, free_port, wait_until
from redisha.errors import ListenError

if TYPE_CHECKING:
    from redis import Redis

Configure: TypeAlias = Callable[[int, int], str]
"""The text of a configuration, from the port for clients and the port of the admin server."""

_UP_TO_DATE = ("in_sync", "unproven")


class Sidecar:
    """One sidecar process.

    Args:
        name: how the demo calls it.
        file: where to put its configuration; the folder is made.
        configure: gives the configuration.
    """

    def __init__(self, name: str, file: Path, configure: Configure) -> None:
        file.parent.mkdir(parents=True)
        self.name = name
        self.file = file
        self.port = self.admin = 0
        self._log = file.with_name("redisha.log")
        self._configure = configure
        self._child: Child | None = None

    def start(self) -> None:
        """Start it and wait until it is ready. The ports stay the same when it is started again.

        Raises:
            DemoError: it does not start.
        """
        first = not self.port
        for left in reversed(range(PORT_TRIES if first else 1)):
            child = self.begin(other_ports=first)
            child.wait_until(self._is_ready, f"{self.name} is ready", 30)
            if child.exit_code() is None:
                return
            if not left or child.exit_code() != ListenError.exit_code:
                raise DemoError(f"{self.name} ended with {child.exit_code()}:\n{child.output()}")

    def begin(self, *, other_ports: bool = False) -> Child:
        """Start it, and do not wait.

        Args:
            other_ports: take other ports than before; the first time they are taken anyway.
        """
        if other_ports or not self.port:
            self.port, self.admin = free_port(), free_port()
        self.file.write_text(self._configure(self.port, self.admin))
        argv = [sys.executable, "-m", "redisha", "run", str(self.file)]
        argv += ["--state-dir", str(self.file.with_name("state")), "--drain-timeout", "1"]
        self._child = Child(argv, self._log)
        return self._child

    def wait_ready(self) -> None:
        """Wait until one that was begun is ready.

        Raises:
            DemoError: it is not in time, or has ended.
        """
        child = self._child
        if child is None:
            raise DemoError(f"{self.name} was not started")
        child.wait_until(self._is_ready, f"{self.name} is ready", 30)
        if child.exit_code() is not None:
            raise DemoError(f"{self.name} ended with {child.exit_code()}:\n{child.output()}")

    def kill(self) -> int:
        """``kill -9``; returns the process id that it had."""
        if self._child is None:
            raise DemoError(f"{self.name} does not run")
        self._child.kill()
        return self._child.pid

    def ask_to_end(self) -> None:
        """SIGTERM: it drains and ends."""
        if self._child is not None:
            self._child.ask_to_end()

    def end(self) -> None:
        """The same, and wait."""
        if self._child is not None:
            self._child.end()

    def client(self, **options: Any) -> "Redis":
        """A redis-py client through it, with the library's defaults unless ``options`` say otherwise."""
        from redis import Redis

        return Redis(host="127.0.0.1", port=self.port, **options)

    def replicas(self) -> list[dict[str, Any]]:
        """What it tells of its mirrors."""
        found: list[dict[str, Any]] = self._mirrors()["replicas"]
        return found

    def refills(self) -> list[dict[str, Any]]:
        """What it tells of primaries that it fills again, or has filled."""
        found: list[dict[str, Any]] = self._mirrors()["refills"]
        return found

    def lag(self) -> int:
        """Writes that the mirrors have not acknowledged yet."""
        return sum(each["lag"] for each in self.replicas())

    def wait_in_sync(self, timeout: float = 30.0) -> None:
        """Wait until the mirrors have acknowledged everything.

        Raises:
            DemoError: they have not in time.
        """
        wait_until(
            lambda: all(each["state"] in _UP_TO_DATE and not each["lag"] for each in self.replicas()),
            f"the mirrors of {self.name} are in sync",
            timeout,
        )

    def states_until_in_sync(self, since: int, timeout: float = 30.0) -> list[str]:
        """The states of its only mirror until that is in sync again, while clients may go on writing.

        Args:
            since: ``restarts_total`` of before the mirror was restarted; another one is waited for.
            timeout: how long.

        Raises:
            DemoError: it is not in time.
        """
        seen: list[str] = []

        def look() -> bool:
            (mirror,) = self.replicas()
            state = mirror["state"]
            if state == "resync" and mirror["resync"]:
                state += f" ({mirror['resync']})"
            if not seen or seen[-1] != state:
                seen.append(state)
            return bool(mirror["restarts_total"] > since and state == "in_sync")

        wait_until(look, f"the mirror of {self.name} is in sync", timeout)
        return seen

    def readiness(self) -> tuple[int, str]:
        """What ``/ready`` says: its status and its text."""
        try:
            return 200, self._get("/ready").decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def _is_ready(self) -> bool:
        return self.readiness()[0] == 200

    def document(self, path: str) -> Any:
        """What the admin server answers, read as JSON."""
        return json.loads(self._get(path))

    def _mirrors(self) -> Any:
        return self.document("/replicas?format=json")

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=5) as answer:
            body: bytes = answer.read()
            return body
