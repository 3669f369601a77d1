"""What the admin server tells of a group, and what it is asked: ``/group``, ``/leader``, the numbers, the page."""

import asyncio
import json
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import pytest

from redisha.admin import NotHandedOverError, Snapshot, UnknownMemberError, members, metrics
from redisha.admin.api import Api
from redisha.admin.app import AdminServer, Request, Response, parse_request_line
from redisha.admin.client import AdminClient, AnswerError
from redisha.core import EndpointStats, Stats
from redisha.group.merge import MergeStats
from redisha.group.status import Data, GroupStatus, PeerStatus
from support import groups
from support.groups import FOLLOWED, FOLLOWER, LEADER, LED, NEVER, THIRD, UNLED, peer, snapshot


class View:
    """Shows a snapshot; hands over as a test wants."""

    def __init__(self, shown: Snapshot) -> None:
        self.shown = shown
        self.error: Exception | None = None
        self.asked: list[str] = []

    def snapshot(self) -> Snapshot:
        return self.shown

    async def hand_over(self, member: str) -> str:
        self.asked.append(member)
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return member

    def server_info(self) -> dict[str, Any]:
        return {"version": "1"}

    def config_dump(self) -> dict[str, Any]:
        return {}

    def resync(self, cluster: str, action: str) -> tuple[str, ...]:
        return ()

    def drain(self) -> None: ...

    def quit(self) -> None: ...

    def set_log_level(self, level: str) -> None: ...


def get(target: str, shown: Snapshot) -> Response:
    answer = Api(View(shown))(parse_request_line(f"GET {target} HTTP/1.1"))
    assert isinstance(answer, Response)
    return answer


