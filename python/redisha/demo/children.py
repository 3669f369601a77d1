"""Child processes that never outlive the demo, and ports for them.

Owns: how a child is started and ended. Never: knows what it is.
"""

import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from redisha.errors import RedishaError

# Below the range from which Linux picks the local port of outgoing connections.
_FIRST_PORT, _LAST_PORT = 12_000, 32_000
_PR_SET_PDEATHSIG = 1
_SHOWN_LOG = 1500
_given: set[int] = set()
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None

PORT_TRIES = 5
"""Ports that are tried before a program counts as one that does not start."""


class DemoError(RedishaError):
    """The demo cannot go on."""


class Child:
    """One program. Started in a session of its own, so that Ctrl-C reaches the demo alone, which ends it in order.

    Args:
        argv: the program and its arguments.
        log: the file that its output is appended to.
    """

    def __init__(self, argv: Sequence[str], log: Path) -> None:
        self._log = log
        self._begin = log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own programs
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """Its exit code, or None while it runs."""
        return self._process.poll()

    def output(self) -> str:
        """What it has written since it was started; only the end, if that is much."""
        return self._log.read_bytes()[self._begin :].decode(errors="replace")[-_SHOWN_LOG:]

    def wait_until(self, look: Callable[[], bool], what: str, timeout: float = 15.0) -> None:
        """Wait until ``look`` says yes, or the program has ended.

        Raises:
            DemoError: neither in time.
        """
        wait_until(lambda: self.exit_code() is not None or look(), what, timeout)

    def ask_to_end(self) -> None:
        """SIGTERM, without waiting."""
        if self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        """SIGKILL, and wait: it has no time for anything."""
        self._process.kill()
        self._process.wait()

    def end(self, timeout: float = 5.0) -> None:
        """SIGTERM and wait; SIGKILL if that takes too long."""
        self.ask_to_end()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()


def _die_with_parent() -> None:
    """In the child: ask the kernel for SIGKILL when the demo is gone, whatever became of it."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port() -> int:
    """A port of 127.0.0.1 that is free now and that was not given out before."""
    for _ in range(1000):
        port = random.randint(_FIRST_PORT, _LAST_PORT)  # noqa: S311 - no secret
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise DemoError(f"there is no free port between {_FIRST_PORT} and {_LAST_PORT}")


def wait_until(look: Callable[[], bool], what: str, timeout: float = 15.0) -> None:
    """Call ``look`` until it says yes; an ``OSError`` of it is a no.

    Raises:
        DemoError: it has not said yes in time.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            if look():
                return
        except OSError:
            pass
        if time.monotonic() >= deadline:
            raise DemoError(f"not within {timeout:g} s: {what}")
        time.sleep(0.02)


def require(program: str, package: str) -> str:
    """The path of a program.

    Raises:
        DemoError: it is not installed; the text says how to install it.
    """
    path = shutil.which(program)
    if path is None:
        raise DemoError(
            f"'{program}' is not on the PATH, and the demo needs it; install it with\n    {install(package)}"
        )
    return path


def install(package: str) -> str:
    """The command that installs a package here, as far as one can tell."""
    known = {
        "apt-get": f"apt-get install -y --no-install-recommends {package}",
        "dnf": "dnf install -y redis",
        "apk": "apk add redis",
        "pacman": "pacman -S redis",
        "brew": "brew install redis",
    }
    manager = next((name for name in known if shutil.which(name)), "apt-get")
    sudo = "sudo " if manager != "brew" and os.getuid() != 0 else ""
    return sudo + known[manager]
