"""What a decision about the leadership is made from: plain values.

Never: asks a clock, a socket or a disk; :class:`redisha.group.council.Council` fills the view.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from redisha.group.arbiter import Record
from redisha.group.status import GroupStatus, MemberStatus, PeerStatus, Role

NEVER = 1 << 62
"""Milliseconds since something that has not happened."""


class OnPartition(StrEnum):
    """What a member does that no majority can be reached from."""

    AVAILABLE = "available"
    """It goes on alone."""
    CONSISTENT = "consistent"
    """It only serves reads."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What does not change while a group runs; equal on all members.

    Attributes:
        heartbeat_ms: milliseconds from one beat to the next.
        election_timeout_ms: a member that is silent for so long is taken for gone.
        lease_ms: a leader that nobody answers for so long acknowledges nothing more; shorter than the election timeout.
        on_partition: what a member does that no majority can be reached from.
        start_wait_ms: how long a member that starts waits for all others before it does without some of them.
        has_arbiter: whether the group has one. It has a vote in a group of two.

    Raises:
        ValueError: the lease outlives the election timeout: two could lead at a time.
    """

    heartbeat_ms: int = 200
    election_timeout_ms: int = 1000
    lease_ms: int = 800
    on_partition: OnPartition = OnPartition.AVAILABLE
    start_wait_ms: int = 3000
    has_arbiter: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.lease_ms < self.election_timeout_ms:
            raise ValueError("a lease must be shorter than the election timeout")

    @property
    def consistent(self) -> bool:
        """Whether a member without a majority only serves reads."""
        return self.on_partition is OnPartition.CONSISTENT


@dataclass(frozen=True, slots=True, order=True)
class Recorded:
    """Of whom a leader may be elected in ``consistent`` mode: each has all that ``quorum`` acknowledged.

    The greater one is the newer one.

    Attributes:
        term: of the leader that recorded it.
        serial: grows with each change and each renewal by this leader (:attr:`Record.beat` of the arbiter's record).
        members: their names, sorted.
    """

    term: int
    serial: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BallotState:
    """What a member must not forget: :mod:`redisha.group.ballot` keeps it.

    Attributes:
        term: the newest in which it has voted, or of which it knows who leads.
        voted_for: whom it voted for in that term; empty: nobody.
        trusted: whether it can be sure of that. One that may have forgotten a vote must not vote.
        fresh: there was no file. It can be trusted all the same if the group has never had a leader.
        founded: it has known a leader: the group is not new.
        recorded: the newest record of the in-sync members that it was given; None: it was given none.
    """

    term: int = 0
    voted_for: str = ""
    trusted: bool = False
    fresh: bool = False
    founded: bool = False
    recorded: Recorded | None = None


@dataclass(frozen=True)  # no slots: what is computed once is kept in it
class View:
    """Everything that a decision depends on. Milliseconds, where it is about time.

    Attributes:
        status: the group, as the data plane sees it.
        settings: of the group.
        ballot: of this member.
        record: the arbiter's; None: it has none, or has not been asked.
        record_age_ms: how long the record has been seen to stay the same: from the first look at it to the last one.
        arbiter_up: whether the arbiter answered the last time.
        arbiter_ms: since the sending of the newest renewal by this member that succeeded.
        since_start_ms: since this process runs.
        since_stand_ms: since this member last stood for election, or gave its vote.
        settled_ms: since its term and its leader are what they are.
        vacant_ms: since it has heard no living leader.
        leading_ms: since it leads; 0 while it does not.
        overtaken_ms: since a living member has been in a newer term, that nobody leads: it cannot follow this one any
            more.
        recorded: of whom a leader may be elected: for a leader what is known to be recorded, for the others the newest
            record they know of; None: there is none.
        untrusted: members that said lately that they cannot vote, because they may have forgotten a vote.
        seen_term: the newest term that another member named in an answer.
    """

    status: GroupStatus
    settings: Settings
    ballot: BallotState
    record: Record | None = None
    record_age_ms: int = 0
    arbiter_up: bool = False
    arbiter_ms: int = NEVER
    since_start_ms: int = 0
    since_stand_ms: int = NEVER
    settled_ms: int = 0
    vacant_ms: int = 0
    leading_ms: int = 0
    overtaken_ms: int = 0
    recorded: tuple[str, ...] | None = None
    untrusted: frozenset[str] = frozenset()
    seen_term: int = 0

    @property
    def me(self) -> MemberStatus:
        """This member."""
        return self.status.me

    @cached_property
    def others(self) -> tuple[PeerStatus, ...]:
        """The other members, each once."""
        return others(self.status)

    @cached_property
    def alive(self) -> tuple[PeerStatus, ...]:
        """The others that are heard."""
        return tuple(peer for peer in self.others if peer.silent_ms < self.settings.election_timeout_ms)

    @property
    def members(self) -> int:
        """How many the group has."""
        return len(self.others) + 1

    @property
    def arbiter_votes(self) -> bool:
        """Whether the arbiter has a vote: in a group of two, which has no majority when one is gone."""
        return self.settings.has_arbiter and self.members == 2

    @property
    def majority(self) -> int:
        """Votes that an election needs."""
        return (self.members + self.arbiter_votes) // 2 + 1

    @cached_property
    def known_term(self) -> int:
        """The newest term that anything here knows of."""
        told = (self.me, *(peer.status for peer in self.others))
        terms = [max(member.term, member.position.term) for member in told]
        noted = [note.term for note in (self.record, self.ballot.recorded) if note is not None]
        return max(*terms, *noted, self.ballot.term, self.seen_term)

    @cached_property
    def leader(self) -> PeerStatus | None:
        """The living leader of this member's term: heard, and it says itself that it leads. Never this member."""
        me = self.me
        peer = next((each for each in self.alive if each.status.member == me.leader != ""), None)
        if peer is None or peer.status.term > me.term:
            return None
        if peer.status.term == me.term and peer.status.role is Role.LEADER:
            return peer
        # Either this was learnt from others, and the leader was last heard before it was elected: that passes soon. Or
        # it leads no more, or was restarted and knows nothing any more.
        return peer if self.settled_ms < self.settings.election_timeout_ms // 2 else None


def others(status: GroupStatus) -> tuple[PeerStatus, ...]:
    """The other members, each once: without this one found through a common name, and by its best address."""
    found: dict[str, PeerStatus] = {}
    for peer in status.peers:
        name = peer.status.member
        key = f"member {name}" if name else f"address {peer.id}"
        if name != status.me.member and (key not in found or peer.silent_ms < found[key].silent_ms):
            found[key] = peer
    return tuple(found.values())
