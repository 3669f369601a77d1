"""One probe: is this Redis there, and what does it say of itself?

Owns: one connection to one endpoint, kept from probe to probe.
Never: judges; :mod:`redisha.health.state` does. Never uses a connection of the data plane.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

from redisha.core import ReplyError
from redisha.health.state import Failure, Outcome
from redisha.health.talk import RefusedError, Talk, Target, TooLongError


@dataclass(frozen=True, slots=True)
class Facts:
    """What a Redis says of itself in ``INFO``.

    Attributes:
        run_id: 40 hex digits that change with every start.
        redis_version: for example ``7.0.15``.
        role: ``master`` or ``slave``.
        loading: it reads its data from disk and answers nothing else.
        evicted_keys: keys evicted since the start.
        maxmemory_policy: for example ``noeviction``.
        maxmemory: bytes; 0 for no limit.
        used_memory: bytes.
    """

    run_id: str = ""
    redis_version: str = ""
    role: str = ""
    loading: bool = False
    evicted_keys: int = 0
    maxmemory_policy: str = ""
    maxmemory: int = 0
    used_memory: int = 0

    @property
    def may_evict(self) -> bool:
        """Whether it throws keys away when it is full."""
        return self.maxmemory > 0 and self.maxmemory_policy not in ("", "noeviction")


@dataclass(frozen=True, slots=True)
class Report:
    """One probe's result.

    Attributes:
        outcome: whether it passed, else why not.
        facts: what the server said; None when it could not be asked. A user who may PING but not INFO passes with None.
        took: seconds.
    """

    outcome: Outcome
    facts: Facts | None = None
    took: float = 0.0


class ProbeError(Exception):
    """A probe failed; carries the outcome."""

    def __init__(self, failure: Failure, reason: str) -> None:
        super().__init__(reason)
        self.outcome = Outcome(failure, reason)


def parse_info(text: str) -> dict[str, str]:
    """``INFO``'s lines as a dictionary; headings and lines without a colon are skipped."""
    pairs = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, colon, value in pairs if colon}


def facts_of(info: Mapping[str, str]) -> Facts:
    """The fields we use; one that is absent or no number keeps its default."""
    return Facts(
        run_id=info.get("run_id", ""),
        redis_version=info.get("redis_version", ""),
        role=info.get("role", ""),
        loading=info.get("loading", "0") != "0",
        evicted_keys=_number(info.get("evicted_keys")),
        maxmemory_policy=info.get("maxmemory_policy", ""),
        maxmemory=_number(info.get("maxmemory")),
        used_memory=_number(info.get("used_memory")),
    )


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0


class Probe:
    """A connection to one endpoint that can be asked again and again.

    Args:
        target: where and as whom.
        timeout: seconds for one whole probe, connecting included.
    """

    def __init__(self, target: Target, timeout: float) -> None:
        self.target = target
        self.timeout = timeout
        self._talk = Talk(target)

    async def ask(self) -> Report:
        """One probe: connect and AUTH if needed, ``PING``, ``INFO``. Never raises for what the server does."""
        start = time.monotonic()
        facts = None
        try:
            async with asyncio.timeout(self.timeout):
                facts = await self._exchange()
            outcome = Outcome(Failure.LOADING, "it is loading its data") if facts and facts.loading else Outcome()
        except TimeoutError:
            outcome = Outcome(Failure.TIMEOUT, f"no answer within {self.timeout:g} s")
        except OSError as error:
            # asyncio puts its own words over the system's; the number is the system's.
            outcome = Outcome(Failure.NETWORK, os.strerror(error.errno) if error.errno else str(error))
        except ProbeError as error:
            outcome = error.outcome
        except TooLongError as error:
            outcome = Outcome(Failure.ACTIVE, str(error))
        except RefusedError as error:
            outcome = _refusal(str(error)).outcome
        except ValueError as error:
            outcome = Outcome(Failure.ACTIVE, f"it does not speak RESP: {error}")
        if not outcome.passed and outcome.failure is not Failure.LOADING:
            self.close()
        return Report(outcome, facts, time.monotonic() - start)

    def close(self) -> None:
        """Drop the connection; the next probe makes a new one."""
        self._talk.close()

    async def _exchange(self) -> Facts | None:
        reused = self._talk.is_open
        try:
            return await self._converse()
        except ConnectionError:
            if not reused:
                raise
            self.close()  # An idle connection may die while the server lives: that alone is no failure.
            return await self._converse()

    async def _converse(self) -> Facts | None:
        reply = await self._talk.call(b"PING")
        if isinstance(reply, ReplyError):
            raise _refusal(str(reply.args[0]) if reply.args else "")
        if reply != b"PONG":
            raise ProbeError(Failure.ACTIVE, f"it answered PING with {reply!r:.60}")
        info = await self._talk.call(b"INFO")
        if isinstance(info, ReplyError):
            return None
        if not isinstance(info, bytes):
            raise ProbeError(Failure.ACTIVE, f"it answered INFO with {info!r:.60}")
        return facts_of(parse_info(info.decode(errors="replace")))


def _refusal(text: str) -> ProbeError:
    code = text.partition(" ")[0]
    if code == "LOADING":
        return ProbeError(Failure.LOADING, "it is loading its data")
    if code in {"NOAUTH", "WRONGPASS", "NOPERM"} or "AUTH" in text:
        return ProbeError(Failure.AUTH, text)
    return ProbeError(Failure.ACTIVE, text)
