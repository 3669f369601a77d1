"""A child process that never outlives the tests."""

import ctypes
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class EndedError(Exception):
    """A process ended while something was expected of it."""


def _die_with_parent() -> None:
    """In the child, before exec: ask the kernel for SIGKILL when the parent is gone."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def spawn(argv: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start ``argv`` with its output appended to ``log``.

    Call it from a thread that lives as long as the child shall: the kernel takes the end of the thread
    for the end of the parent.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=_die_with_parent,
        )


def finish(process: subprocess.Popen[bytes], sig: signal.Signals, timeout: float = 10.0) -> int:
    """Send ``sig`` (a stopped process is woken first), wait, and return the exit code.

    A process that has not ended in time is killed, and that is an ``AssertionError``.
    """
    if process.poll() is not None:
        return process.returncode
    process.send_signal(sig)
    process.send_signal(signal.SIGCONT)
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout)
        raise AssertionError(f"{process.args!r} did not end within {timeout:g} s of {sig.name}") from None
