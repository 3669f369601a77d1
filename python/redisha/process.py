"""The process and its system: open files, resident memory, giving memory back."""

from __future__ import annotations

import contextlib
import os
import resource


def raise_file_limit() -> int:
    """Raise the soft limit of open files to the hard one, and return it; every client and upstream needs one.

    A system that does not allow it leaves the limit as it was.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard
    return soft


class Trimmer:
    """Decides when to ask the allocator to give memory back: after a peak and in a calm moment.

    Args:
        step: bytes by which the process must have grown since the last time.
        calm: requests per second below which a moment is calm (asking stops the allocator for a few milliseconds).
    """

    def __init__(self, step: int = 4 << 20, calm: float = 1000.0) -> None:
        self._step = step
        self._calm = calm
        self._floor: int | None = None
        self._requests = 0
        self._at = 0.0

    def due(self, resident: int, requests: int, now: float) -> bool:
        """Whether to trim now.

        Args:
            resident: bytes of resident memory.
            requests: requests since the start.
            now: seconds of a clock that does not go back.
        """
        elapsed = now - self._at
        rate = (requests - self._requests) / elapsed if elapsed > 0 else 0.0
        self._requests, self._at = requests, now
        if self._floor is None:
            self._floor = resident
        return rate < self._calm and resident >= self._floor + self._step

    def trimmed(self, resident: int) -> None:
        """It was done and ``resident`` bytes are left: the next peak counts from here."""
        self._floor = resident


def malloc_trim() -> None:
    """Give freed memory back to the system, where the C library has a call for it (glibc)."""
    import ctypes  # 0.3 MB, after the start

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def resident_bytes() -> int:
    """Resident memory of the process; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
