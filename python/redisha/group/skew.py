"""Clocks of members that are not in step."""

from __future__ import annotations

from datetime import timedelta

_LIMIT_MS = 5_000
"""Less is not told of: what tells of it was on its way for a while, and a member may halt."""


def is_skewed(skew_ms: int) -> bool:
    """Whether an operator must know: of two writes of one key the later one stays, and the leader's clock expires keys.

    Args:
        skew_ms: milliseconds that a clock is ahead of this member's.
    """
    return abs(skew_ms) >= _LIMIT_MS


def skew_text(skew_ms: int) -> str:
    """How far another member's clock is off, in words."""
    apart = timedelta(seconds=abs(skew_ms) // 1000)
    return f"{apart} {'ahead of' if skew_ms > 0 else 'behind'} this member's"
