"""What councils say to each other, as JSON objects. Each names its ``type`` and the version ``v`` of the language.

=========== ============================================== ==========================================================
type        says                                           answer
=========== ============================================== ==========================================================
vote        a candidate, its term and its data             ``granted``, ``reason``, ``term``, ``trusted``, ``recorded``
take_over   the leader of ``term`` yields to who is asked  ``ok``, ``reason``, ``term``: of the new leadership
record      the leader of ``term`` has these in sync       ``ok``, ``reason``
=========== ============================================== ==========================================================

What cannot be understood is answered with ``error``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from redisha.group.status import Data, Position
from redisha.group.view import Recorded
from redisha.group.vote import VoteRequest

VERSION = 1

Message = dict[str, object]


class MessageError(ValueError):
    """A message cannot be understood; says why."""


@dataclass(frozen=True, slots=True)
class VoteAnswer:
    """What a member answers to a candidate; see :class:`redisha.group.vote.Ballot`.

    Attributes:
        granted: whether the vote is given.
        reason: why not.
        term: the newest that the member knows of.
        trusted: whether it votes at all.
        recorded: the newest record of the in-sync members that it knows of.
    """

    granted: bool
    reason: str
    term: int
    trusted: bool
    recorded: Recorded | None


def vote(request: VoteRequest) -> Message:
    """A candidate's question."""
    return _message(
        "vote",
        term=request.term,
        member=request.member,
        data=str(request.data),
        data_set=request.data_set,
        position=[request.position.generation, request.position.sequence],
        pre=request.pre,
        leader_yields=request.leader_yields,
        recorded=_recorded(request.recorded),
    )


def vote_answer(answer: VoteAnswer) -> Message:
    """The answer to a candidate."""
    return {
        "v": VERSION,
        "granted": answer.granted,
        "reason": answer.reason,
        "term": answer.term,
        "trusted": answer.trusted,
        "recorded": _recorded(answer.recorded),
    }


def take_over(term: int) -> Message:
    """The leader of this term asks for a successor."""
    return _message("take_over", term=term)


def record(recorded: Recorded) -> Message:
    """The leader of a term says who is in sync."""
    return _message("record", recorded=_recorded(recorded))


def done(reason: str = "", term: int = 0) -> Message:
    """It was done; or why not. ``term`` is that of a leadership that was taken over."""
    return {"v": VERSION, "ok": not reason, "reason": reason, "term": term}


def error(reason: str) -> Message:
    """A message could not be understood."""
    return {"v": VERSION, "error": reason}


def read_type(message: Mapping[str, object]) -> str:
    """What is asked.

    Raises:
        MessageError: it is of another version, or says nothing.
    """
    if message.get("v") != VERSION:
        raise MessageError(f"version {message.get('v')} is not known, only {VERSION}: run the same redisha everywhere")
    return _text(message, "type")


def read_vote(message: Mapping[str, object]) -> VoteRequest:
    """A candidate's question.

    Raises:
        MessageError: it cannot be understood.
    """
    try:
        data = Data(_text(message, "data"))
    except ValueError as error:
        raise MessageError("data is of no known kind") from error
    generation, sequence = _numbers(message.get("position"), 2)
    return VoteRequest(
        term=_number(message, "term"),
        member=_text(message, "member"),
        data=data,
        data_set=_text(message, "data_set"),
        position=Position(generation, sequence),
        pre=_flag(message, "pre"),
        leader_yields=_flag(message, "leader_yields"),
        recorded=read_recorded(message),
    )


def read_vote_answer(message: Mapping[str, object]) -> VoteAnswer:
    """The answer to a candidate.

    Raises:
        MessageError: it cannot be understood, or the other could not understand the question.
    """
    if "error" in message:
        raise MessageError(str(message["error"]))
    return VoteAnswer(
        granted=_flag(message, "granted"),
        reason=_text(message, "reason"),
        term=_number(message, "term"),
        trusted=_flag(message, "trusted"),
        recorded=read_recorded(message),
    )


def read_done(message: Mapping[str, object]) -> str:
    """Why something was not done; empty: it was.

    Raises:
        MessageError: it cannot be understood, or the other could not understand the question.
    """
    if "error" in message:
        raise MessageError(str(message["error"]))
    return "" if _flag(message, "ok") else _text(message, "reason") or "it says no"


def read_take_over(message: Mapping[str, object]) -> int:
    """The term of the leader that yields.

    Raises:
        MessageError: it cannot be understood.
    """
    return _number(message, "term")


def read_taken_over(message: Mapping[str, object]) -> tuple[str, int]:
    """The answer to the leader that yields: why the other does not lead now (empty: it does), and its term.

    Raises:
        MessageError: it cannot be understood, or the other could not understand the question.
    """
    return read_done(message), _number(message, "term")


def read_recorded(message: Mapping[str, object]) -> Recorded | None:
    """A record of the in-sync members; None: there is none.

    Raises:
        MessageError: it cannot be understood.
    """
    raw = message.get("recorded")
    if raw is None:
        return None
    if not isinstance(raw, list) or len(raw) != 3 or not isinstance(raw[2], list):
        raise MessageError("recorded is no record")
    term, serial = _numbers(raw[:2], 2)
    if not all(isinstance(each, str) for each in raw[2]):
        raise MessageError("recorded has no names")
    return Recorded(term, serial, tuple(raw[2]))


def _number(message: Mapping[str, object], key: str) -> int:
    return _numbers([message.get(key)], 1)[0]


def _text(message: Mapping[str, object], key: str) -> str:
    value = message.get(key)
    if not isinstance(value, str):
        raise MessageError(f"{key} is no text")
    return value


def _flag(message: Mapping[str, object], key: str) -> bool:
    value = message.get(key)
    if not isinstance(value, bool):
        raise MessageError(f"{key} is not true or false")
    return value


def _numbers(value: object, count: int) -> list[int]:
    if not isinstance(value, list) or len(value) != count:
        raise MessageError("a number is missing")
    if not all(isinstance(each, int) and not isinstance(each, bool) and each >= 0 for each in value):
        raise MessageError("a number is none")
    return value


def _recorded(recorded: Recorded | None) -> list[object] | None:
    return None if recorded is None else [recorded.term, recorded.serial, list(recorded.members)]


def _message(kind: str, **fields: object) -> Message:
    return {"type": kind, "v": VERSION, **fields}
