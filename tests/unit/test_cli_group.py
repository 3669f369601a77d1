"""`redisha status`, `leader` and `init` for a group, against a real admin server that shows what a test wants."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from redisha import emptying
from redisha.admin import NotHandedOverError, Snapshot, UnknownMemberError
from redisha.admin import members as admin_members
from redisha.admin.client import AdminClient, UnreachableError
from redisha.cli import cli, filling, init, leader
from redisha.core import EndpointStats, Stats
from redisha.errors import RedishaError
from redisha.group.merge import MergeStats
from redisha.group.status import Data, GroupStatus
from redisha.verify.server import Server
from support.admin_server import serving
from support.groups import FOLLOWED, FOLLOWER, LEADER, LED, UNLED, peer, snapshot
from support.ports import free_port

CONFLICT = "the Redis servers of redis-001 and redis-002 hold different data"


class View:
    """What a test wants to be seen; keeps what was asked."""

    def __init__(self) -> None:
        self.shown: list[Snapshot] = [snapshot()]
        self.error: Exception | None = None
        self.asked: list[str] = []
        self.path = "/etc/redisha.yaml"

    def snapshot(self) -> Snapshot:
        return self.shown[0]

    def next(self) -> None:
        if len(self.shown) > 1:
            del self.shown[0]

    async def hand_over(self, member: str) -> str:
        self.asked.append(member)
        if self.error is not None:
            raise self.error
        return member

    def server_info(self) -> dict[str, Any]:
        missing = self.snapshot().leaderless
        return {
            "version": "1.2.3",
            "state": "LIVE",
            "ready": not missing,
            "missing": [f"group cache: nobody leads: {missing}"] if missing else [],
            "uptime_current_epoch": "5s",
            "config": {"file": "r.yaml", "path": self.path, "generation_in_force": 1, "last_reload_error": None},
            "state_dir": "memory",
        }

    def config_dump(self) -> dict[str, Any]:
        return {}

    def resync(self, cluster: str, action: str) -> tuple[str, ...]:
        return ()

    def drain(self) -> None: ...

    def quit(self) -> None: ...

    def set_log_level(self, level: str) -> None: ...


@pytest.fixture
def view() -> View:
    return View()


@pytest.fixture
def admin(view: View) -> Iterator[str]:
    with serving(view) as address:
        yield address


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments), catch_exceptions=False)


def failing(*arguments: str) -> Exception:
    found = CliRunner().invoke(cli, list(arguments)).exception
    assert isinstance(found, Exception)
    return found


# --- status -----------------------------------------------------------------------------------------------------------


def test_status_at_the_leader(admin: str) -> None:
    result = run("status", "--admin", admin)
    assert result.exit_code == 1, "redis-003 is not in sync"
    assert result.output.splitlines() == [
        f"redisha 1.2.3 at {admin}: LIVE, up 5 s",
        "  r.yaml, plan 1; state in memory",
        "",
        "server    cache  10.0.0.1:6379  ready  unknown  Redis 7.0.15",
        "",
        "group     cache: redis-001 leads, term 3",
        "          member       role      state    term  lag: commands   bytes     ms  last heard",
        "          redis-001 *  leader    in_sync     3              0       0      0",
        "          redis-002    follower  in_sync     3             10   1,204      3  0.0 s ago",
        "          redis-003    follower  resync      3            860  99,000  2,500  0.0 s ago",
        "          redis-002: last healed: full: 9 keys",
        "          redis-003: resync (buckets) [######------------------] 25.0 %, 300 of 1,200 keys, 90 per second, "
        "10 s to go",
        "          redis-003: 7 keys written while a member was not in sync",
        "",
    ]


def test_status_at_a_follower(admin: str, view: View) -> None:
    view.shown = [snapshot(replace(FOLLOWED, peers=FOLLOWED.peers[:1]), stats=Stats())]
    result = run("status", "--admin", admin)
    assert result.exit_code == 0
    assert result.output.splitlines()[-4:] == [
        "          member       role      state    term  lag: commands  bytes  ms  last heard",
        "          redis-002 *  follower  in_sync     3             10      -   -",
        "          redis-001    leader    in_sync     3              0      -   -  0.0 s ago",
        "",
    ]


def test_status_while_nobody_leads(admin: str, view: View) -> None:
    view.shown = [snapshot(UNLED, leaderless=CONFLICT)]
    result = run("status", "--admin", admin)
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert f"group     cache: nobody leads: {CONFLICT}" in lines
    assert lines[0].endswith("not ready, up 5 s")
    assert result.output.count(CONFLICT) == 1, "it is said once"
    row = "          redis-001    -     down        3              -      -   -  1m 5s ago   connection refused"
    assert row in lines


def test_status_of_merges(admin: str, view: View) -> None:
    view.shown = [snapshot(merges=MergeStats(("redis-002:8101",), conflicts_total=3, last_error="refused"))]
    lines = run("status", "--admin", admin).output.splitlines()
    assert lines[-4:] == [
        "          what redis-002:8101 wrote while it led, too, is being merged",
        "          the last merge failed, it is tried again: refused",
        "          3 values lost to later writes, and are kept in conflicts.jsonl in the state directory",
        "",
    ]


def test_status_as_json(admin: str) -> None:
    found = json.loads(run("status", "--admin", admin, "--json").output)
    assert found["group"]["members"][1]["member"] == "redis-002"


def test_status_without_a_group(admin: str, view: View) -> None:
    view.shown = [snapshot(None, stats=Stats())]
    result = run("status", "--admin", admin)
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, "no route has a mirror")
    assert json.loads(run("status", "--admin", admin, "--json").output)["group"] is None


def test_a_member_that_was_never_heard(admin: str, view: View) -> None:
    nobody = peer(replace(FOLLOWER, member="", term=0), "redis-002", up=False, silent_ms=1 << 40, reason="no route")
    view.shown = [snapshot(replace(LED, peers=(nobody,)))]
    assert "redis-002:8101  -       connecting" in run("status", "--admin", admin).output
    assert "never" in run("status", "--admin", admin).output


# --- leader -----------------------------------------------------------------------------------------------------------


def test_leader(admin: str, view: View) -> None:
    result = run("leader", "redis-002", "--admin", admin)
    assert (result.exit_code, result.output) == (0, "redis-002 leads now, term 3\n")
    assert view.asked == ["redis-002"]


@pytest.mark.parametrize(
    "error",
    [
        UnknownMemberError("group cache has no member 'x'; known: redis-001"),
        NotHandedOverError("redis-003 is not in sync: it is resync, and lacks 860 effects"),
        NotHandedOverError("redis-001 leads already, term 3"),
    ],
)
def test_leader_is_refused(admin: str, view: View, error: Exception) -> None:
    view.error = error
    found = failing("leader", "x", "--admin", admin)
    assert isinstance(found, RedishaError)
    assert (str(found), found.exit_code) == (str(error), 1)


def test_leader_waits_for_what_takes_longer(admin: str, view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    view.error = TimeoutError()
    later = replace(LEADER, leader="redis-002", term=4)
    view.shown = [snapshot(), snapshot(), snapshot(replace(LED, me=later))]
    monkeypatch.setattr(leader.time, "sleep", lambda _: view.next())
    assert run("leader", "redis-002", "--admin", admin).output == "redis-002 leads now, term 4\n"
    view.shown = [snapshot()]
    found = failing("leader", "redis-002", "--admin", admin, "--timeout", "0.01")
    assert "redis-002 does not lead after 0.01 s, redis-001 does" in str(found)


def test_leader_without_a_sidecar() -> None:
    found = failing("leader", "redis-002", "--admin", f"127.0.0.1:{free_port()}")
    assert isinstance(found, UnreachableError)


# --- init -------------------------------------------------------------------------------------------------------------

FOREIGN = replace(UNLED.me, data=Data.FOREIGN)
OTHER = peer(replace(FOREIGN, member="redis-001"))
APART = replace(UNLED, me=FOREIGN, peers=(OTHER,))
"""Two with data and no common history; this is redis-002."""


def told(group: GroupStatus, reason: str = "") -> dict[str, Any]:
    found = admin_members.document(snapshot(group, leaderless=reason))
    assert found is not None
    return found


def test_init_may_go_on() -> None:
    init.check(told(APART, CONFLICT), "redis-001")
    complete = replace(APART, peers=(peer(replace(OTHER.status, data=Data.COMPLETE)),))
    init.check(told(complete, CONFLICT), "redis-001")
    behind = replace(FOLLOWED, me=replace(FOLLOWER, data=Data.FOREIGN, in_sync=False))
    init.check(told(behind), "redis-001")


@pytest.mark.parametrize(
    ("group", "source", "said"),
    [
        (APART, "redis-009", "group cache has no member 'redis-009'; known: redis-001, redis-002"),
        (APART, "redis-002", "this is redis-002 itself"),
        (LED, "redis-002", r"redis-001 leads the group, and the others have its data: .*redisha leader redis-002"),
        (
            replace(APART, peers=(replace(OTHER, up=False, reason="refused"),)),
            "redis-001",
            "redis-001 is down: refused",
        ),
        (
            replace(APART, peers=(peer(replace(OTHER.status, data=Data.UNKNOWN)),)),
            "redis-001",
            "redis-001 is down: its Redis does not answer",
        ),
        (
            replace(APART, peers=(peer(replace(OTHER.status, data=Data.EMPTY)),)),
            "redis-001",
            "redis-001 has no data to be copied, its Redis is empty",
        ),
        (
            replace(APART, peers=(peer(replace(OTHER.status, data=Data.PARTIAL)),)),
            "redis-001",
            "its Redis is partial",
        ),
        (FOLLOWED, "redis-003", "redis-001 leads, and redis-003 is not in sync with it: .*Say --from redis-001"),
    ],
)
def test_init_is_refused(group: GroupStatus, source: str, said: str) -> None:
    with pytest.raises(RedishaError, match=said):
        init.check(told(group, "" if group in (LED, FOLLOWED) else CONFLICT), source)


def test_init_where_there_is_nothing_to_do(admin: str, view: View) -> None:
    view.shown = [snapshot(FOLLOWED)]
    result = run("init", "--from", "redis-001", "--yes", "--admin", admin)
    assert (result.exit_code, result.output) == (
        0,
        "redis-002 is in sync with redis-001: it has the same data already, nothing was done\n",
    )


def test_init_without_a_group(admin: str, view: View) -> None:
    view.shown = [snapshot(None)]
    assert "is in no group" in str(failing("init", "--from", "redis-001", "--admin", admin))


def test_init_needs_the_sidecars_file(admin: str, view: View, tmp_path: Path) -> None:
    view.shown = [snapshot(APART, leaderless=CONFLICT)]
    view.path = str(tmp_path / "nowhere.yaml")
    assert "nowhere.yaml" in str(failing("init", "--from", "redis-001", "--yes", "--admin", admin))
    file = tmp_path / "redisha.yaml"
    file.write_text("listeners: [{bind: 0.0.0.0:1, catch_all: a}]\nclusters: {a: {endpoints: h:1}}\n")
    view.path = str(file)
    found = str(failing("init", "--from", "redis-001", "--yes", "--admin", admin))
    assert found == f"{file} has no group; name the file of this sidecar with -c FILE"


def test_init_needs_the_sidecars_connection(admin: str, view: View, tmp_path: Path) -> None:
    stats = Stats(endpoints=(EndpointStats("cache", "redis:6379", "10.0.0.1:6379", "down", "refused"),))
    view.shown = [snapshot(APART, leaderless=CONFLICT, stats=stats)]
    file = tmp_path / "redisha.yaml"
    file.write_text(
        "listeners: [{bind: 0.0.0.0:1, group: cache}]\n"
        "group: {name: cache, listen: 0.0.0.0:2, redis: h:1, peers: [redis-001:8101]}\n"
    )
    view.path = str(file)
    found = str(failing("init", "--from", "redis-001", "--yes", "--admin", admin))
    assert "is not connected to its Redis: start that first; nothing was removed" in found


def test_init_must_name_a_member() -> None:
    assert run("init").exit_code == 2


# --- waiting for the data ---------------------------------------------------------------------------------------------


@pytest.fixture
def fast(view: View, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Each sleep is a look further and a second later; a Redis that has more keys at each look."""
    clock = [0.0, 0]

    def sleep(_: float) -> None:
        clock[0] += 1
        view.next()

    async def contents(_: Server) -> emptying.Contents:
        clock[1] += 100
        return emptying.Contents("", "", int(clock[1]))

    monkeypatch.setattr(filling.time, "sleep", sleep)
    monkeypatch.setattr(filling.emptying, "contents", contents)
    return clock


