"""``compare`` with repair, and ``copy_all``: every type arrives, by RESTORE or without it; some targets are refused."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from redisha.verify import Counts, Limits, Options, Progress, Report, Server, ServerError, compare, copy_all
from support.compare import assert_equal
from support.every_type import COMMANDS, EXPIRY, KEYS, LIBRARY, OTHER_DATABASE, fill, run
from support.ports import free_port
from support.redis_server import RedisServer

QUICK = Options(passes=0, settle=0.01)
REPAIR = replace(QUICK, repair=True)


@pytest.fixture(scope="module")
def servers(module_redis_server) -> tuple[RedisServer, RedisServer]:
    """Two servers for all tests."""
    return module_redis_server(), module_redis_server()


@pytest.fixture
def pair(servers: tuple[RedisServer, RedisServer]) -> Iterator[tuple[RedisServer, RedisServer]]:
    """The two, empty."""
    for server in servers:
        server.wipe()
    yield servers
    for server in servers:
        server.cli("CONFIG", "SET", "maxmemory", 0)


def at(server: RedisServer, **options: Any) -> Server:
    return Server(server.address, **options)


def limited(server: RedisServer, *rights: str) -> Server:
    """A user with these rights and all others."""
    server.cli("ACL", "SETUSER", "limited", "reset", "on", ">secret", "~*", "&*", "+@all", *rights)
    return at(server, username="limited", password="secret")


def libraries(server: RedisServer) -> list[str]:
    return sorted(each[1].decode() for each in server.cli("FUNCTION", "LIST"))


async def verify(a: RedisServer, b: RedisServer) -> Report:
    return await compare(at(a), at(b), QUICK)


CHANGED: list[tuple[Any, ...]] = [
    ("SET", "string", "other"),
    ("DEL", "set", "hash", "stream"),
    ("SADD", "hash", "now a set"),
    ("XADD", "stream", "99-1", "f", "v"),
    ("PERSIST", "expiring"),
    ("PEXPIREAT", "list", EXPIRY),
    ("PFADD", "hyperloglog", "more"),
    ("ZADD", "zset", 7, "seven"),
    ("SET", "extra", "x"),
    ("SET", "another extra", "x"),
    ("FUNCTION", "LOAD", "REPLACE", LIBRARY.replace("return 1", "return 2")),
    ("FUNCTION", "LOAD", LIBRARY.replace("lib", "extra").replace("one", "two")),
    ("FUNCTION", "LOAD", LIBRARY.replace("lib", "redisha_1").replace("one", "marker")),
]


async def test_everything_is_repaired(pair) -> None:
    a, b = pair
    fill(a)
    fill(b)
    run(a, ("FUNCTION", "LOAD", LIBRARY.replace("lib", "added").replace("one", "three")))
    run(b, *CHANGED)
    run(b, ("DEL", "string"), db=OTHER_DATABASE)
    run(b, ("SET", "six", "x"), db=6)
    found: list[tuple[int, bytes]] = []
    report = await compare(at(a), at(b), REPAIR, None, lambda *key: found.append(key))
    assert report.equal
    assert report.repair
    assert report.total == Counts(same=KEYS - 9, different=7, only_a=2, only_b=3, repaired=12)
    assert report.functions == Counts(different=1, only_a=1, only_b=1, repaired=3)
    assert all(each.repaired and not each.error for each in report.differences)
    assert len(report.differences) == 15
    assert len(set(found)) == len(found) == 12
    details = {each.text: each.detail for each in report.differences}
    assert details["hash"] == "hash and set"
    assert details["expiring"] == f"string that expires at {EXPIRY} ms and never"
    assert_equal(a, b)
    assert (await verify(a, b)).equal
    assert libraries(b) == ["added", "lib", "redisha_1"]


async def test_an_empty_server_is_filled(pair) -> None:
    a, b = pair
    fill(a)
    a.cli("DEBUG", "POPULATE", 5_000, "key", 20)
    report = await compare(at(a), at(b), REPAIR)
    assert report.equal
    assert report.total == Counts(only_a=KEYS + 5_000, repaired=KEYS + 5_000)
    assert_equal(a, b)


@pytest.mark.parametrize("right", ["-restore", "-dump", "-pexpiretime", "-memory|usage"])
@pytest.mark.parametrize("side", ["a", "b"])
async def test_repair_without_a_command(pair, right: str, side: str) -> None:
    """Where DUMP or RESTORE is refused, values are made anew by ordinary commands."""
    a, b = pair
    fill(a)
    fill(b)
    run(b, *CHANGED)
    run(b, ("FLUSHALL",))
    urls = {"a": at(a), "b": at(b)} | {side: limited(a if side == "a" else b, right)}
    report = await compare(urls["a"], urls["b"], REPAIR)
    assert [each for each in report.differences if not each.repaired] == []
    assert report.equal
    assert_equal(a, b)
    assert (await verify(a, b)).equal
    assert not b.cli("KEYS", "redisha:verify*")


@pytest.mark.parametrize("commands", [["RESTORE"], ["DUMP", "RESTORE", "PEXPIRETIME", "MEMORY"]], ids=" ".join)
@pytest.mark.parametrize("side", ["a", "b"])
async def test_repair_with_renamed_commands(pair, redis_server, tmp_path: Path, commands: list[str], side: str) -> None:
    """As on an old server, or on a managed one."""
    (tmp_path / "renamed.conf").write_text("".join(f'rename-command {command} ""\n' for command in commands))
    other: RedisServer = redis_server(include=str(tmp_path / "renamed.conf"))
    source, target = (other, pair[1]) if side == "a" else (pair[0], other)
    fill(source)
    report = await compare(at(source), at(target), REPAIR)
    assert report.equal
    assert report.total == Counts(only_a=KEYS, repaired=KEYS)
    assert (await verify(source, target)).equal
    target.cli("FLUSHALL")
    copied = await copy_all(at(source), at(target), delete_extra=True)
    assert (copied.keys, copied.failed) == (KEYS, 0)
    assert (await verify(source, target)).equal


async def test_large_values_are_copied_in_pieces(pair) -> None:
    a, b = pair
    size = 5_000_000
    run(a, ("SET", "string", bytes(range(256)) * (size // 256), "PXAT", EXPIRY), ("SET", "middle", "x" * 2_000_000))
    for call in (
        "'SADD', 'set', 'member ' .. i",
        "'RPUSH', 'list', string.rep('item ' .. i, 20)",
        "'ZADD', 'zset', i, 'member ' .. i",
        "'HSET', 'hash', 'field ' .. i, i",
        "'XADD', 'stream', i + 1 .. '-1', 'f', string.rep('v', 200)",
    ):
        a.cli("EVAL", f"for i = 0, 69999 do redis.call({call}) end", 0)
    run(a, ("XGROUP", "CREATE", "stream", "group", "7-1", "ENTRIESREAD", 7), ("PEXPIREAT", "set", EXPIRY))
    claimed = range(1, 3_000)
    run(a, *(("XCLAIM", "stream", "group", f"c{at % 3}", 0, f"{at}-1", "FORCE", "JUSTID") for at in claimed))
    run(b, ("SET", "list", "of another type"), ("SET", "hash", "x", "PXAT", EXPIRY))
    report = await compare(at(a), at(b), replace(REPAIR, settle=0.1))
    assert report.total == Counts(different=2, only_a=5, repaired=7)
    assert_equal(a, b)
    assert b.cli("DBSIZE") == 7


async def test_a_refused_copy_is_told(pair) -> None:
    a, b = pair
    fill(a)
    b.cli("CONFIG", "SET", "maxmemory", 1)
    report = await compare(at(a), at(b), REPAIR)
    assert report.total == Counts(only_a=KEYS)
    assert not report.equal
    assert all(each.error.startswith("OOM command not allowed") and not each.repaired for each in report.differences)
    assert report.total.sync == 0.0


async def test_a_target_with_fewer_databases(pair, redis_server) -> None:
    a, _ = pair
    few: RedisServer = redis_server(databases="1")
    run(a, ("SET", "k", "v"))
    run(a, ("SET", "k", "v"), db=9)
    report = await compare(at(a), at(few), REPAIR)
    assert report.databases == {0: Counts(only_a=1, repaired=1), 9: Counts(only_a=1)}
    assert not report.equal
    with pytest.raises(ServerError, match=f"{few.address} has no database 9: raise 'databases'"):
        await copy_all(at(a), at(few), delete_extra=True)


async def test_what_may_not_be_written(pair, redis_server) -> None:
    a, b = pair
    replica: RedisServer = redis_server(replicaof=f"{b.host} {b.port}")
    node: RedisServer = redis_server(cluster_enabled="yes", cluster_port=str(free_port()))
    fill(a)
    for target, problem in (
        (replica, f"it is a replica of {b.address}; name that one, or end the replication with REPLICAOF NO ONE"),
        (node, "it is a node of a cluster, which keeps only its slots"),
    ):
        for attempt in (
            compare(at(a), at(target), REPAIR),
            copy_all(at(a), at(target), delete_extra=True),
        ):
            with pytest.raises(ServerError, match=f"{target.address} cannot be written: {problem}"):
                await attempt
        assert target.cli("DBSIZE") == 0
    with pytest.raises(ServerError, match="are the same server"):
        await copy_all(at(a), at(a), delete_extra=True)


# --- copy_all ---------------------------------------------------------------------------------------------------------


async def test_copy_all(pair) -> None:
    a, b = pair
    fill(a)
    a.cli("DEBUG", "POPULATE", 20_000, "key", 20)
    run(a, ("HSET", "redisha:markers", "a", "x"), db=15)
    fill(b)
    run(b, *CHANGED)
    run(b, ("SET", "six", "x"), db=6)
    run(b, ("HSET", "redisha:markers", "b", "y"), db=15)
    told: list[Progress] = []
    report = await copy_all(at(a), at(b), delete_extra=True, progress=told.append)
    assert (report.keys, report.deleted, report.functions) == (KEYS + 20_000, 4, 1)
    assert (report.failed, report.errors, report.complete) == (0, [], True)
    assert told[-1].total - told[-1].done == 2  # the markers
    assert told[-1].bytes > 20_000
    assert b.cli("HGETALL", "redisha:markers", db=15) == {b"b": b"y"}
    assert libraries(b) == ["lib", "redisha_1"]
    assert (await verify(a, b)).equal
    for server in pair:
        run(server, ("DEL", "redisha:markers"), db=15)
    assert_equal(a, b)


async def test_copy_all_that_deletes_nothing(pair) -> None:
    a, b = pair
    fill(a)
    run(b, *CHANGED[:1], ("SET", "extra", "x"))
    report = await copy_all(at(a), at(b), delete_extra=False)
    assert (report.keys, report.deleted) == (KEYS, 0)
    assert b.cli("GET", "extra") == b"x"
    assert (await verify(a, b)).total == Counts(same=KEYS, only_b=1)


async def test_copy_all_of_some_keys(pair) -> None:
    a, b = pair
    run(a, *(("SET", f"{kind}:{number}", "x") for kind in ("mine", "other") for number in range(10)))
    run(b, ("SET", "mine:extra", "x"), ("SET", "other:extra", "x"))
    run(a, ("FUNCTION", "LOAD", LIBRARY))
    report = await copy_all(at(a), at(b), delete_extra=True, only=lambda key: key.startswith(b"mine:"))
    assert (report.keys, report.deleted, report.functions) == (10, 1, 0)
    assert sorted(b.cli("KEYS", "*")) == sorted([*(b"mine:%d" % number for number in range(10)), b"other:extra"])


async def test_copy_all_within_limits(pair) -> None:
    a, b = pair
    a.cli("DEBUG", "POPULATE", 2_000, "key", 100)
    started = time.monotonic()
    report = await copy_all(at(a), at(b), delete_extra=True, limits=Limits(keys_per_second=4_000))
    assert time.monotonic() - started > 0.4
    assert report.keys == 2_000
    b.wipe()
    report = await copy_all(at(a), at(b), delete_extra=True, limits=Limits(bytes_per_second=report.bytes * 2))
    assert report.seconds > 0.3


async def test_copy_all_tells_what_failed(pair) -> None:
    a, b = pair
    fill(a)
    b.cli("CONFIG", "SET", "maxmemory", 1)
    report = await copy_all(at(a), at(b), delete_extra=True)
    assert not report.complete
    assert report.failed == KEYS + 1
    assert len(report.errors) == 10
    assert "OOM command not allowed" in report.errors[0]


async def test_copy_all_can_be_ended(pair) -> None:
    a, b = pair
    a.cli("DEBUG", "POPULATE", 5_000, "key", 10)

    class StopError(Exception):
        pass

    def stop(progress: Progress) -> None:
        raise StopError

    with pytest.raises(StopError):
        await copy_all(at(a), at(b), delete_extra=True, progress=stop)


def test_the_data_of_these_tests_has_every_type() -> None:
    assert {command[0] for command in COMMANDS} >= {"SET", "RPUSH", "SADD", "HSET", "ZADD", "XADD", "PFADD", "GEOADD"}
