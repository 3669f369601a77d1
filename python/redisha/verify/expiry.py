"""When a key expires, in milliseconds of the clock on the wall, on servers old and new. Pure."""

from __future__ import annotations

from redisha.core import ReplyError
from redisha.verify.encode import PEXPIRETIME, TIME_AND_PTTL, Ask
from redisha.verify.errors import ServerError, check

NEVER = -1
GONE = -2

TOLERANCE_MS = 2
"""Two times may differ by this where a server only tells how long a key has left."""


def question(exact: bool) -> Ask:
    """What to ask: ``PEXPIRETIME`` (7.0 and newer), else the time and how long the key has left."""
    return PEXPIRETIME if exact else TIME_AND_PTTL


def read(address: str, reply: object) -> int:
    """The reply to :func:`question` as a time, :data:`NEVER` or :data:`GONE`.

    Raises:
        ServerError: the server refused it.
    """
    if isinstance(reply, int):
        return reply
    match reply:
        case [[bytes(seconds), bytes(micros)], int(left)]:
            return left if left < 0 else int(seconds) * 1000 + int(micros) // 1000 + left
        case ReplyError() as error:
            check(address, "PEXPIRETIME", [error])
        case [*replies]:
            check(address, "TIME or PTTL", replies)
    raise ServerError(f"{address} is no Redis: asked for an expiry it answered {reply!r:.60}")


def equal(a: int, b: int, exact: bool) -> bool:
    """Whether two times are one."""
    if exact or a < 0 or b < 0:
        return a == b
    return abs(a - b) <= TOLERANCE_MS
