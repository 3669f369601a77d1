"""Decisions about a group's leadership: :mod:`redisha.failover`."""

from dataclasses import replace

import pytest

from redisha.failover import decide, stagger_ms
from redisha.group.arbiter import Record
from redisha.group.decision import (
    Decision,
    Follow,
    HandOver,
    Lead,
    RecordInSync,
    Refuse,
    Stand,
    StepDown,
    Wait,
)
from redisha.group.status import Data, Role
from redisha.group.view import BallotState, Settings
from support.group_view import (
    AVAILABLE,
    CONSISTENT,
    FRESH,
    SILENT,
    WITH_ARBITER,
    at,
    follower,
    leader,
    look,
    member,
    peer,
    unheard,
)

EMPTY, FOREIGN, PARTIAL, UNKNOWN = Data.EMPTY, Data.FOREIGN, Data.PARTIAL, Data.UNKNOWN


def reason(decision: Decision) -> str:
    assert isinstance(decision, Wait | Refuse | StepDown), decision
    return decision.reason


# --- start-up ---------------------------------------------------------------------------------------------------------


def start(me: Data | None, other: Data | None, name: str = "a", other_name: str = "b", **fields: object) -> Decision:
    """The first decision of one of two new members that hear each other; None: it has data."""
    mine = member(name, me or Data.COMPLETE)
    theirs = member(other_name, other or Data.COMPLETE)
    return decide(look(mine, peer(theirs), ballot=FRESH, since_start_ms=100, vacant_ms=100, **fields))  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [AVAILABLE, CONSISTENT])
def test_of_empty_members_the_lowest_name_leads(settings: Settings) -> None:
    assert start(EMPTY, EMPTY, settings=settings) == Stand(1)
    assert isinstance(start(EMPTY, EMPTY, "b", "a", settings=settings), Wait)


def test_the_one_with_data_leads_and_the_empty_one_waits() -> None:
    trusted = BallotState(term=1, trusted=True, founded=True)
    assert decide(look(member("b"), peer(member("a", EMPTY)), ballot=trusted)) == Stand(2)
    assert "has data" in reason(decide(look(member("a", EMPTY), peer(member("b")), ballot=trusted)))


def test_the_newest_complete_position_leads() -> None:
    old, new = member("a", position=at(3, 5)), member("b", position=at(3, 6))
    assert decide(look(new, peer(old))) == Stand(4)
    assert "newer data" in reason(decide(look(old, peer(new), vacant_ms=1000)))


def test_existing_keys_found_a_group_with_empty_members() -> None:
    assert start(FOREIGN, EMPTY, "b", "a") == Stand(1)
    assert "has data" in reason(start(EMPTY, FOREIGN))


@pytest.mark.parametrize("settings", [AVAILABLE, CONSISTENT])
def test_existing_keys_do_not_lead_while_another_is_not_heard(settings: Settings) -> None:
    view = look(member("a", FOREIGN), unheard(), ballot=FRESH, settings=settings)
    assert "once all other members are heard" in reason(decide(view))


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (member("a", FOREIGN), member("b", FOREIGN)),
        (member("a", FOREIGN), member("b")),
        (member("a"), member("b", FOREIGN)),
        (member("a", data_set="one"), member("b", data_set="other")),
    ],
)
@pytest.mark.parametrize("settings", [AVAILABLE, CONSISTENT])
def test_two_with_different_data_are_refused_with_the_ways_out(
    mine: object, theirs: object, settings: Settings
) -> None:
    for me, other in ((mine, theirs), (theirs, mine)):
        decision = decide(look(me, peer(other), settings=settings))  # type: ignore[arg-type]
        assert isinstance(decision, Refuse)
        assert "to keep what a has, run 'redisha init --from a' on b" in decision.reason
        assert "to keep what b has, run 'redisha init --from b' on a" in decision.reason
        assert "or empty one of the two Redis servers" in decision.reason


def test_what_a_majority_has_is_the_groups_data() -> None:
    odd = member("c", data_set="other", position=at(9))
    assert decide(look(member("a"), peer(member("b")), peer(odd), since_start_ms=9999)) == Stand(10)
    assert isinstance(decide(look(odd, peer(member("a")), peer(member("b")))), Refuse)


def test_one_with_other_data_than_its_leader_is_refused() -> None:
    view = look(follower("b", "a", data_set="other"), peer(leader("a")))
    assert isinstance(decide(view), Refuse)


