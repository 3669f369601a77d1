"""The leadership goes to another member while this one is well: nobody has to notice that anybody is gone.

::

    somebody is in sync ─▶ yield: no more commands, the log goes on ─▶ it has everything, and knows who else has
                                                                          └─▶ ask it to take over
                                    its leadership is seen here ◀─ it is elected, with the vote of this member ◀─┘
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from redisha import failover
from redisha.group import messages
from redisha.group.messages import MessageError
from redisha.group.plane import GroupPlane, PeerError
from redisha.group.status import PeerStatus, Role
from redisha.group.view import View

log = logging.getLogger(__name__)

LOOK = 0.01
"""Seconds between two looks at the status, while clients wait."""

SEAL = 0.2
"""Seconds that clients wait at most only so that nobody's data needs to be looked at afterwards."""


class HandOverError(Exception):
    """The leadership was not handed over to whom it should be; says why, and who leads now if another does."""


async def hand_over(plane: GroupPlane, look: Callable[[], View], to: str | None, patience: float) -> str:
    """Hand the leadership of this member over.

    Args:
        plane: the data plane.
        look: gives the view of this moment.
        to: the successor; None: any that has everything, the lowest name first.
        patience: seconds for a successor to be in sync, and again for its leadership to be seen. Clients wait only from
            the one to the other, and no longer than an election timeout for the successor to catch up.

    Returns:
        Who leads now.

    Raises:
        HandOverError: it was not handed over.
    """
    view = look()
    me = view.me
    if me.role is not Role.LEADER:
        return _not_leading(view, to)
    if to == me.member:
        return to
    names = sorted(peer.status.member for peer in view.alive)
    if not names or (to is not None and to not in names):
        raise HandOverError(f"{to or 'no other member'} is not heard; heard are: {', '.join(names) or 'none'}")
    heir = await _yield(plane, look, to, patience)
    try:
        limit = view.settings.election_timeout_ms / 1000
        refusal, term = messages.read_taken_over(await plane.ask(heir.id, messages.take_over(me.term), limit))
    except (PeerError, MessageError, asyncio.CancelledError) as error:
        # The other may have been elected, or be about to be: this member must not go on.
        plane.follow(me.term, "")
        if isinstance(error, asyncio.CancelledError):
            raise
        log.warning("%s did not answer whether it takes over: %s; this member steps down", heir.status.member, error)
    else:
        if refusal:
            plane.yield_lead(False)
            raise HandOverError(f"{heir.status.member} does not take over: {refusal}")
        plane.follow(term, heir.status.member)
    leader = await _successor(look, patience)
    if to is not None and leader != to:
        raise HandOverError(f"{to} was not elected; {leader} leads now")
    return leader


def _not_leading(view: View, to: str | None) -> str:
    leader = view.leader.status.member if view.leader is not None else ""
    if leader and to in (None, leader):
        return leader
    if not leader:
        raise HandOverError("no member leads at the moment")
    raise HandOverError(f"this member does not lead: ask {leader}, which does")


async def _yield(plane: GroupPlane, look: Callable[[], View], to: str | None, patience: float) -> PeerStatus:
    """Wait for a successor that has everything but what is on its way; then take no more commands until it has that."""
    try:
        async with asyncio.timeout(patience):
            # What is still shown of a hand-over before this one tells nothing: commands were taken since.
            while look().status.yielding or not _heirs(look(), to, caught_up=False):  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(LOOK)
    except TimeoutError:
        raise HandOverError(f"no successor has everything: {_lacking(look(), to)}") from None
    plane.yield_lead(True)
    loop = asyncio.get_running_loop()
    sealing_until = loop.time() + SEAL
    try:
        async with asyncio.timeout(look().settings.election_timeout_ms / 1000):  # Clients wait.
            while True:
                view = look()
                names = _heirs(view, to, caught_up=True) if view.status.yielding else []
                heirs = [peer for name in names for peer in view.others if peer.status.member == name]
                sealed = [peer for peer in heirs if peer.sealed]
                if sealed or (heirs and loop.time() >= sealing_until):
                    return (sealed or heirs)[0]
                await asyncio.sleep(LOOK)
    except TimeoutError:
        plane.yield_lead(False)
        raise HandOverError(f"no successor caught up: {_lacking(look(), to)}; this member goes on") from None
    except BaseException:
        plane.yield_lead(False)
        raise


def _heirs(view: View, to: str | None, caught_up: bool) -> list[str]:
    if view.me.role is not Role.LEADER:
        raise HandOverError(f"{view.me.leader or 'nobody'} leads by now")
    return [name for name in failover.heirs(view, caught_up) if to in (None, name)]


def _lacking(view: View, to: str | None) -> str:
    others = [peer for peer in view.others if to in (None, peer.status.member)]
    return ", ".join(f"{peer.status.member or peer.id} lacks {peer.lag} effects ({_state(peer)})" for peer in others)


def _state(peer: PeerStatus) -> str:
    return peer.replica or peer.reason or "not heard"


async def _successor(look: Callable[[], View], patience: float) -> str:
    try:
        async with asyncio.timeout(patience):
            while True:
                me = look().me
                if me.role is not Role.LEADER and me.leader not in ("", me.member):
                    return me.leader
                await asyncio.sleep(LOOK)
    except TimeoutError:
        raise HandOverError("this member leads no more, and no other is seen to lead yet") from None
