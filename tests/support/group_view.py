"""Views of a group, in few words, for tests of decisions about its leadership."""

from typing import Any

from redisha.group.status import Data, GroupStatus, MemberStatus, PeerStatus, Position, Role
from redisha.group.view import NEVER, BallotState, OnPartition, Settings, View

AVAILABLE = Settings()
CONSISTENT = Settings(on_partition=OnPartition.CONSISTENT)
WITH_ARBITER = Settings(on_partition=OnPartition.CONSISTENT, has_arbiter=True)

TRUSTED = BallotState(trusted=True)
FRESH = BallotState(fresh=True)
SILENT = 1 << 40


def at(term: int, sequence: int = 0) -> Position:
    """A position in the data of a term."""
    return Position(term << 32, sequence)


def member(name: str, data: Data = Data.COMPLETE, position: Position | None = None, **fields: Any) -> MemberStatus:
    """What a member says; with data of one set, of term 1, unless said otherwise."""
    if data in (Data.COMPLETE, Data.PARTIAL):
        fields.setdefault("data_set", "set")
        position = at(1, 10) if position is None else position
    return MemberStatus(name, data=data, position=position or Position(), **fields)


def leader(name: str, term: int = 1, **fields: Any) -> MemberStatus:
    """One that leads."""
    return member(name, term=term, leader=name, role=Role.LEADER, in_sync=True, **fields)


def follower(name: str, of: str, term: int = 1, **fields: Any) -> MemberStatus:
    """One that follows."""
    return member(name, term=term, leader=of, role=Role.FOLLOWER, **fields)


def peer(status: MemberStatus, silent_ms: int = 50, caught_up: bool = False) -> PeerStatus:
    """Another member, as it is heard."""
    return PeerStatus(f"{status.member or 'somewhere'}:8101", silent_ms < 1000, silent_ms, "", status, caught_up)


def unheard(address: str = "elsewhere:8101") -> PeerStatus:
    """One that was never heard."""
    return PeerStatus(address, False, SILENT, "connection refused", MemberStatus(""))


def look(me: MemberStatus, *peers: PeerStatus, settings: Settings = AVAILABLE, **fields: Any) -> View:
    """A view of a member that has been running for long, and hears no leader for as long."""
    inside = {name: fields.pop(name) for name in ("yielding", "counted", "lost") if name in fields}
    if me.role is Role.LEADER:
        inside.setdefault("counted", (me.member, *(each.status.member for each in peers if each.status.in_sync)))
        fields.setdefault("leading_ms", 60_000)
    fields.setdefault("ballot", TRUSTED)
    fields.setdefault("since_start_ms", 60_000)
    fields.setdefault("vacant_ms", 0 if me.role is Role.LEADER else 60_000)
    fields.setdefault("since_stand_ms", NEVER)
    fields.setdefault("settled_ms", 60_000)
    return View(GroupStatus("cache", me, peers, **inside), settings, **fields)
