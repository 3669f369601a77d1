"""The file of the values that lost when two leaders' writes became one history: ``conflicts.jsonl``.

Owns: its form, and that a value is on the disk before the winner's replaces it. Never: decides which one loses.

A line is a JSON object. ``time`` is the line's, ``winner`` and ``loser`` are members, ``written`` says when the loser
wrote the key, if that is known, and ``reason`` is a :class:`~redisha.group.later.Reason`. A key has ``db``, ``key``,
``key_encoding`` (``utf-8`` or ``base64``), ``type``, ``expires_ms`` (since 1970; 0: never), ``size`` and ``value``:
``DUMP``'s payload as base64, for ``RESTORE key expires_ms value ABSTTL``, or null where it is too large. A library has
``library`` and ``code``.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

from redisha.errors import RedishaError
from redisha.group.later import Key, Reason, Value

log = logging.getLogger(__name__)

NAME = "conflicts.jsonl"

VALUE_MOST = 1 << 20
"""Bytes of a payload from which on only its size is kept."""

FILE_MOST = 64 << 20
"""Bytes of the file past which it becomes ``conflicts.jsonl.1``."""

LOGGED_MOST = 100
"""Conflicts of one merge that are logged, where there is no file."""

REMEMBERED_MOST = 200_000
"""Conflicts of one merge that are not written again when it is repeated."""


class ConflictsError(RedishaError):
    """A value that is lost otherwise could not be kept."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """A value that lost.

    Attributes:
        group: the group's name.
        winner: the member whose write counts.
        loser: the one whose does not.
        reason: why.
        key: database and name; None: it is a library.
        value: of the key.
        written: when the loser wrote it, milliseconds since 1970; None: not known.
        library: name and code.
    """

    group: str
    winner: str
    loser: str
    reason: Reason
    key: Key | None = None
    value: Value | None = None
    written: int | None = None
    library: tuple[bytes, bytes] | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON; all but the time of the line."""
        told: dict[str, Any] = {"group": self.group}
        if self.library is not None:
            told["library"] = self.library[0].decode(errors="replace")
        if self.key is not None:
            told["db"] = self.key[0]
            told["key"], told["key_encoding"] = _text(self.key[1])
        told |= {"winner": self.winner, "loser": self.loser, "written": _moment(self.written), "reason": self.reason}
        if self.library is not None:
            told["code"] = self.library[1].decode(errors="backslashreplace")
        if self.value is not None:
            payload = self.value.payload
            small = payload if payload is not None and len(payload) <= VALUE_MOST else None
            told |= {"type": self.value.kind or "unknown", "expires_ms": self.value.expires, "size": self.value.size}
            told["value"] = base64.b64encode(small).decode() if small is not None else None
        return told


def _text(name: bytes) -> tuple[str, str]:
    try:
        return name.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(name).decode(), "base64"


def _moment(ms: int | None) -> str | None:
    with contextlib.suppress(ValueError, OverflowError):  # of a clock that is far beyond all years
        if ms is not None:
            return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return None


class Conflicts:
    """The file. May be used by several threads.

    Args:
        folder: the ``state_dir``; None: there is none, and conflicts are only logged, without their values.

    Attributes:
        total: conflicts kept since the start.
    """

    def __init__(self, folder: str | Path | None) -> None:
        self.path = Path(folder) / NAME if folder is not None else None
        self.total = 0
        self._lock = threading.Lock()
        self._kept: dict[str, set[bytes]] = {}

    def add(self, other: str, conflicts: Sequence[Conflict]) -> int:
        """Keep these values: when this returns they are on the disk.

        Args:
            other: the member that is being merged.
            conflicts: one that was kept already since the last :meth:`end` is left out.

        Returns:
            How many were new.

        Raises:
            ConflictsError: they could not be kept, not one of them.
        """
        if not conflicts:
            return 0
        with self._lock:
            kept = self._kept.setdefault(other, set())
            new: dict[bytes, dict[str, Any]] = {}
            for each in (conflict.as_dict() for conflict in conflicts):
                digest = blake2b(json.dumps(each).encode(), digest_size=16).digest()
                if digest not in kept:
                    new[digest] = each
            if self.path is None:
                _tell(new.values(), len(kept))
            elif new:
                time = _moment(int(datetime.now(UTC).timestamp() * 1000))
                _append(
                    self.path, b"".join(json.dumps({"time": time} | each).encode() + b"\n" for each in new.values())
                )
            if len(kept) < REMEMBERED_MOST:
                kept.update(new)
            self.total += len(new)
            return len(new)

    def end(self, other: str) -> None:
        """The merge with this member came to its end; it will not be repeated."""
        with self._lock:
            self._kept.pop(other, None)


def _tell(conflicts: Any, before: int) -> None:
    for number, each in enumerate(conflicts, before):
        if number == LOGGED_MOST:
            log.warning("more conflicts are not logged; with a state_dir each is kept with its value")
        if number < LOGGED_MOST:
            shown = {name: text for name, text in each.items() if name not in ("value", "code")}
            log.warning("conflict: %s", json.dumps(shown))


def _append(path: Path, data: bytes) -> None:
    try:
        _rotate(path, len(data))
        new = not path.exists()
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(fd).st_size
            torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"  # by a process that died
            try:
                _write(fd, b"\n" + data if torn else data)
                os.fsync(fd)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(fd, size)  # no half of it
                raise
        finally:
            os.close(fd)
        if new:
            _sync_folder(path.parent)
    except OSError as error:
        raise ConflictsError(
            f"{path} cannot be written: {error.strerror}; the merge waits, so that no value is lost"
        ) from None


def _write(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _rotate(path: Path, more: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size + more <= FILE_MOST:
            return
        old = path.with_name(f"{NAME}.1")
        if old.exists():
            log.warning("%s has grown to %d MB: the older conflicts in %s are gone", path, FILE_MOST >> 20, old)
        os.replace(path, old)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
