"""An election: votes are asked for, counted, and the arbiter's is had where it is needed.

Owns: the order of things that keeps two from being elected in one term: ask whether there would be a majority, write
the own vote to disk, leave the old term, ask for the votes; then have the in-sync members recorded in the new term.
Never: decides to stand, nor tells the data plane to lead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace

from redisha.group import messages, vote
from redisha.group.arbiter import Record
from redisha.group.arbitration import Arbitration
from redisha.group.ballot import BallotBox, BallotError
from redisha.group.insync import InSync
from redisha.group.messages import MessageError, VoteAnswer
from redisha.group.orders import Orders
from redisha.group.plane import GroupPlane, PeerError
from redisha.group.polling import ask_all
from redisha.group.status import PeerStatus, Role
from redisha.group.view import Recorded, View


class Election:
    """What one member does to be elected.

    Args:
        plane: the data plane.
        orders: what it is told of leaderships.
        box: this member's ballot.
        arbitration: its dealings with the arbiter; None: there is none.
        in_sync: the record of its leadership.
        look: gives the view of this moment.
        clock: seconds.

    Attributes:
        seen_term: the newest term that another member named in an answer.
    """

    def __init__(
        self,
        plane: GroupPlane,
        orders: Orders,
        box: BallotBox,
        arbitration: Arbitration | None,
        in_sync: InSync,
        look: Callable[[], View],
        clock: Callable[[], float],
    ) -> None:
        self._plane = plane
        self._orders = orders
        self._box = box
        self._arbitration = arbitration
        self._in_sync = in_sync
        self._look = look
        self._clock = clock
        self._mute: dict[str, float] = {}
        self.seen_term = 0

    def untrusted(self, seconds: float) -> frozenset[str]:
        """Members that said in the last ``seconds`` that they do not vote."""
        now = self._clock()
        return frozenset(name for name, at in self._mute.items() if now - at < seconds)

    def newest_record(self) -> Recorded | None:
        """The newest record of the in-sync members that this member or the arbiter has."""
        record = self._arbitration.record if self._arbitration is not None else None
        theirs = Recorded(record.term, record.beat, record.in_sync) if record is not None and record.in_sync else None
        return vote.newer(self._box.state.recorded, theirs)

    async def stand(self, term: int, leader_yields: bool = False) -> str:
        """Stand for election.

        Args:
            term: above all that are known.
            leader_yields: the leader asked for it.

        Returns:
            Why this member was not elected; empty: it was, and should lead the term now.
        """
        if not leader_yields:
            reason = await self._would_win(term)
            if reason:
                return reason
        view = self._look()
        data = view.me.data
        reason = self._vote_for_itself(view, term, leader_yields)
        if reason:
            return reason
        # From here on this member is in the new term: what the old leader still sends does not reach its Redis.
        self._orders.give(term, "")
        own = int(self._box.state.trusted)
        votes, reason = await self._ask(
            view, self._request(view, term, leader_yields=leader_yields), view.majority - own
        )
        if votes + own < view.majority and not await self._arbiters_vote(view, term, votes + own):
            return reason
        if not await self._in_sync.begin(term, self.newest_record(), view):
            return "the in-sync members could not be recorded"
        view = self._look()
        state = self._box.state
        if (state.term, state.voted_for) != (term, view.me.member) or view.me.term > term:
            return "another term began meanwhile"
        if view.me.data is not data:
            return "this member's Redis was lost meanwhile"
        return ""

    async def _would_win(self, term: int) -> str:
        view = self._look()
        request = self._request(view, term, pre=True)
        answer = vote.ballot(self._box.state, request, view)
        if not answer.granted and answer.trusted:
            return f"this member would not vote for itself: {answer.reason}"
        needed = view.majority - answer.granted - self._arbiter_would(view)
        votes, reason = await self._ask(view, request, needed)
        view = self._look()
        if view.leader is not None and view.me.role is not Role.LEADER:
            return "another leads by now"
        return "" if votes >= needed else reason

    def _vote_for_itself(self, view: View, term: int, leader_yields: bool) -> str:
        """Put the own vote on disk.

        Returns:
            Why this member cannot stand.
        """
        answer = vote.ballot(self._box.state, self._request(view, term, leader_yields=leader_yields), view)
        state = answer.state
        if not answer.granted:
            if answer.trusted:
                return f"this member would not vote for itself: {answer.reason}"
            # It may be elected by others; its own vote does not count, and never was given twice.
            state = replace(state, term=term, voted_for=view.me.member, fresh=False)
        try:
            self._box.save(state)
        except BallotError as error:
            return str(error)
        return ""

    def _request(self, view: View, term: int, pre: bool = False, leader_yields: bool = False) -> vote.VoteRequest:
        me = view.me
        return vote.VoteRequest(
            term=term,
            member=me.member,
            data=me.data,
            data_set=me.data_set,
            position=me.position,
            pre=pre,
            leader_yields=leader_yields,
            recorded=self.newest_record(),
        )

    # --- the others' votes --------------------------------------------------------------------------------------------

    async def _ask(self, view: View, request: vote.VoteRequest, needed: int) -> tuple[int, str]:
        """Ask all others at once; ends as soon as there are votes enough.

        Returns:
            How many votes were given, and why no more were.
        """
        reachable = [peer for peer in view.others if peer.up or peer in view.alive]
        limit = view.settings.election_timeout_ms / 2000
        votes, refusals = await ask_all([self._ask_one(peer, request, limit) for peer in reachable], needed)
        refusals += [f"{_name(peer)} is not there" for peer in view.others if peer not in reachable]
        return votes, "; ".join(refusals) or "votes are missing"

    async def _ask_one(self, peer: PeerStatus, request: vote.VoteRequest, limit: float) -> str:
        """Ask one member.

        Returns:
            Why it does not vote for this one; empty: it does.
        """
        try:
            answer = messages.read_vote_answer(await self._plane.ask(peer.id, messages.vote(request), limit))
        except (PeerError, MessageError) as error:
            return f"{_name(peer)}: {error}"
        self._note(peer.status.member, answer)
        return "" if answer.granted else f"{_name(peer)}: {answer.reason}"

    def _note(self, member: str, answer: VoteAnswer) -> None:
        """What an answer tells besides."""
        self.seen_term = max(self.seen_term, answer.term)
        self._mute.pop(member, None)
        if not answer.trusted:
            self._mute[member] = self._clock()
        # One that leaves this member out may never have come into force, and may name members that are gone: it is not
        # spread.
        if answer.recorded is not None and self._box.member in answer.recorded.members:
            keep_record(self._box, answer.recorded)

    # --- the arbiter's ------------------------------------------------------------------------------------------------

    def _arbiter_would(self, view: View) -> bool:
        arbitration = self._arbitration if view.arbiter_votes else None
        return (
            arbitration is not None and arbitration.up and arbitration.is_free(view.me.member, view.settings.lease_ms)
        )

    async def _arbiters_vote(self, view: View, term: int, votes: int) -> bool:
        if self._arbitration is None or votes + 1 < view.majority or not self._arbiter_would(view):
            return False
        newest = self.newest_record()
        in_sync = newest.members if newest is not None and view.settings.consistent else ()
        record = Record(term=term, leader=view.me.member, in_sync=in_sync)
        return await self._arbitration.claim(record, view.settings.lease_ms)


def keep_record(box: BallotBox, recorded: Recorded) -> None:
    """Keep a record of the in-sync members if it is newer than the one that is kept."""
    newest = vote.newer(box.state.recorded, recorded)
    if newest != box.state.recorded:
        with contextlib.suppress(BallotError):  # Then a later election has to learn it again.
            box.save(replace(box.state, recorded=newest))


def _name(peer: PeerStatus) -> str:
    return peer.status.member or peer.id