def follow(admin: str, fast: list[float], timeout: float | None = None) -> bool:
    return filling.Filling(AdminClient(admin), Server("h:1"), "redis-002", lambda: fast[0]).follow(timeout)


def test_until_it_is_in_sync(admin: str, view: View, fast: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    empty = replace(FOLLOWED, me=replace(FOLLOWER, data=Data.EMPTY, in_sync=False))
    filled = replace(FOLLOWED, me=replace(FOLLOWER, data=Data.PARTIAL, in_sync=False))
    view.shown = [snapshot(APART, leaderless="an election"), *map(snapshot, (empty, filled, filled, FOLLOWED))]
    assert follow(admin, fast)
    assert capsys.readouterr().out.splitlines() == [
        "redis-002: foreign, 100 keys",
        "redis-002: empty, 200 keys",
        "redis-002: resync, 300 keys",
        "redis-002: in_sync, 500 keys, redis-001 leads",
    ]


def test_nobody_leads_for_long(admin: str, view: View, fast: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    view.shown = [snapshot(UNLED, leaderless="redis-003 has other data")]
    assert not follow(admin, fast)
    assert "not in sync after 20 s: nobody leads: redis-003 has other data" in capsys.readouterr().err


def test_the_time_is_over(admin: str, view: View, fast: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    view.shown = [snapshot(replace(FOLLOWED, me=replace(FOLLOWER, data=Data.PARTIAL, in_sync=False)))]
    assert not follow(admin, fast, 3)
    assert "not in sync after 3 s: it goes on; see redisha status" in capsys.readouterr().err


def test_its_redis_is_away(admin: str, view: View, fast: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    view.shown = [snapshot(replace(FOLLOWED, me=replace(FOLLOWER, data=Data.UNKNOWN, in_sync=False)))]
    assert not follow(admin, fast)
    assert "its Redis is down" in capsys.readouterr().err
