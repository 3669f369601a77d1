"""Clients that go on sending in the background while a test breaks things."""

import threading
from types import TracebackType
from typing import Self

from support.load import Mixed
from support.wire import ClosedError, Conn


class BackgroundLoad:
    """Some connections, each in a thread of its own, sending mixed batches until told to stop.

    Error replies that a load like this gets from a healthy Redis are expected; those with a code of
    the proxy, and closed or silent connections, are collected in :attr:`failures`.
    """

    def __init__(self, port: int, *, seed: int, clients: int = 3, batch: int = 20) -> None:
        self._port = port
        self._batch = batch
        self._stop = threading.Event()
        self._counts = [0] * clients
        self.failures: list[str] = []
        self._threads = [
            threading.Thread(target=self._run, args=(number, seed * 1000 + number), name=f"load-{number}")
            for number in range(clients)
        ]

    @property
    def sent(self) -> int:
        """How many commands were answered so far."""
        return sum(self._counts)

    def stop(self) -> None:
        """Let each connection finish its batch, and wait for that."""
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), f"{thread.name} hangs"

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self, number: int, seed: int) -> None:
        mixed = Mixed(seed)
        try:
            with Conn(self._port, timeout=20) as conn:
                while not self._stop.is_set():
                    batch = mixed.batch(self._batch)
                    replies = conn.pipeline(*batch)
                    self._counts[number] += len(replies)
                    self.failures += [
                        f"{command[:3]!r}: {reply[:200]!r}"
                        for command, reply in zip(batch, replies, strict=True)
                        if reply.startswith(PROXY_ERRORS)
                    ]
        except (ClosedError, OSError) as error:
            self.failures.append(f"connection {number}: {error}")


PROXY_ERRORS = (b"-UNAVAILABLE", b"-TIMEOUT", b"-INDOUBT", b"-NOREPLICAS", b"-NOLEADER", b"-CROSSROUTE")
