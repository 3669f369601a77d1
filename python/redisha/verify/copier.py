"""Keys copied from one server to another, whole: ``DUMP`` and ``RESTORE``, or by ordinary commands where these fail.

Owns: how one key gets there. Never: which keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from redisha.core import ReplyError
from redisha.verify import expiry
from redisha.verify.chunks import TYPES, Value
from redisha.verify.encode import DUMP, EXISTS, TYPE, USAGE, columns, number, per_key, text
from redisha.verify.errors import check, is_missing, refusal
from redisha.verify.facts import Facts, refuse_target
from redisha.verify.keys import pack, sizes_of
from redisha.verify.link import Link, parse
from redisha.verify.rebuild import rebuild

DUMP_MOST = 4 << 20
"""A value from here on is copied in pieces."""

_AT_ONCE = 32
"""Values that are made anew by ordinary commands, side by side."""

_PROBE = b"redisha:verify"
_OTHER_VERSION = "ERR DUMP payload version or checksum are wrong"
_OTHER_FORMAT = "ERR Bad data format"


class Copier:
    """From one server to another; made by :meth:`open`.

    Args:
        source: a connection in the right database, and what that server is.
        target: the same of the server that is written.
        restore: whether ``DUMP`` here and ``RESTORE`` there may be called.

    Attributes:
        restore: becomes false when the target does not read the source's format.
        bytes: copied by ``RESTORE``.
    """

    def __init__(self, source: tuple[Link, Facts], target: tuple[Link, Facts], restore: bool) -> None:
        self.source, self.facts = source
        self.target, self.target_facts = target
        self.restore = restore
        self.bytes = 0
        self._counters = min(self.facts.major, self.target_facts.major) >= 7
        self._when = expiry.question(self.facts.expiretime)

    @classmethod
    async def open(cls, source: tuple[Link, Facts], target: tuple[Link, Facts]) -> Copier:
        """See that the target may be written, and how.

        Raises:
            ServerError: it is a replica or a node of a cluster.
        """
        link, facts = target
        refuse_target(facts)
        # It has no data in it, so nothing is written: either the payload is refused, or the command.
        reply = await link.call(b"RESTORE", _PROBE, b"0", b"")
        if isinstance(reply, ReplyError) and str(reply.args[0]).startswith("READONLY"):
            raise refusal(facts.address, "writes", reply)
        return cls(source, target, source[1].dump and not is_missing(reply))

    async def use(self, database: int) -> None:
        """Both connections go to this database.

        Raises:
            NoDatabaseError: one of them has none.
        """
        await self.source.use(database)
        await self.target.use(database)

    async def copy(self, keys: Sequence[bytes]) -> dict[bytes, str]:
        """Make these keys of the target as they are at the source; one that is not there is deleted.

        Returns:
            Key → why it could not be copied, of those that could not.
        """
        sizes = await sizes_of(self.source, keys) if self.facts.memory else [0] * len(keys)
        errors: dict[bytes, str] = {}
        large = [key for key, size in zip(keys, sizes, strict=True) if size >= DUMP_MOST]
        rest = [(key, size) for key, size in zip(keys, sizes, strict=True) if size < DUMP_MOST]
        if rest:
            for page in pack(*zip(*rest, strict=True)):
                for some in (page.keys, *([key] for key in page.large)):
                    if some:
                        errors |= await self.finish(some, self.write(some, await self.read(some)))
        return errors | await self.rebuild(large)

    def read(self, keys: Sequence[bytes]) -> asyncio.Future[bytes]:
        """Ask the source for these keys; for :meth:`write`."""
        if not self.restore:
            return _nothing()
        return self.source.request(*per_key(keys, DUMP, self._when))

    def write(self, keys: Sequence[bytes], raw: bytes) -> asyncio.Future[bytes]:
        """Send what was read to the target; for :meth:`finish`.

        Raises:
            ServerError: the source refused it.
        """
        if not raw:
            return _nothing()
        commands = []
        payloads, times = columns(raw, len(keys), DUMP, self._when)
        check(self.facts.address, "DUMP", payloads)
        for key, payload, reply in zip(keys, payloads, times, strict=True):
            moment = expiry.read(self.facts.address, reply)
            if not isinstance(payload, bytes) or moment == expiry.GONE:
                commands.append(b"*2\r\n$3\r\nDEL\r\n$%d\r\n%b\r\n" % (len(key), key))
                continue
            life = b"%d" % max(moment, 0)
            commands.append(
                b"*6\r\n$7\r\nRESTORE\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$7\r\nREPLACE\r\n$6\r\nABSTTL\r\n"
                % (len(key), key, len(life), life, len(payload), payload)
            )
            self.bytes += len(payload)
        return self.target.request(b"".join(commands), len(commands))

    async def finish(self, keys: Sequence[bytes], written: asyncio.Future[bytes]) -> dict[bytes, str]:
        """See what became of them, and copy by ordinary commands what the target did not take.

        Returns:
            Key → why it could not be copied.
        """
        raw = await written
        if not raw:
            return await self.rebuild(keys)
        errors, again = {}, []
        for key, reply in zip(keys, parse(raw, len(keys)), strict=True):
            if not isinstance(reply, ReplyError):
                continue
            error = str(reply.args[0])
            if error.startswith((_OTHER_VERSION, _OTHER_FORMAT)) or is_missing(reply):
                again.append(key)
                self.restore = self.restore and error.startswith(_OTHER_FORMAT)
            else:
                errors[key] = error
        return errors | await self.rebuild(again)

    async def rebuild(self, keys: Sequence[bytes]) -> dict[bytes, str]:
        """Copy keys by ordinary commands, a few at a time.

        Returns:
            Key → why it could not be copied.
        """
        errors: dict[bytes, str] = {}
        asks = (TYPE, USAGE if self.facts.memory else EXISTS, self._when)
        for start in range(0, len(keys), _AT_ONCE):
            some = keys[start : start + _AT_ONCE]
            found = columns(await self.source.request(*per_key(some, *asks)), len(some), *asks)
            told = await asyncio.gather(*(self._rebuild(*each) for each in zip(some, *found, strict=True)))
            errors |= {key: error for key, error in zip(some, told, strict=True) if error}
        return errors

    async def _rebuild(self, key: bytes, kind: object, size: object, when: object) -> str:
        check(self.facts.address, "TYPE or MEMORY USAGE", (kind, size))
        name, moment = text(kind), expiry.read(self.facts.address, when)
        if name == "none" or moment == expiry.GONE:
            reply = await self.target.call(b"DEL", key)
            return str(reply.args[0]) if isinstance(reply, ReplyError) else ""
        if name not in TYPES:
            if not self.restore:
                return f"the type {name} is only copied by DUMP and RESTORE, and the target does not take that"
            return (await self.finish([key], self.write([key], await self.read([key])))).get(key, "")
        bytes_there = number(size) if self.facts.memory else 0
        value = Value(self.source, key, name, bytes_there, self.facts.field_expiry)
        return await rebuild(value, moment, self.target, self._counters)


def _nothing() -> asyncio.Future[bytes]:
    done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    done.set_result(b"")
    return done
