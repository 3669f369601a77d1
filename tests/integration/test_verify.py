"""``redisha.verify.compare`` with real servers: what is equal, what differs, and what only seems to."""

import asyncio
import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import redis
from redisha.verify import Counts, Options, Progress, Report, Server, ServerError, compare
from redisha.verify.digest import FOOTER
from redisha.verify.dumped import same_elements
from support import configs
from support.client_load import BackgroundLoad
from support.every_type import EXPIRY, KEYS, LIBRARY, OTHER_DATABASE, fill, run
from support.redis_server import RedisServer

QUICK = Options(passes=1, settle=0.01)


@pytest.fixture(scope="module")
def servers(module_redis_server) -> tuple[RedisServer, RedisServer]:
    """Two servers that keep the same values in different ways."""
    compact = {"set-max-intset-entries": "0", "hash-max-listpack-entries": "0", "zset-max-listpack-entries": "0"}
    more = {"list-max-listpack-size": "3", "stream-node-max-entries": "1", "rdbcompression": "no"}
    return module_redis_server(), module_redis_server(**compact, **more)


@pytest.fixture
def pair(servers: tuple[RedisServer, RedisServer]) -> tuple[RedisServer, RedisServer]:
    """The two, empty."""
    for server in servers:
        server.wipe()
    return servers


def at(server: RedisServer, **options: Any) -> Server:
    return Server(server.address, **options)


def loop(server: RedisServer, count: int, call: str) -> None:
    """Run a command many times, with ``i`` from 0 on, in Lua."""
    server.cli("EVAL", f"for i = 0, {count - 1} do redis.call({call}) end", 0)


async def verify(a: RedisServer, b: RedisServer, options: Options = QUICK) -> Report:
    return await compare(at(a), at(b), options)


async def test_nothing_is_equal_to_nothing(pair) -> None:
    report = await verify(*pair)
    assert report.equal
    assert report.total == Counts()
    assert report.databases == {}


async def test_every_type_is_equal_however_it_is_kept(pair) -> None:
    for server in pair:
        fill(server)
    pair[0].cli("PFCOUNT", "hyperloglog")  # writes the count into the value
    pair[0].cli("XREADGROUP", "GROUP", "group", "idle", "STREAMS", "stream", "0")  # seen now: no data
    report = await verify(*pair)
    assert report.differences == []
    assert report.databases == {0: Counts(same=KEYS - 1), OTHER_DATABASE: Counts(same=1)}
    assert report.functions == Counts(same=1)
    assert report.equal
    assert (report.a.address, report.b.version) == (pair[0].address, pair[1].cli("INFO")["redis_version"])


DIFFERENCES: list[tuple[tuple[Any, ...], str]] = [
    (("SET", "string", "other"), "string with another value"),
    (("SET", "empty", "x"), "string with another value"),
    (("INCR", "integer"), "string with another value"),
    (("PEXPIREAT", "expiring", EXPIRY + 1), f"string that expires at {EXPIRY} ms and at {EXPIRY + 1} ms"),
    (("PERSIST", "expiring"), f"string that expires at {EXPIRY} ms and never"),
    (("PEXPIREAT", "string", EXPIRY), f"string that expires never and at {EXPIRY} ms"),
    (("SETRANGE", "binary", 300, "x"), "string with another value"),
    (("APPEND", "dash", "x"), "string with another value"),
    (("SETRANGE", "4 kB", 4095, "y"), "string with another value"),
    (("APPEND", "4 kB", "y"), "string with another value"),
    (("APPEND", "nearly 4 kB", "x"), "string with another value"),
    (("SETRANGE", "long", 9_999, "y"), "string with another value"),
    (("SETBIT", "bitmap", 0, 1), "string with another value"),
    (("LSET", "list", 7, "other"), "list with another value"),
    (("LMOVE", "list", "list", "LEFT", "RIGHT"), "list with another value"),
    (("LSET", "long list", 999, "other"), "list with another value"),
    (("SADD", "set", "d"), "set with another value"),
    (("SREM", "integers", 2), "set with another value"),
    (("SREM", "large set", "member 500"), "set with another value"),
    (("HSET", "hash", "f", "other"), "hash with another value"),
    (("HDEL", "large hash", "field 0"), "hash with another value"),
    (("ZINCRBY", "zset", 0.5, "one"), "zset with another value"),
    (("ZADD", "large zset", 0.0000001, "member 0"), "zset with another value"),
    (("GEOADD", "geo", 13.4, 38.2, "Palermo"), "zset with another value"),
    (("PFADD", "hyperloglog", "another"), "string with another value"),
    (("XADD", "stream", "4-1", "field", "value"), "stream with another value"),
    (("XDEL", "stream", "2-1"), "stream with another value"),
    (("XSETID", "stream", "9-1"), "stream with another value"),
    (("XGROUP", "SETID", "stream", "group", "2-1"), "stream with another value"),
    (("XGROUP", "CREATE", "stream", "another", 0), "stream with another value"),
    (("XGROUP", "CREATECONSUMER", "stream", "group", "new"), "stream with another value"),
    (("XACK", "stream", "group", "1-1"), "stream with another value"),
    (("XCLAIM", "stream", "group", "idle", 0, "1-1"), "stream with another value"),
    (("XGROUP", "DESTROY", "empty stream", "group"), "stream with another value"),
    (("XSETID", "empty stream", "1-1"), "stream with another value"),
]


