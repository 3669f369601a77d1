"""Payloads of ``DUMP``, looked into as far as that is cheap: their types, and whether two surely differ. Pure.

The same value may have many payloads: compressed or not, in another order, cut into other pieces. For small values of
the usual types these forms are made one here; for all others two different payloads tell nothing.
"""

from __future__ import annotations

from redisha.verify.digest import FOOTER

LOOKED_INTO_MOST = 64 << 10
"""Bytes of a payload past which it is not looked into."""

_STRING, _LIST, _HASH, _ZSET, _SET = 0, 18, 16, 17, 20
"""As Redis 7.0 and newer keep small values: all but the first are listpacks, the list has several."""

_KINDS = {
    "string": (_STRING,),
    "list": (1, 10, 14, _LIST),
    "set": (2, 11, _SET),
    "zset": (3, 5, 12, _ZSET),
    "hash": (4, 9, 13, _HASH, 22, 23, 24, 25),
    "module": (6, 7),
    "stream": (15, 19, 21),
}
_KIND_OF = {number: name for name, numbers in _KINDS.items() for number in numbers}

_HYLL = b"HYLL"
_LISTPACK_HEAD = 6
_PACKED = 2
_LZF = 0xC3


def kind_of(payload: bytes) -> str:
    """The type of a value, as ``TYPE`` says it; empty where it is not known."""
    return _KIND_OF.get(payload[0], "") if payload else ""


def differ(a: bytes, b: bytes) -> bool:
    """Whether two payloads are of different values. False says nothing."""
    kinds = kind_of(a), kind_of(b)
    if kinds[0] != kinds[1] and all(kinds):
        return True
    if max(len(a), len(b)) > LOOKED_INTO_MOST or a[:1] != b[:1]:
        return False
    try:
        forms = _form(a[:-FOOTER]), _form(b[:-FOOTER])
    except (IndexError, ValueError):
        return False
    return None not in forms and forms[0] != forms[1]


def _form(payload: bytes) -> bytes | None:
    """Something that is the same for the same value; None where that is not known."""
    kind = payload[0]
    if kind == _LIST:
        return _list(payload)
    if kind not in (_STRING, _HASH, _ZSET, _SET):
        return None
    text, end = _text(payload, 1)
    if end != len(payload) or text.startswith(_HYLL):  # which has a count in it that a read may fill in
        return None
    # Of a hash or set with the same elements in another order the bytes are the same ones, in another order.
    return text if kind in (_STRING, _ZSET) else bytes(sorted(text))


def _list(payload: bytes) -> bytes | None:
    """All elements of a list, whatever pieces it is in."""
    count, at = _length(payload, 1)
    parts = []
    for _ in range(count):
        container, at = _length(payload, at)
        piece, at = _text(payload, at)
        if container != _PACKED:
            return None
        parts.append(piece[_LISTPACK_HEAD:-1])
    return b"".join(parts)


def _text(payload: bytes, at: int) -> tuple[bytes, int]:
    """A string, and where what follows it begins; a number that is kept as such stays as it is."""
    first = payload[at]
    if first == _LZF:
        compressed, at = _length(payload, at + 1)
        size, at = _length(payload, at)
        return _decompressed(payload[at : at + compressed], size), at + compressed
    if first >> 6 == 3:
        end = at + 1 + (1 << (first & 63))
        return payload[at:end], end
    length, at = _length(payload, at)
    return payload[at : at + length], at + length


def _length(payload: bytes, at: int) -> tuple[int, int]:
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


def _decompressed(data: bytes, size: int) -> bytes:
    """LZF: bytes as they are, or what came a while before, again."""
    if size > LOOKED_INTO_MOST:
        raise ValueError("too large")
    out = bytearray()
    at = 0
    while at < len(data):
        control = data[at]
        at += 1
        if control < 32:
            out += data[at : at + control + 1]
            at += control + 1
            continue
        length = control >> 5
        if length == 7:
            length += data[at]
            at += 1
        start = len(out) - ((control & 31) << 8) - data[at] - 1
        at += 1
        length += 2
        if start < 0:
            raise ValueError("not LZF")
        while length > 0:  # it may reach into what it adds
            some = out[start : start + length]
            out += some
            start += len(some)
            length -= len(some)
    if len(out) != size:
        raise ValueError("not LZF")
    return bytes(out)
