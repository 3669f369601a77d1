"""Long work beside the event loop: on a daemon thread of its own, with a word to stop and numbers to look at.

A thread of asyncio's executor would be waited for when the process ends; a Redis that hangs must not delay that.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Stopped(Exception):  # noqa: N818 - not an error
    """The work was asked to end, and did."""


class Job:
    """What a piece of work tells (written by its thread, read by the loop), and whether it shall end.

    Attributes:
        done: keys done.
        total: keys to do, as far as it is known; 0 while it is not.
        bytes: bytes copied.
    """

    def __init__(self) -> None:
        self.done = 0
        self.total = 0
        self.bytes = 0
        self._started = time.monotonic()
        self._stop = threading.Event()

    @property
    def seconds(self) -> float:
        """How long it runs."""
        return time.monotonic() - self._started

    @property
    def stopped(self) -> bool:
        """Whether it shall end."""
        return self._stop.is_set()

    def restart(self) -> None:
        """It begins anew: with its numbers and its clock at zero."""
        self.done = self.total = self.bytes = 0
        self._started = time.monotonic()

    def stop(self) -> None:
        """Ask it to end soon."""
        self._stop.set()

    def check(self) -> None:
        """For the work to call between two steps.

        Raises:
            Stopped: it shall end.
        """
        if self.stopped:
            raise Stopped


async def in_thread(work: Callable[[], T], name: str) -> T:
    """Run ``work`` on a daemon thread and wait for it; its exception is raised here.

    A wait that is cancelled leaves the thread to itself.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(answer: list[T], error: Exception | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(answer[0])

    def run() -> None:
        answer: list[T] = []
        problem: Exception | None = None
        try:
            answer.append(work())
        except Exception as error:  # for who waits
            problem = error
        try:
            loop.call_soon_threadsafe(settle, answer, problem)
        except RuntimeError:
            return  # The loop is closed: nobody waits any more.

    threading.Thread(target=run, name=name, daemon=True).start()
    return await future