def told(group: GroupStatus | None, **fields: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(get("/group", snapshot(group, **fields)).body)
    return document


# --- GET /group -------------------------------------------------------------------------------------------------------


def test_the_leader_tells_everything() -> None:
    document = told(LED)
    rows = document.pop("members")
    assert document == {
        "name": "cache",
        "term": 3,
        "leader": "redis-001",
        "member": "redis-001",
        "role": "leader",
        "reason": "",
        "yielding": False,
        "leader_changes": 2,
        "merges": None,
    }
    assert [(each["member"], each["me"], each["role"], each["state"]) for each in rows] == [
        ("redis-001", True, "leader", "in_sync"),
        ("redis-002", False, "follower", "in_sync"),
        ("redis-003", False, "follower", "resync"),
    ]
    assert [(each["lag"], each["lag_bytes"], each["lag_ms"]) for each in rows] == [
        (0, 0, 0),
        (10, 1204, 3),
        (860, 99_000, 2500),
    ]
    assert rows[1]["position"] == {"generation": (3 << 32) + 2, "sequence": 890, "term": 3}
    assert (rows[1]["data"], rows[1]["data_set"], rows[1]["silent_ms"]) == ("complete", "5f15", 40)
    assert (rows[1]["healed"], rows[2]["progress"]["percent"], rows[2]["journal"]) == ("full: 9 keys", 25.0, 7)


def test_a_follower_tells_lag_by_positions_and_no_more_than_it_knows() -> None:
    document = told(FOLLOWED)
    assert (document["leader"], document["member"], document["role"]) == ("redis-001", "redis-002", "follower")
    me, first, third = document["members"]
    assert (me["lag"], me["lag_bytes"], me["lag_ms"]) == (10, None, None)
    assert (first["lag"], first["progress"]) == (0, None)
    assert third["lag"] is None, "its position is one of another term"
    assert (me["state"], first["state"], third["state"]) == ("in_sync", "in_sync", "catching_up")


def test_nobody_leads() -> None:
    document = told(UNLED, leaderless="an election is being held")
    assert (document["leader"], document["reason"]) == ("", "an election is being held")
    me, other = document["members"]
    assert (me["state"], other["state"], other["reason"]) == ("waiting", "down", "connection refused")
    assert (other["silent_ms"], me["lag"]) == (65_000, None)


def test_a_leader_that_is_not_heard_leads_nobody() -> None:
    dead = replace(FOLLOWED, peers=(peer(LEADER, up=False, silent_ms=5000, reason="refused"),))
    assert told(dead, leaderless="this member's Redis does not answer")["leader"] == ""


@pytest.mark.parametrize(
    ("found", "state", "reason"),
    [
        (peer(replace(FOLLOWER, data=Data.UNKNOWN), replica="down"), "down", "its Redis does not answer"),
        (peer(replace(FOLLOWER, data=Data.PARTIAL), replica="resync"), "resync", ""),
        (peer(FOLLOWER, replica="in_sync"), "catching_up", ""),
        (peer(FOLLOWER, replica="refused"), "refused", ""),
        (peer(FOLLOWER, replica="in_sync", up=False, reason="refused"), "down", "refused"),
        (PeerStatus("redis-002:8101", True, NEVER, "", groups.MemberStatus("")), "connecting", ""),
        (PeerStatus("redis-002:8101", False, NEVER, "no route", groups.MemberStatus("")), "connecting", "no route"),
    ],
)
def test_states_as_the_leader_sees_them(found: PeerStatus, state: str, reason: str) -> None:
    group = replace(LED, peers=(found,), counted=("redis-001",))
    row = told(group)["members"][1]
    assert (row["state"], row["reason"], row["in_sync"]) == (state, reason, False)


@pytest.mark.parametrize(
    ("data", "in_sync", "state"),
    [
        (Data.EMPTY, False, "empty"),
        (Data.FOREIGN, False, "foreign"),
        (Data.PARTIAL, False, "resync"),
        (Data.COMPLETE, False, "catching_up"),
        (Data.COMPLETE, True, "in_sync"),
    ],
)
def test_states_as_a_follower_sees_them(data: Data, in_sync: bool, state: str) -> None:
    group = replace(FOLLOWED, peers=(peer(LEADER), peer(replace(THIRD, data=data, in_sync=in_sync))))
    assert told(group)["members"][2]["state"] == state


@pytest.mark.parametrize("change", [{"data": Data.FOREIGN}, {"data_set": "other"}])
def test_data_that_is_not_the_groups(change: dict[str, Any]) -> None:
    stranger = replace(FOLLOWER, in_sync=False, **change)
    me = told(replace(FOLLOWED, me=stranger))["members"][0]
    assert me["state"] == "foreign"
    assert me["reason"] == "not the group's data; to replace it: redisha init --from redis-001"
    seen = told(replace(LED, peers=(peer(stranger, replica="resync"),), counted=("redis-001",)))["members"][1]
    assert seen["state"] == "foreign"
    apart = told(replace(UNLED, me=replace(UNLED.me, **change)), leaderless="they differ")["members"][0]
    assert (apart["state"], apart["reason"]) == ("foreign" if "data" in change else "waiting", "")


def test_the_own_redis_is_away() -> None:
    gone = replace(FOLLOWED, me=replace(FOLLOWER, data=Data.UNKNOWN, in_sync=False))
    stats = Stats(endpoints=(EndpointStats("cache", "redis:6379", "10.0.0.1:6379", "down", "connection refused"),))
    me = told(gone, stats=stats)["members"][0]
    assert (me["state"], me["reason"]) == ("down", "its Redis is down: connection refused")
    lost = told(replace(LED, lost=True))["members"][0]
    assert (lost["state"], lost["reason"]) == ("waiting", "its Redis was lost while it led")


def test_one_found_through_a_common_name_is_no_member() -> None:
    group = replace(LED, peers=(*LED.peers, peer(LEADER, "all")))
    assert [each["member"] for each in told(group)["members"]] == ["redis-001", "redis-002", "redis-003"]


def test_one_that_was_filled_and_got_nothing_since_names_no_lag() -> None:
    filled = replace(FOLLOWED, me=replace(FOLLOWER, position=replace(FOLLOWER.position, sequence=0)))
    assert told(filled)["members"][0]["lag"] is None


def test_without_a_group() -> None:
    answer = get("/group", snapshot(None))
    assert (answer.status, answer.body) == (404, "this sidecar is in no group\n")
    assert members.document(snapshot(None)) is None
    assert list(members.numbers(snapshot(None))) == []


def test_merges_are_told_where_there_are_any() -> None:
    merges = MergeStats(("redis-002:8101",), 4, 1, 90, 12, 3, "refused", 0.5)
    assert told(LED, merges=merges)["merges"]["conflicts_total"] == 3
    text = metrics.prometheus(snapshot(merges=merges))
    for name, value in (("merging", 1), ("merge_failures_total", 1), ("conflicts_total", 3), ("merge_keys_total", 90)):
        assert f'redisha_group_{name}{{group="cache"}} {value}.0' in text.splitlines()
    assert "redisha_group_conflicts" not in metrics.prometheus(snapshot())
    assert {f"group_{field}" for field, _, _ in members.numbers(snapshot(merges=merges))} <= metrics.HELP.keys()


# --- POST /leader -----------------------------------------------------------------------------------------------------


async def post(view: View, target: str, body: bytes = b"") -> Response:
    request = parse_request_line(f"POST {target} HTTP/1.1")
    answer = Api(view)(Request(request.method, request.path, request.query, body))
    return await answer if isinstance(answer, Awaitable) else answer


@pytest.mark.parametrize(
    ("target", "body"), [("/leader?member=redis-002", b""), ("/leader", b'{"member": "redis-002"}\r\n')]
)
async def test_the_leadership_is_handed_over(target: str, body: bytes) -> None:
    view = View(snapshot())
    answer = await post(view, target, body)
    assert answer.status == 200
    assert json.loads(answer.body) == {"leader": "redis-002", "wanted": "redis-002", "term": 3}
    assert view.asked == ["redis-002"]


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (UnknownMemberError("group cache has no member 'x'"), 404, "group cache has no member 'x'\n"),
        (NotHandedOverError("redis-002 is not in sync"), 409, "redis-002 is not in sync\n"),
    ],
)
async def test_a_hand_over_is_refused(error: Exception, status: int, text: str) -> None:
    view = View(snapshot())
    view.error = error
    answer = await post(view, "/leader?member=x")
    assert (answer.status, answer.body) == (status, text)


