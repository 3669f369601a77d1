"""Thresholds and hysteresis of :mod:`redisha.health.state`."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisha.health.state import Failure, Health, Outcome, Thresholds, Transition, Verdict, judge

PASS = Outcome()
FAIL = Outcome(Failure.NETWORK, "connection refused")

outcomes = st.sampled_from([PASS, FAIL, Outcome(Failure.TIMEOUT, "slow"), Outcome(Failure.LOADING, "loading")])
thresholds = st.builds(Thresholds, healthy=st.integers(1, 5), unhealthy=st.integers(1, 5))


def run(sequence: list[Outcome], limits: Thresholds) -> tuple[Verdict, list[Transition]]:
    verdict, transitions = Verdict(), []
    for now, outcome in enumerate(sequence):
        verdict, transition = judge(verdict, outcome, limits, float(now))
        transitions += [transition] if transition is not None else []
    return verdict, transitions


@pytest.mark.parametrize(
    ("sequence", "health", "since"),
    [
        ([], Health.UNKNOWN, 0),
        ([PASS], Health.HEALTHY, 0),
        ([FAIL], Health.UNHEALTHY, 0),
        ([PASS, FAIL, FAIL], Health.HEALTHY, 0),
        ([PASS, FAIL, FAIL, FAIL], Health.UNHEALTHY, 3),
        ([PASS, FAIL, FAIL, PASS, FAIL, FAIL], Health.HEALTHY, 0),
        ([FAIL, PASS], Health.UNHEALTHY, 0),
        ([FAIL, PASS, PASS], Health.HEALTHY, 2),
        ([FAIL, PASS, FAIL, PASS], Health.UNHEALTHY, 0),
    ],
)
def test_first_result_decides_and_then_it_takes_several(sequence: list[Outcome], health: Health, since: float) -> None:
    verdict, _ = run(sequence, Thresholds(healthy=2, unhealthy=3))
    assert (verdict.health, verdict.since) == (health, since)


def test_transition_names_the_reason() -> None:
    _, transitions = run([PASS, FAIL], Thresholds(1, 1))
    assert transitions == [
        Transition(Health.UNKNOWN, Health.HEALTHY, ""),
        Transition(Health.HEALTHY, Health.UNHEALTHY, "connection refused"),
    ]


@given(st.lists(outcomes), thresholds)
def test_counters_add_up(sequence: list[Outcome], limits: Thresholds) -> None:
    verdict, _ = run(sequence, limits)
    assert verdict.attempt == len(sequence) == verdict.success + verdict.failure
    assert verdict.network_failure <= verdict.failure
    assert verdict.reason == (sequence[-1].reason if sequence else "")


@given(st.lists(outcomes, min_size=1), thresholds)
def test_transitions_chain_and_end_at_the_verdict(sequence: list[Outcome], limits: Thresholds) -> None:
    verdict, transitions = run(sequence, limits)
    assert transitions[0].before is Health.UNKNOWN
    assert all(a.after is b.before for a, b in itertools.pairwise(transitions))
    assert all(each.before is not each.after for each in transitions)
    assert transitions[-1].after is verdict.health


@given(st.lists(outcomes, min_size=1), thresholds)
def test_state_is_left_only_after_enough_results_in_a_row(sequence: list[Outcome], limits: Thresholds) -> None:
    verdict = Verdict()
    row = 0
    for now, outcome in enumerate(sequence):
        before = verdict.health
        verdict, transition = judge(verdict, outcome, limits, float(now))
        against = before is not Health.UNKNOWN and outcome.passed is not (before is Health.HEALTHY)
        row = row + 1 if against else 0
        needed = limits.healthy if outcome.passed else limits.unhealthy
        if before is not Health.UNKNOWN:
            assert (transition is not None) == (against and row >= needed)
        if transition is not None:
            row = 0


@given(st.lists(outcomes), thresholds)
def test_enough_equal_results_settle_it(sequence: list[Outcome], limits: Thresholds) -> None:
    assert run([*sequence, *[PASS] * limits.healthy], limits)[0].health is Health.HEALTHY
    assert run([*sequence, *[FAIL] * limits.unhealthy], limits)[0].health is Health.UNHEALTHY


@pytest.mark.parametrize("values", [(0, 1), (1, 0), (-1, 3)])
def test_thresholds_are_at_least_one(values: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Thresholds(*values)
