"""A plain client in front of a real Redis Cluster of six servers: one sidecar gives it all of them as one Redis."""

import contextlib
import socket
import threading
from typing import Any

import pytest
from redis.exceptions import ClusterCrossSlotError, ClusterDownError, MovedError, TryAgainError

import redis
from conftest import RedisFactory, SidecarFactory
from support import configs, wait
from support.redis_cluster import RedisCluster
from support.sidecar import Sidecar

KEYS = 600


@pytest.fixture(scope="module")
def shared(module_redis_server: RedisFactory) -> RedisCluster:
    """A cluster that tests change only for a while."""
    return RedisCluster(module_redis_server)


@pytest.fixture
def cluster(shared: RedisCluster) -> RedisCluster:
    """The shared one, without keys."""
    for each in shared.nodes:
        if shared.is_master(each):
            each.cli("FLUSHALL")
    return shared


def config(cluster: RedisCluster, **settings: Any) -> configs.Config:
    """One seed is enough."""
    return configs.pass_through(cluster.addresses[0], type="redis_cluster", **settings)


def slot_of(cluster: RedisCluster, key: str) -> int:
    """The hash slot of a key, as Redis has it."""
    return int(cluster.nodes[0].cli("CLUSTER KEYSLOT", key))


def redirects(proxy: Sidecar) -> int:
    """How many redirections were followed."""
    return sum(each["upstream_internal_redirect_succeeded_total"] for each in proxy.stats()["endpoints"])


def test_a_plain_client_has_the_whole_cluster(cluster: RedisCluster, sidecar: SidecarFactory) -> None:
    proxy = sidecar(config(cluster))
    values = {f"key:{n}": f"value:{n}" for n in range(KEYS)}
    for protocol in (2, 3):
        with proxy.client(protocol=protocol, decode_responses=True) as client:
            assert client.mset(values) is True
            assert client.mget(list(values)) == list(values.values())
            assert client.dbsize() == KEYS
            assert sorted(client.scan_iter(count=50)) == sorted(values)
            assert sorted(client.keys("*")) == sorted(values)
            assert client.exists(*values) == KEYS
            pipe = client.pipeline(transaction=False)
            for key in values:
                pipe.get(key)
            assert pipe.execute() == list(values.values())
            assert client.delete(*values) == KEYS
            assert client.dbsize() == 0
    holders = [each for each in cluster.nodes if cluster.is_master(each)]
    assert len(holders) == 3
    assert redirects(proxy) == 0, "the slot map was not used"


def test_every_master_holds_its_share(cluster: RedisCluster, sidecar: SidecarFactory) -> None:
    proxy = sidecar(config(cluster))
    with proxy.client() as client:
        client.mset({f"key:{n}": n for n in range(KEYS)})
    sizes = [each.cli("DBSIZE") for each in cluster.nodes if cluster.is_master(each)]
    assert sum(sizes) == KEYS
    assert min(sizes) > 0


def test_what_keys_of_several_slots_can_and_cannot(cluster: RedisCluster, sidecar: SidecarFactory) -> None:
    proxy = sidecar(config(cluster))
    with proxy.client(decode_responses=True) as client:
        client.sadd("{t}:a", 1, 2)
        client.sadd("{t}:b", 2, 3)
        assert client.sunion("{t}:a", "{t}:b") == {"1", "2", "3"}
        with pytest.raises(ClusterCrossSlotError, match=r"^Keys in request don't hash to the same slot$"):
            client.execute_command("SUNION", "a", "b")
        with client.pipeline(transaction=True) as pipe:
            assert pipe.set("{t}:x", 1).incr("{t}:x").execute() == [True, 2]
        assert client.eval("return redis.call('get', KEYS[1])", 1, "{t}:x") == "2"
        assert client.eval("return 7", 0) == 7
        script = client.register_script("return redis.call('incr', KEYS[1])")
        assert [script(keys=[f"script:{n}"]) for n in range(20)] == [1] * 20
        library = (
            "#!lua name=lib\nredis.register_function('one', function(keys) return redis.call('incr', keys[1]) end)"
        )
        assert client.function_load(library, replace=True) == "lib"
        assert [client.fcall("one", 1, f"script:{n}") for n in range(20)] == [2] * 20
        client.rpush("queue", "one")
        assert client.blpop("queue", 1) == ("queue", "one")
        with pytest.raises(redis.ResponseError, match="This instance has cluster support disabled"):
            client.execute_command("CLUSTER", "SLOTS")
        for command in ("ASKING", "READONLY"):
            with pytest.raises(redis.ResponseError):
                client.execute_command(command)
        assert client.info("server")["redis_mode"] == "cluster"
        with proxy.client(decode_responses=True) as other, other.pubsub() as subscriber:
            subscriber.subscribe("news")
            assert subscriber.get_message(timeout=5)["type"] == "subscribe"
            client.publish("news", "hello")
            assert subscriber.get_message(timeout=5)["data"] == "hello"