async def test_a_hand_over_that_takes_longer_is_told_so() -> None:
    view = View(snapshot())
    view.error = TimeoutError()
    answer = await post(view, "/leader?member=redis-002")
    assert answer.status == 202
    assert json.loads(answer.body)["leader"] == "redis-001"


@pytest.mark.parametrize("body", [b"redis-002", b"[]", b'{"member": 2}', b"{"])
async def test_a_body_that_names_nobody(body: bytes) -> None:
    view = View(snapshot())
    answer = await post(view, "/leader", body)
    assert (answer.status, view.asked) == (400, [])
    assert '{"member": "NAME"}' in answer.body


async def test_nobody_is_named() -> None:
    answer = await post(View(snapshot()), "/leader")
    assert (answer.status, answer.body) == (400, "say who: POST /leader?member=NAME\n")


async def test_over_http_the_handler_is_waited_for() -> None:
    view = View(snapshot())
    server = AdminServer(Api(view))
    address = await server.start("127.0.0.1:0")
    client = AdminClient(address)
    assert json.loads(await asyncio.to_thread(client.post, "/leader", member="redis-002"))["leader"] == "redis-002"
    view.error = NotHandedOverError("no")
    with pytest.raises(AnswerError, match="no") as caught:
        await asyncio.to_thread(client.post, "/leader", member="redis-002")
    assert caught.value.status == 409
    await server.close()


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_a_members_replica_has_its_name() -> None:
    replicas = json.loads(get("/replicas?format=json", snapshot()).body)["replicas"]
    assert [each["member"] for each in replicas] == ["redis-002", "redis-003"]
    assert "::member::redis-002\n" in get("/replicas", snapshot()).body
    unheard = replace(LED, peers=(peer(replace(FOLLOWER, member=""), "redis-002"),))
    replicas = json.loads(get("/replicas?format=json", snapshot(unheard)).body)["replicas"]
    assert [each["member"] for each in replicas] == ["redis-002:8101", ""]


