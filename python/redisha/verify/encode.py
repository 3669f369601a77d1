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
        suffix: all that is sent after it.
        width: replies for each key.
    """

    prefix: bytes
    suffix: bytes = b""
    width: int = 1


def ask(*args: bytes, after: tuple[bytes, ...] = (), first: bytes = b"") -> Ask:
    """A command with a key.

    Args:
        args: the arguments before it.
        after: the arguments after it.
        first: a command without arguments that is sent right before each.
    """
    head, tail = (b"".join([b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in part]) for part in (args, after))
    head = b"*%d\r\n%b" % (len(args) + 1 + len(after), head)
    return Ask(encode_command([first]) + head, tail, 2) if first else Ask(head, tail)


DUMP = ask(b"DUMP")
EXISTS = ask(b"EXISTS")
DEL = ask(b"DEL")
TYPE = ask(b"TYPE")
USAGE = ask(b"MEMORY", b"USAGE")
PEXPIRETIME = ask(b"PEXPIRETIME")
TIME_AND_PTTL = ask(b"PTTL", first=b"TIME")

HEAD_BYTES = 4096
"""Of a string that are read at first."""

HEAD = ask(b"GETRANGE", after=(b"0", b"%d" % (HEAD_BYTES - 1)))


def per_key(keys: Sequence[bytes], *asks: Ask) -> tuple[bytes, int]:
    """The first question for all keys, then the second, and so on.

    Returns:
        The commands as bytes, and how many replies come.
    """
    bulks = [b"$%d\r\n%b\r\n" % (len(key), key) for key in keys]
    text = b"".join([one.prefix + (one.suffix + one.prefix).join(bulks) + one.suffix for one in asks])
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
