"""A group of real processes: for each member a Redis and a sidecar, started, killed, halted and looked at.

``between`` puts a relay in front of every way from one member's peer link to another's: :meth:`GroupStage.ways` has
them. ``places`` puts each member somewhere else (a network namespace of :mod:`support.group_nets`).
"""

import contextlib
import itertools
import json
import shutil
import signal
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from support import wait
from support.equality import assert_same, unequal
from support.ports import free_port
from support.redis_server import RedisServer
from support.relay import Relay
from support.sidecar import Sidecar
from support.wire import ClosedError, Conn

AOF = {"appendonly": "yes", "appendfsync": "everysec"}
GROUP = "cache"
HEARTBEAT_MS, MISSED = 100, 5
"""Faster than the defaults, so that a death is noticed after half a second."""
TIMEOUT_S = HEARTBEAT_MS * MISSED / 1000
ELECTED_S = 20.0
IN_SYNC_S = 40.0

Info = dict[str, Any]


class Place(Protocol):
    """Where a member's processes and those who talk to them are."""

    host: str
    """Its address for the other members."""

    def inside(self) -> contextlib.AbstractContextManager[None]:
        """What is started or connected in the block is there."""


class Here:
    """This machine."""

    host = "127.0.0.1"

    def inside(self) -> contextlib.AbstractContextManager[None]:
        """It is everywhere here."""
        return contextlib.nullcontext()


class Member:
    """A member: a sidecar with its own Redis."""

    def __init__(self, name: str, redis: RedisServer, proxy: Sidecar, state: Path, place: Place) -> None:
        self.name = name
        self.redis = redis
        self.proxy = proxy
        self.state = state
        self.place = place
        self.is_up = False
        """Whether its sidecar is supposed to run."""

    @property
    def port(self) -> int:
        """Where its clients connect."""
        return self.proxy.port

    # --- talking to it ---

    def conn(self, timeout: float = 15.0) -> Conn:
        """A client's connection to the sidecar."""
        with self.place.inside():
            return Conn(self.port, timeout=timeout)

    def ask(self, *command: Any, timeout: float = 15.0) -> bytes:
        """One command of a client, on a connection of its own."""
        with self.conn(timeout) as conn:
            return conn.command(*command)

    def info(self) -> Info:
        """The group, as this member sees it."""
        reply = self.ask("REDISHA", "INFO", timeout=5)
        assert reply.startswith(b"$"), reply
        return json.loads(reply.split(b"\r\n", 1)[1])

    def look(self) -> Info:
        """The same; empty while the sidecar cannot be reached."""
        with contextlib.suppress(OSError, ClosedError):
            return self.info()
        return {}

    def log(self) -> str:
        """What its sidecar has written."""
        return self.proxy.log()

    # --- its sidecar ---

    def start(self) -> None:
        """Start the sidecar; it answers its clients when this returns, whoever leads."""
        with self.place.inside():
            self.proxy.start(ready=False)
        self.is_up = True
        wait.until(lambda: self._alive() and self.look(), f"{self.name} answers", 20)

    def start_unchecked(self) -> None:
        """Start the sidecar and do not wait."""
        with self.place.inside():
            self.proxy.start(ready=False)
        self.is_up = True

    def stop(self) -> None:
        """SIGTERM to the sidecar; it must end with 0."""
        self.is_up = False
        self.proxy.stop(30)

    def kill(self) -> None:
        """``kill -9`` the sidecar."""
        self.is_up = False
        self.proxy.kill()

    def halt(self) -> None:
        """SIGSTOP to the sidecar; each of its threads has stopped when this returns."""
        self.is_up = False
        self.proxy.signal(signal.SIGSTOP)
        tasks = Path(f"/proc/{self.proxy.pid}/task")

        def stopped() -> bool:
            states = [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in tasks.iterdir()]
            return all(state == "T" for state in states)

        wait.until(stopped, "it has stopped", 5)

    def go_on(self) -> None:
        """SIGCONT to the sidecar."""
        self.proxy.signal(signal.SIGCONT)
        self.is_up = True

    def _alive(self) -> bool:
        code = self.proxy.exit_code()
        assert code is None, f"{self.name} ended with {code}:\n{self.log()[-4_000:]}"
        return True

    # --- its Redis ---

    def start_redis(self) -> None:
        """Start the Redis (again), with what its append-only file has."""
        with self.place.inside():
            self.redis.start()

    def empty_redis(self) -> None:
        """Kill the Redis, remove its files and start it."""
        self.redis.kill()
        shutil.rmtree(self.redis.directory / "appendonlydir", ignore_errors=True)
        self.start_redis()

    # --- both ---

    def kill_node(self) -> None:
        """The machine is gone."""
        self.kill()
        self.redis.kill()

    def start_node(self) -> None:
        """The machine is back."""
        self.start_redis()
        self.start()

    def lose_state(self) -> None:
        """Empty the state directory of a sidecar that does not run."""
        shutil.rmtree(self.state)
        self.state.mkdir()

    def recorded(self) -> set[str]:
        """The members that may be elected, as this one has it on its disk (``consistent`` mode)."""
        try:
            recorded = json.loads((self.state / "ballot.json").read_text())["recorded"]
        except (OSError, ValueError, KeyError):
            return set()
        return set(recorded[2]) if recorded else set()

    def conflicts(self) -> list[dict[str, Any]]:
        """What was lost in a merge, as it was told."""
        file = self.state / "conflicts.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


