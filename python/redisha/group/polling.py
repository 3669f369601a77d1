"""Several questions at once, until there are answers enough."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable


async def ask_all(questions: Iterable[Coroutine[None, None, str]], needed: int) -> tuple[int, list[str]]:
    """Wait until so many have answered with yes, or all have answered. The others go on to their end by themselves.

    Args:
        questions: each gives why the answer is no; empty: it is yes. They raise nothing, and end by themselves.
        needed: how many are enough.

    Returns:
        How many said yes by then, and why the others did not.
    """
    waiting = {asyncio.ensure_future(question) for question in questions}
    _running.update(waiting)
    for each in waiting:
        each.add_done_callback(_running.discard)
    yes, reasons = 0, []
    while waiting and yes < needed:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        answers = [each.result() for each in done]
        yes += answers.count("")
        reasons += [reason for reason in answers if reason]
    return yes, reasons


_running: set[asyncio.Future[str]] = set()
"""What nobody waits for any more: a task must be held by somebody until its end."""
