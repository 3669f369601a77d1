"""What goes wrong in a simulated group: a random run of faults, of a few kinds that the seed chooses."""

from __future__ import annotations

import asyncio

from redisha.group.status import Data
from support.group_world import World


class Faults:
    """Faults for one world, out of its own random numbers."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = world.rng
        self._names = list(world.members)

    async def run(self, seconds: float) -> None:
        """Do harm for a while. A few kinds at a time reach states that all kinds together do not."""
        end = self._world.now + seconds
        kinds = [self.crash, self.bounce, self.redis, self.cut, self.cut, self.isolate, self.halves]
        kinds += [self.hand_over, self.slow, self.wipe]
        if self._world.settings.has_arbiter:
            kinds += [self.arbiter, self.arbiter]
        kinds = self._rng.sample(kinds, self._rng.randint(1, 4))
        pause = self._rng.choice([0.2, 0.6, 1.2])
        while self._world.now < end:
            await asyncio.sleep(pause * self._rng.uniform(0.1, 2))
            self._rng.choice(kinds)()

    def _later(self, do: object, *args: object) -> None:
        """Undo something, soon or after the others have noticed."""
        self._world.loop.call_later(self._rng.choice([0.05, 0.4, 1.3, 2.5, 4.0]), do, *args)  # type: ignore[arg-type]

    def _one(self) -> str:
        leaders = self._world.leaders()
        return self._rng.choice(leaders if leaders and self._rng.random() < 0.5 else self._names)

    # --- processes ----------------------------------------------------------------------------------------------------

    def crash(self) -> None:
        name = self._one()
        self._world.crash(name)
        self._later(self._world.start, name)

    def bounce(self) -> None:
        """A restart that hardly anybody notices."""
        name = self._one()
        self._world.crash(name)
        self._world.loop.call_later(self._rng.uniform(0, 0.3), self._world.start, name)

    def wipe(self) -> None:
        """A restart with a new disk. The others' votes must be a majority: else an operator would be needed."""
        world, name = self._world, self._one()
        others = [member.saved for member in world.members.values() if member.name != name]
        trusted = sum(saved is not None and saved.trusted for saved in others)
        votes = len(world.members) + world.settings.has_arbiter
        if (trusted + world.settings.has_arbiter) * 2 > votes:
            world.tell(f"{name} loses its disk")
            world.crash(name)
            world.members[name].saved = None
            self._later(world.start, name)

    def redis(self) -> None:
        name = self._one()
        self._world.redis_down(name)
        self._later(self._redis_back, name)
        if self._rng.random() < 0.2:
            self._world.crash(name)
            self._later(self._world.start, name)

    def _redis_back(self, name: str) -> None:
        how = self._rng.choice(["whole", "whole", "older", "empty"])
        if how == "older" and self._world.settings.consistent:
            how = "whole"  # There a Redis keeps what it has acknowledged, or loses all.
        if how == "empty" and not self._can_be_spared(name):
            how = "whole"
        self._world.redis_up(name, how)

    def _can_be_spared(self, name: str) -> bool:
        """Whether somebody else could still lead without this one's data: else an operator would be needed."""
        world = self._world
        newest = world.newest_record() if world.settings.consistent else None
        if not world.durable:
            return False
        for member in world.members.values():
            whole = member.redis.data is Data.COMPLETE and not world.acknowledged & ~member.redis.bits
            if member.name != name and whole and (newest is None or member.name in newest.members):
                return True
        return False

    def hand_over(self) -> None:
        for name in self._world.leaders():
            self._world.hand_over(name, self._rng.choice([None, *self._names]))

    # --- network ------------------------------------------------------------------------------------------------------

    def _cut(self, pairs: set[tuple[str, str]]) -> None:
        self._world.cuts |= pairs
        self._later(self._mend, pairs)

    def _mend(self, pairs: set[tuple[str, str]]) -> None:
        self._world.tell(f"mended: {' '.join(sorted(f'{a}>{b}' for a, b in pairs))}")
        self._world.cuts -= pairs

    def cut(self) -> None:
        a = self._one()
        b = self._rng.choice([name for name in self._names if name != a])
        kind = self._rng.choice(["both", "there", "back", "connection", "accept"])
        self._world.tell(f"cut between {a} and {b}: {kind}")
        if kind == "connection":
            self._close({(a, b)})
        elif kind == "accept":
            self._close({(other, a) for other in self._names})
        else:
            self._cut({"both": {(a, b), (b, a)}, "there": {(a, b)}, "back": {(b, a)}}[kind])

    def _close(self, pairs: set[tuple[str, str]]) -> None:
        self._world.closed |= pairs

        def reopen() -> None:
            self._world.closed -= pairs

        self._later(reopen)

    def isolate(self) -> None:
        name = self._one()
        self._world.tell(f"{name} is cut off")
        self._cut({pair for other in self._names if other != name for pair in ((name, other), (other, name))})
        if self._rng.random() < 0.5:
            self._world.far_from_arbiter.add(name)
            self._later(self._world.far_from_arbiter.discard, name)

    def halves(self) -> None:
        one = set(self._rng.sample(self._names, len(self._names) // 2))
        self._world.tell(f"cut between {sorted(one)} and the others")
        self._cut({(a, b) for a in self._names for b in self._names if (a in one) != (b in one)})

    def slow(self) -> None:
        self._world.delay = self._rng.choice([0.001, 0.002, 0.01, 0.08])

    def arbiter(self) -> None:
        world = self._world
        kind = self._rng.choice(["down", "forgets", "far"])
        world.tell(f"the arbiter: {kind}")
        if kind == "far":
            name = self._one()
            world.far_from_arbiter.add(name)
            self._later(world.far_from_arbiter.discard, name)
        elif kind == "forgets":
            world.arbiter_forgets = self._rng.choice([0.0, 0.3])
        else:
            world.arbiter_up = False
            self._later(self._arbiter_back)

    def _arbiter_back(self) -> None:
        self._world.arbiter_up = True
