"""Another configuration under traffic: nothing is lost, nothing lands elsewhere, and nobody else notices."""

import copy
import threading

import pytest

from support import configs, wait
from support.compare import assert_equal
from support.redis_server import RedisServer
from support.sidecar import Sidecar
from support.wire import Arg, encode

Config = configs.Config


@pytest.fixture
def primary(redis_server) -> RedisServer:
    """The Redis that clients are answered by."""
    return redis_server()


@pytest.fixture
def second(redis_server) -> RedisServer:
    """Its mirror, or the one that takes its place."""
    return redis_server()


def in_flight(proxy: Sidecar) -> int:
    """Commands at the first listener that have no reply yet."""
    return proxy.stats()["listeners"][0]["downstream_rq_active"]


def sent(proxy: Sidecar) -> int:
    """Bytes written to the only primary."""
    return next(e["upstream_cx_tx_bytes_total"] for e in proxy.stats()["endpoints"] if e["cluster"] == "redis-001")


def lives(proxy: Sidecar) -> None:
    """It runs, and has no panic to tell."""
    assert proxy.exit_code() is None
    assert "panic" not in proxy.log()


TRANSACTION: list[tuple[Arg, ...]] = [("MULTI",), ("SET", "{t}k", 1), ("INCR", "{t}n")]


@pytest.mark.parametrize("change", ["other-endpoint", "other-cluster", "mirror-added", "mirror-removed"])
def test_transaction_across_a_reload(sidecar, primary: RedisServer, second: RedisServer, change: str) -> None:
    """Once EXEC found its endpoint gone (a panic), or its writes went past the mirror that the reload had added."""
    mirrored = configs.mirrored(primary.address, second.address)
    single = configs.pass_through(primary.address)
    other = configs.pass_through(second.address)
    renamed = copy.deepcopy(other)
    renamed["clusters"] = {"another": renamed["clusters"]["redis-001"]}
    renamed["listeners"][0]["routes"][0]["cluster"] = "another"
    before, after = {
        "other-endpoint": (single, other),
        "other-cluster": (single, renamed),
        "mirror-added": (single, mirrored),
        "mirror-removed": (mirrored, single),
    }[change]
    proxy = sidecar(before)
    with proxy.conn() as conn, proxy.conn() as empty:
        assert conn.pipeline(*TRANSACTION) == [b"+OK\r\n", b"+QUEUED\r\n", b"+QUEUED\r\n"]
        assert empty.command("MULTI") == b"+OK\r\n"
        proxy.reload(after)
        assert conn.command("EXEC").startswith(b"-EXECABORT ")
        assert empty.command("EXEC") == b"*0\r\n"
        assert [server.cli("DBSIZE") for server in (primary, second)] == [0, 0]
        wait.until(lambda: conn.command("PING") == b"+PONG\r\n" and conn.command("DEL", "k") == b":0\r\n", "it works")
        assert conn.pipeline(*TRANSACTION, ("EXEC",))[-1] == b"*2\r\n+OK\r\n:1\r\n"
    lives(proxy)
    if change == "mirror-added":
        assert assert_equal(primary, second) == 2


def test_mirror_removed_while_the_primary_has_a_backlog(sidecar, primary: RedisServer, second: RedisServer) -> None:
    """Once what waited to be sent was in the log that went away with the mirror: a panic, or replies without end."""
    proxy = sidecar(configs.mirrored(primary.address, second.address, op_timeout="30s"))
    clients, commands, size = 24, 60, 12_000
    conns = [proxy.conn(timeout=20) for _ in range(clients)]
    data = [b"".join(encode("APPEND", f"c{n}", b"v" * size) for _ in range(commands)) for n in range(clients)]
    try:
        assert conns[0].command("SET", "k", "v") == b"+OK\r\n"
        primary.pause()
        threads = [threading.Thread(target=conn.send, args=(each,)) for conn, each in zip(conns, data, strict=True)]
        for thread in threads:
            thread.start()
        wait.until(lambda: in_flight(proxy) * size > sent(proxy) + 500_000, "the primary has a backlog")
        proxy.reload(configs.pass_through(primary.address, op_timeout="30s"))
        primary.resume()
        for conn in conns:
            assert conn.replies(commands) == [b":%d\r\n" % (size * n) for n in range(1, commands + 1)]
        for thread in threads:
            thread.join(5)
        assert conns[-1].command("GET", "k") == b"$1\r\nv\r\n"
    finally:
        primary.resume()
        for conn in conns:
            conn.close()
    lives(proxy)
    wait.until(lambda: not proxy.stats()["logs"], "the log is given back")
    assert [each["cluster"] for each in proxy.stats()["endpoints"]] == ["redis-001"]


