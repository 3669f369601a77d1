"""A group as text: who leads, and a row for each member. For ``redisha status`` and ``redisha init``."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import click

from redisha.admin.client import AdminClient, AnswerError
from redisha.cli.words import BAD, GOOD, bar, coloured, coloured_state, duration
from redisha.group.skew import is_skewed, skew_text

HEADS = ("member", "role", "state", "term", "lag: commands", "bytes", "ms", "last heard")

_RIGHT = frozenset({"term", "lag: commands", "bytes", "ms"})
"""Columns of numbers."""

UNKNOWN = "-"

_LONG = 10_000
"""Milliseconds from which on tenths of a second do not matter."""


def ask(client: AdminClient) -> dict[str, Any] | None:
    """The group as the sidecar sees it; None if it is in none.

    Raises:
        UnreachableError: no sidecar answers.
    """
    try:
        document: dict[str, Any] = client.get("/group")
    except AnswerError as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return None
        raise
    return document


def well(group: dict[str, Any] | None) -> bool:
    """Whether somebody leads and every member is in sync; so it is without a group."""
    return group is None or bool(group["leader"] and all(each["in_sync"] for each in group["members"]))


def lines(group: dict[str, Any]) -> Iterator[str]:
    """The group for people. A star marks the member that was asked."""
    if group["leader"]:
        said = f"{coloured(group['leader'], GOOD)} leads, term {group['term']}"
        said += ", and is about to hand over" if group["yielding"] else ""
    else:
        said = f"{coloured('nobody leads', BAD)}: {group['reason']}"
    yield f"group     {group['name']}: {said}"
    rows = [_row(each) for each in group["members"]]
    widths = [max(len(click.unstyle(cell)) for cell in column) for column in zip(HEADS, *rows, strict=True)]
    for cells, member in zip([HEADS, *rows], [None, *group["members"]], strict=True):
        aligned = [_aligned(*each) for each in zip(cells, widths, HEADS, strict=True)]
        reason = f"  {member['reason']}" if member is not None and member["reason"] else ""
        yield f"          {'  '.join(aligned)}{reason}".rstrip()
    yield from _below(group["members"])
    if group["merges"] is not None:
        yield from _merged(group["merges"])
    yield ""


def _merged(merges: dict[str, Any]) -> Iterator[str]:
    """What became of writes that two leaders took at once."""
    for peer in merges["running"]:
        yield f"          what {peer} wrote while it led, too, is being merged"
    if merges["last_error"]:
        yield f"          {coloured('the last merge failed', BAD)}, it is tried again: {merges['last_error']}"
    if merges["conflicts_total"]:
        lost = coloured(f"{merges['conflicts_total']:,} values lost to later writes", BAD)
        yield f"          {lost}, and are kept in conflicts.jsonl in the state directory"


def _below(members: list[dict[str, Any]]) -> Iterator[str]:
    """What is told of single members beneath the table."""
    for member in members:
        name = member["member"] or member["address"]
        if member["progress"] is not None:
            yield f"          {name}: resync ({member['progress']['kind']}) {bar(member['progress'])}"
        elif member["healed"]:
            yield f"          {name}: last healed: {member['healed']}"
        if is_skewed(member["skew_ms"]):
            apart = coloured(f"its clock is {skew_text(member['skew_ms'])}", BAD)
            yield f"          {name}: {apart}"
        if member["journal"]:
            yield f"          {name}: {member['journal']:,} keys written while a member was not in sync"


def _row(member: dict[str, Any]) -> tuple[str, ...]:
    return (
        (member["member"] or member["address"]) + (" *" if member["me"] else ""),
        member["role"] if member["up"] and member["role"] != "none" else UNKNOWN,
        coloured_state(member["state"]),
        str(member["term"]),
        *(UNKNOWN if member[field] is None else f"{member[field]:,}" for field in ("lag", "lag_bytes", "lag_ms")),
        "" if member["me"] else _heard(member["silent_ms"]),
    )


def _heard(silent_ms: int | None) -> str:
    if silent_ms is None:
        return "never"
    return f"{duration(silent_ms / 1000) if silent_ms >= _LONG else f'{silent_ms / 1000:.1f} s'} ago"


def _aligned(cell: str, width: int, head: str) -> str:
    space = " " * (width - len(click.unstyle(cell)))
    return space + cell if head in _RIGHT else cell + space
