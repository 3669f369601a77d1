"""Keeps the slot map of each Redis Cluster: asks its nodes by interval, and soon when the data plane was redirected.

Owns: one task per cluster, its connections to nodes, and the last good map.
Never: decides what a map means; :mod:`redisha.slots` does. An answer that cannot be had changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from redisha.config.scalars import Tcp, parse_endpoint
from redisha.core import ReplyError
from redisha.health.talk import RefusedError, Talk, Target, TooLongError
from redisha.slots import Answer, SlotMap, agree, read_info, read_slots

log = logging.getLogger(__name__)

ASKED = 3
"""Nodes that are asked at a time; two of them must answer, if there are two, or others are asked as well."""

PAUSE = 0.2
"""Seconds between two times, however often it is asked for."""

HURRY_INTERVAL = 0.5
"""Seconds between two times while the map is known to be old, or about to be."""

HURRY_LOST = 60.0
"""Seconds for which that holds after a node was lost, or until the map has changed."""

HURRY_MOVED = 3.0
"""The same after a redirection: not all nodes know at once."""

JITTER = 0.2
"""Part of the interval by which it varies, so that many sidecars do not ask at once."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A cluster whose map is wanted.

    Attributes:
        seeds: addresses to begin with, ``ip:port``.
        interval: seconds between two times.
        timeout: seconds for one node's answer.
        username: for AUTH; None for the default user.
        password: for AUTH; None when none is asked.
    """

    seeds: tuple[str, ...]
    interval: float = 5.0
    timeout: float = 1.0
    username: str | None = None
    password: str | None = field(default=None, repr=False)


class SlotWatch:
    """The maps of all clusters.

    Args:
        on_change: called in the loop with a cluster's name when its map is another one.
    """

    def __init__(self, on_change: Callable[[str], None]) -> None:
        self._on_change = on_change
        self._watches: dict[str, _Watch] = {}

    def watch(self, clusters: Mapping[str, Watched]) -> None:
        """Watch exactly these clusters from now on; what is known of those that stay is kept."""
        for name in [name for name in self._watches if name not in clusters]:
            self._watches.pop(name).cancel()
        for name, wanted in clusters.items():
            if name in self._watches:
                self._watches[name].wanted = wanted
            else:
                self._watches[name] = _Watch(name, wanted, self._on_change)

    def maps(self) -> dict[str, SlotMap]:
        """The maps that are known."""
        return {name: each.map for name, each in self._watches.items() if each.map is not None}

    def ask_soon(self, cluster: str, *, lost: bool = False) -> None:
        """A map is old, as a redirection shows, or will be, as a node is ``lost``. Other names are passed over."""
        if (watch := self._watches.get(cluster)) is not None:
            watch.ask_soon(lost=lost)

    async def first_answers(self, limit: float) -> None:
        """Wait until each cluster's nodes were asked once, at most ``limit`` seconds."""
        waits = [asyncio.create_task(each.asked.wait()) for each in self._watches.values()]
        if waits:
            _, pending = await asyncio.wait(waits, timeout=limit)
            for each in pending:
                each.cancel()

    async def close(self) -> None:
        """Ask no more."""
        watches = list(self._watches.values())
        self.watch({})
        await asyncio.gather(*(each.task for each in watches), return_exceptions=True)


