"""What refills and scrubs do with real servers: :mod:`redisha.tools`."""

import threading
import time
from typing import Any

import pytest

from redisha import tools
from redisha.background import Job, Stopped
from redisha.config.load import parse
from redisha.derive import Scope, Server
from redisha.refill import Rates
from redisha.scrub import Pair
from redisha.tools import IncompleteError
from redisha.verify import ServerError
from support.compare import assert_equal
from support.redis_server import RedisServer

WHOLE = "{cluster: a, mirrors: [{cluster: b}]}"
PART = "{prefix: 'x:', cluster: a, mirrors: [{cluster: b}]}"


def pair(primary: RedisServer, mirror: RedisServer, routes: str = WHOLE, **words: Any) -> Pair:
    clusters = "clusters: {a: {endpoints: h:1}, b: {endpoints: h:2}}"
    text = f"listeners: [{{bind: 0.0.0.0:1, routes: [{routes}]}}]\n{clusters}"
    scope = Scope(parse(text, "f.yaml", {}).config, "a", "b")
    return Pair(Server("a/h:1", "a", primary.address, **words), Server("b/h:2", "b", mirror.address, **words), scope)


@pytest.fixture
def servers(redis_server) -> tuple[RedisServer, RedisServer]:
    """The primary and the mirror."""
    return redis_server(), redis_server()


def test_the_primary_becomes_a_copy_of_the_mirror(servers: tuple[RedisServer, RedisServer]) -> None:
    primary, mirror = servers
    for number in range(300):
        mirror.cli("SET", f"k{number}", number)
    mirror.cli("HSET", "h", "f", "v", db=5)
    mirror.cli("SET", "expiring", 1, "EX", 1000)
    primary.cli("SET", "k1", "stale")
    primary.cli("SET", "gone", 1)
    job = Job()
    tools.copy_all(pair(primary, mirror), Rates(), job)
    assert assert_equal(primary, mirror) == 302
    assert job.done == job.total == 302
    assert job.bytes > 3000


def test_only_keys_that_both_have_in_common(servers: tuple[RedisServer, RedisServer]) -> None:
    primary, mirror = servers
    mirror.cli("MSET", "x:1", "new", "not:ours", 1)
    primary.cli("MSET", "x:1", "old", "x:2", 1, "alone", 1)
    both = pair(primary, mirror, PART)
    found = tools.compare(both, 1000, Job())
    assert sorted(found.differing) == [(0, b"x:1"), (0, b"x:2")]
    tools.copy_all(both, Rates(), Job())
    assert primary.cli("MGET", "x:1", "x:2", "alone", "not:ours") == [b"new", None, b"1", None]
    assert tools.compare(both, 1000, Job()).differing == ()


def test_a_sample_in_all_databases_and_of_both_sides(servers: tuple[RedisServer, RedisServer]) -> None:
    primary, mirror = servers
    for server in servers:
        for number in range(200):
            server.cli("SET", f"k{number}", number)
    mirror.cli("SET", "k7", "other")
    mirror.cli("DEL", "k8")
    mirror.cli("SET", "stranger", 1, db=3)
    library = "#!lua name=lib\nredis.register_function('f', function() return 1 end)"
    primary.cli("FUNCTION", "LOAD", library)
    found = tools.compare(pair(primary, mirror), 10_000, Job())
    assert sorted(found.differing) == [(0, b"k7"), (0, b"k8"), (3, b"stranger")]
    assert (found.compared, found.libraries) == (201, 1)
    assert 0 < tools.compare(pair(primary, mirror), 20, Job()).compared <= 40


def test_a_key_that_cannot_be_copied_is_an_error_that_does_not_name_it(
    servers: tuple[RedisServer, RedisServer],
) -> None:
    primary, mirror = servers
    mirror.cli("SET", "secret: 'key'", "x" * 10_000)
    primary.cli("CONFIG", "SET", "maxmemory", 1)
    with pytest.raises(IncompleteError, match=r"^1 could not be copied: OOM ") as caught:
        tools.copy_all(pair(primary, mirror), Rates(), Job())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ("key b'a': OOM x: y", "OOM x: y"),
        ("key b'a\\': b': OOM", "OOM"),
        ('key b"it\'s: a": OOM', "OOM"),
        ("library my lib: ERR x", "ERR x"),
        ("nothing of the kind", "nothing of the kind"),
    ],
)
def test_keys_are_taken_out_of_errors(error: str, text: str) -> None:
    assert tools._KEY.sub("", error) == text


def test_rates_and_the_word_to_stop(servers: tuple[RedisServer, RedisServer]) -> None:
    primary, mirror = servers
    for number in range(2000):
        mirror.cli("SET", f"k{number}", number)
    job, seen = Job(), []

    def stop() -> None:
        while job.done < 200:
            time.sleep(0.005)
        seen.extend((job.done, job.total))
        job.stop()

    thread = threading.Thread(target=stop)
    thread.start()
    started = time.monotonic()
    with pytest.raises(Stopped):
        tools.copy_all(pair(primary, mirror), Rates(keys=500), job)
    assert time.monotonic() - started < 3.5
    thread.join(5)
    assert seen[1] == 2000
    assert primary.cli("DBSIZE") < 2000


def test_a_server_that_hangs_does_not_hold_up_the_word_to_stop(servers: tuple[RedisServer, RedisServer]) -> None:
    primary, mirror = servers
    mirror.pause()
    job = Job()
    threading.Timer(0.3, job.stop).start()
    started = time.monotonic()
    with pytest.raises(Stopped):
        tools.compare(pair(primary, mirror), 10, job)
    assert time.monotonic() - started < 3
    mirror.resume()


def test_words_and_places(redis_server) -> None:
    servers = [redis_server(unixsocket=True) for _ in range(2)]
    for server in servers:
        server.cli("CONFIG", "SET", "requirepass", "s3cret")
    both = pair(*servers, password="s3cret")
    assert tools.compare(both, 10, Job()).compared == 0
    with pytest.raises(ServerError, match="password"):
        tools.compare(pair(*servers, password="wrong"), 10, Job())
    by_file = Pair(Server("a/h:1", "a", f"unix:{servers[0].unixsocket}", password="s3cret"), both.mirror, both.scope)
    assert tools.compare(by_file, 10, Job()).compared == 0
    with pytest.raises(ServerError, match="same server"):
        tools.compare(Pair(both.primary, by_file.primary, both.scope), 10, Job())


def test_markers_are_no_data(servers: tuple[RedisServer, RedisServer]) -> None:
    primary, mirror = servers
    marker = "#!lua name=redisha_{0}\n-- redisha:1\nredis.register_function('redisha_{0}', function() return 1 end)"
    primary.cli("FUNCTION", "LOAD", marker.format("a"))
    mirror.cli("FUNCTION", "LOAD", marker.format("b"))
    mirror.cli("HSET", "redisha:markers", "x", "y", db=15)
    assert tools.compare(pair(primary, mirror), 10, Job()) == tools.Sample(0)
    tools.copy_all(pair(primary, mirror), Rates(), Job())
    assert b"redisha_a" in repr(primary.cli("FUNCTION", "LIST")).encode()
    assert b"redisha_b" not in repr(primary.cli("FUNCTION", "LIST")).encode()
    assert primary.cli("EXISTS", "redisha:markers", db=15) == 0
