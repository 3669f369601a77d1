"""The times that decisions about the leadership depend on.

Owns: when something of importance was first or last so. Everything comes from one clock that is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from redisha.group.status import GroupStatus, Role
from redisha.group.view import NEVER, Settings, View

COMPLAINT = 10.0
"""Seconds between two complaints about a disk that cannot be written."""


class Timers:
    """The times of one member.

    Args:
        clock: seconds.
        settings: of the group.
    """

    def __init__(self, clock: Callable[[], float], settings: Settings) -> None:
        self._clock = clock
        self._settings = settings
        self._started = clock()
        self._stood: float | None = None
        self._leadership = (0, "")
        self._settled = self._started
        self._vacant: float | None = None
        self._led: float | None = None
        self._overtaken: float | None = None
        self._complained: float | None = None
        self._handed: float | None = None

    def settled_ms(self, status: GroupStatus) -> int:
        """Since when this member's term and leader are what they are; a change of them is noted."""
        now, leadership = self._clock(), (status.me.term, status.me.leader)
        if leadership != self._leadership:
            self._leadership, self._settled = leadership, now
        return _ms(now, self._settled)

    def fill(self, view: View) -> View:
        """The same view with the other times; what it shows is noted for the next ones."""
        now = self._clock()
        leads = view.me.role is Role.LEADER
        self._led = _since(self._led, leads, now)
        self._vacant = _since(self._vacant, not leads and view.leader is None, now)
        overtaken = leads and any(peer.status.term > view.me.term for peer in view.alive)
        self._overtaken = _since(self._overtaken, overtaken, now)
        return replace(
            view,
            since_start_ms=_ms(now, self._started),
            since_stand_ms=NEVER if self._stood is None else _ms(now, self._stood),
            vacant_ms=_ms(now, self._vacant),
            leading_ms=_ms(now, self._led),
            overtaken_ms=_ms(now, self._overtaken),
        )

    def stood(self) -> None:
        """It stood for election, or voted: others get time to tell of the outcome."""
        self._stood = self._clock()

    def may_complain(self) -> bool:
        """Whether to complain again; it is noted as done."""
        now = self._clock()
        if self._complained is not None and now - self._complained < COMPLAINT:
            return False
        self._complained = now
        return True

    def may_hand_over(self) -> bool:
        """Whether to try to hand over again; it is noted as done."""
        now = self._clock()
        if self._handed is not None and now - self._handed < self._settings.election_timeout_ms / 1000:
            return False
        self._handed = now
        return True


def _since(before: float | None, holds: bool, now: float) -> float | None:
    """Since when something holds; None: it does not."""
    if not holds:
        return None
    return now if before is None else before


def _ms(now: float, since: float | None) -> int:
    return 0 if since is None else int((now - since) * 1000)
