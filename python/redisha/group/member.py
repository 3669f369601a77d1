"""This sidecar as a member of its group: the data plane and the council, put together.

Owns: the questions to and from other members that have no answer yet.
Never: decides who leads (:mod:`redisha.failover`) or moves data (the data plane).

::

    data plane ── events group, ask, answer ──▶ Member ──▶ Council ── lead, follow, yield ──▶ data plane
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redisha.config.group import Arbiter as ArbiterConfig
from redisha.config.group import Group
from redisha.core import DataPlane, Event, EventKind
from redisha.group.ballot import BallotBox
from redisha.group.conflicts import Conflicts
from redisha.group.council import Council
from redisha.group.handover import HandOverError
from redisha.group.merge import Merges
from redisha.group.plane import PeerError
from redisha.group.request import Requests
from redisha.group.status import Data, GroupStatus, MemberStatus, Role
from redisha.group.view import OnPartition, Settings, others

if TYPE_CHECKING:
    from redisha.group.arbiter import Arbiter

log = logging.getLogger(__name__)

LEAVES = 5
"""Times that a member which ends tries to hand the leadership over: a successor may be about to have everything."""

LEAVE_PAUSE = 0.5
"""Seconds between two of them."""

LEASE = 0.8
"""Of the time after which a member is taken for gone: so long a leader's lease lasts. As in the data plane."""

_LED = ("leading", "following ")
"""How the reasons begin that were given while somebody led."""


class Plane:
    """The data plane, as the council wants it (:class:`redisha.group.plane.GroupPlane`).

    Args:
        plane: the data plane.
        group: the configuration.
    """

    def __init__(self, plane: DataPlane, group: Group) -> None:
        self._plane = plane
        self._group = group
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[str]] = {}

    def status(self) -> GroupStatus:
        """The group, as it was a moment ago; before the data plane runs, a group of which nothing is known."""
        me = MemberStatus(self._group.member or "", 0, "", Role.NONE, Data.UNKNOWN)
        return self._plane.group() or GroupStatus(self._group.name, me, ())

    def lead(self, term: int) -> None:
        """This member leads this term."""
        self._plane.lead(term)

    def follow(self, term: int, leader: str) -> None:
        """``leader`` leads this term; empty: nobody does."""
        self._plane.follow(term, leader)

    def yield_lead(self, on: bool) -> None:
        """Take no more commands, or take them again."""
        self._plane.yield_lead(on)

    def count(self, members: tuple[str, ...]) -> None:
        """``quorum`` and ``all`` wait for each of these."""
        self._plane.count(members)

    def arbiter_beat(self, age_ms: int) -> None:
        """The arbiter has renewed this leadership."""
        self._plane.arbiter_beat(age_ms)

    async def ask(
        self,
        peer: str,
        message: dict[str, object],
        timeout: float,  # noqa: ASYNC109 - as the protocol has it
    ) -> dict[str, object]:
        """Ask the council of another member.

        Raises:
            PeerError: there is no answer.
        """
        number = next(self._numbers)
        future = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        try:
            self._plane.ask(peer, number, json.dumps({"from": self._group.member, "message": message}))
            async with asyncio.timeout(timeout):
                text = await future
            answer = json.loads(text) if text else None
        except (TimeoutError, ValueError) as error:
            raise PeerError(f"{peer} does not answer") from error
        finally:
            self._asked.pop(number, None)
        if not isinstance(answer, dict):
            raise PeerError(f"{peer} is not connected")
        return answer

    def on_answer(self, event: Event) -> None:
        """Another member has answered, or is gone."""
        future = self._asked.get(int(event.subject))
        if future is not None and not future.done():
            future.set_result(event.detail)


