"""STRICT_DNS: names become addresses on a timer, and the last good answer outlives any failure.

Owns: one task per name, its last good addresses and its counters.
Never: resolves on the data path, or lets a resolver that hangs delay start or shutdown: each lookup runs on a daemon
thread of its own, because the threads of asyncio's executor and of libuv are joined when a process ends.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib import import_module
from importlib.util import find_spec
from ipaddress import ip_address

log = logging.getLogger(__name__)

DNS_REFRESH = 5.0
"""Seconds between two lookups of a name, as in Envoy."""

LOOKUP_LIMIT = 10.0
"""Seconds after which a lookup counts as failed; its answer, should it still come, is dropped."""

BACKOFF_FIRST = 0.2
"""Seconds until the first retry of a name that has never resolved; doubles up to the refresh interval."""

TTL_FLOOR = 1.0
"""Seconds: a record's shorter time to live is not believed."""


class Change(StrEnum):
    """What an answer changed."""

    NONE = "none"
    ADDRESSES = "addresses"
    FAILED = "failed"
    """It failed, for another reason than last time or for the first time."""
    RECOVERED = "recovered"
    """It resolves again, to the same addresses."""


@dataclass(frozen=True, slots=True)
class NameState:
    """What is known of one name.

    Attributes:
        addresses: the last good answer, sorted; empty when there has been none.
        error: why the last lookup failed, empty when it did not.
        failures: failed lookups in a row.
        attempt: lookups so far (``success`` and ``failure`` of them).
        ttl: seconds the last answer may be kept, when the resolver tells and is asked to.
    """

    addresses: tuple[str, ...] = ()
    error: str = ""
    failures: int = 0
    attempt: int = 0
    success: int = 0
    failure: int = 0
    ttl: float | None = None


def answered(state: NameState, addresses: Iterable[str], ttl: float | None = None) -> tuple[NameState, Change]:
    """A lookup gave ``addresses``. An empty answer is a failure: a name without addresses helps nobody."""
    chosen = unique(addresses)
    if not chosen:
        return failed(state, "no addresses")
    fresh = replace(
        state,
        addresses=chosen,
        error="",
        failures=0,
        attempt=state.attempt + 1,
        success=state.success + 1,
        ttl=ttl,
    )
    if chosen != state.addresses:
        return fresh, Change.ADDRESSES
    return fresh, Change.RECOVERED if state.error else Change.NONE


def failed(state: NameState, error: str) -> tuple[NameState, Change]:
    """A lookup failed; the last good addresses stay."""
    fresh = replace(
        state, error=error, failures=state.failures + 1, attempt=state.attempt + 1, failure=state.failure + 1
    )
    return fresh, Change.NONE if error == state.error else Change.FAILED


def delay(state: NameState, refresh: float = DNS_REFRESH) -> float:
    """Seconds until the next lookup: soon while the name has never resolved, then the refresh interval or the TTL."""
    if state.addresses:
        return refresh if state.ttl is None else max(TTL_FLOOR, state.ttl)
    return float(min(refresh, BACKOFF_FIRST * 2 ** min(max(state.failures - 1, 0), 16)))


def unique(addresses: Iterable[str]) -> tuple[str, ...]:
    """The addresses without repetition, in an order that does not depend on the resolver's, which often rotates."""
    known = {ip_address(address) for address in addresses}
    return tuple(str(address) for address in sorted(known, key=lambda address: (address.version, int(address))))


@dataclass(frozen=True, slots=True)
class Answer:
    """A lookup's answer: addresses as text and, if known, the seconds it may be kept."""

    addresses: tuple[str, ...]
    ttl: float | None = None


Lookup = Callable[[str], Answer]
"""Resolves one name, may block; raises ``OSError`` when it cannot."""


