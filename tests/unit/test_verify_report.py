"""Counts, Sync, and the form as text and as JSON."""

import json

import pytest

from redisha.verify.facts import Facts
from redisha.verify.report import Counts, Difference, Report
from redisha.verify.text import lines


def facts(address: str, **fields: object) -> Facts:
    defaults = {"run_id": "r", "version": "7.0.15", "role": "master", "master": "", "cluster": False, "keys": {}}
    allowed = {"databases": 16, "dump": True, "expiretime": True, "memory": True, "field_expiry": False}
    return Facts(address, **(defaults | allowed | fields))  # type: ignore[arg-type]  # a dictionary of all fields


def report(**fields: object) -> Report:
    made = Report(facts("a:1"), facts("b:2"))
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def test_counts() -> None:
    counts = Counts(same=10, different=2, only_a=3, only_b=4, in_flight=1, repaired=5)
    assert (counts.keys_a, counts.keys_b, counts.keys) == (16, 17, 20)
    assert counts.remaining == 4
    assert counts.sync == 80.0
    counts.add(Counts(same=1, repaired=4))
    assert (counts.same, counts.remaining, counts.sync) == (11, 0, 100.0)


@pytest.mark.parametrize(
    ("counts", "sync"),
    [
        (Counts(), 100.0),
        (Counts(same=1), 100.0),
        (Counts(in_flight=1), 100.0),
        (Counts(only_a=1), 0.0),
        (Counts(same=2, different=1), 66.66),
        (Counts(same=999_999, different=1), 99.99),
    ],
)
def test_sync_is_100_only_if_nothing_differs(counts: Counts, sync: float) -> None:
    assert counts.sync == sync


def test_text_of_equal_servers() -> None:
    text = list(lines(report(databases={0: Counts(same=1_234)}, seconds=0.5)))
    assert text == [
        "A  a:1  Redis 7.0.15, primary",
        "B  b:2  Redis 7.0.15, primary",
        "",
        "             keys on A   keys on B    same   different   only on A   only on B    Sync",
        "database 0       1,234       1,234   1,234           0           0           0   100 %",
        "",
        "equal: 1,234 keys compared in 0.5 s, 2,468 a second",
    ]


def test_text_of_different_servers() -> None:
    text = list(
        lines(
            report(
                databases={0: Counts(same=8, different=1), 3: Counts(only_b=1, in_flight=2)},
                functions=Counts(only_a=1),
                differences=[
                    Difference(0, b"key", "different", "string and list"),
                    Difference(3, b"\xff\n", "only_b", "set"),
                    Difference(None, b"lib", "only_a", "library of functions"),
                ],
                more=2,
                notes=["a:1 is a replica of c:3"],
                sampled=True,
                seconds=1.0,
            )
        )
    )
    assert text[3:] == [
        "             keys on A   keys on B   same   different   only on A   only on B   in flight      Sync",
        "database 0           9           9      8           1           0           0           0   88.88 %",
        "database 3           2           3      0           0           0           1           2   66.66 %",
        "all                 11          12      8           1           0           1           2   83.33 %",
        "functions            1           0      0           0           1           0           0    0.00 %",
        "",
        "different: database 0, key key (string and list)",
        r"only on B: database 3, key \xff\n (set)",
        "only on A: library lib (library of functions)",
        "… and 2 more; --limit 5 lists all",
        "",
        "note: a:1 is a replica of c:3",
        "note: 2 keys changed on both servers whenever looked at: of these nothing can be said; more --passes may help",
        "different: 2 keys and 1 library of functions; 12 keys looked at in 1.0 s, 12 a second",
    ]


def test_text_after_a_repair() -> None:
    text = list(
        lines(
            report(
                databases={0: Counts(same=1, different=2, repaired=2)},
                differences=[
                    Difference(0, b"a", "different", "string and list", True),
                    Difference(0, b"b", "different", "string with another value", False, "OOM"),
                ],
                repair=True,
            )
        )
    )
    assert "repaired    Sync" in text[3]
    assert text[4].endswith("2   100 %")
    assert text[6] == "different: database 0, key a (string and list) → repaired"
    assert text[7] == "different: database 0, key b (string with another value) → not repaired: OOM"
    assert text[-1].startswith("equal now, 2 repaired: 3 keys compared")


def test_json() -> None:
    made = report(
        databases={0: Counts(same=1, only_a=1)},
        differences=[Difference(0, b"\xffx", "only_a", "set"), Difference(None, b"lib", "different")],
    )
    found = json.loads(json.dumps(made.as_dict()))
    assert found["equal"] is False
    assert (found["a"]["address"], found["b"]["version"]) == ("a:1", "7.0.15")
    assert found["total"]["sync_percent"] == 50.0
    assert found["functions"] is None
    key, library = found["differences"]
    assert (key["db"], key["key"], key["key_base64"], key["what"]) == (0, "\\xffx", "/3g=", "only_a")
    assert (library["library"], library["what"]) == ("lib", "different")
