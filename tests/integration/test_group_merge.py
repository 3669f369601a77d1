"""Both sides of a partition had a leader; afterwards one history is left, and what lost is in a file."""

import asyncio
import base64
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import redis
from redisha.background import Job, Stopped
from redisha.config.load import parse
from redisha.core import DataPlane, Event, EventKind
from redisha.errors import RedishaError
from redisha.group import merging
from redisha.group.conflicts import NAME, Conflicts
from redisha.group.expand import expand
from redisha.group.merge import MergeReport, Merges, merge
from redisha.group.status import Data, GroupStatus, Role
from redisha.plan import compile_plan
from support import every_type, wait
from support.equality import assert_same
from support.ports import free_port
from support.redis_server import RedisServer
from support.relay import Relay
from support.wire import Conn

SECRET = "among members"
HEARTBEAT_MS, MISSED = 50, 4
OVERDUE = 2 * HEARTBEAT_MS * MISSED / 1000
"""Seconds after which a write that was not acknowledged is no hiccup any more."""


class Member:
    """A data plane in front of a Redis of its own; the other one reaches it through a relay."""

    def __init__(self, name: str, server: RedisServer, folder: Path, relay: Callable[[int], Relay]) -> None:
        self.name = name
        self.server = server
        self.folder = folder
        self.peer_port, self.port = free_port(), free_port()
        self.door = relay(self.peer_port)
        self.plane = DataPlane()
        self.seen: list[Event] = []

    def join(self, other: "Member") -> None:
        """Run, and look for the other one."""
        text = (
            f"listeners: [{{bind: [127.0.0.1:{self.port}], group: cache}}]\n"
            f"group: {{name: cache, member: {self.name}, listen: 127.0.0.1:{self.peer_port}, "
            f"redis: {self.server.address}, peers: [{other.door.address}], secret: {SECRET}, "
            f"heartbeat: {HEARTBEAT_MS}ms, missed_heartbeats: {MISSED}}}\n"
        )
        config = expand(parse(text, "redisha.yaml", {}).config)
        self.plane.apply(compile_plan(config, {}, 1, str(self.folder), "test").to_json())

    def restart(self, other: "Member") -> None:
        """Another process takes the place of this one."""
        assert self.plane.join(5)
        self.plane = DataPlane()
        self.join(other)
        wait.until(lambda: self.plane.group() and self.group.me.data is Data.COMPLETE, "it knows its data again")

    @property
    def group(self) -> GroupStatus:
        status = self.plane.group()
        assert status is not None
        return status

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.peer_port}"

    def client(self, db: int = 0) -> redis.Redis:
        return redis.Redis(port=self.port, db=db, protocol=2, socket_timeout=10)

    def events(self, kind: EventKind) -> list[Event]:
        """All events of a kind since the start."""
        self.seen += self.plane.events()
        return [event for event in self.seen if event.kind is kind]


@dataclass
class Duo:
    """``a`` led first; ``b`` leads the newer term."""

    a: Member
    b: Member
    folder: Path
    conflicts: Conflicts = field(init=False)

    def __post_init__(self) -> None:
        self.conflicts = Conflicts(self.folder)

    def part(self) -> None:
        """Neither reaches the other any more, and both lead; ``a`` does from before."""
        settle(self)
        self.a.door.refuse()
        self.b.door.refuse()
        self.b.plane.lead(2)
        wait.until(lambda: self.b.group.me.role is Role.LEADER, "b leads")
        assert self.a.group.me.role is Role.LEADER

    def heal(self) -> str:
        """They see each other again, and ``b`` asks for the merge; returns the peer that it names."""
        later(OVERDUE)
        self.a.door.accept()
        self.b.door.accept()
        [event] = wait.until(lambda: self.b.events(EventKind.MERGE), "the event merge")
        assert event.detail == "cache"
        return event.subject

    def merge(self, own: str | None = None, conflicts: Conflicts | None = None) -> MergeReport:
        """What the control plane of ``b`` does."""
        kept = conflicts or self.conflicts
        return merge(own or self.b.address, self.a.address, "cache", "b", SECRET, "a", kept, Job())

    def finish(self, peer: str) -> int:
        """The data plane goes on: both are equal in the end; returns how many keys they have."""
        self.b.plane.merged(peer, ok=True)
        wait.until(lambda: self.b.group.peers[0].replica == "in_sync", "a is in sync")
        return assert_same(self.a.server, self.b.server)

    def lost(self) -> dict[tuple[int, bytes], tuple[str, str]]:
        """Key → loser and reason."""
        return {(line["db"], key_of(line)): (line["loser"], line["reason"]) for line in self.lines()}

    def lines(self) -> list[dict[str, Any]]:
        file = self.folder / NAME
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def key_of(line: dict[str, Any]) -> bytes:
    name: str = line["key"]
    return base64.b64decode(name) if line["key_encoding"] == "base64" else name.encode()


