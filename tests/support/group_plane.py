"""A model of one member's data plane and its Redis, for the simulation of a group.

A write is a bit in a number, so that a Redis's data is one number, and that nothing is missing is one operation. As the
real one it does what it is told a moment later, its leader's stream reaches followers in order, and ``quorum`` waits.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redisha.group.plane import PeerError
from redisha.group.status import Data, GroupStatus, MemberStatus, PeerStatus, Position, Role

if TYPE_CHECKING:
    from support.group_world import World

MOMENT = 0.002
"""Seconds from an order to its execution."""

SILENT = 1 << 40


@dataclass
class Redis:
    """A Redis server. It outlives its sidecar."""

    up: bool = True
    data: Data = Data.EMPTY
    data_set: str = ""
    position: Position = field(default_factory=Position)
    bits: int = 0


@dataclass
class Replica:
    """A follower, as its leader sees it."""

    open: bool = False
    copying: int = 0
    """Ticks until a copy of everything has come to its end; 0: it streams."""
    sent: int = -1
    """Sequence that it was sent."""
    acked: int = -1
    """Sequence that it is known to have; -1: it is not known to have what came before."""
    fresh_at: float = 0.0
    stalled_until: float = 0.0


@dataclass
class Peer:
    """Another member, as this one hears it."""

    status: MemberStatus = field(default_factory=lambda: MemberStatus(""))
    said_at: float = -1.0
    answered: float | None = None
    heard: float | None = None
    leased: float | None = None


@dataclass
class Pending:
    """A write that waits for ``quorum``."""

    sequence: int
    bit: int


@dataclass
class Plane:
    """The data plane of one process."""

    world: World
    name: str
    redis: Redis
    adopts_leaderless: bool
    term: int = 0
    leader: str = ""
    role: Role = Role.NONE
    yielding: bool = False
    lost: bool = False
    dead: bool = False
    granted_until: float = 0.0
    arbiter_at: float | None = None
    sequence: int = 0
    counted: tuple[str, ...] = ()
    peers: dict[str, Peer] = field(default_factory=dict)
    replicas: dict[str, Replica] = field(default_factory=dict)
    history: list[int] = field(default_factory=list)
    pending: list[Pending] = field(default_factory=list)
    orders: deque[Callable[[], None]] = field(default_factory=deque)

    # --- what the council sees and orders -----------------------------------------------------------------------------

    def status(self) -> GroupStatus:
        now = self.world.now
        peers = []
        for name, peer in self.peers.items():
            seen = max((at for at in (peer.answered, peer.heard) if at is not None), default=None)
            silent = SILENT if seen is None else int((now - seen) * 1000)
            replica = self.replicas.get(name)
            caught_up = replica is not None and self._streams(replica) and replica.acked >= self.sequence
            up = self.world.dials(self.name, name)
            peers.append(PeerStatus(f"{name}:8101", up, silent, "", peer.status, caught_up))
        leads = self.role is Role.LEADER
        counted = (self.name, *(name for name in self.replicas if self.is_in_sync(name))) if leads else ()
        return GroupStatus("cache", self.me(), tuple(peers), self.yielding, counted, self.lost)

    def me(self) -> MemberStatus:
        redis = self.redis
        in_sync = self.role is Role.LEADER or self.world.now < self.granted_until
        data = redis.data if redis.up else Data.UNKNOWN
        return MemberStatus(
            self.name, self.term, self.leader, self.role, data, redis.data_set, redis.position, redis.up and in_sync
        )

    def lead(self, term: int) -> None:
        self.world.check_may_lead(self, term)
        self._order(lambda: self._lead(term))

    def follow(self, term: int, leader: str) -> None:
        self._order(lambda: self._follow(term, leader))

    def yield_lead(self, on: bool) -> None:
        def do() -> None:
            self.yielding = on and self.role is Role.LEADER

        self._order(do)

    def count(self, members: tuple[str, ...]) -> None:
        def do() -> None:
            self.counted = members

        self._order(do)

    def arbiter_beat(self, age_ms: int) -> None:
        sent = self.world.now - age_ms / 1000

        def do() -> None:
            self.arbiter_at = max(sent, self.arbiter_at or 0.0)

        self._order(do)

    async def ask(self, peer: str, message: dict[str, object], timeout: float) -> dict[str, object]:  # noqa: ASYNC109
        name, text = peer.split(":")[0], json.dumps(message)
        answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def settle(answer: str) -> None:
            if not answered.done():
                answered.set_result(answer)

        self._order(lambda: self.world.ask(self.name, name, text, settle))
        try:
            async with asyncio.timeout(timeout):
                reply: dict[str, Any] = json.loads(await answered)
                return reply
        except TimeoutError:
            raise PeerError(f"{peer} did not answer") from None

    def _order(self, do: Callable[[], None]) -> None:
        if not self.dead:
            self.orders.append(do)
            self.world.loop.call_later(MOMENT, self._obey)

    def after_orders(self, do: Callable[[], None]) -> None:
        """An answer of the council leaves when what was ordered before it is in force."""
        self._order(do)

    def _obey(self) -> None:
        if self.orders and not self.dead:
            self.orders.popleft()()

    # --- leaderships --------------------------------------------------------------------------------------------------

    def _lead(self, term: int) -> None:
        if term < self.term or (term == self.term and self.role is Role.LEADER):
            return
        redis = self.redis
        self._leave()
        self.term, self.leader, self.role = term, self.name, Role.LEADER
        if redis.up:
            redis.data, redis.position = Data.COMPLETE, Position(term << 32, 0)
            redis.data_set = redis.data_set or f"set of {self.name} {term}"
        self.sequence, self.history = 0, [redis.bits]
        self.replicas = {name: Replica() for name in self.peers}
        self.arbiter_at = None
        for peer in self.peers.values():
            peer.leased = None
        self.world.began(self, term)

    def _follow(self, term: int, leader: str) -> None:
        if term < self.term or (term == self.term and self.leader == leader and self.role is not Role.LEADER):
            return
        self._leave()
        self.term, self.leader = term, leader
        self.role = Role.FOLLOWER if leader and leader != self.name else Role.NONE

    def _leave(self) -> None:
        self.yielding = self.lost = False
        self.granted_until = 0.0
        self.pending, self.replicas = [], {}

    # --- beats --------------------------------------------------------------------------------------------------------

    def hear(self, name: str, said_at: float, status: MemberStatus) -> None:
        """A member says something of itself, in a beat or in the answer to one."""
        peer = self.peers[name]
        if said_at <= peer.said_at:
            return
        peer.said_at, peer.status = said_at, status
        leads = status.role is Role.LEADER
        vacant = self.role is Role.NONE and not self.leader
        if leads and (status.term > self.term or (status.term == self.term and vacant)):
            self._follow(status.term, name)
        elif self.adopts_leaderless and status.term > self.term:
            self._follow(status.term, "")

    def beaten(self, name: str, sent: float, said_at: float, status: MemberStatus, counts: bool) -> None:
        """The answer to a beat of this member."""
        peer = self.peers[name]
        peer.answered = max(sent, peer.answered or 0.0)
        mine = (status.term, status.leader) == (self.term, self.name)
        if mine and self.role is Role.LEADER:
            peer.leased = max(sent, peer.leased or 0.0)
        if name == self.leader:
            follows = counts and status.role is Role.LEADER and status.term == self.term
            self.granted_until = sent + self.world.timeout if follows else 0.0
        self.hear(name, said_at, status)

    def lease_until(self) -> float:
        """Until when this leadership holds, in ``consistent`` mode."""
        at = [peer.leased or -9.0 for peer in self.peers.values()]
        if len(at) == 1 and self.world.settings.has_arbiter:
            at.append(-9.0 if self.arbiter_at is None else self.arbiter_at)
        at.sort(reverse=True)
        return at[(len(at) + 1) // 2 - 1] + self.world.settings.lease_ms / 1000

    # --- data ---------------------------------------------------------------------------------------------------------

    def _streams(self, replica: Replica) -> bool:
        return replica.open and not replica.copying and replica.acked >= 0

    def is_in_sync(self, name: str) -> bool:
        """Whether this leader counts a follower as having everything."""
        replica = self.replicas.get(name)
        return replica is not None and self._streams(replica) and self.world.now - replica.fresh_at < self.world.timeout

    def redis_lost(self) -> None:
        self.granted_until = 0.0
        self.lost = self.role is Role.LEADER and any(self._streams(replica) for replica in self.replicas.values())

    def redis_back(self, whole: bool) -> None:
        if self.role is Role.LEADER and not self.lost and not whole:
            self._follow(self.term + 1, "")

    def tick(self) -> None:
        """What goes on between two looks of the world."""
        if self.role is not Role.LEADER:
            return
        if self.redis.up and not self.lost and not self.yielding and self.world.rng.random() < 0.6:
            self._write()
        for name, replica in self.replicas.items():
            self._feed(name, replica)
        self._settle()

    def _write(self) -> None:
        bit = self.world.new_write()
        self.sequence += 1
        self.redis.bits |= bit
        self.redis.position = Position(self.term << 32, self.sequence)
        self.history.append(self.redis.bits)
        self.pending.append(Pending(self.sequence, bit))

    def _feed(self, name: str, replica: Replica) -> None:
        follower = self.world.stream(self.name, name)
        if follower is None or not follower.admits(self) or not follower.redis.up:
            replica.open = False
            return
        target = follower.redis
        if not replica.open and (not self._can_be_copied() or not self._judge(replica, target)):
            return
        if replica.copying:
            self._copy(replica, target)
        elif self.world.now >= replica.stalled_until:
            if self.world.rng.random() < self.world.stalls:
                replica.stalled_until = self.world.now + self.world.rng.uniform(0, 0.9)
            # What it was sent the last time it has acknowledged by now.
            replica.acked, replica.fresh_at = replica.sent, self.world.now
            replica.sent = min(self.sequence, replica.sent + self.world.rng.randint(1, 5))
            target.bits, target.position = self.history[replica.sent], Position(self.term << 32, replica.sent)

    def _can_be_copied(self) -> bool:
        return self.redis.up and not self.lost and self.redis.data is Data.COMPLETE

    def _judge(self, replica: Replica, target: Redis) -> bool:
        if target.data is Data.FOREIGN or (target.data_set and target.data_set != self.redis.data_set):
            return False
        if target.data is not Data.COMPLETE or target.bits & ~self.redis.bits:
            target.data = Data.PARTIAL  # It is emptied, or gets other values.
        replica.open, replica.copying, replica.acked = True, self.world.rng.randint(1, 12), -1
        return True

    def _copy(self, replica: Replica, target: Redis) -> None:
        replica.copying -= 1
        if not replica.copying and not self._can_be_copied():
            replica.copying = 1
        elif not replica.copying:
            target.data, target.data_set = Data.COMPLETE, self.redis.data_set
            target.bits, target.position = self.redis.bits, self.redis.position
            replica.sent = replica.acked = self.sequence
            replica.fresh_at = self.world.now

    def admits(self, leader: Plane) -> bool:
        """Whether the stream of a leader reaches this member's Redis."""
        if leader.term > self.term or (leader.term == self.term and not self.leader):
            self._follow(leader.term, leader.name)
        return (self.term, self.leader) == (leader.term, leader.name)

    def _settle(self) -> None:
        """``quorum`` acknowledges what each that counts has."""
        if not self.world.settings.consistent or self.world.now >= self.lease_until() or not self.redis.up:
            return
        acked = [self.sequence]
        for name in self.counted:
            replica = self.replicas.get(name)
            if name != self.name:
                acked.append(replica.acked if replica is not None and not replica.copying else -1)
        while self.pending and self.pending[0].sequence <= min(acked):
            self.world.acknowledged |= self.pending.pop(0).bit
