"""Clients that replicate, where the sidecar does not decide what the Redis holds: a replica, ``redis-cli --rdb``."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support import configs, wait
from support.equality import assert_same
from support.redis_server import RedisServer
from support.sidecar import Sidecar
from support.wire import Conn, encode

Servers = Callable[..., RedisServer]
Sidecars = Callable[..., Sidecar]

AT_ONCE = {"repl_diskless_sync_delay": "0"}
"""The server does not wait for further replicas."""


def _link(server: RedisServer) -> str:
    return str(server.client().info("replication").get("master_link_status"))


def test_a_replica_follows_through_the_sidecar(redis_server: Servers, sidecar: Sidecars) -> None:
    master, replica = redis_server(**AT_ONCE), redis_server()
    proxy = sidecar(configs.pass_through(master.address))
    master.client().set("before", "x" * 3_000_000)
    replica.client().replicaof("127.0.0.1", proxy.port)
    wait.until(lambda: _link(replica) == "up", "the replica follows")
    with Conn(proxy.port) as conn:
        for i in range(2_000):
            conn.send(encode("SET", f"key:{i}", "v" * 1_000))
        assert conn.replies(2_000) == [b"+OK\r\n"] * 2_000
        assert conn.command("WAIT", 1, 5_000) == b":1\r\n"
    assert_same(master, replica, within=10)


def test_a_replica_comes_back_and_gets_only_what_it_missed(redis_server: Servers, sidecar: Sidecars) -> None:
    master, replica = redis_server(**AT_ONCE), redis_server()
    proxy = sidecar(configs.pass_through(master.address))
    replica.client().replicaof("127.0.0.1", proxy.port)
    wait.until(lambda: _link(replica) == "up", "the replica follows")
    proxy.stop()
    wait.until(lambda: _link(replica) == "down", "the sidecar's end is seen")
    master.client().set("missed", 1)
    proxy.start()
    wait.until(lambda: _link(replica) == "up", "it follows again")
    assert master.client().info("stats")["sync_partial_ok"] == 1
    assert replica.client().get("missed") == b"1"


def test_who_reads_slowly_gets_all(redis_server: Servers, sidecar: Sidecars, tmp_path: Path) -> None:
    """A data set of 40 MB, read by one that stops for a while: the sidecar holds little of it meanwhile."""
    master = redis_server(**AT_ONCE)
    for i in range(40):
        master.client().set(f"large:{i}", bytes([i]) * 1_000_000)
    master.client().config_set("rdbcompression", "no")
    proxy = sidecar(configs.pass_through(master.address))
    before = proxy.memory_bytes()
    with Conn(proxy.port) as conn:
        conn.send(encode("SYNC"))
        wait.until(lambda: master.client().info("replication")["connected_slaves"] == 1, "it is sent")
        time.sleep(1)  # it is the pause that is tested
        assert proxy.memory_bytes() < before + 10_000_000
        with conn.socket.makefile("rb") as stream:
            header = stream.readline().strip()
            while not header:  # the server says that it is alive
                header = stream.readline().strip()
            dump = stream.read(int(header[1:]))
    target = tmp_path / "dump.rdb"
    target.write_bytes(dump)
    checked = subprocess.run(["redis-check-rdb", str(target)], capture_output=True, text=True, timeout=30)
    assert checked.returncode == 0, checked.stdout
    assert "40 keys read" in checked.stdout


def test_a_dump_by_redis_cli(redis_server: Servers, sidecar: Sidecars, tmp_path: Path) -> None:
    master = redis_server(**AT_ONCE)
    master.client().mset({f"key:{i}": i for i in range(1_000)})
    proxy = sidecar(configs.pass_through(master.address))
    target = tmp_path / "dump.rdb"
    command = ["redis-cli", "-p", str(proxy.port), "--rdb", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert target.read_bytes().startswith(b"REDIS")
    with Conn(proxy.port) as conn:
        assert conn.command("DBSIZE") == b":1000\r\n"


@pytest.mark.parametrize("words", [("SYNC",), ("PSYNC", "?", "-1"), ("REPLCONF", "listening-port", "1")])
def test_where_writes_are_mirrored_it_is_refused(
    redis_server: Servers, sidecar: Sidecars, words: tuple[str, ...]
) -> None:
    proxy = sidecar(configs.mirrored(redis_server().address, redis_server().address))
    with Conn(proxy.port) as conn:
        assert conn.command(*words).startswith(b"-ERR '" + words[0].lower().encode() + b"' is refused")
        assert conn.command("PING") == b"+PONG\r\n"


@pytest.mark.parametrize("command", [("SYNC",), ("PSYNC", "?", "-1")], ids=["sync", "psync"])
def test_who_replicates_is_no_command_in_flight(
    redis_server: Servers, sidecar: Sidecars, command: tuple[str, ...]
) -> None:
    """Once each that had come and gone was counted as a command without its reply for ever."""
    proxy = sidecar(configs.pass_through(redis_server(**AT_ONCE).address))

    def active() -> int:
        return int(proxy.stats()["listeners"][0]["downstream_rq_active"])

    for _ in range(2):
        with Conn(proxy.port) as conn:
            conn.send_command(*command)
            assert not conn.silent_for(5)
    wait.until(lambda: active() == 0, "nothing is in flight")
    with Conn(proxy.port) as conn:
        conn.send_command("BLPOP", "k", 0)
        wait.until(lambda: active() == 1, "one is")
