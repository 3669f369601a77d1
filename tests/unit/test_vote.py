"""Votes: :mod:`redisha.group.vote`."""

from dataclasses import replace

import pytest

from redisha.failover import ballot
from redisha.group.status import Data, MemberStatus, Role
from redisha.group.view import BallotState, Recorded, Settings
from redisha.group.vote import VoteRequest, newer, remembered
from support.group_view import (
    AVAILABLE,
    CONSISTENT,
    FRESH,
    TRUSTED,
    at,
    follower,
    leader,
    look,
    member,
    peer,
    unheard,
)


def wanted(name: str = "b", term: int = 2, sequence: int = 10, **fields: object) -> VoteRequest:
    """A candidate with data of term 1."""
    request = VoteRequest(term, name, Data.COMPLETE, "set", at(1, sequence))
    return replace(request, **fields)  # type: ignore[arg-type]


def test_a_vote_is_kept_before_it_is_given() -> None:
    answer = ballot(TRUSTED, wanted(), look(member("a"), peer(member("b"))))
    assert (answer.granted, answer.state) == (True, BallotState(term=2, voted_for="b", trusted=True))


def test_a_question_changes_nothing() -> None:
    answer = ballot(TRUSTED, wanted(pre=True), look(member("a"), peer(member("b"))))
    assert (answer.granted, answer.state) == (True, TRUSTED)


@pytest.mark.parametrize(
    ("state", "me", "granted"),
    [
        (BallotState(term=1, trusted=True), member("a", term=1), True),
        (BallotState(term=2, voted_for="c", trusted=True), member("a"), False),
        (BallotState(term=2, voted_for="b", trusted=True), member("a"), False),
        (TRUSTED, member("a", term=2), True),  # The data plane heard of the candidate's term first.
        (TRUSTED, member("a", term=2, leader="c"), False),
        (TRUSTED, member("a", term=3), False),
    ],
)
def test_one_vote_in_a_term(state: BallotState, me: MemberStatus, granted: bool) -> None:
    assert ballot(state, wanted(), look(me, peer(member("b")))).granted == granted


def test_no_vote_while_a_leader_lives() -> None:
    view = look(follower("a", "c"), peer(member("b")), peer(leader("c"), 999))
    assert ballot(TRUSTED, wanted(), view).reason == "it hears the leader c"
    assert ballot(TRUSTED, wanted(leader_yields=True), view).granted
    silent = look(follower("a", "c"), peer(member("b")), peer(leader("c"), 1000))
    assert ballot(TRUSTED, wanted(), silent).granted


def test_a_leader_votes_only_for_its_successor() -> None:
    view = look(leader("a"), peer(follower("b", "a")))
    assert ballot(TRUSTED, wanted(leader_yields=True), view).reason == "it leads"
    yielding = look(leader("a"), peer(follower("b", "a")), yielding=True)
    assert ballot(TRUSTED, wanted(leader_yields=True), yielding).granted
    assert not ballot(TRUSTED, wanted(), yielding).granted
    assert ballot(TRUSTED, wanted("a"), view).granted


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (wanted(sequence=9), "older data"),
        (wanted(data_set="other"), "other data"),
        (wanted(data=Data.PARTIAL), "not complete"),
        (wanted(data=Data.UNKNOWN), "not complete"),
        (wanted(data=Data.EMPTY), "none of the group"),
        (wanted(data=Data.FOREIGN), "none of the group"),
    ],
)
def test_no_vote_for_who_has_less(request_: VoteRequest, reason: str) -> None:
    assert reason in ballot(TRUSTED, request_, look(member("a"), peer(member("b")))).reason


def test_who_has_nothing_complete_does_not_compare() -> None:
    for data in (Data.UNKNOWN, Data.PARTIAL, Data.EMPTY):
        assert ballot(TRUSTED, wanted(sequence=0), look(member("a", data), peer(member("b")))).granted
    assert ballot(TRUSTED, wanted(data=Data.FOREIGN), look(member("a", Data.EMPTY), peer(member("b")))).granted


