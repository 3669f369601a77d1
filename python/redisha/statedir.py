"""The folder in which the data plane notes what each mirror may lack: which one it is, and that it is ours alone.

Owns: the choice of the folder, and the lock in it that keeps a second process out.
Never: looks into the data plane's files.

========================== =====================================================================================
said                       used
========================== =====================================================================================
``--state-dir DIR``        that folder itself; what is wrong with it ends the start
``state_dir: DIR``         the same, from the configuration
``REDISHA_STATE_DIR=DIR``  the same, from the environment, where neither of these says anything
``memory`` in any of them  none
nothing                    a folder of this sidecar's own (by its listeners) in ``/var/lib/redisha``, else in the user's
                           state directory; else none, with a warning
========================== =====================================================================================
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from redisha.config.model import Config
from redisha.config.scalars import IN_MEMORY, ScalarError, parse_state_dir
from redisha.errors import ConfigError, Problem

log = logging.getLogger(__name__)

VARIABLE = "REDISHA_STATE_DIR"

SYSTEM = Path("/var/lib/redisha")

LOCK = "lock"
"""The file in the folder that is locked, and says by whom."""

PATIENCE = 5.0
"""Seconds to wait for a folder that another process uses: the one before us may be about to end."""

MEMORY_WARNING = (
    "what a mirror misses is remembered in memory only: if this process is killed, the next one has to compare each "
    "mirror in full"
)


@dataclass(frozen=True, slots=True)
class Choice:
    """What was asked for.

    Attributes:
        path: the folder; None for the default, or for none at all.
        in_memory: whether none at all was asked for.
        said: where it was asked for, for messages; empty for the default.
        file: the configuration file, for messages.
    """

    path: Path | None = None
    in_memory: bool = False
    said: str = ""
    file: str = ""


@dataclass(frozen=True, slots=True)
class Preview:
    """What would be used.

    Attributes:
        path: the folder; None for none.
        note: what is to be said about it; may be empty.
        ok: whether it can be used.
    """

    path: Path | None
    note: str = ""
    ok: bool = True


class UnusableError(Exception):
    """A folder cannot be used; says why, and what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class TakenError(UnusableError):
    """Another process uses the folder."""


class Claim:
    """A folder that is ours as long as this object lives, or none.

    Attributes:
        path: the folder; None for none.
        warning: what the operator should know; may be empty.
    """

    def __init__(self, path: Path | None, warning: str = "", lock: int | None = None) -> None:
        self.path = path
        self.warning = warning
        self._lock = lock

    def release(self) -> None:
        """Let another process have it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


# --- what was asked for -----------------------------------------------------------------------------------------------


def choose(option: str | None, env: Mapping[str, str], config: Config, file: str = "") -> Choice:
    """What was asked for: on the command line, in the configuration, or in the environment, in this order.

    Args:
        option: the value of ``--state-dir``; a relative path counts from the working directory.
        env: the environment.
        config: the configuration.
        file: its file, for messages.

    Raises:
        ConfigError: a value is no folder's name.
    """
    if option is not None:
        return _asked(_absolute(option), "--state-dir", "")
    if config.state_dir is not None:
        return _asked(config.state_dir, "state_dir", file)
    if env.get(VARIABLE):
        return _asked(_absolute(env[VARIABLE]), VARIABLE, "")
    return Choice()


def _absolute(value: str) -> str:
    return value if value in ("", IN_MEMORY, "none") else os.path.abspath(value)


def _asked(value: str, said: str, file: str) -> Choice:
    try:
        value = parse_state_dir(value)
    except ScalarError as error:
        raise ConfigError(Problem(file or "redisha run", None, said, error.message, error.hint)) from None
    if value == IN_MEMORY:
        return Choice(in_memory=True, said=said, file=file)
    return Choice(Path(value), said=said, file=file)


def identity(config: Config) -> str:
    """16 hex digits that two sidecars on one machine do not share: a hash of the listeners and their addresses."""
    listeners = sorted((listener.name, sorted(listener.bind)) for listener in config.listeners)
    return hashlib.sha256(json.dumps(listeners).encode()).hexdigest()[:16]


def defaults(env: Mapping[str, str]) -> list[Path]:
    """Where the folder is looked for when nothing was said, best first."""
    state = env.get("XDG_STATE_HOME", "")
    if state.startswith("/"):
        return [SYSTEM, Path(state) / "redisha"]
    home = env.get("HOME", "")
    return [SYSTEM, Path(home) / ".local" / "state" / "redisha"] if home.startswith("/") else [SYSTEM]


# --- taking it --------------------------------------------------------------------------------------------------------


async def acquire(choice: Choice, config: Config, env: Mapping[str, str], patience: float | None = None) -> Claim:
    """Make the folder if need be, and lock it; waits a while for another process to leave it.

    Raises:
        ConfigError: a folder that was asked for cannot be used.
    """
    patience = PATIENCE if patience is None else patience
    deadline = time.monotonic() + patience
    told = False
    while True:
        try:
            return claim(choice, config, env)
        except TakenError as error:
            if time.monotonic() >= deadline:
                return _given_up(choice, error)
            if not told:
                log.info("%s: waiting for at most %g s", error.message, patience)
                told = True
        await asyncio.sleep(0.1)


def claim(choice: Choice, config: Config, env: Mapping[str, str]) -> Claim:
    """Make the folder if need be, and lock it.

    Raises:
        TakenError: another process uses it.
        ConfigError: a folder that was asked for cannot be used for another reason.
    """
    if choice.in_memory:
        return Claim(None)
    owner = f"process {os.getpid()} (listeners {', '.join(listener.name for listener in config.listeners)})"
    if choice.path is not None:
        try:
            return _take(choice.path, owner)
        except TakenError:
            raise
        except UnusableError as error:
            raise _as_config_error(choice, error) from None
    reasons = []
    for folder in defaults(env):
        try:
            return _take(folder / identity(config), owner)
        except TakenError:
            raise
        except UnusableError as error:
            reasons.append(error.message)
    return Claim(None, _without(reasons))


def _given_up(choice: Choice, error: TakenError) -> Claim:
    if choice.path is not None:
        raise _as_config_error(choice, error) from None
    return Claim(None, _without([error.message]))


def _as_config_error(choice: Choice, error: UnusableError) -> ConfigError:
    return ConfigError(Problem(choice.file or "redisha run", None, choice.said, error.message, error.hint))


def _without(reasons: Iterable[str]) -> str:
    return f"{MEMORY_WARNING} ({'; '.join(reasons)}; set state_dir to a folder, or to {IN_MEMORY} if that is fine)"


def _take(path: Path, owner: str) -> Claim:
    """Make and lock one folder.

    Raises:
        TakenError: another process uses it.
        UnusableError: it cannot be made, written or locked.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(path, error) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 500, 0).decode(errors="replace").strip() or "another process"
        os.close(lock)
        raise TakenError(
            f"the folder {path} is used by {holder}",
            "end that process, or give each sidecar a folder of its own (state_dir in its file, or --state-dir)",
        ) from None
    except OSError as error:
        os.close(lock)
        raise UnusableError(
            f"the folder {path} cannot be locked: {error.strerror}", "take a folder on a local disk"
        ) from None
    with contextlib.suppress(OSError):  # A disk that is full: the lock counts, not its text.
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{owner}\n".encode(), 0)
    return Claim(path, lock=lock)


