"""Whose data may lead: pure questions about what the members' Redis servers have.

A copy that is not finished, or that nobody can ask for, never leads. Where two hold different data nothing is chosen.
"""

from __future__ import annotations

from redisha.group.status import Data, MemberStatus
from redisha.group.view import View


def brand_new(view: View) -> bool:
    """Whether nothing here speaks of a leadership that there ever was: the group begins.

    In ``consistent`` mode every other member, or the arbiter, must have been asked: two that lost their disks look new
    as well.
    """
    if view.me.data not in (Data.EMPTY, Data.FOREIGN) or view.me.leader or view.ballot.founded:
        return False
    if view.record is not None or view.recorded is not None or view.ballot.recorded is not None:
        return False
    if any(_speaks_of_leadership(peer.status) for peer in view.others):
        return False
    unasked = [peer for peer in view.others if not peer.status.member or peer.status.data is Data.UNKNOWN]
    sure = not unasked or (view.arbiter_votes and view.arbiter_up)
    return sure or not view.settings.consistent


def _speaks_of_leadership(status: MemberStatus) -> bool:
    if status.leader or status.data in (Data.COMPLETE, Data.PARTIAL):
        return True
    return status.data is Data.UNKNOWN and status.term > 0


def may_vote(view: View) -> bool:
    """Whether this member is sure of which votes it has given."""
    return view.ballot.trusted or (view.ballot.fresh and brand_new(view))


def too_young(view: View) -> bool:
    """Whether this member may have answered a leader just before it was restarted.

    The leader's lease counts on that answer, and this member does not remember it: until the lease is over it votes for
    nobody, itself included.
    """
    settings = view.settings
    return settings.consistent and view.ballot.founded and view.since_start_ms < settings.election_timeout_ms


# --- two that hold different data -------------------------------------------------------------------------------------


def conflict(view: View) -> str:
    """Why nobody can lead, or this member cannot follow, before an operator has chosen between two members' data.

    Data that the living leader or a majority has in common is the group's; who has other data is on its own.

    Returns:
        What is wrong and the ways out; empty: nothing is.
    """
    told = [view.me, *(peer.status for peer in view.alive if peer.status.member)]
    holders = sorted((each for each in told if _has_other_than_nothing(each)), key=lambda each: each.member)
    agreed = _agreed(view, holders)
    if agreed is not None:
        if view.me not in holders or _of_set(view.me, agreed.data_set):
            return ""
        return _ways_out(view.me, agreed)
    for other in holders[1:]:
        if not _of_set(holders[0], other.data_set) or not _of_set(other, holders[0].data_set):
            return _ways_out(holders[0], other)
    return ""


def _has_other_than_nothing(status: MemberStatus) -> bool:
    return status.data is Data.FOREIGN or (status.data is Data.COMPLETE and status.data_set != "")


def _of_set(status: MemberStatus, data_set: str) -> bool:
    return status.data is Data.COMPLETE and status.data_set == data_set


def _agreed(view: View, holders: list[MemberStatus]) -> MemberStatus | None:
    """A member that has what is the group's data beyond doubt."""
    if view.leader is not None and view.leader.status in holders and view.leader.status.data is Data.COMPLETE:
        return view.leader.status
    for each in holders:
        if sum(_of_set(other, each.data_set) for other in holders) * 2 > view.members and each.data is Data.COMPLETE:
            return each
    return None


def _ways_out(one: MemberStatus, other: MemberStatus) -> str:
    a, b = sorted((one.member, other.member))
    return (
        f"the Redis servers of {a} and {b} hold different data, and one of the two must go away: to keep what {a} has, "
        f"run 'redisha init --from {a}' on {b}; to keep what {b} has, run 'redisha init --from {b}' on {a}; or empty "
        "one of the two Redis servers yourself"
    )


# --- this member ------------------------------------------------------------------------------------------------------


def unfit(view: View) -> str:
    """Why this member's data must not lead now; empty: it may."""
    if view.me.data is Data.UNKNOWN:
        return "this member's Redis does not answer"
    if view.me.data is Data.PARTIAL:
        return "this member's Redis holds a copy that is not finished: it is to be filled by a leader"
    if view.me.data is Data.EMPTY:
        return _why_not_empty(view)
    if view.me.data is Data.FOREIGN:
        return _why_not_foreign(view)
    if not electable(view, view.me):
        return (
            "this member may lack acknowledged writes; one that has them must be started: "
            f"{' or '.join(view.recorded or ())}"
        )
    return ""


def electable(view: View, status: MemberStatus) -> bool:
    """Whether a member has all that was acknowledged, as far as it is recorded."""
    return not view.settings.consistent or view.recorded is None or status.member in view.recorded


def same_data(one: MemberStatus, other: MemberStatus) -> bool:
    """Whether two members have copies of one data, so that their positions can be compared."""
    return one.data is other.data is Data.COMPLETE and one.data_set == other.data_set


def _all_others_empty(view: View) -> bool:
    return len(view.alive) == len(view.others) and all(peer.status.data is Data.EMPTY for peer in view.others)


def _why_not_empty(view: View) -> str:
    for peer in view.others:
        if peer.status.data is Data.PARTIAL:
            return (
                f"{peer.status.member} holds a copy that is not finished: start the member that it was made from, or "
                f"empty {peer.status.member}'s Redis"
            )
        if peer.status.data not in (Data.EMPTY, Data.UNKNOWN):
            return f"{peer.status.member} has data, and this member has none"
    fresh = brand_new(view)
    if fresh and view.since_start_ms >= view.settings.start_wait_ms:
        return ""
    if _all_others_empty(view) and (fresh or not view.settings.consistent):
        return ""
    return "this member has no data, and one that is not heard, or whose Redis does not answer, may have the group's"


def _why_not_foreign(view: View) -> str:
    if _all_others_empty(view) and (brand_new(view) or not view.settings.consistent):
        return ""
    return (
        "this member's Redis has keys without a marker: they become the group's once all other members are heard and "
        "have none"
    )


def ahead(view: View) -> tuple[int, bool]:
    """Who should stand before this member, which is fit itself.

    Returns:
        How many living members have newer data, or the same and a lower name; whether one of them has newer data.
    """
    me = view.me
    fit = [peer.status for peer in view.alive if peer.status.data is me.data and peer.status.data_set == me.data_set]
    fit = [status for status in fit if electable(view, status)]
    newer = sum(status.position > me.position for status in fit)
    equal = sum(status.position == me.position and status.member < me.member for status in fit)
    return newer + equal, newer > 0


def starting(view: View) -> str:
    """Why a member that has only just been started should still wait; empty: it need not."""
    if too_young(view):
        return "only just started: a leader may still count on an answer from before"
    if view.since_start_ms >= view.settings.start_wait_ms:
        return ""
    missing = [peer for peer in view.others if not peer.status.member or peer.status.data is Data.UNKNOWN]
    names = ", ".join(peer.status.member or peer.id for peer in missing)
    return f"only just started: not heard yet, or their Redis not asked yet: {names}" if missing else ""