def settle(duo: Duo) -> None:
    """``b`` has all that ``a`` has, and has acknowledged it, as far as a status says that is made after this."""
    with duo.a.client() as client:
        before = duo.a.group.me.position.sequence
        client.set("settled", time.monotonic_ns())

    def all_there() -> bool:
        group = duo.a.group
        told = group.me.position.sequence > before and group.me.journal == 0
        return told and group.peers[0].caught_up and group.peers[0].lag == 0

    wait.until(all_there, "b has everything")
    wait.until(lambda: duo.b.group.peers[0].status.role is Role.LEADER, "b has heard of a's leadership")


def later(seconds: float = 0.005) -> None:
    """What is written from now on is later than what was, by the milliseconds that members note."""
    end = time.time() + seconds
    wait.until(lambda: time.time() > end, "the clock goes on", every=0.001)


@pytest.fixture
def duo(redis_server: Any, relay: Any, tmp_path: Path) -> Iterator[Duo]:
    """Two members; the first leads, the second has everything."""
    members = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        members.append(Member(name, redis_server(appendonly="yes"), folder, relay))
    a, b = members
    try:
        a.join(b)
        b.join(a)
        wait.until(lambda: a.plane.group() and b.plane.group(), "they know their group")
        wait.until(lambda: a.group.peers[0].up and b.group.peers[0].up, "they know each other")
        a.plane.lead(1)
        wait.until(lambda: a.group.peers[0].replica == "in_sync", "b follows")
        yield Duo(a, b, tmp_path)
    finally:
        for member in members:
            assert member.plane.join(5)


# --- which write wins -------------------------------------------------------------------------------------------------


def test_the_later_write_wins_and_the_other_is_kept(duo: Duo) -> None:
    soon = int(time.time() * 1000) + 3_600_000
    with duo.a.client() as a:
        for name in ("untouched", "a only", "b only", "a later", "b later", "a deleted", "b deleted", "a then b"):
            a.set(name, "before")
    duo.part()
    with duo.a.client() as a, duo.b.client() as b, duo.a.client(3) as a3, duo.b.client(3) as b3:
        for name in ("a later", "a new, later", "a deleted after b", "equal", "expiring later"):
            b.set(name, "b's")
        for name in ("b later", "b new, later", "b deleted after a"):
            a.set(name, "a's")
        a.delete("a then b")
        b3.lpush(b"\x00\xff", "b's", *"xyz")
        b.sadd("set", *"abc")
        a.sadd("set", *"cba")
        later()
        for name in ("a later", "a new, later", "a only"):
            a.set(name, "a's")
        for name in ("b later", "b new, later", "b only", "a then b"):
            b.set(name, "b's")
        a.delete("a deleted after b", "a deleted")
        b.delete("b deleted after a", "b deleted")
        a.set("equal", "b's")
        a.set("expiring later", "b's", pxat=soon)
        a3.hset(b"\x00\xff", mapping={"field": b"\x80\x81", "n": 1})
        a3.set("only here", "a's")
        b3.zadd("z", {"m": 1.5})
        a.set("gone by then", "a's", px=1)
    peer = duo.heal()
    report = duo.merge()
    duo.finish(peer)
    with duo.b.client() as b, duo.b.client(3) as b3:
        values = {name: b.get(name) for name in map(bytes, b.keys()) if b.type(name) == b"string"}
        del values[b"settled"]
        assert values == {
            b"untouched": b"before",
            b"a only": b"a's",
            b"b only": b"b's",
            b"a later": b"a's",
            b"a new, later": b"a's",
            b"b later": b"b's",
            b"b new, later": b"b's",
            b"a then b": b"b's",
            b"equal": b"b's",
            b"expiring later": b"b's",
        }
        assert b.execute_command("PEXPIRETIME", "expiring later") == soon
        assert b.smembers("set") == {b"a", b"b", b"c"}
        assert b3.hgetall(b"\x00\xff") == {b"field": b"\x80\x81", b"n": b"1"}
        assert b3.get("only here") == b"a's"
        assert b3.zrange("z", 0, -1) == [b"m"]
    assert duo.lost() == {
        (0, b"a later"): ("b", "later_write"),
        (0, b"a new, later"): ("b", "later_write"),
        (0, b"b later"): ("a", "later_write"),
        (0, b"b new, later"): ("a", "later_write"),
        (0, b"a deleted after b"): ("b", "deleted"),
        (0, b"b deleted after a"): ("a", "deleted"),
        (0, b"expiring later"): ("b", "later_write"),
        (3, b"\x00\xff"): ("b", "later_write"),
    }
    assert report.conflicts == duo.conflicts.total == 8
    assert report.applied == 8  # of a: two later, one new, two deleted, one expiry, two in the other database
    assert not duo.b.events(EventKind.WORKER_DIED)


