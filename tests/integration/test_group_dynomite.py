"""The seed's Dynomite file for both of its nodes, with this machine's ports: a group that keeps Dynomite's promises."""

import re
import time
from pathlib import Path

import pytest

from support import wait
from support.group_contest import Contest
from support.group_stage import AOF, GroupStage, Here, Member
from support.ports import free_port
from support.wire import Conn

FILE = Path(__file__).parent.parent / "support" / "data" / "dynomite.yaml"
NODES = (("dc1", "rack1", "redis-dyno-001"), ("dc2", "rack2", "redis-dyno-002"))


def dynomite_file(at: int, peer_ports: list[int], redis_port: int, more: str = "") -> str:
    """The file of node 1 or 2; only hosts, ports and, for the second, the places are other ones."""
    here, there = NODES[at], NODES[1 - at]
    text = FILE.read_text()
    changes = [
        (r"datacenter: dc1", f"datacenter: {here[0]}"),
        (r"rack: rack1", f"rack: {here[1]}"),
        (r"dyn_listen: 0.0.0.0:8101", f"dyn_listen: 127.0.0.1:{peer_ports[at]}"),
        (r"  listen: 0.0.0.0:8102", "  listen: 127.0.0.1:{port}"),
        (r"redis-dyno-002:8101:rack2:dc2:0", f"127.0.0.1:{peer_ports[1 - at]}:{there[1]}:{there[0]}:0"),
        (r"redis-dyno-001:6379:1", f"127.0.0.1:{redis_port}:1"),
    ]
    for pattern, replacement in changes:
        text, count = re.subn(pattern, replacement, text)
        assert count == 1, f"{pattern} occurs {count} times"
    return text + more


@pytest.fixture
def pair(redis_server, sidecar) -> GroupStage:
    """Both nodes, in sync."""
    ports = [free_port(), free_port()]
    members = []
    for at, (datacenter, rack, _) in enumerate(NODES):
        server = redis_server(**AOF)
        proxy = sidecar(dynomite_file(at, ports, server.port, "  stats_listen: 127.0.0.1:{port2}\n"), start=False)
        state = proxy.directory / "state"
        state.mkdir(exist_ok=True)
        proxy.state_dir = state
        members.append(Member(f"{datacenter}-{rack}-0", server, proxy, state, Here()))
    stage = GroupStage(members, {})
    stage.start()
    return stage


def test_contended(pair: GroupStage) -> None:
    """The load with which Dynomite hands out 1,787 numbers twice: none."""
    with Contest(pair.members, seed=1, transactions=True) as contest:
        contest.goes_on(300)
    pair.assert_equal()
    contest.assert_no_errors()
    contest.assert_sane(pair[0].redis)


def test_levels(pair: GroupStage) -> None:
    """DC_QUORUM for reads and writes, as the file says; Dynomite's own command changes it for a connection."""
    with pair[1].conn() as conn:
        told = conn.command("REDISHA", "CONSISTENCY")
        assert told == b"*4\r\n$5\r\nwrite\r\n$6\r\nquorum\r\n$4\r\nread\r\n$6\r\nleader\r\n"
        assert conn.command("DYNO_CONFIG:CONN_CONSISTENCY", "DC_ONE") == b"+OK\r\n"
        assert conn.pipeline(("SET", "k", 1), ("GET", "k"))[1] == b"$1\r\n1\r\n"


def test_default_client(pair: GroupStage) -> None:
    """Today's redis-py with its default settings, which Dynomite closes the connection to."""
    with pair[0].proxy.client() as client:
        assert client.set("k", "v")
        assert client.get("k") == b"v"


@pytest.mark.parametrize("who", ["leader", "follower"])
def test_redis_is_killed(pair: GroupStage, who: str) -> None:
    """For some seconds, where Dynomite's clients see hundreds of errors and 79 % of the keys are missing afterwards."""
    leader, follower = pair.pair()
    victim = leader if who == "leader" else follower
    with Contest(pair.members, seed=2) as contest:
        contest.goes_on(100)
        victim.redis.kill()
        begun = time.monotonic()
        contest.goes_on(100)
        wait.until(lambda: time.monotonic() > begun + 2, "two seconds pass", 5)
        victim.start_redis()
        pair.wait_counted()
        contest.goes_on(50)
    contest.assert_no_errors()
    pair.assert_equal()
    contest.assert_sane(pair[0].redis)


def test_statistics(pair: GroupStage) -> None:
    """Dynomite's REST port answers where stats_listen says."""
    port = pair[0].proxy.ports["port2"]
    with Conn(port) as conn:
        conn.send(b"GET /ping HTTP/1.0\r\n\r\n")
        assert b"200" in conn.until_closed(5).split(b"\r\n")[0]
