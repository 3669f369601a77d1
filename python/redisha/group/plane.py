"""What the election wants of the data plane, and what it relies on."""

from __future__ import annotations

from typing import Protocol

from redisha.group.status import GroupStatus


class PeerError(Exception):
    """A peer could not be asked, or did not answer in time; it is not known whether it got the question."""


class GroupPlane(Protocol):
    """The data plane of one member. What is ordered is done in the order in which it was said, perhaps a moment later.

    The election relies on the following; where ``consistent`` is named, two could lead at a time without it.

    * It follows a leadership of a newer term by itself when the leader tells it of one, and never goes back to an older
      one.
    * What a peer says of itself does not replace what the peer said later.
    * A peer counts as heard (``silent_ms``) when it answers a beat *and* when it sends one (consistent).
    * A lease is counted from the sending of beats whose answers name this leadership: its term and its leader. A member
      that has voted for another has left that term by then, and its answers count no more (consistent).
    * What is ordered before a question is answered is in force before the answer leaves (consistent).
    """

    def status(self) -> GroupStatus:
        """The group, as it was a moment ago."""

    def lead(self, term: int) -> None:
        """This member leads this term."""

    def follow(self, term: int, leader: str) -> None:
        """``leader`` leads this term; empty: nobody does."""

    def yield_lead(self, on: bool) -> None:
        """Take no more commands (they wait), and go on streaming; or take them again."""

    def count(self, members: tuple[str, ...]) -> None:
        """``quorum`` and ``all`` wait for each of these, whether it is known or not (``consistent`` mode)."""

    def arbiter_beat(self, age_ms: int) -> None:
        """The arbiter has renewed this leadership; it was asked so many milliseconds ago."""

    async def ask(  # the time belongs to the connection, which knows what is still in flight
        self,
        peer: str,
        message: dict[str, object],
        timeout: float,  # noqa: ASYNC109
    ) -> dict[str, object]:
        """Ask the council of another member.

        Args:
            peer: its id in the status.
            message: something that JSON can say.
            timeout: seconds.

        Raises:
            PeerError: there is no answer.
        """
