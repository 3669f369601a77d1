"""Resync as an operator sees and steers it: state directory, status, the word by hand, refusals, evictions, scrubs."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from support import configs, wait
from support.compare import assert_equal
from support.redis_server import RedisServer
from support.sidecar import Sidecar

PRIMARY, MIRROR = "redis-001", "redis-002"


@pytest.fixture
def primary(redis_server) -> RedisServer:
    """The Redis that clients are answered by."""
    return redis_server()


@pytest.fixture
def mirror(redis_server) -> RedisServer:
    """The Redis that must be its copy."""
    return redis_server()


def config(primary: RedisServer, mirror: RedisServer, **more: Any) -> configs.Config:
    """A mirrored route; ``more`` are sections of the file."""
    return configs.mirrored(primary.address, mirror.address) | more


@pytest.fixture
def proxy(sidecar, primary: RedisServer, mirror: RedisServer) -> Sidecar:
    """The sidecar between them, in sync."""
    proxy: Sidecar = sidecar(config(primary, mirror))
    until_in_sync(proxy)
    return proxy


def replica(proxy: Sidecar) -> dict[str, Any]:
    """All that is told of the only replica."""
    [found] = json.loads(proxy.get("/replicas?format=json"))["replicas"]
    return dict(found)


def until_in_sync(proxy: Sidecar, timeout: float = 15) -> None:
    def look() -> bool:
        now = replica(proxy)
        return now["state"] == "in_sync" and now["lag"] == now["repair_keys"] == 0

    wait.until(look, "the mirror is in sync", timeout)


def post(proxy: Sidecar, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.admin_port, timeout=5)
    try:
        connection.request("POST", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def redisha(*arguments: str, proxy: Sidecar | None = None, timeout: float = 30) -> subprocess.CompletedProcess[str]:
    """A command of the command line."""
    where = ["--admin", f"127.0.0.1:{proxy.admin_port}"] if proxy is not None else []
    command = [sys.executable, "-m", "redisha", *arguments, *where]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL
    )


def fill(proxy: Sidecar, keys: int) -> None:
    with proxy.client() as client:
        for start in range(0, keys, 1000):
            client.mset({f"key:{number}": number for number in range(start, min(keys, start + 1000))})


def messages(proxy: Sidecar, text: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in proxy.log().splitlines() if line.startswith("{")]
    return [each for each in lines if text in each["message"]]


# --- the state directory ----------------------------------------------------------------------------------------------


def test_the_state_directory_has_a_map_and_survives_a_restart(
    sidecar, primary: RedisServer, mirror: RedisServer, tmp_path: Path
) -> None:
    state = tmp_path / "not" / "yet"
    proxy = sidecar(config(primary, mirror, state_dir=str(state)))
    until_in_sync(proxy)
    fill(proxy, 100)
    assert len(list(state.glob("*.map"))) == 1
    assert (state / "lock").read_text() == f"process {proxy.pid} (listeners redis_listener)\n"
    assert json.loads(proxy.get("/server_info"))["state_dir"] == str(state)
    until_in_sync(proxy)
    proxy.kill()
    proxy.start()
    until_in_sync(proxy)
    assert len(list(state.glob("*.map"))) == 1
    assert_equal(primary, mirror)


def test_two_sidecars_do_not_share_one(sidecar, primary: RedisServer, mirror: RedisServer, tmp_path: Path) -> None:
    made = config(primary, mirror, state_dir=str(tmp_path / "state"))
    first = sidecar(made)
    second = sidecar(made, ready=False)
    assert second.wait_exit(20) == 1
    assert (
        f"redisha: {second.file}: state_dir: the folder {tmp_path}/state is used by process {first.pid} "
        "(listeners redis_listener) (end that process, or give each sidecar a folder of its own"
    ) in second.log()
    assert first.is_ready()


def test_the_next_one_waits_for_the_one_before(
    sidecar, primary: RedisServer, mirror: RedisServer, tmp_path: Path
) -> None:
    made = config(primary, mirror, state_dir=str(tmp_path / "state"))
    first = sidecar(made)
    second = sidecar(made, ready=False)
    wait.until(lambda: messages(second, "waiting for at most"), "it waits")
    first.stop()
    wait.until(second.is_ready, "it is ready")
    until_in_sync(second)


@pytest.mark.parametrize("kind", ["file", "proc"])
def test_one_that_cannot_be_used_ends_the_start(
    sidecar, primary: RedisServer, mirror: RedisServer, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" if kind == "file" else Path("/proc/redisha")
    proxy = sidecar(config(primary, mirror, state_dir=str(path)), ready=False)
    assert proxy.wait_exit() == 1
    assert f"redisha: {proxy.file}: state_dir: " in proxy.log()
    assert str(path) in proxy.log()


def test_a_default_that_cannot_be_used_is_memory_with_a_warning(
    primary: RedisServer, mirror: RedisServer, tmp_path: Path
) -> None:
    """As in a container whose file system is read-only, for a user without a home."""
    file = tmp_path / "redisha.yaml"
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    listen, admin = (each.getsockname()[1] for each in sockets)
    for each in sockets:
        each.close()
    file.write_text(
        f"admin: {{bind: '127.0.0.1:{admin}'}}\n"
        f"listeners: [{{bind: '127.0.0.1:{listen}', routes: [{{cluster: a, mirrors: [{{cluster: b}}]}}]}}]\n"
        f"clusters: {{a: {{endpoints: '{primary.address}'}}, b: {{endpoints: '{mirror.address}'}}}}\n"
    )
    program = "import sys; from pathlib import Path; from redisha import statedir; from redisha.cli import main; "
    program += "statedir.SYSTEM = Path('/proc/redisha'); sys.argv[0] = 'redisha'; main()"
    environment = {
        key: value for key, value in os.environ.items() if key not in ("REDISHA_STATE_DIR", "XDG_STATE_HOME")
    }
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", program, "run", str(file)], stderr=output, env=environment | {"HOME": "/proc"}
        )
    try:
        wait.until(lambda: "remembered in memory only" in log.read_text(), "it warns")
        url = f"http://127.0.0.1:{admin}/server_info"
        wait.until(lambda: '"ready"' in log.read_text(), "it is ready")
        assert json.loads(urllib.request.urlopen(url, timeout=5).read())["state_dir"] == "memory"
        assert "set state_dir to a folder, or to memory if that is fine" in log.read_text()
    finally:
        process.terminate()
        assert process.wait(15) == 0


def test_check_tells_what_would_be_used(proxy: Sidecar, tmp_path: Path) -> None:
    text = proxy.file.read_text()
    file = tmp_path / "checked.yaml"
    file.write_text(
        text + f"state_dir: {proxy.state_dir}\nresync: {{max_keys_per_second: 5000, max_bytes_per_second: 1MB}}\n"
    )
    said = redisha("check", str(file))
    assert said.returncode == 0
    assert f"state {proxy.state_dir} (used by process {proxy.pid} (listeners redis_listener) now)\n" in said.stdout
    assert "resync at most 5000 keys/s and 1MB/s, a scrub of 1000 keys every 10m\n" in said.stdout
    file.write_text(text + f"state_dir: {file}\nresync: {{scrub: {{interval: 0}}}}\n")
    said = redisha("check", str(file))
    assert "resync as fast as clients allow, no scrub\n" in said.stdout
    assert f"warning: {file} is not a folder\n" in said.stdout
    found = json.loads(redisha("check", "--json", str(file)).stdout)
    assert found["state_dir"] == {"path": str(file), "ok": False, "note": f"{file} is not a folder"}
    assert found["resync"]["scrub"] == {"interval": 0, "sample": 1000}


# --- status and the operator's word -----------------------------------------------------------------------------------


def test_status_says_whether_every_mirror_is_in_sync(proxy: Sidecar, primary: RedisServer, mirror: RedisServer) -> None:
    said = redisha("status", proxy=proxy)
    assert (said.returncode, said.stderr) == (0, "")
    name = f"{PRIMARY}/{primary.address} -> {MIRROR}/{mirror.address}"
    assert f"mirror    {name}  in_sync\n" in said.stdout
    assert "\x1b" not in said.stdout
    assert redisha("status", "-c", str(proxy.file)).stdout.splitlines()[1:] == said.stdout.splitlines()[1:]
    found = json.loads(redisha("status", "--json", proxy=proxy).stdout)
    assert [each["state"] for each in found["replicas"]] == ["in_sync"]
    mirror.kill()
    wait.until(lambda: replica(proxy)["state"] == "down", "the mirror is down")
    said = redisha("status", proxy=proxy)
    assert said.returncode == 1
    assert f"mirror    {name}  down" in said.stdout
    proxy.stop()
    said = redisha("status", proxy=proxy)
    assert said.returncode == 69
    assert said.stderr.startswith(f"redisha: no sidecar answers at 127.0.0.1:{proxy.admin_port}: Connection refused")


def test_a_full_resync_by_hand(proxy: Sidecar, primary: RedisServer, mirror: RedisServer) -> None:
    fill(proxy, 3000)
    until_in_sync(proxy)
    mirror.cli("DEL", *[f"key:{number}" for number in range(100)])
    mirror.cli("SET", "stranger", "1")
    before = replica(proxy)
    said = redisha("resync", MIRROR, "--full", "--yes", "--wait", proxy=proxy)
    assert said.returncode == 0, said.stderr
    name = f"{PRIMARY}/{primary.address} -> {MIRROR}/{mirror.address}"
    assert said.stdout.startswith(f"full: {name}\n")
    assert said.stdout.endswith(f"{name}  in_sync\n")
    assert assert_equal(primary, mirror) == 3000
    now = replica(proxy)
    assert now["resync_full_total"] == before["resync_full_total"] + 1
    assert now["healed"].startswith("full: ")
    assert messages(proxy, f"healed {name}: full: ")
    assert b'redisha_replica_resync_full_total{mirror="' in proxy.get("/stats/prometheus")


def test_pause_and_resume(proxy: Sidecar, primary: RedisServer, mirror: RedisServer) -> None:
    fill(proxy, 2000)
    until_in_sync(proxy)
    assert redisha("resync", MIRROR, "--pause", proxy=proxy).returncode == 0
    mirror.restart()  # without its data
    wait.until(lambda: replica(proxy)["state"] == "paused", "it is paused")
    assert redisha("status", proxy=proxy).returncode == 1
    assert mirror.cli("DBSIZE") < 2000
    said = redisha("resync", MIRROR, "--resume", "--wait", proxy=proxy)
    assert said.returncode == 0, said.stdout + said.stderr
    until_in_sync(proxy)
    assert assert_equal(primary, mirror) == 2000


def test_what_is_asked_for_wrongly(proxy: Sidecar) -> None:
    for path, status, text in (
        ("/resync", 400, "say which: POST /resync?cluster=NAME&action=start|full|pause|resume|accept\n"),
        ("/resync?cluster=x", 404, "no cluster 'x' has a mirror or is one; known: redis-001, redis-002\n"),
        (
            f"/resync?cluster={MIRROR}&action=stop",
            400,
            "unknown action: stop; one of start, full, pause, resume, accept\n",
        ),
    ):
        assert post(proxy, path) == (status, text)
    status, body = proxy.get_status("/resync")
    assert (status, b"takes POST" in body, b"?cluster=NAME&action=" in body) == (405, True, True)
    said = redisha("resync", "x", proxy=proxy)
    assert (said.returncode, said.stderr) == (
        1,
        "redisha: no cluster 'x' has a mirror or is one; known: redis-001, redis-002\n",
    )
    assert redisha("resync", MIRROR, "--full", proxy=proxy).returncode == 2


def test_a_primary_that_lost_data_is_accepted(proxy: Sidecar, primary: RedisServer, mirror: RedisServer) -> None:
    """Its mirror is gone for good: it is held, until the operator says that its data counts."""
    fill(proxy, 10)
    until_in_sync(proxy)
    mirror.kill()
    wait.until(lambda: replica(proxy)["state"] == "down", "the mirror is down")
    primary.restart()
    with proxy.conn() as conn:
        wait.until(lambda: b"lost data" in conn.command("GET", "key:1"), "the primary is held")
        said = redisha("resync", PRIMARY, "--accept", "--yes", proxy=proxy)
        assert said.returncode == 0, said.stderr
        wait.until(lambda: conn.command("GET", "key:1") == b"$-1\r\n", "it is served as it is")
        assert conn.command("SET", "k", "v") == b"+OK\r\n"
    mirror.start()
    until_in_sync(proxy)
    assert assert_equal(primary, mirror) == 1


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_mirror_that_is_the_primary_itself_ends_the_start(sidecar, primary: RedisServer, relay) -> None:
    """By another address, so that the file alone does not tell."""
    way = f"127.0.0.1:{relay(primary.port).port}"
    proxy = sidecar(configs.mirrored(primary.address, way), ready=False)
    assert proxy.wait_exit(15) == 1
    (line,) = [line for line in proxy.log().splitlines() if line.startswith("redisha: ")]
    assert f"{PRIMARY}/{primary.address}" in line
    assert f"{MIRROR}/{way}" in line
    assert "the same Redis" in line
    assert "name another server as the mirror" in line


def test_after_a_reload_it_stays_refused(proxy: Sidecar, primary: RedisServer, relay) -> None:
    way = f"127.0.0.1:{relay(primary.port).port}"
    proxy.reload(configs.mirrored(primary.address, way))
    wait.until(lambda: replica(proxy)["state"] == "refused", "it is refused")
    assert [each["level"] for each in messages(proxy, f"refused {PRIMARY}/")] == ["error"]
    assert proxy.is_ready()
    with proxy.conn() as conn:
        assert conn.command("RPUSH", "l", 1) == b":1\r\n"
        assert conn.command("RPUSH", "l", 2) == b":2\r\n"
    assert redisha("status", proxy=proxy).returncode == 1
    said = redisha("resync", MIRROR, "--wait", proxy=proxy)
    assert said.returncode == 1
    assert "refused" in said.stdout


def test_a_loop_through_a_listener_is_refused(sidecar, primary: RedisServer) -> None:
    made = configs.mirrored(primary.address, "127.0.0.1:{port}")
    proxy = sidecar(made, ready=False)
    assert proxy.wait_exit() == 1
    assert "is this sidecar's own listener 'redis_listener'" in proxy.log()


# --- what makes them differ all the same ------------------------------------------------------------------------------


def test_evictions_are_noticed(sidecar, redis_server, primary: RedisServer) -> None:
    mirror = redis_server(maxmemory="3mb", maxmemory_policy="allkeys-random")
    proxy = sidecar(config(primary, mirror))
    until_in_sync(proxy)
    wait.until(lambda: messages(proxy, "has the maxmemory-policy allkeys-random"), "it warns of the policy")
    name = f"{MIRROR}/{mirror.address}"
    assert f"warning::{name} has the maxmemory-policy allkeys-random" in proxy.get("/replicas").decode()
    assert f"{MIRROR}::{mirror.address}::maxmemory_policy::allkeys-random" in proxy.get("/clusters").decode()
    assert "has the maxmemory-policy allkeys-random" in redisha("status", proxy=proxy).stdout
    with proxy.client() as client:
        for number in range(3000):
            client.set(f"key:{number}", "x" * 1000)
    wait.until(lambda: messages(proxy, f"{name} evicted"), "it warns of evicted keys")
    assert len(messages(proxy, "has the maxmemory-policy")) == 1
    metrics = proxy.get("/stats/prometheus").decode()
    evicted = [
        line for line in metrics.splitlines() if line.startswith("redisha_redis_evicted_keys") and MIRROR in line
    ]
    assert float(evicted[0].rpartition(" ")[2]) > 0
    assert f'redisha_redis_may_evict{{cluster="{MIRROR}",endpoint="{mirror.address}"}} 1.0' in metrics


def test_a_scrub_finds_what_a_stranger_changed(sidecar, primary: RedisServer, mirror: RedisServer) -> None:
    proxy = sidecar(config(primary, mirror, resync={"scrub": {"interval": "500ms", "sample": 1000}}))
    fill(proxy, 500)
    until_in_sync(proxy)
    for number in range(50):
        mirror.cli("SET", f"key:{number}", "changed")
    mirror.cli("DEL", "key:100")
    mirror.cli("SET", "stranger", "1")
    wait.until(lambda: replica(proxy)["scrub"]["differ_total"] >= 50, "a scrub finds it")
    wait.until(lambda: mirror.cli("GET", "key:1") == b"1", "it is healed")
    wait.until(
        lambda: mirror.cli("EXISTS", "key:100", "stranger") == 1, "what is missing and what is too much, too", 20
    )
    until_in_sync(proxy)
    assert assert_equal(primary, mirror) == 500
    wait.until(lambda: replica(proxy)["scrub"]["last_differ"] == 0, "a scrub finds nothing any more", 20)
    assert replica(proxy)["scrub"]["runs_total"] >= 2
    assert b"redisha_replica_scrub_differ_total{" in proxy.get("/stats/prometheus")
    assert "scrub: " in redisha("status", proxy=proxy).stdout


def test_evictions_bring_a_scrub_soon(sidecar, redis_server, primary: RedisServer) -> None:
    mirror = redis_server(maxmemory="3mb", maxmemory_policy="allkeys-random")
    proxy = sidecar(config(primary, mirror, resync={"scrub": {"interval": "1h", "sample": 100}}))
    until_in_sync(proxy)
    with proxy.client() as client:
        for number in range(3000):
            client.set(f"key:{number}", "x" * 1000)
    wait.until(lambda: replica(proxy)["scrub"]["runs_total"] == 1, "a scrub runs", 20)
    assert replica(proxy)["scrub"]["last_keys"] > 500
    assert replica(proxy)["scrub"]["last_differ"] > 0


def test_a_primary_that_lost_data_is_filled_from_its_mirror(sidecar, primary: RedisServer, mirror: RedisServer) -> None:
    proxy = sidecar(config(primary, mirror))
    fill(proxy, 5000)
    with proxy.client(db=3) as client:
        client.set("other", "database", ex=1000)
        client.zadd("sorted", {"a": 1, "b": 2})
    until_in_sync(proxy)
    primary.restart()
    with proxy.conn() as conn:
        wait.until(lambda: conn.command("GET", "key:4999") == b"$4\r\n4999\r\n", "it has its data again", 20)
    until_in_sync(proxy)
    assert assert_equal(primary, mirror) == 5002
    [refill] = json.loads(proxy.get("/replicas?format=json"))["refills"]
    assert (refill["state"], refill["done"], refill["runs_total"]) == ("done", 5002, 1)
    assert messages(proxy, "is filled: 5002 keys copied from")
    assert b"redisha_replica_refill_keys_total{" in proxy.get("/stats/prometheus")
    with proxy.conn() as conn:
        assert conn.command("INCR", "key:1") == b":2\r\n"


def test_a_refill_waits_for_a_mirror_that_goes_away(sidecar, primary: RedisServer, mirror: RedisServer, relay) -> None:
    """The copying breaks; it is tried again, and nothing is served before it is whole."""
    way = relay(mirror.port)
    proxy = sidecar(configs.mirrored(primary.address, f"127.0.0.1:{way.port}"))
    fill(proxy, 3000)
    until_in_sync(proxy)
    mirror.pause()
    primary.restart()
    with proxy.conn() as conn:
        wait.until(lambda: conn.command("GET", "key:1").startswith(b"-UNAVAILABLE"), "it is held")
        mirror.resume()
        wait.until(lambda: not conn.command("GET", "key:1").startswith(b"-"), "it is served again", 40)
        assert conn.command("GET", "key:1") == b"$1\r\n1\r\n"
    until_in_sync(proxy)
    assert assert_equal(primary, mirror) == 3000


def test_a_refill_that_breaks_is_tried_again(sidecar, redis_server, primary: RedisServer) -> None:
    """In the middle of it the mirror is restarted; nothing is served before everything is there."""
    mirror = redis_server(appendonly="yes")
    proxy = sidecar(config(primary, mirror, resync={"max_keys_per_second": 1000}))
    fill(proxy, 3000)
    until_in_sync(proxy)

    def refill() -> dict[str, Any]:
        found = json.loads(proxy.get("/replicas?format=json"))["refills"]
        return dict(found[0]) if found else {"done": 0}

    primary.restart()
    wait.until(
        lambda: "refills" in proxy.get("/replicas?format=json").decode() and refill()["done"] > 200, "it is copied"
    )
    assert (refill()["state"], refill()["total"]) == ("running", 3000)
    assert replica(proxy)["state"] == "held"
    assert "[##" in redisha("status", proxy=proxy).stdout
    mirror.restart()
    with proxy.conn() as conn:
        wait.until(lambda: not conn.command("GET", "key:1").startswith(b"-"), "it is served again", 40)
        assert conn.command("EXISTS", *[f"key:{number}" for number in range(3000)]) == b":3000\r\n"
    until_in_sync(proxy)
    assert assert_equal(primary, mirror) == 3000
    assert refill()["failures_total"] + refill()["runs_total"] >= 2


def test_a_refill_keeps_to_the_keys_that_are_mirrored(sidecar, primary: RedisServer, mirror: RedisServer) -> None:
    """A primary that loads an old file: of the mirrored keys it gets the newest, the others stay as they are."""
    made = config(primary, mirror)
    made["listeners"][0]["routes"] = [
        {"prefix": "copied:", "cluster": PRIMARY, "mirrors": [{"cluster": MIRROR}]},
        {"prefix": "", "cluster": PRIMARY},
    ]
    proxy = sidecar(made)
    with proxy.client() as client:
        client.mset({"copied:1": "old", "copied:2": "to be deleted", "alone": "old"})
        wait.until(lambda: mirror.cli("EXISTS", "copied:1", "copied:2") == 2, "they are mirrored")
        # Without it the file is one from before redisha came, and the primary might be another Redis.
        wait.until(lambda: primary.cli("FUNCTION", "LIST"), "the primary has its marker")
        primary.cli("SAVE")
        client.mset({"copied:1": "new", "copied:3": "added", "alone": "lost"})
        client.delete("copied:2")
    mirror.cli("SET", "not:ours", "1")
    until_in_sync(proxy)
    primary.restart()
    with proxy.conn() as conn:
        wait.until(lambda: conn.command("GET", "copied:3") == b"$5\r\nadded\r\n", "it has its data again", 20)
        assert conn.command("MGET", "copied:1", "copied:2") == b"*2\r\n$3\r\nnew\r\n$-1\r\n"
        assert conn.command("GET", "alone") == b"$3\r\nold\r\n"
    assert primary.cli("EXISTS", "not:ours") == 0


def test_a_sidecar_that_ends_while_it_refills_does_not_hang(sidecar, primary: RedisServer, mirror: RedisServer) -> None:
    proxy = sidecar(config(primary, mirror))
    fill(proxy, 1000)
    until_in_sync(proxy)
    mirror.pause()
    primary.restart()
    with proxy.conn() as conn:
        wait.until(lambda: conn.command("GET", "key:1").startswith(b"-UNAVAILABLE"), "it is held")
    proxy.signal(signal.SIGTERM)
    assert proxy.wait_exit(20) == 0
    mirror.resume()