class Member:
    """The part of this sidecar that is a member of a group.

    Args:
        plane: the data plane.
        group: the configuration, with the member's name.
        folder: the state directory; None: in memory.

    Raises:
        BallotError: the state directory cannot be used.
        ArbiterError: the arbiter's settings cannot be used here.

    Attributes:
        merges: what members wrote alone, being merged.
        leader_changes: how often another leadership was seen since the start.
    """

    def __init__(self, plane: DataPlane, group: Group, folder: str | None) -> None:
        self.group = group
        self._core = plane
        self._plane = Plane(plane, group)
        timeout = group.heartbeat * group.missed_heartbeats
        self._arbiter = _arbiter(group.arbiter) if group.arbiter is not None else None
        box = BallotBox(Path(folder) if folder is not None else None, group.name, group.member or "")
        settings = Settings(
            heartbeat_ms=group.heartbeat,
            election_timeout_ms=timeout,
            lease_ms=int(timeout * LEASE),
            on_partition=OnPartition(group.on_partition),
            has_arbiter=self._arbiter is not None,
        )
        self._council = Council(self._plane, box, settings, self._arbiter)
        secret = group.secret.value if group.secret is not None else None
        self.merges = Merges(plane, lambda: secret, Conflicts(Path(folder) if folder is not None else None))
        self._requests = Requests(self._plane, self._council.hand_over)
        self._leadership = (0, "")
        self.leader_changes = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Take part, in the running loop."""
        self._begin(self._council.run())

    def status(self) -> GroupStatus:
        """The group, as this member sees it."""
        return self._plane.status()

    @property
    def reason(self) -> str:
        """Why nobody leads, in words; empty while somebody does."""
        if self._heard(self.status()):
            return ""
        reason = getattr(self._council.decision, "reason", "")
        # The newest decision may be of a moment ago, when somebody led.
        return reason if reason and not reason.startswith(_LED) else "an election is being held"

    def _heard(self, status: GroupStatus) -> bool:
        """Whether somebody leads, and lives."""
        me = status.me
        timeout = self.group.heartbeat * self.group.missed_heartbeats
        alive = (peer.status.member for peer in others(status) if peer.silent_ms < timeout)
        return me.role is Role.LEADER or (me.role is Role.FOLLOWER and me.leader in alive)

    def on_event(self, event: Event) -> None:
        """What the data plane tells of the group."""
        match event.kind:
            case EventKind.GROUP:
                self._note_leader()
                self._council.wake()
            case EventKind.ANSWER:
                self._plane.on_answer(event)
            case EventKind.MERGE:
                self.merges.on_merge(event)
            case EventKind.ASK:
                self._begin(self._answer(int(event.subject), event.detail))
            case _:
                pass

    def _note_leader(self) -> None:
        me = self.status().me
        if me.role is not Role.NONE and me.leader and (me.term, me.leader) != self._leadership:
            self._leadership = (me.term, me.leader)
            self.leader_changes += 1

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, number: int, text: str) -> None:
        answer: dict[str, object]
        try:
            question = json.loads(text)
            message = question["message"]
            answer = await self._requests.answer(message) or await self._council.on_message(
                str(question["from"]), message
            )
        except (ValueError, KeyError, TypeError) as error:
            answer = {"error": f"not a question of a member: {error}"}
        self._core.answer(number, json.dumps(answer))

    async def hand_over(self, to: str | None) -> str:
        """Let another member lead.

        Returns:
            Who leads now.

        Raises:
            HandOverError: it was not handed over; says why.
        """
        return await self._council.hand_over(to)

    async def lead(self, to: str) -> str:
        """Let a member lead, whoever leads now.

        Returns:
            Who leads then.

        Raises:
            UnknownMemberError: there is no such member.
            HandOverError: it was not handed over; says why.
        """
        return await self._requests.lead(to)

    async def leave(self) -> None:
        """The process ends: another leads from now on, if this member did and one can."""
        if self.status().me.role is not Role.LEADER:
            return
        for _ in range(LEAVES):
            try:
                log.info("the leadership goes to %s", await self.hand_over(None))
            except HandOverError as error:
                log.warning("the leadership was not handed over: %s", error)
                if not any(peer.up for peer in others(self.status())):
                    return  # nobody is there to take it
                await asyncio.sleep(LEAVE_PAUSE)
            if self.status().me.role is not Role.LEADER:
                return

    async def close(self) -> None:
        """Take part no more."""
        await self.merges.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._arbiter is not None:
            with contextlib.suppress(Exception):
                await self._arbiter.close()


def _arbiter(config: ArbiterConfig) -> Arbiter:
    if config.kubernetes is not None:
        from redisha.group.kubernetes import KubernetesArbiter

        lease = config.kubernetes
        return KubernetesArbiter(lease.lease, lease.namespace, lease.server, lease.token_file, lease.ca_file)
    from redisha.group.etcd import EtcdArbiter

    etcd = config.etcd
    if etcd is None:
        raise AssertionError("an arbiter is one of the two")
    return EtcdArbiter(
        etcd.endpoints,
        etcd.key,
        etcd.username.value if etcd.username is not None else None,
        etcd.password.value if etcd.password is not None else None,
    )
