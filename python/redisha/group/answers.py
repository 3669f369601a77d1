"""What a member answers to the councils of the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from redisha.group import fitness, messages, vote
from redisha.group.ballot import BallotBox, BallotError
from redisha.group.insync import answer_record
from redisha.group.messages import Message, MessageError, VoteAnswer
from redisha.group.status import Role
from redisha.group.view import View


class Answers:
    """The answers of one member.

    Args:
        box: its ballot.
        look: gives the view of this moment.
        stand: has it stand for election in a term, because the leader asked for it; says why it was not elected.
        voted: is told that it has voted for another in a term.
    """

    def __init__(
        self,
        box: BallotBox,
        look: Callable[[], View],
        stand: Callable[[int, bool], Awaitable[str]],
        voted: Callable[[int], None],
    ) -> None:
        self._box = box
        self._look = look
        self._stand = stand
        self._voted = voted

    async def answer(self, member: str, message: dict[str, object]) -> Message:
        """The answer to a member's message; an ``error`` if it cannot be understood."""
        try:
            match messages.read_type(message):
                case "vote":
                    return self._vote(member, message)
                case "record":
                    return self._record(member, message)
                case "take_over":
                    return await self._take_over(member, message)
                case other:
                    return messages.error(f"nothing is known of the type {other}")
        except MessageError as error:
            return messages.error(str(error))

    def _vote(self, member: str, message: Message) -> Message:
        request = messages.read_vote(message)
        if request.member != member:
            raise MessageError(f"{member} asks for a vote for {request.member}")
        answer = _voted_on(self._box, request, self._look())
        if answer.granted and not request.pre:
            self._voted(request.term)
        return messages.vote_answer(answer)

    def _record(self, member: str, message: Message) -> Message:
        recorded = messages.read_recorded(message)
        if recorded is None:
            raise MessageError("there is no record in it")
        return messages.done(answer_record(self._box, member, recorded, self._look()))

    async def _take_over(self, member: str, message: Message) -> Message:
        term = messages.read_take_over(message)
        view = self._look()
        if (view.me.role, view.me.term, view.me.leader) != (Role.FOLLOWER, term, member):
            return messages.done(f"it does not follow {member} in term {term}")
        if reason := fitness.unfit(view):
            return messages.done(reason)
        wanted = view.known_term + 1
        return messages.done(await self._stand(wanted, True), wanted)


def _voted_on(box: BallotBox, request: vote.VoteRequest, view: View) -> VoteAnswer:
    """Vote for another member, or not. A vote is on disk when this returns."""
    answer = vote.ballot(box.state, request, view)
    granted, reason = answer.granted, answer.reason
    try:
        if answer.state != box.state:
            box.save(answer.state)
    except BallotError as error:
        granted, reason = False, str(error)
    return VoteAnswer(granted, reason, view.known_term, answer.trusted, box.state.recorded)
