"""The admin server, the signals and the exit codes of the real process."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from support import configs, wait
from support.ports import free_port
from support.redis_server import RedisServer
from support.sidecar import Sidecar


@pytest.fixture
def servers(redis_server) -> tuple[RedisServer, RedisServer]:
    """The primary and the mirror."""
    return redis_server(), redis_server()


@pytest.fixture
def proxy(sidecar, servers: tuple[RedisServer, RedisServer]) -> Sidecar:
    """A sidecar that mirrors."""
    return sidecar(configs.mirrored(servers[0].address, servers[1].address))


def post(proxy: Sidecar, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.admin_port, timeout=5)
    try:
        connection.request("POST", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def text_stats(proxy: Sidecar, query: str = "") -> dict[str, str]:
    lines = proxy.get(f"/stats{query}").decode().splitlines()
    return dict(line.split(": ", 1) for line in lines)


def messages(proxy: Sidecar) -> list[dict[str, Any]]:
    return [json.loads(line) for line in proxy.log().splitlines() if line.startswith("{")]


def test_every_page_answers(proxy: Sidecar) -> None:
    paths = re.findall(r"^GET (\S+)", proxy.get("/help").decode(), re.MULTILINE)
    assert len(paths) >= 12
    for path in paths:
        assert proxy.get_status(path)[0] == (404 if path == "/group" else 200), path
    status, body = proxy.get_status("/nope")
    assert status == 404
    assert b"/server_info" in body


def test_counters_count(proxy: Sidecar) -> None:
    with proxy.client() as client:
        for number in range(10):
            client.set(f"k{number}", "v")
        client.get("k1")
    stats = text_stats(proxy)
    assert int(stats["redis.redis_listener.command.set.total"]) == 10
    assert int(stats["redis.redis_listener.command.get.total"]) == 1
    assert int(stats["redis.redis_listener.downstream_cx_total"]) >= 1
    assert int(stats["cluster.redis-001.upstream_rq_total"]) >= 11
    assert stats["cluster.redis-001.membership_total"] == "1"
    assert stats["cluster.redis-001.membership_healthy"] == "1"
    wait.until(lambda: int(text_stats(proxy)["cluster.redis-001.health_check.success"]) >= 1, "a probe passed")
    assert set(text_stats(proxy, "?filter=command.set")) == {"redis.redis_listener.command.set.total"}
    assert "0" not in text_stats(proxy, "?usedonly").values()
    prometheus = proxy.get("/stats/prometheus").decode()
    assert 'redisha_command_total{command="set"} 10.0' in prometheus
    assert re.search(r'redisha_upstream_rq_time_us_sum\{cluster="redis-001",[^}]*\} [1-9]', prometheus)
    assert re.search(r'redisha_downstream_rq_time_us_sum\{listener="redis_listener"[^}]*\} [1-9]', prometheus)


def test_clusters_and_replicas(proxy: Sidecar, servers: tuple[RedisServer, RedisServer]) -> None:
    address = servers[0].address
    assert f"redis-001::{address}::health_flags::healthy" in proxy.get("/clusters").decode().splitlines()
    document = json.loads(proxy.get("/clusters?format=json"))["cluster_statuses"]
    assert {each["name"]: len(each["host_statuses"]) for each in document} == {"redis-001": 1, "redis-002": 1}
    assert document[0]["host_statuses"][0]["run_id"] == servers[0].cli("INFO")["run_id"]

    def state() -> str:
        return str(json.loads(proxy.get("/replicas?format=json"))["replicas"][0]["state"])

    wait.until(lambda: state() == "in_sync", "the mirror is in sync")
    servers[1].kill()
    wait.until(lambda: state() == "down", "the mirror is down")
    assert proxy.get_status("/ready")[0] == 200  # nobody would be served better elsewhere
    servers[1].start()
    wait.until(lambda: state() == "in_sync", "the mirror, which came back empty, is equal again")


def test_ready_follows_the_primary(sidecar, redis_server) -> None:
    server = redis_server(start=False)
    proxy = sidecar(configs.pass_through(server.address), ready=False)
    wait.until(lambda: proxy.get_status("/ready")[0] == 503, "it says that it is not ready")
    assert b"cluster redis-001 has no ready endpoint" in proxy.get_status("/ready")[1]
    assert proxy.get_status("/healthz")[0] == 200
    server.start()
    wait.until(proxy.is_ready, "it is ready")
    server.kill()
    wait.until(lambda: proxy.get_status("/ready")[0] == 503, "it is not ready again")
    server.start()
    wait.until(proxy.is_ready, "it is ready again")
    assert [each["message"] for each in messages(proxy)].count("ready") == 1


def test_a_name_that_does_not_exist_yet(sidecar) -> None:
    config = configs.pass_through("redis-001.invalid:6379", discovery="strict_dns", dns_refresh="100ms")
    proxy = sidecar(config, ready=False)
    wait.until(lambda: b"does not resolve" in proxy.get_status("/ready")[1], "it says so")
    with proxy.conn() as conn:
        assert conn.command("GET", "k").startswith(b"-UNAVAILABLE ")
    lines = [each for each in messages(proxy) if "does not resolve" in each["message"] and "resolve" in each["logger"]]
    assert len(lines) == 1
    proxy.stop()


def test_a_name(sidecar, servers: tuple[RedisServer, RedisServer]) -> None:
    proxy = sidecar(configs.pass_through(f"localhost:{servers[0].port}", discovery="strict_dns"))
    with proxy.client() as client:
        assert client.set("k", "v")
    assert servers[0].cli("GET", "k") == b"v"


def test_server_info_and_reload_errors(proxy: Sidecar, servers: tuple[RedisServer, RedisServer]) -> None:
    def config() -> dict[str, Any]:
        document = json.loads(proxy.get("/server_info"))
        assert document["state"] == "LIVE"
        assert document["pid"] == proxy.pid
        found: dict[str, Any] = document["config"]
        return found

    assert (config()["kind"], config()["generation"], config()["last_reload_error"]) == ("native", 1, None)
    good = proxy.file.read_text()
    proxy.file.write_text("listeners: [")
    wait.until(lambda: config()["reload_failure"] == 1, "the bad file is noticed without a signal")
    assert "redisha.yaml" in config()["last_reload_error"]["error"]
    assert (config()["generation"], text_stats(proxy)["config.reload_failure"]) == (1, "1")
    assert proxy.is_ready()
    proxy.file.write_text(good)
    proxy.signal(signal.SIGHUP)
    wait.until(lambda: config()["reload_success"] >= 1 and not config()["last_reload_error"], "the good file is back")
    assert proxy.is_ready()


def test_config_dump_has_no_secrets(sidecar, redis_server, monkeypatch: pytest.MonkeyPatch) -> None:
    server = redis_server()
    server.cli("CONFIG", "SET", "requirepass", "swordfish")
    config = configs.pass_through(server.address, auth={"password": "${SESAME}"})
    config["listeners"][0]["auth"] = {"passwords": ["hunter2"]}
    monkeypatch.setenv("SESAME", "swordfish")
    proxy = sidecar(config)
    dump = proxy.get("/config_dump").decode()
    assert "[redacted]" in dump
    assert server.address in dump
    for place in (dump, proxy.log(), proxy.get("/server_info").decode(), proxy.get("/stats?format=json").decode()):
        assert "hunter2" not in place
        assert "swordfish" not in place


def test_posts(proxy: Sidecar) -> None:
    for path in ("/logging", "/drain_listeners", "/quitquitquit"):
        status, body = proxy.get_status(path)
        assert status == 405
        assert b"takes POST" in body
    assert post(proxy, "/ready")[0] == 405
    assert post(proxy, "/logging?level=debug")[0] == 200
    assert post(proxy, "/logging?level=loud")[0] == 400
    assert proxy.is_ready()


def test_drain_listeners_ends_with_0(proxy: Sidecar) -> None:
    with proxy.conn() as conn:
        assert conn.command("PING") == b"+PONG\r\n"
        assert post(proxy, "/drain_listeners")[0] == 200
        assert conn.until_closed() == b""
    assert proxy.wait_exit() == 0


def test_quitquitquit_ends_at_once(proxy: Sidecar) -> None:
    with proxy.conn() as conn:
        assert conn.command("SUBSCRIBE", "x")
        assert post(proxy, "/quitquitquit")[0] == 200
        assert proxy.wait_exit(3) == 0


def test_a_second_signal_ends_at_once(sidecar, redis_server) -> None:
    server = redis_server()
    proxy = sidecar(configs.pass_through(server.address))
    with proxy.conn() as conn:
        server.pause()
        conn.send(b"*1\r\n$6\r\nDBSIZE\r\n")
        wait.until(lambda: sum(each["downstream_rq_active"] for each in proxy.stats()["listeners"]) == 1, "in flight")
        proxy.signal(signal.SIGTERM)
        wait.until(lambda: b"DRAINING" in proxy.get_status("/ready")[1], "it drains")
        proxy.signal(signal.SIGTERM)
        assert proxy.wait_exit(3) == 128 + signal.SIGTERM
        server.resume()


@pytest.mark.parametrize("taken", ["listener", "admin"])
def test_an_address_in_use_is_said_with_exit_code_3(sidecar, redis_server, taken: str) -> None:
    server = redis_server()
    config = configs.pass_through(redis_server().address)
    if taken == "listener":
        config["listeners"][0]["bind"] = [server.address]
    else:
        config["admin"]["bind"] = server.address
    proxy = sidecar(config, ready=False)
    assert proxy.wait_exit() == 3
    assert server.address in proxy.log()
    assert "in use" in proxy.log().lower()


def test_admin_off_and_elsewhere(redis_server, tmp_path: Path) -> None:
    server = redis_server()
    listen, admin = free_port(), free_port()
    file = tmp_path / "redisha.yaml"
    file.write_text(
        f"admin: {{bind: '127.0.0.1:1'}}\nlisteners: [{{bind: ['127.0.0.1:{listen}'], catch_all: a}}]\n"
        f"clusters: {{a: {{endpoints: ['{server.address}']}}}}\n"
    )
    command = [sys.executable, "-m", "redisha", "run", str(file), "--log-format", "text", "--admin"]
    for choice in ("off", f"127.0.0.1:{admin}"):
        process = subprocess.Popen([*command, choice], stderr=subprocess.PIPE, text=True)
        try:
            wait.until(lambda: socket.create_connection(("127.0.0.1", listen), 1).close() or True, "it listens")
            if choice != "off":
                url = f"http://127.0.0.1:{admin}/healthz"
                wait.until(lambda: urllib.request.urlopen(url, timeout=1).read(), "the admin server answers")  # noqa: B023
        finally:
            process.terminate()
            _, log = process.communicate(timeout=10)
        assert process.returncode == 0
        assert f"admin={choice}" in log


DIE = """
import sys, threading, time
from redisha import core, supervisor, logs
from redisha.cli.run import _live
from redisha.config.load import load
from redisha._core import Core
import os
logs.setup("info")
engine = Core()
threading.Timer(1.0, engine.debug_panic).start()
os._exit(_live(supervisor.Supervisor(load(sys.argv[1]), plane=core.DataPlane(engine))))
"""


def test_a_dead_worker_ends_the_process_quickly_with_70(redis_server, tmp_path: Path) -> None:
    server = redis_server()
    file = tmp_path / "redisha.yaml"
    file.write_text(
        f"listeners: [{{bind: ['127.0.0.1:{free_port()}'], catch_all: a}}]\n"
        f"clusters: {{a: {{endpoints: ['{server.address}']}}}}\n"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", DIE, str(file)], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 70, done.stderr
    assert "the data plane died" in done.stderr
    assert time.monotonic() - started < 5


def test_start_and_memory(sidecar, redis_server) -> None:
    """Rough bounds, for a busy machine; the goals are 0.6 s to ready and 64 MB."""
    server = redis_server()
    sidecar(configs.pass_through(server.address)).stop()
    started = time.monotonic()
    proxy = sidecar(configs.pass_through(server.address))
    assert time.monotonic() - started < 3
    proxy.get("/stats/prometheus")
    assert proxy.memory_bytes() < 64 << 20
    assert len(os.listdir(f"/proc/{proxy.pid}/task")) <= 8
