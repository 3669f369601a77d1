"""The same few commands for every key of a page: encoded fast, their replies put in columns. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from redisha.core import encode_command
from redisha.verify.link import parse


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked of each key; made by :func:`ask`.

    Attributes:
        prefix: all that is sent before the key.
        width: replies for each key.
    """

    prefix: bytes
    width: int = 1


def ask(*args: bytes, before: bytes = b"") -> Ask:
    """A command whose last argument is the key.

    Args:
        args: the arguments before it.
        before: a command without arguments that is sent right before each.
    """
    head = b"*%d\r\n" % (len(args) + 1) + b"".join([b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args])
    return Ask(encode_command([before]) + head, 2) if before else Ask(head)


DUMP = ask(b"DUMP")
EXISTS = ask(b"EXISTS")
DEL = ask(b"DEL")
TYPE = ask(b"TYPE")
USAGE = ask(b"MEMORY", b"USAGE")
PEXPIRETIME = ask(b"PEXPIRETIME")
TIME_AND_PTTL = ask(b"PTTL", before=b"TIME")


def per_key(keys: Sequence[bytes], *asks: Ask) -> tuple[bytes, int]:
    """The first question for all keys, then the second, and so on.

    Returns:
        The commands as bytes, and how many replies come.
    """
    bulks = [b"$%d\r\n%b\r\n" % (len(key), key) for key in keys]
    text = b"".join([one.prefix + one.prefix.join(bulks) for one in asks])
    return text, len(keys) * sum(one.width for one in asks)


def columns(raw: bytes, count: int, *asks: Ask) -> list[list[object]]:
    """The replies to :func:`per_key`: for each question one list with an element for each key.

    Args:
        raw: the replies.
        count: how many keys were asked for.
        asks: the questions; one with two replies for a key gives lists of two.
    """
    replies = parse(raw, count * sum(one.width for one in asks))
    found: list[list[object]] = []
    start = 0
    for one in asks:
        mine = replies[start : start + count * one.width]
        start += len(mine)
        found.append(mine if one.width == 1 else [list(pair) for pair in zip(mine[::2], mine[1::2], strict=True)])
    return found


def text(reply: object) -> str:
    """A reply that should be a word; empty if it is none."""
    return reply.decode(errors="replace") if isinstance(reply, bytes) else ""


def number(reply: object) -> int:
    """A reply that should be a number; 0 if it is none."""
    return reply if isinstance(reply, int) else 0