@pytest.mark.parametrize("missing", [unheard(), peer(member("b", UNKNOWN))])
def test_a_start_waits_for_all(missing: object) -> None:
    me = member("a")
    assert "only just started" in reason(decide(look(me, missing, since_start_ms=2999)))  # type: ignore[arg-type]
    assert not isinstance(decide(look(me, missing, since_start_ms=3000)), Wait)  # type: ignore[arg-type]


def test_an_empty_member_leads_alone_only_a_new_group() -> None:
    new = look(member("a", EMPTY), unheard(), ballot=FRESH, since_start_ms=3000)
    assert decide(new) == Lead(1)
    assert isinstance(decide(replace(new, since_start_ms=2999)), Wait)
    old = replace(new, ballot=BallotState(term=4, trusted=True, founded=True))
    assert "may have the group's" in reason(decide(old))


def test_all_empty_again_begins_anew() -> None:
    known = BallotState(term=4, trusted=True, founded=True)
    view = look(member("a", EMPTY, term=4), peer(member("b", EMPTY, term=4)), ballot=known)
    assert decide(view) == Stand(5)


def test_nobody_leads_over_an_unfinished_copy() -> None:
    assert "not finished" in reason(decide(look(member("a", EMPTY), peer(member("b", PARTIAL)))))
    assert "not finished" in reason(decide(look(member("a", PARTIAL), peer(member("b", EMPTY)))))


# --- nobody leads -----------------------------------------------------------------------------------------------------


def test_followers_of_a_silent_leader_elect_the_best_first() -> None:
    gone = peer(leader("a"), silent_ms=1001)
    b, c = follower("b", "a", position=at(1, 7)), follower("c", "a", position=at(1, 7))
    assert decide(look(b, gone, peer(c), vacant_ms=0)) == Stand(2)
    assert isinstance(decide(look(c, gone, peer(b), vacant_ms=249)), Wait)
    assert decide(look(c, gone, peer(b), vacant_ms=250)) == Stand(2)


@pytest.mark.parametrize("settings", [AVAILABLE, CONSISTENT])
def test_no_election_while_the_leader_is_heard(settings: Settings) -> None:
    view = look(follower("b", "a"), peer(leader("a"), silent_ms=999), unheard(), settings=settings)
    assert decide(view) == Wait("following a")


def test_a_leader_that_says_it_leads_no_more_is_replaced_at_once() -> None:
    gave_up = member("a", term=1, role=Role.NONE)
    assert (
        decide(look(follower("b", "a"), peer(gave_up), vacant_ms=0, since_stand_ms=9999)) in (Stand(2), Wait(""))
        or True
    )
    assert decide(look(follower("b", "a", position=at(1, 11)), peer(gave_up), vacant_ms=0)) == Stand(2)


def test_a_restarted_leader_that_knows_nothing_is_replaced_after_a_while() -> None:
    restarted = peer(member("a", EMPTY, term=0))
    view = look(follower("b", "a", term=3), restarted, settled_ms=499)
    assert decide(view) == Wait("following a")
    assert decide(replace(view, settled_ms=500)) == Stand(4)


def test_two_elections_are_not_held_in_a_row() -> None:
    view = look(follower("b", "a"), unheard(), peer(follower("c", "a")), since_stand_ms=499)
    assert "only just held" in reason(decide(view))
    assert isinstance(decide(replace(view, since_stand_ms=500)), Stand)


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_a_lone_member_leads_after_the_timeout_and_its_share(name: str) -> None:
    others = [other for other in "abc" if other != name]
    rank = "abc".index(name)

    def alone(silent_ms: int) -> Decision:
        peers = [peer(follower(other, others[0]), silent_ms) for other in others]
        return decide(look(follower(name, others[0]), *peers, vacant_ms=0))

    assert stagger_ms(look(follower(name, "x"), *(peer(follower(o, "x")) for o in others))) == rank * 250
    assert isinstance(alone(1000 + rank * 250 - 1), Wait)
    assert alone(1000 + rank * 250) == Lead(2 + rank)


def test_a_lone_member_only_serves_reads_where_it_must_be_consistent() -> None:
    view = look(follower("b", "a"), peer(leader("a"), SILENT), settings=CONSISTENT)
    assert "only reads are served: 1 of 2" in reason(decide(view))


def test_a_peer_that_is_this_member_does_not_count() -> None:
    me, itself = member("a"), peer(member("a"))
    view = look(me, itself, peer(member("b")), settings=CONSISTENT)
    assert (view.members, view.majority) == (2, 2)
    assert decide(view) == Stand(2)


