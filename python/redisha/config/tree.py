"""A YAML document as a tree in which every value knows its line and its path.

Scalars are those of YAML 1.2's core schema (and JSON): ``no``, ``on`` and ``1:30`` are text, ``0o17`` is a number.
Keys are always text, as written. Both readers of configuration files start from this tree, and every message about a
file takes its place from it.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

from redisha.errors import ConfigError, Problem

Scalar: TypeAlias = str | int | float | bool | None

# A file with aliases can stand for far more values than it has characters.
MAX_VALUES = 200_000

TEACH = """listeners:
  - bind: [0.0.0.0:6380]
    routes:
      - {prefix: "", cluster: redis-001, mirrors: [{cluster: redis-002}]}
clusters:
  redis-001: {endpoints: [redis-001:6379]}
  redis-002: {endpoints: [redis-002:6379]}"""


@dataclass(frozen=True, slots=True)
class Item:
    """A value and its place.

    Attributes:
        value: A scalar, a list of items, or a mapping from text to items.
        line: Where it begins, counted from 1; for an entry of a mapping, the line of its key.
        path: How it is named, for example ``listeners[0].bind``.
    """

    value: "Scalar | list[Item] | dict[str, Item]"
    line: int
    path: str

    @property
    def mapping(self) -> "dict[str, Item]":
        """The entries of a mapping; empty if it is something else."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def sequence(self) -> "list[Item]":
        """The elements of a list; empty if it is something else."""
        return self.value if isinstance(self.value, list) else []

    @property
    def text(self) -> str | None:
        """The value if it is text."""
        return self.value if isinstance(self.value, str) else None

    def get(self, key: str) -> "Item | None":
        """The entry of a mapping; None if there is none or this is no mapping."""
        return self.mapping.get(key)

    def with_value(self, value: "Scalar | list[Item] | dict[str, Item]") -> "Item":
        """Another value that came from the same place."""
        return Item(value, self.line, self.path)

    def plain(self) -> Any:
        """The value without its places: scalars, lists and dicts."""
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        return self.value


@dataclass(slots=True)
class Report:
    """Collects all that is to be said about one file."""

    file: str
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)

    def error(self, item: Item, message: str, hint: str = "") -> None:
        """Something is wrong at the item's place."""
        self.problems.append(Problem(self.file, item.line, item.path, message, hint))

    def warn(self, item: Item, message: str, hint: str = "") -> None:
        """The file works, but not quite as it reads at the item's place."""
        self.warnings.append(Problem(self.file, item.line, item.path, message, hint))

    def note(self, item: Item, message: str) -> None:
        """What a translation made of the item, where that does not go without saying."""
        self.notes.append(Problem(self.file, item.line, item.path, message))

    def raise_if_any(self) -> None:
        """End the reading if anything is wrong.

        Raises:
            ConfigError: With every problem, in the order of the file.
        """
        if self.problems:
            unique = dict.fromkeys(self.problems)
            raise ConfigError(*sorted(unique, key=lambda problem: problem.line or 0))


def join(path: str, step: str | int) -> str:
    """The path of a value inside another."""
    if isinstance(step, int):
        return f"{path}[{step}]"
    if not re.fullmatch(r"[\w@-]+", step):
        step = f'"{step}"'
    return f"{path}.{step}" if path else step


