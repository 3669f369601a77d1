"""A value as 16 bytes that are the same for the same value, however a server keeps it. Pure.

``DUMP`` is no such thing: it shows encodings and the order of a hash table, which differs from server to server.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from hashlib import blake2b
from itertools import chain
from typing import Protocol, TypeAlias

Element: TypeAlias = Sequence[bytes]
"""One element of a value: a member; a field, its value and its expiry; a member and its score; an entry of a stream."""

DIGEST_BYTES = 16
FOOTER = 10
"""Bytes at the end of a ``DUMP`` that are no data: the version of the format and a checksum."""

_SORTED_MOST = 4096
_SORTED_BYTES = 256 << 10
_HYLL = b"HYLL"
_COUNT = slice(8, 16)


class ValueDigest(Protocol):
    """The digest of one value, piece by piece; the pieces may be cut anywhere."""

    def add(self, elements: Sequence[Element]) -> None:
        """The next piece; for a string its one element is the next bytes."""

    def result(self) -> bytes:
        """The digest of what was added."""


def digest_of(kind: str) -> ValueDigest:
    """A new digest for a value of this type, as ``TYPE`` says it."""
    if kind == "string":
        return _Text()
    return _Unordered(kind) if kind in {"set", "hash"} else _Ordered(kind)


class _Text:
    def __init__(self) -> None:
        self._running = blake2b(b"string", digest_size=DIGEST_BYTES)
        self._first = True

    def add(self, elements: Sequence[Element]) -> None:
        for (data,) in elements:
            self._running.update(without_count(data) if self._first else data)
            self._first = False

    def result(self) -> bytes:
        return self._running.digest()


class _Ordered:
    """Lengths and contents go to digests of their own, so that it does not matter how the value was cut."""

    def __init__(self, kind: str) -> None:
        self._widths = blake2b(kind.encode(), digest_size=DIGEST_BYTES)
        self._lengths = blake2b(digest_size=DIGEST_BYTES)
        self._data = blake2b(digest_size=DIGEST_BYTES)

    def add(self, elements: Sequence[Element]) -> None:
        parts = list(chain.from_iterable(elements))
        self._widths.update(_numbers(map(len, elements)))
        self._lengths.update(_numbers(map(len, parts)))
        self._data.update(b"".join(parts))

    def result(self) -> bytes:
        all_three = (self._widths, self._lengths, self._data)
        return blake2b(b"".join([each.digest() for each in all_three]), digest_size=DIGEST_BYTES).digest()


class _Unordered:
    """A small value is sorted; of a large one the elements' digests are added up.

    Which of the two depends on the value alone, so that it is the same on both servers.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind.encode()
        self._held: list[Element] = []
        self._bytes = 0
        self._count = 0
        self._sum = 0

    def add(self, elements: Sequence[Element]) -> None:
        self._count += len(elements)
        self._bytes += sum(map(len, chain.from_iterable(elements)))
        self._held += elements
        if self._count > _SORTED_MOST or self._bytes > _SORTED_BYTES:
            for element in self._held:
                self._sum += int.from_bytes(blake2b(_joined(element), digest_size=DIGEST_BYTES).digest(), "big")
            self._held.clear()

    def result(self) -> bytes:
        elements = sorted(map(tuple, self._held))
        parts = list(chain.from_iterable(elements))
        text = [_numbers(map(len, elements)), _numbers(map(len, parts)), *parts]
        head = struct.pack(">QQ", self._count, self._bytes) + (self._sum % (1 << 128)).to_bytes(16, "big")
        return blake2b(b"".join((self._kind, head, *text)), digest_size=DIGEST_BYTES).digest()


def _numbers(values: map[int]) -> bytes:
    return array("Q", values).tobytes()


def _joined(parts: Element) -> bytes:
    return _numbers(map(len, parts)) + b"".join(parts)


def without_count(head: bytes) -> bytes:
    """The first bytes of a string; of a HyperLogLog without the count that it caches and a read may fill in."""
    if head[:4] == _HYLL and len(head) >= _COUNT.stop and head[4] in (0, 1) and head[5:8] == b"\0\0\0":
        return head[: _COUNT.start] + head[_COUNT.stop :]
    return head


def score(text: bytes) -> bytes:
    """A sorted set's score in a form that does not depend on how a version writes numbers."""
    return struct.pack(">d", float(text))
