"""What a comparison found. Pure.

Owns: the counts, the *Sync %* of them, and the form as JSON. Never: prints.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass, field, fields
from typing import Any

from redisha.verify.facts import Facts


@dataclass(slots=True)
class Counts:
    """Keys of one database, or of all, or libraries of functions.

    Attributes:
        same: on both, with the same type, value and expiry.
        different: on both, and not the same.
        only_a: on A only.
        only_b: on B only.
        in_flight: on both sides changing at every look, so that nothing can be said.
        repaired: of the different ones and those on one side: copied or deleted since, and found the same.
    """

    same: int = 0
    different: int = 0
    only_a: int = 0
    only_b: int = 0
    in_flight: int = 0
    repaired: int = 0

    @property
    def keys_a(self) -> int:
        """Keys found on A."""
        return self.same + self.different + self.only_a + self.in_flight

    @property
    def keys_b(self) -> int:
        """Keys found on B."""
        return self.same + self.different + self.only_b + self.in_flight

    @property
    def keys(self) -> int:
        """Keys found on at least one."""
        return self.keys_a + self.only_b

    @property
    def remaining(self) -> int:
        """Keys that differ at the end."""
        return self.different + self.only_a + self.only_b - self.repaired

    @property
    def sync(self) -> float:
        """Keys that do not differ at the end, in percent: 100 only if none does, else rounded down to two decimals."""
        if not self.remaining:
            return 100.0
        return math.floor((self.keys - self.remaining) * 10_000 / self.keys) / 100

    def add(self, other: Counts) -> None:
        """Add another's counts to these."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "keys_a": self.keys_a,
            "keys_b": self.keys_b,
            **{each.name: getattr(self, each.name) for each in fields(self)},
            "remaining": self.remaining,
            "sync_percent": self.sync,
        }


@dataclass(frozen=True, slots=True)
class Difference:
    """A key that differs, or a library of functions.

    Attributes:
        database: where it is; None for a library.
        key: the key, or the library's name.
        what: ``different``, ``only_a`` or ``only_b``.
        detail: in words what differs; of a key that only one has its type.
        repaired: it was copied, or deleted, and is the same now.
        error: why it could not be repaired; empty if it was not tried.
    """

    database: int | None
    key: bytes
    what: str
    detail: str = ""
    repaired: bool = False
    error: str = ""

    @property
    def text(self) -> str:
        """The key as text; bytes that are none are written in hexadecimal."""
        return self.key.decode(errors="backslashreplace")

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the key as text, and exactly, in base64."""
        place = {"library": self.text} if self.database is None else {"db": self.database, "key": self.text}
        return place | {
            "key_base64": base64.b64encode(self.key).decode(),
            "what": self.what,
            "detail": self.detail,
            "repaired": self.repaired,
            "error": self.error,
        }


@dataclass(slots=True)
class Report:
    """A comparison's result.

    Attributes:
        a: what A is.
        b: what B is.
        databases: number → counts, of every database that has keys.
        functions: libraries of functions; None when they were not compared.
        differences: the first of them.
        more: how many there are besides.
        notes: what the reader should know, each a sentence without a full stop.
        sampled: only some keys were looked at.
        repair: differences were to be repaired.
        seconds: how long it took.
    """

    a: Facts
    b: Facts
    databases: dict[int, Counts] = field(default_factory=dict)
    functions: Counts | None = None
    differences: list[Difference] = field(default_factory=list)
    more: int = 0
    notes: list[str] = field(default_factory=list)
    sampled: bool = False
    repair: bool = False
    seconds: float = 0.0

    @property
    def total(self) -> Counts:
        """All keys of all databases."""
        total = Counts()
        for counts in self.databases.values():
            total.add(counts)
        return total

    @property
    def equal(self) -> bool:
        """Nothing differs at the end."""
        return not self.total.remaining and not (self.functions and self.functions.remaining)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        total = self.total
        return {
            "equal": self.equal,
            **{
                name: {"address": side.address, "version": side.version, "role": side.role, "run_id": side.run_id}
                for name, side in (("a", self.a), ("b", self.b))
            },
            "databases": [{"db": number} | counts.as_dict() for number, counts in sorted(self.databases.items())],
            "functions": self.functions.as_dict() if self.functions is not None else None,
            "total": total.as_dict(),
            "differences": [each.as_dict() for each in self.differences],
            "more_differences": self.more,
            "notes": self.notes,
            "sampled": self.sampled,
            "repair": self.repair,
            "seconds": round(self.seconds, 3),
            "keys_per_second": round(total.keys / self.seconds) if self.seconds else 0,
        }
