"""`redisha status` and `redisha resync`, against a real admin server that shows what a test wants."""

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from redisha.admin import ServerState, Snapshot, UnknownClusterError, UnknownMemberError
from redisha.admin.client import AdminClient, AnswerError, UnreachableError
from redisha.cli import cli, resync, status
from redisha.config.scalars import ScalarError
from redisha.core import EndpointStats, ListenerStats, ReplicaStats, Stats
from redisha.health.monitor import EndpointHealth, EndpointKey
from redisha.health.probe import Facts
from redisha.health.state import Health, Verdict
from redisha.refill import RefillStats
from redisha.scrub import ScrubStats
from support.admin_server import serving

A, B = "redis-001/redis-001:6379", "redis-002/redis-002:6379"
PAIR = f"{A} -> {B}"
SYNCED = ReplicaStats(A, B, "in_sync", sole="yes", dirty_buckets=9, healed="buckets: 12 of 900 keys copied in 0.1 s")
BUSY = replace(
    SYNCED, state="resync", resync="buckets", resync_done=450, resync_total=1000, resync_rate=50, repair_keys=3
)


class View:
    """What a test wants to be seen."""

    def __init__(self) -> None:
        self.snapshots = [
            Snapshot(
                ServerState.LIVE,
                (),
                Stats(
                    listeners=(ListenerStats("main", downstream_cx_active=2, downstream_rq_total=1234567),),
                    endpoints=(
                        EndpointStats("redis-001", "redis-001:6379", "10.0.0.1:6379", "ready", version="7.0.15"),
                        EndpointStats("redis-002", "redis-002:6379", "", "down", "connection refused"),
                    ),
                    replicas=(SYNCED,),
                ),
                clusters={"redis-001": (), "redis-002": ()},
                health={
                    EndpointKey("redis-002", "redis-002:6379"): EndpointHealth(
                        Verdict(Health.UNHEALTHY, reason="no answer within 1 s"),
                        Facts(maxmemory=9, maxmemory_policy="allkeys-lru"),
                    )
                },
                listeners=(("main", "[::]:6380"), ("socket", "unix:/run/r.sock")),
            )
        ]
        self.info: dict[str, Any] = {
            "version": "1.2.3",
            "state": "LIVE",
            "ready": True,
            "missing": [],
            "uptime_current_epoch": "3720s",
            "config": {"file": "redisha.yaml", "generation_in_force": 4, "last_reload_error": None},
            "state_dir": "/var/lib/redisha/x",
            "events": ["many"],
        }
        self.asked: list[tuple[str, str]] = []

    def show(self, *replicas: ReplicaStats) -> None:
        """One look after the other; the last one stays."""
        first = self.snapshots[0]
        self.snapshots = [replace(first, stats=replace(first.stats, replicas=(each,))) for each in replicas]

    def snapshot(self) -> Snapshot:
        return self.snapshots[0]

    def next(self) -> None:
        if len(self.snapshots) > 1:
            del self.snapshots[0]

    def server_info(self) -> dict[str, Any]:
        return self.info

    def config_dump(self) -> dict[str, Any]:
        return {}

    def resync(self, cluster: str, action: str) -> tuple[str, ...]:
        if cluster not in ("redis-001", "redis-002"):
            raise UnknownClusterError(cluster, ("redis-001", "redis-002"))
        self.asked.append((cluster, action))
        return (PAIR,)

    async def hand_over(self, member: str) -> str:
        raise UnknownMemberError("this sidecar is in no group")

    def drain(self) -> None: ...

    def quit(self) -> None: ...

    def set_log_level(self, level: str) -> None: ...


@pytest.fixture
def view() -> View:
    return View()


@pytest.fixture
def admin(view: View) -> Iterator[str]:
    """The address of an admin server that shows the view."""
    with serving(view) as address:
        yield address


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments), catch_exceptions=False, standalone_mode=True)


def failing(*arguments: str) -> Exception:
    """The error that `main` would print."""
    found = CliRunner().invoke(cli, list(arguments)).exception
    assert isinstance(found, Exception)
    return found


# --- the client -------------------------------------------------------------------------------------------------------


def nobody() -> str:
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def test_nobody_is_there(tmp_path: Path) -> None:
    for address in (nobody(), f"unix:{tmp_path}/none"):
        with pytest.raises(UnreachableError, match=r"no sidecar answers at .*--admin HOST:PORT or -c FILE") as caught:
            AdminClient(address).get("/server_info")
        assert caught.value.exit_code == 69


