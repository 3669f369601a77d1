"""The part of a member that deals with the leadership: it looks, has it decided, and does it.

Owns: the member's ballot, its dealings with the arbiter, and the times that a decision depends on.
Never: decides; :mod:`redisha.failover` does. Is on a client's way.

::

    plane.status() ─▶ View ─▶ failover.decide ─▶ Stand ─▶ election ─▶ plane.lead       others ─▶ on_message ─▶ votes
         ▲ each half heartbeat, and when woken ├─ Lead, Follow, StepDown ─▶ plane                records, take-overs
         └─────────────────────────────────────┴─ HandOver, RecordInSync ─▶ handover, insync
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace

from redisha import failover
from redisha.group import decision as decided
from redisha.group.answers import Answers
from redisha.group.arbiter import Arbiter
from redisha.group.arbitration import Arbitration
from redisha.group.ballot import BallotBox, BallotError
from redisha.group.election import Election
from redisha.group.handover import HandOverError, hand_over
from redisha.group.insync import InSync
from redisha.group.keeper import ArbiterKeeper
from redisha.group.news import News
from redisha.group.orders import Orders
from redisha.group.plane import GroupPlane
from redisha.group.status import Role
from redisha.group.timers import Timers
from redisha.group.view import BallotState, Settings, View
from redisha.group.vote import remembered

log = logging.getLogger(__name__)

PATIENCE = 5.0
"""Seconds that a hand-over waits for a successor to be in sync."""


def since_boot() -> float:
    """Seconds of a clock that goes on while the machine sleeps: a lease does, too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Council:
    """What one member does about the leadership of its group.

    Args:
        plane: the data plane.
        box: this member's ballot.
        settings: of the group.
        arbiter: the third party; None: there is none.
        clock: seconds.

    Attributes:
        decision: the newest.
    """

    def __init__(
        self,
        plane: GroupPlane,
        box: BallotBox,
        settings: Settings,
        arbiter: Arbiter | None = None,
        clock: Callable[[], float] = since_boot,
    ) -> None:
        self._plane = plane
        self._box = box
        self._settings = settings
        arbitration = Arbitration(arbiter, settings.lease_ms / 2000, clock) if arbiter is not None else None
        self._arbitration = arbitration
        self._timers = Timers(clock, settings)
        self._orders = Orders(plane, box.member, settings.heartbeat_ms / 1000, clock)
        self._in_sync = InSync(plane, box, arbitration, clock)
        self._election = Election(plane, self._orders, box, arbitration, self._in_sync, self.look, clock)
        self._keeper = ArbiterKeeper(plane, arbitration, self._in_sync, self.look, self.wake) if arbitration else None
        self._answers = Answers(box, self.look, self._stand, self._voted)
        self._standing = asyncio.Lock()
        self._handing_over = asyncio.Lock()
        self._woken = asyncio.Event()
        self._news = News()
        self.decision: decided.Decision = decided.Wait("starting")

    # --- the loop -----------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Something has changed: decide anew, soon."""
        self._woken.set()

    async def run(self) -> None:
        """Take part until cancelled."""
        if self._box.warning:
            log.warning("%s", self._box.warning)
        # The others are told of the term that this member knew before it was started, and who led it is not known now.
        self._plane.follow(self._box.state.term, "")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._go_on())
            if self._keeper is not None:
                tasks.create_task(self._keeper.run())

    async def _go_on(self) -> None:
        while True:
            self._woken.clear()
            try:
                await self.step()
            except Exception:  # A member that decides nothing more would be worse.
                log.exception("a step of the group's election failed")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.heartbeat_ms / 2000):
                    await self._woken.wait()

    async def step(self) -> decided.Decision:
        """Look, decide, and do it."""
        view = self.look()
        if self._standing.locked():
            return decided.Wait("an election is being held")
        if self._orders.pending(view.status):
            return decided.Wait("the data plane is about to change its leadership")
        noted = remembered(view)
        if noted != view.ballot and self._save(noted):
            view = replace(view, ballot=noted)
        self.decision = failover.decide(view)
        self._news.tell(view, self.decision)
        await self._act(self.decision, view)
        return self.decision

    async def _act(self, decision: decided.Decision, view: View) -> None:
        match decision:
            case decided.Stand():
                await self._stand(decision.term, decision.pre_approved)
            case decided.Lead():
                self._lead_unelected(decision.term, view)
            case decided.Follow():
                self._orders.give(decision.term, decision.leader)
            case decided.StepDown():
                log.warning("group %s: this member leads no more: %s", view.status.name, decision.reason)
                self._orders.give(view.me.term, "")
            case decided.HandOver():
                await self._give_to(decision.to)
            case decided.RecordInSync():
                await self._in_sync.record(decision.members, view)

    # --- what is known ------------------------------------------------------------------------------------------------

    def look(self) -> View:
        """The view of this moment."""
        status = self._plane.status()
        arbitration = self._arbitration
        recorded = self._in_sync.confirmed
        if status.me.role is not Role.LEADER:
            newest = self._election.newest_record()
            recorded = newest.members if newest is not None else None
        view = View(
            status=status,
            settings=self._settings,
            ballot=self._box.state,
            record=arbitration.record if arbitration is not None else None,
            record_age_ms=arbitration.age_ms if arbitration is not None else 0,
            arbiter_up=arbitration is not None and arbitration.up,
            arbiter_ms=arbitration.renewed_ms if arbitration is not None else 0,
            settled_ms=self._timers.settled_ms(status),
            recorded=recorded,
            untrusted=self._election.untrusted(self._settings.start_wait_ms / 1000),
            seen_term=self._election.seen_term,
        )
        return self._timers.fill(view)

    def _save(self, state: BallotState) -> bool:
        try:
            self._box.save(state)
        except BallotError as error:
            if self._timers.may_complain():
                log.error("%s", error)  # noqa: TRY400 - the text says it all
            return False
        return True

    # --- what is done -------------------------------------------------------------------------------------------------

    def _voted(self, term: int) -> None:
        """This member has voted for another: it leaves the term before, and gives that one time."""
        self._timers.stood()
        self._orders.give(term, "")

    async def _stand(self, term: int, leader_yields: bool = False) -> str:
        """Stand for election, and lead; says why it does not lead, or nothing."""
        if self._standing.locked():
            return "it stands for election already"
        async with self._standing:
            self._timers.stood()
            reason = await self._election.stand(term, leader_yields)
            if not reason and not self._save(replace(self._box.state, founded=True, trusted=True)):
                reason = "its ballot cannot be written"
            if reason:
                log.info("not elected for term %d: %s", term, reason)
                return reason
            self._lead(term)
        return ""

    def _lead_unelected(self, term: int, view: View) -> None:
        """Lead alone. The term is on disk first: no other member gets this one's vote for it."""
        state = replace(self._box.state, term=term, voted_for=view.me.member, founded=True, fresh=False)
        if self._save(state):
            self._timers.stood()
            self._in_sync.start(term)
            self._lead(term)

    def _lead(self, term: int) -> None:
        view = self.look()
        me = view.me.member
        self._orders.give(term, me)
        if view.arbiter_votes and view.record is not None and (view.record.term, view.record.leader) == (term, me):
            self._plane.arbiter_beat(view.arbiter_ms)
        if self._keeper is not None:
            self._keeper.wake()

    async def _give_to(self, member: str) -> None:
        if not self._timers.may_hand_over():
            return
        try:
            await self.hand_over(member, self._settings.election_timeout_ms / 1000)
        except HandOverError as error:
            log.warning("the leadership was not handed over: %s", error)

    async def hand_over(self, to: str | None, patience: float = PATIENCE) -> str:
        """Hand the leadership over, see :func:`redisha.group.handover.hand_over`.

        Args:
            to: the successor; None: any that has everything.
            patience: seconds for a successor to be in sync.

        Returns:
            Who leads now.

        Raises:
            HandOverError: it was not handed over to that one; says why.
        """
        if self._handing_over.locked() and to is not None:
            raise HandOverError("the leadership is being handed over already")
        async with self._handing_over:
            return await hand_over(self._plane, self.look, to, patience)

    async def on_message(self, member: str, message: dict[str, object]) -> dict[str, object]:
        """Answer the council of another member; :mod:`redisha.group.messages` has what they say."""
        return await self._answers.answer(member, message)