def test_a_slot_that_has_moved_is_followed(cluster: RedisCluster, sidecar: SidecarFactory) -> None:
    """MOVED: by one map that is old, and soon by a new one."""
    proxy = sidecar(config(cluster, refresh="1h"))
    slot = slot_of(cluster, "moved")
    with proxy.client(decode_responses=True) as client:
        client.set("moved", "before")
        generation = proxy.stats()["worker"]["plan_generation"]
        target = cluster.others(cluster.owner(slot))[0]
        cluster.move(slot, target)
        assert client.get("moved") == "before"
        assert client.incrby("{moved}:n", 5) == 5
        assert redirects(proxy) >= 1
        wait.until(lambda: proxy.stats()["worker"]["plan_generation"] > generation, "a plan with the new map")
        followed = redirects(proxy)
        with client.pipeline(transaction=False) as pipe:
            for _ in range(50):
                pipe.incr("{moved}:n")
            assert pipe.execute() == list(range(6, 56))
        assert redirects(proxy) == followed


def test_a_slot_on_its_way_is_asked_for(cluster: RedisCluster, sidecar: SidecarFactory) -> None:
    """ASK: the keys that have not moved are at the one, the others at the other."""
    proxy = sidecar(config(cluster))
    slot = slot_of(cluster, "{way}")
    with proxy.client(decode_responses=True) as client:
        client.mset({f"{{way}}:{n}": n for n in range(10)})
        target = cluster.others(cluster.owner(slot))[0]
        owner = cluster.begin_move(slot, target)
        owner.cli("MIGRATE", target.host, target.port, "", 0, 5000, "KEYS", *[f"{{way}}:{n}" for n in range(5)])
        assert [client.get(f"{{way}}:{n}") for n in range(10)] == [str(n) for n in range(10)]
        with client.pipeline(transaction=False) as pipe:
            for n in range(10):
                pipe.incrby(f"{{way}}:{n}", 100)
                pipe.get(f"{{way}}:{n}")
            assert pipe.execute() == [each for n in range(10) for each in (100 + n, str(100 + n))]
        client.set("{way}:new", "x")
        assert client.get("{way}:new") == "x"
        with pytest.raises(TryAgainError):
            client.mget("{way}:1", "{way}:8")
        with pytest.raises(TryAgainError, match=r"slot \d+ is on its way .* nothing was executed"):
            client.pipeline(transaction=True).incr("{way}:1").execute()
        cluster.move_keys(slot, owner, target)
        cluster.end_move(slot, owner, target)
        assert client.pipeline(transaction=True).incr("{way}:1").incr("{way}:1").execute() == [102, 103]
        assert client.mget("{way}:1", "{way}:8") == ["103", "108"]
        assert redirects(proxy) >= 5


