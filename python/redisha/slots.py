"""A Redis Cluster's slot map: read from what its nodes say, and agreed on where they differ. Pure.

Owns: what ``CLUSTER SLOTS`` and ``CLUSTER INFO`` mean, and which of several answers counts.
Never: asks; :mod:`redisha.slotwatch` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from redisha.config.scalars import Tcp

SLOTS = 16_384


@dataclass(frozen=True, slots=True, order=True)
class Node:
    """A node of the cluster.

    Attributes:
        id: ``host:port`` as the nodes call it, which is its identity from map to map.
        address: where to connect, ``ip:port``.
    """

    id: str
    address: str


@dataclass(frozen=True, slots=True)
class Range:
    """A run of slots and who has them."""

    first: int
    last: int
    master: Node
    replicas: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class SlotMap:
    """Who has which slots, in the order of the slots; slots of nobody are left out."""

    ranges: tuple[Range, ...]

    @property
    def masters(self) -> tuple[Node, ...]:
        """Those who have slots, in the order of their first one, so that a successor takes its master's place."""
        return tuple(dict.fromkeys(each.master for each in self.ranges))

    @property
    def replicas(self) -> tuple[Node, ...]:
        """Those who have copies only."""
        return tuple(dict.fromkeys(node for each in self.ranges for node in each.replicas))

    @property
    def covered(self) -> int:
        """How many slots have a master."""
        return sum(each.last - each.first + 1 for each in self.ranges)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one node says.

    Attributes:
        map: its map.
        is_ok: whether it counts itself as part of a cluster that works; one that is cut off does not.
        epoch: the newest configuration that it has heard of.
    """

    map: SlotMap
    is_ok: bool = True
    epoch: int = 0


def agree(answers: Iterable[Answer]) -> SlotMap | None:
    """The map to use of what several nodes say; None if none of them has any slot.

    What a node says that is cut off from the others counts only if all are. Of the others the map with the newest epoch
    counts: a slot that moved to another node, or a replica that took over, made a new one. Of maps that are as new the
    one that most give counts.
    """
    known = [each for each in answers if each.map.ranges]
    known = [each for each in known if each.is_ok] or known
    if not known:
        return None
    votes: dict[SlotMap, tuple[int, int]] = {}
    for each in known:
        epoch, count = votes.get(each.map, (0, 0))
        votes[each.map] = (max(epoch, each.epoch), count + 1)
    return max(votes, key=lambda each: votes[each])


def read_slots(reply: object, asked: Tcp) -> SlotMap:
    """The map in a reply to ``CLUSTER SLOTS``.

    Args:
        reply: as the core's reader gives it.
        asked: the address of who said so, which may leave its own out.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(reply, list):
        raise ValueError(f"not a slot map: {reply!r:.80}")  # noqa: TRY004 - one error for every wrong form
    ranges = []
    for each in reply:
        match each:
            case [int(first), int(last), list(master), *replicas] if 0 <= first <= last < SLOTS:
                # One without an address is not known to anybody yet.
                nodes = [node for node in (_node(one, asked) for one in replicas) if node is not None]
                owner = _node(master, asked)
                if owner is not None:
                    ranges.append(Range(first, last, owner, tuple(sorted(nodes))))
            case _:
                raise ValueError(f"not a range of slots: {each!r:.80}")
    return SlotMap(_joined(sorted(ranges, key=lambda each: each.first)))


def _node(fields: object, asked: Tcp) -> Node | None:
    """A node: what it is to be called, its port, its id, and what else is known of it (Redis 7)."""
    match fields:
        case [name, int(port), *rest] if 0 < port < 65_536:
            pass
        case _:
            raise ValueError(f"not a node: {fields!r:.80}")
    host = name.decode(errors="replace") if isinstance(name, bytes) else ""
    host = asked.host if host in ("", "?") else host
    if Tcp(host, port).is_ip:
        return Node(str(Tcp(host, port)), str(Tcp(host, port)))
    more = rest[1] if len(rest) > 1 and isinstance(rest[1], list) else []
    ip = next((value for key, value in zip(more[::2], more[1::2], strict=False) if key == b"ip"), None)
    at = Tcp(ip.decode(errors="replace"), port) if isinstance(ip, bytes) else None
    return Node(str(Tcp(host, port)), str(at)) if at is not None and at.is_ip else None


def _joined(ranges: Sequence[Range]) -> tuple[Range, ...]:
    """Neighbours of the same nodes as one, so that equal maps look equal."""
    found: list[Range] = []
    for each in ranges:
        before = found[-1] if found else None
        if before and (before.last + 1, before.master, before.replicas) == (each.first, each.master, each.replicas):
            found[-1] = Range(before.first, each.last, each.master, each.replicas)
        else:
            found.append(each)
    return tuple(found)


def read_info(reply: object) -> tuple[bool, int]:
    """From a reply to ``CLUSTER INFO``: whether the node is part of a cluster that works, and its newest epoch."""
    if not isinstance(reply, bytes):
        return True, 0  # it may not tell: then its map is as good as any
    pairs = dict(line.partition(":")[::2] for line in reply.decode(errors="replace").splitlines())
    epoch = pairs.get("cluster_current_epoch", "")
    return pairs.get("cluster_state") != "fail", int(epoch) if epoch.isdecimal() else 0
