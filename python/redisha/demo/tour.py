"""The walk through: what is shown, in which order, and what is said about it.

Each part is a function of the :class:`Tour`, or of :class:`~redisha.demo.outages.Outages`. What must hold (no client
sees an error, the servers are equal) is checked as it goes; a demo that does not keep its word fails.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redisha.demo import benchmark, rates
from redisha.demo.children import DemoError, wait_until
from redisha.demo.compare import compare
from redisha.demo.files import PAIR, PREFIX, envoy_file
from redisha.demo.load import Load
from redisha.demo.outages import Outages
from redisha.demo.report import Report
from redisha.demo.results import Results
from redisha.demo.servers import RedisServer
from redisha.demo.sidecars import Sidecar
from redisha.demo.stage import Stage

PARTS = 8
"""How many parts it has."""

_LOOK = 0.1


@dataclass(frozen=True, slots=True)
class Pace:
    """How long the demo takes.

    Attributes:
        load: seconds of writing.
        away: seconds that a Redis is away.
        keys: keys that are there before a Redis is killed.
        patience: seconds until they need to be delivered for good.
        requests: of each test of the benchmark, per round.
        rounds: of the benchmark.
        people: employees of the prefix route.
    """

    load: float
    away: float
    keys: int
    patience: float
    requests: int
    rounds: int
    people: int


FULL = Pace(load=3.0, away=2.0, keys=20_000, patience=20.0, requests=20_000, rounds=2, people=2_000)
QUICK = Pace(load=0.6, away=0.3, keys=2_000, patience=0.0, requests=1_000, rounds=1, people=200)


@dataclass(frozen=True, slots=True)
class Pair:
    """The seed's pair: two servers, and at each a sidecar that mirrors to the other."""

    redis_001: RedisServer
    redis_002: RedisServer
    sidecar_001: Sidecar
    sidecar_002: Sidecar

    def wait_in_sync_again(self) -> None:
        """Wait, while clients go on writing, until the mirror that was away is in sync but for what is on its way."""
        states = ("in_sync", "unproven")
        wait_until(
            lambda: all(each["state"] in states for each in self.sidecar_001.replicas()), "the mirror is back", 30
        )

    def wait_in_sync(self) -> None:
        """Wait until both mirrors have everything."""
        self.sidecar_001.wait_in_sync()
        self.sidecar_002.wait_in_sync()


