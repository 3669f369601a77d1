"""Mirrors that get a part of the commands: a sample, and no copy."""

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from conftest import RedisFactory, SidecarFactory
from redisha.cli.status import status
from support import configs, wait
from support.redis_server import RedisServer
from support.sidecar import Sidecar

MANY = 10_000


def sampled(primary: RedisServer, mirror: RedisServer, fraction: float, reads: str = "exclude") -> configs.Config:
    """A route whose mirror gets so many per cent."""
    config = configs.mirrored(primary.address, mirror.address)
    config["listeners"][0]["routes"][0]["mirrors"][0] |= {"fraction": fraction, "reads": reads}
    return config


def replica(proxy: Sidecar) -> dict[str, object]:
    """What is counted of the one mirror."""
    (found,) = proxy.stats()["replicas"]
    return found


def connected(proxy: Sidecar) -> None:
    """Wait until primary and mirror are there."""
    wait.until(lambda: [each["state"] for each in proxy.stats()["endpoints"]] == ["ready"] * 2, "connections")


def given(proxy: Sidecar) -> int:
    """How many commands the mirror was given, once it has answered them all."""

    def done() -> int | None:
        counted = replica(proxy)
        return None if counted["sent_total"] != counted["acked_total"] else int(str(counted["sent_total"])) + 1

    return wait.until(done, "the mirror's answers") - 1


@pytest.mark.parametrize("fraction", [30, 0.5, 99])
def test_it_gets_its_part(redis_server: RedisFactory, sidecar: SidecarFactory, fraction: float) -> None:
    primary, mirror = redis_server(), redis_server()
    proxy = sidecar(sampled(primary, mirror, fraction))
    connected(proxy)
    with proxy.client() as client:
        pipe = client.pipeline(transaction=False)
        for n in range(MANY):
            pipe.set(f"key:{n}", n, ex=1000)
            pipe.get(f"key:{n}")
        assert all(pipe.execute())
    got, part = given(proxy), fraction / 100
    assert mirror.client().dbsize() == got
    # More than six standard deviations of a binomial distribution: once in 500 million runs.
    assert abs(got - MANY * part) < 6.5 * math.sqrt(MANY * part * (1 - part)) + 1
    assert int(mirror.client().info("commandstats").get("cmdstat_get", {}).get("calls", 0)) == 0
    assert primary.client().dbsize() == MANY


def test_reads_may_be_of_the_sample(redis_server: RedisFactory, sidecar: SidecarFactory) -> None:
    primary, mirror = redis_server(), redis_server()
    proxy = sidecar(sampled(primary, mirror, 50, reads="include"))
    connected(proxy)
    with proxy.client() as client:
        for n in range(2000):
            client.get(f"key:{n}")
    got = given(proxy)
    assert abs(got - 1000) < 6.5 * math.sqrt(500)
    assert mirror.client().info("commandstats")["cmdstat_get"]["calls"] == got


def test_a_transaction_is_there_whole_or_not_at_all(redis_server: RedisFactory, sidecar: SidecarFactory) -> None:
    primary, mirror = redis_server(), redis_server()
    proxy = sidecar(sampled(primary, mirror, 50))
    connected(proxy)
    with proxy.client(db=2) as client:
        for n in range(400):
            pipe = client.pipeline(transaction=True)
            for name in ("a", "b", "c"):
                pipe.set(f"{name}:{n}", n)
            assert pipe.execute() == [True] * 3
    got = given(proxy)
    keys = set(mirror.client(db=2).keys("*"))
    assert len(keys) == 3 * got
    for n in range(400):
        assert len(keys & {f"{name}:{n}".encode() for name in "abc"}) in (0, 3)
    assert abs(got - 200) < 6.5 * 10
    assert primary.client(db=2).dbsize() == 1200


def test_a_command_in_parts_is_drawn_once(redis_server: RedisFactory, sidecar: SidecarFactory) -> None:
    servers, mirror = [redis_server(), redis_server()], redis_server()
    config = sampled(servers[0], mirror, 50)
    config["clusters"]["redis-001"]["endpoints"] = [each.address for each in servers]
    proxy = sidecar(config)
    wait.until(lambda: [each["state"] for each in proxy.stats()["endpoints"]] == ["ready"] * 3, "connections")
    with proxy.client() as client:
        for n in range(300):
            client.mset({f"key:{n}:{i}": i for i in range(8)})
    wait.until(
        lambda: all(each["sent_total"] == each["acked_total"] for each in proxy.stats()["replicas"]), "its answers"
    )
    keys = set(mirror.client().keys("*"))
    found = [len(keys & {f"key:{n}:{i}".encode() for i in range(8)}) for n in range(300)]
    assert set(found) == {0, 8}
    assert abs(found.count(8) - 150) < 6.5 * math.sqrt(75)


