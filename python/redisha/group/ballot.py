"""What a member must not forget of elections, on disk: the term, whom it voted for, and who was recorded as in sync.

Owns: ``ballot.json`` in the state directory. It is replaced as a whole: a temporary file, fsync, rename, fsync of the
folder; so it is the old or the new one, whatever happens.
Never: decides about a vote; :mod:`redisha.group.vote` does.

A member that cannot be sure of the votes it gave must not vote: two could be elected in one term. That is one whose
file is torn or another's, and one without a file, unless the whole group is new.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from redisha.group.view import BallotState, Recorded

log = logging.getLogger(__name__)

FILE = "ballot.json"

ASIDE = ".bad"
"""Added to the name of a file that cannot be used."""

VERSION = 1


class BallotError(Exception):
    """The ballot cannot be read or written; says why, and what to do. No vote may be given."""


class BallotBox:
    """The ballot of one member.

    Args:
        folder: the state directory; None: memory only, and forgotten with the process.
        group: the group's name.
        member: this member's.

    Attributes:
        member: whose it is.
        state: what is kept; what :meth:`save` was last given, or what was found.
        warning: what the operator should know of what was found; may be empty.

    Raises:
        BallotError: the folder cannot be used.
    """

    def __init__(self, folder: Path | None, group: str, member: str) -> None:
        self._path = folder / FILE if folder is not None else None
        self._owner = {"group": group, "member": member}
        self.member = member
        self.warning = ""
        self.state = BallotState(fresh=True)
        if self._path is not None:
            self._find(self._path)

    def save(self, state: BallotState) -> None:
        """Keep this instead; returns when it would survive a power cut.

        Raises:
            BallotError: it could not be written. Then the one before counts, for the process and for its next start.
        """
        if self._path is not None:
            try:
                _replace(self._path, json.dumps(self._owner | _as_json(state)).encode() + b"\n")
            except OSError as error:
                raise BallotError(
                    f"the ballot {self._path} cannot be written: {error.strerror}; no vote is given before it can"
                ) from error
        self.state = state

    def _find(self, path: Path) -> None:
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise BallotError(
                f"the ballot {path} cannot be read: {error.strerror}; give this user the right to, or name another "
                "state_dir"
            ) from error
        try:
            self.state = _from_json(text, self._owner)
        except ValueError as error:
            self._set_aside(path, str(error))

    def _set_aside(self, path: Path, reason: str) -> None:
        """It may have been a vote: the member is not trusted, in its next start neither."""
        aside = path.with_name(path.name + ASIDE)
        try:
            os.replace(path, aside)
        except OSError as error:
            raise BallotError(f"the ballot {path} {reason}, and cannot be renamed: {error.strerror}") from error
        self.save(BallotState())
        self.warning = (
            f"the ballot {path} {reason}; it is now {aside}, and this member does not vote before a leader has filled "
            "its Redis"
        )


def _as_json(state: BallotState) -> dict[str, object]:
    recorded = state.recorded
    return {
        "v": VERSION,
        "term": state.term,
        "voted_for": state.voted_for,
        "trusted": state.trusted,
        "founded": state.founded,
        "recorded": None if recorded is None else [recorded.term, recorded.serial, list(recorded.members)],
    }


def _from_json(text: bytes, owner: dict[str, str]) -> BallotState:
    """Read a file's content.

    Raises:
        ValueError: it is torn, of another version or another member's; the text says which, as the end of a sentence.
    """
    try:
        raw: dict[str, Any] = json.loads(text)
        version, whose = raw["v"], {key: raw[key] for key in owner}
        if version == VERSION and whose == owner:
            return _checked(raw)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError("is torn or no ballot") from error
    if version != VERSION:
        raise ValueError(f"is of version {version}, and this redisha knows {VERSION}")
    raise ValueError(f"is of member {whose['member']} of group {whose['group']}")


def _checked(raw: dict[str, Any]) -> BallotState:
    recorded = None
    if raw["recorded"] is not None:
        term, serial, members = raw["recorded"]
        recorded = Recorded(_number(term), _number(serial), tuple(_text(each) for each in members))
    return BallotState(
        term=_number(raw["term"]),
        voted_for=_text(raw["voted_for"]),
        trusted=raw["trusted"] is True,
        founded=raw["founded"] is True,
        recorded=recorded,
    )


def _number(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError("not a number")


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise ValueError("not a text")


def _replace(path: Path, content: bytes) -> None:
    """Write a file as a whole, so that it is there after a power cut."""
    fresh = path.with_name(path.name + ".new")
    with open(fresh, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