def test_only_recorded_members_are_elected() -> None:
    view = look(member("a"), peer(member("b")), settings=CONSISTENT)
    state = replace(TRUSTED, recorded=Recorded(1, 4, ("a", "c")))
    assert "not among the members in sync: a, c" in ballot(state, wanted(), view).reason
    brought = wanted(recorded=Recorded(1, 5, ("a", "b")))
    answer = ballot(state, brought, view)
    assert (answer.granted, answer.state.recorded) == (True, brought.recorded)
    assert ballot(state, wanted(), replace(view, settings=AVAILABLE)).granted


def test_newer_writes_of_one_that_is_not_recorded_were_never_acknowledged() -> None:
    view = look(member("a", position=at(1, 12)), peer(member("b")), settings=CONSISTENT)
    assert not ballot(replace(TRUSTED, recorded=Recorded(1, 1, ("a", "b"))), wanted(), view).granted
    assert ballot(replace(TRUSTED, recorded=Recorded(1, 1, ("b",))), wanted(), view).granted


def test_after_a_start_a_lease_may_still_count_on_this_member() -> None:
    known = replace(TRUSTED, founded=True)
    view = look(member("a"), peer(member("b")), settings=CONSISTENT, since_start_ms=999)
    assert "was started" in ballot(known, wanted(), view).reason
    assert ballot(known, wanted(leader_yields=True), view).granted
    assert ballot(TRUSTED, wanted(), view).granted
    assert ballot(known, wanted(), replace(view, settings=AVAILABLE)).granted


@pytest.mark.parametrize("settings", [AVAILABLE, CONSISTENT])
def test_without_a_ballot_only_a_new_group_is_voted_in(settings: Settings) -> None:
    new = look(member("a", Data.EMPTY), peer(member("b", Data.EMPTY)), settings=settings)
    founding = wanted(data=Data.EMPTY, data_set="")
    assert ballot(FRESH, founding, new).granted
    for me, other in [
        (member("a"), member("b", Data.EMPTY)),
        (member("a", Data.UNKNOWN), member("b", Data.EMPTY)),
        (member("a", Data.EMPTY), member("b")),
        (member("a", Data.EMPTY), member("b", Data.PARTIAL)),
        (member("a", Data.EMPTY), member("b", Data.EMPTY, leader="c")),
        (member("a", Data.EMPTY), member("b", Data.UNKNOWN, term=3)),
    ]:
        answer = ballot(FRESH, founding, look(me, peer(other), settings=settings))
        assert (answer.granted, answer.trusted) == (False, False)
    assert not ballot(BallotState(), founding, new).granted


def test_a_new_consistent_group_is_one_of_which_all_are_heard() -> None:
    view = look(member("a", Data.EMPTY), peer(member("b", Data.EMPTY)), unheard(), settings=CONSISTENT)
    founding = wanted(data=Data.EMPTY, data_set="")
    assert not ballot(FRESH, founding, view).granted
    assert ballot(FRESH, founding, replace(view, settings=AVAILABLE)).granted


def test_what_is_remembered() -> None:
    view = look(follower("a", "b", 4, in_sync=True), peer(leader("b", 4)), ballot=BallotState(fresh=True))
    kept = remembered(view)
    assert kept == BallotState(term=4, trusted=True, founded=True)
    assert remembered(replace(view, ballot=kept)) is kept
    unfilled = look(follower("a", "b", 4), peer(leader("b", 4)), ballot=BallotState(fresh=True))
    assert not remembered(unfilled).trusted
    voted = BallotState(term=4, voted_for="b", trusted=True)
    assert remembered(replace(view, ballot=voted)).voted_for == "b"
    assert remembered(replace(view, ballot=replace(voted, term=3))).voted_for == ""
    new = look(member("a", Data.EMPTY, role=Role.NONE), peer(member("b", Data.EMPTY)), ballot=FRESH)
    assert remembered(new) == BallotState(trusted=True)


def test_the_newer_record() -> None:
    old, new = Recorded(1, 9, ("a",)), Recorded(2, 1, ("b",))
    assert newer(old, new) == newer(new, old) == newer(None, new) == newer(new, None) == new
    assert newer(None, None) is None
