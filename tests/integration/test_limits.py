"""What a listener bounds, and what one client's manners cost the others: nothing."""

import time

import pytest

import redis
from support import configs, wait
from support.compare import assert_equal
from support.redis_server import RedisServer
from support.wire import encode

MIB = 1 << 20


@pytest.fixture
def server(redis_server) -> RedisServer:
    """The Redis behind."""
    return redis_server()


def listener(proxy) -> dict:
    """The counters of the only listener."""
    [found] = proxy.stats()["listeners"]
    return found


def test_max_clients(sidecar, server: RedisServer) -> None:
    """One client too many gets Redis's own error and the end; the others go on."""
    proxy = sidecar(configs.pass_through(server.address) | {"limits": {"max_clients": 2}})
    with proxy.conn() as one, proxy.conn() as two:
        assert one.command("PING") == two.command("PING") == b"+PONG\r\n"
        with proxy.conn() as third:
            assert third.until_closed() == b"-ERR max number of clients reached\r\n"
        assert one.command("SET", "k", 1) == b"+OK\r\n"
    assert listener(proxy)["downstream_cx_max_clients"] == 1


def test_idle_timeout(sidecar, server: RedisServer) -> None:
    """A silent client is closed; one that speaks is not."""
    proxy = sidecar(configs.pass_through(server.address) | {"limits": {"idle_timeout": "1500ms"}})
    with proxy.conn() as silent, proxy.conn() as talking:
        end = time.monotonic() + 10
        while listener(proxy)["downstream_cx_idle_timeout"] == 0:
            assert talking.command("PING") == b"+PONG\r\n"
            assert time.monotonic() < end
        assert silent.until_closed() == b""
        assert talking.command("PING") == b"+PONG\r\n"


def test_handshake_timeout(sidecar, server: RedisServer) -> None:
    """Where a password is asked, who does not give it in time is closed."""
    config = configs.pass_through(server.address) | {"limits": {"handshake_timeout": "500ms"}}
    config["listeners"][0]["auth"] = {"passwords": ["secret"]}
    proxy = sidecar(config)
    with proxy.conn() as stranger, proxy.conn() as friend:
        assert friend.command("AUTH", "secret") == b"+OK\r\n"
        assert stranger.command("GET", "k") == b"-NOAUTH Authentication required.\r\n"
        assert stranger.until_closed() == b""
        assert friend.command("GET", "k") == b"$-1\r\n"
    assert listener(proxy)["downstream_cx_handshake_timeout"] == 1


