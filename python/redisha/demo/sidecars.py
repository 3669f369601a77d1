"""A sidecar of the demo: ``redisha run`` with one of the Envoy files, as an operator would start it."""

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redisha.demo.children import PORT_TRIES, Child, DemoError, free_port, wait_until
from redisha.demo.files import envoy_file
from redisha.errors import ListenError

if TYPE_CHECKING:
    from redis import Redis


class Sidecar:
    """One sidecar process.

    Args:
        name: how the demo calls it.
        folder: a folder to make for it.
        template: which of the Envoy files.
        places: the Redis of each host name in it.
        other_member: whether it is the other sidecar of the pair.
    """

    def __init__(
        self, name: str, folder: Path, template: str, places: Mapping[str, int], *, other_member: bool = False
    ) -> None:
        folder.mkdir(parents=True)
        self.name = name
        self.file = folder / "envoy.yaml"
        self.port = self.admin = 0
        self._log = folder / "redisha.log"
        self._template = template
        self._places = places
        self._other_member = other_member
        self._child: Child | None = None

    def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            DemoError: it does not start.
        """
        for left in reversed(range(PORT_TRIES)):
            self.port, self.admin = free_port(), free_port()
            text = envoy_file(self._template, self._places, self.port, self.admin, other_member=self._other_member)
            self.file.write_text(text)
            argv = [sys.executable, "-m", "redisha", "run", str(self.file), "--drain-timeout", "1"]
            self._child = child = Child(argv, self._log)
            child.wait_until(self._is_ready, f"{self.name} is ready", 30)
            if child.exit_code() is None:
                return
            if not left or child.exit_code() != ListenError.exit_code:
                raise DemoError(f"{self.name} ended with {child.exit_code()}:\n{child.output()}")

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
        found: list[dict[str, Any]] = json.loads(self._get("/replicas?format=json"))["replicas"]
        return found

    def lag(self) -> int:
        """Writes that the mirrors have not acknowledged yet."""
        return sum(each["lag"] for each in self.replicas())

    def lost(self) -> int:
        """Writes that the mirrors will never get, because the log was full."""
        return sum(each["lost_total"] for each in self.replicas())

    def wait_in_sync(self, timeout: float = 30.0) -> None:
        """Wait until the mirrors have acknowledged everything.

        Raises:
            DemoError: they have not in time.
        """
        wait_until(
            lambda: all(each["state"] in ("in_sync", "unproven") and not each["lag"] for each in self.replicas()),
            f"the mirrors of {self.name} are in sync",
            timeout,
        )

    def readiness(self) -> tuple[int, str]:
        """What ``/ready`` says: its status and its text."""
        try:
            return 200, self._get("/ready").decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def _is_ready(self) -> bool:
        return self.readiness()[0] == 200

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=5) as answer:
            body: bytes = answer.read()
            return body