def test_a_value_that_lost_can_be_had_back(duo: Duo) -> None:
    duo.part()
    moment = int(time.time() * 1000) + 3_600_000
    with duo.a.client() as a, duo.b.client() as b:
        a.zadd("k", {"one": 1, "two": 2.5})
        a.pexpireat("k", moment)
        later()
        wrote = time.time()
        b.set("k", "b's")
    peer = duo.heal()
    duo.merge()
    [line] = duo.lines()
    assert {name: line[name] for name in ("group", "db", "key", "winner", "loser", "type", "expires_ms")} == {
        "group": "cache",
        "db": 0,
        "key": "k",
        "winner": "b",
        "loser": "a",
        "type": "zset",
        "expires_ms": moment,
    }
    assert line["written"].endswith("Z")
    assert line["written"] < line["time"]
    assert abs(time.mktime(time.strptime(line["written"][:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone - wrote) < 5
    duo.finish(peer)
    with duo.b.client() as b:
        b.restore("lost", line["expires_ms"], base64.b64decode(line["value"]), absttl=True)
        assert b.zrange("lost", 0, -1, withscores=True) == [(b"one", 1.0), (b"two", 2.5)]
        assert b.execute_command("PEXPIRETIME", "lost") == moment
    assert_same(duo.a.server, duo.b.server)


def test_every_type_is_taken_over_and_equal_values_are_no_conflict(duo: Duo) -> None:
    commands = [command for command in every_type.COMMANDS if command[0] != "FUNCTION"]
    duo.part()
    shuffled = [*map(_shuffled, commands), ("PFCOUNT", "hyperloglog")]  # which notes the count in the value
    for member, db, written in ((duo.b, 0, commands), (duo.a, 0, shuffled), (duo.a, 5, commands)):
        with Conn(member.port) as conn:
            replies = conn.pipeline(("SELECT", db), *written)
        assert [reply for reply in replies if reply.startswith(b"-")] == []
    peer = duo.heal()
    report = duo.merge()
    assert report.differing == report.applied == every_type.KEYS - 1
    assert duo.finish(peer) == 2 * (every_type.KEYS - 1) + 1
    assert duo.lines() == []


def _shuffled(command: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same value, written in another order."""
    width = {"SADD": 1, "HSET": 2, "ZADD": 2, "PFADD": 1}.get(command[0])
    if width is None:
        return command
    parts = [command[at : at + width] for at in range(2, len(command), width)]
    return (*command[:2], *(each for part in reversed(parts) for each in part))


@pytest.mark.parametrize("read_most", [merging.READ_MOST, 3_000])
def test_a_value_that_is_too_large_is_told_by_name(duo: Duo, read_most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, most in (("PAYLOAD_MOST", 2_000), ("READ_MOST", read_most)):
        monkeypatch.setattr(merging, name, most)
    monkeypatch.setattr("redisha.verify.keys.LARGE", 1_000)
    monkeypatch.setattr("redisha.group.conflicts.VALUE_MOST", 500)
    with duo.a.client() as a:
        a.set("a deleted", os.urandom(5_000))
    duo.part()
    with duo.a.client() as a, duo.b.client() as b:
        for client in (b, a):
            client.set("large", os.urandom(5_000))
            client.set("fits", os.urandom(1_500))
            client.sadd("equal", *(f"member {n}" for n in range(400)))
            client.set("b later", os.urandom(5_000))
            later()
        b.set("b later", os.urandom(6_000))
        b.append("a deleted", "more")
        later()
        a.delete("a deleted")
    peer = duo.heal()
    duo.merge()
    duo.finish(peer)
    kept = {line["key"]: (line["loser"], line["reason"], line["value"], line["type"]) for line in duo.lines()}
    assert kept == {
        "large": ("a", "not_applied", None, "string"),
        "fits": ("b", "later_write", None, "string"),
        "b later": ("a", "later_write", None, "string"),
        "a deleted": ("b", "deleted", None, "string"),
    }
    assert all(line["size"] > 1_500 for line in duo.lines())


def test_what_a_sidecar_wrote_before_it_was_started_again_has_no_time(duo: Duo) -> None:
    with duo.a.client() as a:
        a.mset({"a only": "before", "both": "before", "b only": "before", "evicted": "before"})
    duo.part()
    with duo.a.client() as a, duo.b.client() as b:
        a.mset({"a only": "a's", "both": "a's"})
        a.delete("evicted")
        b.mset({"b only": "b's", "both": "b's"})
    duo.a.restart(duo.b)
    peer = duo.heal()
    duo.merge()
    duo.finish(peer)
    assert duo.b.server.cli("MGET", "a only", "both", "b only", "evicted") == [b"a's", b"b's", b"b's", b"before"]
    lost = duo.lost()
    assert lost[0, b"both"] == ("a", "later_write")
    assert all(loser == "a" for loser, _ in lost.values())
    assert all(line["written"] is None for line in duo.lines())


def test_what_was_emptied_later_stays_empty(duo: Duo) -> None:
    with duo.a.client() as a:
        a.mset({f"k{n}": "before" for n in range(50)})
    duo.part()
    with duo.a.client() as a, duo.b.client() as b:
        b.set("k1", "b's")
        later()
        a.flushall()
        a.set("new", "a's")
        later()
        b.set("k2", "b's, later")
    peer = duo.heal()
    duo.merge()
    assert duo.finish(peer) == 2
    assert {name: duo.b.server.cli("GET", name) for name in ("k1", "k2", "new")} == {
        "k1": None,
        "k2": b"b's, later",
        "new": b"a's",
    }
    assert duo.lost() == {(0, b"k1"): ("b", "deleted")}


def hand_over(leader: Member, heir: Member, term: int) -> None:
    """The heir leads, and has been told that both have the same."""
    leader.plane.yield_lead(True)
    wait.until(lambda: leader.group.peers[0].sealed, "the heir has everything, and knows it")
    heir.plane.lead(term)
    leader.plane.follow(term, heir.name)
    wait.until(lambda: heir.group.peers[0].replica == "in_sync", "the one that led follows")


def test_what_is_written_after_hand_overs_is_merged(duo: Duo) -> None:
    """What a leader was told when it gave way once does not hold for what it writes when it leads again."""
    hand_over(duo.a, duo.b, 2)
    hand_over(duo.b, duo.a, 3)
    settle(duo)
    duo.a.door.refuse()
    duo.b.door.refuse()
    duo.b.plane.lead(4)
    wait.until(lambda: duo.b.group.me.role is Role.LEADER, "b leads")
    with duo.a.client() as a, duo.b.client() as b:
        a.set("a only", "a's")
        b.set("b only", "b's")
    peer = duo.heal()
    duo.merge()
    duo.finish(peer)
    with duo.b.client() as b:
        assert b.mget("a only", "b only") == [b"a's", b"b's"]


def test_a_redis_that_was_started_since_proves_nothing(duo: Duo) -> None:
    with duo.a.client() as a:
        a.mset({"same": "before", "gone": "before"})
    duo.part()
    with duo.a.client() as a, duo.b.client() as b:
        b.set("k", "b's")
        later()
        a.set("k", "a's")
        a.delete("gone")
    peer = duo.heal()
    duo.a.server.kill()
    duo.a.server.start()
    wait.until(lambda: duo.a.group.me.data is Data.COMPLETE, "a has its data again")
    report = duo.merge()
    assert report.applied == 0
    assert duo.lost() == {(0, b"k"): ("a", "unproven")}
    duo.finish(peer)
    assert duo.b.server.cli("MGET", "k", "same", "gone") == [b"b's", b"before", b"before"]


def test_libraries_are_told_of(duo: Duo) -> None:
    code = "#!lua name=mine\nredis.register_function('f', function() return 1 end)"
    duo.part()
    with duo.a.client() as a:
        a.function_load(code)
    peer = duo.heal()
    with Conn(duo.a.peer_port) as conn:
        conn.command("REDISHA", "PEER", 1, "CONTROL", "cache", "b", 0, 0, SECRET)
        if conn.command("FUNCTION", "LIST").startswith(b"-ERR a control connection only reads"):
            pytest.skip("the data plane takes FUNCTION LIST for a write")
    duo.merge()
    duo.finish(peer)
    [line] = duo.lines()
    assert (line["library"], line["code"], line["loser"], line["reason"]) == ("mine", code, "a", "not_applied")


def test_clients_write_on_while_it_merges(duo: Duo) -> None:
    duo.part()
    count = 3_000
    with duo.a.client() as a, duo.b.client() as b:
        with b.pipeline(transaction=False) as pipe:
            for n in range(count):
                pipe.set(f"k{n}", f"b{n}")
            pipe.execute()
        later()
        with a.pipeline(transaction=False) as pipe:
            for n in range(count):
                pipe.set(f"k{n}", f"a{n}")
            pipe.execute()
    peer = duo.heal()
    written: dict[bytes, bytes] = {}

    def write_on(job: Job) -> None:
        with duo.b.client() as b:
            for n in range(0, count, 7):
                if not job.stopped:
                    b.set(f"k{n}", f"new{n}")
                    written[b"k%d" % n] = b"new%d" % n

    async def both() -> MergeReport:
        job = Job()
        writer = asyncio.create_task(asyncio.to_thread(write_on, job))
        report = await asyncio.to_thread(duo.merge)
        job.stop()
        await writer
        return report

    report = asyncio.run(both())
    duo.finish(peer)
    with duo.b.client() as b:
        names = [b"k%d" % n for n in range(count)]
        values = dict(zip(names, b.mget(names), strict=True))
    assert values == {name: written.get(name, b"a%b" % name[1:]) for name in names}
    assert report.applied <= count
    lost = duo.lost()
    assert {name for _, name in lost} == set(names)
    # A key that was written anew before its turn came is the winner; its loser is a's value.
    losers = {name: loser for (_, name), (loser, _) in lost.items()}
    assert all(loser == "b" for name, loser in losers.items() if name not in written)


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_nothing_is_overwritten_while_the_file_cannot_be(duo: Duo) -> None:
    duo.part()
    with duo.a.client() as a, duo.b.client() as b:
        b.set("k", "b's")
        later()
        a.set("k", "a's")
    peer = duo.heal()
    folder = duo.folder / "full"
    folder.mkdir()
    (folder / NAME).symlink_to("/dev/full")
    with pytest.raises(RedishaError, match="No space left on device; the merge waits"):
        duo.merge(conflicts=Conflicts(folder))
    duo.b.plane.merged(peer, ok=False)
    wait.until(lambda: len(duo.b.events(EventKind.MERGE)) == 2, "the data plane asks again")
    assert (duo.a.server.cli("GET", "k"), duo.b.server.cli("GET", "k")) == (b"a's", b"b's")
    duo.merge()
    duo.finish(peer)
    assert duo.b.server.cli("GET", "k") == b"a's"
    assert duo.lost() == {(0, b"k"): ("b", "later_write")}


def test_one_that_broke_halfway_is_run_again(duo: Duo, relay: Any) -> None:
    duo.part()
    count = 5_000
    with duo.a.client() as a, duo.b.client() as b:
        for client, who in ((b, "b"), (a, "a")):
            with client.pipeline(transaction=False) as pipe:
                for n in range(count):
                    pipe.set(f"k{n}", f"{who}{n}")
                pipe.execute()
            later()
    peer = duo.heal()
    between = relay(duo.b.peer_port)
    between.close_after(2_000, b"MERGE")
    with pytest.raises(RedishaError, match="was lost"):
        duo.merge(own=between.address)
    half = duo.conflicts.total
    assert 0 < half < count
    report = duo.merge()
    assert 0 < report.applied < count
    duo.finish(peer)
    assert duo.b.server.cli("MGET", "k0", f"k{count - 1}") == [b"a0", b"a%d" % (count - 1)]
    assert len(duo.lines()) == len(duo.lost()) == duo.conflicts.total == count


@pytest.mark.parametrize(
    ("own", "other", "secret", "member", "told"),
    [
        ("b", "closed", SECRET, "a", "the peer port of a, .* cannot be reached: Connection refused"),
        ("b", "a", "wrong", "a", "the peer port of b, .* refuses: WRONGPASS"),
        ("b", "a", SECRET, "c", "is the peer port of a, not of c"),
        ("b", "redis", SECRET, "a", "the peer port of a, .* refuses: ERR unknown command"),
        ("client", "a", SECRET, "a", "the peer port of b, .* refuses: ERR"),
    ],
)
def test_whoever_is_not_there_is_named(duo: Duo, own: str, other: str, secret: str, member: str, told: str) -> None:
    addresses = {
        "a": duo.a.address,
        "b": duo.b.address,
        "closed": f"127.0.0.1:{free_port()}",
        "redis": duo.a.server.address,
        "client": f"127.0.0.1:{duo.b.port}",
    }
    with pytest.raises(RedishaError, match=told):
        merge(addresses[own], addresses[other], "cache", "b", secret, member, duo.conflicts, Job())


def test_a_leader_that_leads_no_more_takes_nothing(duo: Duo) -> None:
    duo.part()
    with duo.a.client() as a:
        a.set("k", "a's")
    duo.heal()
    duo.b.plane.follow(3, "a")
    wait.until(lambda: duo.b.group.me.role is Role.FOLLOWER, "b follows")
    with pytest.raises(RedishaError, match="NOTLEADER"):
        duo.merge()


def test_it_can_be_stopped(duo: Duo) -> None:
    job = Job()
    job.stop()
    with pytest.raises(Stopped):
        merge(duo.b.address, duo.a.address, "cache", "b", SECRET, "a", duo.conflicts, job)


# --- in the running process -------------------------------------------------------------------------------------------


async def test_the_event_is_answered_until_it_succeeds(duo: Duo) -> None:
    await asyncio.to_thread(duo.part)

    def write() -> None:
        with duo.a.client() as a, duo.b.client() as b:
            b.set("k", "b's")
            later()
            a.set("k", "a's")
        later(OVERDUE)

    await asyncio.to_thread(write)
    secrets = iter(["wrong"])
    merges = Merges(duo.b.plane, lambda: next(secrets, SECRET), duo.conflicts)
    duo.b.plane.watch(
        asyncio.get_running_loop(), lambda event: merges.on_merge(event) if event.kind is EventKind.MERGE else None
    )
    try:
        duo.a.door.accept()
        duo.b.door.accept()
        await asyncio.to_thread(
            wait.until, lambda: merges.stats.last_seconds and duo.b.group.peers[0].replica == "in_sync", "a is in sync"
        )
    finally:
        duo.b.plane.unwatch()
        await merges.close()
    stats = merges.stats
    assert (stats.running, stats.runs_total, stats.failures_total, stats.last_error) == ((), 2, 1, "")
    assert (stats.applied_total, stats.conflicts_total) == (1, 1)
    await asyncio.to_thread(assert_same, duo.a.server, duo.b.server)
    assert duo.lost() == {(0, b"k"): ("b", "later_write")}
