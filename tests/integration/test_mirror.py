"""Primary and mirror are equal: after a mixed load, and after everything that can happen to a mirror."""

from collections.abc import Callable

import pytest

from support import configs, wait
from support.client_load import PROXY_ERRORS, BackgroundLoad
from support.compare import assert_equal
from support.load import Mixed
from support.redis_server import RedisServer
from support.relay import Direction
from support.sidecar import Sidecar
from support.wire import Arg


@pytest.fixture
def primary(redis_server) -> RedisServer:
    """The Redis that clients are answered by."""
    return redis_server()


@pytest.fixture
def mirror(redis_server) -> RedisServer:
    """The Redis that must be its copy. What it acknowledged survives ``kill -9``."""
    return redis_server(appendonly="yes", appendfsync="no")


@pytest.fixture
def proxy(sidecar, primary: RedisServer, mirror: RedisServer) -> Sidecar:
    """The sidecar between them."""
    return sidecar(configs.mirrored(primary.address, mirror.address))


def in_sync(proxy: Sidecar) -> bool:
    """Whether every replica is in sync and has acknowledged all there is."""
    replicas = proxy.stats()["replicas"]
    return bool(replicas) and all(each["state"] in ("in_sync", "unproven") and each["lag"] == 0 for each in replicas)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_equal_after_a_mixed_load(proxy: Sidecar, primary: RedisServer, mirror: RedisServer, seed: int) -> None:
    """Thousands of random commands on several connections, in one order for both servers."""
    with BackgroundLoad(proxy.port, seed=seed, clients=4) as load:
        wait.until(lambda: load.sent > 8_000 or load.failures, "8,000 commands are answered", timeout=30)
    assert not load.failures
    assert assert_equal(primary, mirror) > 100
    wait.until(lambda: in_sync(proxy), "the replica is in sync")


def test_equal_in_all_databases(proxy: Sidecar, primary: RedisServer, mirror: RedisServer) -> None:
    """The same keys in four databases, from connections that change theirs all the time."""
    with proxy.conn() as first, proxy.conn() as second:
        for step in range(200):
            first.pipeline(("SELECT", step % 4), ("APPEND", "k", f"a{step} "), ("INCR", "n"))
            second.pipeline(("SELECT", (step * 3 + 1) % 4), ("APPEND", "k", f"b{step} "), ("INCR", "n"))
    assert assert_equal(primary, mirror) == 8


EXPIRIES: list[tuple[Arg, ...]] = [
    ("SET", "k", "v", "EX", 1000),
    ("SET", "k", "v", "PX", 1_000_000),
    ("SETEX", "k", 1000, "v"),
    ("PSETEX", "k", 1_000_000, "v"),
    ("GETEX", "k", "EX", 1000),
    ("EXPIRE", "k", 1000),
    ("PEXPIRE", "k", 1_000_000),
    ("EXPIRE", "k", 1000, "NX"),
    ("EVAL", "return redis.call('expire', KEYS[1], 1000)", 1, "k"),
]


@pytest.mark.parametrize("command", EXPIRIES, ids=lambda c: "-".join(map(str, c[:1] + c[2:])).replace(" ", "_")[:40])
def test_relative_time_is_the_same_moment(
    proxy: Sidecar, primary: RedisServer, mirror: RedisServer, command: tuple[Arg, ...]
) -> None:
    """What expires "in a while" expires at the same millisecond on both, also when the mirror gets it late."""
    with proxy.conn() as conn:
        conn.command("SET", "k", "v")
        mirror.pause()
        try:
            assert not conn.command(*command).startswith(b"-")
        finally:
            mirror.resume()
    assert_equal(primary, mirror)
    assert primary.cli("PEXPIRETIME", "k") > 0


def test_relative_time_in_a_transaction(proxy: Sidecar, primary: RedisServer, mirror: RedisServer) -> None:
    """The same inside MULTI."""
    with proxy.conn() as conn:
        conn.pipeline(("MULTI",), ("SET", "a", "v", "EX", 1000), ("SET", "b", "v"), ("EXPIRE", "b", 1000), ("EXEC",))
    assert_equal(primary, mirror)
    assert primary.cli("PEXPIRETIME", "b") > 0


