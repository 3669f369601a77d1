"""The parts in which something is killed: a primary, a mirror that nobody else writes to, and their sidecar.

Owns: what is killed, and what is told of how it became equal again. Never: decides whether that is well (``results``).
"""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redisha.demo.children import DemoError, wait_until
from redisha.demo.compare import compare
from redisha.demo.files import one_way
from redisha.demo.load import Load
from redisha.demo.report import Advance, Report
from redisha.demo.results import Results
from redisha.demo.servers import RedisServer
from redisha.demo.sidecars import Sidecar
from redisha.demo.stage import Stage

_LOOK = 0.05
_PAGE = 1_000
_FEW_DIRTY = 0.1


@dataclass(frozen=True, slots=True)
class OneWay:
    """A primary, its mirror, and the sidecar that writes to both."""

    primary: RedisServer
    mirror: RedisServer
    sidecar: Sidecar

    def wait_in_sync(self) -> None:
        """Wait until the mirror has everything."""
        self.sidecar.wait_in_sync()

    def healed(self) -> str:
        """How the mirror was brought up to date, in the sidecar's words."""
        text: str = self.sidecar.replicas()[0]["healed"]
        return text

    def dirty(self) -> int:
        """Buckets of keys that may differ if the mirror's Redis were killed now."""
        count: int = self.sidecar.replicas()[0]["dirty_buckets"]
        return count

    def restarts(self) -> int:
        """How often the mirror's Redis was another process than before."""
        count: int = self.sidecar.replicas()[0]["restarts_total"]
        return count


