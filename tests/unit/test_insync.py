"""The record of the in-sync members: :mod:`redisha.group.insync`."""

from dataclasses import replace
from pathlib import Path

import pytest

from redisha.group.ballot import BallotBox
from redisha.group.insync import InSync, answer_record
from redisha.group.messages import done, read_recorded
from redisha.group.plane import PeerError
from redisha.group.status import GroupStatus
from redisha.group.view import BallotState, Recorded, View
from support.group_view import CONSISTENT, TRUSTED, at, follower, leader, look, member, peer


class Told:
    """A data plane that notes what it is told; ``answers`` are the members that keep a record."""

    def __init__(self, *answers: str) -> None:
        self.answers = set(answers)
        self.counted: tuple[str, ...] = ()
        self.story: list[object] = []

    def status(self) -> GroupStatus:
        raise NotImplementedError

    def lead(self, term: int) -> None:
        raise NotImplementedError

    follow = yield_lead = arbiter_beat = lead  # type: ignore[assignment]

    def count(self, members: tuple[str, ...]) -> None:
        self.counted = members
        self.story.append(members)

    async def ask(self, peer: str, message: dict[str, object], timeout: float) -> dict[str, object]:  # noqa: ASYNC109
        name = peer.split(":")[0]
        if name not in self.answers:
            raise PeerError("no answer")
        recorded = read_recorded(message)
        assert recorded is not None
        self.story.append((name, recorded.members))
        return done()


class Clock:
    def __init__(self) -> None:
        self.now = 10.0

    def __call__(self) -> float:
        return self.now


def made(*answers: str) -> tuple[Told, BallotBox, Clock, InSync]:
    plane, box, clock = Told(*answers), BallotBox(None, "cache", "a"), Clock()
    box.save(BallotState(term=2, voted_for="a", trusted=True))
    return plane, box, clock, InSync(plane, box, None, clock)


def led(*names: str, caught_up: bool = True, sequence: int = 10) -> View:
    """What the leader of term 2 sees, whose followers are in sync."""
    peers = [peer(follower(name, "a", 2, in_sync=True, position=at(2, sequence)), 50, caught_up) for name in names]
    return look(leader("a", 2, position=at(2, 10)), *peers, settings=CONSISTENT)


async def test_the_first_record_is_of_the_new_leader_alone() -> None:
    plane, box, _, record = made("b")
    assert await record.begin(2, None, led("b", "c"))
    assert record.confirmed == plane.counted == ("a",)
    assert box.state.recorded == Recorded(2, 1, ("a",))


async def test_a_record_is_recorded_again_in_the_new_term_before_anything_else() -> None:
    plane, box, _, record = made("b")
    assert await record.begin(2, Recorded(1, 7, ("a", "c")), led("b", "c"))
    assert record.confirmed == plane.counted == ("a", "c")
    assert box.state.recorded == Recorded(2, 1, ("a", "c"))


async def test_without_a_majority_that_has_it_nobody_leads() -> None:
    _, _, _, record = made()
    assert not await record.begin(2, Recorded(1, 7, ("a", "c")), led("b", "c"))


async def test_a_member_that_is_not_recorded_does_not_lead() -> None:
    _, box, _, record = made("b", "c")
    assert not await record.begin(2, Recorded(1, 7, ("c",)), led("b", "c"))
    assert box.state.recorded is None


async def test_one_that_is_recorded_no_more_is_waited_for_until_that_is_known() -> None:
    plane, _, _, record = made("b")
    await record.begin(2, Recorded(1, 1, ("a", "b", "c")), led("b", "c"))
    plane.answers = set()
    await record.record(("a", "b"), led("b", "c"))
    assert (record.confirmed, plane.counted) == (("a", "b", "c"), ("a", "b", "c"))
    plane.answers = {"b"}
    plane.story.clear()
    await record.record(("a", "b"), led("b", "c"))
    assert (record.confirmed, plane.counted) == (("a", "b"), ("a", "b"))
    assert plane.story == [("b", ("a", "b")), ("a", "b")]


async def test_a_new_one_is_waited_for_then_has_everything_then_is_recorded() -> None:
    plane, _, clock, record = made("b", "c")
    await record.begin(2, Recorded(1, 1, ("a", "b")), led("b", "c"))
    wanted, lagging = ("a", "b", "c"), led("b", "c", caught_up=False, sequence=9)
    await record.record(wanted, led("b", "c"))
    assert (record.confirmed, plane.counted) == (("a", "b"), wanted)
    await record.record(wanted, led("b", "c"))  # It may not be counted yet.
    clock.now += 0.25
    await record.record(wanted, lagging)
    await record.record(wanted, lagging)  # It lacks what may have been acknowledged.
    assert record.confirmed == ("a", "b")
    await record.record(wanted, led("b", "c", caught_up=False))
    assert (record.confirmed, plane.counted) == (wanted, wanted)


async def test_a_new_one_must_know_that_it_is_recorded() -> None:
    plane, _, clock, record = made("b")
    await record.begin(2, Recorded(1, 1, ("a", "b")), led("b", "c"))
    for _ in range(4):
        await record.record(("a", "b", "c"), led("b", "c"))
        clock.now += 0.25
    assert (record.confirmed, plane.counted) == (("a", "b"), ("a", "b", "c"))
    plane.answers.add("c")
    await record.record(("a", "b", "c"), led("b", "c"))
    assert record.confirmed == ("a", "b", "c")


async def test_a_leader_that_voted_for_another_records_nothing() -> None:
    plane, box, _, record = made("b", "c")
    await record.begin(2, None, led("b", "c"))
    box.save(replace(box.state, term=3, voted_for="b"))
    plane.story.clear()
    await record.record(("a", "b"), led("b", "c"))
    assert record.confirmed == ("a",)
    assert not any(isinstance(each, tuple) and each[0] in ("b", "c") for each in plane.story)


# --- the other side ---------------------------------------------------------------------------------------------------

NEW = Recorded(2, 3, ("a", "b"))


def test_a_record_is_kept(tmp_path: Path) -> None:
    box = BallotBox(tmp_path, "cache", "b")
    box.save(replace(TRUSTED, term=1, voted_for="c"))
    view = look(follower("b", "a", 2), peer(leader("a", 2)), settings=CONSISTENT)
    assert answer_record(box, "a", NEW, view) == ""
    kept = BallotState(term=2, trusted=True, founded=True, recorded=NEW)
    assert box.state == BallotBox(tmp_path, "cache", "b").state == kept


@pytest.mark.parametrize(
    ("state", "me", "says"),
    [
        (BallotState(), member("b"), "forgotten a vote"),
        (replace(TRUSTED, term=3), member("b"), "it is in term 3"),
        (TRUSTED, member("b", term=3), "it is in term 3"),
        (TRUSTED, follower("b", "c", 2), "it follows c"),
        (replace(TRUSTED, recorded=Recorded(2, 4, ("a",))), follower("b", "a", 2), "a newer record"),
    ],
)
def test_a_record_is_refused(state: BallotState, me: object, says: str) -> None:
    box = BallotBox(None, "cache", "b")
    box.save(state)
    view = look(me, peer(leader("a", 2)), settings=CONSISTENT)  # type: ignore[arg-type]
    assert says in answer_record(box, "a", NEW, view)
    assert box.state == state