def test_keys_that_expire_under_writes(proxy: Sidecar, primary: RedisServer, mirror: RedisServer) -> None:
    """A counter that expires while it is incremented has one life on both: no immortal key on the mirror."""
    with proxy.conn() as conn:
        for round_ in range(60):
            commands: list[tuple[Arg, ...]] = []
            for number in range(20):
                commands += [("SET", f"c{number}", 0, "PX", 1 + (round_ + number) % 7), ("INCR", f"c{number}")]
            commands += [("INCR", f"c{number}") for number in range(20)]
            conn.pipeline(*commands)
    assert_equal(primary, mirror)


LIBRARY = "#!lua name=lib\nredis.register_function('put', function(k, a) return redis.call('set', k[1], a[1]) end)"

# A key is given a longer life just before its end.
LATE: list[list[tuple[Arg, ...]]] = [
    [("PERSIST", "k")],
    [("EXPIRE", "k", 1000)],
    [("GETEX", "k", "PX", 1_000_000)],
    [("GETEX", "k", "PERSIST")],
    [("INCR", "k"), ("PERSIST", "k")],
    [("APPEND", "k", "1"), ("EXPIRE", "k", 1000)],
    [("SET", "k", 7, "KEEPTTL"), ("PERSIST", "k")],
    [("SET", "k", 7, "XX")],
    [("RENAME", "k", "other"), ("PERSIST", "other")],
    [("COPY", "k", "other"), ("PERSIST", "other")],
    [("MULTI",), ("INCR", "k"), ("PERSIST", "k"), ("EXEC",)],
    [("MULTI",), ("SETRANGE", "k", 3, "x"), ("EXPIRE", "k", 1000), ("EXEC",)],
    [("MULTI",), ("COPY", "k", "a"), ("COPY", "a", "b"), ("APPEND", "b", "x"), ("PERSIST", "b"), ("EXEC",)],
    [("EVAL", "return redis.call('persist', KEYS[1])", 1, "k")],
    [("BITOP", "OR", "other", "k")],
    [("ZADD", "z", 3, "a"), ("PEXPIRE", "z", 200), ("ZADD", "y", 1, "a"), ("ZUNIONSTORE", "other", 2, "y", "z")],
    [("RPUSH", "l", "a"), ("PEXPIRE", "l", 200), ("RPUSH", "j", "b"), ("RPOPLPUSH", "j", "l"), ("PERSIST", "l")],
]


# The same without a longer life: what was written on top of the first life ends with it.
MORTAL: list[list[tuple[Arg, ...]]] = [
    [("SET", "k", 7, "KEEPTTL")],
    [("SET", "k", 7, "XX", "KEEPTTL")],
    [("INCR", "k")],
    [("INCRBYFLOAT", "k", "0.5")],
    [("APPEND", "k", "1")],
    [("SETRANGE", "k", 3, "x")],
    [("SETBIT", "k", 9, 1)],
    [("SETBIT", "k", 1, 1), ("BITFIELD", "k", "SET", "u8", 0, 1), ("PFADD", "p", "a")],
    [("SADD", "s", "a"), ("PEXPIRE", "s", 200), ("SADD", "s", "b")],
    [("HSET", "h", "f", 1), ("PEXPIRE", "h", 200), ("HSET", "h", "g", 1), ("HINCRBYFLOAT", "h", "f", "0.5")],
    [("ZADD", "z", 1, "a"), ("PEXPIRE", "z", 200), ("ZINCRBY", "z", 1, "b")],
    [("XADD", "x", "*", "f", 1), ("PEXPIRE", "x", 200), ("XADD", "x", "*", "f", 2)],
    [("PFADD", "p", "a"), ("PEXPIRE", "p", 200), ("PFADD", "p", "b"), ("PFMERGE", "p", "q")],
    [("SADD", "s", "a"), ("PEXPIRE", "s", 200), ("SADD", "r", "b"), ("SMOVE", "r", "s", "b")],
    [("RENAME", "k", "other"), ("APPEND", "other", "x")],
    [("COPY", "k", "other"), ("SET", "k", 8, "KEEPTTL"), ("SETRANGE", "other", 3, "x")],
    [("MULTI",), ("INCR", "k"), ("SET", "k", 7, "KEEPTTL"), ("EXEC",)],
    [("MULTI",), ("SET", "m", 0, "NX", "PX", 200), ("INCR", "m"), ("EXEC",)],
    [("MULTI",), ("SELECT", 63), ("SET", "s", 0, "PX", 200), ("SETRANGE", "s", 1, 1), ("EXEC",)],
    [("EVAL", "return redis.call('incr', KEYS[1])", 1, "k")],
]


