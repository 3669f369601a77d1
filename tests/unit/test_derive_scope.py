"""Which keys a mirror has in common with its primary, and where servers are: :mod:`redisha.derive`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisha.config.load import parse
from redisha.config.model import Config
from redisha.derive import Scope, mirrored_clusters, mirrored_pairs, servers
from redisha.plan import compile_plan

CLUSTERS = """
clusters:
  a: {endpoints: redis-001:6379, auth: {username: boss, password: swordfish}, op_timeout: 2s}
  b: {endpoints: [10.0.0.2:6379, 10.0.0.3:6379]}
  c: {endpoints: "unix:/c"}
"""


def config(*listeners: str, more: str = "") -> Config:
    lines = [
        f" - {{bind: 0.0.0.0:{number}, {more} routes: [{routes}]}}\n" for number, routes in enumerate(listeners, 1)
    ]
    return parse("listeners:\n" + "".join(lines) + CLUSTERS, "f.yaml", {}).config


def test_servers_have_names_addresses_and_words() -> None:
    plan = compile_plan(config("{cluster: a, mirrors: [{cluster: b}]}"), {"redis-001": []}, 1)
    found = servers(plan)
    assert list(found) == ["a/redis-001:6379", "b/10.0.0.2:6379", "b/10.0.0.3:6379", "c/unix:/c"]
    one = found["a/redis-001:6379"]
    assert (one.address, one.username, one.password, one.alone, one.op_timeout) == (
        None,
        "boss",
        "swordfish",
        True,
        2.0,
    )
    assert "swordfish" not in repr(one)
    assert not found["b/10.0.0.2:6379"].alone
    assert found["c/unix:/c"].address == "unix:/c"


def test_pairs_and_clusters() -> None:
    found = config(
        "{prefix: x, cluster: a, mirrors: [{cluster: b}]}, {cluster: a, mirrors: [{cluster: b}]}", "{cluster: c}"
    )
    assert mirrored_pairs(found) == (("a", "b"),)
    assert mirrored_clusters(found) == ("a", "b")
    assert mirrored_clusters(config("{cluster: c}")) == ()


TO_B = "cluster: a, mirrors: [{cluster: b}]"


@pytest.mark.parametrize(
    ("listeners", "whole", "inside", "outside"),
    [
        ([f"{{{TO_B}}}"], True, [b"", b"x", b"\xff"], []),
        ([f"{{prefix: x, {TO_B}}}, {{cluster: a}}"], False, [b"x", b"xy"], [b"", b"y", b"X"]),
        ([f"{{prefix: x, {TO_B}}}, {{prefix: xy, cluster: a}}"], False, [b"x", b"xz"], [b"xy", b"xyz", b"y"]),
        ([f"{{prefix: x, cluster: c}}, {{{TO_B}}}"], False, [b"", b"y"], [b"x"]),
        ([f"{{prefix: x, {TO_B}}}, {{{TO_B}}}"], True, [b"", b"x"], []),
        ([f"{{prefix: x, {TO_B}}}", f"{{prefix: y, {TO_B}}}"], False, [b"x", b"y"], [b"z"]),
        ([f"{{prefix: x, {TO_B}}}", f"{{{TO_B}}}"], True, [b"z"], []),
        ([f"{{prefix: x, remove_prefix: true, {TO_B}}}"], False, [b"", b"anything"], []),
        (
            [f"{{prefix: x, remove_prefix: true, {TO_B}}}, {{prefix: xy, cluster: c}}"],
            False,
            [b"", b"a"],
            [b"y", b"yz"],
        ),
        (["{cluster: a, mirrors: [{cluster: c}]}"], False, [], [b"", b"x"]),
        (["{cluster: b, mirrors: [{cluster: a}]}"], False, [], [b"x"]),
    ],
)
def test_scope(listeners: list[str], whole: bool, inside: list[bytes], outside: list[bytes]) -> None:
    scope = Scope(config(*listeners), "a", "b")
    assert scope.whole == whole
    assert [key for key in inside if not scope.has(key)] == []
    assert [key for key in outside if scope.has(key)] == []


def test_scope_in_any_case() -> None:
    scope = Scope(config(f"{{prefix: xY, {TO_B}}}, {{cluster: c}}", more="case_insensitive: true,"), "a", "b")
    assert scope.has(b"XyZ")
    assert not scope.has(b"x")


prefixes = st.text("xyX", max_size=3)


@given(
    st.lists(st.tuples(prefixes, st.booleans(), st.booleans()), min_size=1, max_size=4, unique_by=lambda t: t[0]),
    st.text("xyX", max_size=5),
)
def test_scope_is_what_routing_does(routes: list[tuple[str, bool, bool]], key: str) -> None:
    """The keys of a scope are those that some command of a client brings to both."""
    text = ", ".join(
        f"{{prefix: '{prefix}', remove_prefix: {str(cut).lower()}, {TO_B if leads else 'cluster: c'}}}"
        for prefix, cut, leads in routes
    )
    reached = set()
    for begin in {"", *(prefix for prefix, _, _ in routes)}:
        asked = begin + key
        taken = max(
            (route for route in routes if asked.startswith(route[0])), key=lambda route: len(route[0]), default=None
        )
        if taken is not None and taken[2]:
            reached.add(asked.removeprefix(taken[0]) if taken[1] else asked)
    assert Scope(config(text), "a", "b").has(key.encode()) == (key in reached)
