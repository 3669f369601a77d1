"""What the data plane tells, in words and levels: :mod:`redisha.events`."""

import logging

import pytest

from redisha.core import Event, EventKind
from redisha.events import Chronicle, level, sentence

PAIR = "a/h:1 -> b/h:2"


@pytest.mark.parametrize(
    ("kind", "detail", "expected", "text"),
    [
        ("healed", "buckets: 3 of 9 keys", logging.INFO, f"healed {PAIR}: buckets: 3 of 9 keys"),
        ("overflow", "", logging.WARNING, f"the log is full for {PAIR}"),
        ("refill", "it lost data", logging.WARNING, f"refill {PAIR}: it lost data"),
        ("same_server", "one", logging.ERROR, f"refused {PAIR}: one"),
        ("map", "no room", logging.WARNING, f"dirty map of {PAIR}: no room"),
        ("primary", "it lost data", logging.WARNING, f"primary {PAIR}: it lost data"),
        ("lost", "3", logging.ERROR, f"effects lost for {PAIR}: 3"),
        ("replica", "in_sync", logging.INFO, f"replica {PAIR}: in_sync"),
        ("replica", "down: refused", logging.WARNING, f"replica {PAIR}: down: refused"),
        ("replica", "unproven: not sole", logging.WARNING, f"replica {PAIR}: unproven: not sole"),
        ("replica", "diverged: too large", logging.ERROR, f"replica {PAIR}: diverged: too large"),
        ("replica", "refused: same", logging.ERROR, f"replica {PAIR}: refused: same"),
        ("replica", "", logging.INFO, f"replica {PAIR}"),
        ("weather", "shines", logging.INFO, f"{PAIR}: shines"),
    ],
)
def test_words_and_levels(kind: str, detail: str, expected: int, text: str) -> None:
    event = Event(EventKind(kind), PAIR, detail)
    assert level(event) == expected
    assert sentence(event) == text


def test_the_subject_of_a_replica() -> None:
    assert Event(EventKind.REFILL, PAIR, "").replica == ("a/h:1", "b/h:2")
    assert Event(EventKind.UPSTREAM_UP, "a/h:1", "").replica is None


def test_what_is_said_again_is_kept_once_but_each_healing_is_news(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    chronicle = Chronicle()
    for kind in (EventKind.UPSTREAM_DOWN, EventKind.HEALED, EventKind.REFILL):
        for _ in range(2):
            chronicle.take(Event(kind, PAIR, "x"))
    assert [each["kind"] for each in chronicle.recent()] == ["upstream_down", "healed", "healed", "refill", "refill"]
    assert len(caplog.records) == 5
