"""CPU time and memory of processes, as the kernel counts them."""

import re
from pathlib import Path

_NANOSECONDS = 1e9


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads that the process has now, in seconds; exact to the nanosecond.

    Threads that have ended are not counted, so this is for programs whose threads live as long as they do.
    """
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total / _NANOSECONDS


def resident_bytes(pid: int) -> int:
    """Resident memory of the process."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0