class Tour:
    """One walk through.

    Args:
        stage: where servers and sidecars are started.
        report: what the reader sees.
        pace: how long it takes.
    """

    def __init__(self, stage: Stage, report: Report, pace: Pace) -> None:
        self._stage = stage
        self._report = report
        self._pace = pace
        self._results = Results(report)

    def walk(self) -> Pair:
        """All parts; returns the pair, which is still running.

        Raises:
            DemoError: something was not as it should be.
        """
        pair = self._start()
        pace = self._pace
        outages = Outages(self._stage, self._report, self._results, pace.keys, pace.away / 2, pace.patience)
        with self._report.progress("starting a primary and its mirror for later"):
            servers = outages.start()
        self._one_write(pair)
        self._both_sides(pair)
        self._restart(pair)
        outages.mirror_killed(servers)
        outages.primary_loses_data(servers)
        self._stage.retire(servers.sidecar, servers.primary, servers.mirror)
        self._prefix_routes()
        self._benchmark(pair)
        self._results.table()
        return pair

    # --- the parts ----------------------------------------------------------------------------------------------------

    def _start(self) -> Pair:
        report, stage = self._report, self._stage
        report.part(
            "Two Redis servers, two sidecars",
            "Each Redis has a sidecar: it answers from its own Redis and mirrors the writes to the other one.",
            "The configuration is the article's Envoy file, unchanged but for hosts and ports.",
        )
        with report.progress("starting"):
            one, two = stage.server("redis-001"), stage.server("redis-002")
            places = {"redis-envoy-001": one.port, "redis-envoy-002": two.port}
            first, second = (
                stage.sidecar(
                    name,
                    "envoy.yaml",
                    lambda port, admin, other=other: envoy_file(PAIR, places, port, admin, other_member=other),  # type: ignore[misc]
                )
                for name, other in (("sidecar-001", False), ("sidecar-002", True))
            )
        report.table(
            ("", "port", "its Redis", "mirrors to", "admin", "file"),
            [
                (each.name, str(each.port), str(mine.port), str(other.port), str(each.admin), str(each.file))
                for each, mine, other in ((first, one, two), (second, two, one))
            ],
        )
        return Pair(one, two, first, second)

    def _one_write(self, pair: Pair) -> None:
        report = self._report
        report.part(
            "One write, two servers",
            "A write through one sidecar is on both servers. What the first server decided – here which element SPOP",
            "takes, and when a key expires – is not decided again at the second: it gets the effect.",
        )
        one, two = pair.redis_001.port, pair.redis_002.port
        with pair.sidecar_001.client(decode_responses=True) as client:
            typed: Any = client
            port = pair.sidecar_001.port
            self._shown(port, "set greeting hello ex 3600", typed.set("greeting", "hello", ex=3600))
            self._shown(port, "sadd dice 1 2 3 4 5 6", typed.sadd("dice", *range(1, 7)))
            self._shown(port, "spop dice", typed.spop("dice"))
        pair.wait_in_sync()
        for server in (pair.redis_001, pair.redis_002):
            with server.client() as direct:
                found: Any = direct
                self._shown(server.port, "pexpiretime greeting", found.pexpiretime("greeting"))
                left = b" ".join(sorted(found.smembers("dice"))).decode()
                self._shown(server.port, "smembers dice", left)
        report.good(f"the same on both (ports {one} and {two}), to the millisecond")

    def _both_sides(self, pair: Pair) -> None:
        report = self._report
        report.part(
            "Writes through both sides at once",
            "Clients write through both sidecars, each side to keys of its own. Two sidecars that mirror to each other",
            "cannot order two writes of one key that come at the same moment; no pair of mirrors can. Keep the writers",
            "of a key on one side, or send all writes through one sidecar: docs/consistency.md.",
        )
        begin = time.monotonic()
        with (
            Load(pair.sidecar_001, "left") as left,
            Load(pair.sidecar_002, "right") as right,
            report.progress("writing", self._pace.load) as advance,
        ):
            self._watch(self._pace.load, advance, lambda: f"{left.written:,} left, {right.written:,} right")
        seconds = time.monotonic() - begin
        report.line(f"{left.written:,} writes through sidecar-001, {right.written:,} through sidecar-002")
        self._settle(pair, "both sides write", left.written + right.written, seconds, left.errors + right.errors)

    def _restart(self, pair: Pair) -> None:
        report = self._report
        report.part(
            "The mirror's Redis is restarted under load",
            "Clients go on writing through sidecar-001 while redis-002 goes away and comes back. What it misses waits",
            "in sidecar-001's log, which is bounded (limits.log_bytes, 64 MB). What was in doubt when the connection",
            "broke is copied from redis-001, never sent twice. sidecar-002, whose Redis this is, says meanwhile that",
            "it is not ready, so that the common service sends its clients to sidecar-001. Since both sidecars write",
            "to redis-002, its resync only adds what is missing there, and then calls the mirror unproven: whether the",
            "rest is equal, a comparison must tell. Here it does.",
        )
        begin = time.monotonic()
        with Load(pair.sidecar_001, "restart") as load:
            wait_until(lambda: load.written > 0 or bool(load.errors), "the first writes are answered")
            with report.progress("redis-002 is away", self._pace.away) as advance:
                pair.redis_002.end()
                before = load.written
                self._watch(self._pace.away, advance, lambda: f"{pair.sidecar_001.lag():,} effects wait in the log")
                waiting, missed = pair.sidecar_001.lag(), load.written - before
                status, text = pair.sidecar_002.readiness()
            report.command(f"curl 127.0.0.1:{pair.sidecar_002.admin}/ready", f"{status} {text}")
            with report.progress("redis-002 is back, and gets what it missed"):
                pair.redis_002.start()
                pair.wait_in_sync_again()
                time.sleep(self._pace.away)
        seconds = time.monotonic() - begin
        report.line(f"{missed:,} writes were answered while it was away; {waiting:,} effects waited for it in the log")
        (mirror,) = pair.sidecar_001.replicas()
        report.line(f"healed: {mirror['healed'] or 'by the log'}; state: {mirror['state']}")
        self._settle(pair, "redis-002 restarted meanwhile", load.written, seconds, load.errors)

    def _prefix_routes(self) -> None:
        report, stage = self._report, self._stage
        report.part(
            "Prefix routes",
            "The article's second file: one master takes the writes, and by the keys' prefix one of two other servers",
            "gets a copy to read from. Keys without a route are refused.",
        )
        with report.progress("starting"):
            names = ("redis-master", "redis-departments", "redis-employees")
            master, departments, employees = servers = [stage.server(name) for name in names]
            places = {server.name: server.port for server in servers}
            sidecar = stage.sidecar(
                "sidecar-prefix", "envoy.yaml", lambda port, admin: envoy_file(PREFIX, places, port, admin)
            )
        report.line(f"configuration: {sidecar.file}")
        begin = time.monotonic()
        writes = self._write_staff(sidecar)
        seconds = time.monotonic() - begin
        sidecar.wait_in_sync()
        rows = []
        for server in servers:
            with server.client() as client:
                found: Any = client
                rows.append((server.name, str(server.port), f"{found.dbsize():,}"))
        report.table(("server", "port", "keys"), rows)
        for copy, prefix in ((departments, b"departments"), (employees, b"employees")):
            sync = compare(master, copy, lambda key, prefix=prefix: key.startswith(prefix))  # type: ignore[misc]
            self._results.add(f"{prefix.decode()}… on its copy", sync, writes, seconds, [])
        stage.retire(sidecar, *servers)

    def _write_staff(self, sidecar: Sidecar) -> int:
        """Departments and employees through the sidecar; returns how many writes that were."""
        from redis import RedisError

        names = ("Marketing", "Finance", "Human Resources", "Production", "Development", "Sales", "Research")
        with sidecar.client(decode_responses=True) as client:
            typed: Any = client
            for number, name in enumerate(names, 1):
                typed.hset(f"departments:d{number:03}", mapping={"name": name, "staff": 0})
            pipe: Any = client.pipeline(transaction=False)
            for number, department in zip(range(self._pace.people), itertools.cycle(range(1, len(names) + 1))):
                pipe.hset(f"employees:{10_001 + number}", mapping={"department": f"d{department:03}"})
                pipe.hincrby(f"departments:d{department:03}", "staff", 1)
            pipe.execute()
            self._shown(sidecar.port, "hget departments:d001 staff", typed.hget("departments:d001", "staff"))
            try:
                typed.set("offices:1", "x")
            except RedisError as error:
                self._shown(sidecar.port, "set offices:1 x", f"(error) {error}")
            else:
                raise DemoError("a key without a route was accepted")
        return len(names) + 2 * self._pace.people

    def _benchmark(self, pair: Pair) -> None:
        report = self._report
        report.part(
            "redis-benchmark, directly and through a sidecar",
            "50 clients, no pipelining, as in the article; a third Redis with the same settings is measured directly.",
            "Of several rounds, which take turns, the best counts.",
            "Benchmark, sidecar and both Redis servers share this machine's processors: make bench measures with care.",
        )
        if not rates.can_be_told(report):
            return
        rounds = self._pace.rounds
        seconds = rates.tell(self._report, self._stage, pair.sidecar_001, self._pace.requests, rounds)
        writes = len(benchmark.WRITES) * self._pace.requests * rounds
        self._settle(pair, "redis-benchmark", writes, seconds, [])

    # --- what the parts have in common --------------------------------------------------------------------------------

    def _shown(self, port: int, command: str, answer: object) -> None:
        self._report.command(f"redis-cli -p {port} {command}", "OK" if answer is True else str(answer))

    def _watch(self, seconds: float, advance: Callable[..., None], note: Callable[[], str]) -> None:
        """Let time pass and tell how far it is."""
        begin = time.monotonic()
        while (passed := time.monotonic() - begin) < seconds:
            advance(passed, note())
            time.sleep(min(_LOOK, seconds - passed))

    def _settle(self, pair: Pair, what: str, writes: int, seconds: float, errors: list[str]) -> None:
        """Wait until the pair is quiet, and compare its servers."""
        with self._report.progress("comparing the two servers"):
            pair.wait_in_sync()
            sync = compare(pair.redis_001, pair.redis_002)
        self._results.add(what, sync, writes, seconds, errors)