@pytest.mark.parametrize("cases", [pytest.param(LATE, id="longer-life"), pytest.param(MORTAL, id="mortal")])
@pytest.mark.parametrize("known", [pytest.param(False, id="fresh"), pytest.param(True, id="expiring-from-the-start")])
def test_expired_before_the_mirror_got_it(
    sidecar, redis_server, cases: list[list[tuple[Arg, ...]]], known: bool
) -> None:
    """Keys are written on top of a life that ends soon; the mirror hears of it all after that life has ended."""
    primary, mirror = redis_server(databases="64"), redis_server(databases="64")
    if known:
        primary.cli("SET", "mortal", 1, "EX", 1000)
        mirror.cli("SET", "mortal", 1, "PXAT", primary.cli("PEXPIRETIME", "mortal"))
    proxy = sidecar(configs.mirrored(primary.address, mirror.address))
    with proxy.conn() as conn:
        mirror.pause()
        try:
            for database, commands in enumerate(cases):  # a database for each case, so that a difference names it
                conn.pipeline(("SELECT", database), ("SET", "k", 1, "PX", 200), *commands)
            end = _milliseconds(primary) + 250
            wait.until(lambda: _milliseconds(primary) > end, "the first lives are over")
        finally:
            mirror.resume()
    assert_equal(primary, mirror)


@pytest.mark.parametrize("carry", [("COPY", "k", "other"), ("RENAME", "k", "other")], ids=["copy", "rename"])
def test_an_expiry_is_known_by_the_name_it_was_carried_to(
    proxy: Sidecar, primary: RedisServer, mirror: RedisServer, carry: tuple[Arg, ...]
) -> None:
    """The mirror gets the expiry in time, and under its new name what is written on top of it too late."""
    with proxy.conn() as conn:
        conn.pipeline(("SET", "k", 1, "PX", 400), carry)
        wait.until(lambda: in_sync(proxy), "the mirror has it")
        mirror.pause()
        try:
            conn.command("SETRANGE", "other", 1, "x")
            end = _milliseconds(primary) + 450
            wait.until(lambda: _milliseconds(primary) > end, "its life is over")
        finally:
            mirror.resume()
    assert_equal(primary, mirror)


def test_a_primary_that_does_not_tell_expiry_times(proxy: Sidecar, primary: RedisServer, mirror: RedisServer) -> None:
    """Its ACL forbids it: clients are answered as ever, and what the mirror's replies tell is still put right."""
    primary.cli("ACL", "SETUSER", "default", "-pexpiretime")
    try:
        with proxy.conn() as conn:
            replies = conn.pipeline(("SET", "n", 1, "EX", 1000), *[("INCR", "n")] * 100, ("GET", "n"))
            assert replies[-1] == b"$3\r\n101\r\n"
            transaction = conn.pipeline(("MULTI",), ("INCR", "n"), ("HSET", "h", "f", 1), ("EXEC",))
            assert transaction[-1] == b"*2\r\n:102\r\n:1\r\n"
        endpoints = proxy.stats()["endpoints"]
        assert any("PEXPIRETIME is refused" in each["reason"] for each in endpoints), endpoints
    finally:
        primary.cli("ACL", "SETUSER", "default", "+pexpiretime")
    assert_equal(primary, mirror)


def _milliseconds(server: RedisServer) -> int:
    seconds, microseconds = server.cli("TIME")
    return int(seconds) * 1000 + int(microseconds) // 1000