@pytest.fixture(scope="module")
def filled(module_redis_server) -> tuple[RedisServer, RedisServer]:
    """Two servers with the same data, once for all differences."""
    made = module_redis_server(), module_redis_server()
    for server in made:
        fill(server)
    return made


def test_only_the_order_of_a_hash_table_differs_in_its_payload(filled) -> None:
    """What the fast comparison relies on."""
    for key in ("set", "large set", "large hash"):
        a, b = (server.cli("DUMP", key)[:-FOOTER] for server in filled)
        assert same_elements(a, b)
        assert a != b or key == "set"  # of three members the order may be the same


@pytest.mark.parametrize(("change", "detail"), DIFFERENCES, ids=lambda part: " ".join(map(str, part[:2]))[:30])
async def test_each_difference_is_found(filled, change: tuple[Any, ...], detail: str) -> None:
    a, b = filled
    key = change[2] if change[0] == "XGROUP" else change[1]
    with b.client() as client:
        before = client.dump(key)
        expiry = max(0, client.pexpiretime(key))
        client.execute_command(*change)
        report = await verify(a, b)
        assert client.restore(key, expiry, before, replace=True, absttl=True)
    (found,) = report.differences
    assert (found.database, found.text, found.what, found.detail) == (0, key, "different", detail)
    assert report.total == Counts(same=KEYS - 1, different=1)
    assert not report.equal
    assert (await verify(a, b)).equal


async def test_another_type_a_missing_and_an_extra_key(pair) -> None:
    a, b = pair
    for server in pair:
        fill(server)
    run(b, ("DEL", "string", "set"), ("SADD", "string", "now a set"), ("SET", "extra", "x"))
    run(b, ("SET", "nine", "x"), db=9)
    run(a, ("SET", "seven", "x"), db=7)
    report = await verify(a, b)
    assert sorted((each.database, each.text, each.what, each.detail) for each in report.differences) == [
        (0, "extra", "only_b", "string"),
        (0, "set", "only_a", "set"),
        (0, "string", "different", "string and set"),
        (7, "seven", "only_a", "string"),
        (9, "nine", "only_b", "string"),
    ]
    assert report.databases[0] == Counts(same=KEYS - 3, different=1, only_a=1, only_b=1)
    assert (report.total.keys_a, report.total.keys_b) == (KEYS + 1, KEYS + 1)


async def test_many_differences(pair) -> None:
    """More than wait at once, and the list is bounded."""
    a, b = pair
    a.cli("DEBUG", "POPULATE", 60_000, "a", 10)
    b.cli("DEBUG", "POPULATE", 5_000, "b", 10)
    found: list[tuple[int, bytes]] = []
    report = await compare(at(a), at(b), Options(passes=1, settle=0.01, limit=7), None, lambda *key: found.append(key))
    assert report.total == Counts(only_a=60_000, only_b=5_000)
    assert (len(report.differences), report.more) == (7, 64_993)
    assert len(set(found)) == 65_000
    assert report.total.sync == 0.0


def library(name: str, function: str) -> str:
    return LIBRARY.replace("lib", name).replace("one", function)


