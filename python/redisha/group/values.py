"""Keys on two members, as ``DUMP`` gives their values: read in pages, and compared.

Owns: how much the payloads tell. Where they do not (equal values may look different), :mod:`redisha.verify.look` does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from redisha.core import ReplyError
from redisha.group.later import Value
from redisha.group.payloads import differ, kind_of
from redisha.verify import expiry
from redisha.verify.digest import FOOTER
from redisha.verify.dumped import same_elements
from redisha.verify.encode import DUMP, columns, per_key
from redisha.verify.errors import refusal
from redisha.verify.look import look
from redisha.verify.side import Side

SOON_MS = 1000
"""A key that one member has no more, and that expires on the other within this time, has expired."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A key on both members; None where it is not there."""

    name: bytes
    ours: Value | None
    theirs: Value | None


async def read(ours: Side, theirs: Side, names: Sequence[bytes]) -> list[Pair]:
    """Keys of the database in which both sides' ``pages`` are.

    Raises:
        ServerError: a member refuses ``DUMP``.
    """
    here, there = await asyncio.gather(_read(ours, names), _read(theirs, names))
    return [Pair(*each) for each in zip(names, here, there, strict=True)]


async def _read(side: Side, names: Sequence[bytes]) -> list[Value | None]:
    asks = (DUMP, expiry.question(side.facts.expiretime))
    payloads, times = columns(await side.pages.request(*per_key(names, *asks)), len(names), *asks)
    found: list[Value | None] = []
    for payload, reply in zip(payloads, times, strict=True):
        if isinstance(payload, ReplyError):
            raise refusal(side.address, "DUMP", payload)
        moment = expiry.read(side.address, reply)
        if isinstance(payload, bytes) and moment != expiry.GONE:
            found.append(Value(payload, max(moment, 0), len(payload), kind_of(payload)))
        else:
            found.append(None)
    return found


async def differing(ours: Side, theirs: Side, pairs: Sequence[Pair]) -> list[Pair]:
    """Those that are not the same on both, and do not just expire; both sides' ``looks`` are in their database.

    Raises:
        ServerError: a member refuses what is needed.
    """
    exact = ours.facts.expiretime and theirs.facts.expiretime
    soon = time.time() * 1000 + SOON_MS
    same = {pair.name: is_same(pair, exact, soon) for pair in pairs}
    unsure = [name for name, is_it in same.items() if is_it is None]
    if unsure:
        for name, seen in zip(unsure, await look(ours, theirs, unsure), strict=True):
            same[name] = seen.equal
    return [pair for pair in pairs if not same[pair.name]]


def is_same(pair: Pair, exact: bool, soon: float) -> bool | None:
    """Whether a key is the same on both; None: the payloads do not tell.

    Args:
        pair: the key.
        exact: whether both members tell the time at which a key expires.
        soon: what expires before this time, in milliseconds since 1970, may be gone on one of them.
    """
    ours, theirs = pair.ours, pair.theirs
    if ours is None or theirs is None:
        left = ours or theirs
        return left is None or 0 < left.expires <= soon
    if not expiry.equal(ours.expires or expiry.NEVER, theirs.expires or expiry.NEVER, exact):
        return False
    a, b = ours.payload or b"", theirs.payload or b""
    if a[:-FOOTER] == b[:-FOOTER] or same_elements(a[:-FOOTER], b[:-FOOTER]):
        return True
    return False if differ(a, b) else None
