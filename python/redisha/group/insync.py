"""The record of the in-sync members, as the leader keeps it in ``consistent`` mode.

Owns: the order of things that keeps an acknowledged write on every member that may be elected. Who is to be recorded is
counted first (``quorum`` waits for it); then it must have everything; then it is recorded with a majority, or with the
arbiter and this member; only then who is recorded no more is not waited for any more.

A record of which it is not known whether a majority has it may be in force: its members are waited for until a newer
one is known to be.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from redisha.group import messages
from redisha.group.arbiter import Record
from redisha.group.arbitration import Arbitration
from redisha.group.ballot import BallotBox, BallotError
from redisha.group.messages import MessageError
from redisha.group.plane import GroupPlane, PeerError
from redisha.group.polling import ask_all
from redisha.group.status import PeerStatus, Position
from redisha.group.view import Recorded, View


@dataclass(slots=True)
class _Joining:
    """One that is to be recorded.

    Attributes:
        since: when it was first counted, in seconds.
        mark: what it must have; None until it is sure that it is counted.
    """

    since: float
    mark: Position | None = None


class InSync:
    """The record of one leader.

    Args:
        plane: the data plane.
        box: this member's ballot.
        arbitration: its dealings with the arbiter; None: there is none.
        clock: seconds.

    Attributes:
        term: of this member's newest leadership.
        confirmed: the members of the newest record that a majority is known to have; None: nothing is recorded.
    """

    def __init__(
        self,
        plane: GroupPlane,
        box: BallotBox,
        arbitration: Arbitration | None,
        clock: Callable[[], float],
    ) -> None:
        self._plane = plane
        self._box = box
        self._arbitration = arbitration
        self._clock = clock
        self.term = 0
        self._serial = 0
        self._attempted: set[str] = set()
        self._newest: tuple[str, ...] = ()
        self._joining: dict[str, _Joining] = {}
        self._holders: set[str] = set()
        self._counted: tuple[str, ...] | None = None
        self.confirmed: tuple[str, ...] | None = None

    async def begin(self, term: int, recorded: Recorded | None, view: View) -> bool:
        """This member was elected: have the record that its voters know of recorded again, as one of the new term.

        Before that it must not lead. A predecessor may have left a newer record with a minority, that a later election
        could find: only one of a newer term overrules it.

        Args:
            term: the new one.
            recorded: the newest record that the majority which elected it knows of; None: there was never one.
            view: the group.

        Returns:
            Whether a majority has it; True where nothing is recorded.
        """
        self.start(term)
        if not view.settings.consistent:
            return True
        members = (view.me.member,) if recorded is None else recorded.members
        if view.me.member in members:
            await self._write(members, view)
        return self.confirmed == members

    def start(self, term: int) -> None:
        """A leadership of this member begins, with nothing recorded."""
        self.term, self._serial = term, 0
        self._newest, self._attempted, self._joining, self._counted = (), set(), {}, None
        self.confirmed = None

    def arbiters(self, member: str) -> Record:
        """The next record for the arbiter: a renewal, with the members that were written last."""
        self._serial += 1
        return Record(self.term, member, self._newest, self._serial)

    async def record(self, wanted: tuple[str, ...], view: View) -> None:
        """Go on towards a record of these members; to be called again until it is confirmed.

        Args:
            wanted: this member, and those that have everything and are heard.
            view: the group now.
        """
        base = {*(self.confirmed or ()), *self._attempted}
        self._joining = {
            name: self._joining.get(name) or _Joining(self._clock()) for name in wanted if name not in base
        }
        self._count()
        members = tuple(name for name in wanted if name in base or self._has_everything(name, view))
        if members != self.confirmed:
            await self._write(members, view, {*members} - {*(self.confirmed or ())})

    def _count(self) -> None:
        counted = tuple(sorted({*(self.confirmed or ()), *self._attempted, *self._joining}))
        if counted != self._counted:
            self._counted = counted
            self._plane.count(counted)

    def _has_everything(self, name: str, view: View) -> bool:
        """Whether a member has all that was acknowledged before it was waited for."""
        joining = self._joining[name]
        if joining.mark is None:
            # The data plane does what it is told a moment later, and a status is as old as a moment.
            if self._clock() - joining.since >= view.settings.heartbeat_ms / 1000:
                joining.mark = view.me.position
            return False
        peer = next((each for each in view.others if each.status.member == name), None)
        return peer is not None and (peer.caught_up or peer.status.position >= joining.mark)

    async def _write(self, members: tuple[str, ...], view: View, new: Collection[str] = ()) -> None:
        """Have a record written.

        Args:
            members: who is in it.
            view: the group.
            new: those of them that were not in the one before. They must have it themselves: a member that does not
                know that it may be elected does not stand.
        """
        state = self._box.state
        if state.term > self.term:
            return  # It has voted for another.
        self._serial += 1
        recorded = Recorded(self.term, self._serial, members)
        self._attempted |= set(members)
        self._newest = members
        self._holders = set()
        self._count()
        try:
            self._box.save(replace(state, recorded=recorded))
        except BallotError:
            return
        limit = view.settings.election_timeout_ms / 2000
        asked = [self._tell(peer, recorded, limit) for peer in view.others if peer.up]
        if view.arbiter_votes and self._arbitration is not None:
            asked.append(self._tell_arbiter(self._arbitration, view.me.member))
        needed = view.majority - self._box.state.trusted
        kept, _ = await ask_all(asked, len(asked) if new else needed)
        newest = self._box.state.recorded == recorded and self._box.state.term <= self.term
        if newest and kept >= needed and self._holders.issuperset(new):
            self.confirmed, self._attempted = members, set()
            self._joining = {name: each for name, each in self._joining.items() if name not in members}
            self._count()

    async def _tell(self, peer: PeerStatus, recorded: Recorded, limit: float) -> str:
        try:
            refusal = messages.read_done(await self._plane.ask(peer.id, messages.record(recorded), limit))
        except (PeerError, MessageError) as error:
            return str(error) or "no answer"
        if not refusal and recorded == self._box.state.recorded:
            self._holders.add(peer.status.member)
        return refusal

    async def _tell_arbiter(self, arbitration: Arbitration, member: str) -> str:
        return "" if await arbitration.renew(lambda: self.arbiters(member)) else "not written"


def answer_record(box: BallotBox, leader: str, recorded: Recorded, view: View) -> str:
    """Keep what the leader of a term says of who is in sync.

    Returns:
        Why it is not kept; empty: it is on disk.
    """
    state = box.state
    if not state.trusted:
        return "it may have forgotten a vote"
    if recorded.term < max(state.term, view.me.term):
        return f"it is in term {max(state.term, view.me.term)}"
    if recorded.term == view.me.term and view.me.leader not in ("", leader):
        return f"it follows {view.me.leader}"
    if state.recorded is not None and recorded < state.recorded:
        return "it has a newer record"
    term_began = recorded.term > state.term
    try:
        box.save(
            replace(
                state,
                term=recorded.term,
                voted_for="" if term_began else state.voted_for,
                founded=True,
                recorded=recorded,
            )
        )
    except BallotError as error:
        return str(error)
    return ""
