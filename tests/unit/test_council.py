"""Councils of a group in simulated worlds, for hundreds of seeds: :mod:`redisha.group.council`.

``SEED=n`` plays one seed and prints its story, ``SEEDS=n`` plays more of them. See :mod:`support.group_world`.
"""

import asyncio
import json
import logging
import os
import random
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redisha.group.council import Council, since_boot
from redisha.group.handover import HandOverError
from redisha.group.plane import PeerError
from redisha.group.view import OnPartition, Settings
from support.group_faults import Faults
from support.group_world import World
from support.virtual_loop import run

CONSISTENT = Settings(on_partition=OnPartition.CONSISTENT)
WITH_ARBITER = Settings(on_partition=OnPartition.CONSISTENT, has_arbiter=True)
AVAILABLE = Settings()

SEEDS = int(os.environ.get("SEEDS", "90"))
HARM = 6.0
"""Seconds of faults in one seed's story."""
HEALED = 12.0
"""Seconds after which a group is well that is left alone."""


def kind(seed: int, consistent: bool) -> tuple[int, Settings, bool]:
    """How many members, the settings, and whether ballots outlive processes."""
    rng = random.Random(seed)
    count = rng.choice([2, 2, 3, 3, 5])
    on_partition = OnPartition.CONSISTENT if consistent else OnPartition.AVAILABLE
    arbiter = count == 2 and rng.random() < 0.6
    return count, Settings(on_partition=on_partition, has_arbiter=arbiter), consistent or rng.random() < 0.7


async def play(seed: int, consistent: bool) -> tuple[World, str]:
    """One seed's story, and what is wrong with it."""
    world = World(seed, *kind(seed, consistent))
    for name in world.members:
        world.start(name)
    founded = await world.settle(8)
    await Faults(world).run(HARM)
    await asyncio.sleep(0.3)
    world.heal()
    well = await world.settle(HEALED)
    wrong = world.broken[0] if world.broken else ""
    if not wrong and not (founded and well):
        wrong = "nobody leads" if founded else "the group did not begin"
    world.stop()
    await asyncio.sleep(0.01)
    return world, wrong


@pytest.mark.parametrize("mode", ["consistent", "available"])
def test_whatever_happens(mode: str) -> None:
    one = os.environ.get("SEED")
    led = 0
    for seed in range(SEEDS) if one is None else [int(one)]:
        world, wrong = run(play(seed, mode == "consistent"))
        led += len(world.leads)
        if one is not None:
            print(*world.story, sep="\n")
        again = f"SEED={seed} pytest tests/unit/test_council.py -k {mode}"
        assert not wrong, "\n".join([f"{wrong}; {again}", *world.story[-40:]])
    assert led > SEEDS or one is not None, "hardly anything happened"


# --- single stories ---------------------------------------------------------------------------------------------------


async def begun(count: int, of: Settings, seed: int = 1, durable: bool = True) -> World:
    """A group that is well."""
    world = World(seed, count, of, durable)
    world.stalls = 0.0
    for name in world.members:
        world.start(name)
    assert await world.settle(8), world.story
    return world


def told(story: Callable[[], object]) -> None:
    """Run a story in virtual time; everything that must hold always must have held."""

    async def main() -> None:
        world = await story()  # type: ignore[misc]
        world.stop()
        await asyncio.sleep(0.01)
        assert not world.broken, world.story

    run(main())


def council(world: World, name: str) -> Council:
    found = world.members[name].council
    assert found is not None
    return found


def part(world: World, name: str) -> None:
    """Cut one off from all others."""
    for other in world.members:
        if other != name:
            world.cuts |= {(name, other), (other, name)}


