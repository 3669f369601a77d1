"""Probes and their monitor against real servers."""

import asyncio
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from redisha.health.monitor import Checks, EndpointKey, Monitor
from redisha.health.probe import Probe, Report
from redisha.health.state import Failure, Health, Thresholds, Transition
from redisha.health.talk import Target
from support.redis_server import RedisServer


async def ask(target: Target) -> Report:
    probe = Probe(target, 2.0)
    try:
        return await probe.ask()
    finally:
        probe.close()


async def until(condition: Callable[[], object], limit: float = 10.0) -> None:
    async with asyncio.timeout(limit):
        while not condition():  # noqa: ASYNC110 - the condition has no event
            await asyncio.sleep(0.005)


async def test_facts(redis_server) -> None:
    server = redis_server(maxmemory="100mb", maxmemory_policy="allkeys-lru")
    report = await ask(Target(server.address))
    info = server.cli("INFO")
    assert report.outcome.passed
    assert report.facts is not None
    assert report.facts.run_id == info["run_id"]
    assert report.facts.redis_version == info["redis_version"]
    assert (report.facts.role, report.facts.loading) == ("master", False)
    assert (report.facts.maxmemory_policy, report.facts.evicted_keys) == ("allkeys-lru", 0)
    assert report.facts.used_memory > 100_000
    assert 0 < report.took < 2


async def test_unix_socket(redis_server) -> None:
    server = redis_server(unixsocket=True)
    assert (await ask(Target(f"unix:{server.unixsocket}"))).outcome.passed


async def test_auth(redis_server) -> None:
    server = redis_server()
    server.cli("CONFIG", "SET", "requirepass", "right")
    with server.client(password="right") as client:
        client.execute_command("ACL", "SETUSER", "probe", "on", ">secret", "+ping", "-info")
    assert (await ask(Target(server.address, None, "right"))).outcome.passed
    for target in (Target(server.address), Target(server.address, None, "wrong"), Target(server.address, "no", "x")):
        report = await ask(target)
        assert report.outcome.failure is Failure.AUTH
        assert report.facts is None
    # A user who may PING but not INFO passes, and tells nothing.
    report = await ask(Target(server.address, "probe", "secret"))
    assert report.outcome.passed
    assert report.facts is None


async def test_nobody_there(redis_server, tmp_path: Path) -> None:
    server = redis_server()
    server.kill()
    report = await ask(Target(server.address))
    assert report.outcome.failure is Failure.NETWORK
    assert "refused" in report.outcome.reason.lower()
    assert (await ask(Target(f"unix:{tmp_path}/none.sock"))).outcome.failure is Failure.NETWORK


async def test_a_server_that_hangs_costs_the_timeout_and_no_more(redis_server) -> None:
    server = redis_server()
    probe = Probe(Target(server.address), 0.2)
    assert (await probe.ask()).outcome.passed
    server.pause()
    try:
        started = time.monotonic()
        report = await probe.ask()
        assert report.outcome.failure is Failure.TIMEOUT
        assert report.outcome.reason == "no answer within 0.2 s"
        assert time.monotonic() - started < 1
    finally:
        server.resume()
    assert (await probe.ask()).outcome.passed
    probe.close()


async def test_a_kept_connection_that_died_is_no_failure(redis_server) -> None:
    server = redis_server()
    probe = Probe(Target(server.address), 2.0)
    before = await probe.ask()
    server.restart()
    after = await probe.ask()
    assert after.outcome.passed
    assert before.facts is not None
    assert after.facts is not None
    assert before.facts.run_id != after.facts.run_id
    assert server.cli("CLIENT", "KILL", "TYPE", "normal") >= 1
    assert (await probe.ask()).outcome.passed
    probe.close()


async def test_loading(redis_server) -> None:
    server: RedisServer = redis_server(
        key_load_delay="20000", save="", loading_process_events_interval_bytes="1024", dbfilename="dump.rdb"
    )
    server.cli("DEBUG", "POPULATE", "2000")
    server.cli("SAVE")
    server.kill()
    process = asyncio.create_task(asyncio.to_thread(server.start))
    probe = Probe(Target(server.address), 2.0)
    seen = set()
    async with asyncio.timeout(50):
        while Failure.LOADING not in seen:
            seen.add((await probe.ask()).outcome.failure)
    assert None not in seen
    with server.client() as client:
        client.execute_command("CONFIG", "SET", "key-load-delay", "0")
    await process
    assert (await probe.ask()).outcome.passed
    probe.close()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+HELLO\r\n", b":1\r\n", b"$5\r\nab"])
async def test_something_that_is_no_redis(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    report = await ask(Target(f"127.0.0.1:{port}"))
    assert report.outcome.failure in {Failure.ACTIVE, Failure.NETWORK}
    assert report.facts is None
    server.close()
    await server.wait_closed()


async def test_monitor_follows_a_server_down_and_up(redis_server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    server = redis_server()
    key = EndpointKey("a", server.address)
    told: list[tuple[EndpointKey, Transition]] = []
    monitor = Monitor(lambda *change: told.append(change))
    monitor.watch({key: Checks(Target(server.address), 0.02, 1.0, Thresholds(2, 3))})

    def health() -> Health:
        return monitor.view()[key].verdict.health

    await until(lambda: health() is Health.HEALTHY)
    server.kill()
    await until(lambda: health() is Health.UNHEALTHY)
    facts = monitor.view()[key].facts
    assert facts is not None  # what it last said of itself is kept
    await asyncio.to_thread(server.start)
    await until(lambda: health() is Health.HEALTHY)
    assert [change.after for _, change in told] == [Health.HEALTHY, Health.UNHEALTHY, Health.HEALTHY]
    assert "was restarted" in caplog.text
    await monitor.close()
    assert monitor.view() == {}


async def test_monitor_leaves_unchanged_endpoints_alone(redis_server) -> None:
    server = redis_server()
    one, two = EndpointKey("a", "1"), EndpointKey("b", "2")
    checks = Checks(Target(server.address), 0.02)
    monitor = Monitor()
    monitor.watch({one: checks})
    await until(lambda: monitor.view()[one].verdict.attempt > 2)
    monitor.watch({one: checks, two: checks})
    assert monitor.view()[one].verdict.attempt > 2
    await until(lambda: monitor.view()[two].verdict.attempt > 2)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        monitor.watch({one: Checks(Target(address), 0.02)})
        await until(lambda: monitor.view()[one].verdict.health is Health.UNHEALTHY)
    assert list(monitor.view()) == [one]
    await monitor.close()
