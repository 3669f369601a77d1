"""One sidecar between a primary and its mirror, and the account of how the mirror was healed."""

import contextlib
import json
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import configs, wait
from support.crowd import Crowd
from support.equality import assert_same
from support.redis_server import RedisServer
from support.sidecar import Sidecar

Replica = dict[str, Any]
Noticed = Callable[[Replica, Replica], bool]

PRIMARY, MIRROR = "redis-001", "redis-002"
AOF = {"appendonly": "yes", "appendfsync": "everysec"}
HEAL_TIMEOUT = 40.0


@dataclass(frozen=True)
class Told:
    """A line of the report: how a scenario's mirror became equal again."""

    scenario: str
    how: str
    """The kind: log, buckets or full."""
    text: str
    """redisha's own words."""
    keys: int
    seconds: float


def restarted(before: Replica, now: Replica) -> bool:
    """The sidecar has seen that the mirror is another process."""
    return now["restarts_total"] > before["restarts_total"]


def refused(before: Replica, now: Replica) -> bool:
    """The mirror has answered something with an error."""
    return now["error_total"] > before["error_total"]


def scanned(before: Replica, now: Replica) -> bool:
    """A resync has begun that was not there before."""
    return now["resync_runs_total"] > before["resync_runs_total"]


def always(before: Replica, now: Replica) -> bool:
    """There is nothing that would have to be noticed."""
    return True


class Stage:
    """The three of them, with their state directory."""

    def __init__(self, scenario: str, primary: RedisServer, mirror: RedisServer, proxy: Sidecar, state: Path) -> None:
        self.primary = primary
        self.mirror = mirror
        self.proxy = proxy
        self.state = state
        self.told: list[Told] = []
        self._scenario = scenario

    # --- looking ---

    def replica(self) -> Replica:
        """The state and the counters of the only replica."""
        [found] = self.proxy.stats()["replicas"]
        return found

    def endpoint(self, cluster: str) -> dict[str, Any]:
        """A cluster's only endpoint."""
        return next(each for each in self.proxy.stats()["endpoints"] if each["cluster"] == cluster)

    def until(self, look: Callable[[Replica], bool], what: str, timeout: float = HEAL_TIMEOUT) -> Replica:
        """Wait until the replica looks so, and return it. On failure its last look is in the error."""
        seen: Replica = {}

        def looks() -> bool:
            nonlocal seen
            seen = self.replica()
            return look(seen)

        try:
            wait.until(looks, what, timeout, every=0.05)
        except AssertionError as error:
            raise AssertionError(f"{error}; the replica: {json.dumps(seen)}") from None
        return seen

    def until_in_sync(self, timeout: float = HEAL_TIMEOUT) -> Replica:
        """The replica says that it is in sync."""
        return self.until(lambda now: now["state"] == "in_sync", "the mirror is in sync", timeout)

    def until_whole(self, timeout: float = HEAL_TIMEOUT) -> Replica:
        """In sync, with nothing on its way and nothing in doubt."""
        return self.until(is_whole, "the mirror is in sync and lacks nothing", timeout)

    # --- acting ---

    def order(self, action: str, cluster: str = MIRROR) -> None:
        """Give an operator's order: ``start``, ``full``, ``pause``, ``resume``, ``accept``."""
        query = urllib.parse.urlencode({"cluster": cluster, "action": action})
        url = f"http://127.0.0.1:{self.proxy.admin_port}/resync?{query}"
        with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=10) as response:
            assert response.status == 200

    def restart_proxy(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """``kill -9`` the sidecar, do something, and start it with the same state directory."""
        self.proxy.kill()
        meanwhile()
        self.proxy.start(ready=False)
        wait.until(self._answers, "the sidecar answers again", 20)

    def _answers(self) -> bool:
        self.proxy.is_ready()  # raises when it has ended
        return self.proxy.get_status("/healthz")[0] == 200

    @contextlib.contextmanager
    def healing(self, *kinds: str, noticed: Noticed, timeout: float = HEAL_TIMEOUT, name: str = "") -> Iterator[None]:
        """Something is broken in the block; afterwards the mirror becomes equal in one of these ways.

        ``noticed`` compares the replica before and after: the account begins with it, so that "in sync" is not what
        was said before anything was broken. A sidecar that is another process than before has nothing to notice.
        """
        before, process = self.replica(), self.proxy.pid
        yield
        begun = time.monotonic()
        if self.proxy.pid != process:
            before = dict.fromkeys((name for name, value in before.items() if isinstance(value, int)), 0)
        else:
            self.until(lambda now: noticed(before, now), "the breakage is noticed", timeout)
        now = self.until_in_sync(timeout)
        how = _kind(before, now)
        keys = now["resync_keys_total"] - before["resync_keys_total"]
        seconds = time.monotonic() - begun
        self.told.append(Told(f"{self._scenario}{name}", how, now["healed"], keys, seconds))
        assert how in kinds, f"healed by {how}, expected {' or '.join(kinds)}: {json.dumps(now)}"

    # --- the end ---

    def assert_healed(self, *crowds: Crowd) -> None:
        """Without writers: nothing on its way, both servers equal, everything acknowledged there."""
        for crowd in crowds:
            crowd.stop()
        now = self.until_whole()
        assert now["unproven_keys"] == now["unrepaired_keys"] == 0, now
        assert_same(self.primary, self.mirror)
        for crowd in crowds:
            crowd.assert_kept(self.primary)


def is_whole(now: Replica) -> bool:
    """In sync, nothing on its way, nothing in doubt."""
    return now["state"] == "in_sync" and now["lag"] == 0 and now["repair_keys"] == 0


def _kind(before: Replica, now: Replica) -> str:
    """How it was healed, by the counters; the label must say the same."""
    full = now["resync_full_total"] - before["resync_full_total"]
    runs = now["resync_runs_total"] - before["resync_runs_total"]
    if not runs:
        return "log"
    how = "full" if full else "buckets"
    assert now["healed"].startswith(how), f"{runs} runs, {full} of them full: {now['healed']!r}"
    return how


def config(
    primary: str,
    mirror: str,
    state: Path | None,
    *,
    rate: int = 0,
    limits: dict[str, Any] | None = None,
    primary_auth: dict[str, str] | None = None,
    mirror_auth: dict[str, str] | None = None,
    op_timeout: str = "500ms",
) -> configs.Config:
    """A mirrored route; the mirror is given up after ``op_timeout`` without an answer.

    A resync copies ``rate`` keys per second, 0 as many as it can. Nothing is scrubbed: what a resync misses is
    not to be found by something else.
    """
    settings: list[dict[str, Any]] = [{"auth": auth} if auth else {} for auth in (primary_auth, mirror_auth)]
    mirror_settings = settings[1] | {"op_timeout": op_timeout}
    made = configs.mirrored(primary, mirror, mirror_settings=mirror_settings, **settings[0])
    made["resync"] = {"max_keys_per_second": rate, "scrub": {"interval": 0}}
    if state is not None:
        made["state_dir"] = str(state)
    if limits:
        made["limits"] = limits
    return made


def fill(server: RedisServer, keys: int, prefix: str = "fill", databases: Sequence[int] = (0,)) -> None:
    """Strings of 20 bytes, written directly."""
    for database in databases:
        with server.client(db=database) as client:
            for start in range(0, keys, 10_000):
                names = range(start, min(keys, start + 10_000))
                client.mset({f"{prefix}:{number}": f"{number:020}" for number in names})
