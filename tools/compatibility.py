#!/usr/bin/env python3
"""Writes docs/compatibility.md: what becomes of each command of the command table.

    compatibility.py            write the page
    compatibility.py --check    change nothing; exit 1 if the page is another one

It needs the built extension, whose table it reads. What the table does not say – the treatment of a class in a group,
the form of an effect – is said here, and held against running sidecars by ``tests/integration/test_compatibility.py``.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import astuple, dataclass
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import Any

from redisha import _core

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "compatibility.md"
TEXT = Path(__file__).with_suffix(".md")
"""The page without its table, which replaces ``PLACE``."""
PLACE = "{table}\n"


class Where(StrEnum):
    """Who executes a command."""

    PASSED = "passed on"
    HERE = "here"
    OWN = "own connection"
    LINE = "in line"
    REFUSED = "refused"
    NEAR = "own Redis"
    READ = "read"
    LEADER = "leader"
    OWN_NEAR = "own connection, own Redis"
    OWN_LEADER = "own connection, leader"
    LINE_LEADER = "in line, leader"


BLOCKS_AND_WRITES = (Where.OWN, Where.LINE, Where.LINE, Where.LINE_LEADER)


EFFECTS = {
    "None": "–",
    "Always": "as sent",
    "Changed": "as sent, if it changed something",
    "Unconditional": "without the condition, if it changed something",
    "Replace": "with `REPLACE`, if it changed something",
    "Restore": "with `REPLACE` and absolute time",
    "Set": "`SET` without condition, absolute time, if it did set",
    "SetEx": "`SET` with absolute time",
    "GetEx": "`PEXPIREAT` or `PERSIST`, if it changed something",
    "Expire": "`PEXPIREAT` without condition, if it changed something",
    "GetDel": "`DEL`, if it changed something",
    "Pop": "`SREM` of what came back",
    "Float": "`SET … KEEPTTL` of the result",
    "HashFloat": "`HSET` of the result",
    "ZAdd": "as sent",
    "BitField": "as sent; none if it only reads",
    "Sort": "with `STORE`: as sent; with `BY` or `GET`, too: a copy of the key",
    "GeoRadius": "with `STORE`: as sent",
    "XAdd": "with the id that it got; trimming with `~`: a copy of the key",
    "XTrim": "as sent; with `~`: a copy of the key",
    "CopyKeys": "a copy of its keys",
    "CopyChanged": "a copy of its keys, if it changed something",
    "Script": "a copy of its declared keys, even after an error",
}
# What stands in for them where they wait in a line.
LINED = {
    "blmove": "`LMOVE`", "blmpop": "`LMPOP`", "blpop": "`LPOP` or `LMPOP`", "brpop": "`RPOP` or `LMPOP`",
    "brpoplpush": "`RPOPLPUSH`", "bzmpop": "`ZMPOP`", "bzpopmax": "`ZPOPMAX` or `ZMPOP`",
    "bzpopmin": "`ZPOPMIN` or `ZMPOP`",
}  # fmt: skip
SPECIAL_EFFECTS = {
    "exec": "those of its commands, as one transaction",
    "function|flush": "a copy of all functions",
    "function|restore": "a copy of all functions",
    "publish": "as sent; left out if it comes more than a second late",
    "spublish": "as sent; left out if it comes more than a second late",
    "migrate": "–",
}
SUBSCRIPTIONS = {"subscribe", "unsubscribe", "psubscribe", "punsubscribe", "ssubscribe", "sunsubscribe"}
ABOUT_THE_SERVER = {
    "acl", "command", "config", "info", "latency", "lolwut", "memory", "pubsub", "role", "slowlog", "time",
}  # fmt: skip


@dataclass(frozen=True, order=True)
class Row:
    """What becomes of a command. ``names`` are as in the command table; several are subcommands of one container."""

    names: tuple[str, ...]
    plain: str
    mirrored: str
    leader: str
    follower: str
    effect: str

    @property
    def cells(self) -> tuple[str, ...]:
        """All but the names."""
        return astuple(self)[1:]


def rows() -> list[Row]:
    """A row for each command, and for the subcommands of a container that are treated alike, by name."""
    table: list[dict[str, Any]] = json.loads(_core.command_table())
    containers = {each["name"].partition("|")[0] for each in table if "|" in each["name"]}
    # COMMAND is complete without a subcommand. Without one, the others are errors.
    single = [row_of(each) for each in table if each["name"] not in containers - {"command"}]
    merged: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for row in single:
        merged.setdefault((row.names[0].partition("|")[0], row.cells), []).append(row.names[0])
    return sorted(Row(tuple(sorted(names)), *cells) for (_, cells), names in merged.items())


def row_of(command: dict[str, Any]) -> Row:
    """What becomes of one command of the table."""
    name, writes = command["name"], command["effect"] != "None"
    effect = SPECIAL_EFFECTS.get(name, EFFECTS[command["effect"]])
    if name in LINED:
        effect = f"{LINED[name]}, if it changed something"
    return Row((name,), *_where(command, writes), effect)


def _where(command: dict[str, Any], writes: bool) -> tuple[str, str, str, str]:
    name = command["name"]
    if name == "wait":
        return Where.OWN, Where.HERE, Where.HERE, Where.LEADER
    if name == "exec":
        return Where.PASSED, Where.PASSED, Where.PASSED, Where.LEADER
    match command["treatment"]:
        case "Local" | "Transaction":
            return Where.HERE, Where.HERE, Where.HERE, Where.HERE
        case "Refused":
            return Where.PASSED, Where.REFUSED, Where.REFUSED, Where.REFUSED
        case "Private":
            return _privately(name, writes)
    near = Where.NEAR if name.partition("|")[0] in ABOUT_THE_SERVER else Where.READ
    plain = (Where.PASSED, Where.PASSED, Where.PASSED, Where.LEADER if writes else near)
    if name not in {"xread", "xreadgroup"}:
        return plain
    blocks = BLOCKS_AND_WRITES if writes else (Where.OWN, Where.OWN, Where.OWN, Where.OWN_NEAR)
    first, second, third, fourth = (f"{a}; `BLOCK`: {b}" for a, b in zip(plain, blocks, strict=True))
    return first, second, third, fourth


def _privately(name: str, writes: bool) -> tuple[str, str, str, str]:
    if name in SUBSCRIPTIONS or name == "monitor":
        return Where.OWN, Where.OWN, Where.OWN, Where.OWN_NEAR
    if name in {"sync", "psync", "replconf"}:
        return Where.OWN, Where.REFUSED, Where.REFUSED, Where.REFUSED
    if name == "watch" or name.endswith("|kill"):
        return Where.OWN, Where.OWN, Where.OWN, Where.OWN_LEADER
    return BLOCKS_AND_WRITES if writes else (Where.REFUSED, Where.REFUSED, Where.REFUSED, Where.REFUSED)


def shown(names: tuple[str, ...]) -> str:
    """The names as a reader writes them: ``CONFIG GET, SET``."""
    parts = []
    for head, group in groupby(names, key=lambda name: name.partition("|")[0]):
        subcommands = [name.partition("|")[2].upper() for name in group]
        told = ", ".join(each or "(alone)" for each in subcommands)
        parts.append(f"{head.upper()} {told}" if subcommands != [""] else head.upper())
    return "; ".join(parts)


def page() -> str:
    """The page."""
    lines = ["| command | no mirrors | mirrored | leader | follower | effect elsewhere |", "|---|---|---|---|---|---|"]
    lines += [f"| {shown(row.names)} | {' | '.join(row.cells)} |" for row in rows()]
    return TEXT.read_text().replace(PLACE, "\n".join(lines) + "\n")


def main() -> int:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description="Writes docs/compatibility.md.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the page is another one")
    if not parser.parse_args().check:
        PAGE.write_text(page())
        return 0
    same = PAGE.exists() and PAGE.read_text() == page()
    if not same:
        print(f"{PAGE.relative_to(ROOT)} is not what tools/compatibility.py writes: run it", file=sys.stderr)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
