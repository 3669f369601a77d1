"""The two Redis servers behind every engine: one that answers, and one that is the mirror."""

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.processes import answers_set, end, exchange, free_port, spawn, wait_until

_FILL_BATCH = 1_000


@dataclass(frozen=True)
class Redis:
    """A running server."""

    port: int
    pid: int

    def flush(self) -> None:
        """Empty it."""
        exchange(self.port, b"FLUSHALL\r\n")

    def fill(self, count: int, size: int) -> None:
        """Give each of the keys that redis-benchmark uses a value of ``size`` bytes."""
        value = b"x" * size
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as sock, sock.makefile("rb") as replies:
            for start in range(0, count, _FILL_BATCH):
                keys = (b"key:%012d" % number for number in range(start, start + _FILL_BATCH))
                sock.sendall(
                    b"".join(b"*3\r\n$3\r\nSET\r\n$16\r\n%b\r\n$%d\r\n%b\r\n" % (key, size, value) for key in keys)
                )
                for _ in range(_FILL_BATCH):
                    if replies.readline() != b"+OK\r\n":
                        raise RuntimeError("the keyspace cannot be filled")


@contextlib.contextmanager
def redis_pair(directory: Path) -> Iterator[tuple[Redis, Redis]]:
    """Start both; nothing is saved to disk."""
    with contextlib.ExitStack() as cleanup:
        made = []
        for name in ("primary", "mirror"):
            log, port = directory / f"{name}.log", free_port()
            argv = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)]
            process: subprocess.Popen[bytes] = spawn([*argv, "--save", "", "--appendonly", "no"], log)
            cleanup.callback(end, process)
            wait_until(lambda port=port: answers_set(port), process, log)  # type: ignore[misc]
            made.append(Redis(port, process.pid))
        yield made[0], made[1]
