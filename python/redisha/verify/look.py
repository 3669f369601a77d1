"""Keys looked at on both servers by what they mean: type, value, expiry.

Owns: the slow and exact comparison of single keys. Never: decides what a difference means; :mod:`redisha.verify.case`
does.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeAlias

from redisha.verify import expiry, streams
from redisha.verify.chunks import TYPES, GoneError, Value, chunks
from redisha.verify.digest import DIGEST_BYTES, FOOTER, digest_of, score
from redisha.verify.encode import TYPE, USAGE, columns, number, per_key, text
from redisha.verify.errors import ServerError, check
from redisha.verify.side import Side

AT_ONCE_BYTES = 2 << 20
"""Of values that are read side by side."""

UNKNOWN_BYTES = 64 << 10
"""What a value counts for when a server does not tell its size."""

_SOON_MS = 1000

Head: TypeAlias = tuple[Value, int]
"""A key before its value is read, and when it expires."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A key as it is on one server.

    Attributes:
        kind: the type.
        digest: of the value; empty where it was not read, because the servers differ in something else.
        expiry: in milliseconds, or ``NEVER``.
    """

    kind: str
    digest: bytes
    expiry: int


@dataclass(frozen=True, slots=True)
class Look:
    """A key on both servers at about the same time; None where it is not there.

    Attributes:
        a: on A.
        b: on B.
        exact: whether both servers tell the time at which a key expires.
    """

    a: Seen | None
    b: Seen | None
    exact: bool = True

    @property
    def equal(self) -> bool:
        """Both have it, and it is the same."""
        if self.a is None or self.b is None:
            return False
        same = self.a.kind == self.b.kind and self.a.digest == self.b.digest
        return same and expiry.equal(self.a.expiry, self.b.expiry, self.exact)

    @property
    def expiring(self) -> bool:
        """One server has it no more, and for the other it is time, or nearly."""
        left = self.a or self.b
        if left is None or (self.a is not None and self.b is not None):
            return False
        return 0 <= left.expiry <= time.time() * 1000 + _SOON_MS

    def prints(self) -> tuple[bytes, bytes]:
        """What is kept to see later whether a side has changed; empty where the key is not there."""
        return self._print(self.a), self._print(self.b)

    def _print(self, seen: Seen | None) -> bytes:
        if seen is None:
            return b""
        when = seen.expiry if self.exact else min(seen.expiry, 0)
        return b"%b %d %b" % (seen.kind.encode(), when, seen.digest)

    @property
    def detail(self) -> str:
        """What differs, in words."""
        if self.a is None or self.b is None:
            left = self.a or self.b
            return left.kind if left is not None else ""
        if self.a.kind != self.b.kind:
            return f"{self.a.kind} and {self.b.kind}"
        if not expiry.equal(self.a.expiry, self.b.expiry, self.exact):
            return f"{self.a.kind} that expires {_when(self.a.expiry)} and {_when(self.b.expiry)}"
        return f"{self.a.kind} with another value"


def _when(moment: int) -> str:
    return "never" if moment < 0 else f"at {moment} ms"


async def look(a: Side, b: Side, keys: Sequence[bytes]) -> list[Look]:
    """Look at keys of the database in which both ``looks`` connections are.

    Raises:
        ServerError: a server refuses what is needed.
    """
    exact = a.facts.expiretime and b.facts.expiretime
    counters = a.facts.major >= 7 and b.facts.major >= 7
    pairs = list(zip(*await asyncio.gather(_heads(a, keys), _heads(b, keys)), strict=True))
    # A value is read only where all else is the same on both servers.
    alike = [at for at, (one, other) in enumerate(pairs) if one and other and _alike(one, other, exact)]
    seen = [[Seen(head[0].kind, b"", head[1]) if head else None for head in pair] for pair in pairs]

    async def fill(at: int, side: int, head: Head) -> None:
        seen[at][side] = await _seen(*head, counters)

    for some in _portions([(at, side, head) for at in alike for side, head in enumerate(pairs[at]) if head]):
        await asyncio.gather(*(fill(*each) for each in some))
    return [Look(one, other, exact) for one, other in seen]


def _portions(todo: list[tuple[int, int, Head]]) -> Iterator[list[tuple[int, int, Head]]]:
    """What is read side by side: many small values, or a large one."""
    some: list[tuple[int, int, Head]] = []
    size = 0
    for each in todo:
        more = each[2][0].size or UNKNOWN_BYTES
        if some and size + more > AT_ONCE_BYTES:
            yield some
            some, size = [], 0
        some.append(each)
        size += more
    if some:
        yield some


def _alike(a: Head, b: Head, exact: bool) -> bool:
    return a[0].kind == b[0].kind and expiry.equal(a[1], b[1], exact)


async def _seen(value: Value, moment: int, counters: bool) -> Seen | None:
    try:
        digest = await _digest(value, counters)
    except GoneError:
        digest = os.urandom(DIGEST_BYTES)  # it changed while it was read: like nothing else, so look again
    return Seen(value.kind, digest, moment) if digest is not None else None


async def _heads(side: Side, keys: Sequence[bytes]) -> list[Head | None]:
    """What each key is and when it expires; None for one that is not there."""
    facts = side.facts
    asks = (TYPE, expiry.question(facts.expiretime), *([USAGE] if facts.memory else []))
    kinds, times, *sizes = columns(await side.looks.request(*per_key(keys, *asks)), len(keys), *asks)
    check(side.address, "TYPE or MEMORY USAGE", (*kinds, *(sizes[0] if sizes else ())))
    found: list[Head | None] = []
    for at, key in enumerate(keys):
        kind, moment = text(kinds[at]), expiry.read(side.address, times[at])
        value = side.value(key, kind, number(sizes[0][at]) if sizes else 0)
        found.append(None if kind == "none" or moment == expiry.GONE else (value, moment))
    return found


async def _digest(value: Value, counters: bool) -> bytes | None:
    """The digest of a value; None if the key is gone."""
    if value.kind not in TYPES:
        return await _dumped(value)
    digest = digest_of(value.kind)
    some = False
    async for chunk in chunks(value):
        some = True
        digest.add([(member, score(digits)) for member, digits in chunk] if value.kind == "zset" else chunk)
    if value.kind == "stream":
        some = True
        async for part in streams.elements(value, counters):
            digest.add(part)
    return digest.result() if some or value.kind == "string" else None


async def _dumped(value: Value) -> bytes | None:
    payload = await value.ask(b"DUMP", value.key)
    if payload is None:
        return None
    if not isinstance(payload, bytes):
        raise ServerError(f"{value.link.address} answered DUMP with {payload!r:.60}")
    return blake2b(payload[:-FOOTER], digest_size=DIGEST_BYTES).digest()
