"""Dynomite's levels of consistency and those of a group."""

from typing import Literal, TypeAlias

Which: TypeAlias = Literal["read", "write"]

LEVELS = ("DC_ONE", "DC_QUORUM", "DC_SAFE_QUORUM", "DC_EACH_SAFE_QUORUM")

_NATIVE: dict[Which, dict[str, str]] = {
    "read": {"DC_ONE": "one", "DC_QUORUM": "leader", "DC_SAFE_QUORUM": "leader", "DC_EACH_SAFE_QUORUM": "leader"},
    "write": {"DC_ONE": "one", "DC_QUORUM": "quorum", "DC_SAFE_QUORUM": "quorum", "DC_EACH_SAFE_QUORUM": "all"},
}

# Of two levels that become one, the stronger: that is what is kept.
_SPOKEN: dict[Which, dict[str, str]] = {
    "read": {"one": "DC_ONE", "leader": "DC_SAFE_QUORUM"},
    "write": {"one": "DC_ONE", "quorum": "DC_SAFE_QUORUM", "all": "DC_EACH_SAFE_QUORUM"},
}

_MEANING: dict[Which, dict[str, str]] = {
    "read": {
        "one": "this member's own Redis answers",
        "leader": "the answer is the leader's, and knows every write that was acknowledged before",
    },
    "write": {
        "one": "the leader's Redis has a write when it is acknowledged, and all members get it in the same order",
        "quorum": "a majority of the members in sync, whatever their datacenter, has a write when it is acknowledged",
        "all": "every member in sync, whatever its datacenter, has a write when it is acknowledged",
    },
}

_INSTEAD = {
    "DC_QUORUM": "Dynomite counts the racks of its own datacenter, and gives the first answer even if others differ",
    "DC_SAFE_QUORUM": "Dynomite counts the racks of its own datacenter, and fails where their answers differ; here "
    "they do not",
    "DC_EACH_SAFE_QUORUM": "Dynomite counts the racks of each datacenter, and fails where their answers differ; here "
    "they do not",
}


def to_native(which: Which, level: str) -> str:
    """The group's level for one of :data:`LEVELS`.

    Raises:
        KeyError: Dynomite has no such level.
    """
    return _NATIVE[which][level]


def from_native(which: Which, level: str) -> str:
    """One of :data:`LEVELS` for a group's level.

    Raises:
        KeyError: groups have no such level.
    """
    return _SPOKEN[which][level]


def explanation(which: Which, level: str) -> str:
    """What becomes of one of :data:`LEVELS`, and how that differs from Dynomite."""
    native = to_native(which, level)
    instead = f" ({_INSTEAD[level]})" if level in _INSTEAD else ""
    return f"{level} becomes {which}_consistency: {native}: {_MEANING[which][native]}{instead}"