def _unusable(path: Path, error: OSError) -> UnusableError:
    if isinstance(error, FileExistsError | NotADirectoryError):
        return UnusableError(f"{path} is not a folder", "name a folder, or remove the file that is in its place")
    hints = {
        errno.EACCES: "give this user the right to write there, or name another folder",
        errno.EROFS: "mount a volume there that can be written, or name another folder",
        errno.ENOSPC: "make room on that disk, or name another folder",
    }
    hint = hints.get(error.errno or 0, "name another folder")
    return UnusableError(f"the folder {path} cannot be used: {error.strerror}", f"{hint}; or write {IN_MEMORY}")


def _remembers(config: Config, env: Mapping[str, str]) -> bool:
    """Whether a sidecar with these listeners has noted before what a mirror may lack."""
    folders = [folder / identity(config) for folder in defaults(env)]
    return any(file for folder in folders if os.access(folder, os.R_OK | os.X_OK) for file in folder.glob("*.map"))


class StateDir:
    """The folder of one process: taken once, when there is something to keep, and kept until the end.

    Args:
        option: the value of ``--state-dir``.
        env: the environment.
    """

    def __init__(self, option: str | None, env: Mapping[str, str]) -> None:
        self._option = option
        self._env = env
        self._choice = Choice()
        self._claim: Claim | None = None

    def __str__(self) -> str:
        """The folder, or ``memory``."""
        return self.path or IN_MEMORY

    @property
    def path(self) -> str | None:
        """The folder; None for none."""
        path = self._claim.path if self._claim is not None else None
        return str(path) if path is not None else None

    async def take(self, config: Config, file: str) -> None:
        """Take the folder that a configuration asks for, unless one was taken already or it never had a mirror.

        (Where there was one the data plane forgets its map: a mirror that comes back lacks what is written meanwhile.)

        Raises:
            ConfigError: one that was asked for cannot be used.
        """
        choice = choose(self._option, self._env, config, file)
        if self._claim is not None:
            if choice != self._choice:
                log.warning("the state directory changes with the next start; it stays %s", self)
            return
        mirrored = any(route.mirrors for listener in config.listeners for route in listener.routes)
        if choice.path is None and not mirrored and config.group is None and not _remembers(config, self._env):
            return
        self._claim = await acquire(choice, config, self._env)
        self._choice = choice
        if self._claim.warning:
            log.warning("%s", self._claim.warning)

    def close(self) -> None:
        """Let another process have it."""
        if self._claim is not None:
            self._claim.release()


# --- looking only -----------------------------------------------------------------------------------------------------


def preview(choice: Choice, config: Config, env: Mapping[str, str]) -> Preview:
    """What :func:`claim` would do now; makes nothing."""
    if choice.in_memory:
        return Preview(None, "in memory, as asked for")
    if choice.path is not None:
        return _look(choice.path)
    found = [_look(folder / identity(config)) for folder in defaults(env)]
    usable = next((each for each in found if each.ok), None)
    return usable or Preview(None, _without(each.note for each in found), ok=False)


def _look(path: Path) -> Preview:
    nearest = next(each for each in (path, *path.parents) if os.path.lexists(each))
    if not nearest.is_dir():
        return Preview(path, f"{nearest} is not a folder", ok=False)
    if not os.access(nearest, os.R_OK | os.W_OK | os.X_OK):
        reason = "it is on a read-only file system" if _read_only(nearest) else "it cannot be written"
        return Preview(path, f"the folder {nearest} cannot be used: {reason}", ok=False)
    return Preview(path, _user(path))


def _read_only(path: Path) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _user(path: Path) -> str:
    """Who uses the folder now; empty when nobody does."""
    try:
        lock = os.open(path / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 500, 0).decode(errors="replace").strip() or "another process"
        return f"used by {holder} now"
    except OSError:
        return ""
    finally:
        os.close(lock)
    return ""
