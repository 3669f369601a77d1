"""What the control plane does so that primary and mirror hold the same: refills, scrubs, and the operator's word.

Owns: which pairs there are, and who is told what about them.
Never: repairs a mirror: the data plane does, in order with the writes. Never blocks the event loop.

::

    event refill ─▶ copy everything M ─▶ P on a thread, again and again while it fails ─▶ plane.refilled(P)
    every resync.scrub.interval, and after evictions ─▶ compare a sample on a thread ─▶ plane.doubt(P, M, keys)
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from redisha import derive, tools
from redisha.config.model import Config
from redisha.core import DataPlane, Event, ReplicaStats
from redisha.health.evictions import Evictions
from redisha.health.probe import Facts
from redisha.plan import Plan
from redisha.refill import Copy, Rates, Refills, RefillStats
from redisha.scrub import Compare, Pair, Scrubs, ScrubStats

log = logging.getLogger(__name__)

ACTIONS = ("start", "full", "pause", "resume", "accept")
"""What an operator can ask of the replicas of a cluster."""


class Caretaker:
    """Everything of this file, as the supervisor uses it.

    Args:
        plane: the data plane.
        compare: compares a sample; :mod:`redisha.verify` by default.
        copy: copies everything; :mod:`redisha.verify` by default.
        clock: seconds that do not go back.
    """

    def __init__(
        self,
        plane: DataPlane,
        compare: Compare | None = None,
        copy: Copy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plane = plane
        self._clock = clock
        self._pairs: dict[tuple[str, str], Pair] = {}
        self._config: Config | None = None
        self._servers: dict[str, derive.Server] = {}
        self._evictions = Evictions()
        self._scrubs = Scrubs(plane, compare or tools.compare, clock)
        self._refills = Refills(plane, copy or tools.copy_all, self._pair)
        self._tasks: set[asyncio.Task[None]] = set()

    def configure(self, config: Config, plan: Plan) -> None:
        """A plan is in force."""
        self._config, self._servers = config, derive.servers(plan)
        self._pairs = {
            (primary.name, mirror.name): Pair(primary, mirror, derive.Scope(config, *clusters))
            for clusters in derive.mirrored_pairs(config)
            for primary in self._of(clusters[0])
            for mirror in self._of(clusters[1])
        }
        resync = config.resync
        self._scrubs.configure(self._pairs.values(), resync.scrub.interval / 1000, resync.scrub.sample)
        self._refills.rates = Rates(resync.max_keys_per_second, resync.max_bytes_per_second)
        self._refills.look()

    def _of(self, cluster: str) -> list[derive.Server]:
        return [each for each in self._servers.values() if each.cluster == cluster]

    def _pair(self, name: tuple[str, str]) -> Pair | None:
        return self._pairs.get(name)

    def on_refill(self, event: Event) -> None:
        """The data plane holds a primary until it is filled from its mirror."""
        if event.replica is not None:
            self._refills.begin(*event.replica, event.detail)

    def look(self, replicas: tuple[ReplicaStats, ...], facts: Mapping[str, Facts]) -> None:
        """Do what is due; called every second or so.

        Args:
            replicas: the data plane's view of the mirrors.
            facts: what each Redis says of itself, by name.
        """
        concerned = {name for pair in self._pairs for name in pair}
        found = self._evictions.look({name: each for name, each in facts.items() if name in concerned}, self._clock())
        for warning in found.warnings:
            log.warning("%s", warning)
        for server in found.evicted:
            self._scrubs.hurry(server)
        self._scrubs.look(replicas)

    def names(self, cluster: str) -> tuple[str, ...]:
        """The replicas, each as ``P -> M``, whose primary or mirror belongs to a cluster."""
        return tuple(
            str(pair) for pair in self._pairs.values() if cluster in (pair.primary.cluster, pair.mirror.cluster)
        )

    def resync(self, cluster: str, action: str) -> None:
        """What an operator asks for.

        Raises:
            ValueError: there is no such action.
        """
        if action not in ACTIONS:
            raise ValueError(f"unknown action: {action}; one of {', '.join(ACTIONS)}")
        if action != "accept":
            self._plane.resync(cluster, action)
            return
        # The word is about a primary; who names its mirror means it, too.
        mirrored = {each.primary.cluster for each in self._pairs.values() if each.mirror.cluster == cluster}
        clusters, filling = sorted({cluster, *mirrored}), self._refills.running(cluster)
        if not filling:
            self._accepted(clusters)
            return
        task = asyncio.create_task(self._accept(clusters, filling))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, clusters: list[str], filling: list[str]) -> None:
        """Once clients write to a primary, nothing may be copied over what they wrote: the copying ends first."""
        for primary in filling:
            await self._refills.stop(primary)
        self._accepted(clusters)

    def _accepted(self, clusters: list[str]) -> None:
        for cluster in clusters:
            self._plane.resync(cluster, "accept")

    def scrubs(self) -> Mapping[tuple[str, str], ScrubStats]:
        """What the scrubs found, by primary and mirror."""
        return self._scrubs.stats()

    def refills(self) -> Mapping[str, RefillStats]:
        """How far the refills are, by primary."""
        return self._refills.stats()

    async def close(self) -> None:
        """Stop everything."""
        for task in self._tasks:
            task.cancel()
        await self._scrubs.close()
        await self._refills.close()
