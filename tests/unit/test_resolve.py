"""Names, their refresh and their failures: :mod:`redisha.resolve`."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisha.resolve import (
    BACKOFF_FIRST,
    TTL_FLOOR,
    Answer,
    Change,
    NameState,
    Policy,
    Resolver,
    answered,
    delay,
    failed,
    in_thread,
    system_lookup,
    unique,
)

FAST = Policy(refresh=0.02)
ips = st.ip_addresses().map(str)


def test_answer_changes_addresses_once() -> None:
    state, change = answered(NameState(), ["10.0.0.2", "10.0.0.1"])
    assert (state.addresses, change) == (("10.0.0.1", "10.0.0.2"), Change.ADDRESSES)
    state, change = answered(state, ["10.0.0.1", "10.0.0.2", "10.0.0.1"])
    assert change is Change.NONE
    assert (state.attempt, state.success, state.failure) == (2, 2, 0)


def test_failure_keeps_the_last_good_addresses_and_is_told_once_per_reason() -> None:
    state, _ = answered(NameState(), ["10.0.0.1"])
    state, first = failed(state, "name not known")
    state, second = failed(state, "name not known")
    state, other = failed(state, "no answer")
    assert [first, second, other] == [Change.FAILED, Change.NONE, Change.FAILED]
    assert state.addresses == ("10.0.0.1",)
    assert state.failures == 3
    state, change = answered(state, ["10.0.0.1"])
    assert (change, state.failures, state.error) == (Change.RECOVERED, 0, "")


def test_empty_answer_is_a_failure() -> None:
    state, change = answered(answered(NameState(), ["::1"])[0], [])
    assert (state.addresses, state.error, change) == (("::1",), "no addresses", Change.FAILED)


def test_delay_backs_off_only_while_nothing_is_known() -> None:
    unknown = [delay(NameState(failures=count), 5.0) for count in range(1, 9)]
    assert unknown[0] == BACKOFF_FIRST
    assert unknown == sorted(unknown)
    assert unknown[-1] == 5.0
    assert delay(NameState(addresses=("::1",), failures=3), 5.0) == 5.0
    assert delay(NameState(addresses=("::1",), ttl=30.0), 5.0) == 30.0
    assert delay(NameState(addresses=("::1",), ttl=0.0), 5.0) == TTL_FLOOR


@given(st.lists(ips), st.randoms())
def test_order_and_repetition_of_an_answer_do_not_matter(addresses: list[str], random: st.DataObject) -> None:
    shuffled = addresses + addresses[:2]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert unique(shuffled) == unique(addresses)
    assert set(unique(addresses)) == set(addresses)


@given(st.lists(st.one_of(st.none(), st.lists(ips, max_size=3))))
def test_counters_add_up_and_good_addresses_are_never_lost(answers: list[list[str] | None]) -> None:
    state, known = NameState(), False
    for answer in answers:
        state, _ = failed(state, "no") if answer is None else answered(state, answer)
        known = known or bool(answer)
        assert bool(state.addresses) == known
    assert state.attempt == len(answers) == state.success + state.failure


def test_system_lookup_knows_localhost_and_both_families() -> None:
    found = unique(system_lookup("localhost").addresses)
    assert "127.0.0.1" in found or "::1" in found


def test_system_lookup_refuses_an_unknown_name() -> None:
    with pytest.raises(OSError, match=r"\w"):
        system_lookup("does-not-exist.invalid")


class Names:
    """A lookup with answers that a test can change."""

    def __init__(self, **answers: list[str]) -> None:
        self.answers = answers
        self.asked = 0

    def __call__(self, name: str) -> Answer:
        self.asked += 1
        if name not in self.answers:
            raise OSError(-2, "Name or service not known")
        return Answer(tuple(self.answers[name]))


async def until(condition: Callable[[], object], limit: float = 5.0) -> None:
    async with asyncio.timeout(limit):
        while not condition():  # noqa: ASYNC110 - the condition has no event
            await asyncio.sleep(0.005)


async def test_resolver_follows_a_name_that_appears_moves_and_goes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "redisha.resolve")
    names, changed = Names(), []
    resolver = Resolver(changed.append, names)
    resolver.add({"redis-001": FAST})
    assert await resolver.first_answers(2.0)
    assert resolver.addresses() == {"redis-001": ()}

    names.answers["redis-001"] = ["10.0.0.1"]
    await until(lambda: resolver.addresses()["redis-001"] == ("10.0.0.1",))
    names.answers["redis-001"] = ["10.0.0.3", "10.0.0.2"]
    await until(lambda: resolver.addresses()["redis-001"] == ("10.0.0.2", "10.0.0.3"))
    del names.answers["redis-001"]
    await until(lambda: resolver.states()["redis-001"].failures > 3)
    assert resolver.addresses()["redis-001"] == ("10.0.0.2", "10.0.0.3")
    assert changed == ["redis-001", "redis-001"]
    # One line per change, however often it is asked.
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "INFO", "WARNING"]
    await resolver.close()


async def test_names_come_and_go_and_a_new_policy_keeps_the_addresses() -> None:
    resolver = Resolver(lambda name: None, Names(a=["10.0.0.1"], b=["10.0.0.2"]))
    resolver.add({"a": FAST, "b": FAST})
    assert await resolver.first_answers(2.0)
    resolver.keep_only({"a"})
    resolver.add({"a": Policy(refresh=60)})
    assert resolver.addresses() == {"a": ("10.0.0.1",)}
    await resolver.close()
    assert resolver.addresses() == {}


async def test_a_resolver_that_hangs_delays_neither_start_nor_end() -> None:
    release = threading.Event()

    def hang(name: str) -> Answer:
        release.wait(20)
        return Answer(("10.0.0.1",))

    resolver = Resolver(lambda name: None, hang)
    started = time.monotonic()
    resolver.add({"redis-001": FAST})
    assert not await resolver.first_answers(0.05)
    await resolver.close()
    assert time.monotonic() - started < 2
    assert all(thread.daemon for thread in threading.enumerate() if thread.name.startswith("resolve"))
    release.set()


async def test_an_odd_error_of_a_lookup_is_one_failed_lookup() -> None:
    def broken(name: str) -> Answer:
        raise UnicodeError("label too long")

    with pytest.raises(OSError, match="UnicodeError: label too long"):
        await in_thread(broken, "x" * 70)
