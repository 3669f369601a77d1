"""Notices when the files of the configuration may have changed.

Owns: a daemon thread. Never: reads a file to understand it, or decides to reload.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

log = logging.getLogger(__name__)


def fingerprint(files: Iterable[Path]) -> tuple[bytes | None, ...]:
    """What the files hold now; None for one that cannot be read."""
    return tuple(_bytes(file) for file in files)


def _bytes(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None


class FileWatch:
    """Tells when something changed in the folders of some files.

    The folders and not the files, because a Kubernetes ConfigMap changes by swapping a symbolic link beside them. On a
    daemon thread with ``watchfiles``. Where that is not installed or fails, nothing is told: the supervisor looks at
    the files every few seconds anyway.

    Args:
        on_event: called in the loop; what it looks at may turn out to be as it was.
    """

    def __init__(self, on_event: Callable[[], None]) -> None:
        self._on_event = on_event
        self._folders: frozenset[str] = frozenset()
        self._stop = threading.Event()

    def watch(self, files: Iterable[Path]) -> None:
        """Watch the folders of these files from now on."""
        folders = frozenset(str(file.parent) for file in files if file.parent.is_dir())
        if folders == self._folders:
            return
        self.close()
        self._folders, self._stop = folders, threading.Event()
        if folders:
            loop = asyncio.get_running_loop()
            threading.Thread(
                target=self._run, args=(loop, folders, self._stop), name="watch files", daemon=True
            ).start()

    def close(self) -> None:
        """Watch nothing any more."""
        self._stop.set()
        self._folders = frozenset()

    def _run(self, loop: asyncio.AbstractEventLoop, folders: frozenset[str], stop: threading.Event) -> None:
        try:
            for _ in _changes(folders, stop):
                with contextlib.suppress(RuntimeError):  # The loop is closed: nobody waits any more.
                    loop.call_soon_threadsafe(self._on_event)
        except (OSError, RuntimeError) as error:  # No inotify left, or a folder that went away.
            log.warning("changes of files are noticed late: %s", error)


def _changes(folders: frozenset[str], stop: threading.Event) -> Iterable[object]:
    try:
        import watchfiles  # 1.6 MB, after the start
    except ImportError:
        return
    # It tells every change; where our own log is a file in the folder, that would be a change again.
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    yield from watchfiles.watch(
        *folders, watch_filter=None, debounce=1000, step=250, stop_event=stop, raise_interrupt=False, recursive=False
    )