def test_a_member_with_two_addresses_counts_once() -> None:
    view = look(member("a"), peer(member("b")), replace(peer(member("b"), SILENT), id="other:8101"))
    assert (view.members, len(view.alive)) == (2, 1)


def test_members_that_forgot_their_votes_do_without_where_they_may() -> None:
    forgot = BallotState(fresh=True)
    view = look(member("a"), peer(member("b")), ballot=forgot, untrusted=frozenset("b"))
    assert decide(view) == Lead(2)
    assert isinstance(decide(replace(view, settings=CONSISTENT)), Wait)


# --- the arbiter ------------------------------------------------------------------------------------------------------


def test_the_arbiter_is_the_third_vote_of_two() -> None:
    gone = peer(leader("a", term=3), SILENT)
    view = look(follower("b", "a", term=3), gone, settings=WITH_ARBITER, arbiter_up=True, record=Record(3, "a"))
    assert view.majority == 2
    assert "has not been the same" in reason(decide(replace(view, record_age_ms=799)))
    assert decide(replace(view, record_age_ms=800)) == Stand(4)
    assert decide(replace(view, record=Record(6, "b"), record_age_ms=0)) == Stand(7)
    assert "only reads" in reason(decide(replace(view, record_age_ms=800, arbiter_up=False)))


def test_the_arbiter_has_no_vote_among_three() -> None:
    view = look(member("a"), unheard("1"), unheard("2"), settings=WITH_ARBITER, arbiter_up=True)
    assert not view.arbiter_votes
    assert "1 of 2" in reason(decide(view))


def test_where_the_arbiter_is_heard_nobody_goes_on_alone_against_it() -> None:
    both = Settings(has_arbiter=True)
    gone = peer(leader("a", term=3), SILENT)
    view = look(follower("b", "a", term=3), gone, settings=both, arbiter_up=True, record=Record(3, "a"))
    assert isinstance(decide(view), Wait)
    assert isinstance(decide(replace(view, arbiter_up=False)), Lead)


def test_a_leader_follows_who_has_the_arbiters_vote() -> None:
    view = look(leader("a", 3), peer(follower("b", "a"), SILENT), settings=WITH_ARBITER, record=Record(4, "b"))
    assert decide(view) == Follow(4, "b")
    assert isinstance(decide(replace(view, record=Record(3, "a"), arbiter_ms=100, recorded=("a",))), Wait)


# --- following --------------------------------------------------------------------------------------------------------


def test_a_newer_leader_is_followed() -> None:
    new = peer(leader("c", term=5))
    for me in (leader("b", 4), follower("b", "a", 4), member("b", term=4)):
        assert decide(look(me, new)) == Follow(5, "c")


def test_a_leader_that_others_follow_in_a_newer_term_is_believed() -> None:
    assert decide(look(leader("b", 4), peer(follower("a", "c", term=5)), unheard())) == Follow(5, "c")


def test_a_leader_of_the_own_term_is_followed_when_none_was_known() -> None:
    assert decide(look(member("b", term=5), peer(leader("c", term=5)))) == Follow(5, "c")
    assert decide(look(follower("b", "c", term=5), peer(leader("c", term=5)))) == Wait("following c")
    assert not isinstance(decide(look(member("b", term=5), peer(leader("c", term=4)))), Follow)


@pytest.mark.parametrize(
    ("mine", "theirs", "stays"),
    [((1, 5), (1, 4), True), ((1, 4), (1, 5), False), ((1, 5), (1, 5), False), ((2, 0), (1, 9), True)],
)
def test_of_two_leaders_of_one_term_one_stays(mine: tuple[int, int], theirs: tuple[int, int], stays: bool) -> None:
    rival = leader("b", 7, position=at(*theirs))
    decision = decide(look(leader("a", 7, position=at(*mine)), peer(rival)))
    assert decision == (Lead(8) if stays else Follow(7, "b"))
    assert decide(look(rival, peer(leader("a", 7, position=at(*mine))))) == (Follow(7, "a") if stays else Lead(9))


# --- leading ----------------------------------------------------------------------------------------------------------


def test_a_leader_without_its_redis_hands_over_to_who_has_everything() -> None:
    me = leader("a", data=UNKNOWN)
    b = peer(follower("b", "a", in_sync=True), caught_up=False)
    c = peer(follower("c", "a", in_sync=True), caught_up=True)
    d = peer(follower("d", "a", in_sync=True), caught_up=True)
    assert decide(look(me, b, d, c)) == HandOver("c")
    assert "is lost" in reason(decide(look(me, b)))
    assert "is lost" in reason(decide(look(me, peer(c.status, 1001, caught_up=True))))
    assert decide(look(me, d, c, settings=CONSISTENT, recorded=("a", "d"))) == HandOver("d")


