"""Where a server is, as a URL."""

import pytest

from redisha.verify import Server, parse_url


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("redis://redis-001:6380", Server("redis-001:6380")),
        ("redis://redis-001", Server("redis-001:6379")),
        ("redis://redis-001/", Server("redis-001:6379")),
        ("redis://[::1]:7000", Server("[::1]:7000")),
        ("redis://user:p%40ss@h:1", Server("h:1", "user", "p@ss")),
        ("redis://:p%3Aa%2Fb@h:1", Server("h:1", None, "p:a/b")),
        ("unix:///run/redis.sock", Server("unix:/run/redis.sock")),
        ("unix:///run/my%20redis.sock", Server("unix:/run/my redis.sock")),
        ("unix://me:secret@/run/redis.sock", Server("unix:/run/redis.sock", "me", "secret")),
    ],
)
def test_urls(url: str, server: Server) -> None:
    assert parse_url(url) == server


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis-001:6379", "expected redis://"),
        ("http://redis-001:6379", "expected redis://"),
        ("", "expected redis://"),
        ("rediss://h:1", r"TLS \(rediss://\) is not supported"),
        ("redis://", "the host is missing"),
        ("redis://:pw@", "the host is missing"),
        ("redis://h:1/3", "choose a database with --db"),
        ("redis://h:1?db=3", "nothing may follow"),
        ("redis://h:99999", "the port is no number"),
        ("redis://h:x", "the port is no number"),
        ("redis://[::1:7", "the port is no number"),
        ("redis://user@h:1", "a user without a password"),
        ("unix://run/redis.sock", "begins with a slash"),
        ("unix://", "the socket's path is missing"),
    ],
)
def test_what_is_wrong_with_a_url(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_url(url)


def test_a_password_is_not_shown() -> None:
    assert "hunter2" not in repr(parse_url("redis://me:hunter2@h:1"))
    with pytest.raises(ValueError, match="choose a database") as error:
        parse_url("redis://me:hunter2@h:1/2")
    assert "hunter2" not in str(error.value)