def test_mirror_added_under_traffic(sidecar, primary: RedisServer, second: RedisServer) -> None:
    """What is written from the reload on is at the mirror, also by connections that have commands in flight."""
    proxy = sidecar(configs.pass_through(primary.address, op_timeout="30s"))
    with proxy.conn() as old, proxy.conn() as other:
        assert [conn.command("DEL", "k") for conn in (old, other)] == [b":0\r\n"] * 2
        primary.pause()
        try:
            old.send(b"".join(encode("SET", f"before{n}", n) for n in range(50)))
            wait.until(lambda: in_flight(proxy) == 50, "they are in flight")
            proxy.reload(configs.mirrored(primary.address, second.address, op_timeout="30s"))
            for conn in (old, other):
                conn.send(b"".join(encode("INCR", f"after{n}") for n in range(50)))
        finally:
            primary.resume()
        assert old.replies(50) == [b"+OK\r\n"] * 50
        counted = zip(old.replies(50), other.replies(50), strict=True)
        assert all(sorted(pair) == [b":1\r\n", b":2\r\n"] for pair in counted)
    wait.until(lambda: second.cli("DBSIZE") >= 50, "the mirror gets them")
    with second.client() as client:
        wait.until(lambda: client.mget([f"after{n}" for n in range(50)]) == [b"2"] * 50, "and all of them")
    lives(proxy)


def test_mirror_removed_and_back_while_writes_are_in_flight(sidecar, primary: RedisServer, second: RedisServer) -> None:
    """Once the log that came back began at another position: writes that followed never reached the mirror."""
    both = configs.mirrored(primary.address, second.address, op_timeout="30s")
    proxy = sidecar(both)
    with proxy.conn() as old, proxy.conn() as new:
        assert old.pipeline(*[("SET", f"a{n}", 1) for n in range(6)]) == [b"+OK\r\n"] * 6
        wait.until(lambda: second.cli("DBSIZE") == 6, "the mirror has them")
        primary.pause()
        try:
            old.send_command("SET", "pending", 1)
            wait.until(lambda: in_flight(proxy) == 1, "one is in flight")
            proxy.reload(configs.pass_through(primary.address, op_timeout="30s"))
            proxy.reload(both)
            new.send(b"".join(encode("SET", f"b{n}", 1) for n in range(10)))
            wait.until(lambda: in_flight(proxy) == 11, "the others are in flight")
        finally:
            primary.resume()
        assert old.reply() == b"+OK\r\n"
        assert new.replies(10) == [b"+OK\r\n"] * 10
    wait.until(lambda: second.cli("EXISTS", *[f"b{n}" for n in range(10)]) == 10, "the mirror has what followed")
    wait.until(lambda: [each["state"] for each in proxy.stats()["replicas"]] == ["in_sync"], "it says so")
    lives(proxy)


