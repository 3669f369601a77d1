"""A key that differed once, and what is to be made of it. Pure.

A mirror is always a moment behind, so one look proves nothing. A key is looked at again, ``passes`` times, ``settle``
seconds apart, and longer while it changes. It differs if it still does at the end and did not change on both servers
since the look before. If it did, it is in flight: writes come in on both, and no look finds them at the same place.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from redisha.verify.look import Look

PATIENCE = 3
"""So many times ``passes`` a key is looked at that changes, or is about to expire."""


class Verdict(Enum):
    """What a look at a key says."""

    AGAIN = "again"
    SAME = "same"
    GONE = "gone"
    DIFFERENT = "different"
    ONLY_A = "only_a"
    ONLY_B = "only_b"
    IN_FLIGHT = "in_flight"


DIFFERENCES = frozenset({Verdict.DIFFERENT, Verdict.ONLY_A, Verdict.ONLY_B})


@dataclass(slots=True)
class Case:
    """One key under suspicion.

    Attributes:
        database: where it is.
        key: the key.
        due: when to look next, in the loop's time.
        looks: how often it was looked at, since the last copy.
        a: what A showed last, in short; empty for nothing.
        b: what B showed last.
        found: what it was found to be, before it was copied; None if it does not differ.
        detail: what differed then, in words.
        copies: how often it was copied.
        error: why it could not be copied; empty if it could.
    """

    database: int
    key: bytes
    due: float = 0.0
    looks: int = 0
    a: bytes = b""
    b: bytes = b""
    found: Verdict | None = None
    detail: str = ""
    copies: int = 0
    error: str = ""


def judge(case: Case, look: Look, passes: int) -> Verdict:
    """What the case comes to with this look, which the case remembers."""
    a, b = look.prints()
    first = case.looks == 0
    moved_a = not first and a != case.a
    moved_b = not first and b != case.b
    # B came to where A was at the last look (or A to where B was): it follows, a moment behind.
    follows = (moved_b and b == case.a) or (moved_a and a == case.b)
    case.looks, case.a, case.b = case.looks + 1, a, b
    if look.a is None and look.b is None:
        return Verdict.GONE
    if look.equal or follows:
        return Verdict.SAME
    patient = moved_a or moved_b or look.expiring
    if case.looks <= passes * (PATIENCE if patient else 1):
        return Verdict.AGAIN
    if moved_a and moved_b:
        return Verdict.IN_FLIGHT
    if look.a is None:
        return Verdict.ONLY_B
    return Verdict.ONLY_A if look.b is None else Verdict.DIFFERENT
