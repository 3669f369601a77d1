"""Durations, sizes and addresses."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisha.config.scalars import (
    MAX_DURATION_MS,
    ScalarError,
    format_duration,
    format_size,
    parse_address,
    parse_bind,
    parse_duration,
    parse_endpoint,
    parse_size,
    parse_timeout,
)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("250ms", 250),
        ("0.25s", 250),
        ("5s", 5000),
        ("1m", 60_000),
        ("2h", 7_200_000),
        ("24h", MAX_DURATION_MS),
        ("0", 0),
        (0, 0),
        ("0s", 0),
        ("1us", 1),
        ("1500us", 2),
        ("0.0001s", 1),
        ("1.5ms", 2),
    ],
)
def test_duration(text: object, milliseconds: int) -> None:
    assert parse_duration(text) == milliseconds


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, "the duration 5 has no unit"),
        (0.5, "the duration 0.5 has no unit"),
        ("5", "expected a duration, found '5'"),
        ("-5s", "expected a duration"),
        ("5 s", "expected a duration"),
        ("5S", "expected a duration"),
        ("\u0665s", "expected a duration"),
        ("1:30", "expected a duration"),
        ("25h", "longer than a day"),
        ("9" * 400 + "s", "longer than a day"),
        (True, "expected a duration, found True"),
        (False, "expected a duration, found False"),
        (None, "expected a duration, found no text"),
        ([], "expected a duration, found no text"),
    ],
)
def test_no_duration(value: object, message: str) -> None:
    with pytest.raises(ScalarError, match=message):
        parse_duration(value)


@given(st.integers(0, MAX_DURATION_MS))
def test_duration_is_read_as_written(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds)) == milliseconds


def test_timeout_is_not_zero() -> None:
    assert parse_timeout("1ms") == 1
    with pytest.raises(ScalarError, match="longer than 0"):
        parse_timeout("0s")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64MB", 64 * 1024**2),
        ("1kb", 1024),
        ("1 KiB", 1024),
        ("2GiB", 2 * 1024**3),
        ("512", 512),
        (512, 512),
        ("7b", 7),
    ],
)
def test_size(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("value", ["", "MB", "1.5MB", "10XB", "-1", "0", 0, -1, True, None, 1.0, "9" * 30 + "GB"])
def test_no_size(value: object) -> None:
    with pytest.raises(ScalarError, match="size"):
        parse_size(value)


@given(st.integers(1, 2**40))
def test_size_is_read_as_written(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("redis-001:6379", "redis-001:6379"),
        ("redis_1.ns.svc.cluster.local.:6379", "redis_1.ns.svc.cluster.local.:6379"),
        ("10.0.0.1:1", "10.0.0.1:1"),
        ("[::1]:6379", "[::1]:6379"),
        ("[0:0::0001]:6379", "[::1]:6379"),
        ("h:06379", "h:6379"),
        ("unix:/run/redis.sock", "unix:/run/redis.sock"),
    ],
)
def test_address(text: str, canonical: str) -> None:
    assert str(parse_address(text)) == canonical
    assert parse_address(canonical) == parse_address(text)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("redis-001", "has no port"),
        ("", "has no port"),
        (":6379", "not a host name"),
        ("redis-001:", "'' is not a port"),
        ("redis-001:65536", "'65536' is not a port"),
        ("redis-001:\u0666", "is not a port"),
        ("redis-001:+1", "is not a port"),
        ("::1:6379", "needs brackets"),
        ("[::1:6379", "needs brackets"),
        ("[redis]:6379", "no IPv6 address between"),
        ("redis 001:6379", "not a host name"),
        ("-redis:6379", "not a host name"),
        ("a" * 64 + ":1", "not a host name"),
        ("unix:run/redis.sock", "must begin with '/'"),
        ("unix:", "must begin with '/'"),
        ("unix:/" + "a" * 107, "longer than"),
        (6379, "expected an address, found 6379"),
        (None, "expected an address"),
    ],
)
def test_no_address(value: object, message: str) -> None:
    with pytest.raises(ScalarError, match=message):
        parse_address(value)


def test_bind_is_an_ip_address() -> None:
    assert str(parse_bind("0.0.0.0:0")) == "0.0.0.0:0"
    assert str(parse_bind("unix:/a")) == "unix:/a"
    with pytest.raises(ScalarError, match="'localhost' is not an IP address") as caught:
        parse_bind("localhost:6380")
    assert caught.value.hint == "write 127.0.0.1:6380"


def test_endpoint_has_a_port() -> None:
    with pytest.raises(ScalarError, match="0 is not a port"):
        parse_endpoint("redis-001:0")


@given(st.one_of(st.text(max_size=30), st.integers(), st.none(), st.booleans(), st.floats()))
def test_anything_is_parsed_or_refused(value: object) -> None:
    for parse in (parse_address, parse_bind, parse_endpoint, parse_duration, parse_timeout, parse_size):
        with contextlib.suppress(ScalarError):
            parse(value)
