"""Long work on a thread of its own: :mod:`redisha.background`."""

import asyncio
import threading

import pytest

from redisha.background import Job, Stopped, in_thread


async def test_the_answer_and_the_error_come_back() -> None:
    assert await in_thread(lambda: threading.current_thread().name, "work") == "work"
    assert await in_thread(lambda: None, "work") is None
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 // 0, "work")


async def test_a_wait_that_is_cancelled_leaves_the_thread_to_itself() -> None:
    release, ended = threading.Event(), threading.Event()

    def work() -> None:
        release.wait(5)
        ended.set()

    task = asyncio.create_task(in_thread(work, "work"))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    release.set()
    assert await asyncio.to_thread(ended.wait, 5)
    await asyncio.sleep(0.05)  # its answer comes to nobody


def test_a_job_is_told_to_stop() -> None:
    job = Job()
    job.check()
    job.done = 5
    job.restart()
    assert job.done == 0
    job.stop()
    with pytest.raises(Stopped):
        job.check()


def test_a_loop_that_is_closed_is_not_told() -> None:
    release, ended = threading.Event(), threading.Event()

    def work() -> None:
        release.wait(5)

    async def begin() -> None:
        task = asyncio.create_task(in_thread(work, "left behind"))
        await asyncio.sleep(0.05)
        task.cancel()

    asyncio.run(begin())
    (thread,) = [each for each in threading.enumerate() if each.name == "left behind"]
    release.set()
    thread.join(5)
    assert not thread.is_alive()
    assert not ended.is_set()
