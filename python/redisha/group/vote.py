"""Whether a member votes for a candidate: a pure function.

One vote per term; none for who has less data, and none while a leader lives. The caller writes the new state to disk
before it gives the answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from redisha.group import fitness
from redisha.group.status import Data, Position, Role
from redisha.group.view import BallotState, Recorded, View


@dataclass(frozen=True, slots=True)
class VoteRequest:
    """A member asks for a vote.

    Attributes:
        term: of the leadership that it wants.
        member: its name.
        data: what its Redis has.
        data_set: the identity of that data.
        position: how far it goes.
        pre: it only asks what the answer would be; nothing is noted.
        leader_yields: the leader has asked it to take over, and takes no more commands.
        recorded: the newest record of the in-sync members that it knows of.
    """

    term: int
    member: str
    data: Data
    data_set: str
    position: Position
    pre: bool = False
    leader_yields: bool = False
    recorded: Recorded | None = None


@dataclass(frozen=True, slots=True)
class Ballot:
    """The answer to a :class:`VoteRequest`.

    Attributes:
        granted: whether the vote is given.
        reason: why not, in words.
        state: what is to be kept before the answer is given; unchanged where nothing is.
        trusted: whether this member votes at all.
    """

    granted: bool
    reason: str
    state: BallotState
    trusted: bool = True


def ballot(state: BallotState, request: VoteRequest, view: View) -> Ballot:
    """Whether to vote for a candidate.

    Args:
        state: this member's ballot.
        request: what the candidate asks for. It may be this member itself.
        view: what this member knows; the ballot in it is not looked at.

    Returns:
        The answer. The state in it must be on disk before the answer is given.
    """
    view = replace(view, ballot=state)
    if not fitness.may_vote(view):
        reason = "it may have forgotten a vote, and does not vote before a leader has filled it"
        return Ballot(False, reason, state, trusted=False)
    known = newer(state.recorded, request.recorded)
    reason = _old_term(request, view) or _has_leader(request, view) or _lacks_data(request, view, known)
    if reason or request.pre:
        return Ballot(not reason, reason, state)
    voted = replace(state, term=request.term, voted_for=request.member, trusted=True, fresh=False, recorded=known)
    return Ballot(True, "", voted)


def newer(one: Recorded | None, other: Recorded | None) -> Recorded | None:
    """The newer one of two records of the in-sync members."""
    if one is None or other is None:
        return one or other
    return max(one, other)


def _old_term(request: VoteRequest, view: View) -> str:
    """A term is voted in once, and not at all if it has a leader or is over."""
    me, term = view.me, request.term
    if term <= view.ballot.term:
        return f"it has voted in term {view.ballot.term}, or knows its leader"
    # The data plane may have heard of the candidate's term before the candidate's request came.
    if term < me.term or (term == me.term and (me.leader or me.role is Role.LEADER)):
        return f"it is in term {me.term}"
    return ""


def _has_leader(request: VoteRequest, view: View) -> str:
    me = view.me
    if request.member == me.member and me.role is Role.LEADER:
        return ""  # A leader that takes a new term.
    if me.role is Role.LEADER and not (request.leader_yields and view.status.yielding):
        return "it leads"
    if request.leader_yields:
        return ""
    if view.leader is not None and view.leader.status.member != request.member:
        return f"it hears the leader {me.leader}"
    return "it was started less than an election timeout ago" if fitness.too_young(view) else ""


def _lacks_data(request: VoteRequest, view: View, known: Recorded | None) -> str:
    """Whether the candidate lacks something that this member has, or that was acknowledged."""
    me = view.me
    recorded = known.members if view.settings.consistent and known is not None else None
    if request.data in (Data.UNKNOWN, Data.PARTIAL):
        return "the candidate's data is not complete"
    if recorded is not None and request.member not in recorded:
        return f"the candidate is not among the members in sync: {', '.join(recorded)}"
    if request.member == me.member:
        return ""
    if request.data is not Data.COMPLETE:
        return "" if me.data is Data.EMPTY else "the candidate has none of the group's data, and this member may"
    # One that cannot be asked now still has what it had.
    if me.data not in (Data.COMPLETE, Data.UNKNOWN) or not me.data_set:
        return ""
    if me.data_set != request.data_set:
        return "the candidate has other data"
    if request.leader_yields and me.data is Data.UNKNOWN and recorded is None:
        return ""  # The leader that lost its Redis has chosen it, and nobody has more.
    # Who is not among the members in sync may have newer writes, but none that was acknowledged, and cannot be elected.
    if request.position < me.position and (recorded is None or me.member in recorded):
        return "the candidate has older data"
    return ""


def remembered(view: View) -> BallotState:
    """What a member keeps of what it sees: that there is a leader of this term, and that it was filled by one."""
    me, state = view.me, view.ballot
    if state.fresh and fitness.may_vote(view):
        state = replace(state, trusted=True, fresh=False)  # It was there when the group was new.
    if me.leader and (me.term > state.term or not state.founded):
        voted_for = state.voted_for if state.term >= me.term else ""
        state = replace(state, term=max(state.term, me.term), voted_for=voted_for, founded=True, fresh=False)
    filled = me.role is Role.FOLLOWER and me.in_sync and me.data is Data.COMPLETE and view.leader is not None
    return replace(state, trusted=True, fresh=False) if filled and not state.trusted else state
