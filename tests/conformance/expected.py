"""Which tests need not pass in which mode, and why."""

import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("expected.toml")


@dataclass(frozen=True)
class LeftOut:
    """Some tests: those of a unit, of a list of names, with a tag; each says less than all."""

    modes: tuple[str, ...]
    reason: str
    unit: str = ""
    tests: tuple[str, ...] = ()
    tag: str = ""

    def has(self, mode: str, unit: str, test: str, tags: Collection[str] = ()) -> bool:
        """Whether this is about that test."""
        return (
            mode in self.modes
            and self.unit in {"", unit}
            and (not self.tests or test in self.tests)
            and (not self.tag or self.tag in tags)
        )


def load(file: Path = FILE) -> list[LeftOut]:
    """All of the file."""
    listed = tomllib.loads(file.read_text()).get("left-out", [])
    return [LeftOut(**{name: _frozen(value) for name, value in each.items()}) for each in listed]


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def table(entries: list[LeftOut]) -> str:
    """As Markdown, for the documentation."""
    if not entries:
        return "Nothing is left out."
    lines = ["| modes | tests | why |", "|---|---|---|"]
    for entry in entries:
        which = [f"of `{entry.unit}`"] if entry.unit else []
        which += [f"tagged `{entry.tag}`"] if entry.tag else []
        which += [test.replace("|", "\\|") for test in entry.tests]
        lines.append(f"| {', '.join(entry.modes)} | {'<br>'.join(which) or 'all'} | {entry.reason} |")
    return "\n".join(lines)