async def until(world: World, holds: Callable[[], bool], seconds: float) -> float:
    """How long it took."""
    began = world.now
    while not holds():
        assert world.now - began < seconds, world.story
        await asyncio.sleep(0.005)
    return world.now - began


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("on_partition", [AVAILABLE, CONSISTENT])
def test_a_new_group_is_led_by_its_lowest_name_at_once(count: int, on_partition: Settings) -> None:
    async def story() -> World:
        world = World(count, count, on_partition)
        for name in world.members:
            world.start(name)
        assert await until(world, lambda: world.leaders() == ["m1"], 1) < 1
        return world

    told(story)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_lone_member_leads_in_time(count: int) -> None:
    async def story(seed: int) -> World:
        world = await begun(count, AVAILABLE, seed)
        name = world.rng.choice([name for name in world.members if name not in world.leaders()])
        await asyncio.sleep(world.rng.random())
        part(world, name)
        share = (int(name[1:]) - 1) * 0.25
        await until(world, lambda: name in world.leaders(), 1.0 + share + 0.2)
        world.heal()
        assert await world.settle(5), world.story
        return world

    for seed in range(8):
        told(lambda seed=seed: story(seed))  # type: ignore[misc]


def test_a_lone_member_leads_nothing_where_it_must_be_consistent() -> None:
    async def story() -> World:
        world = await begun(3, CONSISTENT)
        part(world, "m1")
        await until(world, lambda: "m1" not in world.leaders() != [], 3)
        leaders = world.leaders()
        await asyncio.sleep(2)
        assert world.leaders() == leaders
        return world

    told(story)


@pytest.mark.parametrize("of", [AVAILABLE, CONSISTENT, WITH_ARBITER])
def test_the_leadership_is_handed_over_in_a_moment(of: Settings) -> None:
    async def story() -> World:
        world = await begun(2, of)
        began = world.now
        assert await council(world, "m1").hand_over("m2") == "m2"
        assert world.now - began < 0.3
        assert await council(world, "m1").hand_over(None) == "m2"
        assert await world.settle(4)
        assert world.leaders() == ["m2"]
        return world

    told(story)


def test_a_hand_over_that_cannot_be_says_why() -> None:
    async def refused(world: World, name: str, to: str | None, says: str) -> None:
        with pytest.raises(HandOverError, match=says):
            await council(world, name).hand_over(to, 0.5)

    async def story() -> World:
        world = await begun(3, AVAILABLE)
        await refused(world, "m1", "m9", "m9 is not heard; heard are: m2, m3")
        await refused(world, "m2", "m3", "this member does not lead: ask m1, which does")
        assert await council(world, "m2").hand_over("m1") == "m1"
        assert await council(world, "m1").hand_over("m1") == "m1"
        world.redis_down("m2")
        await asyncio.sleep(0.5)
        await refused(world, "m1", "m2", "no successor has everything: m2 lacks")
        assert world.leaders() == ["m1"]
        world.redis_up("m2")
        world.crash("m2")
        world.crash("m3")
        await asyncio.sleep(1.1)
        await refused(world, "m1", None, "no other member is not heard; heard are: none|no other member is heard")
        assert world.leaders() == ["m1"]
        return world

    told(story)


def test_a_leader_that_does_not_learn_whether_it_was_heard_leads_no_more() -> None:
    async def story() -> World:
        world = await begun(3, CONSISTENT)
        plane = world.members["m1"].plane
        assert plane is not None

        async def lost(*_: object) -> dict[str, object]:
            raise PeerError("no answer")

        plane.ask = lost  # type: ignore[method-assign]
        leader = await council(world, "m1").hand_over(None)
        assert leader in ("m2", "m3")
        return world

    told(story)


def test_clients_hardly_notice_that_the_leaders_redis_is_lost() -> None:
    async def story() -> World:
        world = await begun(3, AVAILABLE)
        world.redis_down("m1")
        assert await until(world, lambda: world.leaders() == ["m2"], 1) < 0.4
        world.redis_up("m1")
        assert await world.settle(4)
        return world

    told(story)


def test_one_that_lost_its_disk_does_not_vote_before_it_is_filled() -> None:
    async def story() -> World:
        world = await begun(3, CONSISTENT)
        world.crash("m3")
        world.members["m3"].saved = None
        world.redis_down("m3")
        world.start("m3")
        await asyncio.sleep(0.5)
        world.crash("m1")
        await asyncio.sleep(4)
        assert world.leaders() == []
        world.start("m1")
        world.redis_up("m3")
        assert await world.settle(5), world.story
        assert world.members["m3"].saved is not None
        assert world.members["m3"].saved.trusted
        return world

    told(story)