def system_lookup(name: str) -> Answer:
    """Ask the system's resolver (``/etc/hosts``, DNS, whatever it is set up for)."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return Answer(tuple(str(address[0]) for *_, address in found))


def ttl_lookup(name: str) -> Answer:
    """Like :func:`system_lookup`, and asks DNS for the record's time to live through dnspython, where installed.

    A name that is in ``/etc/hosts`` only, or whose TTL cannot be had, is refreshed at the usual interval.
    """
    resolver = import_module("dns.resolver")  # optional, and without types where it is not installed
    failure = import_module("dns.exception").DNSException
    answer = system_lookup(name)
    family = "A" if any(":" not in address for address in answer.addresses) else "AAAA"
    try:
        rrset = resolver.resolve(name, family, search=True, lifetime=LOOKUP_LIMIT / 2).rrset
    except (failure, OSError):
        return answer
    return replace(answer, ttl=float(rrset.ttl)) if rrset is not None else answer


@functools.cache
def default_lookup(respect_dns_ttl: bool) -> Lookup:
    """The lookup to use; notes on the log, once, when the TTL is asked for and dnspython is not there."""
    if not respect_dns_ttl:
        return system_lookup
    if find_spec("dns") is None:
        log.warning("respect_dns_ttl needs dnspython, which is not installed: names are refreshed on the timer")
        return system_lookup
    return ttl_lookup


async def in_thread(lookup: Lookup, name: str) -> Answer:
    """Run a lookup on a daemon thread and wait at most ``LOOKUP_LIMIT`` for it.

    Raises:
        OSError: the lookup's own error, or ``TimeoutError``.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Answer] = loop.create_future()

    def settle(answer: Answer | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        elif answer is not None:
            future.set_result(answer)

    def run() -> None:
        answer, error = None, None
        try:
            answer = lookup(name)
        except OSError as problem:
            error = problem
        except Exception as problem:  # idna and friends: one bad name is one failed lookup
            error = OSError(f"{type(problem).__name__}: {problem}")
        try:
            loop.call_soon_threadsafe(settle, answer, error)
        except RuntimeError:
            return  # The loop is closed: nobody waits any more.

    threading.Thread(target=run, name=f"resolve {name}", daemon=True).start()
    async with asyncio.timeout(LOOKUP_LIMIT):
        return await future


@dataclass(frozen=True, slots=True)
class Policy:
    """How a name is resolved: seconds between lookups, and whether the record's TTL rules instead."""

    refresh: float = DNS_REFRESH
    respect_dns_ttl: bool = False


class Resolver:
    """Keeps a set of names resolved.

    Args:
        on_change: called in the loop when a name's addresses have changed.
        lookup: how to look a name up; by default what the name's policy asks for.
    """

    def __init__(self, on_change: Callable[[str], None], lookup: Lookup | None = None) -> None:
        self._on_change = on_change
        self._lookup = lookup
        self._states: dict[str, NameState] = {}
        self._policies: dict[str, Policy] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._tried: dict[str, asyncio.Event] = {}

    def add(self, names: Mapping[str, Policy]) -> None:
        """Resolve these names too, from now on. A known name with another policy is asked for anew, and kept."""
        for name, policy in names.items():
            if name in self._tasks and self._policies[name] == policy:
                continue
            if name in self._tasks:
                self._tasks[name].cancel()
            self._policies[name] = policy
            self._states.setdefault(name, NameState())
            self._tried.setdefault(name, asyncio.Event())
            self._tasks[name] = asyncio.create_task(self._keep(name, policy), name=f"resolve {name}")

    def keep_only(self, names: Iterable[str]) -> None:
        """Forget every other name."""
        for name in set(self._tasks) - set(names):
            self._tasks.pop(name).cancel()
            del self._states[name], self._tried[name], self._policies[name]

    async def first_answers(self, limit: float) -> bool:
        """Wait until each name was tried once, at most ``limit`` seconds; returns whether all were."""
        try:
            async with asyncio.timeout(limit):
                for tried in list(self._tried.values()):
                    await tried.wait()
        except TimeoutError:
            return False
        return True

    def addresses(self) -> dict[str, tuple[str, ...]]:
        """The last good addresses of each name; empty for one that never resolved."""
        return {name: state.addresses for name, state in self._states.items()}

    def states(self) -> dict[str, NameState]:
        """What is known of each name, for the admin server."""
        return dict(self._states)

    async def close(self) -> None:
        """Stop all tasks. A lookup that hangs is left behind on its daemon thread."""
        tasks = list(self._tasks.values())
        self.keep_only(())
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, name: str, policy: Policy) -> None:
        lookup = self._lookup or default_lookup(policy.respect_dns_ttl)
        while True:
            state = self._states[name]
            try:
                answer = await in_thread(lookup, name)
            except TimeoutError:
                state, change = failed(state, f"no answer within {LOOKUP_LIMIT:g} s")
            except OSError as error:
                state, change = failed(state, error.strerror or str(error))
            else:
                state, change = answered(state, answer.addresses, answer.ttl)
            self._states[name] = state
            self._tried[name].set()
            self._tell(name, state, change)
            await asyncio.sleep(delay(state, policy.refresh))

    def _tell(self, name: str, state: NameState, change: Change) -> None:
        if change is Change.ADDRESSES:
            log.info("%s resolves to %s", name, ", ".join(state.addresses))
            self._on_change(name)
        elif change is Change.RECOVERED:
            log.info("%s resolves again, to the same addresses", name)
        elif change is Change.FAILED:
            kept = f"keeping {', '.join(state.addresses)}" if state.addresses else "it has no endpoint until it does"
            log.warning("%s does not resolve: %s; %s", name, state.error, kept)
