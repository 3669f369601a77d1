"""YAML with places: what scalars are, and what no configuration may hold."""

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from redisha.config.tree import Item, Report, join, read, suggest
from redisha.errors import ConfigError


def parse(text: str) -> Item:
    report = Report("f.yaml")
    root = read(text, report)
    report.raise_if_any()
    return root


def refused(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("no", "no"),
        ("On", "On"),
        ("y", "y"),
        ("1:30", "1:30"),
        ("0600", 600),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("2026-01-31", "2026-01-31"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("1e3", 1000.0),
        ("-.5", -0.5),
        ("+12", 12),
        ("'12'", "12"),
        ('"true"', "true"),
        ("!!str 12", "12"),
        ("=", "="),
        ("<<", "<<"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(scalar: str, value: object) -> None:
    found = parse(f"a: {scalar}").plain()["a"]
    assert found == value
    assert type(found) is type(value)


def test_keys_are_text_as_written() -> None:
    assert parse("{1: a, no: b, 001: c, ~: d}").plain() == {"1": "a", "no": "b", "001": "c", "~": "d"}


def test_places() -> None:
    root = parse("a:\n  - x\n  -\n    b.c: 1\n")
    items = root.mapping["a"]
    assert (items.line, items.path) == (1, "a")
    assert (items.sequence[0].line, items.sequence[0].path) == (2, "a[0]")
    inner = items.sequence[1].mapping["b.c"]
    assert (inner.line, inner.path) == (4, 'a[1]."b.c"')


def test_aliases_stand_for_their_value_at_their_own_place() -> None:
    root = parse("a: &x {b: 1}\nc: *x")
    assert root.plain() == {"a": {"b": 1}, "c": {"b": 1}}
    assert root.mapping["c"].mapping["b"].path == "c.b"


def test_a_bomb_of_aliases_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert "more than 200000 values" in refused("\n".join(lines))[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x {b: *x}", "f.yaml:1: a.b: an alias stands for a value that contains it"),
        ("a: 1\na: 2", "f.yaml:2: a: the key 'a' is given twice (first in line 1)"),
        ("a: 1\n? [b]\n: 2", "f.yaml:2: a key must be text"),
        (
            "a: !!python/name:os.system x",
            "f.yaml:1: a: the tag '!!python/name:os.system' has no meaning here (remove it)",
        ),
        ("a: !!int x", "f.yaml:1: a: 'x' is not a value of the type 'int'"),
        ("a: !!set {b}", "f.yaml:1: a: the tag '!!set' has no meaning here (remove it)"),
        ("a: 1\n---\nb: 1", "f.yaml:3: a second YAML document begins here"),
        ("- a", "f.yaml:1: expected a mapping with 'listeners' and 'clusters', found a list"),
        ("hello", "f.yaml:1: expected a mapping with 'listeners' and 'clusters', found the text 'hello'"),
        ("a: [1\nb: 2", "f.yaml:2: not valid YAML"),
        ("a:\n\t- b", "f.yaml:2: not valid YAML"),
        ("a: *nothing", "f.yaml:1: not valid YAML: found undefined alias"),
        ("a: \x00", "f.yaml: not valid YAML"),
        ("a: '\\ud800'\nb: \"\\ud800\"", "f.yaml:2: not valid YAML"),
        ("a: " + "[" * 3000 + "]" * 3000, "f.yaml"),
        ("", "f.yaml:1: the file is empty; the smallest configuration that mirrors is\nlisteners:"),
        ("# only a comment\n", "f.yaml:1: the file is empty"),
        ("---\n---\n", "the file is empty"),
    ],
)
def test_refused(text: str, message: str) -> None:
    assert any(message in problem for problem in refused(text))


@given(st.text(alphabet="ab:-{}[]&*!#'\"\\|> \n\t0~?,%@`", max_size=60))
@example("&a [*a]")
@example("a: &a\n  b: *a")
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(parse(text).plain(), dict)


def test_paths_and_suggestions() -> None:
    assert join("", "a") == "a"
    assert join("a", 0) == "a[0]"
    assert join("a", "b c") == 'a."b c"'
    assert suggest("lisners", ["listeners", "clusters"]) == "did you mean 'listeners'?"
    assert suggest("zz", ["b", "a"]) == "known: a, b"
    assert suggest("zz", map(str, range(20))) == ""
    assert suggest("zz", []) == ""