class Outages:
    """The parts.

    Args:
        stage: where servers and the sidecar are started.
        report: what the reader sees.
        results: the rows of the Sync column.
        keys: keys that are there before anything happens.
        away: seconds that something is away.
        patience: seconds to wait at most until those keys count as delivered for good.
    """

    def __init__(self, stage: Stage, report: Report, results: Results, keys: int, away: float, patience: float) -> None:
        self._stage = stage
        self._report = report
        self._results = results
        self._keys = keys
        self._away = away
        self._patience = patience

    def start(self) -> OneWay:
        """Start the servers and fill the primary. Early: markers are written every ten seconds."""
        primary, mirror = self._stage.server("redis-primary"), self._stage.server("redis-mirror")
        sidecar = self._stage.sidecar(
            "sidecar-one-way", "redisha.yaml", lambda port, admin: one_way(primary.port, mirror.port, port, admin)
        )
        with sidecar.client() as client:
            typed: Any = client
            for first in range(0, self._keys, _PAGE):
                numbers = range(first, min(first + _PAGE, self._keys))
                typed.mset({f"item:{number}": f"{number:0100}" for number in numbers})
        return OneWay(primary, mirror, sidecar)

    def mirror_killed(self, servers: OneWay) -> None:
        """The mirror is killed twice."""
        report = self._report
        report.part(
            "The mirror is killed under load, and heals by itself",
            "A primary, a mirror that nobody else writes to, one sidecar. Twice the mirror's Redis is killed (kill -9)",
            "while clients write: the first time it comes back with its data, the second time its disk is empty. The",
            "sidecar notes in a file which keys the mirror may lack, and a marker in the mirror says how old its data",
            "is: so the keys in doubt are copied, or all of them, in order with the writes of the clients (one that is",
            "written meanwhile maybe more than once). Keys of both sides are looked at.",
        )
        sidecar = servers.sidecar
        servers.wait_in_sync()
        with report.progress("waiting for the next marker"):
            deadline = time.monotonic() + self._patience
            while servers.dirty() > self._keys * _FEW_DIRTY and time.monotonic() < deadline:
                time.sleep(_LOOK)
        report.line(f"configuration: {sidecar.file}")
        report.line(f"{self._keys:,} keys are there, and on the mirror; {servers.dirty():,} buckets are in doubt")
        self._kill_mirror(servers, "mirror killed, back with its data", loses_data=False)
        self._kill_mirror(servers, "mirror killed, back empty", loses_data=True)
        self._verify(servers)

    def primary_loses_data(self, servers: OneWay) -> None:
        """The primary is killed and comes back empty."""
        report = self._report
        report.part(
            "The primary loses its data, and gets it back from the mirror",
            "The primary's Redis is killed, its disk is empty, it starts. Its marker is gone: so it is not served as",
            "it is, and nothing of it is copied. First everything is copied back from the mirror; clients wait for",
            "that, or after op_timeout get UNAVAILABLE: not one byte was sent.",
        )
        primary, sidecar = servers.primary, servers.sidecar
        begin = time.monotonic()
        with Load(sidecar, "refill") as load:
            self._first_writes(load)
            with report.progress("the primary is away", self._away) as advance:
                pid = primary.kill()
                primary.lose_data()
                self._watch(advance, lambda: f"{len(load.errors):,} errors")
            report.command(f"kill -9 {pid}; rm -r {primary.name}/appendonlydir; redis-server …", "")
            with report.progress("the primary is back, and is being filled"):
                primary.start()
                wait_until(lambda: _is_filled(sidecar), "the primary is filled from its mirror", 30)
                before = load.written
                wait_until(lambda: load.written > before, "writes are answered again")
        seconds = time.monotonic() - begin
        (refill,) = sidecar.refills()
        report.line(f"filled: {refill['done']:,} keys copied from the mirror in {refill['seconds']} s")
        self._tell_errors(load.errors)
        servers.wait_in_sync()
        self._tell_healed(servers)
        self._tell_missing(load, primary)
        sync = compare(servers.primary, servers.mirror)
        if sync.keys < self._keys:
            raise DemoError(f"the primary has {sync.keys} keys of {self._keys}")
        self._results.add(
            "primary killed, back empty", sync, load.written, seconds, load.errors, ("UNAVAILABLE", "INDOUBT")
        )

    # --- the steps ----------------------------------------------------------------------------------------------------

    def _kill_mirror(self, servers: OneWay, what: str, *, loses_data: bool) -> None:
        report, mirror, sidecar = self._report, servers.mirror, servers.sidecar
        restarts = servers.restarts()
        begin = time.monotonic()
        with Load(sidecar, "empty" if loses_data else "kept") as load:
            self._first_writes(load)
            with report.progress("the mirror is away", self._away) as advance:
                pid = mirror.kill()
                if loses_data:
                    mirror.lose_data()
                self._watch(advance, lambda: f"{sidecar.lag():,} effects wait in the log")
            delete = f"rm -r {mirror.name}/appendonlydir; " if loses_data else ""
            report.command(f"kill -9 {pid}; {delete}redis-server …", "")
            with report.progress("the mirror is back, and heals"):
                mirror.start()
                states = sidecar.states_until_in_sync(restarts)
        seconds = time.monotonic() - begin
        report.line(f"its states: {' → '.join(states)}")
        self._tell_healed(servers)
        with report.progress("comparing the two servers"):
            servers.wait_in_sync()
            self._tell_missing(load, mirror)
            sync = compare(servers.primary, mirror)
        self._results.add(what, sync, load.written, seconds, load.errors)

    def _verify(self, servers: OneWay) -> None:
        """The command that compares any two servers, and what it prints."""
        one, two = servers.primary.url, servers.mirror.url
        argv = [sys.executable, "-m", "redisha", "verify", one, two]
        with self._report.progress("redisha verify"):
            done = subprocess.run(  # noqa: S603 - our own program
                argv, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL
            )
        self._report.command(f"redisha verify {one} {two}", done.stdout + done.stderr)
        if done.returncode != 0:
            raise DemoError(f"redisha verify ended with {done.returncode}")

    def _first_writes(self, load: Load) -> None:
        wait_until(lambda: load.written > 0 or bool(load.errors), "the first writes are answered")

    def _watch(self, advance: Advance, note: Callable[[], str]) -> None:
        begin = time.monotonic()
        while (passed := time.monotonic() - begin) < self._away:
            advance(passed, note())
            time.sleep(min(_LOOK, self._away - passed))

    def _tell_healed(self, servers: OneWay) -> None:
        self._report.line(f"healed: {servers.healed() or 'by the log alone'}")

    def _tell_missing(self, load: Load, server: RedisServer) -> None:
        missing = load.missing(server)
        if missing:
            raise DemoError(f"{missing} batches of writes were answered and are not on {server.name}")
        self._report.line(f"{load.written:,} writes were answered meanwhile, none of them is missing on {server.name}")

    def _tell_errors(self, errors: list[str]) -> None:
        words = Counter(error.partition(" ")[0] for error in errors)
        counted = ", ".join(f"{word} {count:,}" for word, count in words.most_common())
        self._report.line(f"what clients got meanwhile: {counted or 'no error'}")
        for word in words:
            example = next(error for error in errors if error.startswith(word))
            self._report.line(f"(error) {example}", "dim")


def _is_filled(sidecar: Sidecar) -> bool:
    return any(each["state"] == "done" for each in sidecar.refills()) and all(
        each["state"] == "in_sync" for each in sidecar.replicas()
    )