def test_a_member_is_recorded_only_when_it_has_what_was_acknowledged() -> None:
    async def story() -> World:
        world = await begun(3, CONSISTENT)
        part(world, "m3")
        await until(world, lambda: council(world, "m1").look().recorded == ("m1", "m2"), 3)
        world.cuts = set()
        leader = world.members["m1"].plane
        assert leader is not None
        await until(world, lambda: leader.is_in_sync("m3"), 2)
        leader.replicas["m3"].stalled_until = world.now + 0.8
        missing = world.acknowledged
        await until(world, lambda: council(world, "m1").look().recorded == ("m1", "m2", "m3"), 3)
        assert not missing & ~world.members["m3"].redis.bits
        return world

    told(story)


def test_members_without_disks_go_on_where_they_may() -> None:
    async def story() -> World:
        world = await begun(2, AVAILABLE, durable=False)
        world.crash("m1")
        world.crash("m2")
        world.start("m1")
        world.start("m2")
        assert await world.settle(6), world.story
        return world

    told(story)


def test_two_founded_apart_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> World:
        world = World(1, 2, AVAILABLE)
        part(world, "m1")
        world.start("m1")
        world.start("m2")
        await until(world, lambda: world.leaders() == ["m1", "m2"], 5)
        world.cuts = set()
        await asyncio.sleep(3)
        return world

    told(story)
    assert "redisha init --from m1" in caplog.text


def test_an_operator_reads_of_each_change_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "redisha.group")

    async def story() -> World:
        world = await begun(2, CONSISTENT)
        world.crash("m1")
        await asyncio.sleep(5)
        return world

    told(story)
    lines = [record.getMessage() for record in caplog.records]
    assert lines.count("group cache: this member leads, term 1") == 1
    assert lines.count("group cache: m1 leads, term 1") == 1
    assert sum("no member leads: no majority" in line for line in lines) == 1


# --- messages ---------------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "m1", "m2", "complete"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["term", "recorded"]), inner, max_size=2)
    ),
    max_leaves=4,
)
fields = ["term", "member", "data", "data_set", "position", "pre", "leader_yields", "recorded"]
garbage = st.fixed_dictionaries(
    {"type": st.sampled_from(["vote", "take_over", "record", "other"]), "v": st.sampled_from([1, 1, 1, 2, None])},
    optional=dict.fromkeys(fields, json_values),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(garbage, max_size=8))
def test_what_is_not_understood_is_answered_with_an_error(messages: list[dict[str, object]]) -> None:
    async def story() -> World:
        world = World(1, 2, AVAILABLE)
        world.start("m1")
        await asyncio.sleep(0.1)
        for message in [{}, {"type": "vote"}, *messages]:
            answer = await council(world, "m1").on_message("m2", json.loads(json.dumps(message)))
            json.dumps(answer)
            assert "error" in answer or answer["v"] == 1
            if message.get("v") != 1 or message["type"] == "other":
                assert "error" in answer
        return world

    told(story)


def test_nobody_asks_for_a_vote_for_another() -> None:
    async def story() -> World:
        world = await begun(2, AVAILABLE)
        message = {"type": "vote", "v": 1, "term": 9, "member": "m3", "data": "complete", "data_set": "x"}
        message |= {"position": [1, 1], "pre": False, "leader_yields": False, "recorded": None}
        answer = await council(world, "m1").on_message("m2", message)
        assert answer["error"] == "m2 asks for a vote for m3"
        return world

    told(story)


# --- the process ------------------------------------------------------------------------------------------------------


def test_a_fault_in_a_step_does_not_end_the_council(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> World:
        world = await begun(2, AVAILABLE)
        plane = world.members["m2"].plane
        assert plane is not None
        look = plane.status

        def broken() -> object:
            raise RuntimeError("broken")

        plane.status = broken  # type: ignore[method-assign,assignment]
        await asyncio.sleep(0.5)
        plane.status = look  # type: ignore[method-assign]
        world.crash("m1")
        await until(world, lambda: world.leaders() == ["m2"], 3)
        return world

    told(story)
    assert "a step of the group's election failed" in caplog.text


def test_the_clock_is_that_of_leases() -> None:
    assert since_boot() > time.monotonic() - 1  # It goes on while the machine sleeps.