def suggest(word: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?`` if a known word is near, else the known words if they are few, else nothing."""
    words = sorted(set(known))
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"known: {', '.join(words)}" if 0 < len(words) <= 12 else ""


def describe(value: object) -> str:
    """A value as a message shows it: its kind, and the value itself if it is short."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the text '{value}'" if len(value) <= 40 else "a text"
        case dict():
            return "a mapping"
        case _:
            return "a list"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # the base is chosen at run time
    """Composes nodes, and resolves plain scalars by the core schema of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  # PyYAML's own protocol


_TAG = "tag:yaml.org,2002:"
for _name, _pattern, _first in (
    ("null", r"(?:~|null|Null|NULL|)", ["~", "n", "N", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)", list("tTfF")),
    ("int", r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)", list("-+0123456789")),
    (
        "float",
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"\A{_pattern}\Z", re.ASCII), _first)


def _integer(text: str) -> int:
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _float(text: str) -> float:
    return float(
        text.replace(".inf", "inf").replace(".Inf", "inf").replace(".INF", "inf").lower().replace(".nan", "nan")
    )


_SCALARS: dict[str, Callable[[str], Scalar]] = {
    _TAG + "null": lambda text: None,
    _TAG + "bool": lambda text: text.lower() == "true",
    _TAG + "int": _integer,
    _TAG + "float": _float,
    _TAG + "str": str,
    "!": str,
}


def read(text: str, report: Report) -> Item:
    """Parse a file's text.

    Args:
        text: YAML (or JSON, which is YAML); one document.
        report: Takes what is wrong.

    Returns:
        The document's root, a mapping.

    Raises:
        ConfigError: The text is no YAML, is empty, or has several documents. Everything else that is wrong, such as
            a duplicate key, is only added to the report.
    """
    try:
        nodes = list(_documents(text))
        if len(nodes) > 1:
            report.error(
                Item(None, nodes[1].start_mark.line + 1, ""),
                "a second YAML document begins here",
                "a file holds one configuration: remove this '---' and what follows, or split the file",
            )
        if not nodes or _is_null(nodes[0]):
            report.error(Item(None, 1, ""), "the file is empty; the smallest configuration that mirrors is\n" + TEACH)
            report.raise_if_any()
        root = _Builder(report).build(nodes[0], nodes[0].start_mark.line + 1, "", ())
    except yaml.YAMLError as error:
        line, message = _syntax(error)
        raise ConfigError(Problem(report.file, line, "", message)) from None
    except RecursionError:
        raise ConfigError(Problem(report.file, None, "", "the values are nested too deeply")) from None
    if not isinstance(root.value, dict):
        report.error(root, f"expected a mapping with 'listeners' and 'clusters', found {describe(root.plain())}")
        report.raise_if_any()
    return root


def _documents(text: str) -> Iterable[yaml.Node]:
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is not None:
                yield node
    finally:
        loader.dispose()


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == _TAG + "null"


def _syntax(error: yaml.YAMLError) -> tuple[int | None, str]:
    """Line and text of what PyYAML says."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        message = " ".join(part for part in (error.context, error.problem) if part)
        return (mark.line + 1 if mark else None), f"not valid YAML: {message}"
    return None, f"not valid YAML: {' '.join(str(error).split())}"


class _Builder:
    """Turns PyYAML's nodes into items, and refuses what a configuration has no use for."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._values = 0

    def build(self, node: yaml.Node, line: int, path: str, parents: tuple[int, ...]) -> Item:
        """The item of a node.

        Args:
            node: What PyYAML composed.
            line: The line to name: the key's for an entry of a mapping.
            path: How the item is named.
            parents: The nodes around this one, to notice an alias to one of them.
        """
        self._values += 1
        if self._values > MAX_VALUES:
            raise yaml.YAMLError(f"more than {MAX_VALUES} values (aliases repeat what they stand for)")
        here = Item(None, line, path)
        if id(node) in parents:
            self._report.error(here, "an alias stands for a value that contains it")
            return here
        inside = (*parents, id(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, here, inside)
        if isinstance(node, yaml.SequenceNode):
            return self._sequence(node, here, inside)
        return self._scalar(node, here)

    def _mapping(self, node: yaml.MappingNode, here: Item, parents: tuple[int, ...]) -> Item:
        self._check_tag(node.tag, ("map",), here)
        entries: dict[str, Item] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._report.error(Item(None, line, here.path), "a key must be text")
                continue
            key = key_node.value
            value = self.build(value_node, line, join(here.path, key), parents)
            if key in entries:
                self._report.error(value, f"the key '{key}' is given twice", f"first in line {entries[key].line}")
            else:
                entries[key] = value
        return here.with_value(entries)

    def _sequence(self, node: yaml.SequenceNode, here: Item, parents: tuple[int, ...]) -> Item:
        self._check_tag(node.tag, ("seq",), here)
        return here.with_value(
            [
                self.build(element, element.start_mark.line + 1, join(here.path, index), parents)
                for index, element in enumerate(node.value)
            ]
        )

    def _scalar(self, node: yaml.Node, here: Item) -> Item:
        convert = _SCALARS.get(node.tag)
        try:
            if convert is not None:
                return here.with_value(convert(node.value))
        except ValueError:
            self._report.error(here, f"'{node.value}' is not a value of the type '{node.tag.removeprefix(_TAG)}'")
            return here
        self._check_tag(node.tag, (), here)
        return here

    def _check_tag(self, tag: str, allowed: Sequence[str], here: Item) -> None:
        if tag != "!" and tag not in [_TAG + name for name in allowed]:
            name = tag.replace(_TAG, "!!", 1)
            self._report.error(here, f"the tag '{name}' has no meaning here", "remove it")
