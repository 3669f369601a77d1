"""What an operator is told of the leadership: one line for each change, and for each reason why there can be none."""

from __future__ import annotations

import logging

from redisha.group.decision import Decision, Refuse, Wait
from redisha.group.skew import is_skewed, skew_text
from redisha.group.status import PeerStatus, Role
from redisha.group.view import View

log = logging.getLogger(__name__)


class News:
    """What one member has told so far."""

    def __init__(self) -> None:
        self._leadership = (0, "")
        self._refused = ""
        self._skewed: set[str] = set()

    def tell(self, view: View, decision: Decision) -> None:
        """Tell what has changed since the last time."""
        group, me = view.status.name, view.me
        leader = view.leader.status.member if view.leader is not None else ""
        if me.role is Role.LEADER:
            leader = me.member
        leadership = (me.term, leader) if leader else (0, "")
        refused = decision.reason if isinstance(decision, Refuse) else ""
        if leadership != self._leadership and leader:
            log.info("group %s: %s leads, term %d", group, "this member" if leader == me.member else leader, me.term)
        elif leadership != self._leadership and not refused:
            reason = decision.reason if isinstance(decision, Wait) else "an election is held"
            log.warning("group %s: no member leads: %s", group, reason)
        if refused and refused != self._refused:
            log.error("group %s: %s", group, refused)
        self._leadership, self._refused = leadership, refused
        for peer in view.alive:
            self._tell_skew(group, peer)

    def _tell_skew(self, group: str, peer: PeerStatus) -> None:
        name, skewed = peer.status.member, is_skewed(peer.skew_ms)
        if skewed and name not in self._skewed:
            self._skewed.add(name)
            log.error(
                "group %s: the clock of %s is %s: keys expire at the wrong time, and should both lead, the wrong write "
                "would stay; let both machines set their clocks (NTP)",
                group,
                name,
                skew_text(peer.skew_ms),
            )
        elif not skewed and name in self._skewed:
            self._skewed.discard(name)
            log.info("group %s: the clock of %s agrees with this member's again", group, name)