def test_scripts_that_are_not_repeatable_do_not_spread_old_values(
    proxy: Sidecar, primary: RedisServer, mirror: RedisServer
) -> None:
    """What is computed from a key right behind a random script that wrote it is computed from the new value."""
    script = "return redis.call('sadd', KEYS[1], math.random(1, 1000000))"
    with proxy.conn() as conn:
        for number in range(100):
            conn.pipeline(
                ("EVAL", script, 1, "a"),
                ("SUNIONSTORE", "b", "a"),
                ("SPOP", "a"),
                ("SDIFFSTORE", "c", "b", "a"),
                ("COPY", "a", f"copy{number}"),
                ("RENAME", "b", f"b{number}"),
            )
    assert assert_equal(primary, mirror) > 100


UNDECIDED: list[tuple[str, list[tuple[Arg, ...]]]] = [
    ("spop", [("SADD", "s", *range(50)), ("SPOP", "s"), ("SPOP", "s", 10), ("SPOP", "s")]),
    ("xadd", [("XADD", "x", "*", "f", 1), ("XADD", "x", "*", "f", 2), ("XADD", "x", "MAXLEN", "~", 1, "*", "f", 3)]),
    ("incrbyfloat", [("SET", "f", "0.1", "EX", 1000), *[("INCRBYFLOAT", "f", "0.1")] * 30]),
    ("hincrbyfloat", [("HINCRBYFLOAT", "h", "f", "0.1")] * 30),
    ("set-nx", [("SET", "k", 1, "NX"), ("SET", "k", 2, "NX"), ("DEL", "k"), ("SET", "k", 3, "NX", "EX", 1000)]),
    ("set-nx-get", [("SET", "k", 1, "NX", "GET"), ("SET", "k", 2, "NX", "GET"), ("SET", "k", 3, "XX", "GET")]),
    ("setnx-msetnx", [("SETNX", "a", 1), ("SETNX", "a", 2), ("MSETNX", "b", 1, "c", 2), ("MSETNX", "c", 9, "d", 9)]),
    ("script-random", [("EVAL", "return redis.call('set', KEYS[1], math.random())", 1, "r")] * 3),
    ("script-time", [("EVAL", "return redis.call('set', KEYS[1], redis.call('time')[2])", 1, "t")] * 3),
    ("script-spop", [("SADD", "s", *range(50)), *[("EVAL", "return redis.call('spop', KEYS[1])", 1, "s")] * 9]),
    (
        "script-that-fails-half-way",
        [("EVAL", "redis.call('set', KEYS[1], 'x'); return redis.call('lpush', KEYS[1], 'y')", 1, "k")],
    ),
    (
        "script-by-hash",
        [("SCRIPT", "LOAD", "return redis.call('incr',KEYS[1])")]
        + [("EVALSHA", "6f5ade10a69975e903c6d07b10ea44c6382381a5", 1, "n")] * 5,
    ),
    (
        "transaction",
        [
            ("SADD", "s", *range(50)),
            ("MULTI",),
            ("SPOP", "s", 5),
            ("XADD", "x", "*", "f", 1),
            ("INCRBYFLOAT", "f", "0.1"),
            ("SET", "k", 1, "NX"),
            ("LPUSH", "k", "wrong type"),
            ("EVAL", "return redis.call('set', KEYS[1], math.random())", 1, "r"),
            ("EXEC",),
        ],
    ),
    ("discard", [("SET", "k", "old"), ("MULTI",), ("SET", "k", "new"), ("DISCARD",)]),
    (
        "streams",
        [
            *[("XADD", "x", "*", "f", i) for i in range(9)],
            ("XGROUP", "CREATE", "x", "g", 0),
            ("XREADGROUP", "GROUP", "g", "c", "COUNT", 5, "STREAMS", "x", ">"),
            ("XAUTOCLAIM", "x", "g", "d", 0, 0, "COUNT", 2),
            ("XGROUP", "CREATECONSUMER", "x", "g", "e"),
        ],
    ),
    ("copy-rename", [("SET", "a", 1, "EX", 1000), ("COPY", "a", "b"), ("RENAMENX", "b", "c"), ("RENAME", "a", "b")]),
    ("flush", [("SET", "a", 1), ("FLUSHALL",), ("SET", "b", 1)]),
    ("swapdb", [("SET", "a", 0), ("SWAPDB", 0, 1), ("SET", "b", 0)]),
    ("getdel", [("SET", "a", 1), ("GETDEL", "a"), ("SET", "b", 1, "EX", 1000), ("GETEX", "b", "PERSIST")]),
    (
        "functions",
        [
            (
                "FUNCTION",
                "LOAD",
                LIBRARY,
            ),
            ("FCALL", "put", 1, "k", "v"),
        ],
    ),
]


