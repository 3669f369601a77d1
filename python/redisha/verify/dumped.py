"""Payloads of ``DUMP`` that say the same in another order. Pure.

Redis writes a set or hash that is a hash table in the order of its buckets, and each server has another. The elements
themselves are written the same way as long as both servers compress alike.
"""

from __future__ import annotations

_WIDTHS = {2: 1, 4: 2}
"""Type of a payload → parts of an element: a set's members, a hash's fields and values."""

_ENCODED = 3
_INTEGERS = {0: 2, 1: 3, 2: 5}
_LZF = 3


def same_elements(a: bytes, b: bytes) -> bool:
    """Whether two payloads are of one type and have the same elements, each written in the same way.

    False says nothing: other types are not looked into, and the same element may be written in two ways.
    """
    if len(a) != len(b) or a[:1] != b[:1] or not a or a[0] not in _WIDTHS:
        return False
    try:
        return sorted(_elements(a)) == sorted(_elements(b))
    except (IndexError, ValueError):
        return False


def _elements(payload: bytes) -> list[bytes]:
    width = _WIDTHS[payload[0]]
    count, at = _length(payload, 1)
    found = []
    for _ in range(count):
        start = at
        for _ in range(width):
            first = payload[at]
            # The most frequent case is written out: up to 63 bytes.
            at = at + 1 + first if first < 64 else _after(payload, at)
        found.append(payload[start:at])
    if at != len(payload):
        raise ValueError("it does not end where it should")
    return found


def _after(payload: bytes, at: int) -> int:
    """Where a string ends that begins here."""
    first = payload[at]
    if first >> 6 != _ENCODED:
        length, at = _length(payload, at)
        return at + length
    if first & 63 == _LZF:
        compressed, at = _length(payload, at + 1)
        _, at = _length(payload, at)
        return at + compressed
    if first & 63 not in _INTEGERS:
        raise ValueError("an unknown encoding")
    return at + _INTEGERS[first & 63]


def _length(payload: bytes, at: int) -> tuple[int, int]:
    """A length, and where what follows it begins."""
    first = payload[at]
    match first >> 6:
        case 0:
            return first, at + 1
        case 1:
            return (first & 63) << 8 | payload[at + 1], at + 2
        case 2:
            end = at + (5 if first == 0x80 else 9)
            return int.from_bytes(payload[at + 1 : end], "big"), end
    raise ValueError("not a length")
