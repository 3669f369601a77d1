"""A member's own Redis is emptied, so that the group's leader fills it: for ``redisha init``.

Owns: what is removed (all keys of all databases, all functions, and so the marker), and that the sidecar notices.
Never: decides whether it may be.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from redisha.core import ReplyError, encode_command
from redisha.verify.errors import ServerError, refusal
from redisha.verify.link import Link, parse
from redisha.verify.server import Server

_FUNCTIONS_SINCE = 7
"""The first version of Redis that has functions. Before, the marker is a key."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a Redis says of itself.

    Attributes:
        run_id: changes with every start; the sidecar says the same one if it is the same server.
        version: for example ``7.0.15``.
        keys: in all databases.
    """

    run_id: str
    version: str
    keys: int


async def contents(server: Server) -> Contents:
    """Ask a Redis what it is and how much it has.

    Raises:
        ServerError: it cannot be asked.
    """
    link = await Link.open(server)
    try:
        return await _contents(link)
    finally:
        link.close()


async def empty(server: Server, run_id: str) -> Contents:
    """Remove everything, in one transaction; returns what was there.

    The last command of the transaction cuts the connections of all others, the sidecar's included: what that knows of
    its Redis it learns when it connects, and so it looks again.

    Args:
        server: the Redis.
        run_id: of the server that is meant; nothing is removed from another one.

    Raises:
        ServerError: it cannot be asked, is another one, or refuses. Then nothing was removed, unless the connection was
            lost in the midst.
    """
    link = await Link.open(server)
    try:
        found = await _contents(link)
        if found.run_id != run_id:
            raise ServerError(f"{link.address} is another Redis than the one that the sidecar is connected to")
        commands = [[b"FLUSHALL", b"ASYNC"]]
        if int(found.version.partition(".")[0] or 0) >= _FUNCTIONS_SINCE:
            commands.append([b"FUNCTION", b"FLUSH"])
        commands.append([b"CLIENT", b"KILL", b"TYPE", b"normal", b"SKIPME", b"yes"])
        whole = [[b"MULTI"], *commands, [b"EXEC"]]
        replies = parse(await link.request(b"".join(map(encode_command, whole)), len(whole)), len(whole))
        _check(link.address, [b" ".join(each[:2]).decode() for each in whole], replies)
        return found
    finally:
        link.close()


def _check(address: str, names: list[str], replies: list[object]) -> None:
    """Name the command that was refused, not the EXEC that fails for its sake."""
    done = replies[-1]
    inside = zip(names[1:-1], done, strict=False) if isinstance(done, list) else ()
    for name, reply in (*zip(names, replies, strict=True), *inside):
        if isinstance(reply, ReplyError):
            raise refusal(address, name, reply)


async def _contents(link: Link) -> Contents:
    reply = await link.ask(b"INFO", b"everything")
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else ""
    said = dict(re.findall(r"^(run_id|redis_version):(\S+)", text, re.MULTILINE))
    keys = sum(map(int, re.findall(r"^db\d+:keys=(\d+)", text, re.MULTILINE)))
    return Contents(said.get("run_id", ""), said.get("redis_version", ""), keys)
