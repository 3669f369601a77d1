"""Today's clients with their default settings."""

import asyncio
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError

import pytest
import redis.asyncio
from redis._parsers.resp2 import _RESP2Parser
from redis._parsers.resp3 import _RESP3Parser

import redis
from support import configs
from support.redis_server import RedisServer
from support.sidecar import Sidecar


@pytest.fixture(scope="module")
def server(module_redis_server) -> RedisServer:
    """The Redis behind."""
    return module_redis_server()


@pytest.fixture(scope="module")
def mirror(module_redis_server) -> RedisServer:
    """Its copy."""
    return module_redis_server()


@pytest.fixture(scope="module", params=["direct", "pass-through", "mirrored"])
def port(request: pytest.FixtureRequest, server: RedisServer) -> int:
    """Redis itself (which shows that the test is right), and the sidecar in both modes."""
    if request.param == "direct":
        return server.port
    start = request.getfixturevalue("module_sidecar")
    if request.param == "pass-through":
        proxy: Sidecar = start(configs.pass_through(server.address))
    else:
        proxy = start(configs.mirrored(server.address, request.getfixturevalue("mirror").address))
    return proxy.port


def test_redis_py_defaults(port: int) -> None:
    """Connect, and use each data type."""
    with redis.Redis(port=port) as client:
        client.flushall()
        assert client.ping()
        assert client.set("k", "v", ex=1000)
        assert client.get("k") == b"v"
        assert 990 <= client.ttl("k") <= 1000
        assert client.hset("h", mapping={"a": 1, "b": 2}) == 2
        assert client.hgetall("h") == {b"a": b"1", b"b": b"2"}
        assert client.zadd("z", {"m": 1.5}) == 1
        assert client.zscore("z", "m") == 1.5
        assert client.sadd("s", 1, 2) == 2
        assert client.smembers("s") == {b"1", b"2"}
        assert client.rpush("l", 1, 2, 3) == 3
        assert client.lrange("l", 0, -1) == [b"1", b"2", b"3"]
        assert client.xlen("x") == 0
        assert client.xadd("x", {"f": "v"})
        assert sorted(client.scan_iter()) == [b"h", b"k", b"l", b"s", b"x", b"z"]
        assert client.eval("return redis.call('incr', KEYS[1])", 1, "n") == 1
        assert client.register_script("return ARGV[1]")(args=["hi"]) == b"hi"
        assert client.dbsize() == 7
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            client.incr("l")
        assert client.info("server")["redis_version"]


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("decode", [False, True])
def test_redis_py_protocols(port: int, protocol: int, decode: bool) -> None:
    """Both protocols, bytes and text, another database and a name for the connection."""
    with redis.Redis(port=port, protocol=protocol, decode_responses=decode, db=2, client_name="tests") as client:
        client.flushdb()
        text = "한국어"
        assert client.set("k", text)
        assert client.get("k") == (text if decode else text.encode())
        assert client.client_getname() in ("tests", b"tests")
        assert client.hset("h", "f", "v") == 1
        assert client.hgetall("h") == ({"f": "v"} if decode else {b"f": b"v"})


@pytest.mark.parametrize("transaction", [True, False])
def test_redis_py_pipeline(port: int, transaction: bool) -> None:
    """Pipelines, with and without a transaction, and an error in the middle."""
    with redis.Redis(port=port) as client:
        client.flushall()
        with client.pipeline(transaction=transaction) as pipe:
            for number in range(500):
                pipe.set(f"k{number}", number)
                pipe.incr("n")
            replies = pipe.execute()
        assert replies == [reply for number in range(1, 501) for reply in (True, number)]
        with client.pipeline(transaction=transaction) as pipe:
            pipe.set("s", "text").lpush("s", 1).incr("n")
            first, wrong, last = pipe.execute(raise_on_error=False)
        assert first is True
        assert isinstance(wrong, redis.ResponseError)
        assert last == 501


@pytest.mark.parametrize("parser", [_RESP2Parser, _RESP3Parser])
def test_redis_py_pure_python_parsers(port: int, parser: type) -> None:
    """redis-py's own parsers; the other tests use hiredis, which it takes when it is there."""
    protocol = 3 if parser is _RESP3Parser else 2
    pool = redis.ConnectionPool(port=port, parser_class=parser, protocol=protocol)
    with redis.Redis(connection_pool=pool) as client:
        client.set("k", b"x" * 100_000)
        assert client.get("k") == b"x" * 100_000
    pool.disconnect()


def test_redis_py_asyncio(port: int) -> None:
    """Fifty tasks on a pool of connections count without losing one."""

    async def count() -> None:
        async with redis.asyncio.Redis(port=port) as client:
            await client.flushall()

            async def work() -> None:
                for _ in range(20):
                    await client.incr("n")
                    async with client.pipeline(transaction=True) as pipe:
                        pipe.incr("m")
                        pipe.get("m")
                        incremented, got = await pipe.execute()
                        assert int(got) == incremented

            await asyncio.gather(*(work() for _ in range(50)))
            assert await client.mget("n", "m") == [b"1000", b"1000"]

    asyncio.run(count())


