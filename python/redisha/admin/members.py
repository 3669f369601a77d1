"""What is told of each member of the group: role, state, position, lag, and how far its resync is. Pure.

Owns: the words for a member's state. Never: decides who leads or who counts as in sync; the group's status says that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from redisha.admin import Snapshot, replicas
from redisha.core import ReplicaStats
from redisha.group.status import Data, GroupStatus, MemberStatus, PeerStatus, Role
from redisha.group.view import others
from redisha.plan import peer_cluster

LONG_SILENT = 1 << 36
"""Milliseconds from which on a member counts as never heard; the data plane gives a very great number for that."""


class State(StrEnum):
    """How a member's data is, as far as it is known here. A follower's may also be any other state of a replica."""

    IN_SYNC = "in_sync"
    """The leader counts it as having everything; a leader's own: its Redis can be used."""
    CATCHING_UP = "catching_up"
    """It has a copy, and effects or single keys to get."""
    WAITING = "waiting"
    """It has a copy, and nobody leads who could say whether it is the newest."""
    RESYNC = "resync"
    """Its Redis is being filled, or a filling has not come to its end."""
    EMPTY = "empty"
    FOREIGN = "foreign"
    """Its Redis has data that is not the group's: without a marker, or of another history."""
    CONNECTING = "connecting"
    """It has not said anything yet."""
    DOWN = "down"
    """It, or its Redis, does not answer; the reason says which."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member, as this one sees it.

    Attributes:
        status: what it said of itself last.
        address: of its peer port; empty for this member.
        up: whether its peer port answers now. What one that is not up says of itself is old.
        state: how its data is: a :class:`State`, or another state of a replica.
        reason: why it is not in sync, in words; may be empty.
        silent_ms: milliseconds since it was heard; None: never. 0 for this member.
        lag: effects that it has not acknowledged. None where that is not known. From a follower it is the difference of
            two positions that are up to a heartbeat old.
        lag_bytes: bytes of them, at most; None: only the leader knows.
        lag_ms: age of the oldest of them; None: only the leader knows.
        skew_ms: milliseconds that its clock is ahead of this member's.
        replica: the leader's replica of it; None elsewhere.
    """

    status: MemberStatus
    address: str
    up: bool
    state: str
    reason: str
    silent_ms: int | None
    lag: int | None
    lag_bytes: int | None
    lag_ms: int | None
    skew_ms: int = 0
    replica: ReplicaStats | None = None

    @property
    def name(self) -> str:
        """Its name; its address while nobody has heard of it."""
        return self.status.member or self.address

    @property
    def in_sync(self) -> bool:
        """Whether it has everything, as far as it is known here."""
        return self.state == State.IN_SYNC


def members(snapshot: Snapshot) -> list[Member]:
    """This member first, then the others; none without a group."""
    group = snapshot.group
    if group is None:
        return []
    newest = _leaders_status(group, leader(snapshot))
    found = [_me(snapshot, group, newest)]
    peers = [_peer(snapshot, group, each, newest) for each in others(group)]
    return found + sorted(peers, key=lambda each: each.name)


def leader(snapshot: Snapshot) -> str:
    """Who leads the group, as far as this member knows; empty: nobody is known to."""
    group = snapshot.group
    if group is None or snapshot.leaderless or group.me.role is Role.NONE:
        return ""
    return group.me.leader


def _leaders_status(group: GroupStatus, leads: str) -> MemberStatus | None:
    """What the leader says of itself; None: nobody leads, or it has not said it yet."""
    told = [group.me, *(each.status for each in others(group))]
    return next((each for each in told if each.member == leads != "" and each.role is Role.LEADER), None)


def _behind(status: MemberStatus, newest: MemberStatus | None) -> int | None:
    """How many effects a member lacks, by the positions that were told last; None: they cannot be compared."""
    if newest is None or status.data is not Data.COMPLETE or status.position.term != newest.position.term:
        return None
    mine, all_ = status.position.sequence, newest.position.sequence
    # One that was filled, and has got no effect since, names no position yet.
    return max(0, all_ - mine) if mine or not all_ else None


def _is_foreign(status: MemberStatus, newest: MemberStatus | None) -> bool:
    """Whether a member's data is not the group's, which is the leader's."""
    if status.data is not Data.COMPLETE or newest is None:
        return status.data is Data.FOREIGN
    return "" not in (status.data_set, newest.data_set) and status.data_set != newest.data_set


def _me(snapshot: Snapshot, group: GroupStatus, newest: MemberStatus | None) -> Member:
    me = group.me
    state = _by_data(me)
    reason = ""
    if _is_foreign(me, newest):
        state = State.FOREIGN
        reason = f"not the group's data; to replace it: redisha init --from {newest.member}" if newest else ""
    elif me.data is Data.UNKNOWN:
        own = [each for each in snapshot.stats.endpoints if each.cluster == group.name and not each.ready]
        reason = f"its Redis is {own[0].state}{f': {own[0].reason}' if own[0].reason else ''}" if own else ""
    elif group.lost:
        state, reason = State.WAITING, "its Redis was lost while it led"
    leads = me.role is Role.LEADER
    return Member(
        status=me,
        address="",
        up=True,
        state=state,
        reason=reason,
        silent_ms=0,
        lag=0 if leads else _behind(me, newest),
        lag_bytes=0 if leads else None,
        lag_ms=0 if leads else None,
    )


