"""The digest of a value does not depend on how it is kept or read, and on nothing else but the value."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisha.verify.digest import Element, digest_of, score, without_count

ELEMENTS = st.lists(st.binary(max_size=5), max_size=8)
PAIRS = st.dictionaries(st.binary(max_size=4), st.binary(max_size=4), max_size=8)


def digest(kind: str, *chunks: list[Element]) -> bytes:
    made = digest_of(kind)
    for chunk in chunks:
        made.add(chunk)
    return made.result()


def single(items: list[bytes]) -> list[Element]:
    return [(item,) for item in items]


@given(ELEMENTS, st.integers(0, 8), st.randoms())
def test_sets_have_no_order(items: list[bytes], cut: int, random) -> None:
    members = sorted(set(items))
    shuffled = list(members)
    random.shuffle(shuffled)
    assert digest("set", single(members)) == digest("set", single(shuffled[:cut]), single(shuffled[cut:]))


@given(PAIRS, st.randoms())
def test_hashes_have_no_order(pairs: dict[bytes, bytes], random) -> None:
    items = list(pairs.items())
    shuffled = list(items)
    random.shuffle(shuffled)
    assert digest("hash", list(items)) == digest("hash", [[name, value] for name, value in shuffled])


@given(ELEMENTS, ELEMENTS, st.integers(0, 8))
def test_lists_have_one(a: list[bytes], b: list[bytes], cut: int) -> None:
    assert digest("list", single(a)) == digest("list", single(a[:cut]), single(a[cut:]))
    assert (digest("list", single(a)) == digest("list", single(b))) == (a == b)


@given(st.lists(st.lists(st.binary(max_size=3), min_size=1, max_size=4), max_size=5))
def test_the_border_between_elements_counts(entries: list[list[bytes]]) -> None:
    flat = [[part] for entry in entries for part in entry]
    assert (digest("stream", list(entries)) == digest("stream", list(flat))) == (entries == flat)


@given(st.binary(max_size=40), st.integers(0, 40))
def test_strings_in_pieces(text: bytes, cut: int) -> None:
    head, tail = text[:cut], text[cut:]
    if len(head) < 16 <= len(text):
        return  # the first piece is never cut that short
    assert digest("string", [(text,)]) == digest("string", [(head,)], [(tail,)])


@pytest.mark.parametrize("count", [10, 5_000])
def test_large_sets_too(count: int) -> None:
    """Small ones are sorted, large ones are not."""
    members = [b"member-%d" % number for number in range(count)]
    whole = digest("set", single(members))
    assert whole == digest("set", *(single(members[at : at + 7]) for at in reversed(range(0, count, 7))))
    assert whole != digest("set", single(members[1:]))
    assert whole != digest("set", single([*members[1:], b"other"]))


def test_types_differ() -> None:
    kinds = [digest(kind) for kind in ("string", "list", "set", "zset", "hash", "stream")]
    assert all(a != b for a, b in itertools.combinations(kinds, 2))


def test_fields_values_and_expiries() -> None:
    digests = [
        digest("hash", [(b"a", b"b")]),
        digest("hash", [(b"b", b"a")]),
        digest("hash", [(b"ab", b"")]),
        digest("hash", [(b"a", b"b", b"1")]),
        digest("hash", [(b"a", b"b"), (b"1", b"")]),
    ]
    assert len(set(digests)) == len(digests)


def test_the_count_of_a_hyperloglog_is_left_out_and_nothing_else() -> None:
    def hyll(encoding: int, count: bytes, rest: bytes) -> bytes:
        return b"HYLL" + bytes([encoding, 0, 0, 0]) + count + rest

    one, other = hyll(1, b"\1" * 8, b"data"), hyll(1, b"\2" * 8, b"data")
    assert digest("string", [(one,)]) == digest("string", [(other,)])
    assert digest("string", [(one,)]) != digest("string", [(hyll(0, b"\1" * 8, b"data"),)])
    assert digest("string", [(one,)]) != digest("string", [(hyll(1, b"\1" * 8, b"more"),)])
    # Text that only begins like one.
    assert without_count(b"HYLLO, I am text and differ here") == b"HYLLO, I am text and differ here"
    assert without_count(b"HYLL") == b"HYLL"


@pytest.mark.parametrize(
    ("a", "b"), [(b"0.1", b"0.10000000000000001"), (b"1", b"1.0"), (b"inf", b"inf"), (b"3", b"3e0")]
)
def test_scores_are_numbers(a: bytes, b: bytes) -> None:
    assert score(a) == score(b) != score(b"2")
