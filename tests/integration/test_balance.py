"""Several Redis servers behind one route: where commands go, by key or in turn."""

import contextlib
import itertools

import pytest
from redis.exceptions import WatchError

import redis
from conftest import RedisFactory, SidecarFactory
from support import configs, wait
from support.redis_server import RedisServer
from support.sidecar import Sidecar
from support.wire import encode

MANY = 1000


def several(servers: list[RedisServer], **settings: object) -> configs.Config:
    """One cluster of these servers."""
    config = configs.pass_through(servers[0].address, **settings)
    config["clusters"]["redis-001"]["endpoints"] = [each.address for each in servers]
    return config


def calls(server: RedisServer, command: str) -> int:
    """How often a server has executed a command."""
    stats = server.client().info("commandstats").get(f"cmdstat_{command}", {})
    return int(stats.get("calls", 0))


def ready(proxy: Sidecar, servers: list[RedisServer]) -> None:
    """Wait until the proxy is connected to all of them."""
    wait.until(
        lambda: sum(each["state"] == "ready" for each in proxy.stats()["endpoints"]) == len(servers), "connections"
    )


def test_turns_go_round(redis_server: RedisFactory, sidecar: SidecarFactory) -> None:
    servers = [redis_server(), redis_server()]
    proxy = sidecar(several(servers, balance="round_robin"))
    ready(proxy, servers)
    with proxy.client() as client:
        for n in range(MANY):
            client.set(f"key:{n}", n)
        assert [calls(each, "set") for each in servers] == [MANY // 2, MANY // 2]
        # In a pipeline as well, and its replies in the order of the commands.
        pipe = client.pipeline(transaction=False)
        for n in range(MANY):
            pipe.echo(f"n:{n}")
            pipe.incrby("counter", 1)
        replies = pipe.execute()
    assert replies[::2] == [f"n:{n}".encode() for n in range(MANY)]
    assert [int(each.client().get("counter") or 0) for each in servers] == [MANY // 2, MANY // 2]
    # Each server counted by itself, so what they said in turn is each number twice.
    assert sorted(replies[1::2]) == sorted([*range(1, MANY // 2 + 1)] * 2)


@pytest.mark.parametrize("balance", ["random", "least_request"])
def test_draws_reach_all(redis_server: RedisFactory, sidecar: SidecarFactory, balance: str) -> None:
    servers = [redis_server(), redis_server()]
    proxy = sidecar(several(servers, balance=balance))
    ready(proxy, servers)
    with proxy.client() as client:
        for n in range(MANY):
            client.set("key", n)
    counts = [calls(each, "set") for each in servers]
    assert sum(counts) == MANY
    # Of a fair coin 1000 times, six standard deviations are 95. (When nothing is in flight, both draw alike.)
    assert min(counts) > MANY // 2 - 95


def test_long_replies_keep_their_order(redis_server: RedisFactory, sidecar: SidecarFactory) -> None:
    servers = [redis_server(), redis_server()]
    large, small = b"x" * 1_000_000, b"y"
    servers[0].client().set("key", large)
    servers[1].client().set("key", small)
    proxy = sidecar(several(servers, balance="round_robin"))
    ready(proxy, servers)
    with proxy.client() as client:
        pipe = client.pipeline(transaction=False)
        for _ in range(20):
            pipe.get("key")
        replies = pipe.execute()
    assert replies == [large, small] * 10 or replies == [small, large] * 10


def test_who_is_slow_delays_but_does_not_disorder(redis_server: RedisFactory, sidecar: SidecarFactory) -> None:
    servers = [redis_server(), redis_server()]
    for n, each in enumerate(servers):
        each.client().set("name", n)
    proxy = sidecar(several(servers, balance="round_robin"))
    ready(proxy, servers)
    with proxy.conn() as conn:
        first = int(conn.command("GET", "name").split(b"\r\n")[1])
        servers[first].pause()
        try:
            before = calls(servers[1 - first], "get")
            for _ in range(10):
                conn.send_command("GET", "name")
            wait.until(lambda: calls(servers[1 - first], "get") == before + 5, "those of the other server")
        finally:
            servers[first].resume()
        said = [int(conn.reply().split(b"\r\n")[1]) for _ in range(10)]
    assert said == [1 - first, first] * 5


def test_a_transaction_is_at_one_server(redis_server: RedisFactory, sidecar: SidecarFactory) -> None:
    servers = [redis_server(), redis_server()]
    proxy = sidecar(several(servers, balance="round_robin"))
    ready(proxy, servers)
    with proxy.client() as client:
        for n in range(MANY // 10):
            pipe = client.pipeline(transaction=True)
            for name in ("a", "b", "c"):
                pipe.set(f"{name}:{n}", n)
            pipe.get(f"a:{n}")
            assert pipe.execute() == [True, True, True, str(n).encode()]
    found = [set(each.client().keys("*")) for each in servers]
    for n in range(MANY // 10):
        whole = {f"{name}:{n}".encode() for name in "abc"}
        assert sorted(len(whole & keys) for keys in found) == [0, 3]
    assert len(found[0]) == len(found[1])


def test_what_is_watched_stays(redis_server: RedisFactory, sidecar: SidecarFactory) -> None:
    servers = [redis_server(), redis_server()]
    proxy = sidecar(several(servers, balance="round_robin"))
    ready(proxy, servers)
    with proxy.client() as client, client.pipeline() as pipe:
        for n in range(20):
            pipe.watch("counter")
            before = int(pipe.get("counter") or 0)
            pipe.multi()
            pipe.set("counter", before + 1)
            pipe.set("other", n)
            pipe.execute()
        pipe.watch("counter")
        for each in servers:
            each.client().set("counter", "changed")
        pipe.multi()
        pipe.set("counter", 0)
        with pytest.raises(WatchError):
            pipe.execute()
    # All twenty were on the connection that watched first.
    assert sorted(calls(each, "exec") for each in servers) == [0, 21]


def test_who_publishes_and_who_subscribes_meet(redis_server: RedisFactory, sidecar: SidecarFactory) -> None:
    servers = [redis_server(), redis_server()]
    proxy = sidecar(several(servers, balance="random"))
    ready(proxy, servers)
    with proxy.client() as client, client.pubsub() as messages:
        messages.subscribe("news")
        assert messages.get_message(timeout=5)["type"] == "subscribe"
        for n in range(50):
            assert client.publish("news", n) == 1
        got = itertools.islice(iter(lambda: messages.get_message(timeout=5), None), 50)
        assert [int(each["data"]) for each in got] == list(range(50))


def test_blocking_scripts_and_all_keys(redis_server: RedisFactory, sidecar: SidecarFactory) -> None:
    servers = [redis_server(), redis_server()]
    proxy = sidecar(several(servers, balance="round_robin"))
    ready(proxy, servers)
    with proxy.client() as client:
        sha = client.script_load("return redis.call('INCR', KEYS[1])")
        for _ in range(20):
            client.evalsha(sha, 1, "counter")
        assert [each.client().get("counter") for each in servers] == [b"10", b"10"]
        assert [client.eval("return 1", 0) for _ in range(2)] == [1, 1]
        assert client.dbsize() == 2, "DBSIZE is the sum over all servers"
        assert list(client.scan_iter()) == [b"counter"] * 2
        assert client.mget("counter", "absent") == [b"10", None]
        assert client.select(3) is True
        client.set("there", 1)
        client.set("there", 1)
        assert [each.client(db=3).get("there") for each in servers] == [b"1", b"1"]
        client.flushall()
        assert [each.client().dbsize() for each in servers] == [0, 0]
    with proxy.client() as client:
        for each in servers:
            each.client().rpush("list", *range(10))
        popped = [client.blpop("list", timeout=5) for _ in range(10)]
        assert popped == [(b"list", str(n).encode()) for n in range(10)], "a connection of its own stays where it is"


def test_who_is_down_is_left_out(redis_server: RedisFactory, sidecar: SidecarFactory) -> None:
    servers = [redis_server(), redis_server(), redis_server()]
    proxy = sidecar(several(servers, balance="round_robin"))
    ready(proxy, servers)
    servers[1].stop()
    ready(proxy, servers[:2])
    with proxy.client() as client:
        for n in range(100):
            client.set("key", n)
        assert [calls(servers[i], "set") for i in (0, 2)] == [50, 50]
        servers[0].stop()
        servers[2].stop()
        ready(proxy, [])
        with pytest.raises(redis.ResponseError, match="UNAVAILABLE"):
            client.set("key", 1)


def test_replies_are_in_order_while_a_server_dies(redis_server: RedisFactory, sidecar: SidecarFactory) -> None:
    servers = [redis_server() for _ in range(3)]
    for each in servers:
        each.client().mset({f"key:{n}": f"value:{n}" for n in range(MANY)})
    proxy = sidecar(several(servers, balance="random"))
    ready(proxy, servers)
    faults = 0
    for at, server in ((100, servers[1]), (MANY // 2, servers[2])):
        with proxy.conn(timeout=20) as conn:
            for n in range(MANY):
                conn.send_command("GET", f"key:{n}")
                if n == at:
                    server.pause()
                if n == at + 100:
                    server.kill()
            for n, reply in enumerate(conn.replies(MANY)):
                if reply.startswith(b"-"):
                    assert reply.startswith((b"-INDOUBT", b"-UNAVAILABLE")), reply
                    faults += 1
                else:
                    assert reply.split(b"\r\n")[1] == f"value:{n}".encode()
    # What was on its way to those that died, and no more.
    assert faults < MANY


def test_what_is_tracked_stays(redis_server: RedisFactory, sidecar: SidecarFactory) -> None:
    servers = [redis_server(), redis_server()]
    proxy = sidecar(several(servers, balance="round_robin"))
    ready(proxy, servers)
    with proxy.conn() as conn:
        assert conn.command("HELLO", "3").startswith(b"%")
        assert conn.command("CLIENT", "TRACKING", "ON") == b"+OK\r\n"
        for _ in range(10):
            assert conn.command("GET", "key") == b"_\r\n"
        counts = [calls(each, "get") for each in servers]
        assert sorted(counts) == [0, 10]
        servers[counts.index(10)].client().set("key", 1)
        assert b"invalidate" in conn.reply()


def test_replicas_share_the_reads(redis_server: RedisFactory, sidecar: SidecarFactory) -> None:
    primary, copies = redis_server(), [redis_server(), redis_server()]
    primary.client().mset({f"key:{n}": n for n in range(MANY)})
    for each in copies:
        each.client().replicaof("127.0.0.1", str(primary.port))
    wait.until(lambda: all(each.client().dbsize() == MANY for each in copies), "the copies", timeout=30)
    config = several(copies, balance="round_robin")
    proxy = sidecar(config)
    ready(proxy, copies)
    with proxy.client() as client:
        assert [client.get(f"key:{n}") for n in range(MANY)] == [str(n).encode() for n in range(MANY)]
        assert client.mget("key:1", "key:2") == [b"1", b"2"]
        with pytest.raises(redis.ReadOnlyError):
            client.set("key", 1)
    assert [calls(each, "get") for each in copies] == [MANY // 2] * 2
    # Where keys have a home, a replica is no home for them.
    config["clusters"]["redis-001"]["balance"] = "maglev"
    proxy.reload(config)
    ready(proxy, [])


def test_a_ring_of_hashes(redis_server: RedisFactory, sidecar: SidecarFactory) -> None:
    servers = [redis_server(), redis_server()]
    proxy = sidecar(several(servers, balance="ring_hash", minimum_ring_size=2048))
    ready(proxy, servers)
    with proxy.client() as client:
        client.mset({f"key:{n}": n for n in range(MANY)})
        assert client.mget([f"key:{n}" for n in range(MANY)]) == [str(n).encode() for n in range(MANY)]
    sizes = [each.client().dbsize() for each in servers]
    assert sum(sizes) == MANY
    assert min(sizes) > MANY // 4


def test_who_reads_is_not_closed_for_what_it_cannot_read_yet(
    redis_server: RedisFactory, sidecar: SidecarFactory
) -> None:
    """Once replies that waited for the turn of another's counted as unread, and the client was closed for them."""
    servers = [redis_server(), redis_server()]
    size, count = 300_000, 64
    proxy = sidecar(several(servers, balance="round_robin") | {"limits": {"max_output": "8MB"}})
    ready(proxy, servers)
    for server in servers:
        server.client().set("v", "x" * size)
    with proxy.conn() as conn:
        servers[1].pause()
        replies = []
        try:
            conn.send(encode("GET", "v") * count)
            with contextlib.suppress(TimeoutError):
                while True:
                    replies.append(conn.reply(timeout=1))
        finally:
            servers[1].resume()
        replies += [conn.reply(timeout=20) for _ in range(count - len(replies))]
        assert all(len(reply) > size for reply in replies)
