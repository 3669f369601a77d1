"""Replies taken as bytes, commands for many keys, and pages of bounded size."""

import pytest

from redisha.core import ReplyError, ReplyReader
from redisha.verify import expiry, keys
from redisha.verify.encode import DUMP, PEXPIRETIME, TIME_AND_PTTL, columns, per_key
from redisha.verify.errors import ServerError, is_missing, refusal
from redisha.verify.link import parse

REPLIES = [b"+OK\r\n", b"*2\r\n:1\r\n$2\r\n\r\n\r\n", b"-ERR no\r\n", b"$-1\r\n", b"%1\r\n+a\r\n:1\r\n"]


def test_replies_are_taken_as_they_came() -> None:
    stream = b"".join(REPLIES)
    for cut in range(len(stream)):
        reader = ReplyReader()
        reader.feed(stream[:cut])
        assert reader.take(5) is NotImplemented
        reader.feed(stream[cut:])
        assert reader.take(1) == REPLIES[0], "fewer than were asked for before"
        assert reader.next() == [1, b"\r\n"]
        assert reader.take(3) == b"".join(REPLIES[2:])
        assert reader.take(1) is NotImplemented
        assert reader.take(0) == b""


def test_more_replies_than_before() -> None:
    reader = ReplyReader()
    reader.feed(b":1\r\n:2\r\n:")
    assert reader.take(3) is NotImplemented
    reader.feed(b"3\r\n:4\r\n")
    assert reader.take(4) == b":1\r\n:2\r\n:3\r\n:4\r\n"
    reader.feed(b":5\r\n:6")
    assert reader.take(2) is NotImplemented
    assert reader.next() == 5
    assert reader.next() is NotImplemented


def test_what_is_no_reply() -> None:
    reader = ReplyReader()
    reader.feed(b":1\r\nHTTP/1.1")
    with pytest.raises(ValueError, match="unknown reply type 'H'"):
        reader.take(2)


def test_commands_for_each_key() -> None:
    text, count = per_key([b"a", b"%s\r\n"], DUMP, PEXPIRETIME)
    assert text == (
        b"*2\r\n$4\r\nDUMP\r\n$1\r\na\r\n*2\r\n$4\r\nDUMP\r\n$4\r\n%s\r\n\r\n"
        b"*2\r\n$11\r\nPEXPIRETIME\r\n$1\r\na\r\n*2\r\n$11\r\nPEXPIRETIME\r\n$4\r\n%s\r\n\r\n"
    )
    assert count == 4
    text, count = per_key([b"a"], TIME_AND_PTTL)
    assert text == b"*1\r\n$4\r\nTIME\r\n*2\r\n$4\r\nPTTL\r\n$1\r\na\r\n"
    assert count == 2


def test_replies_in_columns() -> None:
    raw = b"$1\r\nx\r\n$-1\r\n" + b"*2\r\n$1\r\n5\r\n$4\r\n6999\r\n:10\r\n" + b"*2\r\n$1\r\n5\r\n$1\r\n0\r\n:-2\r\n"
    payloads, times = columns(raw, 2, DUMP, TIME_AND_PTTL)
    assert payloads == [b"x", None]
    assert [expiry.read("a", each) for each in times] == [5_016, expiry.GONE]


def test_an_expiry_that_is_refused() -> None:
    with pytest.raises(ServerError, match=r"h:1 does not allow PEXPIRETIME .*NOPERM no"):
        expiry.read("h:1", ReplyError("NOPERM no"))
    with pytest.raises(ServerError, match="h:1 refuses TIME or PTTL: ERR no"):
        expiry.read("h:1", [[b"1", b"2"], ReplyError("ERR no")])


def test_small_values_stay_together() -> None:
    pages = keys.pack([b"a", b"b", b"c"], [10, 20, 30])
    assert [(page.keys, page.large) for page in pages] == [([b"a", b"b", b"c"], [])]


def test_pages_are_bounded() -> None:
    half = keys.PAGE_BYTES // 2
    sizes = {b"a": half, b"b": half, b"c": 1, b"d": keys.LARGE, b"e": half, b"f": half}
    pages = keys.pack(list(sizes), list(sizes.values()))
    assert [(page.keys, page.large) for page in pages] == [
        ([b"a", b"b"], []),
        ([b"c", b"e"], [b"d"]),
        ([b"f"], []),
    ]
    assert sum(page.count for page in pages) == len(sizes)


@pytest.mark.parametrize(
    ("raw", "count", "found"),
    [
        (b":1\r\n:22\r\n", 2, [1, 22]),
        (b":1\r\n$-1\r\n:3\r\n", 3, [1, 0, 3]),
        (b"-ERR no\r\n:3\r\n", 2, [0, 3]),
    ],
)
def test_sizes(raw: bytes, count: int, found: list[int]) -> None:
    assert keys.numbers(raw, count) == found


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("ERR unknown command 'DUMP', with args beginning with: 'k' ", True),
        ("ERR unknown command `dump`, with args beginning with: `k`, ", True),
        ("NOPERM this user has no permissions to run the 'dump' command", True),
        ("NOPERM User x has no permissions to run the 'dump' command", True),
        ("NOPERM this user has no permissions to access one of the keys used as arguments", False),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", False),
    ],
)
def test_a_command_that_is_not_there(text: str, missing: bool) -> None:
    assert is_missing(ReplyError(text)) is missing
    assert not is_missing(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("LOADING Redis is loading the dataset in memory", "is loading its data: try again"),
        ("NOAUTH Authentication required.", "asks for a password: give it as"),
        ("WRONGPASS invalid username-password pair", "refuses the user or the password"),
        ("NOPERM this user …", "does not allow SCAN to this user"),
        ("MOVED 1 h:2", "is a node of a cluster"),
        ("OOM command not allowed", "refuses SCAN: OOM"),
    ],
)
def test_errors_say_what_to_do(text: str, words: str) -> None:
    assert words in str(refusal("h:1", "SCAN", ReplyError(text)))


def test_replies_as_values() -> None:
    values = parse(b"".join(REPLIES), len(REPLIES))
    assert values[:2] == [b"OK", [1, b"\r\n"]]
    assert isinstance(values[2], ReplyError)
    assert values[3:] == [None, {b"a": 1}]
