"""What an operator sees of a group and does with it: two sidecars, two Redis servers, the command line."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import yaml

from redisha import emptying
from redisha.verify.errors import ServerError
from redisha.verify.server import Server
from support import wait
from support.group_pair import NAMES, Pair
from support.ports import free_port
from support.redis_server import RedisServer

Make = Callable[..., Pair]


@pytest.fixture
def pair(redis_server: Callable[..., object], sidecar: Callable[..., object]) -> Make:
    return lambda **options: Pair(redis_server, sidecar, **options)  # type: ignore[arg-type]


def test_both_members_tell_of_the_group(pair: Make) -> None:
    group = pair()
    group.start()
    follower = group.follower()
    group.sidecars[follower].client().incr("n")
    for number in (0, 1):
        shown = group.redisha(number, "status")
        assert shown.returncode == 0, shown.stdout + shown.stderr
        assert f"group     cache: {NAMES[1 - follower]} leads, term 1\n" in shown.stdout
        assert f"{NAMES[number]} *" in shown.stdout
        assert "cache~" not in shown.stdout, "a member is neither a server nor a mirror"
        numbers = group.sidecars[number].get("/stats/prometheus").decode().splitlines()
        assert f'redisha_group_leader{{group="cache",member="{NAMES[1 - follower]}"}} 1.0' in numbers
        assert f'redisha_group_in_sync{{group="cache",member="{NAMES[follower]}"}} 1.0' in numbers
        assert b"<h2>Group cache</h2>" in group.sidecars[number].get("/")
    replicas = json.loads(group.sidecars[1 - follower].get("/replicas?format=json"))["replicas"]
    assert [each["member"] for each in replicas] == [NAMES[follower]]


def test_the_leadership_is_handed_over_wherever_it_is_asked(pair: Make) -> None:
    group = pair()
    group.start()
    follower = group.follower()
    for asked in (1 - follower, follower):  # at the leader, then at a follower
        heir = NAMES[group.follower()]
        group.sidecars[asked].client().incr("n")  # so that both know how far the follower is
        done = group.redisha(asked, "leader", heir)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.startswith(f"{heir} leads now, term ")
        assert group.wait_in_sync() == heir
    assert group.sidecars[0].client().incr("n") == 3
    leader = group.wait_in_sync()
    for number in (0, 1):
        again = group.redisha(number, "leader", leader)
        assert (again.returncode, f"redisha: {leader} leads already, term " in again.stderr) == (1, True)
        stranger = group.redisha(number, "leader", "redis-009")
        assert stranger.returncode == 1
        assert "group cache has no member 'redis-009'; known: redis-001, redis-002" in stranger.stderr


def test_after_a_hand_over_nothing_is_looked_at_or_copied(pair: Make) -> None:
    """Each knows that the other lacks nothing: also where the old leader's sidecar was started anew meanwhile."""
    group = pair()
    group.start()
    first = 1 - group.follower()
    with group.sidecars[first].client() as client:
        client.mset({f"fill:{number}": number for number in range(3_000)})
    group.wait_in_sync()
    group.sidecars[first].stop()
    group.sidecars[first].start()
    assert group.wait_in_sync() == NAMES[1 - first]
    for heir in (first, 1 - first):
        group.sidecars[1 - heir].client().incr("n")
        done = group.redisha(1 - heir, "leader", NAMES[heir])
        assert done.returncode == 0, done.stdout + done.stderr
        assert group.wait_in_sync() == NAMES[heir]
        replica = json.loads(group.sidecars[heir].get("/replicas?format=json"))["replicas"][0]
        assert (replica["resync_keys_total"], replica["resync_runs_total"]) == (0, 0), replica


def test_who_has_lost_its_redis_is_ready_and_cannot_lead(pair: Make) -> None:
    group = pair()
    group.start()
    follower = group.follower()
    group.servers[follower].kill()
    wait.until(lambda: group.group(follower)["members"][0]["state"] == "down", "its Redis is down")
    side = group.sidecars[follower]
    assert side.get("/ready") == b"LIVE\n", "its clients are served by the leader"
    assert side.client().set("k", "v")
    assert side.client().get("k") == b"v"
    refused = group.redisha(1 - follower, "leader", NAMES[follower])
    assert refused.returncode == 1
    assert f"{NAMES[follower]} is not in sync" in refused.stderr
    for number in (0, 1):
        shown = group.redisha(number, "status")
        assert (shown.returncode, "down" in shown.stdout) == (1, True)
    group.sidecars[1 - follower].kill()
    reason = b"group cache: nobody leads: this member's Redis does not answer"
    wait.until(lambda: reason in _not_ready(side.get_status("/ready")), "it is told why nobody leads")
    assert group.group(follower)["leader"] == ""


def _not_ready(answer: tuple[int, bytes]) -> bytes:
    return answer[1] if answer[0] == 503 else b""


