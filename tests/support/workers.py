"""Sidecars with several workers, and connections to a particular one of them."""

from support.configs import Config
from support.sidecar import Sidecar
from support.wire import Conn

_TRIES = 200


def with_workers(config: Config, count: int) -> Config:
    """The same configuration with so many workers."""
    return config | {"workers": count}


def worker_of(conn: Conn, count: int) -> int:
    """Which of ``count`` workers serves a connection: numbers of clients go round."""
    reply = conn.command("CLIENT", "ID")
    assert reply.startswith(b":"), reply
    return (int(reply[1:]) - 1) % count


def conn_on(sidecar: Sidecar, worker: int, count: int, port: int | None = None) -> Conn:
    """A connection that this worker serves. The kernel spreads them by their ports, so some are tried."""
    for _ in range(_TRIES):
        conn = Conn(port or sidecar.port, timeout=10.0)
        if worker_of(conn, count) == worker:
            return conn
        conn.close()
    raise AssertionError(f"{_TRIES} connections, and none at worker {worker} of {count}")