def _peer(snapshot: Snapshot, group: GroupStatus, peer: PeerStatus, newest: MemberStatus | None) -> Member:
    leads = group.me.role is Role.LEADER
    replica = replica_of(snapshot, group, peer) if leads else None
    state, reason = _as_leader(group, peer, replica) if leads else _by_beats(peer)
    if _is_foreign(peer.status, newest):
        state = State.FOREIGN
    if not peer.up:
        state, reason = (State.DOWN if peer.silent_ms < LONG_SILENT else State.CONNECTING), peer.reason or "not heard"
    return Member(
        status=peer.status,
        address=peer.id,
        up=peer.up,
        state=state,
        reason=reason,
        silent_ms=peer.silent_ms if peer.silent_ms < LONG_SILENT else None,
        lag=peer.lag if leads else _behind(peer.status, newest),
        lag_bytes=peer.lag_bytes if leads else None,
        lag_ms=peer.lag_ms if leads else None,
        skew_ms=peer.skew_ms,
        replica=replica,
    )


def _as_leader(group: GroupStatus, peer: PeerStatus, replica: ReplicaStats | None) -> tuple[str, str]:
    reason = replica.reason if replica is not None else ""
    if not peer.status.member:
        return State.CONNECTING, reason or peer.reason
    if peer.status.data is Data.UNKNOWN:
        return State.DOWN, f"its Redis does not answer{f': {reason}' if reason else ''}"
    if peer.status.member in group.counted:
        return State.IN_SYNC, ""
    # A replica calls itself in sync a moment before its leader counts on it.
    known = peer.replica if peer.replica not in ("", "in_sync", "standby") else State.CATCHING_UP
    return known, reason


def _by_beats(peer: PeerStatus) -> tuple[str, str]:
    if not peer.status.member:
        return State.CONNECTING, peer.reason
    return _by_data(peer.status), "its Redis does not answer" if peer.status.data is Data.UNKNOWN else ""


def _by_data(status: MemberStatus) -> State:
    """What a member says of its data."""
    match status.data:
        case Data.UNKNOWN:
            return State.DOWN
        case Data.EMPTY:
            return State.EMPTY
        case Data.FOREIGN:
            return State.FOREIGN
        case Data.PARTIAL:
            return State.RESYNC
        case Data.COMPLETE:
            if status.in_sync:
                return State.IN_SYNC
            return State.WAITING if status.role is Role.NONE else State.CATCHING_UP


def replica_of(snapshot: Snapshot, group: GroupStatus, peer: PeerStatus) -> ReplicaStats | None:
    """The data plane's replica of a member."""
    name = f"{peer_cluster(group.name, peer.id)}/{peer.id}"
    return next((each for each in snapshot.stats.replicas if each.mirror == name), None)


# --- as a document ----------------------------------------------------------------------------------------------------


def document(snapshot: Snapshot) -> dict[str, Any] | None:
    """The group, ready for JSON; None without one."""
    group = snapshot.group
    if group is None:
        return None
    return {
        "name": group.name,
        "term": group.me.term,
        "leader": leader(snapshot),
        "member": group.me.member,
        "role": str(group.me.role),
        "reason": snapshot.leaderless,
        "yielding": group.yielding,
        "leader_changes": snapshot.leader_changes,
        "merges": asdict(snapshot.merges) if snapshot.merges is not None else None,
        "members": [_document(each, is_me=not number) for number, each in enumerate(members(snapshot))],
    }


def _document(member: Member, *, is_me: bool) -> dict[str, Any]:
    status, replica = member.status, member.replica
    return {
        "member": status.member,
        "address": member.address,
        "me": is_me,
        "up": member.up,
        "role": str(status.role),
        "state": str(member.state),
        "reason": member.reason,
        "in_sync": member.in_sync,
        "term": status.term,
        "leader": status.leader,
        "data": str(status.data),
        "data_set": status.data_set,
        "position": asdict(status.position) | {"term": status.position.term},
        "lag": member.lag,
        "lag_bytes": member.lag_bytes,
        "lag_ms": member.lag_ms,
        "skew_ms": member.skew_ms,
        "silent_ms": member.silent_ms,
        "journal": status.journal,
        "progress": replicas.progress(replica) if replica is not None else None,
        "healed": replica.healed if replica is not None else "",
    }


def numbers(snapshot: Snapshot) -> Iterator[tuple[str, dict[str, str], int | float]]:
    """The group's statistics: field, labels, value."""
    group = snapshot.group
    if group is None:
        return
    own = {"group": group.name}
    found = members(snapshot)
    yield "term", own, group.me.term
    yield "members", own, len(found)
    yield "leader_changes_total", own, snapshot.leader_changes
    if (merges := snapshot.merges) is not None:
        yield "merging", own, len(merges.running)
        yield "merge_runs_total", own, merges.runs_total
        yield "merge_failures_total", own, merges.failures_total
        yield "merge_keys_total", own, merges.keys_total
        yield "merge_applied_total", own, merges.applied_total
        yield "conflicts_total", own, merges.conflicts_total
    for each in found:
        labels = own | {"member": each.name}
        yield "leader", labels, int(each.name == leader(snapshot) != "")
        yield "in_sync", labels, int(each.in_sync)
        yield "journal", labels, each.status.journal
        if each.lag is not None:
            yield "lag_commands", labels, each.lag
        if each.lag_bytes is not None and each.lag_ms is not None:
            yield "lag_bytes", labels, each.lag_bytes
            yield "lag_seconds", labels, each.lag_ms / 1000
        if each.silent_ms is not None and each.address:
            yield "silent_seconds", labels, each.silent_ms / 1000
            yield "clock_skew_seconds", labels, each.skew_ms / 1000
