"""What an operator is told of the leadership: one line for each change, and for each reason why there can be none."""

from __future__ import annotations

import logging

from redisha.group.decision import Decision, Refuse, Wait
from redisha.group.status import Role
from redisha.group.view import View

log = logging.getLogger(__name__)


class News:
    """What one member has told so far."""

    def __init__(self) -> None:
        self._leadership = (0, "")
        self._refused = ""

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