def test_one_of_two_with_data_of_their_own_is_emptied(pair: Make) -> None:
    group = pair(passwords=("", "secret"))
    group.servers[0].client().mset({f"key:{number}": number for number in range(500)})
    with group.servers[1].client(password="secret") as own:
        own.set("other", "data", ex=1000)
        own.function_load("#!lua name=theirs\nredis.register_function('f', function() return 1 end)")
        group.start(ready=False)
        wait.until(lambda: "hold different data" in group.group(1)["reason"], "it is noticed that they differ")
        code, text = group.sidecars[1].get_status("/ready")
        assert (code, b"run 'redisha init --from redis-001' on redis-002" in text) == (503, True)

        asked = group.redisha(1, "init", "--from", "redis-001")
        assert (asked.returncode, "add --yes" in asked.stderr) == (2, True)
        assert own.get("other") == b"data"
        wrong = group.redisha(1, "init", "--from", "redis-002", "--yes")
        assert (wrong.returncode, "this is redis-002 itself" in wrong.stderr) == (1, True)

        done = group.redisha(1, "init", "--from", "redis-001", "--yes")
        assert done.returncode == 0, done.stdout + done.stderr
        lines = done.stdout.splitlines()
        assert lines[0] == f"redis-002: 1 keys removed from 127.0.0.1:{group.servers[1].port}"
        assert lines[-1] == "redis-002: in_sync, 500 keys, redis-001 leads"
        assert (own.dbsize(), own.get("key:499"), own.exists("other")) == (500, b"499", 0)
        assert [each[1] for each in own.function_list()] != [b"theirs"]
    assert group.wait_in_sync() == "redis-001"
    for number, text in ((1, "it has the same data already"), (0, "redis-001 leads the group")):
        again = group.redisha(number, "init", "--from", NAMES[1 - number], "--yes")
        assert text in again.stdout + again.stderr


def test_another_redis_than_the_sidecars_is_not_emptied(pair: Make, tmp_path: Path) -> None:
    group = pair()
    group.servers[0].client().set("a", 1)
    group.servers[1].client().set("b", 1)
    group.start(ready=False)
    wait.until(lambda: "hold different data" in group.group(1)["reason"], "it is noticed that they differ")
    wrong = tmp_path / "wrong.yaml"
    document = yaml.safe_load(group.sidecars[1].file.read_text())
    document["group"]["redis"] = f"127.0.0.1:{group.servers[0].port}"
    wrong.write_text(yaml.safe_dump(document))
    done = subprocess.run(
        [sys.executable, "-m", "redisha", "init", "--from", "redis-001", "--yes", "-c", str(wrong)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "is another Redis than the one that the sidecar is connected to" in done.stderr
    assert group.servers[0].client().get("a") == b"1"


async def test_a_redis_that_refuses_is_left_as_it_is(redis_server: Callable[..., RedisServer]) -> None:
    server = redis_server()
    with server.client() as own:
        own.set("k", "v")
        own.acl_setuser("weak", enabled=True, passwords=["+p"], keys=["*"], commands=["+@all", "-function|flush"])
        there = Server(f"127.0.0.1:{server.port}", "weak", "p")
        found = await emptying.contents(there)
        assert (found.keys, found.version.split(".")[0] >= "7") == (1, True)
        with pytest.raises(ServerError, match="does not allow FUNCTION FLUSH to this user"):
            await emptying.empty(there, found.run_id)
        assert own.get("k") == b"v", "nothing was removed"
        with pytest.raises(ServerError, match="is another Redis than the one"):
            await emptying.empty(Server(f"127.0.0.1:{server.port}"), "another")
        own.function_load("#!lua name=theirs\nredis.register_function('f', function() return 1 end)")
        assert (await emptying.empty(Server(f"127.0.0.1:{server.port}"), found.run_id)).keys == 1
    with server.client() as own:
        assert (own.dbsize(), own.function_list()) == (0, [])


# --- Dynomite's REST --------------------------------------------------------------------------------------------------


def test_dynomites_rest_is_served_and_sets_the_consistency_of_new_clients(pair: Make) -> None:
    port = free_port()
    group = pair(more=(f'dynomite_stats: {{bind: "127.0.0.1:{port}", rack: r1}}\n', ""))
    group.start()

    def ask(path: str) -> str:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.read().decode()

    def levels(client: object) -> list[bytes]:
        return client.execute_command("REDISHA", "CONSISTENCY")  # type: ignore[attr-defined, no-any-return]

    first = group.sidecars[0]
    before = first.client()
    assert levels(before) == [b"write", b"one", b"read", b"one"]
    assert ask("/set_consistency/write/dc_quorum") == ask("/set_consistency/read/dc_safe_quorum") == "OK\r\n"
    said = "Read Consistency: DC_SAFE_QUORUM\r\nWrite Consistency: DC_SAFE_QUORUM\r\n"
    assert ask("/get_consistency") == said
    wait.until(lambda: levels(first.client()) == [b"write", b"quorum", b"read", b"leader"], "new clients have it")
    assert levels(before) == [b"write", b"one", b"read", b"one"], "who was there keeps what it had"
    os.kill(first.pid, signal.SIGHUP)
    wait.until(lambda: json.loads(first.get("/server_info"))["config"]["reload_success"] == 1, "it is reloaded")
    assert ask("/get_consistency") == said
    wait.until(lambda: levels(first.client()) == [b"write", b"quorum", b"read", b"leader"], "it outlives a reload")
    for path, why in (("/state/standby", "a member takes clients whenever"), ("/peer/down/all", "peers are found")):
        with pytest.raises(HTTPError) as caught:
            ask(path)
        with caught.value as error:
            assert (error.code, why in error.read().decode()) == (501, True)
    assert ask("/state/get_state") == "State: NORMAL\n"
    document = json.loads(ask("/info"))
    assert (document["rack"], document["cache"]["peer_connections"]) == ("r1", 1)
    assert document["cache"]["client_connections"] >= 1


def test_dynomites_rest_cannot_be_bound(pair: Make) -> None:
    taken = free_port()
    group = pair(more=(f'dynomite_stats: {{bind: "127.0.0.1:{taken}"}}\n', ""))
    with socket.create_server(("127.0.0.1", taken)):
        group.sidecars[0].start(ready=False)
        assert group.sidecars[0].wait_exit(20) == 3
    assert f"Dynomite's REST: cannot bind 127.0.0.1:{taken}" in group.sidecars[0].log()