def test_redis_py_many_connections(port: int) -> None:
    """Two hundred connections at the same time."""
    clients = [redis.Redis(port=port, single_connection_client=True) for _ in range(200)]
    try:
        for number, client in enumerate(clients):
            client.set(f"many{number}", number)
        assert [client.get(f"many{number}") for number, client in enumerate(clients)] == [b"%d" % n for n in range(200)]
    finally:
        for client in clients:
            client.close()


@pytest.mark.parametrize("arguments", [[], ["-3"], ["-n", "1"]])
def test_redis_cli(port: int, arguments: list[str]) -> None:
    """redis-cli, one command after the other from its standard input."""
    script = "SET k v\nGET k\nHSET h f v\nHGETALL h\nNOSUCH\nINCRBY n 5\nDEL h n\n"
    done = subprocess.run(
        ["redis-cli", "-p", str(port), *arguments], input=script, capture_output=True, text=True, timeout=20, check=True
    )
    lines = done.stdout.split("\n")
    assert lines[:2] == ["OK", "v"]
    assert any("unknown command" in line for line in lines)


def test_redis_cli_pipe_mode(port: int, server: RedisServer) -> None:
    """``redis-cli --pipe``: mass insertion, which ends with an ECHO of a random text."""
    data = "".join(f"SET pipe{number} {number}\r\n" for number in range(5_000))
    done = subprocess.run(
        ["redis-cli", "-p", str(port), "--pipe"], input=data, capture_output=True, text=True, timeout=30, check=True
    )
    assert "errors: 0, replies: 5000" in done.stdout
    assert server.cli("GET", "pipe4999") == b"4999"


@pytest.mark.skipif(shutil.which("redis-benchmark") is None, reason="redis-benchmark is not installed")
@pytest.mark.parametrize("arguments", [[], ["-P", "16"], ["-3"], ["-r", "1000", "--dbnum", "3"]], ids=" ".join)
def test_redis_benchmark(port: int, arguments: list[str]) -> None:
    """redis-benchmark's own workloads run to their end."""
    done = subprocess.run(
        ["redis-benchmark", "-p", str(port), "-n", "2000", "-c", "20", "--csv", *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith('"') and "rps" not in line]
    assert len(rows) >= 15


def test_redis_py_client_list_and_kill(port: int) -> None:
    """What redis-py reads from CLIENT LIST, and whom its CLIENT KILL ends."""
    with (
        redis.Redis(port=port, client_name="watcher") as client,
        redis.Redis(port=port, client_name="victim") as victim,
    ):
        victim_id = victim.client_id()
        listed = {int(one["id"]): one for one in client.client_list(_type="normal")}
        assert {listed[victim_id]["name"], listed[client.client_id()]["name"]} == {"victim", "watcher"}
        assert listed[victim_id]["cmd"] == "client|id"
        assert listed[victim_id]["laddr"] == f"127.0.0.1:{port}"
        assert [one["name"] for one in client.client_list(client_id=[str(victim_id)])] == ["victim"]
        assert client.client_list(_type="pubsub") == []
        info = client.client_info()
        assert (info["name"], info["db"], info["user"]) == ("watcher", 0, "default")
        assert client.client_kill_filter(_id=str(victim_id), laddr="1.2.3.4:5") == 0
        assert client.client_kill_filter(addr=listed[victim_id]["addr"], user="default") == 1
        assert victim.client_id() != victim_id, "it came back on another connection"
        with pytest.raises(redis.ResponseError, match="No such client"):
            client.client_kill(listed[victim_id]["addr"])
        assert client.client_tracking_off() in (True, b"OK", "OK")
        assert client.client_getredir() == -1
        assert client.client_unblock(victim.client_id()) is False


def test_redis_py_pauses(port: int) -> None:
    """A pause of writes, ended by hand; a pause of everything, ended by time; the reply comes when it is over."""
    with (
        redis.Redis(port=port) as client,
        redis.Redis(port=port, socket_timeout=10) as writer,
        ThreadPoolExecutor(1) as background,
    ):
        client.set("paused", "before")
        writer.ping()
        assert client.client_pause(100_000, all=False)
        write = background.submit(writer.set, "paused", "after")
        with pytest.raises(FutureTimeoutError):
            write.result(0.2)
        assert client.get("paused") == b"before"
        assert client.client_unpause()
        assert write.result(10)
        assert client.get("paused") == b"after"

        begun = time.monotonic()
        assert client.client_pause(300)
        assert writer.get("paused") == b"after"
        assert 0.25 <= time.monotonic() - begun < 5


def test_redis_py_transaction_with_client_commands(port: int) -> None:
    """A pipeline that asks about its connection between its writes."""
    with redis.Redis(port=port, client_name="me") as client:
        client.delete("n")
        with client.pipeline(transaction=True) as pipe:
            pipe.incr("n").client_getname().client_setname("you").incr("n").client_getname()
            name, changed = "me", "you"
            assert [one.decode() if isinstance(one, bytes) else one for one in pipe.execute()] == [
                1,
                name,
                True,
                2,
                changed,
            ]
