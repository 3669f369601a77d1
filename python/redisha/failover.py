"""Who leads a group: decisions and votes as pure functions of a view.

Owns: what a member does about the leadership. Whether it votes for another is in :mod:`redisha.group.vote`, whose data
may lead in :mod:`redisha.group.fitness`.
Never: awaits, asks a clock or remembers; :class:`redisha.group.council.Council` does what is decided here.

::

    leading ──── another leads a higher term ─▶ Follow            two lead one term ─▶ Lead a higher one, or Follow
            ├─── own Redis lost ─▶ HandOver to who has everything         it came back with less ─▶ StepDown
            └─── no majority (consistent) ─▶ StepDown             who is in sync has changed ─▶ RecordInSync
    no leader ── different data ─▶ Refuse                         own data not fit, somebody is better ─▶ Wait
            └─── a majority can be reached ─▶ Stand               it cannot: available ─▶ Lead, consistent ─▶ Wait
"""

from __future__ import annotations

from redisha.group import fitness
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
from redisha.group.status import Data, MemberStatus, PeerStatus, Role
from redisha.group.view import View
from redisha.group.vote import ballot

__all__ = ["ballot", "decide", "heirs", "record_is_free", "stagger_ms"]

STAGGER = 4
"""Parts of an election timeout between one candidate and the next."""

SETTLING = 2
"""Election timeouts that a new leader has before its data must look like a leader's: its marker has to be written."""


def decide(view: View) -> Decision:
    """What this member should do now about the leadership."""
    if view.me.role is Role.LEADER:
        return _as_leader(view)
    return _as_follower(view) or _as_candidate(view)


def stagger_ms(view: View) -> int:
    """How much longer than the others this member waits before it leads alone, by its name."""
    return _rank(view) * view.settings.election_timeout_ms // STAGGER


def _rank(view: View) -> int:
    return sum("" < peer.status.member < view.me.member for peer in view.others)


def _above(view: View) -> int:
    """A term above all known ones for who was not elected; two members that know as much choose different ones."""
    return view.known_term + 1 + _rank(view)


def _leaders(view: View) -> list[MemberStatus]:
    """Who else says that it leads, the one to follow last."""
    found = [peer.status for peer in view.alive if peer.status.role is Role.LEADER and peer.status.member]
    return sorted(found, key=lambda status: (status.term, status.position, status.member))


def _newer_leadership(view: View) -> Follow | None:
    """A leadership above this member's term that a living member knows of; its leader may not be heard from here."""
    told = [(peer.status.term, peer.status.leader) for peer in view.alive]
    told = [each for each in told if each[0] > view.me.term and each[1] not in ("", view.me.member)]
    return Follow(*max(told)) if told else None


# --- leading ----------------------------------------------------------------------------------------------------------


def _as_leader(view: View) -> Decision:
    me = view.me
    if newer := _newer_leadership(view):
        return newer
    record = view.record if view.arbiter_votes else None
    if record is not None and record.leader != me.member and record.term >= me.term:
        return Follow(record.term, record.leader)  # elected with the arbiter's vote, while this member was cut off
    rivals = [status for status in _leaders(view) if status.term == me.term]
    if rivals:
        return _one_of_two(view, rivals[-1])
    if not view.status.yielding and (me.data is Data.UNKNOWN or view.status.lost):
        return _without_redis(view)
    if reason := _lost_data(view):
        return StepDown(reason)
    if not view.status.yielding and view.overtaken_ms >= view.settings.election_timeout_ms:
        return _raise_term(view)
    # One that hands over goes on recording: its successor must be recorded.
    return _keep_in_sync(view) if view.settings.consistent else Wait("leading")


def _one_of_two(view: View, rival: MemberStatus) -> Decision:
    if view.settings.consistent:  # One vote per term and member keeps this from happening; if it does, elect again.
        return StepDown(f"{rival.member} leads the same term {rival.term}")
    me = view.me
    mine, theirs = [(each.data is Data.COMPLETE, each.position, each.member) for each in (me, rival)]
    if mine < theirs:
        return Follow(rival.term, rival.member)
    return Lead(_above(view)) if me.data is Data.COMPLETE else StepDown(f"{rival.member} leads the same term, too")


def _without_redis(view: View) -> Decision:
    successors = heirs(view)
    if successors:
        return HandOver(successors[0])
    if view.me.data is Data.UNKNOWN:
        return Wait("this leader's Redis is lost, and no other member has everything")
    if heirs(view, caught_up=False):  # What is on its way to them would be lost with the leadership.
        return Wait("this member's Redis was lost and is back, and a successor is about to have everything")
    return StepDown("this member's Redis was lost and is back")


def _raise_term(view: View) -> Decision:
    """A living member was a candidate in vain: it can follow only a term above its own."""
    if len(_near(view)) + fitness.may_vote(view) >= view.majority:
        if view.since_stand_ms < view.settings.election_timeout_ms:
            return Wait("an election was only just held")
        return Stand(view.known_term + 1)
    return Wait("no majority can vote") if view.settings.consistent else Lead(_above(view))


