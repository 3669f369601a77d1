"""Payloads in another order: the same elements are found, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisha.verify.dumped import same_elements

SET, HASH, LIST = 2, 4, 18


def length(number: int) -> bytes:
    if number < 64:
        return bytes([number])
    if number < 16_384:
        return bytes([0x40 | number >> 8, number & 255])
    return b"\x80" + number.to_bytes(4, "big")


def text(data: bytes) -> bytes:
    return length(len(data)) + data


def payload(kind: int, parts: list[bytes]) -> bytes:
    return bytes([kind]) + length(len(parts) // (2 if kind == HASH else 1)) + b"".join(parts)


STRANGE = [
    b"\xc0\x05",  # 5 in one byte
    b"\xc1\x05\x01",
    b"\xc2\x05\x01\x02\x03",
    b"\xc3\x04\x40\x50abcd",  # 4 compressed bytes that become 80
    b"\x81" + (3).to_bytes(8, "big") + b"xyz",
    text(b"x" * 100),
    text(b"y" * 20_000),
]
PART = st.one_of(st.binary(max_size=70).map(text), st.sampled_from(STRANGE))


@given(st.lists(PART, max_size=10), st.randoms())
def test_members_in_another_order(parts: list[bytes], random) -> None:
    shuffled = list(parts)
    random.shuffle(shuffled)
    assert same_elements(payload(SET, parts), payload(SET, shuffled))


@given(st.lists(st.tuples(PART, PART), max_size=6), st.randoms())
def test_fields_stay_with_their_values(pairs: list[tuple[bytes, bytes]], random) -> None:
    shuffled = list(pairs)
    random.shuffle(shuffled)
    flat = [[part for pair in each for part in pair] for each in (pairs, shuffled)]
    assert same_elements(payload(HASH, flat[0]), payload(HASH, flat[1]))


@given(st.lists(PART, max_size=8), st.lists(PART, max_size=8))
def test_other_members_differ(a: list[bytes], b: list[bytes]) -> None:
    assert same_elements(payload(SET, a), payload(SET, b)) == (sorted(a) == sorted(b))


def test_swapped_values_differ() -> None:
    a, b = (
        payload(HASH, [text(part) for part in parts]) for parts in ([b"f", b"1", b"g", b"2"], [b"f", b"2", b"g", b"1"])
    )
    assert not same_elements(a, b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (payload(LIST, [text(b"a"), text(b"b")]), payload(LIST, [text(b"b"), text(b"a")])),
        (payload(SET, [text(b"a")]), payload(HASH, [text(b"a")])),
        (payload(SET, [b"\xc0\x05"]), payload(SET, [text(b"5")])),
        (b"", b""),
        (b"\x02", b"\x02"),
        (b"\x02\x05\x01a", b"\x02\x05\x01a"),
        (payload(SET, [b"\xc7\x01"]), payload(SET, [b"\xc7\x01"])),
        (payload(SET, [text(b"a")]) + b"x", payload(SET, [text(b"a")]) + b"x"),
    ],
)
def test_what_is_not_looked_into(a: bytes, b: bytes) -> None:
    assert not same_elements(a, b)


@given(st.binary(max_size=30), st.binary(max_size=30))
def test_no_bytes_are_an_error(a: bytes, b: bytes) -> None:
    same_elements(b"\x02" + a, b"\x02" + b)
    same_elements(b"\x04" + a, b"\x04" + a)
