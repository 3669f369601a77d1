"""Commands that concern several Redis servers: sent in parts, and answered with one reply, as one server would.

What a reply must be is what one real Redis says that got the same commands.
"""

import random
from collections.abc import Iterator, Sequence

import pytest

from support import configs, wait
from support.compare import assert_equal
from support.redis_server import RedisServer
from support.sidecar import Sidecar
from support.wire import Conn, children, encode

KEYS = [b"a:1", b"b:1", b"x", b"", b"a:", b"b:", b"a:\x00\r\n\xff", b"b:\xfe", *(b"a:%d" % i for i in range(2, 40))]
"""Of both prefixes and of none; the empty key and binary ones among them."""


def by_prefix(a: str, b: str, rest: str, *, cut: bool = False, **settings: object) -> configs.Config:
    """Routes for ``a:``, ``b:`` and other keys; ``cut``: the prefixes are cut off."""
    config = configs.pass_through(rest, **settings)
    config["clusters"] |= {"a": configs.cluster(a, **settings), "b": configs.cluster(b, **settings)}
    config["listeners"][0]["routes"] += [
        {"prefix": "a:", "cluster": "a", "remove_prefix": cut},
        {"prefix": "b:", "cluster": "b", "remove_prefix": cut},
    ]
    return config


def spread(addresses: Sequence[str], **settings: object) -> configs.Config:
    """One cluster with several endpoints, chosen by a key's hash."""
    config = configs.pass_through(addresses[0], **settings)
    config["clusters"]["redis-001"]["endpoints"] = list(addresses)
    return config


def bulks(reply: bytes) -> list[bytes]:
    """The strings of an array."""
    head, elements = children(reply)
    assert head.startswith(b"*"), reply
    return [element.split(b"\r\n", 1)[1][:-2] for element in elements]


def scan(conn: Conn, *options: object) -> tuple[list[bytes], int]:
    """All keys of a SCAN to its end, and how many pages it had."""
    found: list[bytes] = []
    cursor, pages = b"0", 0
    while pages == 0 or cursor != b"0":
        _, (position, keys) = children(conn.command("SCAN", cursor, *options))  # type: ignore[arg-type]
        cursor = position.split(b"\r\n")[1]
        assert int(cursor) < 1 << 64
        found += bulks(keys)
        pages += 1
        assert pages < 100_000
    return found, pages


@pytest.fixture(scope="module")
def servers(module_redis_server) -> list[RedisServer]:
    """Three servers, and one more that shows what one server says."""
    return [module_redis_server() for _ in range(4)]


@pytest.fixture(scope="module", params=["prefixes", "cut prefixes", "maglev"])
def shared_proxy(request, servers, module_sidecar) -> Sidecar:
    """A sidecar in front of three servers."""
    addresses = [server.address for server in servers[:3]]
    if request.param == "maglev":
        return module_sidecar(spread(addresses))
    return module_sidecar(by_prefix(*addresses, cut=request.param == "cut prefixes"))


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def both(request, servers: list[RedisServer], shared_proxy: Sidecar) -> Iterator[tuple[Conn, Conn]]:
    """A connection to the sidecar and one to a single Redis, all of them empty."""
    for server in servers:
        server.cli("FLUSHALL")
    with shared_proxy.conn() as ours, Conn(servers[3].port) as theirs:
        for conn in (ours, theirs):
            conn.command("HELLO", request.param)
        yield ours, theirs


def test_keys_are_read_and_written_as_by_one(both: tuple[Conn, Conn]) -> None:
    """Random commands, pipelined: each reply is the one that a single Redis gives, byte for byte, in order."""
    ours, theirs = both
    rng = random.Random(7)
    for _ in range(60):
        batch: list[tuple[object, ...]] = []
        for _ in range(rng.randrange(1, 12)):
            keys = rng.choices(KEYS, k=rng.randrange(1, 9))
            pairs = [word for key in keys for word in (key, rng.choice([b"", b"\r\n", b"v%d" % rng.randrange(99)]))]
            batch.append(
                rng.choice(
                    [
                        ("MGET", *keys),
                        ("mget", *keys),
                        ("MSET", *pairs),
                        ("DEL", *keys),
                        ("UNLINK", *keys),
                        ("EXISTS", *keys),
                        ("TOUCH", *keys),
                        ("SET", keys[0], "single"),
                        ("GET", keys[0]),
                        ("LPUSH", keys[0], "wrong type"),
                        ("DBSIZE",),
                        ("SELECT", rng.randrange(3)),
                        ("MSET", *pairs[:-1]) if len(pairs) > 2 else ("MGET",),
                    ]
                )
            )
        mine, other = ours.pipeline(*batch), theirs.pipeline(*batch)  # type: ignore[arg-type]
        assert mine == other, batch
    # LPUSH is no string: nil, as from one Redis.
    assert sorted(bulks(ours.command("KEYS", "*"))) == sorted(bulks(theirs.command("KEYS", "*")))