def heirs(view: View, caught_up: bool = True) -> list[str]:
    """The followers that could take over without a loss, the first choice first.

    Args:
        view: of the leader.
        caught_up: only those that could now. The others could once they have what is on its way to them.
    """
    fit = [peer for peer in view.alive if peer.up and _in_sync(view, peer) and fitness.electable(view, peer.status)]
    return sorted(peer.status.member for peer in fit if peer.caught_up or not caught_up)


def _in_sync(view: View, peer: PeerStatus) -> bool:
    """Whether this leader counts a follower as having everything, and the follower agrees whom it follows."""
    status = peer.status
    mine = status.leader == view.me.member and status.term == view.me.term
    return mine and status.member in view.status.counted and status.data is Data.COMPLETE


def _lost_data(view: View) -> str:
    """Why a leader whose Redis came back must not go on; empty: it may."""
    me = view.me
    if me.data is Data.PARTIAL:
        return "this member's Redis holds a copy that is not finished"
    if view.leading_ms < SETTLING * view.settings.election_timeout_ms:
        return ""
    if me.data is not Data.COMPLETE:
        return "this member's Redis came back without the group's data"
    for peer in view.alive:
        if fitness.same_data(me, peer.status) and peer.status.position > me.position:
            return f"this member's Redis came back with older data than {peer.status.member} has"
    return ""


def _keep_in_sync(view: View) -> Decision:
    timeout = view.settings.election_timeout_ms
    # Until the election timeout nobody else can be elected: past its lease a leader holds its writes, and may go on.
    heard = 1 + len(view.alive) + (view.arbiter_votes and view.arbiter_ms < timeout)
    if heard < view.majority:
        return StepDown(f"no majority is heard: {heard} of {view.members + view.arbiter_votes}")
    if view.me.data is not Data.COMPLETE:
        return Wait("leading, marker not written yet")
    wanted = tuple(sorted([view.me.member, *(peer.status.member for peer in view.alive if _in_sync(view, peer))]))
    return Wait("leading") if wanted == view.recorded else RecordInSync(wanted)


# --- following, or nobody leads ---------------------------------------------------------------------------------------


def _as_follower(view: View) -> Decision | None:
    """What there is to do while somebody else leads; None: nobody does."""
    if newer := _newer_leadership(view):
        return newer
    leaders = [status for status in _leaders(view) if status.term == view.me.term]
    if leaders and view.leader is None:
        return Follow(leaders[-1].term, leaders[-1].member)
    if reason := fitness.conflict(view):
        return Refuse(reason)
    return Wait(f"following {view.leader.status.member}") if view.leader is not None else None


def _as_candidate(view: View) -> Decision:
    if reason := fitness.unfit(view) or fitness.starting(view):
        return Wait(reason)
    settings = view.settings
    near = _near(view)
    votes = len(near) + fitness.may_vote(view)
    if votes < view.majority and view.arbiter_votes and view.arbiter_up:
        if not record_is_free(view):
            return Wait("the arbiter's record has not been the same for the time of a lease yet")
        votes += 1
    if votes < view.majority and settings.consistent:
        return Wait(f"no majority can vote, only reads are served: {votes} of {view.majority} votes needed")
    if votes < view.majority and (doubtful := _doubtful(view, near)):
        return Wait(f"not silent for long enough to lead without: {', '.join(doubtful)}")
    better, newer = fitness.ahead(view)
    patience = better * settings.election_timeout_ms // STAGGER + newer * SETTLING * settings.election_timeout_ms
    if view.vacant_ms < patience:
        return Wait(f"members with newer data or a lower name stand first: {better}")
    if votes < view.majority:
        return Lead(_above(view))
    if view.since_stand_ms < settings.election_timeout_ms // 2 + patience:
        return Wait("an election was only just held")
    return Stand(view.known_term + 1)


def record_is_free(view: View) -> bool:
    """Whether the arbiter's vote can be had: no other leader has renewed its record for the time of a lease."""
    record = view.record
    return record is None or record.leader == view.me.member or view.record_age_ms >= view.settings.lease_ms


def _near(view: View) -> list[PeerStatus]:
    """Members whose votes can be expected.

    One that is about to be taken for gone is not asked at first: that would cost a lone member the time of an election.
    """
    timeout = view.settings.election_timeout_ms
    limit = timeout if view.vacant_ms >= SETTLING * timeout else timeout // 2
    return [peer for peer in view.alive if peer.silent_ms < limit and peer.status.member not in view.untrusted]


def _doubtful(view: View, near: list[PeerStatus]) -> list[str]:
    """Members that may still be there although their votes cannot be expected."""
    limit = view.settings.election_timeout_ms + stagger_ms(view)
    gone = [peer for peer in view.others if peer.silent_ms >= limit]
    mute = [peer for peer in view.alive if peer.status.member in view.untrusted]
    doubtful = [peer for peer in view.others if peer not in near and peer not in gone and peer not in mute]
    return [peer.status.member or peer.id for peer in doubtful]
