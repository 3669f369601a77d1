"""What a client has a connection of its own for: subscriptions, MONITOR, WATCH, commands that block."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import redis
from support import configs, wait
from support.equality import assert_same
from support.group_stage import Groups
from support.redis_server import RedisServer
from support.sidecar import Sidecar
from support.wire import ClosedError, Conn, encode


@dataclass
class Way:
    """One way to reach a Redis."""

    port: int
    server: RedisServer
    sidecar: Sidecar | None
    mirror: RedisServer | None = None
    counts: bool = True
    """PUBLISH tells how many got the message. (At a follower: how many clients of the leader's.)"""

    def conn(self, protocol: int = 2) -> Conn:
        conn = Conn(self.port, timeout=10)
        if protocol == 3:
            conn.command("HELLO", 3)
        return conn

    def client(self, protocol: int = 2) -> redis.Redis:
        return redis.Redis(port=self.port, protocol=protocol, socket_timeout=10, decode_responses=True)

    def blocked(self, count: int) -> None:
        """Wait until so many clients block."""

        def block() -> bool:
            with self.client() as client:
                return sum("b" in each["flags"] for each in client.client_list()) == count

        wait.until(block, f"{count} clients block")


@pytest.fixture(scope="module", params=["direct", "pass-through", "mirrored", "group-leader", "group-follower"])
def way(request: pytest.FixtureRequest, module_redis_server: Callable[..., RedisServer]) -> Way:
    """Redis itself, which shows that the test is right, and sidecars."""
    server = module_redis_server()
    if request.param == "direct":
        return Way(server.port, server, None)
    start = request.getfixturevalue("module_sidecar")
    if request.param == "pass-through":
        sidecar = start(configs.pass_through(server.address))
        return Way(sidecar.port, server, sidecar)
    if request.param.startswith("group"):
        leader, follower = Groups(module_redis_server, start)().pair()
        me, other = (leader, follower) if request.param == "group-leader" else (follower, leader)
        return Way(me.proxy.port, me.redis, me.proxy, other.redis, me is leader)
    mirror = module_redis_server()
    sidecar = start(configs.mirrored(server.address, mirror.address))
    return Way(sidecar.port, server, sidecar, mirror)


@pytest.fixture(autouse=True)
def _clean(way: Way) -> Iterator[None]:
    with way.conn() as conn:
        conn.command("FLUSHALL")
    yield
    if way.mirror is not None:
        assert_same(way.server, way.mirror)


@pytest.fixture(params=[2, 3])
def protocol(request: pytest.FixtureRequest) -> int:
    return int(request.param)


# --- pub/sub ----------------------------------------------------------------------------------------------------------


def test_messages_of_all_kinds(way: Way, protocol: int) -> None:
    head = b"*" if protocol == 2 else b">"
    with way.conn(protocol) as subscriber, way.conn() as publisher:
        subscriber.send(encode("SUBSCRIBE", "a", "b") + encode("PSUBSCRIBE", "p*") + encode("SSUBSCRIBE", "s"))
        subscriber.replies(4)
        published = [
            publisher.command("PUBLISH", "a", b"\x00\r\n"),
            publisher.command("PUBLISH", "pop", "2"),
            publisher.command("SPUBLISH", "s", "3"),
            publisher.command("PUBLISH", "nobody", "4"),
        ]
        assert published == [b":1\r\n"] * 3 + [b":0\r\n"] or not way.counts
        assert subscriber.replies(3) == [
            head + b"3\r\n$7\r\nmessage\r\n$1\r\na\r\n$3\r\n\x00\r\n\r\n",
            head + b"4\r\n$8\r\npmessage\r\n$2\r\np*\r\n$3\r\npop\r\n$1\r\n2\r\n",
            head + b"3\r\n$8\r\nsmessage\r\n$1\r\ns\r\n$1\r\n3\r\n",
        ]
        assert publisher.command("PUBSUB", "NUMSUB", "a", "b") == b"*4\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n:1\r\n"
        subscriber.send(encode("UNSUBSCRIBE"))
        assert sorted(reply[-4:] for reply in subscriber.replies(2)) == [b":1\r\n", b":2\r\n"]


def test_redis_py_subscribes(way: Way, protocol: int) -> None:
    with way.client(protocol=protocol) as client, client.pubsub() as pubsub:
        pubsub.subscribe("news")
        pubsub.psubscribe("n?ws")
        assert [pubsub.get_message(timeout=5)["type"] for _ in range(2)] == ["subscribe", "psubscribe"]
        assert client.publish("news", "hello") == 2 or not way.counts
        seen = [pubsub.get_message(timeout=5) for _ in range(2)]
        assert sorted((m["type"], m["data"]) for m in seen) == [("message", "hello"), ("pmessage", "hello")]


def test_a_subscriber_goes_on_with_other_commands_in_resp3(way: Way) -> None:
    with way.conn(3) as conn, way.conn() as other:
        assert conn.command("SUBSCRIBE", "a").startswith(b">3")
        conn.send(encode("SET", "k", "v" * 100_000) + encode("GET", "k"))
        assert conn.replies(2)[0] == b"+OK\r\n"
        conn.send(encode("PUBLISH", "a", "mine"))
        assert b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$4\r\nmine\r\n" in conn.replies(2)
        other.command("PUBLISH", "a", "m" * 300_000)
        assert len(conn.replies(1)[0]) > 300_000
        assert conn.command("PING") == b"+PONG\r\n"


def test_reset_ends_a_subscription(way: Way) -> None:
    with way.conn() as conn, way.conn() as other:
        conn.command("SUBSCRIBE", "a")
        assert conn.command("RESET") == b"+RESET\r\n"
        wait.until(lambda: other.command("PUBSUB", "CHANNELS") == b"*0\r\n", "nobody is subscribed")
        assert conn.command("SET", "k", "v") == b"+OK\r\n"


def test_who_leaves_is_subscribed_no_more(way: Way) -> None:
    with way.conn() as conn:
        conn.command("SUBSCRIBE", "a")
    with way.conn() as other:
        wait.until(lambda: other.command("PUBSUB", "CHANNELS") == b"*0\r\n", "nobody is subscribed")


def test_many_messages_arrive_in_order(way: Way) -> None:
    count = 20_000
    with way.conn() as subscriber, way.conn() as publisher:
        subscriber.command("SUBSCRIBE", "a")
        publisher.send(b"".join(encode("PUBLISH", "a", i) for i in range(count)))
        expected = [b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$%d\r\n%d\r\n" % (len(str(i)), i) for i in range(count)]
        assert subscriber.replies(count) == expected
        assert publisher.replies(count) == [b":1\r\n" if way.counts else b":0\r\n"] * count


def test_keyspace_notifications(way: Way) -> None:
    way.server.cli("CONFIG", "SET", "notify-keyspace-events", "KEA")
    try:
        with way.conn() as subscriber, way.conn() as other:
            subscriber.command("PSUBSCRIBE", "__keyevent@0__:set")
            other.command("SET", "k", "v")
            assert b"$1\r\nk\r\n" in subscriber.replies(1)[0]
    finally:
        way.server.cli("CONFIG", "SET", "notify-keyspace-events", "")


def test_monitor(way: Way) -> None:
    with way.conn() as monitor, way.conn() as other:
        assert monitor.command("MONITOR") == b"+OK\r\n"
        other.command("SET", "seen", "yes")

        def sees() -> bool:
            return b'"SET" "seen" "yes"' in monitor.replies(1)[0]

        wait.until(sees, "it sees the command", every=0)


# --- WATCH ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("touch", [("SET", "k", "2"), ("FLUSHALL",), ("EVAL", "redis.call('del', KEYS[1])", "1", "k")])
def test_a_watched_key_that_another_touches(way: Way, touch: tuple[str, ...], protocol: int) -> None:
    nil = b"*-1\r\n" if protocol == 2 else b"_\r\n"
    with way.conn(protocol) as conn, way.conn() as other:
        conn.command("SET", "k", 1)
        assert conn.command("WATCH", "k", "other") == b"+OK\r\n"
        other.command(*touch)
        conn.send(encode("MULTI") + encode("INCR", "k") + encode("EXEC") + encode("EXISTS", "k"))
        *_, done, exists = conn.replies(4)
        assert (done, exists) == (nil, b":1\r\n" if touch[0] == "SET" else b":0\r\n")


def test_a_watched_key_that_expires(way: Way) -> None:
    with way.conn() as conn:
        conn.send(encode("SET", "k", 1, "PX", 30) + encode("WATCH", "k"))
        conn.replies(2)
        wait.until(lambda: way.server.cli("EXISTS", "k") == 0, "it has expired")
        conn.send(encode("MULTI") + encode("SET", "k", 2) + encode("EXEC"))
        assert conn.replies(3)[-1] == b"*-1\r\n"


def test_counting_with_watch(way: Way) -> None:
    """Optimistic locking by several clients: no increment is lost."""
    rounds, clients = 50, 4

    def transact() -> None:
        with way.client() as client:
            for _ in range(rounds):

                def add(pipe: Any) -> None:
                    value = int(pipe.get("n") or 0)
                    pipe.multi()
                    pipe.set("n", value + 1)

                client.transaction(add, "n")

    threads = [threading.Thread(target=transact) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert way.client().get("n") == str(rounds * clients)


# --- commands that block ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("blocking", "wake", "reply"),
    [
        (("BLPOP", "k", 0), ("RPUSH", "k", "v"), b"*2\r\n$1\r\nk\r\n$1\r\nv\r\n"),
        (("BRPOP", "none", "k", 0), ("RPUSH", "k", "a", "v"), b"*2\r\n$1\r\nk\r\n$1\r\nv\r\n"),
        (("BLMOVE", "k", "to", "LEFT", "LEFT", 0), ("RPUSH", "k", "v"), b"$1\r\nv\r\n"),
        (("BRPOPLPUSH", "k", "to", 0), ("RPUSH", "k", "v"), b"$1\r\nv\r\n"),
        (("BLMPOP", 0, 1, "k", "LEFT"), ("RPUSH", "k", "v"), b"*2\r\n$1\r\nk\r\n*1\r\n$1\r\nv\r\n"),
        (("BZPOPMIN", "none", "k", 0), ("ZADD", "k", 1, "v"), b"*3\r\n$1\r\nk\r\n$1\r\nv\r\n$1\r\n1\r\n"),
        (("BZPOPMAX", "k", 0), ("ZADD", "k", 1, "v"), b"*3\r\n$1\r\nk\r\n$1\r\nv\r\n$1\r\n1\r\n"),
        (("BZMPOP", 0, 1, "k", "MIN"), ("ZADD", "k", 1, "v"), b"*2\r\n$1\r\nk\r\n*1\r\n*2\r\n$1\r\nv\r\n$1\r\n1\r\n"),
    ],
)
def test_a_blocked_client_is_woken(way: Way, blocking: tuple[Any, ...], wake: tuple[Any, ...], reply: bytes) -> None:
    with way.conn() as conn, way.conn() as other:
        conn.send(encode(*blocking))
        way.blocked(1)
        assert other.command("PING") == b"+PONG\r\n"
        assert other.command(*wake).startswith(b":")
        assert conn.replies(1) == [reply]
        assert conn.command("PING") == b"+PONG\r\n"


def test_a_connection_that_has_not_subscribed_is_told(way: Way) -> None:
    with way.conn() as conn, way.conn(3) as told, way.conn() as other:
        number = told.command("CLIENT", "ID")[1:-2]
        assert conn.command("CLIENT", "TRACKING", "ON", "REDIRECT", number, "NOLOOP") == b"+OK\r\n"
        conn.command("GET", "k")
        other.command("SET", "k", 1)
        assert told.replies(1) == [INVALIDATE]


def test_a_script_may_answer_deeply(way: Way) -> None:
    with way.conn() as conn, way.conn() as other:
        conn.send(encode("EVAL", "local a = {}; local b = {a}; a[1] = b; return a", 0))
        reply = b""
        while not reply.endswith(b"-ERR reached lua stack limit\r\n"):
            reply += conn.socket.recv(1 << 16)
        assert conn.command("PING") == b"+PONG\r\n"
        assert other.command("PING") == b"+PONG\r\n"


def test_streams_block(way: Way) -> None:
    with way.conn() as conn, way.conn() as other:
        conn.send(encode("XREAD", "BLOCK", 0, "STREAMS", "x", "$"))
        way.blocked(1)
        other.command("XADD", "x", "1-1", "f", "v")
        assert b"$3\r\n1-1\r\n" in conn.replies(1)[0]
        other.command("XGROUP", "CREATE", "x", "g", "$")
        conn.send(encode("XREADGROUP", "GROUP", "g", "c", "BLOCK", 0, "STREAMS", "x", ">"))
        way.blocked(1)
        other.command("XADD", "x", "2-1", "f", "v")
        assert b"$3\r\n2-1\r\n" in conn.replies(1)[0]
        assert b":1\r\n" in other.command("XPENDING", "x", "g")


def test_who_waited_longest_is_served_first(way: Way) -> None:
    conns = [way.conn() for _ in range(5)]
    with way.conn() as other:
        for number, conn in enumerate(conns):
            conn.send(encode("BLPOP", "k", 0))
            way.blocked(number + 1)
        other.command("RPUSH", "k", *range(5))
        assert [conn.replies(1)[0][-3:-2] for conn in conns] == [b"%d" % i for i in range(5)]
    for conn in conns:
        conn.close()


def test_what_follows_a_block_waits(way: Way) -> None:
    with way.conn() as conn, way.conn() as other:
        conn.send(encode("BLPOP", "k", 0) + encode("SET", "after", "x") + encode("GET", "after"))
        way.blocked(1)
        assert other.command("EXISTS", "after") == b":0\r\n"
        other.command("RPUSH", "k", "v")
        assert conn.replies(3)[1:] == [b"+OK\r\n", b"$1\r\nx\r\n"]


def test_who_hangs_up_while_it_blocks_takes_nothing(way: Way) -> None:
    conn = way.conn()
    conn.send(encode("BLPOP", "k", 0))
    way.blocked(1)
    conn.close()
    way.blocked(0)
    with way.conn() as other:
        other.command("RPUSH", "k", "v")
        assert other.command("LPOP", "k") == b"$1\r\nv\r\n"


def test_who_blocks_costs_nothing(way: Way) -> None:
    """What does not block is not tried again and again."""

    def tried() -> int:
        stats = way.server.client().info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("lpop", "blpop"))

    with way.conn() as conn, way.conn() as other:
        before = tried()
        conn.send(encode("BLPOP", "k", 0))
        way.blocked(1)
        for number in range(100):
            other.command("SET", "another", number)
        assert tried() - before <= 1
        other.command("RPUSH", "k", "v")
        assert conn.replies(1) == [b"*2\r\n$1\r\nk\r\n$1\r\nv\r\n"]


def test_a_timeout_is_kept(way: Way) -> None:
    with way.conn() as conn:
        before = time.monotonic()
        assert conn.command("BLPOP", "k", 0.2) == b"*-1\r\n"
        assert time.monotonic() - before >= 0.2
        assert conn.command("PING") == b"+PONG\r\n"


def test_a_script_that_runs_too_long_is_killed(way: Way) -> None:
    for server in filter(None, (way.server, way.mirror)):
        server.cli("CONFIG", "SET", "busy-reply-threshold", "50")
    with way.conn() as conn, way.conn() as other:
        conn.send(encode("EVAL", "while true do end", 0))
        wait.until(lambda: other.command("SCRIPT", "KILL") == b"+OK\r\n", "it is killed")
        assert conn.replies(1)[0].startswith(b"-ERR Script killed by user")


# --- client-side caching ----------------------------------------------------------------------------------------------

INVALIDATE = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"


def test_a_tracked_key_is_invalidated(way: Way) -> None:
    with way.conn(3) as conn, way.conn() as other:
        assert conn.command("CLIENT", "TRACKING", "ON") == b"+OK\r\n"
        conn.send(encode("GET", "k") + encode("GET", "not read again"))
        assert conn.replies(2) == [b"_\r\n"] * 2
        other.command("SET", "k", 1)
        assert conn.replies(1) == [INVALIDATE]
        other.command("SET", "k", 2)
        assert conn.command("GET", "k") == b"$1\r\n2\r\n", "one invalidation for one read"
        assert conn.command("CLIENT", "TRACKINGINFO").startswith(b"%3\r\n$5\r\nflags\r\n~1\r\n$2\r\non\r\n")
        assert conn.command("CLIENT", "GETREDIR") == b":0\r\n"
        assert conn.command("CLIENT", "TRACKING", "OFF") == b"+OK\r\n"
        other.command("SET", "k", 3)
        assert conn.command("CLIENT", "GETREDIR") == b":-1\r\n"


def test_tracking_by_choice_and_by_prefix(way: Way) -> None:
    with way.conn(3) as conn, way.conn() as other:
        conn.command("CLIENT", "TRACKING", "ON", "OPTIN")
        assert conn.command("CLIENT", "CACHING", "NO").startswith(b"-ERR ")
        conn.send(encode("GET", "other") + encode("CLIENT", "CACHING", "YES") + encode("GET", "k"))
        conn.replies(3)
        other.command("MSET", "other", 1, "k", 1)
        assert conn.replies(1) == [INVALIDATE]
        conn.command("CLIENT", "TRACKING", "OFF")
        assert conn.command("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "k") == b"+OK\r\n"
        other.command("MSET", "other", 2, "k", 2)
        assert conn.replies(1) == [INVALIDATE]


def test_another_connection_is_told(way: Way) -> None:
    with way.conn() as conn, way.conn() as told, way.conn() as other:
        number = told.command("CLIENT", "ID")[1:-2]
        told.command("SUBSCRIBE", "__redis__:invalidate")
        assert conn.command("CLIENT", "TRACKING", "ON", "REDIRECT", number) == b"+OK\r\n"
        assert conn.command("CLIENT", "GETREDIR") == b":%b\r\n" % number
        info = b"*6\r\n$5\r\nflags\r\n*1\r\n$2\r\non\r\n$8\r\nredirect\r\n:%b\r\n$8\r\nprefixes\r\n*0\r\n" % number
        assert conn.command("CLIENT", "TRACKINGINFO") == info
        conn.command("GET", "k")
        other.command("SET", "k", 1)
        message = b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n*1\r\n$1\r\nk\r\n"
        assert told.replies(1) == [message]


# --- the Redis is lost ------------------------------------------------------------------------------------------------


@pytest.fixture
def lost(redis_server: Callable[..., RedisServer], sidecar: Callable[..., Sidecar]) -> Way:
    """A sidecar whose Redis is about to be killed."""
    server = redis_server()
    proxy = sidecar(configs.pass_through(server.address))
    return Way(proxy.port, server, proxy)


def test_the_redis_is_lost_while_a_client_blocks(lost: Way) -> None:
    with lost.conn() as conn:
        conn.send(encode("BLPOP", "k", 0))
        lost.blocked(1)
        lost.server.kill()
        assert conn.replies(1)[0].startswith(b"-INDOUBT cluster redis-001: the connection to ")
        lost.server.start()
        wait.until(lambda: conn.command("RPUSH", "k", "v") == b":1\r\n", "the session goes on")
        assert conn.command("BLPOP", "k", 0) == b"*2\r\n$1\r\nk\r\n$1\r\nv\r\n"


def test_the_redis_is_lost_while_keys_are_watched(lost: Way) -> None:
    with lost.conn() as conn:
        conn.command("WATCH", "k")
        lost.server.kill()
        lost.server.start()
        wait.until(lambda: conn.command("SET", "other", "v") == b"+OK\r\n", "the session goes on")
        conn.send(encode("MULTI") + encode("SET", "k", "v") + encode("EXEC") + encode("EXISTS", "k"))
        assert conn.replies(4)[2:] == [b"*-1\r\n", b":0\r\n"], "it is not known what was done to the key"
        conn.send(encode("WATCH", "k") + encode("MULTI") + encode("SET", "k", "v") + encode("EXEC"))
        assert conn.replies(4)[3] == b"*1\r\n+OK\r\n"


def test_the_redis_is_lost_while_clients_are_subscribed(lost: Way) -> None:
    with lost.conn() as conn, lost.conn() as other:
        conn.command("SUBSCRIBE", "a")
        lost.server.kill()
        with pytest.raises(ClosedError):
            conn.replies(1)
        refused = other.command("SUBSCRIBE", "a")
        assert refused.startswith(b"-UNAVAILABLE cluster redis-001: a connection of its own to ")
        lost.server.start()
        wait.until(lambda: other.command("SUBSCRIBE", "a").startswith(b"*3"), "it can subscribe")


def test_client_unblock(way: Way) -> None:
    with way.conn() as conn, way.conn() as other:
        number = conn.command("CLIENT", "ID")[1:-2]
        assert other.command("CLIENT", "UNBLOCK", number) == b":0\r\n"
        for how, reply in (("TIMEOUT", b"*-1\r\n"), ("ERROR", b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n")):
            conn.send(encode("BLPOP", "k", 0))
            way.blocked(1)
            assert other.command("CLIENT", "UNBLOCK", number, how) == b":1\r\n"
            assert conn.replies(1) == [reply]


def test_wait(way: Way) -> None:
    """It counts the mirror, or the other member."""
    others = 0 if way.mirror is None else 1
    with way.conn() as conn, way.conn() as other:
        conn.send(encode("SET", "k", 1) + encode("WAIT", others, 5_000))
        assert conn.replies(2) == [b"+OK\r\n", b":%d\r\n" % others]
        conn.send(encode("WAIT", others + 1, 300))
        assert other.command("PING") == b"+PONG\r\n", "who waits delays nobody"
        assert conn.replies(1) == [b":%d\r\n" % others]


def test_who_moves_to_a_key_of_another_type_is_told_when_there_is_something(way: Way) -> None:
    """A source of another type does not concern it; a target does, once there is something to be moved."""
    with way.conn() as conn, way.conn() as other:
        assert other.command("SET", "target", "string") == b"+OK\r\n"
        conn.send(encode("BRPOPLPUSH", "source", "target", 0))
        wait.until(lambda: b"\r\nblocked_clients:1\r\n" in other.command("INFO", "clients"), "it blocks")
        assert other.command("SET", "source", "string") == b"+OK\r\n"
        assert conn.silent_for(0.2)
        assert other.pipeline(("DEL", "source"), ("RPUSH", "source", "a", "b")) == [b":1\r\n", b":2\r\n"]
        assert conn.reply().startswith(b"-WRONGTYPE ")
        assert other.command("LRANGE", "source", 0, -1) == b"*2\r\n$1\r\na\r\n$1\r\nb\r\n"


@pytest.mark.parametrize("gone", [("DEL", "s"), ("SET", "s", 1), ("FLUSHALL",), ("XGROUP", "DESTROY", "s", "g")])
def test_a_stream_or_group_that_somebody_waits_for_is_gone(way: Way, gone: tuple[Any, ...]) -> None:
    with way.conn() as conn, way.conn() as other:
        assert other.command("XGROUP", "CREATE", "s", "g", "$", "MKSTREAM") == b"+OK\r\n"
        conn.send(encode("XREADGROUP", "GROUP", "g", "c", "BLOCK", 0, "STREAMS", "s", ">"))
        wait.until(lambda: b"\r\nblocked_clients:1\r\n" in other.command("INFO", "clients"), "it blocks")
        assert not other.command(*gone).startswith(b"-")
        assert b"no longer exists" in conn.reply()


@pytest.mark.parametrize("words", [("BLPOP", "a", "b", 0), ("BLMPOP", 0, 2, "a", "b", "LEFT", "COUNT", 5)])
def test_a_key_of_another_type_hides_no_other(way: Way, words: tuple[Any, ...]) -> None:
    with way.conn() as conn, way.conn() as other:
        conn.send(encode(*words))
        wait.until(lambda: b"\r\nblocked_clients:1\r\n" in other.command("INFO", "clients"), "it blocks")
        assert other.command("SET", "a", "string") == b"+OK\r\n"
        assert conn.silent_for(0.2)
        assert other.command("RPUSH", "b", "v") == b":1\r\n"
        assert conn.reply().endswith(b"$1\r\nv\r\n")
