"""Starting the programs that are measured, and ending them whatever happens."""

import contextlib
import ctypes
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def spawn(argv: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a program that ends when we do; its output goes to ``log``."""
    with log.open("ab") as output:
        return subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, preexec_fn=_die_with_parent
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL if that is not enough."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


def free_port() -> int:
    """A free port, below those that the system takes for outgoing connections."""
    while True:
        port = random.randint(12_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def wait_until(look: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, every: float = 0.005) -> None:
    """Wait, at most 30 s, for ``look`` to be true; it is an error when ``process`` ends before."""
    deadline = time.monotonic() + 30
    while not look():
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}:\n{log.read_text()[-3000:]}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} is not ready after 30 s:\n{log.read_text()[-3000:]}")
        time.sleep(every)


def exchange(port: int, request: bytes, size: int = 4096) -> bytes:
    """Connect, send, and return what comes first; nothing when that fails."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as sock:
            sock.sendall(request)
            return sock.recv(size)
    except OSError:
        return b""


def answers_set(port: int) -> bool:
    """Whether a SET gets an OK there."""
    return exchange(port, b"*3\r\n$3\r\nSET\r\n$5\r\nready\r\n$1\r\n1\r\n") == b"+OK\r\n"
