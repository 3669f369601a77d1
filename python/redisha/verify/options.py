"""What is compared and how patiently, and how far it has come. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Options:
    """How to compare.

    Attributes:
        databases: only these; None for all.
        match: only keys of this pattern, as ``SCAN … MATCH`` takes it; functions are not compared then.
        only: only keys for which this is true; functions are not compared then.
        sample: only about so many keys, from random places; None for all.
        passes: how often a key that differs is looked at again.
        settle: seconds before it is.
        limit: how many differences the report lists.
        repair: make B's keys and functions like A's.
    """

    databases: frozenset[int] | None = None
    match: bytes | None = None
    only: Callable[[bytes], bool] | None = None
    sample: int | None = None
    passes: int = 3
    settle: float = 0.5
    limit: int = 20
    repair: bool = False

    @property
    def everything(self) -> bool:
        """No key is left out by name or place, so that functions belong to it."""
        return self.databases is None and self.match is None and self.only is None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is.

    Attributes:
        what: what is being done, for example ``comparing``.
        database: where.
        done: keys looked at so far; those of A and those of B count.
        total: keys to look at, as known at the start.
        differing: keys found to differ so far.
        waiting: keys that are to be looked at again.
        bytes: of values copied so far.
    """

    what: str
    database: int
    done: int
    total: int
    differing: int = 0
    waiting: int = 0
    bytes: int = 0


Tell: TypeAlias = Callable[[Progress], None]
"""Called often; what it does should take no time. What it raises ends the comparison or the copy."""