def test_a_transaction_follows_as_a_whole(cluster: RedisCluster, sidecar: SidecarFactory) -> None:
    proxy = sidecar(config(cluster, refresh="1h"))
    slot = slot_of(cluster, "{tx}")
    with proxy.client(decode_responses=True) as client:
        client.set("{tx}:a", 1)
        generation = proxy.stats()["worker"]["plan_generation"]
        cluster.move(slot, cluster.others(cluster.owner(slot))[0])
        with client.pipeline(transaction=True) as pipe:
            assert pipe.incr("{tx}:a").rpush("{tx}:l", "x", "y").llen("{tx}:l").execute() == [2, 2, 2]
        assert redirects(proxy) >= 1
        wait.until(lambda: proxy.stats()["worker"]["plan_generation"] > generation, "a plan with the new map")
        # One that is open while the map changes goes on.
        with proxy.conn() as conn:
            assert conn.command("MULTI") == b"+OK\r\n"
            assert conn.command("INCR", "{tx}:a") == b"+QUEUED\r\n"
            generation = proxy.stats()["worker"]["plan_generation"]
            cluster.move(slot, cluster.others(cluster.owner(slot))[0])
            client.get("{tx}:a")
            wait.until(lambda: proxy.stats()["worker"]["plan_generation"] > generation, "a plan with the new map")
            assert conn.command("EXEC") == b"*1\r\n:3\r\n"


def test_a_command_that_blocks_finds_the_new_owner(cluster: RedisCluster, sidecar: SidecarFactory) -> None:
    proxy = sidecar(config(cluster, refresh="1h"))
    slot = slot_of(cluster, "jobs")
    with proxy.client(decode_responses=True) as client, proxy.client(decode_responses=True) as waiting:
        client.get("jobs")
        cluster.move(slot, cluster.others(cluster.owner(slot))[0])
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(waiting.blpop("jobs", 10)))
        thread.start()
        client.rpush("jobs", "one")
        thread.join(15)
        assert found == [("jobs", "one")]


def test_slots_move_under_load(cluster: RedisCluster, sidecar: SidecarFactory) -> None:
    """No client sees an error, no increment is lost and none is done twice, whatever moves meanwhile."""
    proxy = sidecar(config(cluster))
    stop = threading.Event()
    done: list[int] = []
    errors: list[Exception] = []

    def work(worker: int) -> None:
        count = 0
        try:
            with proxy.client() as client:
                while not stop.is_set():
                    with client.pipeline(transaction=False) as pipe:
                        for n in range(100):
                            pipe.incr(f"count:{worker}:{n}")
                        assert pipe.execute() == [count + 1] * 100
                    count += 1
        except Exception as error:
            errors.append(error)
        done.append(count)

    threads = [threading.Thread(target=work, args=(each,)) for each in range(3)]
    for each in threads:
        each.start()
    slots = sorted({slot_of(cluster, f"count:{worker}:{n}") for worker in range(3) for n in range(12)})
    for slot in slots:
        cluster.move(slot, cluster.others(cluster.owner(slot))[0])
    stop.set()
    for each in threads:
        each.join(30)
    assert errors == []
    assert min(done) > 0
    assert redirects(proxy) > 0
    with proxy.client() as client:
        total = sum(int(value) for value in client.mget([f"count:{w}:{n}" for w in range(3) for n in range(100)]))
    assert total == 100 * sum(done)


def test_redis_cli_reshards(cluster: RedisCluster, sidecar: SidecarFactory) -> None:
    """The usual tool, while a client reads and writes all keys."""
    proxy = sidecar(config(cluster))
    keys = [f"key:{n}" for n in range(300)]
    with proxy.client() as client:
        client.mset(dict.fromkeys(keys, 0))
        giver = cluster.owner(slot_of(cluster, keys[0]))
        taker = cluster.others(giver)[0]
        ids = [str(each.cli("CLUSTER MYID"), "ascii") for each in (giver, taker)]
        args = ["--cluster-from", ids[0], "--cluster-to", ids[1], "--cluster-slots", "400", "--cluster-yes"]
        thread = threading.Thread(target=cluster.cli, args=("reshard", giver.address, *args))
        thread.start()
        rounds = 0
        while thread.is_alive() or rounds < 2:
            rounds += 1
            for key in keys:
                assert client.incr(key) == rounds
        thread.join()
        assert client.mget(keys) == [str(rounds).encode()] * len(keys)


def test_redirections_of_a_cluster_that_is_only_listed(cluster: RedisCluster, sidecar: SidecarFactory) -> None:
    """``enable_redirection`` without a slot map: any node leads to all keys."""
    proxy = sidecar(configs.pass_through(cluster.addresses[0], enable_redirection=True))
    with proxy.client(decode_responses=True) as client:
        for n in range(50):
            client.set(f"key:{n}", n)
        assert [client.get(f"key:{n}") for n in range(50)] == [str(n) for n in range(50)]
    assert redirects(proxy) > 0
    plain = sidecar(configs.pass_through(cluster.addresses[0]))
    elsewhere = next(n for n in range(50) if cluster.owner(slot_of(cluster, f"key:{n}")) != cluster.nodes[0])
    with plain.client() as client, pytest.raises(MovedError):
        client.get(f"key:{elsewhere}")


