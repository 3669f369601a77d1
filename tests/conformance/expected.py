"""Which tests need not pass in which mode, and why."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("expected.toml")


@dataclass(frozen=True)
class LeftOut:
    """Some tests of a unit, or all of them."""

    modes: tuple[str, ...]
    unit: str
    reason: str
    tests: tuple[str, ...] = ()

    def has(self, mode: str, unit: str, test: str) -> bool:
        """Whether this is about that test."""
        return mode in self.modes and unit == self.unit and (not self.tests or test in self.tests)


def load(file: Path = FILE) -> list[LeftOut]:
    """All of the file."""
    listed = tomllib.loads(file.read_text()).get("left-out", [])
    return [
        LeftOut(tuple(each["modes"]), each["unit"], each["reason"], tuple(each.get("tests", ()))) for each in listed
    ]


def table(entries: list[LeftOut]) -> str:
    """As Markdown, for the documentation."""
    if not entries:
        return "Nothing is left out."
    lines = ["| modes | unit | tests | why |", "|---|---|---|---|"]
    for entry in entries:
        tests = "<br>".join(test.replace("|", "\\|") for test in entry.tests) or "all"
        lines.append(f"| {', '.join(entry.modes)} | `{entry.unit}` | {tests} | {entry.reason} |")
    return "\n".join(lines)