def two_routes(primary: RedisServer, mirror: RedisServer) -> Config:
    """A mirror that is the primary of other keys."""
    config = configs.mirrored(primary.address, mirror.address)
    config["listeners"][0]["routes"].append({"prefix": "b:", "cluster": "redis-002"})
    return config


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_endpoint_retired_and_back(
    sidecar, redis_server, primary: RedisServer, second: RedisServer, busy: bool
) -> None:
    """Once what a retired endpoint left behind referred to another one: a panic, or replies that never came."""
    other = redis_server()
    config = two_routes(primary, second)
    third = configs.pass_through(other.address)
    third["clusters"] = {"redis-003": third["clusters"]["redis-001"]}
    third["listeners"][0]["routes"][0]["cluster"] = "redis-003"
    proxy = sidecar(config)
    with proxy.conn() as conn, proxy.conn() as slow:
        assert conn.pipeline(("SET", "k", 1), ("SET", "b:k", 1)) == [b"+OK\r\n"] * 2
        wait.until(lambda: second.cli("DBSIZE") == 2, "the mirror has both")
        second.pause()
        try:
            assert conn.command("SET", "k", 2) == b"+OK\r\n"
            if busy:
                slow.send_command("INCR", "b:n")
                wait.until(lambda: in_flight(proxy) == 1, "one is in flight")
            for _ in range(3):
                proxy.reload(third)
                assert conn.command("EXISTS", "k") == b":0\r\n"
                proxy.reload(config)
                assert conn.command("GET", "k") == b"$1\r\n2\r\n"
        finally:
            second.resume()
        if not busy:
            slow.send_command("INCR", "b:n")
        assert slow.reply() == b":1\r\n"
        assert conn.pipeline(("SET", "k", 3), ("GET", "b:k")) == [b"+OK\r\n", b"$1\r\n1\r\n"]
    wait.until(lambda: second.cli("GET", "k") == b"3", "the mirror gets writes")
    proxy.reload(third)
    wait.until(lambda: [each["cluster"] for each in proxy.stats()["endpoints"]] == ["redis-003"], "the others are gone")
    lives(proxy)


def test_listener_renamed_on_the_same_port(sidecar, primary: RedisServer) -> None:
    """Once a name is all that changed: its clients are answered and closed, and new ones come in, all the time."""
    config = configs.pass_through(primary.address, op_timeout="30s")
    proxy = sidecar(config)
    renamed = copy.deepcopy(config)
    renamed["listeners"][0]["name"] = "renamed"
    with proxy.conn() as idle, proxy.conn() as busy:
        assert [conn.command("SET", "k", "v") for conn in (idle, busy)] == [b"+OK\r\n"] * 2
        primary.pause()
        try:
            busy.send(b"".join(encode("INCR", "n") for _ in range(20)))
            wait.until(lambda: in_flight(proxy) == 20, "20 are in flight")
            proxy.reload(renamed)
            assert idle.until_closed() == b""
            with proxy.conn() as new:
                new.send_command("GET", "k")
                assert new.silent_for(0.05)
                primary.resume()
                assert new.reply() == b"$1\r\nv\r\n"
        finally:
            primary.resume()
        assert busy.until_closed() == b"".join(b":%d\r\n" % n for n in range(1, 21))
    wait.until(lambda: in_flight(proxy) == 0, "nothing is in flight")
    assert [each["name"] for each in proxy.stats()["listeners"]] == ["renamed"]
    proxy.reload(config)
    with proxy.conn() as new:
        assert new.command("GET", "k") == b"$1\r\nv\r\n"
    lives(proxy)


def test_address_changed_under_a_session(sidecar, primary: RedisServer, second: RedisServer) -> None:
    """Sessions go on where the cluster is now: in their database, with the replies of before in front."""
    for server, name in ((primary, "primary"), (second, "second")):
        server.cli("SET", "who", name, db=3)
        server.cli("SET", "who", "wrong database")
    proxy = sidecar(configs.pass_through(primary.address, op_timeout="30s"))
    with proxy.conn() as conn:
        assert conn.pipeline(("SELECT", 3), ("GET", "who"))[1] == b"$7\r\nprimary\r\n"
        primary.pause()
        try:
            conn.send(b"".join(encode("INCR", "n") for _ in range(20)))
            wait.until(lambda: in_flight(proxy) == 20, "20 are in flight")
            proxy.reload(configs.pass_through(second.address, op_timeout="30s"))
            conn.send_command("GET", "who")
            with proxy.conn() as other:
                wait.until(
                    lambda: other.command("GET", "who") == b"$14\r\nwrong database\r\n", "others are there already"
                )
            assert conn.silent_for(0.05)
        finally:
            primary.resume()
        assert conn.replies(20) == [b":%d\r\n" % n for n in range(1, 21)]
        assert conn.reply() == b"$6\r\nsecond\r\n"
        assert conn.command("INCR", "n") == b":1\r\n"
    wait.until(lambda: len(proxy.stats()["endpoints"]) == 1, "the old endpoint is gone")
    assert primary.cli("GET", "n", db=3) == b"20"
    lives(proxy)