def test_what_is_watched_does_not_move(cluster: RedisCluster, sidecar: SidecarFactory) -> None:
    """A transaction that rests on what is watched is not executed after its slot has moved; the next try is."""
    proxy = sidecar(config(cluster, refresh="1h"))
    slot = slot_of(cluster, "{w}")
    with proxy.client(decode_responses=True) as client, client.pipeline() as pipe:
        client.set("{w}:n", 1)
        pipe.watch("{w}:n")
        cluster.move(slot, cluster.others(cluster.owner(slot))[0])
        pipe.multi()
        pipe.incr("{w}:n")
        with pytest.raises(redis.WatchError):
            pipe.execute()
        assert client.get("{w}:n") == "1"

        def is_done() -> bool:
            try:
                pipe.watch("{w}:n")
                pipe.multi()
                pipe.incr("{w}:n")
                return pipe.execute() == [2]
            except (redis.WatchError, TryAgainError):
                return False

        wait.until(is_done, "the transaction is executed")
        assert client.get("{w}:n") == "2"


def test_a_redirection_that_leads_nowhere(redis_server: RedisFactory, sidecar: SidecarFactory) -> None:
    """To a node that is down: an error that says so, for these commands only, and in their order."""
    cluster = RedisCluster(redis_server, cluster_node_timeout="60000")
    proxy = sidecar(configs.pass_through(cluster.addresses[0], enable_redirection=True, op_timeout="2s"))
    ours = next(f"key:{n}" for n in range(99) if cluster.owner(slot_of(cluster, f"key:{n}")) == cluster.nodes[0])
    lost = cluster.others(cluster.nodes[0])[0]
    theirs = next(f"key:{n}" for n in range(99) if cluster.owner(slot_of(cluster, f"key:{n}")) == lost)
    lost.kill()
    with proxy.client(decode_responses=True) as client, client.pipeline(transaction=False) as pipe:
        pipe.set(ours, 1).set(theirs, 2).incr(ours).get(theirs).get(ours)
        found = pipe.execute(raise_on_error=False)
    assert (found[0], found[2], found[4]) == (True, 2, "2")
    for error in (found[1], found[3]):
        assert isinstance(error, redis.ResponseError)
        assert f"is at {lost.address}, which cannot be used: " in str(error)


@pytest.mark.parametrize("policy", ["replica", "prefer_replica", "any"])
def test_reads_from_replicas(cluster: RedisCluster, sidecar: SidecarFactory, policy: str) -> None:
    proxy = sidecar(config(cluster, read_policy=policy))
    replicas = [each for each in cluster.nodes if not cluster.is_master(each)]
    wait.until(lambda: sum(each["state"] == "ready" for each in proxy.stats()["endpoints"]) == 6, "all are connected")
    with proxy.client(decode_responses=True) as client:
        client.mset({f"key:{n}": n for n in range(60)})
        for each in replicas:
            cluster.wait_for_replica(each)
        before = {each.port: _gets(each) for each in cluster.nodes}
        assert [client.get(f"key:{n}") for n in range(60)] == [str(n) for n in range(60)]
        assert client.mget([f"key:{n}" for n in range(60)]) == [str(n) for n in range(60)]
        by_replicas = sum(_gets(each) - before[each.port] for each in replicas)
        assert by_replicas == 60 if policy != "any" else 0 < by_replicas < 60
        with client.pipeline(transaction=True) as pipe:
            assert pipe.incr("key:0").get("key:0").execute() == [1, "1"]
        assert client.dbsize() == 60


def _gets(server: Any) -> int:
    return int(server.cli("INFO", "commandstats").get("cmdstat_get", {"calls": 0})["calls"])


