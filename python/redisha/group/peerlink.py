"""A connection of a control plane to a member's peer port: reads of that member's Redis, and what merging needs.

Owns: the greeting, and the form of what ``MARKS`` and ``JOURNAL`` answer. Never: knows what is merged.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from redisha.core import ReplyError, bucket
from redisha.group.later import Journal, Marks, PeerAddress
from redisha.verify import facts
from redisha.verify.errors import ServerError
from redisha.verify.facts import Facts
from redisha.verify.link import Link
from redisha.verify.server import Server

CONNECT_WITHIN = 5.0
"""Seconds."""

ANSWER_WITHIN = 15.0
"""Seconds without a byte of an answer after which a member counts as hanging."""

_ANYWHERE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - nothing is bound
_BITMAP = 128 << 10
_LIBRARIES = 0xFFFF
"""The database under which journals and marks keep libraries."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """Who asks.

    Attributes:
        group: the group's name.
        member: this member.
        secret: the group's; None: it has none.
    """

    group: str
    member: str
    secret: str | None = field(repr=False)


class PeerLink(Link):
    """The connection; made by :meth:`reach`."""

    def __init__(self, server: Server, member: str, greeting: Greeting) -> None:
        super().__init__(server)
        self._member = member
        self._greeting = greeting

    @classmethod
    async def reach(cls, address: PeerAddress, member: str, greeting: Greeting) -> PeerLink:
        """Connect and greet.

        Args:
            address: of the peer port.
            member: who should answer there.
            greeting: who asks.

        Raises:
            ServerError: there is nobody, it is another one, or it refuses.
        """
        host, _, port = address.rpartition(":")
        server = Server(f"{_ANYWHERE.get(host, host)}:{port}", reply_timeout=ANSWER_WITHIN)
        link = cls(server, member, greeting)
        place = f"the peer port of {member}, {server.address},"
        try:
            async with asyncio.timeout(CONNECT_WITHIN):
                await link._connect()
                await link._greet()
        except BaseException as error:
            link.close()
            if isinstance(error, TimeoutError):
                raise ServerError(f"{place} does not answer within {CONNECT_WITHIN:g} s") from None
            if isinstance(error, OSError):
                reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
                raise ServerError(f"{place} cannot be reached: {reason}") from None
            raise
        return link

    async def _greet(self) -> None:
        words = ["REDISHA", "PEER", "1", "CONTROL", self._greeting.group, self._greeting.member, "0", "0"]
        reply = await self.call(*(word.encode() for word in [*words, self._greeting.secret or ""]))
        match reply.split(b" ") if isinstance(reply, bytes) else reply:
            case [b"OK", bytes(member), _]:
                if member.decode() != self._member:
                    raise ServerError(f"{self.address} is the peer port of {member.decode()}, not of {self._member}")
            case ReplyError() as error:
                raise ServerError(f"the peer port of {self._member}, {self.address}, refuses: {error.args[0]}")
            case _:
                raise ServerError(f"{self.address} is no peer port: it answered {reply!r:.60}")

    async def learn(self) -> Facts:
        """What its Redis is.

        Raises:
            ServerError: it does not tell, or does not allow ``DUMP``.
        """
        found = await facts.learn(self)
        if not found.dump:
            raise ServerError(f"{self.address} does not allow DUMP: without it nothing can be merged")
        # A data plane that does not know the command takes it for a write, whatever the Redis would say.
        reply = await self.call(b"HPEXPIRETIME", b"redisha:verify", b"FIELDS", b"1", b"x")
        return replace(found, field_expiry=found.field_expiry and not isinstance(reply, ReplyError))

    async def marks(self, member: str) -> Marks:
        """What this one does not know that ``member`` has.

        Raises:
            ServerError: it does not tell.
        """
        match await self.ask(b"REDISHA", b"MARKS", member.encode()):
            case [int(everything), int(functions), bytes(bits), *_] if everything or len(bits) == _BITMAP:
                return Marks(bool(everything), bool(functions), bits, bucket)
            case other:
                raise ServerError(f"{self.address} answered MARKS with {other!r:.60}")

    async def journal(self, wanted: Callable[[int, bytes], bool] | None = None) -> Journal:
        """What this one wrote alone.

        Args:
            wanted: only these keys (database, name); None: all.

        Raises:
            ServerError: it does not tell.
        """
        reply: Any = await self.ask(b"REDISHA", b"JOURNAL")
        match reply:
            case [int(trusted), int(everything), [*parts], *more]:
                # Whether all is in it, a data plane that does not say it shows by having anything in it.
                complete = bool(more[0]) if more else bool(parts)
                keys: dict[int, dict[bytes, int]] = {}
                for db, name, at in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
                    if db != _LIBRARIES and (wanted is None or wanted(db, name)):
                        keys.setdefault(db, {})[name] = at
                return Journal(bool(trusted), everything, keys, complete)
            case other:
                raise ServerError(f"{self.address} answered JOURNAL with {other!r:.60}")
