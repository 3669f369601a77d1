"""The process and its system: open files, resident memory, giving memory back."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from collections.abc import Callable
from typing import ClassVar


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
    """Decides when to ask the allocator to give memory back: when much was freed since the last time, in a calm moment.

    Args:
        step: bytes that must have been freed, and by which the process must be larger than it once was.
        calm: requests per second below which a moment is calm (both questions stop the allocator, the longer the more
            pieces it has: a few milliseconds after a peak).
    """

    def __init__(self, step: int = 4 << 20, calm: float = 1000.0) -> None:
        self._step = step
        self._calm = calm
        self._smallest: int | None = None
        self._least: int | None = None
        self._requests = 0
        self._at = 0.0

    def due(self, resident: int, free: Callable[[], int], requests: int, now: float) -> bool:
        """Whether to trim now.

        Args:
            resident: bytes of resident memory.
            free: tells the bytes that the allocator holds and nobody uses, whether or not the system has their pages
                already; asked only if it matters.
            requests: requests since the start.
            now: seconds of a clock that does not go back.
        """
        elapsed = now - self._at
        rate = (requests - self._requests) / elapsed if elapsed > 0 else 0.0
        self._requests, self._at = requests, now
        self._smallest = resident if self._smallest is None else min(self._smallest, resident)
        if rate >= self._calm or (self._least is not None and resident < self._smallest + self._step):
            return False
        held = free()
        self._least = held if self._least is None else min(self._least, held)
        return held >= self._least + self._step

    def trimmed(self, free: int) -> None:
        """It was done: what is free now has no pages any more."""
        self._least = free


class _Mallinfo2(ctypes.Structure):
    """glibc's ``struct mallinfo2``."""

    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


class Allocator:
    """The C library's allocator, as far as it can be asked: glibc from 2.33 on; of another one nothing is known."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self._mallinfo = getattr(library, "mallinfo2", None)
        self._trim = getattr(library, "malloc_trim", None)
        if self._mallinfo is not None:
            self._mallinfo.restype = _Mallinfo2

    def free_bytes(self) -> int:
        """Bytes that were freed and are kept for later."""
        return int(self._mallinfo().fordblks) if self._mallinfo is not None else 0

    def trim(self) -> None:
        """Give the pages of freed memory back to the system."""
        if self._trim is not None:
            self._trim(0)


def resident_bytes() -> int:
    """Resident memory of the process; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
