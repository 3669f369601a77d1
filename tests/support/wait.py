"""Waiting for a condition, with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(look: Callable[[], T], what: str, timeout: float = 10.0, every: float = 0.01) -> T:
    """Call ``look`` until it returns something true, and return that.

    An ``OSError`` of ``look`` counts as "not yet". Past the deadline: ``AssertionError`` with ``what``
    and what was seen last.
    """
    deadline = time.monotonic() + timeout
    while True:
        seen: object
        try:
            result = look()
            if result:
                return result
            seen = result
        except OSError as error:
            seen = error
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout:g} s: {what} (last seen: {seen!r})")
        time.sleep(every)