class _Watch:
    """One cluster."""

    def __init__(self, name: str, wanted: Watched, on_change: Callable[[str], None]) -> None:
        self.name = name
        self.wanted = wanted
        self.map: SlotMap | None = None
        self.asked = asyncio.Event()
        self._on_change = on_change
        self._talks: dict[Target, Talk] = {}
        self._soon = asyncio.Event()
        self._hurries_until = 0.0
        self._told = ""
        self.task = asyncio.create_task(self._keep(), name=f"slots of {name}")

    def cancel(self) -> None:
        """Stop."""
        self.task.cancel()

    def ask_soon(self, *, lost: bool) -> None:
        """See :meth:`SlotWatch.ask_soon`."""
        until = time.monotonic() + (HURRY_LOST if lost else HURRY_MOVED)
        self._hurries_until = max(self._hurries_until, until)
        self._soon.set()

    async def _keep(self) -> None:
        try:
            while True:
                self._soon.clear()
                try:
                    self._take(await self._ask())
                except Exception:
                    log.exception("the slot map of %s cannot be asked for", self.name)
                self.asked.set()
                await self._wait()
        finally:
            for talk in self._talks.values():
                talk.close()

    async def _wait(self) -> None:
        await asyncio.sleep(PAUSE)
        hurries = time.monotonic() < self._hurries_until
        interval = min(self.wanted.interval, HURRY_INTERVAL) if hurries else self.wanted.interval
        spread = interval * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret
        try:
            async with asyncio.timeout(max(spread - PAUSE, 0)):
                await self._soon.wait()
        except TimeoutError:
            pass

    async def _ask(self) -> list[Answer]:
        """What several nodes say; more of them are asked while fewer than two have answered."""
        targets = self._targets()
        for gone in [each for each in self._talks if each not in targets]:
            self._talks.pop(gone).close()
        random.shuffle(targets)
        answers: list[Answer] = []
        reasons: list[str] = []
        while targets and len(answers) < 2:
            batch, targets = targets[:ASKED], targets[ASKED:]
            for found in await asyncio.gather(*(self._ask_one(each) for each in batch)):
                if isinstance(found, Answer):
                    answers.append(found)
                else:
                    reasons.append(found)
        if not answers:
            self._tell("; ".join(sorted(reasons)) or "no address of its nodes is known")
        return answers

    def _targets(self) -> list[Target]:
        """All nodes that are known; the first ones as well, so that the way back is never lost."""
        known = [each.address for each in (*self.map.masters, *self.map.replicas)] if self.map is not None else []
        addresses = dict.fromkeys([*known, *self.wanted.seeds])
        return [Target(each, self.wanted.username, self.wanted.password) for each in addresses]

    async def _ask_one(self, target: Target) -> Answer | str:
        """What one node says, or why it does not."""
        talk = self._talks.setdefault(target, Talk(target))
        try:
            async with asyncio.timeout(self.wanted.timeout):
                slots = await _patiently(talk, b"CLUSTER", b"SLOTS")
                info = await talk.call(b"CLUSTER", b"INFO")
            if isinstance(slots, ReplyError):
                return f"{target.address}: {slots}"
            address = parse_endpoint(target.address)
            asked = address if isinstance(address, Tcp) else Tcp("", 0)
            return Answer(read_slots(slots, asked), *read_info(info))
        except TimeoutError:
            reason = f"no answer within {self.wanted.timeout:g} s"
        except (OSError, RefusedError, TooLongError, ValueError) as error:
            reason = str(error)
        talk.close()
        return f"{target.address}: {reason}"

    def _take(self, answers: Sequence[Answer]) -> None:
        found = agree(answers)
        if answers and found is None:
            self._tell("no slot has a master")
        if found is None:
            return
        self._told = ""
        if found == self.map:
            return
        self.map = found
        self._hurries_until = min(self._hurries_until, time.monotonic() + HURRY_MOVED)
        counts = (len(found.masters), len(found.replicas), found.covered)
        log.info("slot map of %s: %d masters, %d replicas, %d slots", self.name, *counts)
        self._on_change(self.name)

    def _tell(self, reason: str) -> None:
        """Why there is no new map, once."""
        log.log(logging.DEBUG if reason == self._told else logging.WARNING, "no slot map of %s: %s", self.name, reason)
        self._told = reason


async def _patiently(talk: Talk, *args: bytes) -> object:
    """Ask; a connection that has ended while nothing was asked is no failure."""
    reused = talk.is_open
    try:
        return await talk.call(*args)
    except ConnectionError:
        if not reused:
            raise
        talk.close()
        return await talk.call(*args)