def test_large_values_and_many_keys(both: tuple[Conn, Conn]) -> None:
    """Thousands of keys, and replies that come in many pieces."""
    ours, theirs = both
    names = [f"{'abx'[i % 3]}:{i}" for i in range(3_000)]
    values = [bytes([65 + i % 26]) * (1 + i * 7 % 900) for i in range(len(names))]
    values[1], values[2] = b"l" * 300_000, b"m" * 70_000
    pairs = [word for pair in zip(names, values, strict=True) for word in pair]
    for command in (("MSET", *pairs), ("MGET", *reversed(names)), ("EXISTS", *names), ("DBSIZE",), ("DEL", *names)):
        assert ours.command(*command) == theirs.command(*command)
    assert ours.command("DBSIZE") == b":0\r\n"


PATTERNS = ["*", "**", "*?", "a:*", "b:*", "?:*", "*[5-8]", "*:[^1]*", "a:1?", "none", "[ab]:2*", "\\a:1", "[a-]*"]
PATTERNS += ["[^a]:*", "a:[", "a:\\", "[b-a]:1?", "*[", "*[^", "a:*[]", ""]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_keys_by_pattern(both: tuple[Conn, Conn], pattern: str) -> None:
    """Patterns are about the names that clients know, in KEYS and in SCAN."""
    ours, theirs = both
    for conn in both:
        conn.command("MSET", *(word for i in range(40) for word in (f"{'abx'[i % 3]}:{i}", "1")))
    expected = sorted(bulks(theirs.command("KEYS", pattern)))
    assert sorted(bulks(ours.command("KEYS", pattern))) == expected
    assert sorted(scan(ours, "MATCH", pattern, "COUNT", 3)[0]) == expected


