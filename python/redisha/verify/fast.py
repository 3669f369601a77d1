"""Whole pages of keys compared as the bytes that both servers answer.

Owns: what can be said fast: that keys are the same. Never: says that one differs; equal values may look different.

Strings are read as they are, up to a limit, so that the answers are bounded whatever their sizes; everything else is
read by ``DUMP``, after its size was asked. Only the order of hash tables is looked into.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from redisha.core import ReplyError
from redisha.verify import expiry
from redisha.verify.digest import FOOTER
from redisha.verify.dumped import same_elements
from redisha.verify.encode import DUMP, HEAD, HEAD_BYTES, Ask, columns, per_key
from redisha.verify.errors import refusal
from redisha.verify.side import Side

_WRONG_TYPE = "WRONGTYPE"


@dataclass(slots=True)
class Found:
    """What the fast comparison of a page says.

    Attributes:
        same: how many keys are the same.
        suspects: keys that may differ.
        long: strings that were not read to their ends.
        bytes: that a server answered.
    """

    same: int = 0
    suspects: list[bytes] = field(default_factory=list)
    long: list[bytes] = field(default_factory=list)
    bytes: int = 0


class Page:
    """Some keys that are under way on both servers.

    Args:
        sides: the servers; their connections ``pages`` are used.
        keys: strings, if the question is ``HEAD``.
        question: ``HEAD`` or ``DUMP``.
    """

    def __init__(self, sides: tuple[Side, Side], keys: Sequence[bytes], question: Ask) -> None:
        self._sides = sides
        self._keys = keys
        self._dumped = question is DUMP
        self._asks = [(question, expiry.question(side.facts.expiretime)) for side in sides]
        one, other = self._asks
        commands = per_key(keys, *one)
        self._raw: list[asyncio.Future[bytes]] = [
            sides[0].pages.request(*commands),
            sides[1].pages.request(*(commands if one == other else per_key(keys, *other))),
        ]

    async def judge(self) -> Found:
        """Wait for the answers and compare them; a key that neither server has any more counts as nothing.

        Raises:
            ServerError: a server is lost, or refuses what is asked.
        """
        a, b = [await raw for raw in self._raw]
        exact = all(side.facts.expiretime for side in self._sides)
        found = Found(bytes=max(len(a), len(b)))
        if exact and a == b and not self._uneven(a):
            found.same = len(self._keys)
            return found
        for key, here, there in zip(self._keys, self._values(0, a), self._values(1, b), strict=True):
            if here is None or there is None:
                found.suspects += [key] if here is not there else []
            elif not (expiry.equal(here[1], there[1], exact) and self._equal(here[0], there[0])):
                found.suspects.append(key)
            elif not self._dumped and len(here[0]) == HEAD_BYTES:
                found.long.append(key)
            else:
                found.same += 1
        return found

    def _equal(self, here: bytes, there: bytes) -> bool:
        return here == there or (self._dumped and same_elements(here, there))

    def _uneven(self, raw: bytes) -> bool:
        """Whether it has to be looked into: errors, keys that are gone, long strings, or data that looks like them."""
        if raw.startswith(b"-") or b"\r\n-" in raw or b":-2\r\n" in raw:
            return True
        return b"$-1\r\n" in raw if self._dumped else b"$%d\r\n" % HEAD_BYTES in raw

    def _values(self, side: int, raw: bytes) -> list[tuple[bytes, int] | None]:
        """Each key's payload, without its footer, or string, and its expiry; None for one that is gone."""
        address = self._sides[side].address
        payloads, times = columns(raw, len(self._keys), *self._asks[side])
        found: list[tuple[bytes, int] | None] = []
        for payload, reply in zip(payloads, times, strict=True):
            moment = expiry.read(address, reply)
            if isinstance(payload, ReplyError) and not str(payload).startswith(_WRONG_TYPE):
                raise refusal(address, "DUMP" if self._dumped else "GETRANGE", payload)
            if moment == expiry.GONE or not isinstance(payload, bytes):
                found.append(None)
            else:
                found.append((payload[:-FOOTER] if self._dumped else payload, moment))
        return found


def heads(a: Side, b: Side, keys: Sequence[bytes]) -> Page:
    """Ask for strings."""
    return Page((a, b), keys, HEAD)


def dumps(a: Side, b: Side, keys: Sequence[bytes]) -> Page:
    """Ask for values of any type that are not large."""
    return Page((a, b), keys, DUMP)
