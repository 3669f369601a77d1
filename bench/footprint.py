"""What redisha costs apart from requests: memory at rest, idle connections, time to start."""

import contextlib
import resource
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.cpu import resident_bytes
from bench.engines import ENGINES, redisha_command, redisha_config, redisha_ready
from bench.processes import end, free_port, spawn, wait_until
from bench.redis import Redis

IDLE_CONNECTIONS = 10_000
_SPARE_FILES = 200
_STARTS = 3


@dataclass(frozen=True)
class Footprint:
    """What was found. Bytes and seconds."""

    idle_connections: int
    bytes_per_idle_connection: float
    second_start_seconds: float


def footprint(primary: Redis, mirror: Redis) -> Footprint:
    """Measure on a mirrored redisha."""
    count, size = _idle_connections(primary, mirror)
    return Footprint(count, size, _second_start(primary, mirror))


def _idle_connections(primary: Redis, mirror: Redis) -> tuple[int, float]:
    """How many connections were opened (each said PING once), and resident bytes for each of them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # One less than redisha's own limit of clients allows: readiness was asked for on the admin port only.
    count = min(IDLE_CONNECTIONS, hard - _SPARE_FILES)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as cleanup:
        running = cleanup.enter_context(ENGINES["redisha-mirrored"].start(Path(name), primary, mirror))
        before = resident_bytes(running.pids[0])
        for _ in range(count):
            sock = cleanup.enter_context(socket.create_connection(("127.0.0.1", running.port), timeout=10))
            sock.sendall(b"PING\r\n")
            if sock.recv(64) != b"+PONG\r\n":
                raise RuntimeError("an idle connection was not answered")
        return count, (resident_bytes(running.pids[0]) - before) / count


def _second_start(primary: Redis, mirror: Redis) -> float:
    """The shortest time from exec to ready after a first start has filled all caches."""
    times = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for _ in range(_STARTS + 1):
            port, admin = free_port(), free_port()
            file, log = directory / "redisha.yaml", directory / "log"
            file.write_text(redisha_config(port, admin, primary, mirror))
            begin = time.monotonic()
            process = spawn(redisha_command(file), log)
            try:
                wait_until(lambda admin=admin: redisha_ready(admin), process, log, every=0.002)  # type: ignore[misc]
                times.append(time.monotonic() - begin)
            finally:
                end(process)
    return min(times[1:])
