"""What is made of a key that differed once."""

import time

import pytest

from redisha.verify.case import Case, Verdict, judge
from redisha.verify.look import Look, Seen

PASSES = 2


def seen(value: str | None, expiry: int = -1) -> Seen | None:
    return None if value is None else Seen("string", value.encode(), expiry)


def verdicts(*pairs: tuple[str | None, str | None], passes: int = PASSES) -> list[Verdict]:
    case = Case(0, b"k")
    return [judge(case, Look(seen(a), seen(b)), passes) for a, b in pairs]


AGAIN, SAME, GONE = Verdict.AGAIN, Verdict.SAME, Verdict.GONE


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [("x", "y", Verdict.DIFFERENT), ("x", None, Verdict.ONLY_A), (None, "y", Verdict.ONLY_B)],
)
def test_what_stays_is_a_difference(a: str | None, b: str | None, verdict: Verdict) -> None:
    assert verdicts((a, b), (a, b), (a, b)) == [AGAIN, AGAIN, verdict]
    assert verdicts((a, b), passes=0) == [verdict]


def test_what_becomes_equal_is_none() -> None:
    assert verdicts(("x", "x")) == [SAME]
    assert verdicts(("x", "y"), ("x", "x")) == [AGAIN, SAME]
    assert verdicts(("x", None), (None, None)) == [AGAIN, GONE]


def test_b_may_follow_a_moment_behind() -> None:
    assert verdicts(("2", "1"), ("3", "2")) == [AGAIN, SAME]
    assert verdicts((None, "1"), ("3", None)) == [AGAIN, SAME]
    # The other way, too: nobody says which of the two is the mirror.
    assert verdicts(("1", "2"), ("2", "3")) == [AGAIN, SAME]


def test_b_that_was_where_a_is_not_any_more_does_not_follow() -> None:
    """B lost the write: A was there before, and B has stayed."""
    assert verdicts(("1", "1b"), ("2", "1b"), ("2", "1b"), ("2", "1b"))[-1] is Verdict.DIFFERENT


def test_a_key_that_changes_on_both_sides_is_in_flight() -> None:
    pairs = [(f"a{number}", f"b{number}") for number in range(7)]
    assert verdicts(*pairs) == [AGAIN] * 6 + [Verdict.IN_FLIGHT]


def test_a_key_that_changes_on_one_side_only_is_a_difference() -> None:
    pairs = [(f"a{number}", "b") for number in range(7)]
    assert verdicts(*pairs) == [AGAIN] * 6 + [Verdict.DIFFERENT]


def test_a_key_whose_time_has_come_may_be_gone_on_one_server_first() -> None:
    soon, later = int(time.time() * 1000), int(time.time() * 1000) + 60_000
    assert [judge(Case(0, b"k"), Look(None, seen("x", when)), 0) for when in (later, -1)] == [Verdict.ONLY_B] * 2
    case = Case(0, b"k")
    expiring = [judge(case, Look(None, seen("x", soon)), 1) for _ in range(4)]
    assert expiring == [AGAIN, AGAIN, AGAIN, Verdict.ONLY_B]


def test_expiry_counts() -> None:
    def look(a: int, b: int, exact: bool) -> Look:
        return Look(seen("x", a), seen("x", b), exact)

    now = 1_700_000_000_000
    assert look(now, now, True).equal
    assert not look(now, now + 1, True).equal
    assert look(now, now + 2, False).equal
    assert not look(now, now + 3, False).equal
    assert not look(now, -1, False).equal
    assert look(now, now + 1, True).detail == f"string that expires at {now} ms and at {now + 1} ms"
    assert look(-1, now, True).detail == f"string that expires never and at {now} ms"


def test_details() -> None:
    assert Look(seen("x"), Seen("list", b"", -1)).detail == "string and list"
    assert Look(seen("x"), seen("y")).detail == "string with another value"
    assert Look(seen("x"), None).detail == "string"
