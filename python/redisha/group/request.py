"""What an operator asks of the leadership, at whichever member: the checks, and the way to the leader.

Owns: the refusals in an operator's words. Never: hands over itself; the leader's council does.

::

    POST /leader at a follower ─▶ Requests.lead ─ hand_over, to ─▶ the leader's Requests.answer ─▶ its council
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from redisha.admin import UnknownMemberError
from redisha.group.handover import HandOverError
from redisha.group.plane import GroupPlane, PeerError
from redisha.group.status import GroupStatus, PeerStatus, Role
from redisha.group.view import others

TYPE = "hand_over"
"""The type of the question; its version is that of the councils' language."""

VERSION = 1

PATIENCE = 15.0
"""Seconds for the leader's answer: longer than any hand-over takes."""

_BUSY = ("", "in_sync", "catching_up", "connecting")
"""States of a replica that may end in a moment; in any other the member does not have everything, and will not soon."""


class Requests:
    """The requests at one member.

    Args:
        plane: the data plane.
        hand_over: lets another member lead, where this one does; see :meth:`redisha.group.council.Council.hand_over`.
    """

    def __init__(self, plane: GroupPlane, hand_over: Callable[[str | None], Awaitable[str]]) -> None:
        self._plane = plane
        self._hand_over = hand_over

    async def lead(self, to: str) -> str:
        """Let a member lead.

        Returns:
            Who leads now.

        Raises:
            UnknownMemberError: there is no such member.
            HandOverError: it was not handed over; says why.
        """
        status = self._plane.status()
        _check_known(status, to)
        leader = status.me.leader if status.me.role is not Role.NONE else ""
        if not leader:
            raise HandOverError("no member leads at the moment: there is nothing to hand over")
        if leader == to:
            raise HandOverError(f"{to} leads already, term {status.me.term}")
        if status.me.role is Role.LEADER:
            _check_in_sync(status, to)
            return await self._hand_over(to)
        return await self._ask(status, leader, to)

    async def _ask(self, status: GroupStatus, leader: str, to: str) -> str:
        peer = _peer(status, leader)
        if peer is None:
            raise HandOverError(f"{leader} leads, and is not heard from here: ask at its own admin server")
        try:
            answer = await self._plane.ask(peer.id, {"type": TYPE, "v": VERSION, "to": to}, PATIENCE)
        except PeerError as error:
            raise HandOverError(f"{leader} leads, and does not answer: {error}") from error
        if "leader" in answer:
            return str(answer["leader"])
        raise HandOverError(str(answer.get("reason") or answer.get("error") or f"{leader} does not say why"))

    async def answer(self, message: dict[str, object]) -> dict[str, object] | None:
        """The answer to another member's request; None: it is a question for the council."""
        if message.get("type") != TYPE:
            return None
        if message.get("v") != VERSION:
            return {"reason": "it is of another version: run the same redisha everywhere"}
        if self._plane.status().me.role is not Role.LEADER:
            return {"reason": "who was asked leads no more: ask again"}
        try:
            return {"leader": await self.lead(str(message.get("to")))}
        except (UnknownMemberError, HandOverError) as error:
            return {"reason": str(error)}


def _check_known(status: GroupStatus, name: str) -> None:
    known = sorted(each for each in (status.me.member, *(peer.status.member for peer in others(status))) if each)
    if name in known:
        return
    unheard = sum(not peer.status.member for peer in others(status))
    more = f", and {unheard} that was never heard" if unheard else ""
    raise UnknownMemberError(f"group {status.name} has no member '{name}'; known: {', '.join(known)}{more}")


def _check_in_sync(status: GroupStatus, name: str) -> None:
    peer = _peer(status, name)
    if peer is None or not peer.up:
        raise HandOverError(f"{name} is down{f': {peer.reason}' if peer is not None and peer.reason else ''}")
    if name not in status.counted and peer.replica not in _BUSY:
        raise HandOverError(f"{name} is not in sync: it is {peer.replica}, and lacks {peer.lag:,} effects")


def _peer(status: GroupStatus, name: str) -> PeerStatus | None:
    return next((peer for peer in others(status) if peer.status.member == name), None)