def test_numbers_in_prometheus_form() -> None:
    text = metrics.prometheus(snapshot())
    for line in (
        'redisha_group_term{group="cache"} 3.0',
        'redisha_group_members{group="cache"} 3.0',
        'redisha_group_leader_changes_total{group="cache"} 2.0',
        'redisha_group_leader{group="cache",member="redis-001"} 1.0',
        'redisha_group_leader{group="cache",member="redis-002"} 0.0',
        'redisha_group_in_sync{group="cache",member="redis-003"} 0.0',
        'redisha_group_lag_commands{group="cache",member="redis-002"} 10.0',
        'redisha_group_lag_bytes{group="cache",member="redis-002"} 1204.0',
        'redisha_group_lag_seconds{group="cache",member="redis-003"} 2.5',
        'redisha_group_silent_seconds{group="cache",member="redis-002"} 0.04',
        'redisha_group_clock_skew_seconds{group="cache",member="redis-002"} 3.6',
        'redisha_group_journal{group="cache",member="redis-003"} 7.0',
        "# TYPE redisha_group_lag_seconds gauge",
        "# TYPE redisha_group_leader_changes_total counter",
    ):
        assert line in text.splitlines(), line
    assert 'silent_seconds{group="cache",member="redis-001"}' not in text


def test_numbers_that_only_the_leader_knows_are_not_made_up() -> None:
    text = metrics.prometheus(snapshot(FOLLOWED))
    assert 'redisha_group_lag_commands{group="cache",member="redis-002"} 10.0' in text
    assert "redisha_group_lag_bytes{" not in text
    assert "redisha_group_lag_seconds{" not in text


def test_nobody_leads_in_numbers() -> None:
    text = metrics.prometheus(snapshot(UNLED, leaderless="an election is being held"))
    assert 'redisha_group_leader{group="cache",member="redis-001"} 0.0' in text
    assert 'redisha_group_leader{group="cache",member="redis-002"} 0.0' in text


def test_numbers_in_envoys_form() -> None:
    lines = get("/stats?filter=%5Egroup", snapshot()).body.splitlines()
    assert "group.cache.term: 3" in lines
    assert "group.cache.redis-003.lag_seconds: 2.5" in lines
    assert "group.cache.redis-002.in_sync: 1" in lines
    assert json.loads(get("/stats?format=json", snapshot()).body)["group"]["leader"] == "redis-001"
    assert json.loads(get("/stats?format=json", snapshot(None)).body)["group"] is None


def test_every_number_has_a_help_text() -> None:
    assert {f"group_{field}" for field, _, _ in members.numbers(snapshot())} <= metrics.HELP.keys()


def test_the_page_shows_the_members() -> None:
    body = get("/", snapshot()).body
    assert "<h2>Group cache</h2>" in body
    assert "redis-001 leads, term 3" in body
    assert "<code>redis-001</code> (this one)" in body
    assert "0.0 s ago" in body
    assert "<progress value=300 max=1200>" in body
    assert "cache~redis-002" not in body, "a member is no mirror"
    evil = replace(UNLED, me=replace(UNLED.me, member="<b>"))
    assert "<b>" not in get("/", snapshot(evil, leaderless="<i>why</i>")).body
    assert "nobody leads: &lt;i&gt;why" in get("/", snapshot(evil, leaderless="<i>why</i>")).body
