"""Decisions and votes about a group's leadership, whatever is seen: :mod:`redisha.failover`."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from redisha.failover import ballot, decide
from redisha.group import fitness
from redisha.group.arbiter import Record
from redisha.group.decision import Follow, HandOver, Lead, RecordInSync, Refuse, Stand, Wait
from redisha.group.status import Data, Position, Role
from redisha.group.view import BallotState, OnPartition, Recorded, Settings, View
from redisha.group.vote import VoteRequest
from support.group_view import SILENT, at, leader, look, member, peer

terms = st.integers(0, 4)
names = st.sampled_from(["a", "b", "c", "d", ""])
positions = st.builds(at, terms, st.integers(0, 3))
statuses = st.builds(
    member,
    names,
    data=st.sampled_from(Data),
    position=positions,
    term=terms,
    leader=names,
    role=st.sampled_from(Role),
    data_set=st.sampled_from(["", "set", "other"]),
    in_sync=st.booleans(),
)
peers = st.builds(
    peer, statuses, silent_ms=st.sampled_from([0, 300, 600, 999, 1000, 1300, SILENT]), caught_up=st.booleans()
)
recorded = st.lists(st.sampled_from("abcd"), max_size=3, unique=True).map(lambda found: tuple(sorted(found)))
ballots = st.builds(
    BallotState,
    term=terms,
    trusted=st.booleans(),
    fresh=st.booleans(),
    founded=st.booleans(),
    recorded=st.none() | st.builds(Recorded, terms, st.integers(0, 3), recorded),
)
times = st.sampled_from([0, 400, 900, 1000, 2500, 60_000])
views = st.builds(
    lambda me, others, lost, yielding, **fields: look(me, *others, lost=lost, yielding=yielding, **fields),
    statuses.filter(lambda status: status.member != ""),
    st.lists(peers, max_size=4),
    st.booleans(),
    st.booleans(),
    settings=st.builds(Settings, on_partition=st.sampled_from(OnPartition), has_arbiter=st.booleans()),
    ballot=ballots,
    record=st.none() | st.builds(Record, terms, names, recorded, st.integers(0, 3)),
    record_age_ms=times,
    arbiter_up=st.booleans(),
    arbiter_ms=times,
    since_start_ms=times,
    since_stand_ms=times,
    vacant_ms=times,
    leading_ms=times,
    settled_ms=times,
    overtaken_ms=times,
    recorded=st.none() | recorded,
    untrusted=st.frozensets(st.sampled_from("abcd")),
    seen_term=terms,
)
often = settings(max_examples=100, deadline=None)


@often
@given(views)
def test_what_is_not_proven_never_leads(view: View) -> None:
    decision = decide(view)
    if isinstance(decision, Lead | Stand):
        assert view.me.data not in (Data.PARTIAL, Data.UNKNOWN)
    if isinstance(decision, Lead | Stand) and view.me.role is not Role.LEADER:
        others = [each.status.data for each in view.others]
        if view.me.data is Data.FOREIGN:
            assert set(others) <= {Data.EMPTY}
        if view.me.data is Data.EMPTY:
            assert set(others) <= {Data.EMPTY, Data.UNKNOWN}


@often
@given(views)
def test_a_new_term_is_above_all_that_are_known(view: View) -> None:
    decision = decide(view)
    if isinstance(decision, Lead | Stand):
        statuses = [view.me, *(each.status for each in view.others)]
        assert all(decision.term > max(status.term, status.position.term) for status in statuses)
        assert decision.term > max(view.ballot.term, view.seen_term)
    if isinstance(decision, Follow):
        assert decision.term >= view.me.term
        assert decision.leader not in ("", view.me.member)


@often
@given(views)
def test_a_consistent_member_needs_a_majority(view: View) -> None:
    decision = decide(view)
    if view.settings.consistent:
        assert not isinstance(decision, Lead)
        if isinstance(decision, Stand) and view.me.role is not Role.LEADER:
            assert view.recorded is None or view.me.member in view.recorded
            near = sum(each.silent_ms < 1000 for each in view.others)
            assert near + fitness.may_vote(view) + view.arbiter_votes >= view.majority


@often
@given(views)
def test_only_who_has_everything_takes_over(view: View) -> None:
    decision = decide(view)
    if isinstance(decision, HandOver):
        heir = next(each for each in view.others if each.status.member == decision.to)
        assert (heir.up, heir.caught_up, heir.status.data) == (True, True, Data.COMPLETE)
        assert heir.silent_ms < 1000
        assert decision.to in view.status.counted
    if isinstance(decision, RecordInSync):
        assert {view.me.member} <= set(decision.members) <= set(view.status.counted)


@often
@given(views)
def test_a_living_leader_is_not_replaced(view: View) -> None:
    if view.leader is not None and view.me.role is not Role.LEADER:
        assert isinstance(decide(view), Wait | Follow | Refuse)


@given(st.lists(positions, min_size=2, max_size=2), st.sampled_from(["ab", "ba"]))
def test_two_leaders_agree_who_stays(found: list[Position], order: str) -> None:
    one, other = leader(order[0], 3, position=found[0]), leader(order[1], 3, position=found[1])
    decisions = decide(look(one, peer(other))), decide(look(other, peer(one)))
    assert sum(isinstance(each, Lead) for each in decisions) == 1
    assert sum(isinstance(each, Follow) for each in decisions) == 1


requests = st.builds(
    VoteRequest,
    term=terms,
    member=st.sampled_from("abcd"),
    data=st.sampled_from(Data),
    data_set=st.sampled_from(["", "set", "other"]),
    position=positions,
    pre=st.booleans(),
    leader_yields=st.booleans(),
    recorded=st.none() | st.builds(Recorded, terms, st.integers(0, 3), recorded),
)


@often
@given(st.lists(st.tuples(requests, views), max_size=12), ballots)
def test_one_vote_in_a_term_and_none_in_an_older_one(asked: list[tuple[VoteRequest, View]], state: BallotState) -> None:
    given_votes: list[tuple[int, str]] = []
    for request, view in asked:
        answer = ballot(state, request, view)
        if answer.granted and not request.pre:
            assert all(request.term > term for term, _ in given_votes)
            assert request.term > state.term
            assert (answer.state.term, answer.state.voted_for) == (request.term, request.member)
            given_votes.append((request.term, request.member))
        else:
            assert answer.state == state
        state = answer.state


@often
@given(ballots, requests, views)
def test_a_vote_is_not_given_for_less(state: BallotState, request: VoteRequest, view: View) -> None:
    answer = ballot(state, request, view)
    me = view.me
    if not answer.granted:
        assert answer.reason
        return
    assert request.data in (Data.COMPLETE, Data.EMPTY, Data.FOREIGN)
    assert request.term >= me.term
    if request.member != me.member and me.data is Data.COMPLETE:
        assert request.data is Data.COMPLETE
        assert request.position >= me.position or view.settings.consistent
    if me.role is Role.LEADER and request.member != me.member:
        assert request.leader_yields
    if not request.leader_yields and request.member != me.member and view.leader is not None:
        assert request.member == me.leader


@often
@given(ballots, requests, views)
def test_who_may_have_forgotten_a_vote_gives_none(state: BallotState, request: VoteRequest, view: View) -> None:
    answer = ballot(state, request, view)
    if not state.trusted and not (state.fresh and fitness.brand_new(replace(view, ballot=state))):
        assert (answer.granted, answer.trusted) == (False, False)


@often
@given(ballots, requests, views)
def test_a_question_before_an_election_is_answered_as_in_it(
    state: BallotState, request: VoteRequest, view: View
) -> None:
    asked = ballot(state, replace(request, pre=True), view)
    assert asked.state == state
    assert asked.granted == ballot(state, replace(request, pre=False), view).granted