@pytest.mark.parametrize(
    "data", [b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", encode("Host:"), encode("MULTI") + encode("post")]
)
def test_http_ends_its_own_connection_only(sidecar, redis_server, data: bytes) -> None:
    """Redis hangs up on POST and Host:. Once they were forwarded, and every client's connection broke."""
    primary, mirror = redis_server(), redis_server()
    proxy = sidecar(configs.mirrored(primary.address, mirror.address))
    with proxy.conn() as other:
        assert other.command("SET", "k", 1) == b"+OK\r\n"
        for _ in range(5):
            with proxy.conn() as browser:
                browser.send(data)
                assert browser.until_closed() in (b"", b"+OK\r\n")
            assert other.command("INCR", "k").startswith(b":")
    assert proxy.stats()["replicas"][0]["lost_total"] == 0


def test_large_reply_to_a_client_that_reads(sidecar, server: RedisServer) -> None:
    """``max_output`` is for those who do not read: once a reply larger than it could not be had at all."""
    value = bytes(range(256)) * (80 * MIB // 256)
    client = redis.Redis(port=server.port)
    client.set("large", value)
    proxy = sidecar(configs.pass_through(server.address) | {"limits": {"max_output": "8MB"}})
    for protocol in (2, 3):
        with proxy.client(protocol=protocol, retry=None) as reader:
            assert reader.get("large") == value


def test_reply_skip_and_on(sidecar, server: RedisServer) -> None:
    """CLIENT REPLY ON answers, even as the command that a SKIP would have silenced."""
    proxy = sidecar(configs.pass_through(server.address))
    with proxy.conn() as conn:
        conn.send(encode("CLIENT", "REPLY", "SKIP") + encode("CLIENT", "REPLY", "ON") + encode("PING"))
        assert conn.replies(2) == [b"+OK\r\n", b"+PONG\r\n"]
        conn.send(encode("CLIENT", "REPLY", "SKIP") + encode("SET", "k", 1) + encode("GET", "k"))
        assert conn.reply() == b"$1\r\n1\r\n"


def test_all_keys_behind_several_routes_to_one_redis(sidecar, redis_server) -> None:
    """FLUSHALL goes to the mirrors of all routes. Once it was refused as a command of unknown keys."""
    primary, left, right = redis_server(), redis_server(), redis_server()
    config = configs.mirrored(primary.address, left.address)
    config["clusters"]["right"] = configs.cluster(right.address)
    [route] = config["listeners"][0]["routes"]
    config["listeners"][0]["routes"].append(
        {"prefix": "r:", "cluster": route["cluster"], "mirrors": [{"cluster": "right", "reads": "exclude"}]}
    )
    proxy = sidecar(config)
    with proxy.conn() as conn:
        assert conn.pipeline(("SET", "a", 1), ("SET", "r:a", 1)) == [b"+OK\r\n"] * 2
        wait.until(lambda: left.cli("DBSIZE") == right.cli("DBSIZE") == 1, "each mirror has its key")
        # A command without keys inside MULTI does not take the transaction to other mirrors.
        assert conn.pipeline(("MULTI",), ("PING",), ("SET", "r:b", 1), ("EXEC",))[-1].startswith(b"*2")
        wait.until(lambda: right.cli("DBSIZE") == 2, "the right mirror has it")
        assert left.cli("DBSIZE") == 1
        assert conn.command("FLUSHALL") == b"+OK\r\n"
    wait.until(lambda: left.cli("DBSIZE") == right.cli("DBSIZE") == 0, "both mirrors are empty")


def test_select_that_an_acl_forbids(sidecar, redis_server) -> None:
    """A mirror's user without SELECT: said, and neither a busy loop nor the end of mirroring in db 0."""
    primary, mirror = redis_server(), redis_server()
    mirror.cli("ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-select")
    settings = {"auth": {"username": "app", "password": "pw"}}
    proxy = sidecar(configs.mirrored(primary.address, mirror.address, mirror_settings=settings))
    with proxy.conn() as conn:
        conn.pipeline(("SELECT", 1), ("SET", "k", 1), ("SELECT", 0), ("SET", "k", 0))
    wait.until(lambda: mirror.cli("GET", "k") == b"0", "db 0 is mirrored")
    [replica] = proxy.stats()["replicas"]
    assert replica["lost_total"] == 1
    assert mirror.cli("INFO", "commandstats").get("cmdstat_select", {}).get("rejected_calls", 0) < 20


def test_log_is_bounded_with_a_slow_mirror(sidecar, redis_server, relay) -> None:
    """A mirror that acknowledges, but slower than writes come: once the log grew without bound."""
    primary, mirror = redis_server(), redis_server()
    slow = relay(mirror.port)
    slow.delay(0.3)
    config = configs.mirrored(primary.address, f"127.0.0.1:{slow.port}") | {"limits": {"log_bytes": "2MB"}}
    proxy = sidecar(config)
    with proxy.conn() as conn:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            conn.pipeline(*[("SET", f"k{i}", b"x" * 4096) for i in range(200)])
            [log] = proxy.stats()["logs"]
            assert log["bytes"] < 24 * MIB, "2 MB, and the window of 4096 effects of 4 KB"


def test_mirror_whose_name_resolves_late(redis_server) -> None:
    """What a mirror misses while its name does not resolve waits in the log. Once it was lost, and nobody said so."""
    import json

    from redisha._core import Core

    primary, mirror = redis_server(), redis_server()

    def plan(generation: int, address: str | None) -> bytes:
        bounds = {"max_clients": 10, "max_request": MIB, "max_output": MIB, "memory_bytes": 64 * MIB, "log_bytes": MIB}
        common = {
            "balance": "maglev",
            "hash_tags": False,
            "connect_timeout_ms": 250,
            "op_timeout_ms": 5000,
            "username": None,
            "password": None,
        }
        route = {"prefix": "", "remove_prefix": False, "cluster": "a"}
        mirrors = [{"cluster": "b", "reads": "exclude"}]
        return json.dumps(
            {
                "generation": generation,
                "limits": bounds | {"idle_timeout_ms": 0, "handshake_timeout_ms": 0},
                "listeners": [
                    {
                        "name": "l",
                        "bind": ["127.0.0.1:0"],
                        "users": [],
                        "case_insensitive": False,
                        "routes": [route | {"mirrors": mirrors}],
                    }
                ],
                "clusters": [
                    {"name": "a", "endpoints": [{"id": "a:1", "address": primary.address}]} | common,
                    {"name": "b", "endpoints": [{"id": "b:1", "address": address}]} | common,
                ],
            }
        ).encode()

    core = Core()
    try:
        core.apply(plan(1, None))
        [(_, bound)] = core.listeners()
        with redis.Redis(port=int(bound.rsplit(":", 1)[1])) as client:
            for number in range(500):
                client.set(f"before{number}", number)
            core.apply(plan(2, mirror.address))
            client.set("after", 1)
        wait.until(lambda: mirror.cli("DBSIZE") == 501, "the mirror has what it missed")
        assert_equal(primary, mirror)
    finally:
        assert core.join(5000)


def test_reads_that_a_mirror_misses_are_no_loss(sidecar, redis_server) -> None:
    """With ``reads: include`` a mirror that is away misses reads, too. Once they made it ``diverged``."""
    primary, mirror = redis_server(), redis_server()
    config = configs.mirrored(primary.address, mirror.address) | {"limits": {"log_bytes": "100KB"}}
    config["listeners"][0]["routes"][0]["mirrors"][0]["reads"] = "include"
    proxy = sidecar(config)
    wait.until(lambda: proxy.stats()["replicas"][0]["state"] == "in_sync", "the mirror is there")
    mirror.kill()
    wait.until(lambda: proxy.stats()["replicas"][0]["state"] == "down", "the mirror is away")
    with proxy.conn() as conn:
        for _ in range(30):
            conn.pipeline(*[("GET", "k")] * 300)
    assert proxy.stats()["logs"][0]["overflow_total"] > 0
    assert proxy.stats()["replicas"][0]["lost_total"] == 0


def test_long_reply_of_a_write_is_not_a_difference(sidecar, redis_server) -> None:
    """The reply of a GETSET that was streamed is not compared. Once each made a false alarm and a copy of the key."""
    primary, mirror = redis_server(), redis_server()
    proxy = sidecar(configs.mirrored(primary.address, mirror.address))
    with proxy.conn() as conn:
        for _ in range(5):
            conn.command("GETSET", "k", b"x" * 300_000)
    assert_equal(primary, mirror)
    wait.until(lambda: proxy.stats()["replicas"][0]["lag"] == 0, "all is acknowledged")
    assert proxy.stats()["replicas"][0]["differ_total"] == 0


def test_server_that_stops_in_the_middle_of_a_long_reply(sidecar, server: RedisServer) -> None:
    """Who waits behind half a reply is told at ``op_timeout``. Once nobody on that connection ever was."""
    redis.Redis(port=server.port).set("large", b"x" * (60 * MIB))
    proxy = sidecar(configs.pass_through(server.address, op_timeout="500ms"))
    with proxy.conn() as slow, proxy.conn() as other:
        slow.send(encode("GET", "large"))
        slow.socket.recv(1)
        server.pause()
        try:
            other.send_command("GET", "k")
            assert other.reply(timeout=5).startswith((b"-INDOUBT", b"-TIMEOUT", b"$-1"))
        finally:
            server.resume()