@pytest.mark.parametrize("count", [1, 7, 10, 100, 10_000])
def test_a_scan_finds_each_key_once(both: tuple[Conn, Conn], servers: list[RedisServer], count: int) -> None:
    """Of a set that nobody changes, and of one type of it."""
    ours, _ = both
    names = [b"%c:%d" % (b"abx"[i % 3], i) for i in range(900)] + [b"", b"a:\x00\xff"]
    ours.command("MSET", *(word for name in names for word in (name, "1")))
    ours.command("RPUSH", "b:list", "1")
    assert min(server.cli("DBSIZE") for server in servers[:3]) > 100
    found, pages = scan(ours, "COUNT", count)
    assert sorted(found) == sorted([*names, b"b:list"])
    assert pages >= max(3, 900 // (20 * count))
    assert scan(ours, "COUNT", count, "TYPE", "list")[0] == [b"b:list"]


def test_a_scan_finds_what_stays(both: tuple[Conn, Conn]) -> None:
    """Keys that are there all the time are found, whatever comes and goes and however the tables grow."""
    ours, _ = both
    stay = {b"%c:stays:%d" % (b"abx"[i % 3], i) for i in range(200)}
    ours.command("MSET", *(word for name in stay for word in (name, "1")))
    found: set[bytes] = set()
    cursor, pages = b"0", 0
    while pages == 0 or cursor != b"0":
        _, (position, keys) = children(ours.command("SCAN", cursor))
        cursor = position.split(b"\r\n")[1]
        found |= set(bulks(keys))
        pages += 1
        passing = [f"{'abx'[i % 3]}:passes:{pages}:{i}" for i in range(30)]
        if pages < 40:
            ours.command("MSET", *(word for name in passing for word in (name, "1")))
        elif pages == 40:
            ours.command("DEL", *(f"{'abx'[i % 3]}:passes:{p}:{i}" for i in range(30) for p in range(39)))
    assert stay <= found


def test_cursors_of_ones_own(both: tuple[Conn, Conn]) -> None:
    """A made-up cursor is an error as of Redis, or harmless."""
    ours, theirs = both
    ours.command("MSET", "a:1", "1", "b:1", "1", "x", "1")
    for wrong in ("x", " 1", "1 ", "18446744073709551616", "1.5"):
        assert ours.command("SCAN", wrong) == theirs.command("SCAN", wrong) == b"-ERR invalid cursor\r\n"
    for made_up in (1, 2, 3, 77, 123_456_789, (1 << 53) + 1, (1 << 64) - 1):
        assert children(ours.command("SCAN", made_up))[0] == b"*2\r\n"
    for wrong_options in (("COUNT",), ("COUNT", "x"), ("COUNT", 0), ("MATCH",), ("NO", "1")):
        assert ours.command("SCAN", 0, *wrong_options) == theirs.command("SCAN", 0, *wrong_options)
    assert ours.command("PING") == b"+PONG\r\n"


def test_all_keys(both: tuple[Conn, Conn], servers: list[RedisServer]) -> None:
    """DBSIZE, RANDOMKEY, FLUSHDB and FLUSHALL are about all servers, in the client's database."""
    ours, theirs = both
    assert ours.command("RANDOMKEY") == theirs.command("RANDOMKEY")
    for db in (0, 4):
        ours.command("SELECT", db)
        ours.command("MSET", "a:1", "1", "b:1", "1", "b:2", "1", "x", "1", "y", "1", "z", "1")
    assert ours.command("DBSIZE") == b":6\r\n"
    drawn = {ours.command("RANDOMKEY").split(b"\r\n")[1] for _ in range(300)}
    assert drawn == {b"a:1", b"b:1", b"b:2", b"x", b"y", b"z"}
    assert ours.command("FLUSHDB") == b"+OK\r\n"
    assert ours.pipeline(("DBSIZE",), ("SELECT", 0), ("DBSIZE",)) == [b":0\r\n", b"+OK\r\n", b":6\r\n"]
    assert ours.command("FLUSHALL", "SYNC") == b"+OK\r\n"
    assert [server.cli("DBSIZE") for server in servers[:3]] == [0, 0, 0]
    assert ours.command("FLUSHALL", "NOW") == theirs.command("FLUSHALL", "NOW")


def test_what_cannot_be_split(both: tuple[Conn, Conn], servers: list[RedisServer]) -> None:
    """An error that names both keys and where they are; a transaction is spoilt by it."""
    ours, _ = both
    for command in (("MSETNX", "a:1", "1", "b:2", "2", "x", "3", "y", "4"), ("SINTER", "a:1", "b:2", "x", "y", "a:3")):
        reply = ours.command(*command)
        assert reply.startswith(b"-CROSSROUTE key 'a:1' is on "), reply
        assert reply.count(b"127.0.0.1:") == 2, reply
    reply = ours.command("SWAPDB", 0, 1)
    assert reply.startswith(b"-CROSSROUTE 'swapdb' concerns every Redis")
    assert reply.count(b"127.0.0.1:") == 3
    queued = ours.pipeline(("MULTI",), ("MSET", "a:1", "1", "b:2", "2", "x", "3", "y", "4"), ("EXEC",))
    assert queued[1].startswith(b"-CROSSROUTE key 'a:1' is on ")
    assert queued[2].startswith(b"-EXECABORT ")
    assert [server.cli("DBSIZE") for server in servers[:3]] == [0, 0, 0]


def test_transactions_that_cannot_be(redis_server, sidecar) -> None:
    """One whose keys are on two servers, or have different mirrors: the error names both."""
    a, rest, mirror = redis_server(), redis_server(), redis_server()
    config = by_prefix(a.address, a.address, rest.address)
    config["clusters"]["mirror"] = configs.cluster(mirror.address)
    config["listeners"][0]["routes"] += [{"prefix": "m:", "cluster": "redis-001", "mirrors": [{"cluster": "mirror"}]}]
    proxy = sidecar(config)
    with proxy.conn() as conn:
        for commands, expected in (
            ((("SET", "a:1", 1), ("GET", "x\n")), b"key 'a:1' is on a/%s and key 'x\\n' on redis-001/%s: "),
            ((("SET", "x", 1), ("SET", "m:1", 1)), b"key 'x' goes to no mirror and key 'm:1' to mirror"),
            ((("MSET", "x", 1, "m:1", 1),), b"key 'x' goes to no mirror and key 'm:1' to mirror"),
        ):
            if b"%s" in expected:
                expected %= (a.address.encode(), rest.address.encode())
            replies = conn.pipeline(("MULTI",), *commands, ("EXEC",))
            assert replies[-2].startswith(b"-CROSSROUTE " + expected), replies
            assert replies[-1].startswith(b"-EXECABORT ")
    assert a.cli("DBSIZE") == rest.cli("DBSIZE") == 0


def test_a_muted_client(both: tuple[Conn, Conn]) -> None:
    """CLIENT REPLY OFF and SKIP are about the whole."""
    ours, _ = both
    ours.send(encode("CLIENT", "REPLY", "SKIP") + encode("MSET", "a:1", "1", "b:1", "2", "x", "3"))
    ours.send(encode("CLIENT", "REPLY", "OFF") + encode("MGET", "a:1", "b:1", "x") + encode("DBSIZE"))
    ours.send(encode("CLIENT", "REPLY", "ON") + encode("EXISTS", "a:1", "b:1", "x", "a:1"))
    assert ours.replies(2, timeout=5) == [b"+OK\r\n", b":4\r\n"]


def test_redis_py(shared_proxy: Sidecar, servers: list[RedisServer]) -> None:
    """The calls that applications use."""
    for server in servers:
        server.cli("FLUSHALL")
    with shared_proxy.client() as client:
        values = {f"{'abx'[i % 3]}:{i}".encode(): b"%d" % i for i in range(300)}
        client.mset(values)
        names = list(values)
        random.Random(3).shuffle(names)
        assert client.mget(names) == [values[name] for name in names]
        assert sorted(client.scan_iter()) == sorted(values)
        assert sorted(client.scan_iter(match="a:*", count=5)) == sorted(n for n in values if n.startswith(b"a:"))
        assert client.dbsize() == 300
        assert client.delete(*names[:100], "none") == 100
        assert client.unlink(*names) == 200
        with client.pipeline(transaction=False) as pipe:
            pipe.set("a:1", 1).mget("a:1", "b:1").exists("a:1", "b:1").dbsize()
            assert pipe.execute() == [True, [b"1", None], 1, 1]


def test_two_routes_to_one_server(redis_server, sidecar) -> None:
    """A server is counted once, and its keys have the names that it gives them."""
    one, two = redis_server(), redis_server()
    config = by_prefix(one.address, one.address, two.address)
    proxy = sidecar(config)
    with proxy.conn() as conn:
        conn.command("MSET", "a:1", "1", "b:1", "1", "x", "1")
        assert conn.command("DBSIZE") == b":3\r\n"
        config["listeners"][0]["routes"][1]["cluster"] = "b"
        proxy.reload(config)
        assert conn.command("DBSIZE") == b":3\r\n"
        assert sorted(scan(conn)[0]) == [b"a:1", b"b:1", b"x"]
        # Whether `1` is `a:1` cannot be told where `1` may be itself.
        config["listeners"][0]["routes"][1]["remove_prefix"] = True
        proxy.reload(config)
        for command in (("KEYS", "*"), ("SCAN", 0), ("RANDOMKEY",)):
            reply = conn.command(*command)
            assert reply.startswith(b"-CROSSROUTE '%s' cannot tell" % command[0].lower().encode()), reply
        assert conn.command("DBSIZE") == b":3\r\n"


def test_mirrors_get_their_parts(redis_server, sidecar) -> None:
    """Each part is mirrored like any command; routes of one server with different mirrors too."""
    primaries, mirrors = [redis_server() for _ in range(3)], [redis_server() for _ in range(3)]
    config = by_prefix(*(server.address for server in primaries))
    for number, server in enumerate(mirrors):
        config["clusters"][f"m{number}"] = configs.cluster(server.address)
    for route, number in zip(config["listeners"][0]["routes"], (2, 0, 1), strict=True):
        route["mirrors"] = [{"cluster": f"m{number}"}]
    proxy = sidecar(config)
    rng = random.Random(11)
    with proxy.conn() as conn:
        for _ in range(200):
            keys = rng.choices(KEYS, k=rng.randrange(1, 9))
            pairs = [word for key in keys for word in (key, rng.randrange(99))]
            batch = [
                ("MSET", *pairs),
                ("PEXPIRE", keys[0], rng.choice([1, 100_000])),
                ("DEL", *rng.choices(KEYS, k=3)),
                ("UNLINK", *rng.choices(KEYS, k=3)),
                ("MGET", *keys),
            ]
            if rng.random() < 0.02:
                batch.append((rng.choice(["FLUSHALL", "FLUSHDB"]),))
            assert not [reply for reply in conn.pipeline(*batch) if reply.startswith(b"-")]
        for primary, mirror in zip(primaries, mirrors, strict=True):
            assert_equal(primary, mirror)
        conn.command("FLUSHALL")
        wait.until(lambda: not any(mirror.cli("DBSIZE") for mirror in mirrors), "the mirrors are empty, too")


def test_one_server_is_down(redis_server, sidecar) -> None:
    """Nothing is sent unless all can be reached; nothing hangs, and what needs the others only goes on."""
    a, b, rest = redis_server(), redis_server(), redis_server()
    proxy = sidecar(by_prefix(a.address, b.address, rest.address, op_timeout="1s"))
    with proxy.conn() as conn:
        assert conn.command("MSET", "a:1", "1", "b:1", "1", "x", "1") == b"+OK\r\n"
        b.kill()
        wait.until(lambda: conn.command("GET", "b:1").startswith(b"-UNAVAILABLE"), "the loss is noticed")
        for command in (("MSET", "a:1", "2", "b:1", "2"), ("DEL", "x", "b:1"), ("FLUSHALL",), ("MGET", "a:1", "b:1")):
            reply = conn.command(*command)
            assert reply.startswith(b"-UNAVAILABLE cluster b: "), reply
            assert b"nothing was sent" in reply, reply
        assert conn.pipeline(("MGET", "a:1", "x"), ("DBSIZE",))[0] == b"*2\r\n$1\r\n1\r\n$1\r\n1\r\n"
        b.start()
        wait.until(lambda: conn.command("EXISTS", "a:1", "b:1") == b":1\r\n", "it is back")


def test_one_server_breaks_midway(redis_server, sidecar) -> None:
    """A part that was sent and not answered leaves the whole in doubt; a read says which server it was."""
    a, b = redis_server(), redis_server()
    proxy = sidecar(by_prefix(a.address, b.address, a.address, op_timeout="500ms"))
    with proxy.conn() as conn:
        conn.command("MSET", "a:1", "1", "b:1", "1")
        b.pause()
        try:
            conn.send(encode("MSET", "a:1", "2", "b:1", "2") + encode("GET", "a:1"))
            write, read = conn.replies(2, timeout=5)
            assert write.startswith(b"-INDOUBT 'mset' went to 2 Redis servers"), write
            assert b" b/127.0.0.1:" in write
            assert b"op_timeout" in write
            assert read == b"$1\r\n2\r\n"
            assert conn.command("MGET", "a:1", "b:1").startswith(b"-INDOUBT cluster b: ")
        finally:
            b.resume()
        # The late replies were swallowed.
        wait.until(lambda: conn.command("MGET", "b:1", "a:1") == b"*2\r\n$1\r\n2\r\n$1\r\n2\r\n", "it is back")
        b.pause()
        conn.send(encode("DEL", "a:1", "b:1"))
        wait.until(lambda: a.cli("EXISTS", "a:1") == 0, "the other has its part")
        b.kill()
        assert conn.reply().startswith(b"-INDOUBT 'del' went to 2 Redis servers")
        assert conn.command("GET", "a:1") == b"$-1\r\n"
    proxy.stop()


def test_a_part_is_refused(redis_server, sidecar) -> None:
    """What one server refuses is told with its name; what the others did is not hidden."""
    a, b = redis_server(), redis_server(maxmemory_policy="noeviction")
    proxy = sidecar(by_prefix(a.address, b.address, a.address))
    b.cli("CONFIG", "SET", "maxmemory", "1")
    with proxy.conn() as conn:
        reply = conn.command("MSET", "a:1", "1", "b:1", "1")
        assert reply.startswith(b"-INDOUBT 'mset' went to 2 Redis servers"), reply
        assert b"answered: OOM " in reply, reply
        assert conn.command("MGET", "a:1", "b:1") == b"*2\r\n$1\r\n1\r\n$-1\r\n"


def test_more_than_may_be_held(redis_server, sidecar) -> None:
    """Parts are held until they can be merged: past ``max_output`` an error, and the memory is free again."""
    a, b = redis_server(), redis_server()
    config = by_prefix(a.address, b.address, a.address)
    config["limits"] = {"max_output": "1MiB"}
    proxy = sidecar(config)
    with proxy.conn() as conn:
        conn.command("MSET", "a:1", b"1" * 700_000, "b:1", b"2" * 700_000, "b:2", b"3" * 200_000)
        for command in (("MGET", "a:1", "b:1"), ("MGET", "b:2", "a:1", "a:1", "a:1", "a:1")):
            reply = conn.command(*command)
            assert reply.startswith(b"-ERR the replies of 2 Redis servers to 'mget' are larger than max_output"), reply
            assert conn.command("EXISTS", "a:1", "b:1") == b":2\r\n"
        conn.command("DEL", "a:1")
        wait.until(lambda: proxy.stats()["worker"]["memory_bytes"] < 300_000, "nothing of it is held")
        conn.command("SET", "a:1", b"1" * 700_000)
        assert conn.command("MGET", "b:2", "a:1") == b"".join(
            [b"*2\r\n$200000\r\n", b"3" * 200_000, b"\r\n$700000\r\n", b"1" * 700_000, b"\r\n"]
        )


def test_a_client_that_leaves(redis_server, sidecar) -> None:
    """What it asked for is done all the same, and nobody else gets the replies."""
    a, b = redis_server(), redis_server()
    proxy = sidecar(by_prefix(a.address, b.address, a.address))
    with proxy.conn() as other:
        for number in range(50):
            with proxy.conn() as conn:
                conn.send(encode("MSET", f"a:{number}", "1", f"b:{number}", "1") + encode("KEYS", "*"))
                assert other.command("MGET", "a:none", "b:none") == b"*2\r\n$-1\r\n$-1\r\n"
        wait.until(lambda: (a.cli("DBSIZE"), b.cli("DBSIZE")) == (50, 50), "all was done")
        assert sum(each["downstream_rq_active"] for each in proxy.stats()["listeners"]) == 0
    proxy.stop()


def test_connections_that_break_again_and_again(redis_server, sidecar, relay) -> None:
    """Each command gets one answer, in order, which is right or says what may have happened; the mirrors are equal."""
    servers, mirrors = [redis_server() for _ in range(3)], [redis_server() for _ in range(3)]
    relays = [relay(server.port) for server in servers]
    config = by_prefix(*(each.address for each in relays))
    for number, server in enumerate(mirrors):
        config["clusters"][f"m{number}"] = configs.cluster(server.address)
    for route, number in zip(config["listeners"][0]["routes"], (2, 0, 1), strict=True):
        route["mirrors"] = [{"cluster": f"m{number}"}]
    proxy = sidecar(config)
    rng = random.Random(5)
    seen = {b"INDOUBT": 0, b"UNAVAILABLE": 0, b"right": 0}
    with proxy.conn(timeout=20) as conn:
        for turn in range(150):
            keys = [f"{prefix}{rng.randrange(20)}" for prefix in ("a:", "b:", "x", "a:", "b:")]
            pairs = [word for key in keys for word in (key, turn)]
            batch = [("MSET", *pairs), ("MGET", *keys), ("ECHO", turn), ("DEL", *keys[2:]), ("DBSIZE",), ("SCAN", 0)]
            for command in batch:
                conn.send_command(*command)
            if turn % 3 == 0:
                rng.choice(relays).cut()
            replies = conn.replies(len(batch), timeout=20)
            assert replies[2] == b"$%d\r\n%d\r\n" % (len(str(turn)), turn)
            for command, reply, right in zip(
                batch, replies, (b"+OK", b"*5\r\n", b"$", b":", b":", b"*2\r\n"), strict=True
            ):
                code = reply[1:].split(b" ")[0] if reply.startswith(b"-") else b"right"
                assert code in seen, (command, reply)
                assert code != b"right" or reply.startswith(right), (command, reply)
                seen[code] += 1
            if all(reply[:1] != b"-" for reply in replies[:2]):
                assert replies[1] == b"*5\r\n" + b"$%d\r\n%d\r\n" % (len(str(turn)), turn) * 5
        # (Which of the two errors it is depends on what has been sent when a connection breaks.)
        assert min(seen[b"INDOUBT"] + seen[b"UNAVAILABLE"], seen[b"right"]) > 0, seen
        wait.until(lambda: conn.command("MGET", "a:", "b:", "x").startswith(b"*"), "all is well")
    for server, mirror in zip(servers, mirrors, strict=True):
        assert_equal(server, mirror)
    proxy.stop()
