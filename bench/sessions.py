"""``python -m bench.sessions``: what subscribers, clients that block, and transactions cost the sidecar.

Prints a table in Markdown: each figure directly at a Redis, through a sidecar, and through one that mirrors.
"""

import argparse
import contextlib
import resource
import selectors
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.cpu import cpu_seconds
from bench.engines import running_redisha
from bench.redis import redis_pair

_PAYLOAD = b"x" * 16
_CHANNEL = b"news"
_MESSAGE = b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$16\r\n" + _PAYLOAD + b"\r\n"
_QUIET = 0.5
"""Seconds without a message after which no more is expected."""
_TRANSACTION = 5
_PIPELINE = 20


@contextlib.contextmanager
def _clients(port: int, count: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as cleanup:
        yield [
            cleanup.enter_context(contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout=10)))
            for _ in range(count)
        ]


def _read(sock: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        piece = sock.recv(size - len(found))
        if not piece:
            raise RuntimeError("the connection was closed")
        found += piece
    return found


def subscribers(port: int, pid: int, count: int, rate: int, seconds: float) -> str:
    """So many subscribers of one channel, and so many messages a second."""
    confirmed = b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n"
    publish = b"*3\r\n$7\r\nPUBLISH\r\n$4\r\nnews\r\n$16\r\n" + _PAYLOAD + b"\r\n"
    with _clients(port, count) as all_, _clients(port, 1) as (publisher,), selectors.DefaultSelector() as selector:
        for sock in all_:
            sock.sendall(b"*2\r\n$9\r\nSUBSCRIBE\r\n$4\r\nnews\r\n")
            if _read(sock, len(confirmed)) != confirmed:
                raise RuntimeError("it is not subscribed")
            sock.setblocking(False)
            selector.register(sock, selectors.EVENT_READ)
        received, sent, total = 0, 0, int(rate * seconds)
        cpu, begin = cpu_seconds(pid), time.monotonic()
        last = begin
        while (now := time.monotonic()) < last + _QUIET or sent < total:
            due = min(total, int((now - begin) * rate)) - sent
            if due > 0:
                publisher.sendall(publish * due)
                sent += due
            for key, _ in selector.select(0.001):
                sock = key.fileobj  # type: ignore[assignment]
                received += len(sock.recv(1 << 18))
                last = now
        lost = total * count - received / len(_MESSAGE)
        used = (cpu_seconds(pid) - cpu) / (total * count)
    return (
        f"{lost:,.0f} of {total * count:,} lost, {total * count / (last - begin):,.0f}/s, {used * 1e6:.2f} µs CPU each"
    )


def blocked(port: int, pid: int, count: int, seconds: float) -> str:
    """So many clients that block, each for a key of its own; and the same process with no client at all."""
    idle = _used(pid, seconds)
    with _clients(port, count) as all_:
        for number, sock in enumerate(all_):
            sock.sendall(b"BLPOP waits:%d 0\r\n" % number)
        time.sleep(2)  # until all have their connections
        used = _used(pid, seconds)
        with _clients(port, 1) as (other,):
            for number, sock in enumerate(all_):
                other.sendall(b"RPUSH waits:%d v\r\n" % number)
                _read(other, 4)
                if not _read(sock, 4).startswith(b"*2\r\n"):
                    raise RuntimeError("it was not woken")
    return f"{100 * used:.2f} % of a processor, {100 * idle:.2f} % without them"


def _used(pid: int, seconds: float) -> float:
    """How much of a processor the process takes."""
    cpu = cpu_seconds(pid)
    time.sleep(seconds)
    return (cpu_seconds(pid) - cpu) / seconds


def transactions(port: int, pid: int, rounds: int) -> str:
    """A transaction of five SETs, and five SETs."""
    one = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n"
    plain = one * _TRANSACTION * _PIPELINE
    whole = (b"*1\r\n$5\r\nMULTI\r\n" + one * _TRANSACTION + b"*1\r\n$4\r\nEXEC\r\n") * _PIPELINE
    answers = (
        b"+OK\r\n" * _TRANSACTION,
        b"+OK\r\n" + b"+QUEUED\r\n" * _TRANSACTION + b"*5\r\n" + b"+OK\r\n" * _TRANSACTION,
    )
    costs = []
    with _clients(port, 1) as (sock,):
        for requests, answer in zip((plain, whole), answers, strict=True):
            for counted in (False, True):
                cpu = cpu_seconds(pid)
                for _ in range(rounds):
                    sock.sendall(requests)
                    _read(sock, len(answer) * _PIPELINE)
                if counted:
                    costs.append((cpu_seconds(pid) - cpu) / rounds / _PIPELINE * 1e6)
    return f"{costs[1]:.2f} µs against {costs[0]:.2f} µs: {costs[1] / costs[0]:.2f} ×"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.sessions", description=__doc__)
    parser.add_argument("--clients", type=int, default=1_000, help="subscribers, and clients that block")
    parser.add_argument("--rate", type=int, default=1_000, help="messages a second")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each is measured")
    args = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print("| what | through | measured |\n|---|---|--:|")
    with (
        tempfile.TemporaryDirectory() as name,
        redis_pair(Path(name)) as (primary, mirror),
        contextlib.ExitStack() as up,
    ):
        ways = {"Redis itself": (primary.port, primary.pid)}
        for label, other in (("a sidecar", None), ("a sidecar that mirrors", mirror)):
            folder = Path(name) / label.replace(" ", "-")
            folder.mkdir()
            port, _, process = up.enter_context(running_redisha(folder, primary, other))
            ways[label] = (port, process.pid)
        for label, (port, pid) in ways.items():
            what = f"{args.clients:,} subscribers, {args.rate:,} messages/s"
            _print(what, label, subscribers(port, pid, args.clients, args.rate, args.seconds))
        for label, (port, pid) in ways.items():
            _print(f"{args.clients:,} clients that block", label, blocked(port, pid, args.clients, args.seconds))
        for label, (port, pid) in ways.items():
            _print("a transaction of 5 SETs against 5 SETs, CPU", label, transactions(port, pid, 1_000))


def _print(what: str, through: str, measured: str) -> None:
    print(f"| {what} | {through} | {measured} |", flush=True)


if __name__ == "__main__":
    main()
