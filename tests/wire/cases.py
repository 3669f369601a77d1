r"""The table of wire cases: what is sent, and how much comes back.

The cases are in ``tables/*.txt``. One case is ``= name`` and optional marks, then one command per line, written as
redis-cli reads them: words, or ``"…"`` with ``\x00``-like escapes. Marks:

- ``mask=int`` (or ``id``, ``client``, …): that part of the replies differs from run to run, see :data:`MASKS`;
- ``sort``: the elements of aggregate replies come in no particular order;
- ``only=pass``: only for a route without mirrors;
- ``proto=2`` / ``proto=3``: only in that protocol.

Times to live are given as absolute times, or are asked for in a form that no slow machine can change.
What cannot be written in lines (large values, long pipelines, requests that are no arrays) is made here.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.wire import encode

_TABLES = Path(__file__).resolve().parent / "tables"


@dataclass(frozen=True)
class Case:
    """One conversation: the requests, each as sent, and how many replies they get together."""

    name: str
    requests: tuple[bytes, ...]
    replies: int
    mask: tuple[str, ...] = ()
    sort: bool = False
    mirrored: bool = True
    protocols: tuple[int, ...] = (2, 3)


MASKS: dict[str, re.Pattern[bytes]] = {
    "int": re.compile(rb"(?m)^:\d+\r$"),
    "id": re.compile(rb"\$\d+\r\n\d{13,}-\d+\r\n"),
    "digits": re.compile(rb"\$\d+\r\n\d+\r\n"),
    "client": re.compile(rb"(?s)(?:\$\d+\r\n|=\d+\r\ntxt:)id=.*?\n\r\n"),
    "id-field": re.compile(rb"(?<=\$2\r\nid\r\n):\d+\r\n"),
}

_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')


def words(line: str) -> list[bytes]:
    """A line of the table as arguments."""
    found = []
    for quoted, plain in _WORD.findall(line):
        found.append(plain.encode() if plain else quoted.encode().decode("unicode_escape").encode("latin-1"))
    return found


def parse(text: str) -> Iterator[Case]:
    """The cases of one table."""
    for block in f"\n{text}".split("\n= ")[1:]:
        head, *lines = block.splitlines()
        name, *marks = head.split()
        options = [mark.partition("=")[::2] for mark in marks]
        protocols = tuple(int(value) for key, value in options if key == "proto") or (2, 3)
        commands = tuple(encode(*words(line)) for line in lines if line)
        yield Case(
            name=name,
            requests=commands,
            replies=len(commands),
            mask=tuple(value for key, value in options if key == "mask"),
            sort=("sort", "") in options,
            mirrored=("only", "pass") not in options,
            protocols=protocols,
        )


def _large() -> Iterator[Case]:
    """Values that do not fit into one read."""
    for name, size in (("16k", 1 << 14), ("32k", 1 << 15), ("100k", 100_000), ("1m", 1 << 20)):
        value = (bytes(range(256)) * (size // 256 + 1))[:size]
        commands = (("SET", "big", value), ("GET", "big"), ("APPEND", "big", "x"), ("STRLEN", "big"))
        yield Case(f"large-value-{name}", tuple(encode(*command) for command in commands), 4)
    many = (encode("RPUSH", "l", *range(5_000)), encode("LRANGE", "l", 0, -1), encode("DEL", *range(2_000)))
    yield Case("large-many-arguments", many, 3)
    values = [encode("SET", f"k{i}", b"v" * 10_000) for i in range(100)] + [encode("GET", f"k{i}") for i in range(100)]
    yield Case("large-pipeline-of-10k-values", tuple(values), 200)


def _pipelines() -> Iterator[Case]:
    """A thousand commands in one write."""

    def of(name: str, requests: list[bytes]) -> Case:
        return Case(f"pipeline-{name}", tuple(requests), len(requests))

    keys = [f"k{i // 4}" for i in range(1_000)]
    yield of("1000-set-get", [encode("SET", k, i) if i % 2 else encode("GET", k) for i, k in enumerate(keys)])
    yield of("1000-incr", [encode("INCR", "n")] * 1_000)
    yield of("1000-ping", [encode("PING", i) for i in range(1_000)])
    mixed = (("MULTI",), ("INCR", "n"), ("EXEC",), ("PING",), ("GET", "n"), ("SET", "n"))
    yield of("mixed-transactions", [encode(*command) for command in mixed] * 100)
    databases = [(("SELECT", i % 4), ("INCR", "n"), ("GET", "n")) for i in range(200)]
    yield of("interleaved-databases", [encode(*command) for three in databases for command in three])


def _raw() -> Iterator[Case]:
    """Requests that are not an array of bulk strings, or that get fewer replies than they are commands."""
    yield Case("inline", (b"PING\r\n", b"SET k v\r\n", b"GET k\r\n"), 3)
    yield Case("inline-line-feed-only", (b"PING\n", b"SET k v\n", b"GET k\n"), 3)
    quotes = (b'SET k "a b\\x00\\n"\r\n', b"GET k\r\n", b"SET 'k 2' 'it\\'s'\r\n", b"GET 'k 2'\r\n")
    yield Case("inline-quotes", quotes, 4)
    yield Case("inline-spaces", (b"   PING   \r\n", b"\tECHO\thi\r\n"), 2)
    yield Case("inline-blank-lines", (b"\r\n", b"\r\n", b"PING\r\n", b"\r\n"), 1)
    yield Case("inline-then-array", (b"PING\r\n", encode("PING", "x"), b"PING\r\n", encode("NOSUCH")), 4)
    yield Case("inline-arity", (b"GET\r\n", b"NOSUCH a\r\n"), 2)
    yield Case("empty-arrays", (b"*0\r\n", b"*-1\r\n", encode("PING"), b"*-7\r\n"), 1)
    yield Case("client-reply-skip", (encode("CLIENT", "REPLY", "SKIP"), encode("SET", "k", 1), encode("GET", "k")), 1)
    off = (encode("CLIENT", "REPLY", "OFF"), encode("SET", "k", 1), encode("NOSUCH"), encode("CLIENT", "REPLY", "ON"))
    yield Case("client-reply-off-on", (*off, encode("GET", "k")), 2)
    yield Case("client-reply-bogus", (encode("CLIENT", "REPLY", "MAYBE"), encode("PING")), 2)


def _lines(name: str) -> list[tuple[bytes, ...]]:
    """A table of single commands."""
    return [tuple(words(line)) for line in (_TABLES / name).read_text().splitlines()]


REFUSED_EVERYWHERE = _lines("refused_everywhere.txt")
"""What a shared connection cannot carry in this version: a clear error, and the connection goes on."""

REFUSED_MIRRORED = _lines("refused_mirrored.txt")
"""What must not reach a Redis whose writes are mirrored."""

CASES: list[Case] = [
    *(
        case
        for path in sorted(_TABLES.glob("*.txt"))
        if not path.name.startswith("refused")
        for case in parse(path.read_text())
    ),
    *_large(),
    *_pipelines(),
    *_raw(),
]
