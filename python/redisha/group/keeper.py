"""The arbiter's record: renewed while this member leads, watched while its vote may become necessary."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from redisha.group.arbitration import Arbitration
from redisha.group.insync import InSync
from redisha.group.plane import GroupPlane
from redisha.group.status import Role
from redisha.group.view import View

log = logging.getLogger(__name__)

ROUNDS = 3
"""Rounds in the time of a lease: one or two may fail."""


class ArbiterKeeper:
    """What one member does about the arbiter beside elections.

    Args:
        plane: the data plane; it is told when a renewal succeeded.
        arbitration: the dealings with the arbiter.
        in_sync: the record of this member's leadership.
        look: gives the view of this moment.
        changed: is called when the arbiter may have told something new.
    """

    def __init__(
        self,
        plane: GroupPlane,
        arbitration: Arbitration,
        in_sync: InSync,
        look: Callable[[], View],
        changed: Callable[[], None],
    ) -> None:
        self._plane = plane
        self._arbitration = arbitration
        self._in_sync = in_sync
        self._look = look
        self._changed = changed
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """A leadership of this member begins: tell the arbiter at once."""
        self._woken.set()

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            self._woken.clear()
            lease = self._look().settings.lease_ms / 1000
            try:
                await self._round()
            except Exception:  # The next round may succeed; without any the lease would end.
                log.exception("a round of questions to the arbiter failed")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(lease / ROUNDS):
                    await self._woken.wait()

    async def _round(self) -> None:
        view = self._look()
        if not view.arbiter_votes:
            return
        if view.me.role is Role.LEADER and self._in_sync.term == view.me.term:
            if await self._arbitration.renew(lambda: self._in_sync.arbiters(view.me.member)):
                self._plane.arbiter_beat(self._arbitration.renewed_ms)
            else:
                self._changed()
        elif self._is_of_interest(view):
            await self._arbitration.look()
            self._changed()

    def _is_of_interest(self, view: View) -> bool:
        """Whether the leader may be gone. The record has been watched for a lease by the time when that is certain."""
        late = view.settings.heartbeat_ms * 3 // 2
        return view.leader is None or view.leader.silent_ms > late or not self._arbitration.up
