"""``python -m bench.healing``: what it costs to make a mirror equal again, and to see that it is.

Prints a table in Markdown. Run it on a machine that does nothing else; it takes about two minutes for a million keys.
"""

import argparse
import contextlib
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.cpu import cpu_seconds, resident_bytes
from bench.engines import running_redisha
from bench.measure import run_benchmark
from bench.processes import exchange, wait_until
from bench.redis import Redis, redis_pair
from bench.workloads import Workload

_SIZE = 100
_MEGABYTE = 1 << 20
_LOAD_SECONDS = 2.0
_TTL_KEYS = 10_000


@dataclass(frozen=True)
class Row:
    """One figure with its bound."""

    what: str
    bound: str
    measured: str


@dataclass(frozen=True)
class Sidecar:
    """A running one."""

    port: int
    admin: int
    pid: int

    def replica(self) -> dict[str, object]:
        """What it says of its mirror."""
        answer = _http(self.admin, "GET /replicas?format=json")
        found: dict[str, object] = json.loads(answer)["replicas"][0]
        return found

    def number(self, field: str) -> int:
        """One of its counts."""
        return int(str(self.replica()[field]))

    def is_in_sync(self) -> bool:
        """Whether the mirror is equal."""
        now = self.replica()
        return now["state"] == "in_sync" and now["lag"] == 0

    def resync_in_full(self) -> None:
        """As ``redisha resync --full``."""
        _http(self.admin, "POST /resync?cluster=redis-002&action=full")


def _http(port: int, request: str) -> bytes:
    head = f"{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    answer = exchange(port, head.encode(), 1 << 20)
    status, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in status.split(b"\r\n")[0]:
        raise RuntimeError(f"{request}: {answer[:300]!r}")
    return body


@contextlib.contextmanager
def _sidecar(directory: Path, primary: Redis, mirror: Redis) -> Iterator[Sidecar]:
    with running_redisha(directory, primary, mirror) as (port, admin, process):
        sidecar = Sidecar(port, admin, process.pid)
        wait_until(sidecar.is_in_sync, process, directory / "redisha.log", every=0.05)
        yield sidecar


@contextlib.contextmanager
def _peak(pid: int) -> Iterator[Callable[[], int]]:
    """The most resident memory of a process while the block runs."""
    most, stop = [resident_bytes(pid)], threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            most.append(max(most.pop(), resident_bytes(pid)))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lambda: most[0]
    finally:
        stop.set()
        thread.join()


def _until_in_sync(sidecar: Sidecar, runs: int) -> None:
    # Seldom: each look is work for the sidecar, and there are two processors.
    while sidecar.number("resync_runs_total") == runs or not sidecar.is_in_sync():
        time.sleep(0.5)


def _load(port: int, clients: int, seconds: float, keys: int) -> tuple[float, float]:
    """Requests per second, and the slowest of a hundred in milliseconds: writes to random keys."""
    work = Workload("load", "set", _SIZE, clients, 1, keys)
    row = run_benchmark(port, work, 20_000)
    row = run_benchmark(port, work, max(int(float(row["rps"]) * seconds), 1_000))
    return float(row["rps"]), float(row["p99_latency_ms"])


def _half_load(port: int, keys: int) -> tuple[int, float]:
    """Clients that come to about half of what fifty come to, and the slowest of a hundred of theirs."""
    full, _ = _load(port, 50, 1.0, keys)
    for clients in (1, 2, 3, 4, 6, 8, 12):
        rate, _ = _load(port, clients, 0.5, keys)
        if rate >= full / 2:
            break
    return clients, statistics.median(_load(port, clients, _LOAD_SECONDS, keys)[1] for _ in range(5))


def _resync(sidecar: Sidecar, mirror: Redis, keys: int) -> Iterator[Row]:
    before = resident_bytes(sidecar.pid)
    mirror.flush()
    runs, begin = sidecar.number("resync_runs_total"), time.monotonic()
    with _peak(sidecar.pid) as peak:
        sidecar.resync_in_full()
        _until_in_sync(sidecar, runs)
    seconds = time.monotonic() - begin
    yield Row(
        f"full resync of {keys:,} keys of {_SIZE} bytes into an empty mirror, no clients", "60 s", f"{seconds:.1f} s"
    )
    grown = (peak() - before) / _MEGABYTE
    yield Row("… resident memory at its most, beyond what it was before", "64 MB", f"{grown:.1f} MB")


