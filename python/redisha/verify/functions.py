"""Libraries of functions: read, compared, copied. Those of redisha itself (``redisha_…``) are no data."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from redisha.core import ReplyError
from redisha.verify.errors import is_missing
from redisha.verify.link import Link
from redisha.verify.report import Difference
from redisha.verify.side import Side

OWN = b"redisha_"


@dataclass(slots=True)
class Libraries:
    """What a server has.

    Attributes:
        codes: name → source.
        refused: why it is not known; empty if it is.
    """

    codes: dict[bytes, bytes] = field(default_factory=dict)
    refused: str = ""


async def read(side: Side) -> Libraries:
    """All libraries of a server; before 7.0 there are none."""
    reply = await side.looks.call(b"FUNCTION", b"LIST", b"WITHCODE")
    if isinstance(reply, ReplyError):
        if side.facts.major < 7 and is_missing(reply):
            return Libraries()
        return Libraries(refused=f"{side.address} refuses FUNCTION LIST: {reply.args[0]}")
    found = Libraries()
    for library in reply if isinstance(reply, list) else []:
        fields = dict(zip(library[::2], library[1::2], strict=True))
        name = fields[b"library_name"]
        if not name.startswith(OWN):
            found.codes[name] = fields[b"library_code"]
    return found


def differences(a: Libraries, b: Libraries) -> dict[bytes, str]:
    """Name → ``different``, ``only_a`` or ``only_b``."""
    found = {}
    for name in sorted(a.codes.keys() | b.codes.keys()):
        if name not in b.codes:
            found[name] = "only_a"
        elif name not in a.codes:
            found[name] = "only_b"
        elif a.codes[name] != b.codes[name]:
            found[name] = "different"
    return found


async def settled(a: Side, b: Side, passes: int, settle: float) -> tuple[Libraries, Libraries, dict[bytes, str]]:
    """Both sides' libraries and what differs; what differs is read again before it counts."""
    for left in range(passes, -1, -1):
        here, there = await read(a), await read(b)
        found = differences(here, there)
        if not found or not left or here.refused or there.refused:
            break
        await asyncio.sleep(settle)
    return here, there, found


async def copy(source: Libraries, target: Link, names: dict[bytes, str]) -> dict[bytes, str]:
    """Make these libraries of the target as the source has them.

    Returns:
        Name → the server's error, of those that could not be.
    """
    errors = {}
    # What is to go goes first: two libraries cannot have a function of the same name.
    for name in sorted(names, key=lambda name: name in source.codes):
        code = source.codes.get(name)
        if code is None:
            reply = await target.call(b"FUNCTION", b"DELETE", name)
        else:
            reply = await target.call(b"FUNCTION", b"LOAD", b"REPLACE", code)
        if isinstance(reply, ReplyError):
            errors[name] = str(reply.args[0])
    return errors


def as_differences(found: dict[bytes, str], errors: dict[bytes, str], left: dict[bytes, str]) -> list[Difference]:
    """For the report.

    Args:
        found: what differed.
        errors: what could not be repaired, and why.
        left: what differs at the end.
    """
    return [
        Difference(None, name, what, "library of functions", name not in left, errors.get(name, ""))
        for name, what in found.items()
    ]
