"""How states, times and progress are written. For all commands that ask a sidecar."""

from __future__ import annotations

from typing import Any

import click

BAR = 24
"""Characters of a progress bar."""

GOOD, BUSY, BAD = "green", "yellow", "red"

_COLOURS = {
    "in_sync": GOOD,
    "sampled": GOOD,
    "ready": GOOD,
    "healthy": GOOD,
    "done": GOOD,
    "connecting": BUSY,
    "catching_up": BUSY,
    "resync": BUSY,
    "paused": BUSY,
    "held": BUSY,
    "running": BUSY,
    "waiting": BUSY,
    "empty": BUSY,
}


def bar(progress: dict[str, Any]) -> str:
    """How far something is: ``[######------] 45.0 %, 450,000 of 1,000,000 keys, 12,300 per second, 45 s to go``."""
    percent = progress["percent"]
    full = round(BAR * percent / 100) if percent is not None else 0
    parts = [f"[{'#' * full}{'-' * (BAR - full)}]" + (f" {percent:.1f} %" if percent is not None else "")]
    parts.append(
        f"{progress['done']:,} of {progress['total']:,} keys" if progress["total"] else f"{progress['done']:,} keys"
    )
    if progress["rate"]:
        parts.append(f"{progress['rate']:,} per second")
    if progress["eta_s"] is not None:
        parts.append(f"{duration(progress['eta_s'])} to go")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """3720 as ``1h 2m``."""
    left = int(seconds)
    for unit, smaller, size, step in (("d", "h", 86_400, 3600), ("h", "m", 3600, 60), ("m", "s", 60, 1)):
        if left >= size:
            return f"{left // size}{unit} {left % size // step}{smaller}"
    return f"{left} s"


def coloured_state(state: str) -> str:
    """A state in its colour."""
    return coloured(state, _COLOURS.get(state, BAD))


def coloured(text: str, colour: str) -> str:
    """In colour; ``click.echo`` takes it away where the output is no terminal."""
    return click.style(text, fg=colour)