class GroupStage:
    """The members of a group."""

    def __init__(
        self, members: Sequence[Member], ways: dict[tuple[str, str], Relay], *, consistent: bool = False
    ) -> None:
        self.members = list(members)
        self._ways = ways
        self._consistent = consistent

    def __getitem__(self, at: int) -> Member:
        return self.members[at]

    def named(self, name: str) -> Member:
        """The member of this name."""
        return next(member for member in self.members if member.name == name)

    # --- looking ---

    def up(self) -> list[Member]:
        """Those whose sidecar is supposed to run."""
        return [member for member in self.members if member.is_up]

    def find_leader(self, among: Iterable[Member] | None = None) -> Member | None:
        """The one that all of them (by default all that are up) take for the leader of one term, itself included."""
        looks = {member.name: member.look() for member in (self.up() if among is None else among)}
        if not looks or not all(looks.values()):
            return None
        said = {(look["me"]["term"], look["me"]["leader"]) for look in looks.values()}
        [(_, name)] = said if len(said) == 1 else [(0, "")]
        leads = name in looks and looks[name]["me"]["role"] == "leader" and not looks[name]["lost"]
        return self.named(name) if leads else None

    def wait_leader(self, among: Sequence[Member] | None = None, timeout: float = ELECTED_S) -> Member:
        """Wait until there is a leader that all of them know."""
        try:
            found = wait.until(lambda: self.find_leader(among), "all know the same leader", timeout, every=0.02)
        except AssertionError as error:
            raise AssertionError(f"{error}; {self.told()}") from None
        assert found is not None
        return found

    def followers(self) -> list[Member]:
        """All that are up but the leader."""
        leader = self.wait_leader()
        return [member for member in self.up() if member is not leader]

    def pair(self) -> tuple[Member, Member]:
        """The leader and the follower of a group of two."""
        leader = self.wait_leader()
        [follower] = [member for member in self.members if member is not leader]
        return leader, follower

    def is_in_sync(self) -> bool:
        """Whether the leader says that all that are up have everything, and they say it, too."""
        leader = self.find_leader()
        if leader is None:
            return False
        if not self._are_recorded():
            return False
        others = {member.name for member in self.up() if member is not leader}
        seen = {peer["status"]["member"]: peer for peer in leader.look().get("peers", ())}
        return all(
            name in seen
            and seen[name]["counted"]
            and seen[name]["caught_up"]
            and seen[name]["lag"] == 0
            and self.named(name).look().get("me", {}).get("in_sync")
            for name in others
        )

    def wait_in_sync(self, timeout: float = IN_SYNC_S) -> None:
        """Wait until the leader counts everybody that is up, and nothing is on its way. Without load."""
        try:
            wait.until(self.is_in_sync, "all members are in sync", timeout, every=0.05)
        except AssertionError as error:
            raise AssertionError(f"{error}; {self.told()}") from None

    def wait_counted(self, timeout: float = IN_SYNC_S) -> None:
        """The same under load: the leader counts everybody that is up."""

        def counted() -> bool:
            leader = self.find_leader()
            peers = leader.look().get("peers", ()) if leader is not None else ()
            names = {peer["status"]["member"] for peer in peers if peer["counted"]}
            everybody = {member.name for member in self.up()}
            return leader is not None and everybody <= names | {leader.name} and self._are_recorded()

        try:
            wait.until(counted, "the leader counts all members", timeout, every=0.05)
        except AssertionError as error:
            raise AssertionError(f"{error}; {self.told()}") from None

    def _are_recorded(self) -> bool:
        """In ``consistent`` mode: whether each that is up has recorded that all of them may be elected."""
        if not self._consistent:
            return True
        names = {member.name for member in self.up()}
        return all(names <= member.recorded() for member in self.up())

    def told(self) -> str:
        """What all members say, for an error."""
        return json.dumps({member.name: member.look() for member in self.up()})

    # --- acting ---

    def start(self) -> None:
        """Start all sidecars; wait until all are in sync."""
        for member in self.members:
            member.start_unchecked()
        self.wait_in_sync()

    def ways(self, *members: Member) -> list[Relay]:
        """The relays on all ways that begin or end at one of these, but not both."""
        names = {member.name for member in members}
        return [relay for ends, relay in self._ways.items() if len(names.intersection(ends)) == 1]

    def way(self, one: Member, other: Member) -> Relay:
        """The relay on the way of connections that ``one`` makes to ``other``."""
        return self._ways[one.name, other.name]

    def hand_over_by_restart(self) -> Member:
        """SIGTERM to the leader's sidecar, start it again, wait until it is in sync. Returns who leads now."""
        leader = self.wait_leader()
        leader.stop()
        leader.start()
        self.wait_counted()
        return self.wait_leader()

    # --- the end ---

    def unequal(self) -> list[str]:
        """What differs between the Redis servers."""
        one = self.members[0]
        with one.place.inside():
            return [line for other in self.members[1:] for line in unequal(one.redis, other.redis)]

    def assert_equal(self) -> int:
        """Without load: all in sync, every Redis holds the same; returns how many keys."""
        self.wait_in_sync()
        one, *others = self.members
        return min(_same(one, other) for other in others)