async def test_functions(pair) -> None:
    a, b = pair
    run(a, *(("FUNCTION", "LOAD", code) for code in (LIBRARY, library("a", "two"))))
    changed = LIBRARY.replace("return 1", "return 2")
    run(b, *(("FUNCTION", "LOAD", code) for code in (changed, library("b", "three"), library("redisha_12", "marker"))))
    report = await verify(a, b)
    assert [(each.text, each.what) for each in report.differences] == [
        ("a", "only_a"),
        ("b", "only_b"),
        ("lib", "different"),
    ]
    assert report.functions == Counts(different=1, only_a=1, only_b=1)
    assert report.total == Counts()
    assert not report.equal
    assert (await verify(a, b, Options(databases=frozenset({0})))).functions is None


async def test_redishas_own_marker_is_no_data(pair) -> None:
    a, b = pair
    with a.client(db=15) as highest, a.client(db=14) as another:
        highest.hset("redisha:markers", "x", "y")
        assert (await verify(a, b)).equal
        another.hset("redisha:markers", "x", "y")
    assert (await verify(a, b)).databases == {14: Counts(only_a=1), 15: Counts()}


async def test_chosen_databases_and_keys(pair) -> None:
    a, b = pair
    for server, value in ((a, "x"), (b, "y")):
        for database in (0, 1, 2):
            names = [f"{kind}:{number}" for kind in ("user", "job") for number in range(5)]
            run(server, *(("SET", name, value) for name in names), db=database)
    assert (await verify(a, b)).total.different == 30
    chosen = await verify(a, b, Options(databases=frozenset({0, 2}), passes=0))
    assert {number: counts.different for number, counts in chosen.databases.items()} == {0: 10, 2: 10}
    matching = await verify(a, b, Options(match=b"user:[0-2]", passes=0))
    assert matching.total == Counts(different=9)
    only = await verify(a, b, Options(only=lambda key: key.endswith(b"4"), passes=0))
    assert only.total == Counts(different=6)
    nothing = await verify(a, b, Options(databases=frozenset({8}), passes=0))
    assert nothing.databases == {8: Counts()}
    with pytest.raises(ServerError, match="has no database 99: raise 'databases'"):
        await verify(a, b, Options(databases=frozenset({99})))


async def test_a_sample(pair) -> None:
    a, b = pair
    for server in pair:
        server.cli("DEBUG", "POPULATE", 50_000, "key", 20)
        run(server, *(("SET", f"key:{number}", "x") for number in range(10)), db=5)
    report = await verify(a, b, Options(sample=1_000))
    assert report.equal
    assert report.sampled
    assert 900 <= report.total.keys <= 1_100
    assert 0 < report.databases[5].keys < 10
    loop(b, 25_000, "'SET', 'key:' .. 2 * i, 'other'")
    report = await verify(a, b, Options(sample=1_000, passes=1, settle=0.01))
    assert 300 < report.total.different < 700
    whole = await verify(a, b, Options(sample=1_000_000, passes=0))
    assert whole.total.keys == 50_010
    nothing = await verify(a, b, Options(sample=100, match=b"no such key"))
    assert nothing.total == Counts()


async def test_large_values(pair) -> None:
    """What does not fit into a page is read in pieces."""
    a, b = pair
    for server in pair:
        run(server, ("SET", "string", b"0123456789abcdef" * 200_000))
        run(server, *(("HSET", "fields", f"f{number}", bytes([number]) * 400_000) for number in range(10)))
        loop(server, 60_000, "'SADD', 'set', 'member ' .. i")
        loop(server, 60_000, "'RPUSH', 'list', 'item ' .. i")
        loop(server, 60_000, "'ZADD', 'zset', i, 'member ' .. i")
        loop(server, 60_000, "'HSET', 'hash', 'field ' .. i, i")
        loop(server, 30_000, "'XADD', 'stream', i + 1 .. '-1', 'f', string.rep('v', 50)")
    assert (await verify(a, b)).total == Counts(same=7)
    run(
        b,
        ("SETRANGE", "string", 3_000_000, "x"),
        ("HSET", "fields", "f9", "x"),
        ("SREM", "set", "member 59999"),
        ("LSET", "list", 59_999, "x"),
        ("ZADD", "zset", 0.5, "member 59999"),
        ("HDEL", "hash", "field 59999"),
        ("XDEL", "stream", "30000-1"),
    )
    assert (await verify(a, b)).total == Counts(different=7)