@pytest.mark.parametrize(("name", "commands"), UNDECIDED, ids=[name for name, _ in UNDECIDED])
def test_decided_once(
    proxy: Sidecar, primary: RedisServer, mirror: RedisServer, name: str, commands: list[tuple[Arg, ...]]
) -> None:
    """What the primary decided (an element, an id, a time, a random number) is not decided again at the mirror."""
    with proxy.conn() as conn:
        conn.pipeline(*commands)
    assert assert_equal(primary, mirror) > 0
    if name == "functions":
        wait.until(lambda: mirror.cli("FUNCTION", "LIST"), "the mirror has the function")


def test_reads_do_not_reach_the_mirror(proxy: Sidecar, mirror: RedisServer) -> None:
    """Reads are not mirrored: the mirror's command counters have none."""
    with proxy.conn() as conn:
        conn.pipeline(*[("SET", "k", "v"), ("GET", "k"), ("MGET", "a", "b"), ("EXISTS", "k")] * 50)
    wait.until(lambda: in_sync(proxy), "the replica is in sync")
    counted = mirror.client().info("commandstats")
    assert "cmdstat_set" in counted
    assert not {"cmdstat_get", "cmdstat_mget", "cmdstat_exists"} & counted.keys()


def test_mirror_away_is_not_the_clients_business(proxy: Sidecar, primary: RedisServer, mirror: RedisServer) -> None:
    """No mirror: every write is answered as if nothing was. Back again: everything is there."""
    mirror.kill()
    with proxy.conn() as conn:
        for number in range(500):
            assert conn.command("SET", f"k{number}", number) == b"+OK\r\n"
    mirror.start()
    assert assert_equal(primary, mirror, within=15) == 500


def test_mirror_restarted(proxy: Sidecar, primary: RedisServer, mirror: RedisServer) -> None:
    """An orderly restart under load, within what the log holds."""
    _broken_under_load(proxy, primary, mirror, mirror.restart)


@pytest.mark.slow
def test_mirror_killed(proxy: Sidecar, primary: RedisServer, mirror: RedisServer) -> None:
    """``kill -9`` under load; its append-only file has what it acknowledged."""

    def kill_and_start() -> None:
        mirror.kill()
        mirror.start()

    _broken_under_load(proxy, primary, mirror, kill_and_start)


@pytest.mark.slow
def test_mirror_hangs(proxy: Sidecar, primary: RedisServer, mirror: RedisServer) -> None:
    """SIGSTOP under load: the log grows, and is worked off when the mirror goes on."""

    def hang() -> None:
        before = proxy.stats()["logs"][0]["committed_total"]
        mirror.pause()
        wait.until(
            lambda: proxy.stats()["logs"][0]["committed_total"] > before + 2_000, "2,000 effects without the mirror"
        )
        mirror.resume()

    _broken_under_load(proxy, primary, mirror, hang)


@pytest.mark.slow
def test_mirror_connection_cut(sidecar, relay, primary: RedisServer, mirror: RedisServer) -> None:
    """The connection to the mirror is cut in the middle of batches, and of replies, again and again."""
    between = relay(mirror.port)
    proxy = sidecar(configs.mirrored(primary.address, between.address))

    def cut() -> None:
        for size in (1, 10, 100, 1_000, 5_000):
            for direction in Direction:
                between.close_after(size, b"SET", direction)
                between.wait_closed()
        between.cut()

    _broken_under_load(proxy, primary, mirror, cut)