def _same(one: Member, other: Member) -> int:
    if isinstance(one.place, Here):
        return assert_same(one.redis, other.redis)
    from support.equality import contents, libraries

    found = []
    for member in (one, other):
        with member.place.inside():
            found.append((contents(member.redis), libraries(member.redis)))
    (keys, functions), theirs = found[0], found[1]
    assert keys == theirs[0], [
        place for place in keys.keys() | theirs[0].keys() if keys.get(place) != theirs[0].get(place)
    ]
    assert functions == theirs[1]
    return len(keys)


class Groups:
    """Makes groups with the factories of a test: ``Groups(redis_server, sidecar, relay)``."""

    def __init__(
        self, redis_server: Callable[..., RedisServer], sidecar: Callable[..., Sidecar], relay: Any = None
    ) -> None:
        self._redis_server = redis_server
        self._sidecar = sidecar
        self._relay = relay
        self._made = itertools.count(1)

    def __call__(
        self,
        members: int = 2,
        *,
        start: bool = True,
        redis_start: bool = True,
        redis: dict[str, str] | None = None,
        between: bool = False,
        each: Sequence[dict[str, Any]] | None = None,
        places: Sequence[Place] | None = None,
        listener: dict[str, Any] | None = None,
        top: dict[str, Any] | None = None,
        redis_dirs: Sequence[Path] | None = None,
        **settings: Any,
    ) -> GroupStage:
        """A group; by default it is in sync when this returns.

        Args:
            members: how many.
            start: whether to start the sidecars and wait until they are in sync.
            redis_start: whether to start the Redis servers.
            redis: options of every Redis; an append-only file by default.
            between: whether there are relays between the members.
            each: settings of the section ``group`` for each member, over the common ones.
            places: where each member is.
            listener: settings of every listener.
            top: more sections of the file.
            redis_dirs: what ``dir`` of each Redis is, if not a folder of its own.
            settings: of the section ``group``.
        """
        number = next(self._made)
        where: Sequence[Place] = places if places is not None else [Here()] * members
        ports = [free_port() for _ in range(members)]
        names = [f"redis-{at + 1:03}" for at in range(members)]
        ways = {
            (names[a], names[b]): self._relay(ports[b]) for a, b in itertools.permutations(range(members), 2) if between
        }
        made = []
        for at, name in enumerate(names):
            own = {"dir": str(redis_dirs[at])} if redis_dirs is not None else {}
            server = self._redis_server(start=False, **(AOF if redis is None else redis), **own)
            if redis_start:
                with where[at].inside():
                    server.start()
            others = [b for b in range(members) if b != at]
            peers = [ways[name, names[b]].address if between else f"{where[b].host}:{ports[b]}" for b in others]
            common: dict[str, Any] = {
                "name": GROUP,
                "member": name,
                "listen": f"{where[at].host}:{ports[at]}",
                "redis": server.address,
                "peers": peers,
                "heartbeat": f"{HEARTBEAT_MS}ms",
                "missed_heartbeats": MISSED,
            }
            config: dict[str, Any] = {
                "admin": {"bind": "127.0.0.1:{admin}"},
                "listeners": [{"bind": ["127.0.0.1:{port}"], "group": GROUP} | (listener or {})],
                "group": common | settings | (each[at] if each is not None else {}),
            }
            proxy = self._sidecar(config | (top or {}), start=False)
            # On a disk, where a group's state belongs; the same over restarts.
            state = proxy.directory / f"state-{number}-{name}"
            state.mkdir(exist_ok=True)
            proxy.state_dir = state
            made.append(Member(name, server, proxy, state, where[at]))
        stage = GroupStage(made, ways, consistent=settings.get("on_partition") == "consistent")
        if start:
            stage.start()
        return stage