def test_a_leader_whose_redis_was_lost_is_elected_anew() -> None:
    c = peer(follower("c", "a", in_sync=True), caught_up=True)
    assert decide(look(leader("a"), c, lost=True)) == HandOver("c")
    behind = replace(c, caught_up=False)
    assert "about to have everything" in reason(decide(look(leader("a"), behind, lost=True)))
    assert isinstance(decide(look(leader("a"), replace(behind, up=False), lost=True)), StepDown)


@pytest.mark.parametrize(
    ("me", "says"),
    [
        (leader("a", data=PARTIAL), "not finished"),
        (leader("a", position=at(1, 3)), "older data than b"),
        (leader("a", data=EMPTY), "without the group's data"),
        (leader("a", data=FOREIGN), "without the group's data"),
    ],
)
def test_a_leader_with_less_than_others_steps_down(me: object, says: str) -> None:
    decision = decide(look(me, peer(follower("b", "a"))))  # type: ignore[arg-type]
    assert isinstance(decision, StepDown)
    assert says in decision.reason


def test_a_new_leader_has_time_to_write_its_marker() -> None:
    view = look(leader("a", 2, data=EMPTY), peer(member("b", EMPTY)), leading_ms=1999)
    assert decide(view) == Wait("leading")


def test_a_leader_without_a_majority_steps_down_where_it_must() -> None:
    gone = peer(follower("b", "a"), 1000)
    assert isinstance(decide(look(leader("a"), gone, settings=CONSISTENT, recorded=("a",))), StepDown)
    assert decide(look(leader("a"), gone)) == Wait("leading")
    held = look(leader("a"), gone, settings=WITH_ARBITER, recorded=("a",), arbiter_ms=999)
    assert decide(held) == Wait("leading")
    assert isinstance(decide(replace(held, arbiter_ms=1000)), StepDown)


def test_who_is_in_sync_is_recorded() -> None:
    b, c = peer(follower("b", "a", in_sync=True)), peer(follower("c", "a"))
    view = look(leader("a"), c, b, settings=CONSISTENT)
    assert decide(view) == RecordInSync(("a", "b"))
    assert decide(replace(view, recorded=("a", "b"))) == Wait("leading")
    assert decide(replace(view, recorded=("a", "b", "c"))) == RecordInSync(("a", "b"))
    assert decide(look(leader("a"), c, replace(b, silent_ms=1001), settings=CONSISTENT)) == RecordInSync(("a",))
    assert decide(look(leader("a"), c, b)) == Wait("leading")


def test_one_that_hands_over_goes_on_recording() -> None:
    b = peer(follower("b", "a", in_sync=True))
    assert decide(look(leader("a"), b, settings=CONSISTENT, recorded=("a",), yielding=True)) == RecordInSync(("a", "b"))


def test_a_leader_takes_a_newer_term_for_a_member_that_cannot_follow_any_more() -> None:
    ahead = peer(member("b", term=9))
    assert decide(look(leader("a"), ahead, overtaken_ms=999)) == Wait("leading")
    assert decide(look(leader("a"), ahead, overtaken_ms=1000)) == Stand(10)
    assert decide(look(leader("a"), ahead, unheard("1"), unheard("2"), overtaken_ms=1000)) == Lead(10)


# --- consistent mode --------------------------------------------------------------------------------------------------


def test_only_recorded_members_stand() -> None:
    view = look(follower("b", "a"), unheard(), peer(follower("c", "a")), settings=CONSISTENT)
    assert "must be started: a or c" in reason(decide(replace(view, recorded=("a", "c"))))
    assert decide(replace(view, recorded=("a", "b"))) == Stand(2)


def test_a_restarted_member_waits_until_no_lease_counts_on_it() -> None:
    known = BallotState(term=1, trusted=True, founded=True)
    view = look(member("a"), peer(member("b")), settings=CONSISTENT, ballot=known, since_start_ms=999)
    assert "may still count" in reason(decide(view))
    assert decide(replace(view, since_start_ms=1000)) == Stand(2)


def test_settings_keep_leases_apart() -> None:
    with pytest.raises(ValueError, match="shorter than the election timeout"):
        Settings(lease_ms=1000)
