"""What may be decided about the leadership of a group: one value each, with what it takes to do it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Wait:
    """Change nothing; ``reason`` says in words what is waited for, or that all is well."""

    reason: str


@dataclass(frozen=True, slots=True)
class Lead:
    """Lead this term without an election: alone, or because of two leaders of one term this one stays."""

    term: int


@dataclass(frozen=True, slots=True)
class Stand:
    """Ask the others for their votes for this term.

    Attributes:
        term: above all that are known.
        pre_approved: the leader asked for it: they need not be asked first whether they would vote.
    """

    term: int
    pre_approved: bool = False


@dataclass(frozen=True, slots=True)
class Follow:
    """Follow this leader in its term."""

    term: int
    leader: str


@dataclass(frozen=True, slots=True)
class StepDown:
    """Lead no more."""

    reason: str


@dataclass(frozen=True, slots=True)
class HandOver:
    """Give the leadership to this member, which has everything."""

    to: str


@dataclass(frozen=True, slots=True)
class RecordInSync:
    """Have it recorded that these members have everything, before it counts."""

    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refuse:
    """Nobody can lead, or this member cannot follow, until an operator has done something; ``reason`` says what."""

    reason: str


Decision: TypeAlias = Wait | Lead | Stand | Follow | StepDown | HandOver | RecordInSync | Refuse
