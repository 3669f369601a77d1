"""The members' network is cut in two, in one direction, again and again, or is slow.

In network namespaces where they can be made (packets vanish, as on a broken cable), and through relays between the
peers' ports (``stall``: bytes vanish; ``refuse``: connections are reset and refused).
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from support import wait
from support.group_contest import Contest
from support.group_nets import Nets, NoNetsError
from support.group_stage import TIMEOUT_S, Groups, GroupStage, Member
from support.relay import Direction

ELECTED_S = 8.0
QUORUM = ("quorum",)


class Network:
    """A group whose network can be cut."""

    def __init__(self, stage: GroupStage, kind: str, nets: Nets | None) -> None:
        self.stage = stage
        self._kind = kind
        self._nets = nets

    def isolate(self, member: Member) -> None:
        """Nothing passes between this member and all others; clients reach all of them."""
        others = [each for each in self.stage.members if each is not member]
        if self._nets is not None:
            for each in others:
                self._nets.cut(member.place, each.place)
                self._nets.cut(each.place, member.place)
        for relay in self.stage.ways(member) if self._nets is None else ():
            if self._kind == "refuse":
                relay.refuse()
            else:
                relay.stall(Direction.UP)
                relay.stall(Direction.DOWN)

    def mute(self, member: Member) -> None:
        """What this member sends reaches no other member; it hears them."""
        assert self._nets is not None
        for each in self.stage.members:
            if each is not member:
                self._nets.cut(member.place, each.place)

    def deafen(self, member: Member) -> None:
        """What others send does not reach this member; they hear it."""
        assert self._nets is not None
        for each in self.stage.members:
            if each is not member:
                self._nets.cut(each.place, member.place)

    def heal(self) -> None:
        """All is well again."""
        if self._nets is not None:
            self._nets.heal()
            return
        for member in self.stage.members:
            for relay in self.stage.ways(member):
                relay.accept()
                relay.flow(Direction.UP)
                relay.flow(Direction.DOWN)


@pytest.fixture
def network(redis_server, sidecar, relay) -> Iterator[Callable[..., Network]]:
    """``network("nets", 3, **settings)`` is a group that can be cut: in namespaces, or by relays."""
    with contextlib.ExitStack() as cleanup:

        def make(kind: str, members: int, **settings) -> Network:
            groups = Groups(redis_server, sidecar, relay)
            if kind != "nets":
                return Network(groups(members, between=True, **settings), kind, None)
            try:
                nets = cleanup.enter_context(Nets(members))
            except NoNetsError as error:
                pytest.skip(f"no network namespaces here: {error}")
            return Network(groups(members, places=nets.places, **settings), kind, nets)

        yield make


def _finish(stage: GroupStage, contest: Contest) -> None:
    contest.stop()
    stage.assert_equal()
    one = stage[0]
    with one.place.inside():
        contest.assert_sane(one.redis)


def _refuses_writes(member: Member, key: str = "refused") -> None:
    """Within the timeout it says that nobody leads, and goes on answering reads."""

    def refused() -> bool:
        reply = member.ask("SET", key, 1)
        assert reply.startswith((b"-NOLEADER ", b"-INDOUBT ", b"-TIMEOUT ", b"+OK")), reply
        return reply.startswith(b"-NOLEADER ")

    wait.until(refused, f"{member.name} refuses writes", 10)
    reply = member.ask("GET", "known")
    assert reply == b"$5\r\nvalue\r\n", reply


KINDS = ["nets", pytest.param("stall", marks=pytest.mark.chaos), pytest.param("refuse", marks=pytest.mark.chaos)]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("who", ["leader", "follower"])
def test_consistent_three(network, kind: str, who: str, seed: int) -> None:
    """The majority goes on; who is alone answers reads and refuses writes; nothing acknowledged is missing."""
    net = network(kind, 3, on_partition="consistent", write_consistency="quorum", op_timeout="1s")
    stage = net.stage
    assert stage[0].ask("SET", "known", "value") == b"+OK\r\n"
    stage.wait_in_sync()
    leader = stage.wait_leader()
    alone = leader if who == "leader" else stage.followers()[0]
    others = [member for member in stage.members if member is not alone]
    with Contest(stage.members, seed=seed) as contest:
        contest.goes_on(100)
        begun = time.monotonic()
        net.isolate(alone)
        contest.goes_on(50, others)
        for member in others:
            assert contest.gap(member, begun) < ELECTED_S
        assert stage.wait_leader(others) in others
        _refuses_writes(alone)
        # What it has acknowledged since, it must have had from the majority.
        quiet = time.monotonic()
        wait.until(lambda: contest.succeeded(others[0], quiet) > 100, "the majority goes on", 20)
        assert contest.succeeded(alone, quiet) == 0
        net.heal()
        stage.wait_counted()
        contest.goes_on(50)
    _finish(stage, contest)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("which", ["mute", "deaf"])
@pytest.mark.parametrize("who", ["leader", "follower"])
def test_one_way_consistent_three(network, which: str, who: str, seed: int) -> None:
    """The same with a cut in one direction."""
    net = network("nets", 3, on_partition="consistent", write_consistency="quorum", op_timeout="1s")
    stage = net.stage
    stage.wait_in_sync()
    leader = stage.wait_leader()
    victim = leader if who == "leader" else stage.followers()[0]
    others = [member for member in stage.members if member is not victim]
    with Contest(stage.members, seed=seed) as contest:
        contest.goes_on(100)
        begun = time.monotonic()
        (net.mute if which == "mute" else net.deafen)(victim)
        contest.goes_on(50, others)
        for member in others:
            assert contest.gap(member, begun) < ELECTED_S
        net.heal()
        stage.wait_counted()
        contest.goes_on(50)
    _finish(stage, contest)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", KINDS)
def test_consistent_two(network, kind: str, seed: int) -> None:
    """No arbiter: neither side writes while they do not see each other; both read; nothing is missing afterwards."""
    net = network(kind, 2, on_partition="consistent", write_consistency="quorum", op_timeout="1s")
    stage = net.stage
    assert stage[0].ask("SET", "known", "value") == b"+OK\r\n"
    stage.wait_in_sync()
    leader, _ = stage.pair()
    with Contest(stage.members, seed=seed) as contest:
        contest.goes_on(100)
        net.isolate(leader)
        for member in stage.members:
            _refuses_writes(member)
        quiet = time.monotonic()
        time.sleep(2 * TIMEOUT_S)
        assert contest.succeeded(None, quiet) == 0
        net.heal()
        stage.wait_counted()
        contest.goes_on(50)
    _finish(stage, contest)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", KINDS)
def test_available_two(network, kind: str) -> None:
    """Both sides write, own keys and common ones; afterwards both Redis are equal, and each key is one of the two."""
    net = network(kind, 2, op_timeout="1s")
    stage = net.stage
    one, _two = stage.members
    assert one.ask("SET", "both", "before") == b"+OK\r\n"
    stage.wait_in_sync()
    net.isolate(one)
    for member in stage.members:
        wait.until(
            lambda member=member: member.look().get("me", {}).get("role") == "leader", f"{member.name} leads alone", 20
        )
        assert member.ask("SET", f"of:{member.name}", 1) == b"+OK\r\n"
        assert member.ask("SET", "both", member.name) == b"+OK\r\n"
    net.heal()
    stage.assert_equal()
    values = {stage_member.ask("GET", "both") for stage_member in stage.members}
    assert values <= {b"$9\r\nredis-001\r\n", b"$9\r\nredis-002\r\n"}
    assert len(values) == 1


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", KINDS)
def test_available_two_are_merged(network, kind: str) -> None:
    """What only one side wrote is kept, the later one of two writes wins, the other one is told of."""
    net = network(kind, 2, op_timeout="1s")
    stage = net.stage
    one, two = stage.members
    net.isolate(one)
    for member in (one, two):
        wait.until(
            lambda member=member: member.look().get("me", {}).get("role") == "leader", f"{member.name} leads alone", 20
        )
        for number in range(50):
            assert member.ask("SET", f"of:{member.name}:{number}", number) == b"+OK\r\n"
    assert one.ask("SET", "both", "earlier") == b"+OK\r\n"
    time.sleep(0.1)
    assert two.ask("SET", "both", "later") == b"+OK\r\n"
    net.heal()
    stage.assert_equal()
    for member in stage.members:
        assert member.ask("GET", "both") == b"$5\r\nlater\r\n"
        for number in range(50):
            for each in stage.members:
                assert member.ask("EXISTS", f"of:{each.name}:{number}") == b":1\r\n"
    assert any("earlier" in str(each) or "both" in str(each) for member in stage.members for each in member.conflicts())


@pytest.mark.chaos
@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", ["nets", "refuse"])
@pytest.mark.parametrize("members", [2, 3])
def test_flapping(network, kind: str, members: int, seed: int) -> None:
    """Cut and healed ten times, for less and for more than the timeout; ``consistent``."""
    net = network(kind, members, on_partition="consistent", write_consistency="quorum", op_timeout="1s")
    stage = net.stage
    with Contest(stage.members, seed=seed) as contest:
        for round_ in range(10):
            net.isolate(stage.members[round_ % members])
            time.sleep((0.3, 1.2, 3.0)[round_ % 3] * TIMEOUT_S)
            net.heal()
            time.sleep(0.5 * TIMEOUT_S)
        stage.wait_counted(60)
        contest.goes_on(50)
    _finish(stage, contest)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("delay", [0.005, pytest.param(0.05, marks=pytest.mark.chaos)])
def test_slow_network(redis_server, sidecar, relay, delay: float, seed: int) -> None:
    """Every piece of data between the members is late, both ways: slower, and nothing else."""
    stage = Groups(redis_server, sidecar, relay)(2, between=True)
    relays: Sequence = [relay for member in stage.members for relay in stage.ways(member)]
    for each in relays:
        each.delay(delay, Direction.UP)
        each.delay(delay, Direction.DOWN)
    with Contest(stage.members, seed=seed, consistency=QUORUM, transactions=True) as contest:
        contest.goes_on(40, timeout=60)
    contest.assert_no_errors()
    _finish(stage, contest)


@pytest.mark.chaos
@pytest.mark.timeout(120)
def test_resets_depose_no_leader(redis_server, sidecar, relay, seed: int) -> None:
    """One reset of all connections between two healthy members each second: nobody else has to lead for that."""
    stage = Groups(redis_server, sidecar, relay)(2, between=True)
    relays = {id(each): each for member in stage.members for each in stage.ways(member)}
    term = stage.wait_leader().info()["me"]["term"]
    with Contest(stage.members, seed=seed, consistency=QUORUM) as contest:
        for _ in range(15):
            for each in relays.values():
                each.cut()
            time.sleep(1)
        assert stage.wait_leader().info()["me"]["term"] == term
    _finish(stage, contest)


@pytest.mark.timeout(120)
def test_connections_between_members_are_reset(redis_server, sidecar, relay, seed: int) -> None:
    """Again and again, shorter than anything is noticed: INDOUBT for what was in flight, nothing twice, equal."""
    stage = Groups(redis_server, sidecar, relay)(2, between=True)
    relays = {id(each): each for member in stage.members for each in stage.ways(member)}
    with Contest(stage.members, seed=seed, consistency=QUORUM) as contest:
        for _ in range(10):
            contest.goes_on(10)
            for each in relays.values():
                each.cut()
        contest.goes_on(50)
    assert all(error.startswith("-INDOUBT ") for error in contest.errors())
    _finish(stage, contest)
