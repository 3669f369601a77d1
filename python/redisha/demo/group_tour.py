"""The walk through a group: two members, what both sides may write at once, and what is killed.

What must hold is checked as it goes: no number is handed out twice, no element popped twice, a Redis that is killed
costs no client an error, and both Redis servers are equal in the end. A demo that does not keep its word fails.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redisha.demo import benchmark, files, rates
from redisha.demo.children import DemoError, free_port
from redisha.demo.contest import CLIENTS, LOST
from redisha.demo.group_checks import Checks
from redisha.demo.members import Member, Members, redisha
from redisha.demo.report import Advance, Report
from redisha.demo.results import Results
from redisha.demo.stage import Stage

PARTS = 7
"""How many parts it has."""

NAMES = ("redis-001", "redis-002")

_LOOK = 0.05


@dataclass(frozen=True, slots=True)
class Pace:
    """How long the demo takes.

    Attributes:
        load: seconds of writing from both sides.
        away: seconds that something is away, at least.
        requests: of each test of the benchmark, per round.
        rounds: of the benchmark.
    """

    load: float
    away: float
    requests: int
    rounds: int


FULL = Pace(load=3.0, away=3.0, requests=20_000, rounds=2)
QUICK = Pace(load=0.5, away=0.3, requests=1_000, rounds=1)


class GroupTour:
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
        self._checks = Checks(report, self._results)

    def walk(self) -> Members:
        """All parts; returns the members, which are still running.

        Raises:
            DemoError: something was not as it should be.
        """
        members = self._start()
        self._one_write(members)
        self._both_sides(members)
        self._redis_killed(members)
        self._sidecar_killed(members)
        self._handed_over(members)
        self._benchmark(members)
        self._results.table()
        return members

    # --- the parts ----------------------------------------------------------------------------------------------------

    def _start(self) -> Members:
        report, stage = self._report, self._stage
        report.part(
            "Two Redis servers, two sidecars, one group",
            "Each Redis has a sidecar. The sidecars elect one of them: it leads. Every write, wherever it arrives, is",
            "executed first on the leader's Redis, once, and its effect goes to the other one, in the same order.",
            "It is acknowledged when both have it (write_consistency: quorum). The side that is asked answers a read.",
        )
        with report.progress("starting"):
            servers = [stage.server(name) for name in NAMES]
            ports = [free_port(), free_port()]
            sidecars = [
                stage.prepare(f"sidecar-{name}", "redisha.yaml", _configure(name, server.port, *pair))
                for name, server, pair in zip(NAMES, servers, (ports, ports[::-1]), strict=True)
            ]
            for sidecar in sidecars:
                sidecar.begin()
            for sidecar in sidecars:
                sidecar.wait_ready()
            first, second = (Member(*each) for each in zip(NAMES, servers, sidecars, strict=True))
            members = Members(first, second)
            leader = members.wait_in_sync()
        report.table(
            ("", "port", "its Redis", "peer port", "admin", "file"),
            [
                (name, *map(str, (sidecar.port, server.port, listen, sidecar.admin, sidecar.file)))
                for name, server, sidecar, listen in zip(NAMES, servers, sidecars, ports, strict=True)
            ],
        )
        self._checks.status(members.other(leader))
        report.good(f"{leader.name} leads, {members.other(leader).name} follows and is in sync")
        return members

    def _one_write(self, members: Members) -> None:
        report = self._report
        leader = members.wait_in_sync()
        follower = members.other(leader)
        report.part(
            "A write at the side that follows",
            "It is executed at the leader first, and answered when the follower's own Redis has it, too: so who writes",
            "reads its own write at once. What the leader's Redis decided – here which element SPOP takes, and when a",
            "key expires – is not decided again.",
        )
        with follower.sidecar.client(decode_responses=True) as client:
            typed: Any = client
            port = follower.sidecar.port
            self._shown(port, "set greeting hello ex 3600", typed.set("greeting", "hello", ex=3600))
            self._shown(port, "get greeting", typed.get("greeting"))
            self._shown(port, "sadd dice 1 2 3 4 5 6", typed.sadd("dice", *range(1, 7)))
            self._shown(port, "spop dice", typed.spop("dice"))
        found = []
        for member in (leader, follower):
            with member.server.client() as direct:
                read: Any = direct
                found.append((read.pexpiretime("greeting"), b" ".join(sorted(read.smembers("dice"))).decode()))
                self._shown(member.server.port, "pexpiretime greeting", found[-1][0])
                self._shown(member.server.port, "smembers dice", found[-1][1])
        if found[0] != found[1]:
            raise DemoError(f"the two Redis servers have {found[0]} and {found[1]}")
        report.good(f"the same on both Redis servers ({members.first.server.port} and {members.second.server.port})")

    def _both_sides(self, members: Members) -> None:
        self._report.part(
            "Both sides at once, at one counter and one queue",
            f"{CLIENTS} clients of each side INCR one key, push to one list and pop from it. Two proxies that write",
            "locally and mirror to each other hand out the same number twice, and give one element to two clients.",
            "A group has one order of writes.",
        )
        with self._checks.contest(members) as contest:
            begin = time.monotonic()
            with self._report.progress("writing from both sides", self._pace.load) as advance:
                self._watch(self._pace.load, advance, lambda: f"{contest.answered:,} commands answered")
        seconds = time.monotonic() - begin
        for member in members.both:
            self._report.line(f"{contest.answered_at(member.sidecar.name):,} commands answered through {member.name}")
        self._checks.judge(members, contest, "both sides write", seconds)

    def _redis_killed(self, members: Members) -> None:
        report = self._report
        leader = members.wait_in_sync()
        heir = members.other(leader)
        report.part(
            "The leader's Redis is killed under load",
            "kill -9. The leader's sidecar lives: it hands the leadership over, and sends what has no reply yet to the",
            "new leader, so that clients of both sides get no error. A command waits a moment, none runs twice. When",
            "the Redis is back it gets what it missed, and its side reads from it again.",
        )
        begin = time.monotonic()
        with self._checks.contest(members) as contest:
            contest.wait_for_more()
            before, killed = contest.answered, time.monotonic()
            with report.progress(f"the Redis of {leader.name} is away", self._pace.away) as advance:
                pid = leader.server.kill()
                members.wait_led_by(heir, heir)
                leaderless = time.monotonic() - killed
                self._watch(self._pace.away, advance, lambda: f"{contest.answered - before:,} commands answered")
                missed = contest.answered - before
            report.command(f"kill -9 {pid}   # the Redis of {leader.name}, which led", "")
            self._checks.status(leader)
            with report.progress("it is back, and gets what it missed"):
                leader.server.start()
                members.wait_in_sync()
                contest.wait_for_more()
        report.line(
            f"{heir.name} led after {_ms(leaderless)}; {missed:,} commands were answered while the Redis was away"
        )
        report.line(f"the longest wait of a client: {_ms(contest.longest)}")
        report.line(f"healed: {members.healed(members.wait_in_sync())}")
        self._checks.judge(members, contest, "the leader's Redis killed", time.monotonic() - begin)

    def _sidecar_killed(self, members: Members) -> None:
        report = self._report
        leader = members.wait_in_sync()
        heir = members.other(leader)
        report.part(
            "The leader's sidecar is killed under load",
            "kill -9. Nobody can hand over, so the other one notices by missed heartbeats (5 × 200 ms), and leads.",
            "Clients of the killed sidecar lose their connection, and come back through the other. A command of the",
            "other side that was on its way to the killed leader may have been applied: it is answered with INDOUBT,",
            "and never sent again. All other commands wait for the new leader.",
        )
        begin = time.monotonic()
        with self._checks.contest(members) as contest:
            contest.wait_for_more()
            killed = time.monotonic()
            with report.progress(f"the sidecar of {leader.name} is away") as advance:
                pid = leader.sidecar.kill()
                members.wait_led_by(heir, heir)
                leaderless = time.monotonic() - killed
                before = contest.answered
                self._watch(self._pace.away, advance, lambda: f"{contest.answered - before:,} commands answered")
                contest.wait_for_more()
            report.command(f"kill -9 {pid}   # the sidecar of {leader.name}, which led", "")
            self._checks.status(heir)
            with report.progress("it is back"):
                leader.sidecar.begin()
                leader.sidecar.wait_ready()
                members.wait_in_sync()
                contest.wait_for_more()
        report.line(f"{heir.name} led after {_ms(leaderless)}")
        report.line(f"the longest wait of a client: {_ms(contest.longest)}")
        report.line(f"healed: {members.healed(members.wait_in_sync())}")
        self._checks.errors(contest, heir, "errors of the side that lived", ("INDOUBT",))
        self._checks.errors(contest, leader, "errors of the side that was killed", (LOST, "INDOUBT"))
        self._checks.judge(members, contest, "the leader's sidecar killed", time.monotonic() - begin, ("INDOUBT", LOST))

    def _handed_over(self, members: Members) -> None:
        report = self._report
        leader = members.wait_in_sync()
        heir = members.other(leader)
        report.part(
            "The leadership is handed over under load",
            "Before a restart or an upgrade: the leader takes no more commands, the other one gets the last effects",
            "and is elected, and what has waited goes there. A sidecar that ends by SIGTERM does this by itself.",
        )
        begin = time.monotonic()
        with self._checks.contest(members) as contest:
            contest.wait_for_more()
            command = ("leader", heir.name, "--admin", f"127.0.0.1:{leader.sidecar.admin}")
            done = redisha(*command)
            report.command(f"redisha {' '.join(command)}", done.stdout + done.stderr)
            if done.returncode != 0:
                raise DemoError(f"redisha leader ended with {done.returncode}")
            contest.wait_for_more()
        report.line(f"the longest wait of a client: {_ms(contest.longest)}")
        self._checks.judge(members, contest, "leadership handed over", time.monotonic() - begin)

    def _benchmark(self, members: Members) -> None:
        report = self._report
        report.part(
            "redis-benchmark, directly and through the leader's sidecar",
            "50 clients, no pipelining, as in the article; a third Redis with the same settings is measured directly.",
            "Each write through the sidecar is acknowledged when both Redis servers have it. Of several rounds, which",
            "take turns, the best counts. Benchmark, sidecars and all Redis servers share this machine's processors:",
            "make bench measures with care.",
        )
        if not rates.can_be_told(report):
            return
        pace, leader = self._pace, members.wait_in_sync()
        seconds = rates.tell(report, self._stage, leader.sidecar, pace.requests, pace.rounds)
        writes = len(benchmark.WRITES) * pace.requests * pace.rounds
        self._checks.compare(members, "redis-benchmark", writes, seconds, [])
        done = members.verify()
        urls = f"{members.first.server.url} {members.second.server.url}"
        report.command(f"redisha verify {urls}", done.stdout + done.stderr)

    # --- what the parts have in common --------------------------------------------------------------------------------

    def _shown(self, port: int, command: str, answer: object) -> None:
        self._report.command(f"redis-cli -p {port} {command}", "OK" if answer is True else str(answer))

    def _watch(self, seconds: float, advance: Advance, note: Callable[[], str]) -> None:
        """Let time pass and tell how far it is."""
        begin = time.monotonic()
        while (passed := time.monotonic() - begin) < seconds:
            advance(passed, note())
            time.sleep(min(_LOOK, seconds - passed))


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms"


def _configure(name: str, redis: int, listen: int, peer: int) -> Callable[[int, int], str]:
    return lambda port, admin: files.member(name, redis, listen, peer, port, admin)