def _resync_under_load(sidecar: Sidecar, mirror: Redis, keys: int) -> Iterator[Row]:
    clients, usual = _half_load(sidecar.port, keys)
    while not sidecar.is_in_sync():
        time.sleep(0.05)
    mirror.flush()
    runs, begin = sidecar.number("resync_runs_total"), time.monotonic()
    sidecar.resync_in_full()
    slowest = []
    done = threading.Event()

    def clients_go_on() -> None:
        while not done.is_set():
            p99 = _load(sidecar.port, clients, _LOAD_SECONDS, keys)[1]
            if not done.is_set() or not slowest:
                slowest.append(p99)

    thread = threading.Thread(target=clients_go_on)
    thread.start()
    _until_in_sync(sidecar, runs)
    seconds = time.monotonic() - begin
    done.set()
    thread.join()
    p99 = statistics.median(slowest)
    yield Row(
        f"the same while {clients} clients write (about half load): the clients' p99, the median of runs",
        f"3 × {usual:.2f} ms",
        f"{p99:.2f} ms ({p99 / usual:.1f} ×); the worst of {len(slowest)} runs {max(slowest):.2f} ms",
    )
    yield Row("… and the resync's time", "60 s", f"{seconds:.0f} s")


def _verify(primary: Redis, mirror: Redis, keys: int) -> Iterator[Row]:
    urls = [f"redis://127.0.0.1:{redis.port}" for redis in (primary, mirror)]
    done = subprocess.run(
        [sys.executable, "-m", "redisha", "verify", *urls, "--json"], capture_output=True, text=True, check=False
    )
    report = json.loads(done.stdout)
    yield Row(
        "redisha verify of both, nothing else running",
        "100,000 keys/s",
        f"{keys / report['seconds']:,.0f} keys/s, equal: {report['equal']}",
    )


def _expiry(sidecar: Sidecar) -> Iterator[Row]:
    """INCR of keys without and with an expiry: before the latter their time is asked for."""
    work = Workload("incr", "incr", clients=50, pipeline=32, keys=_TTL_KEYS)
    costs = []
    for expires in (False, True):
        run_benchmark(sidecar.port, work, 200_000)
        if expires:
            _expire_all(sidecar.port)
        begin = cpu_seconds(sidecar.pid)
        run_benchmark(sidecar.port, work, 1_000_000)
        time.sleep(0.5)
        costs.append(cpu_seconds(sidecar.pid) - begin)
    without, with_expiry = costs
    yield Row(
        "INCR, 50 clients, pipeline 32, of keys with an expiry, against keys without: proxy CPU per request",
        "none",
        f"{with_expiry:.2f} µs against {without:.2f} µs",
    )


def _expire_all(port: int) -> None:
    """Give every key of redis-benchmark's INCR an expiry, through the sidecar, which learns of it that way."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock, sock.makefile("rb") as replies:
        for number in range(_TTL_KEYS):
            sock.sendall(b"PEXPIRE counter:%012d 100000000\r\n" % number)
            if not replies.readline().startswith(b":"):
                raise RuntimeError("a key got no expiry")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.healing", description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000, help="keys to resync (default: a million)")
    keys = parser.parse_args().keys
    print("| what | bound | measured |\n|---|--:|--:|")
    with tempfile.TemporaryDirectory() as name, redis_pair(Path(name)) as (primary, mirror):
        primary.flush()
        mirror.flush()
        with _sidecar(Path(name), primary, mirror) as sidecar:
            primary.fill(keys, _SIZE)
            for part in (_resync(sidecar, mirror, keys), _resync_under_load(sidecar, mirror, keys)):
                for row in part:
                    _print(row)
        for row in _verify(primary, mirror, keys):
            _print(row)
        with _sidecar(Path(name), primary, mirror) as sidecar:
            for row in _expiry(sidecar):
                _print(row)


def _print(row: Row) -> None:
    print(f"| {row.what} | {row.bound} | {row.measured} |", flush=True)


if __name__ == "__main__":
    main()