class Writers:
    """A thread that writes the same to both servers, as a mirror would: B a moment behind A."""

    def __init__(self, a: RedisServer, b: RedisServer) -> None:
        self._servers = a, b
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self.written = 0

    def __enter__(self) -> "Writers":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _write(self) -> None:
        with self._servers[0].conn() as a, self._servers[1].conn() as b:
            for number in itertools.count():
                if self._stop.is_set():
                    return
                slot = number % 2_000
                commands: list[tuple[Any, ...]] = [
                    ("INCR", "hot counter"),
                    ("SET", f"key:{slot}", number),
                    ("RPUSH", "hot list", number),
                    ("DEL", f"key:{(slot + 700) % 2_000}"),
                    ("SADD", f"set:{slot % 20}", number),
                    ("SET", f"short:{slot}", number, "PXAT", int(time.time() * 1_000) + 30),
                ]
                a.pipeline(*commands)
                time.sleep(0.002)
                b.pipeline(*commands)
                self.written += 1


async def test_keys_that_change_meanwhile_are_no_differences(pair) -> None:
    a, b = pair
    for server in pair:
        server.cli("DEBUG", "POPULATE", 20_000, "quiet", 20)
    with Writers(a, b) as writers:
        async with asyncio.timeout(40):
            for _ in range(3):
                before = writers.written
                report = await verify(a, b, Options(passes=5, settle=0.1))
                assert report.differences == []
                assert report.equal
                assert report.total.keys >= 20_000
                assert writers.written > before
        # One that does differ is found among them.
        b.cli("SET", "quiet:77", "other")
        report = await verify(a, b, Options(passes=5, settle=0.1))
    assert [each.text for each in report.differences] == ["quiet:77"]


async def test_a_mirror_under_load(pair, sidecar) -> None:
    """Random commands on many keys of all types, through a sidecar that mirrors them."""
    a, b = pair
    proxy = sidecar(configs.mirrored(a.address, b.address))
    with BackgroundLoad(proxy.port, seed=7, clients=2) as load:
        async with asyncio.timeout(40):
            for goal in (1_000, 2_000):
                while load.sent < goal and not load.failures:  # noqa: ASYNC110 - it has no event
                    await asyncio.sleep(0.01)
                report = await verify(a, b, Options(passes=8, settle=0.2))
                assert report.differences == []
                assert report.total.keys > 10
    assert not load.failures
    report = await verify(a, b, Options(passes=8, settle=0.2))
    assert report.differences == []
    assert report.total.in_flight == 0


async def test_a_key_that_expires_meanwhile_is_no_difference(pair) -> None:
    a, b = pair
    soon = int(time.time() * 1_000) + 300
    for server in pair:
        run(server, *(("SET", f"key:{number}", "x", "PXAT", soon + number // 10) for number in range(3_000)))
    run(a, ("SET", "late", "x", "PXAT", soon))
    report = await verify(a, b, Options(passes=3, settle=0.3))
    assert report.equal


async def test_progress_is_told_and_can_end_it(pair) -> None:
    for server in pair:
        server.cli("DEBUG", "POPULATE", 5_000, "key", 10)
    told: list[Progress] = []
    await compare(*map(at, pair), QUICK, told.append)
    assert [each.done for each in told] == sorted(each.done for each in told)
    assert {each.total for each in told} == {10_000}
    assert told[-1].done == 10_000

    class StopError(Exception):
        pass

    def stop(progress: Progress) -> None:
        raise StopError

    with pytest.raises(StopError):
        await compare(*map(at, pair), QUICK, stop)


@pytest.mark.parametrize("change", [lambda client: client.set("k", "x" * 50_000), lambda client: client.delete("k")])
async def test_a_key_that_is_written_again_and_again(pair, change: Callable[[redis.Redis], object]) -> None:
    """B loses what A gets: however often A changes, that is a difference."""
    a, b = pair
    with a.client() as client_a, b.client() as client_b:
        client_b.set("k", "old")
        stop = asyncio.Event()

        async def write() -> None:
            for number in itertools.count():
                if stop.is_set():
                    return
                await asyncio.to_thread(client_a.set, "k", number)
                await asyncio.sleep(0.005)

        writer = asyncio.create_task(write())
        report = await verify(a, b, Options(passes=2, settle=0.05))
        stop.set()
        await writer
    assert report.total == Counts(different=1)
