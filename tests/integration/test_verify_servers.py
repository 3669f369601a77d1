"""``redisha.verify.compare`` and what a server is, allows, and how it fails."""

import asyncio
from typing import Any

import pytest

from redisha.verify import Counts, Options, Progress, Report, Server, ServerError, compare
from support.every_type import EXPIRY, KEYS, fill, run
from support.ports import free_port
from support.redis_server import RedisServer

QUICK = Options(passes=1, settle=0.01)


@pytest.fixture(scope="module")
def servers(module_redis_server) -> tuple[RedisServer, RedisServer]:
    """Two servers for all tests."""
    return module_redis_server(), module_redis_server()


@pytest.fixture
def pair(servers: tuple[RedisServer, RedisServer]) -> tuple[RedisServer, RedisServer]:
    """The two, empty."""
    for server in servers:
        server.wipe()
    return servers


def at(server: RedisServer, **options: Any) -> Server:
    return Server(server.address, **options)


async def verify(a: RedisServer, b: RedisServer, options: Options = QUICK) -> Report:
    return await compare(at(a), at(b), options)


def forbid(server: RedisServer, *commands: str) -> Server:
    """A user who may not run these commands."""
    rights = [f"-{command}" for command in commands]
    server.cli("ACL", "SETUSER", "limited", "reset", "on", ">secret", "~*", "&*", "+@all", *rights)
    return at(server, username="limited", password="secret")


@pytest.mark.parametrize(
    "commands", [("dump",), ("pexpiretime",), ("memory|usage",), ("dump", "pexpiretime", "memory|usage"), ("function",)]
)
async def test_commands_that_are_not_allowed_are_done_without(pair, commands: tuple[str, ...]) -> None:
    a, b = pair
    for server in pair:
        fill(server)
    report = await compare(at(a), forbid(b, *commands), QUICK)
    assert report.differences == []
    assert report.total == Counts(same=KEYS)
    assert ("refuses DUMP" in "".join(report.notes)) == ("dump" in commands)
    assert ("functions were not compared" in "".join(report.notes)) == ("function" in commands)
    run(b, ("SADD", "set", "more"), ("PEXPIREAT", "expiring", EXPIRY + 50))
    report = await compare(at(a), forbid(b, *commands), QUICK)
    assert report.total == Counts(same=KEYS - 2, different=2)


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("info", r"does not allow INFO to this user: .*; change its ACL"),
        ("scan", r"does not allow SCAN to this user"),
        ("lrange", r"does not allow LRANGE to this user"),
        ("select", r"does not allow SELECT to this user"),
    ],
)
async def test_commands_that_are_needed(pair, command: str, problem: str) -> None:
    a, b = pair
    for server in pair:
        fill(server)
        server.cli("RPUSH", "list", server.port)
    with pytest.raises(ServerError, match=f"{b.address} {problem}"):
        await compare(at(a), forbid(b, command), QUICK)


async def test_keys_that_are_not_allowed(pair) -> None:
    a, b = pair
    for server in pair:
        fill(server)
    b.cli("ACL", "SETUSER", "limited", "reset", "on", ">secret", "~other:*", "+@all")
    with pytest.raises(ServerError, match="does not allow PEXPIRETIME to this user: NOPERM"):
        await compare(at(a), at(b, username="limited", password="secret"), QUICK)


async def test_the_same_server_is_no_pair(pair, redis_server, relay) -> None:
    server = redis_server(unixsocket=True)
    socket, tunnel = Server(f"unix:{server.unixsocket}"), Server(f"127.0.0.1:{relay(server.port).port}")
    for other in (socket, tunnel, at(server)):
        with pytest.raises(ServerError, match="are the same server: both have run_id") as error:
            await compare(at(server), other)
        assert server.address in str(error.value)
        assert other.address in str(error.value)
    server.cli("SET", "k", "v")
    pair[0].cli("SET", "k", "v")
    assert (await compare(socket, at(pair[0]), QUICK)).total == Counts(same=1)


async def test_nobody_there(pair, redis_server) -> None:
    gone = redis_server()
    gone.kill()
    for address in (gone.address, "unix:/no/such.sock"):
        with pytest.raises(ServerError, match=f"{address} cannot be reached: .*is a Redis running there"):
            await compare(at(pair[0]), Server(address))
    assert ServerError.exit_code == 3


