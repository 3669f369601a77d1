"""What a Redis throws away by itself: such a key is no write, so no mirror hears of it. Pure.

Owns: what was last seen of each server. Never: asks a server; the probes do. Never logs; the caller does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from redisha.health.probe import Facts

TELL_AGAIN = 60.0
"""Seconds between two warnings about keys that one server evicts."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What is new.

    Attributes:
        warnings: sentences for the log.
        evicted: the servers that evicted keys since the last look.
    """

    warnings: tuple[str, ...] = ()
    evicted: tuple[str, ...] = ()


class Evictions:
    """Notices servers that may evict keys, and those that do."""

    def __init__(self) -> None:
        self._before: dict[str, Facts] = {}
        self._warned: dict[str, str] = {}
        self._told: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def look(self, facts: Mapping[str, Facts], now: float) -> Findings:
        """Compare with the last look.

        Args:
            facts: what each Redis that is a primary with mirrors, or a mirror, says of itself; those that never
                answered are not in it.
            now: seconds of a clock that does not go back.
        """
        warnings, evicted = [], []
        for name, each in facts.items():
            text = advice(each)
            if text != self._warned.get(name, ""):
                warnings += [f"{name} {text}"] if text else []
                self._warned[name] = text
            grown = self._grown(name, each)
            if grown:
                evicted.append(name)
                self._unsaid[name] = self._unsaid.get(name, 0) + grown
            if self._unsaid.get(name) and now - self._told.get(name, now - TELL_AGAIN) >= TELL_AGAIN:
                self._told[name] = now
                warnings.append(_evicted(name, self._unsaid.pop(name)))
        self._forget(facts)
        return Findings(tuple(warnings), tuple(evicted))

    def _grown(self, name: str, now: Facts) -> int:
        """Keys evicted since the last look; the counter starts again with the Redis."""
        before = self._before.get(name)
        self._before[name] = now
        if before is None:
            return 0  # It may be years since; what that left behind, a comparison finds.
        return max(0, now.evicted_keys - (before.evicted_keys if before.run_id == now.run_id else 0))

    def _forget(self, known: Iterable[str]) -> None:
        for state in (self._before, self._warned, self._told, self._unsaid):
            for name in set(state) - set(known):
                del state[name]


def advice(facts: Facts) -> str:
    """What to say of a server that may evict keys, behind its name; empty for one that does not."""
    if not facts.may_evict:
        return ""
    return (
        f"has the maxmemory-policy {facts.maxmemory_policy} and maxmemory {facts.maxmemory}: what it evicts is not "
        "mirrored, so primary and mirror will differ; set maxmemory-policy noeviction, and enough memory"
    )


def _evicted(name: str, count: int) -> str:
    keys = f"{count} key{'s' if count > 1 else ''}"
    return f"{name} evicted {keys} by itself: primary and mirror may differ now; a larger scrub follows"