@pytest.mark.parametrize("answer", [b"-ERR unknown command\r\n", b"HTTP/1.1 200 OK\r\n\r\n<html>", b""])
def test_somebody_else_is_there(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(UnreachableError):
            AdminClient(f"127.0.0.1:{server.getsockname()[1]}").get("/server_info")
        thread.join(5)


def test_addresses(admin: str) -> None:
    port = admin.rpartition(":")[2]
    for address in (admin, f"http://{admin}/", f"0.0.0.0:{port}", f"localhost:{port}"):
        assert AdminClient(address).get("/server_info")["version"] == "1.2.3"
    assert str(AdminClient("[::]:8001")) == "[::1]:8001"
    for wrong in ("nonsense", "127.0.0.1:0"):
        with pytest.raises(ScalarError):
            AdminClient(wrong)
    with pytest.raises(AnswerError, match="unknown path") as caught:
        AdminClient(admin).get("/nope")
    assert caught.value.status == 404


def test_the_address_of_a_file(admin: str, tmp_path: Path) -> None:
    file = tmp_path / "redisha.yaml"
    text = "listeners: [{bind: 0.0.0.0:1, catch_all: a}]\nclusters: {a: {endpoints: h:1}}\n"
    file.write_text(f"admin: {{bind: '{admin}'}}\n{text}")
    assert run("status", "-c", str(file)).exit_code == 0
    file.write_text(text)
    assert "has no admin address" in str(failing("status", "-c", str(file)))
    file.write_text(f"admin: {{bind: '127.0.0.1:0'}}\n{text}")
    assert "name the address with --admin" in str(failing("status", "-c", str(file)))
    assert run("status", "-c", str(file), "--admin", admin).exit_code == 2
    assert run("status", "--admin", "nonsense").exit_code == 2


# --- status -----------------------------------------------------------------------------------------------------------


def test_status(admin: str, view: View) -> None:
    result = run("status", "--admin", admin)
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        f"redisha 1.2.3 at {admin}: LIVE, up 1h 2m",
        "  redisha.yaml, plan 4; state in /var/lib/redisha/x",
        "",
        "listener  main    [::]:6380         2 clients  1,234,567 commands",
        "listener  socket  unix:/run/r.sock  0 clients  0 commands",
        "",
        f"server    redis-001  10.0.0.1:6379   ready                      {'unknown':32}  Redis 7.0.15",
        "server    redis-002  redis-002:6379  down (connection refused)  unhealthy (no answer within 1 s)",
        "",
        f"mirror    {PAIR}  in_sync",
        "          lag 0 writes",
        "          last healed: buckets: 12 of 900 keys copied in 0.1 s",
        "          redis-002/redis-002:6379 has the maxmemory-policy allkeys-lru and maxmemory 9: what it evicts is "
        "not mirrored, so primary and mirror will differ; set maxmemory-policy noeviction, and enough memory",
        "",
    ]


def test_status_of_a_busy_one(admin: str, view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status.time, "time", lambda: 2_000_000_090.0)
    view.show(replace(BUSY, reason="busy"))
    view.snapshots[0] = replace(
        view.snapshots[0],
        scrubs={(A, B): ScrubStats(3, 3000, 2, last_run=2_000_000_000, last_keys=1000, last_differ=2)},
        refills={A: RefillStats(A, B, "waiting", error="refused", done=10, total=40, rate=2)},
    )
    view.info["ready"], view.info["missing"] = False, ["cluster redis-001 has no ready endpoint"]
    view.info["config"]["last_reload_error"] = {"error": "f.yaml:1: is odd"}
    result = run("status", "--admin", admin)
    assert result.exit_code == 1
    for line in (
        f"redisha 1.2.3 at {admin}: not ready, up 1h 2m",
        "  cluster redis-001 has no ready endpoint",
        "  the last reload was refused: f.yaml:1: is odd",
        f"mirror    {PAIR}  resync (buckets): busy",
        "          [###########-------------] 45.0 %, 450 of 1,000 keys, 50 per second, 11 s to go",
        "          lag 0 writes, 3 keys to repair, 9 dirty buckets",
        "          scrub: 1,000 keys 1m 30s ago, 2 differed and were copied again",
        f"refill    {A} <- {B}  waiting: refused",
        "          [######------------------] 25.0 %, 10 of 40 keys, 2 per second, 15 s to go",
    ):
        assert line in result.output.splitlines(), line


@pytest.mark.parametrize(
    ("scrub", "said"),
    [
        (ScrubStats(), ""),
        (ScrubStats(running=True), "runs for the first time"),
        (ScrubStats(error="refused"), "failed: refused"),
        (ScrubStats(last_run=100, last_keys=7), "7 keys 20 s ago, all equal"),
    ],
)
def test_scrubs_in_words(scrub: ScrubStats, said: str) -> None:
    from dataclasses import asdict

    import click

    assert click.unstyle(status._scrub(asdict(scrub), 120.0)) == said