async def test_passwords(pair, redis_server) -> None:
    server: RedisServer = redis_server()
    server.cli("CONFIG", "SET", "requirepass", "right")
    with pytest.raises(ServerError, match="asks for a password: give it as"):
        await compare(at(pair[0]), at(server))
    with pytest.raises(ServerError, match="refuses the user or the password: WRONGPASS") as error:
        await compare(at(pair[0]), at(server, password="hunter2"))
    assert "hunter2" not in str(error.value)
    with pytest.raises(ServerError, match="without any password configured"):
        await compare(at(pair[0], password="hunter2"), at(server))
    assert (await compare(at(pair[0]), at(server, password="right"), QUICK)).equal
    assert (await compare(at(pair[0]), at(server, username="default", password="right"), QUICK)).equal


async def test_a_server_that_hangs_or_dies(pair, redis_server) -> None:
    server: RedisServer = redis_server()
    server.pause()
    try:
        with pytest.raises(ServerError, match=r"does not answer: nothing came within 0\.3 s"):
            await compare(at(pair[0]), at(server, reply_timeout=0.3))
    finally:
        server.resume()
    for each in (pair[0], server):
        each.cli("DEBUG", "POPULATE", 50_000, "key", 10)

    def kill(progress: Progress) -> None:
        server.kill()

    with pytest.raises(ServerError, match=f"the connection to {server.address} was lost"):
        await compare(at(pair[0]), at(server), QUICK, kill)


async def test_something_that_is_no_redis(pair) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with pytest.raises(ServerError, match=f"{address} does not speak Redis's protocol"):
        await compare(at(pair[0]), Server(address))
    server.close()
    await server.wait_closed()


async def test_loading(pair, redis_server) -> None:
    slow = {"key-load-delay": "20000", "loading-process-events-interval-bytes": "1024", "rdbcompression": "no"}
    server: RedisServer = redis_server(**slow)
    server.cli("EVAL", "for i = 1, 1000 do redis.call('SET', i, string.rep('x', math.random(200, 300))) end", 0)
    server.cli("SAVE")
    server.kill()
    start = asyncio.create_task(asyncio.to_thread(server.start))
    problem = ""
    async with asyncio.timeout(30):
        while "is loading its data: try again when it has it" not in problem:
            with pytest.raises(ServerError) as error:
                await compare(at(pair[0]), at(server))
            problem = str(error.value)
    with server.client() as client:
        client.config_set("key-load-delay", 0)
    await start


async def test_replicas_are_read(pair, redis_server) -> None:
    a, b = pair
    a.cli("CONFIG", "SET", "repl-diskless-sync-delay", 0)
    replica: RedisServer = redis_server(replicaof=f"{a.host} {a.port}")
    fill(a)
    fill(b)
    async with asyncio.timeout(20):
        while not _has_all(replica, a):  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)
    for options in ((at(a), at(replica)), (at(replica), at(b))):
        report = await compare(*options, Options(passes=5, settle=0.1))
        assert report.total == Counts(same=KEYS)
        assert report.notes == [f"{replica.address} is a replica of {a.address}"]


def _has_all(replica: RedisServer, master: RedisServer) -> bool:
    """The link is up before what was written during the first synchronization has been sent."""
    info = replica.cli("INFO", "replication")
    written = master.cli("INFO", "replication")["master_repl_offset"]
    return bool(info["master_link_status"] == "up" and info["slave_repl_offset"] >= written)


async def test_a_node_of_a_cluster_is_read(pair, redis_server) -> None:
    node: RedisServer = redis_server(cluster_enabled="yes", cluster_port=str(free_port()))
    node.cli("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    async with asyncio.timeout(20):
        with node.conn() as conn:
            while b"cluster_state:ok" not in conn.command("CLUSTER", "INFO"):  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.01)
    for server in (node, pair[0]):
        run(server, *(("SET", f"key:{number}", number) for number in range(500)))
    node.cli("SET", "extra", "x")
    assert (await verify(pair[0], node)).total == Counts(same=500, only_b=1)
    run(pair[0], ("SET", "two", "x"), db=2)
    report = await verify(pair[0], node)
    assert report.databases[2] == Counts(only_a=1)
    assert f"{node.address} has no database 2: raise 'databases' in its redis.conf" in report.notes


async def test_fewer_databases(pair, redis_server) -> None:
    few: RedisServer = redis_server(databases="2")
    run(pair[0], ("SET", "k", "v"), ("SET", "l", "v"), db=9)
    report = await verify(pair[0], few)
    assert report.total == Counts(only_a=2)
    assert report.notes == [f"{few.address} has no database 9: raise 'databases' in its redis.conf"]
    assert (await verify(few, pair[0])).total == Counts(only_b=2)
