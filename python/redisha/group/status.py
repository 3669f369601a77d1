"""What the data plane knows of a group, as one look at it gives it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Data(StrEnum):
    """What a member's own Redis has."""

    UNKNOWN = "unknown"
    """It cannot be asked: it is down, or being connected to."""
    EMPTY = "empty"
    """It has no key and no marker."""
    COMPLETE = "complete"
    """The group's data, as of its position."""
    PARTIAL = "partial"
    """A resync of it has not come to its end."""
    FOREIGN = "foreign"
    """Keys without a marker of a group: nobody knows whose."""


class Role(StrEnum):
    """What a member does."""

    LEADER = "leader"
    FOLLOWER = "follower"
    NONE = "none"
    """It knows of no leader: writes wait, then they are refused."""


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """How far a member's data goes. The greater one has all that the smaller one has.

    Attributes:
        generation: of the newest marker in its Redis; its high 32 bits are the term of the leader that wrote it.
        sequence: effects of this leadership that it has been given.
    """

    generation: int = 0
    sequence: int = 0

    @property
    def term(self) -> int:
        """The term that the data is from."""
        return self.generation >> 32


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """What a member says of itself.

    Attributes:
        member: its name; empty while nobody has heard of it.
        term: the newest term it knows of.
        leader: the leader of that term, as a member's name; empty: it knows none.
        role: what it does.
        data: what its Redis has.
        data_set: the identity of that data, equal on all members of a group; empty: it has none.
        position: how far the data goes.
        in_sync: whether the leader counts it as having everything (a leader's own: whether its Redis can be used).
        journal: keys it wrote while some member was not in sync, that have not been merged yet.
    """

    member: str
    term: int = 0
    leader: str = ""
    role: Role = Role.NONE
    data: Data = Data.UNKNOWN
    data_set: str = ""
    position: Position = Position()
    in_sync: bool = False
    journal: int = 0


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """Another member, as seen from here.

    Attributes:
        id: its address in the configuration; what :meth:`GroupPlane.ask` wants.
        up: whether its peer port answers now.
        silent_ms: milliseconds since it was sent the newest beat that it has answered; a very great number if none.
        reason: why it is not up, in words.
        status: the newest that it said of itself.
        caught_up: (only where this member leads) whether it has acknowledged everything this member has committed.
        sealed: (only where this member leads, and yields) whether it knows who lacks nothing of this leadership, so
            that nobody's data needs to be looked at when it takes over; or that cannot be known.
        replica: (only where this member leads) the state of its replica, as :class:`redisha.core.ReplicaStats` has it.
        lag: effects that it has not acknowledged.
        lag_bytes: bytes of them, at most.
        lag_ms: age of the oldest of them.
        skew_ms: milliseconds that its clock is ahead of this member's, as exact as a message takes on its way.
    """

    id: str
    up: bool
    silent_ms: int
    reason: str
    status: MemberStatus
    caught_up: bool = False
    sealed: bool = True
    replica: str = ""
    lag: int = 0
    lag_bytes: int = 0
    lag_ms: int = 0
    skew_ms: int = 0


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """The group, as seen from this member.

    Attributes:
        name: the group's.
        me: this member.
        peers: the other ones, one for each address that the configuration names or a name resolved to. A peer whose
            ``status.member`` is this member's own name is this member, found through a common name: it does not count.
        yielding: this member leads, and takes no more commands so that another may lead.
        counted: members that are in sync now, this one included (only where it leads).
        lost: it led when its own Redis was lost: that is not used before it has been decided anew who leads.
    """

    name: str
    me: MemberStatus
    peers: tuple[PeerStatus, ...]
    yielding: bool = False
    counted: tuple[str, ...] = ()
    lost: bool = False


def parse_group(text: str) -> GroupStatus:
    """Read the core's JSON. Fields that this file does not know are passed over.

    Raises:
        ValueError: it is not what the core gives.
    """
    raw = json.loads(text)
    peers = raw["peers"]
    return GroupStatus(
        name=raw["name"],
        me=_member(raw["me"]),
        peers=tuple(
            PeerStatus(
                id=each["id"],
                up=each["up"],
                silent_ms=each["silent_ms"],
                reason=each["reason"],
                status=_member(each["status"]),
                caught_up=each["caught_up"],
                sealed=each["sealed"],
                replica=each["replica"],
                lag=each["lag"],
                lag_bytes=each["lag_bytes"],
                lag_ms=each["lag_ms"],
                skew_ms=each["skew_ms"],
            )
            for each in peers
        ),
        yielding=raw["yielding"],
        counted=(raw["me"]["member"], *(each["status"]["member"] for each in peers if each["counted"])),
        lost=raw["lost"],
    )


def _member(raw: dict[str, Any]) -> MemberStatus:
    return MemberStatus(
        member=raw["member"],
        term=raw["term"],
        leader=raw["leader"],
        role=Role(raw["role"] or "none"),
        data=Data(raw["data"] or "unknown"),
        data_set=raw["set"],
        position=Position(raw["generation"], raw["sequence"]),
        in_sync=raw["in_sync"],
        journal=raw["journal"],
    )