def test_status_without_mirrors(admin: str, view: View) -> None:
    view.snapshots[0] = replace(view.snapshots[0], stats=Stats())
    result = run("status", "--admin", admin)
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, "no route has a mirror")


def test_status_as_json(admin: str, view: View) -> None:
    found = json.loads(run("status", "--admin", admin, "--json").output)
    assert found["listeners"][0] == {"name": "main", "address": "[::]:6380", "clients": 2, "commands": 1234567}
    assert (found["replicas"][0]["state"], found["refills"]) == ("in_sync", [])
    assert "events" not in found["server"]


def test_watch_looks_again_until_it_is_interrupted(admin: str, view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    view.show(BUSY, SYNCED)
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        view.next()
        if len(looks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(status.time, "sleep", sleep)
    result = run("status", "--admin", admin, "--watch", "--json")
    assert result.exit_code == 0
    assert [json.loads(line)["replicas"][0]["state"] for line in result.output.splitlines()] == [
        "resync",
        "in_sync",
        "in_sync",
    ]


# --- resync -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["start", "full", "pause", "resume", "accept"])
def test_every_action(admin: str, view: View, action: str) -> None:
    options = [f"--{action}"] if action != "start" else []
    result = run("resync", "redis-002", *options, "--yes", "--admin", admin)
    assert (result.exit_code, result.output) == (0, f"{action}: {PAIR}\n")
    assert view.asked == [("redis-002", action)]


@pytest.mark.parametrize("action", ["full", "accept"])
def test_what_cannot_be_undone_is_asked_for_twice(admin: str, view: View, action: str) -> None:
    result = run("resync", "redis-002", f"--{action}", "--admin", admin)
    assert result.exit_code == 2
    assert "add --yes" in result.output
    assert view.asked == []


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("", 1)])
def test_on_a_terminal_it_is_asked(
    admin: str, view: View, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    monkeypatch.setattr(resync, "_has_terminal", lambda: True)
    result = CliRunner().invoke(cli, ["resync", "redis-002", "--full", "--admin", admin], input=answer)
    assert result.exit_code == code
    assert "DELETED there" in result.output
    assert bool(view.asked) == (code == 0)


def test_refusals(admin: str) -> None:
    assert str(failing("resync", "redis-003", "--admin", admin)) == (
        "no cluster 'redis-003' has a mirror or is one; known: redis-001, redis-002"
    )
    assert run("resync", "redis-002", "--pause", "--wait", "--admin", admin).exit_code == 2
    assert run("resync", "redis-002", "--timeout", "1", "--admin", admin).exit_code == 2
    assert run("resync", "--admin", admin).exit_code == 2
    assert isinstance(failing("resync", "redis-002", "--admin", nobody()), UnreachableError)


@pytest.fixture
def fast(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sleep is a look further."""
    monkeypatch.setattr(resync.time, "sleep", lambda _: view.next())


def test_wait_until_it_is_in_sync(admin: str, view: View, fast: None) -> None:
    runs = replace(BUSY, resync_runs_total=1)
    view.show(
        SYNCED,  # not begun yet
        runs,
        replace(runs, resync_done=455),
        replace(runs, resync_done=990),
        replace(SYNCED, resync_runs_total=1),
    )
    result = run("resync", "redis-002", "--wait", "--admin", admin)
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        f"start: {PAIR}",
        f"{PAIR}  in_sync",
        f"{PAIR}  resync  [###########-------------] 45.0 %, 450 of 1,000 keys, 50 per second, 11 s to go",
        f"{PAIR}  resync  [########################] 99.0 %, 990 of 1,000 keys, 50 per second, 0 s to go",
        f"{PAIR}  in_sync",
    ]


@pytest.mark.parametrize("state", ["unproven", "diverged", "refused", "paused"])
def test_wait_ends_where_waiting_does_not_help(admin: str, view: View, fast: None, state: str) -> None:
    view.show(SYNCED, replace(SYNCED, state=state, reason="so it is", resync_runs_total=1))
    result = run("resync", "redis-002", "--wait", "--admin", admin)
    assert result.exit_code == 1
    assert f"{state}: so it is" in result.output


def test_a_resync_that_is_not_needed_is_not_waited_for(
    admin: str, view: View, fast: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resync, "PATIENCE", 0.05)
    assert run("resync", "redis-002", "--wait", "--admin", admin).exit_code == 0


def test_wait_ends_with_the_time(admin: str, view: View, fast: None) -> None:
    view.show(replace(SYNCED, state="down"))
    result = run("resync", "redis-002", "--wait", "--timeout", "0.05", "--admin", admin)
    assert result.exit_code == 1
    assert "not in sync after 0.05 s; it goes on, see: redisha status" in result.output