@pytest.mark.slow
def test_mirror_stalls_one_way(sidecar, relay, primary: RedisServer, mirror: RedisServer) -> None:
    """The mirror gets everything but its replies do not come back; then the connection is cut.

    What was applied and what was not cannot be told from outside: it must not be applied twice.
    """
    between = relay(mirror.port)
    proxy = sidecar(configs.mirrored(primary.address, between.address))
    with proxy.conn() as conn:
        conn.pipeline(*[("RPUSH", "l", number) for number in range(100)])
        wait.until(lambda: in_sync(proxy), "the replica is in sync")
        between.stall(Direction.DOWN)
        conn.pipeline(*[("RPUSH", "l", number) for number in range(100, 200)], ("INCR", "n"))
        wait.until(lambda: mirror.cli("LLEN", "l") == 200, "the mirror has applied them")
    between.cut()
    between.flow(Direction.DOWN)
    assert_equal(primary, mirror, within=15)
    assert primary.cli("LLEN", "l") == 200


def test_primary_connection_cut(sidecar, relay, primary: RedisServer, mirror: RedisServer) -> None:
    """The connection to the primary is cut in the middle of replies: what was in doubt is equal nevertheless."""
    between = relay(primary.port)
    proxy = sidecar(configs.mirrored(between.address, mirror.address))
    mixed = Mixed(7)
    answered = 0
    for size in (3, 30, 300, 3_000) * 3:
        between.close_after(size, b"SET")
        with proxy.conn() as conn:
            replies = conn.pipeline(*mixed.batch(200))
            answered += sum(not reply.startswith(PROXY_ERRORS) for reply in replies)
        wait.until(lambda: _answers(proxy), "the primary is reached again")
    assert answered > 0
    assert_equal(primary, mirror, within=15)


def _answers(proxy: Sidecar) -> bool:
    with proxy.conn() as conn:
        return conn.command("EXISTS", "nothing") == b":0\r\n"


def _broken_under_load(proxy: Sidecar, primary: RedisServer, mirror: RedisServer, breaks) -> None:
    """Run ``breaks`` under load: no client notices, and afterwards both are equal."""
    with BackgroundLoad(proxy.port, seed=11, clients=2) as load:
        wait.until(lambda: load.sent > 2_000 or load.failures, "2,000 commands are answered", timeout=30)
        breaks()
        seen = load.sent
        wait.until(lambda: load.sent > seen + 2_000 or load.failures, "2,000 more are answered", timeout=30)
    assert not load.failures
    assert assert_equal(primary, mirror, within=20) > 100
    wait.until(lambda: in_sync(proxy), "the replica is in sync")


@pytest.mark.parametrize("compressed", ["yes", "no"])
def test_what_functions_there_are_is_told_without_ours(
    redis_server: Callable[..., RedisServer], sidecar: Callable[..., Sidecar], compressed: str
) -> None:
    """A dump is that of a server which holds the application's libraries alone, byte for byte, and can be restored."""
    primary, bare = redis_server(rdbcompression=compressed), redis_server(rdbcompression=compressed)
    proxy = sidecar(configs.mirrored(primary.address, redis_server().address))
    code = "#!lua name={}\nredis.register_function('{}', function() return '" + "x" * 300 + "' end)"
    with proxy.conn() as conn, bare.conn() as direct:
        wait.until(lambda: len(primary.cli("FUNCTION", "LIST")) == 1, "the marker is there")
        for each in (conn, direct):
            assert each.command("FUNCTION", "LOAD", code.format("mine", "f")).startswith(b"$4")
        for command in (("FUNCTION", "DUMP"), ("FUNCTION", "STATS"), ("FUNCTION", "LIST", "WITHCODE")):
            assert conn.command(*command) == direct.command(*command), command
        dump = conn.command("FUNCTION", "DUMP").split(b"\r\n", 1)[1][:-2]
        assert conn.command("FUNCTION", "RESTORE", dump, "REPLACE") == b"+OK\r\n"
        replies = conn.pipeline(("MULTI",), ("FUNCTION", "STATS"), ("FUNCTION", "DUMP"), ("EXEC",))
        assert replies[3] == b"*2\r\n" + direct.command("FUNCTION", "STATS") + direct.command("FUNCTION", "DUMP")
