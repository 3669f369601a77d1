"""What an operator asks of the leadership, at the leader and at a follower."""

from dataclasses import replace

import pytest

from redisha.admin import UnknownMemberError
from redisha.group.handover import HandOverError
from redisha.group.plane import PeerError
from redisha.group.request import Requests
from redisha.group.status import GroupStatus
from support.groups import FOLLOWED, LEADER, LED, UNLED, peer


class Plane:
    """Another member's council answers what a test wants."""

    def __init__(self, status: GroupStatus) -> None:
        self._status = status
        self.asked: list[tuple[str, dict[str, object]]] = []
        self.answer: dict[str, object] | Exception = {"leader": "redis-002"}

    def status(self) -> GroupStatus:
        return self._status

    async def ask(self, peer: str, message: dict[str, object], timeout: float) -> dict[str, object]:  # noqa: ASYNC109
        self.asked.append((peer, message))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def lead(self, term: int) -> None: ...

    def follow(self, term: int, leader: str) -> None: ...

    def yield_lead(self, on: bool) -> None: ...

    def count(self, members: tuple[str, ...]) -> None: ...

    def arbiter_beat(self, age_ms: int) -> None: ...


handed: list[str | None] = []


async def hand_over(to: str | None) -> str:
    handed.append(to)
    return str(to)


def at(status: GroupStatus) -> tuple[Plane, Requests]:
    handed.clear()
    plane = Plane(status)
    return plane, Requests(plane, hand_over)


async def test_the_leader_hands_over() -> None:
    _, requests = at(LED)
    assert await requests.lead("redis-002") == "redis-002"
    assert handed == ["redis-002"]


@pytest.mark.parametrize("status", [LED, FOLLOWED])
async def test_who_leads_already(status: GroupStatus) -> None:
    _, requests = at(status)
    with pytest.raises(HandOverError, match="redis-001 leads already, term 3"):
        await requests.lead("redis-001")


@pytest.mark.parametrize("status", [LED, FOLLOWED, UNLED])
async def test_who_is_no_member(status: GroupStatus) -> None:
    _, requests = at(status)
    with pytest.raises(UnknownMemberError, match="group cache has no member 'redis-009'; known: redis-001, redis-002"):
        await requests.lead("redis-009")


async def test_a_member_that_was_never_heard_is_told_of() -> None:
    _, requests = at(replace(LED, peers=(*LED.peers, peer(replace(LEADER, member=""), "redis-004"))))
    with pytest.raises(UnknownMemberError, match="and 1 that was never heard"):
        await requests.lead("redis-004")


async def test_who_is_not_in_sync() -> None:
    _, requests = at(LED)
    with pytest.raises(HandOverError, match="redis-003 is not in sync: it is resync, and lacks 860 effects"):
        await requests.lead("redis-003")
    assert handed == []


async def test_who_will_be_in_sync_in_a_moment_is_waited_for_by_the_council() -> None:
    status = replace(LED, counted=("redis-001",))
    _, requests = at(status)
    assert await requests.lead("redis-002") == "redis-002"


async def test_who_is_down() -> None:
    _, requests = at(replace(LED, peers=(replace(LED.peers[0], up=False, reason="connection refused"),)))
    with pytest.raises(HandOverError, match="redis-002 is down: connection refused"):
        await requests.lead("redis-002")


async def test_nobody_leads() -> None:
    _, requests = at(UNLED)
    with pytest.raises(HandOverError, match="no member leads at the moment"):
        await requests.lead("redis-001")


async def test_a_follower_asks_the_leader() -> None:
    plane, requests = at(FOLLOWED)
    assert await requests.lead("redis-002") == "redis-002"
    assert plane.asked == [("redis-001:8101", {"type": "hand_over", "v": 1, "to": "redis-002"})]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"reason": "redis-002 is not in sync"}, "redis-002 is not in sync"),
        ({"error": "nothing is known of the type hand_over"}, "nothing is known of the type hand_over"),
        ({}, "redis-001 does not say why"),
        (PeerError("redis-001:8101 does not answer"), "redis-001 leads, and does not answer"),
    ],
)
async def test_the_leader_refuses(answer: dict[str, object] | Exception, said: str) -> None:
    plane, requests = at(FOLLOWED)
    plane.answer = answer
    with pytest.raises(HandOverError, match=said):
        await requests.lead("redis-002")


async def test_the_leader_answers_a_follower() -> None:
    _, requests = at(LED)
    assert await requests.answer({"type": "hand_over", "v": 1, "to": "redis-002"}) == {"leader": "redis-002"}
    assert await requests.answer({"type": "hand_over", "v": 1, "to": "x"}) == {
        "reason": "group cache has no member 'x'; known: redis-001, redis-002, redis-003"
    }
    assert "another version" in str(await requests.answer({"type": "hand_over", "v": 2, "to": "redis-002"}))
    assert await requests.answer({"type": "vote", "v": 1}) is None


async def test_who_leads_no_more_does_not_ask_on() -> None:
    plane, requests = at(FOLLOWED)
    answer = await requests.answer({"type": "hand_over", "v": 1, "to": "redis-002"})
    assert answer == {"reason": "who was asked leads no more: ask again"}
    assert plane.asked == []
