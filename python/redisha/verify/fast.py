"""Whole pages of keys compared as the bytes that both servers answer.

Owns: what can be said fast: that keys are the same. Never: says that one differs; equal values may look different.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from redisha.verify import expiry
from redisha.verify.digest import FOOTER
from redisha.verify.encode import DUMP, columns, per_key
from redisha.verify.errors import check
from redisha.verify.side import Side


class _Half:
    """One server's part; its connection ``pages`` is used."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self.asks = (DUMP, expiry.question(side.facts.expiretime))

    def request(self, commands: bytes, count: int) -> asyncio.Future[bytes]:
        """Send what :func:`~redisha.verify.encode.per_key` made."""
        return self._side.pages.request(commands, count)

    def values(self, raw: bytes, count: int) -> list[tuple[bytes, int] | None]:
        """Each key's payload, without its footer, and its expiry; None for one that is gone."""
        payloads, times = columns(raw, count, *self.asks)
        check(self._side.address, "DUMP", payloads)
        found: list[tuple[bytes, int] | None] = []
        for payload, reply in zip(payloads, times, strict=True):
            moment = expiry.read(self._side.address, reply)
            there = isinstance(payload, bytes) and moment != expiry.GONE
            found.append((payload[:-FOOTER], moment) if isinstance(payload, bytes) and there else None)
        return found


class Fast:
    """The fast comparison of two servers, both of which allow ``DUMP``."""

    def __init__(self, a: Side, b: Side) -> None:
        self.a, self.b = _Half(a), _Half(b)
        self.exact = a.facts.expiretime and b.facts.expiretime

    def ask(self, keys: Sequence[bytes]) -> Asked:
        """Ask both servers for these keys."""
        return Asked(self, keys)


class Asked:
    """A page that is under way on both servers; made by :meth:`Fast.ask`."""

    def __init__(self, fast: Fast, keys: Sequence[bytes]) -> None:
        self._fast = fast
        self._keys = keys
        commands = per_key(keys, *fast.a.asks)
        self._a = fast.a.request(*commands)
        self._b = fast.b.request(*(commands if fast.a.asks == fast.b.asks else per_key(keys, *fast.b.asks)))

    async def judge(self) -> tuple[int, list[bytes]]:
        """How many keys are the same, and which ones are suspicious; a key that neither has any more is neither.

        Raises:
            ServerError: a server is lost, or refuses ``DUMP``.
        """
        fast, count = self._fast, len(self._keys)
        a, b = await self._a, await self._b
        if fast.exact and a == b and not _uneven(a):
            return count, []
        same, suspects = 0, []
        for key, here, there in zip(self._keys, fast.a.values(a, count), fast.b.values(b, count), strict=True):
            if here is None or there is None:
                if here is not there:
                    suspects.append(key)
            elif here[0] == there[0] and expiry.equal(here[1], there[1], fast.exact):
                same += 1
            else:
                suspects.append(key)
        return same, suspects


def _uneven(raw: bytes) -> bool:
    """Whether there may be errors in it, or keys that are gone. Data may look like them: then it is looked into."""
    return raw.startswith(b"-") or b"\r\n-" in raw or b"$-1\r\n" in raw or b":-2\r\n" in raw
