"""The two Envoy files of the article that redisha was made for, run unchanged but for hosts and ports."""

import threading

import pytest

from support import wait
from support.compare import assert_equal
from support.load import Mixed
from support.seed import envoy_file
from support.wire import Conn


@pytest.mark.parametrize("seed", [1, 2])
def test_pair(redis_server, sidecar, seed: int) -> None:
    """Two sidecars, each with its own Redis and mirroring to the other's; keys written on one side only."""
    one, two = redis_server(), redis_server()
    first = sidecar(envoy_file("envoy-pair.yaml", {"redis-envoy-001": one.port, "redis-envoy-002": two.port}))
    # The other member's file has the two names in each other's place.
    second = sidecar(envoy_file("envoy-pair.yaml", {"redis-envoy-001": two.port, "redis-envoy-002": one.port}))

    def write(port: int, prefix: str, seed: int) -> None:
        mixed = Mixed(seed, prefix=prefix)
        with Conn(port, timeout=20) as conn:
            for _ in range(100):
                conn.pipeline(*mixed.batch(30))

    writers = [
        threading.Thread(target=write, args=(first.port, "a:", seed)),
        threading.Thread(target=write, args=(second.port, "b:", seed + 100)),
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(50)
        assert not writer.is_alive()
    assert assert_equal(one, two) > 200


def test_prefixes(redis_server, sidecar) -> None:
    """Writes go to the master, and by prefix to one of two copies; other keys have no route."""
    master, departments, employees = redis_server(), redis_server(), redis_server()
    places = {
        "redis-master": master.port,
        "redis-departments": departments.port,
        "redis-employees": employees.port,
    }
    proxy = sidecar(envoy_file("envoy-prefix.yaml", places))
    with proxy.conn() as conn:
        for number in range(50):
            conn.pipeline(
                ("HSET", f"departments:{number}", "name", f"d{number}"),
                ("SET", f"employees:{number}", f"e{number}"),
                ("EXPIRE", f"employees:{number}", 1000),
                ("INCR", "departments"),
            )
        assert conn.command("SET", "others:1", "x").startswith(b"-")
        assert conn.command("GET", "employees:7") == b"$2\r\ne7\r\n"
    wait.until(lambda: departments.cli("DBSIZE") == 51 and employees.cli("DBSIZE") == 50, "the copies are complete")
    assert master.cli("DBSIZE") == 101
    assert set(departments.cli("KEYS", "*")) == {b"departments", *(b"departments:%d" % number for number in range(50))}
    assert employees.cli("PEXPIRETIME", "employees:7") == master.cli("PEXPIRETIME", "employees:7")
    assert departments.cli("HGETALL", "departments:7") == {b"name": b"d7"}
