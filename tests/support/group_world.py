"""A group in a simulated world: members with councils of their own, a network that is cut, servers that come and go.

Everything depends on the seed alone. While it runs the world checks what must hold always; :meth:`World.settle` checks
what must hold once all is well again.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from redisha.group.arbiter import ArbiterError, ConflictError, Record
from redisha.group.ballot import BallotBox
from redisha.group.council import Council
from redisha.group.decision import Lead
from redisha.group.status import Data, Role
from redisha.group.view import BallotState, Recorded, Settings
from redisha.group.vote import newer
from support.group_plane import Peer, Plane, Redis

TICK = 0.05
"""Seconds between two steps of the streams, and two looks at what must hold."""


class Disk(BallotBox):
    """A ballot that outlives its process if the member's disk does."""

    def __init__(self, world: World, member: Member) -> None:
        super().__init__(None, "cache", member.name)
        self._world = world
        self._of = member
        if member.saved is not None and world.durable:
            self.state = member.saved

    def save(self, state: BallotState) -> None:
        self._world.check_vote(self.member, state)
        super().save(state)
        self._of.saved = state


class Third:
    """The arbiter, as one member reaches it."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._name = name

    async def read(self) -> tuple[Record | None, str]:
        await self._reach()
        return self._world.record, str(self._world.version)

    async def write(self, record: Record, version: str) -> str:
        await self._reach()
        if version != str(self._world.version):
            raise ConflictError("somebody was faster")
        self._world.record = record
        self._world.version += 1
        if self._world.rng.random() < self._world.arbiter_forgets:
            raise ArbiterError("the answer was lost")
        return str(self._world.version)

    async def close(self) -> None:
        """Nothing is kept open."""

    async def _reach(self) -> None:
        await asyncio.sleep(self._world.rng.uniform(0.001, 0.03))
        if not self._world.arbiter_up or self._name in self._world.far_from_arbiter:
            raise ArbiterError("it cannot be reached")


@dataclass
class Member:
    """A sidecar, its Redis and its disk."""

    name: str
    redis: Redis = field(default_factory=Redis)
    saved: BallotState | None = None
    plane: Plane | None = None
    council: Council | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    older: list[tuple[object, ...]] = field(default_factory=list)


class World:
    """Members ``m1`` … ``m5``, all of them stopped.

    Args:
        seed: what everything depends on.
        count: how many members.
        settings: of the group.
        durable: whether ballots outlive their processes.
    """

    def __init__(self, seed: int, count: int, settings: Settings, durable: bool = True) -> None:
        self.rng = random.Random(seed)
        self.loop = asyncio.get_running_loop()
        self.settings = settings
        self.timeout = settings.election_timeout_ms / 1000
        self.durable = durable
        self.members = {f"m{n}": Member(f"m{n}") for n in range(1, count + 1)}
        self.cuts: set[tuple[str, str]] = set()
        self.closed: set[tuple[str, str]] = set()
        self.delay = 0.002
        self.stalls = 0.03
        self.adopts_leaderless = self.rng.random() < 0.5
        self.record: Record | None = None
        self.version = 0
        self.arbiter_up = True
        self.arbiter_forgets = 0.0
        self.far_from_arbiter: set[str] = set()
        self.acknowledged = 0
        self.writes = 0
        self.leads: dict[int, set[str]] = {}
        self.elected: dict[int, set[str]] = {}
        self.votes: dict[tuple[str, int], str] = {}
        self.story: list[str] = []
        self.broken: list[str] = []
        self._arrivals: dict[tuple[str, str], float] = {}
        self._running = True
        self.loop.call_later(TICK, self._tick)

    @property
    def now(self) -> float:
        return self.loop.time()

    def tell(self, text: str) -> None:
        self.story.append(f"{self.now:8.3f} {text}")

    def must(self, holds: bool, what: str) -> None:
        """Note what does not hold; a test asks :attr:`broken`, for an exception here would be somebody's to handle."""
        if not holds:
            self.tell(f"BROKEN: {what}")
            self.broken.append(what)

    # --- members ------------------------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        member = self.members[name]
        if member.plane is not None:
            return
        self.tell(f"{name} starts")
        plane = Plane(self, name, member.redis, self.adopts_leaderless)
        plane.peers = {other: Peer() for other in self.members if other != name}
        member.plane = plane
        third = Third(self, name) if self.settings.has_arbiter else None
        member.council = Council(plane, Disk(self, member), self.settings, third, self.loop.time)
        self._spawn(member, member.council.run())
        self.loop.call_later(self.rng.uniform(0, 0.2), self._beat, plane)

    def crash(self, name: str) -> None:
        member = self.members[name]
        if member.plane is None:
            return
        self.tell(f"{name} crashes")
        member.plane.dead = True
        member.plane = member.council = None
        for task in member.tasks:
            task.cancel()
        member.tasks = set()

    def _spawn(self, member: Member, work: object) -> None:
        task = self.loop.create_task(work)  # type: ignore[arg-type]
        member.tasks.add(task)
        task.add_done_callback(member.tasks.discard)

    def redis_down(self, name: str) -> None:
        member = self.members[name]
        if member.redis.up:
            self.tell(f"{name}'s Redis goes down")
            member.redis.up = False
            if member.plane is not None:
                member.plane.redis_lost()

    def redis_up(self, name: str, how: str = "whole") -> None:
        """It comes back: ``whole``, ``empty``, or ``older`` by some writes."""
        member, redis = self.members[name], self.members[name].redis
        if redis.up:
            return
        if how == "empty":
            redis.data, redis.data_set, redis.bits = Data.EMPTY, "", 0
            redis.position = type(redis.position)()
        elif how == "older" and redis.data is Data.COMPLETE and member.older:
            redis.data_set, redis.position, redis.bits = self.rng.choice(member.older)  # type: ignore[assignment]
        else:
            how = "whole"
        self.tell(f"{name}'s Redis comes back {how}")
        redis.up = True
        if member.plane is not None:
            member.plane.redis_back(how == "whole" and redis.data is Data.COMPLETE)

    def hand_over(self, name: str, to: str | None) -> None:
        """Ask a member to hand over; how it ends is in the story."""
        member = self.members[name]
        council = member.council
        if council is None:
            return

        async def do() -> None:
            try:
                self.tell(f"{name} hands over to {await council.hand_over(to)}")
            except Exception as error:
                self.tell(f"{name} does not hand over to {to}: {type(error).__name__} {error}")
                self.must(type(error).__name__ == "HandOverError", f"hand_over raised {error!r}")

        self._spawn(member, do())

    # --- network ------------------------------------------------------------------------------------------------------

    def dials(self, a: str, b: str) -> bool:
        """Whether a connection from one to the other is there."""
        gone = self.members[b].plane is None or (a, b) in self.closed
        return not gone and (a, b) not in self.cuts and (b, a) not in self.cuts

    def stream(self, a: str, b: str) -> Plane | None:
        """The data plane that the stream of one reaches at the other."""
        return self.members[b].plane if self.dials(a, b) else None

    def _send(self, a: str, b: str, do: Callable[[Plane], None]) -> None:
        """A packet; two from one member to another arrive in their order."""
        receiver = self.members[b].plane
        if (a, b) in self.cuts or receiver is None:
            return
        at = max(self.now + self.rng.uniform(0.2, 2) * self.delay, self._arrivals.get((a, b), 0.0) + 1e-5)
        self._arrivals[a, b] = at

        def arrive() -> None:
            if (a, b) not in self.cuts and not receiver.dead:
                do(receiver)

        self.loop.call_at(at, arrive)

    def _beat(self, plane: Plane) -> None:
        if plane.dead or not self._running:
            return
        sent, me = self.now, plane.me()
        for name in plane.peers:
            if (plane.name, name) not in self.closed:
                self._send(plane.name, name, lambda receiver: self._heard(receiver, plane, sent, me))
        self.loop.call_later(self.settings.heartbeat_ms / 1000, self._beat, plane)

    def _heard(self, receiver: Plane, sender: Plane, sent: float, status: object) -> None:
        peer = receiver.peers[sender.name]
        peer.heard = self.now
        counts, said_at, me = receiver.is_in_sync(sender.name), self.now, receiver.me()
        receiver.hear(sender.name, sent, status)  # type: ignore[arg-type]

        def answered(plane: Plane) -> None:
            if plane is sender:
                plane.beaten(receiver.name, sent, said_at, me, counts)

        self._send(receiver.name, sender.name, answered)

    def ask(self, a: str, b: str, text: str, settle: Callable[[str], None]) -> None:
        """A question of a council, and its answer."""
        if (a, b) in self.closed:
            return

        def arrive(receiver: Plane) -> None:
            member = self.members[b]
            council = member.council
            if council is not None:
                self._spawn(member, answer(receiver, council))

        async def answer(receiver: Plane, council: Council) -> None:
            said = json.dumps(await council.on_message(a, json.loads(text)))
            receiver.after_orders(lambda: self._send(b, a, lambda _: settle(said)))

        self._send(a, b, arrive)

    # --- what must hold always ----------------------------------------------------------------------------------------

    def _tick(self) -> None:
        if not self._running:
            return
        planes = [member.plane for member in self.members.values() if member.plane is not None]
        for plane in planes:
            plane.tick()
        self._check(planes)
        for member in self.members.values():
            redis = member.redis
            if redis.up and redis.data is Data.COMPLETE and self.rng.random() < 0.05:
                member.older.append((redis.data_set, redis.position, redis.bits))
        self.loop.call_later(TICK, self._tick)

    def _check(self, planes: list[Plane]) -> None:
        if not self.settings.consistent:
            return
        leaders = [p for p in planes if p.role is Role.LEADER and not p.yielding and self.now < p.lease_until()]
        self.must(len(leaders) <= 1, f"two leaders with a lease: {[(p.name, p.term) for p in leaders]}")
        for plane in leaders:
            if plane.redis.up and not plane.lost:
                missing = self.acknowledged & ~plane.redis.bits
                self.must(not missing, f"{plane.name} leads term {plane.term} without acknowledged {missing:b}")

    def check_may_lead(self, plane: Plane, term: int) -> None:
        """The council tells the data plane to lead."""
        me = plane.me()
        self.must(me.data not in (Data.UNKNOWN, Data.PARTIAL), f"{plane.name} leads with {me.data} data")
        if me.data is not Data.COMPLETE:
            known = [
                m.name
                for m in self.members.values()
                if m.redis.data is Data.COMPLETE and self.dials(plane.name, m.name)
            ]
            self.must(not known, f"{plane.name} leads with {me.data} data, and {known} have some")
        council = self.members[plane.name].council
        alone = council is not None and council.decision == Lead(term)
        self.tell(f"{plane.name} leads term {term}{' alone' if alone else ''}")
        if not alone:
            self.elected.setdefault(term, set()).add(plane.name)
            self.must(len(self.elected[term]) == 1 or not self.durable, f"two were elected in term {term}")

    def began(self, plane: Plane, term: int) -> None:
        """A leadership began."""
        self.leads.setdefault(term, set()).add(plane.name)
        if self.settings.consistent:
            self.must(len(self.leads[term]) == 1, f"two lead term {term}: {self.leads[term]}")

    def check_vote(self, member: str, state: BallotState) -> None:
        """A ballot is written."""
        if state.trusted and state.voted_for:
            before = self.votes.setdefault((member, state.term), state.voted_for)
            said = f"{member} voted for {before} and {state.voted_for} in term {state.term}"
            self.must(before == state.voted_for or not self.durable, said)

    def new_write(self) -> int:
        """A bit that was not used yet."""
        self.writes += 1
        return 1 << self.writes

    # --- what must hold when all is well ------------------------------------------------------------------------------

    def heal(self) -> None:
        """Everything works again."""
        self.tell("all is healed")
        self.cuts, self.closed, self.far_from_arbiter = set(), set(), set()
        self.arbiter_up, self.arbiter_forgets, self.delay = True, 0.0, 0.002
        for name in self.members:
            self.redis_up(name)
            self.start(name)

    def leaders(self) -> list[str]:
        """Who leads, as they think themselves."""
        planes = [member.plane for member in self.members.values() if member.plane is not None]
        return [plane.name for plane in planes if plane.role is Role.LEADER]

    def is_well(self) -> bool:
        """Whether one leads, all others follow it and have what it has."""
        leaders = self.leaders()
        if len(leaders) != 1:
            return False
        leader = self.members[leaders[0]].plane
        assert leader is not None
        for member in self.members.values():
            plane = member.plane
            if plane is None or (plane.term, plane.leader) != (leader.term, leader.name):
                return False
            if plane is not leader and not leader.is_in_sync(plane.name):
                return False
        return not leader.yielding and not leader.lost

    async def settle(self, seconds: float) -> bool:
        """Wait until the group is well, and stays so for a while."""
        end = self.now + seconds
        well_since: float | None = None
        while self.now < end:
            await asyncio.sleep(0.05)
            well_since = (self.now if well_since is None else well_since) if self.is_well() else None
            if well_since is not None and self.now - well_since > 1.0:
                return True
        return False

    def newest_record(self) -> Recorded | None:
        """Of whom a leader may be elected, at the newest that anybody was told."""
        newest = None
        if self.record is not None and self.record.in_sync:
            newest = Recorded(self.record.term, self.record.beat, self.record.in_sync)
        for member in self.members.values():
            if member.saved is not None:
                newest = newer(newest, member.saved.recorded)
        return newest

    def stop(self) -> None:
        """The end."""
        self._running = False
        for name in self.members:
            self.crash(name)
