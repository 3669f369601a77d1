"""What the data plane was told of the leadership, and whether it has done it yet."""

from __future__ import annotations

from collections.abc import Callable

from redisha.group.plane import GroupPlane
from redisha.group.status import GroupStatus

PATIENCE = 5
"""Heartbeats after which an order that cannot be seen to be done is forgotten: the data plane knew better."""


class Orders:
    """The orders to one data plane.

    Args:
        plane: the data plane.
        member: this member.
        heartbeat: seconds.
        clock: seconds.
    """

    def __init__(self, plane: GroupPlane, member: str, heartbeat: float, clock: Callable[[], float]) -> None:
        self._plane = plane
        self._member = member
        self._patience = PATIENCE * heartbeat
        self._clock = clock
        self._told: tuple[int, str] | None = None
        self._at = 0.0

    def give(self, term: int, leader: str) -> None:
        """This member leads that term, or another does; empty: nobody."""
        self._told, self._at = (term, leader), self._clock()
        if leader == self._member:
            self._plane.lead(term)
        else:
            self._plane.follow(term, leader)

    def pending(self, status: GroupStatus) -> bool:
        """Whether the newest order is not done yet: what would be decided on this status would be of the past."""
        me, told = status.me, self._told
        if told is None:
            return False
        done = me.term > told[0] or (me.term, me.leader) == told
        found_itself = me.term == told[0] and me.leader not in ("", me.member)
        if done or found_itself or self._clock() - self._at > self._patience:
            self._told = None
        return self._told is not None