def test_nothing_counts_on_it(redis_server: RedisFactory, sidecar: SidecarFactory) -> None:
    primary, mirror = redis_server(), redis_server()
    mirror.client().set("its own", 1)
    proxy = sidecar(sampled(primary, mirror, 50))
    connected(proxy)
    with proxy.client() as client:
        for n in range(100):
            client.set(f"key:{n}", n)
        assert client.wait(1, 50) == 0, "it is no copy that WAIT may count"
        # What a sequencer would hold back works as on one Redis: BLPOP, scripts, WATCH.
        client.rpush("list", "a")
        assert client.blpop("list", timeout=5) == (b"list", b"a")
        assert client.config_set("maxmemory-samples", "7") is True
    counted = replica(proxy)
    assert (counted["state"], counted["dirty_buckets"], counted["resync_runs_total"]) == ("sampled", 0, 0)
    assert mirror.client().get("its own") == b"1"
    assert mirror.client().config_get("maxmemory-samples") == {"maxmemory-samples": "5"}
    assert mirror.client().execute_command("FUNCTION", "LIST") == [], "it has no marker"
    (shown,) = json.loads(proxy.get("/replicas?format=json"))["replicas"]
    assert (shown["state"], shown["scrub"]) == ("sampled", None)
    told = CliRunner().invoke(status, ["--admin", f"127.0.0.1:{proxy.admin_port}"])
    assert told.exit_code == 0, "a sampled mirror need not be in sync"
    assert "redis-002/" in told.output
    assert "  sampled" in told.output
    assert "a part of the commands: " in told.output
    assert ".in_sync" not in proxy.get("/stats").decode()


def test_what_comes_while_it_is_away_is_dropped(redis_server: RedisFactory, sidecar: SidecarFactory) -> None:
    primary, mirror = redis_server(), redis_server()
    proxy = sidecar(sampled(primary, mirror, 99.9999))
    connected(proxy)
    mirror.stop()
    wait.until(lambda: str(replica(proxy)["reason"]).startswith("down"), "the loss of the mirror")
    with proxy.client() as client:
        for n in range(100):
            assert client.set(f"key:{n}", n)
        assert int(str(replica(proxy)["lost_total"])) > 90
        mirror.start()
        connected(proxy)
        for n in range(100, 200):
            assert client.set(f"key:{n}", n)
    got = given(proxy)
    assert mirror.client().dbsize() == got > 90
    assert not mirror.client().exists("key:0")
    assert primary.client().dbsize() == 200


def test_nothing_is_sent_of_nothing(redis_server: RedisFactory, sidecar: SidecarFactory) -> None:
    primary, mirror = redis_server(), redis_server()
    proxy = sidecar(sampled(primary, mirror, 0))
    with proxy.client() as client:
        for n in range(100):
            client.set(f"key:{n}", n)
    assert mirror.client().dbsize() == 0
    assert proxy.stats()["replicas"] == []


def test_what_was_a_part_over_a_restart_is_no_copy(
    redis_server: RedisFactory, sidecar: SidecarFactory, tmp_path: Path
) -> None:
    primary, mirror = redis_server(), redis_server()
    whole, part = configs.mirrored(primary.address, mirror.address), sampled(primary, mirror, 50)
    for turn, config in enumerate((whole, part, whole)):
        proxy = sidecar(config, state_dir=tmp_path / "state")
        state = "sampled" if config is part else "in_sync"
        wait.until(lambda: replica(proxy)["state"] == state, "the mirror", timeout=30)  # noqa: B023
        connected(proxy)
        with proxy.client() as client:
            if turn == 2:
                # What the first run knew of the mirror is not believed.
                assert mirror.client().get("counter") == client.get("counter") == b"200"
            for _ in range(100):
                client.incr("counter")
        wait.until(lambda: replica(proxy)["lag"] == 0, "the last write")  # noqa: B023
        proxy.stop()


def test_a_part_becomes_the_whole(redis_server: RedisFactory, sidecar: SidecarFactory) -> None:
    primary, mirror = redis_server(), redis_server()
    proxy = sidecar(configs.mirrored(primary.address, mirror.address))
    wait.until(lambda: replica(proxy)["state"] == "in_sync", "the first copy")
    with proxy.client() as client:
        client.set("counter", 0)
        proxy.reload(sampled(primary, mirror, 50))
        wait.until(lambda: replica(proxy)["state"] == "sampled", "the sample")
        for _ in range(100):
            client.incr("counter")
        given(proxy)
        proxy.reload(configs.mirrored(primary.address, mirror.address))
        wait.until(lambda: replica(proxy)["state"] == "in_sync", "the second copy", timeout=30)
        wait.until(lambda: mirror.client().get("counter") == b"100", "the same value")