def test_a_master_is_lost(redis_server: RedisFactory, sidecar: SidecarFactory) -> None:
    """Its replica takes over, and the sidecar finds it there, within its refresh."""
    cluster = RedisCluster(redis_server)
    proxy = sidecar(config(cluster, refresh="1s"))
    with proxy.client(decode_responses=True) as client:
        values = {f"key:{n}": str(n) for n in range(KEYS)}
        client.mset(values)
        lost = cluster.owner(slot_of(cluster, "key:0"))
        for each in cluster.nodes:
            if not cluster.is_master(each):
                cluster.wait_for_replica(each)
        lost.kill()
        told: list[redis.RedisError] = []

        def is_back() -> bool:
            try:
                return client.mget(list(values)) == list(values.values())
            except redis.RedisError as error:
                told.append(error)
                return False

        wait.until(is_back, "all keys are served again", 30)
        known = ("UNAVAILABLE", "INDOUBT", "TIMEOUT")
        assert [each for each in told if not (str(each).startswith(known) or isinstance(each, ClusterDownError))] == []
        assert lost.address not in {each["id"] for each in proxy.stats()["endpoints"] if each["state"] == "ready"}
        client.mset(dict.fromkeys(values, "new"))
        assert set(client.mget(list(values))) == {"new"}
        # It comes back as the replica of its own.
        lost.start()
        assert set(client.mget(list(values))) == {"new"}


def test_shard_channels_are_where_their_slots_are(cluster: RedisCluster, sidecar: SidecarFactory) -> None:
    """Once SSUBSCRIBE went to any master, and most were answered with that one's MOVED."""
    proxy = sidecar(config(cluster))
    channels = [f"channel:{n}".encode() for n in range(8)]
    owners = [cluster.owner(slot_of(cluster, channel.decode())) for channel in channels]
    assert len({id(owner) for owner in owners}) > 1
    with contextlib.ExitStack() as cleanup:
        publisher = cleanup.enter_context(proxy.conn())
        for channel in channels:
            conn = cleanup.enter_context(proxy.conn())
            bulk = b"$%d\r\n%s\r\n" % (len(channel), channel)
            assert conn.command("SSUBSCRIBE", channel) == b"*3\r\n$10\r\nssubscribe\r\n" + bulk + b":1\r\n"
            assert publisher.command("SPUBLISH", channel, "m") == b":1\r\n"
            assert conn.reply() == b"*3\r\n$8\r\nsmessage\r\n" + bulk + b"$1\r\nm\r\n"
            assert conn.command("SUNSUBSCRIBE") == b"*3\r\n$12\r\nsunsubscribe\r\n" + bulk + b":0\r\n"
    assert redirects(proxy) == 0


def test_a_script_cannot_send_the_sidecar_away(cluster: RedisCluster, sidecar: SidecarFactory) -> None:
    """Once the sidecar connected wherever a script said that its slot had moved, and gave its password there."""
    proxy = sidecar(config(cluster))
    script = "redis.call('INCR', KEYS[1]); return redis.error_reply('MOVED 1 127.0.0.1:' .. ARGV[1])"
    with socket.create_server(("127.0.0.1", 0)) as elsewhere, proxy.conn() as conn:
        port = elsewhere.getsockname()[1]
        assert conn.command("EVAL", script, 1, "k", port) == b"-MOVED 1 127.0.0.1:%d\r\n" % port
        assert conn.command("GET", "k") == b"$1\r\n1\r\n"
        elsewhere.settimeout(0.5)
        with pytest.raises(TimeoutError):
            elsewhere.accept()


def test_subscriptions_leave_nothing_behind(cluster: RedisCluster, sidecar: SidecarFactory) -> None:
    """Once the bytes of each SUBSCRIBE were kept until the connection ended."""
    proxy = sidecar(config(cluster))
    name, rounds = b"n" * 100_000, 300
    with proxy.conn() as conn:
        for _ in range(rounds):
            assert conn.command("SUBSCRIBE", name).startswith(b"*3\r\n$9\r\nsubscribe\r\n")
            assert conn.command("UNSUBSCRIBE", name).startswith(b"*3\r\n$11\r\nunsubscribe\r\n")
        kept = rounds * len(name)
        wait.until(lambda: proxy.stats()["worker"]["memory_bytes"] < kept / 2, "they are not kept")
