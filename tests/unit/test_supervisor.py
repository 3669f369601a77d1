"""The order of things in :mod:`redisha.supervisor`, with a data plane that only remembers what it was told."""

import asyncio
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from redisha import statedir, supervisor
from redisha.admin import ServerState, UnknownClusterError
from redisha.config.load import load
from redisha.core import BindError, DataPlane, PlanError
from redisha.errors import ConfigError, ListenError
from redisha.errors import PlanError as RefusedPlan
from redisha.resolve import Answer
from redisha.resync import Caretaker
from redisha.scrub import Sample
from redisha.supervisor import EXIT_WORKER_DIED, Options, Supervisor

CONFIG = """
listeners:
  - {{name: main, bind: [127.0.0.1:6390], routes: [{{prefix: "", cluster: a}}]}}
clusters:
  a: {{endpoints: [{endpoint}], dns_refresh: 20ms, health: {{interval: 1h}}}}
"""

MIRRORED = """
listeners:
  - {name: main, bind: [127.0.0.1:6390], routes: [{prefix: "", cluster: a, mirrors: [{cluster: b}]}]}
clusters:
  a: {endpoints: [127.0.0.1:1], health: {interval: 1h}}
  b: {endpoints: [127.0.0.1:2], health: {interval: 1h}}
"""


class FakeCore:
    """Our own core without sockets: remembers plans, tells events when a test says so."""

    def __init__(self) -> None:
        self.plans: list[dict[str, Any]] = []
        self.refuse: Exception | None = None
        self.state = "ready"
        self.drains: list[int] = []
        self.joined = False
        self.orders: list[tuple[Any, ...]] = []
        self.replica = "in_sync"
        self._fd = os.eventfd(0, os.EFD_NONBLOCK)
        self._events: list[SimpleNamespace] = []

    def tell(self, kind: str, subject: str = "", detail: str = "") -> None:
        self._events.append(SimpleNamespace(kind=kind, subject=subject, detail=detail))
        os.eventfd_write(self._fd, 1)

    def apply(self, plan: bytes) -> int:
        if self.refuse is not None:
            raise self.refuse
        self.plans.append(json.loads(plan))
        generation: int = self.plans[-1]["generation"]
        self.tell("applied", str(generation))
        return generation

    def fileno(self) -> int:
        return self._fd

    def drain_events(self) -> list[SimpleNamespace]:
        os.eventfd_read(self._fd)
        events, self._events = self._events, []
        return events

    def stats(self) -> bytes:
        endpoints = [
            {
                "cluster": cluster["name"],
                "id": each["id"],
                "address": each["address"] or "",
                "state": self.state if each["address"] else "down",
            }
            for plan in self.plans[-1:]
            for cluster in plan["clusters"]
            for each in cluster["endpoints"]
        ]
        replicas = [{"primary": "a/127.0.0.1:1", "mirror": "b/127.0.0.1:2", "state": self.replica, "sole": "yes"}]
        stats = {"endpoints": endpoints, "listeners": [{"name": "main"}], "replicas": replicas, "future": 1}
        return json.dumps(stats).encode()

    def listeners(self) -> list[tuple[str, str]]:
        return [("main", "127.0.0.1:6390")] if self.plans else []

    def resync(self, cluster: str, action: str) -> None:
        self.orders.append(("resync", cluster, action))

    def refilled(self, primary: str, ok: bool) -> None:
        self.orders.append(("refilled", primary, ok))

    def doubt(self, primary: str, mirror: str, keys: list[tuple[int, bytes]]) -> None:
        self.orders.append(("doubt", primary, mirror, keys))

    def begin_drain(self, limit_ms: int) -> None:
        self.drains.append(limit_ms)

    def join(self, timeout_ms: int) -> bool:
        self.joined = True
        return True

    @property
    def addresses(self) -> list[str | None]:
        return [each["address"] for each in self.plans[-1]["clusters"][0]["endpoints"]]


class Setup:
    """A supervisor on a fake core, its file, and the names it can resolve."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        folder.mkdir(exist_ok=True)
        self.file = folder / "redisha.yaml"
        self.write(CONFIG.format(endpoint=endpoint))
        self.names: dict[str, list[str]] = {}
        self.core = FakeCore()
        self.again()

    def again(
        self, plane: DataPlane | None = None, care: Caretaker | None = None, state_dir: str | None = None
    ) -> None:
        """Another supervisor, for what the file says now."""
        options = Options(drain_timeout=0.2, state_dir=state_dir)
        plane = plane or DataPlane(self.core)
        self.supervisor = Supervisor(load(self.file), options, plane, lambda name: self._lookup(name), care)

    def _lookup(self, name: str) -> Answer:
        if name not in self.names:
            raise OSError(-2, "Name or service not known")
        return Answer(tuple(self.names[name]))

    def write(self, text: str) -> None:
        fresh = self.file.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.file)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["asyncio.Task[int]"]:
        task = asyncio.create_task(self.supervisor.run())
        try:
            await until(lambda: task.done() or self.supervisor.snapshot().state is ServerState.LIVE)
            yield task
        finally:
            self.supervisor.quit()
            await asyncio.wait([task], timeout=5)

    def info(self) -> dict[str, Any]:
        return self.supervisor.server_info()


async def until(condition: Callable[[], object], limit: float = 5.0) -> None:
    async with asyncio.timeout(limit):
        while not condition():  # noqa: ASYNC110 - the condition has no event
            await asyncio.sleep(0.005)


@pytest.fixture
def setup(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Setup:
    caplog.set_level(logging.INFO)
    return Setup(tmp_path, "127.0.0.1:1")


async def test_start_applies_a_plan_and_is_ready_once(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    async with setup.running():
        await until(lambda: setup.info()["ready"])
        assert setup.core.addresses == ["127.0.0.1:1"]
        assert setup.info()["config"]["generation_in_force"] == 1
        setup.core.tell("upstream_up", "a/127.0.0.1:1")
        setup.core.tell("upstream_up", "a/127.0.0.1:1")
        await asyncio.sleep(0.05)
        said = [record.message for record in caplog.records]
        assert said.count("ready") == 1
        assert said.index("running") < said.index("ready")
        assert said.count("connected to a/127.0.0.1:1") == 1


async def test_not_ready_while_the_primary_is_away(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    setup.core.state = "down"
    async with setup.running():
        assert setup.supervisor.snapshot().missing == ("cluster a has no ready endpoint: 127.0.0.1:1 is down",)
        setup.core.state = "ready"
        setup.core.tell("upstream_up", "a/127.0.0.1:1")
        await until(lambda: "ready" in [record.message for record in caplog.records])
        setup.core.state = "down"
        setup.core.tell("upstream_down", "a/127.0.0.1:1", "connection refused")
        await until(lambda: "not ready: " in caplog.text)
        assert setup.supervisor.snapshot().missing


@pytest.mark.parametrize(
    ("refusal", "error"),
    [(BindError("listener main: cannot bind"), ListenError), (PlanError("clusters[0]"), RefusedPlan)],
)
async def test_a_refused_first_plan_ends_the_start(setup: Setup, refusal: Exception, error: type[Exception]) -> None:
    setup.core.refuse = refusal
    with pytest.raises(error, match=str(refusal).split(":")[0].replace("[", r"\[")):
        await setup.supervisor.run()
    assert setup.core.joined


async def test_a_name_that_does_not_resolve_does_not_stop_the_start(tmp_path: Path) -> None:
    setup = Setup(tmp_path, "redis-001:6379")
    async with setup.running():
        assert setup.core.addresses == [None]
        assert "redis-001 does not resolve: Name or service not known" in setup.supervisor.snapshot().missing[0]
        setup.names["redis-001"] = ["10.9.9.1"]
        await until(lambda: setup.core.addresses == ["10.9.9.1:6379"])
        await until(lambda: setup.info()["config"]["generation_in_force"] == 2)


async def test_a_moved_name_is_a_new_plan_and_an_unmoved_one_is_none(tmp_path: Path) -> None:
    setup = Setup(tmp_path, "redis-001:6379")
    setup.names["redis-001"] = ["10.9.9.1"]
    async with setup.running():
        attempts = setup.supervisor.snapshot().names["redis-001"].attempt
        await until(lambda: setup.supervisor.snapshot().names["redis-001"].attempt > attempts + 3)
        assert [plan["generation"] for plan in setup.core.plans] == [1]
        setup.names["redis-001"] = ["10.9.9.2"]
        await until(lambda: setup.core.addresses == ["10.9.9.2:6379"])
        assert [plan["generation"] for plan in setup.core.plans] == [1, 2]


async def test_sighup_puts_a_good_file_in_force(setup: Setup) -> None:
    async with setup.running():
        setup.write(CONFIG.format(endpoint="127.0.0.1:2"))
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: setup.core.addresses == ["127.0.0.1:2"])
        await until(lambda: setup.info()["config"]["reload_success"] == 1)
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: setup.info()["config"]["reload_success"] == 2)
        assert [plan["generation"] for plan in setup.core.plans] == [1, 2, 3]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "listeners: [",
        CONFIG.format(endpoint="127.0.0.1:2").replace("endpoints", "endpoint"),
        CONFIG.format(endpoint="127.0.0.1:2").replace("cluster: a", "cluster: b"),
    ],
)
async def test_a_bad_file_changes_nothing_and_is_reported(
    setup: Setup, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with setup.running():
        setup.write(text)
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: setup.info()["config"]["reload_failure"] == 1)
        assert len(setup.core.plans) == 1
        assert "redisha.yaml" in setup.info()["config"]["last_reload_error"]["error"]
        assert "reload refused, nothing was changed: " in caplog.text
        assert setup.info()["ready"]
        setup.write(CONFIG.format(endpoint="127.0.0.1:3"))
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: setup.core.addresses == ["127.0.0.1:3"])
        await until(lambda: setup.info()["config"]["last_reload_error"] is None)


async def test_a_plan_that_the_core_refuses_at_reload_changes_nothing(tmp_path: Path) -> None:
    setup = Setup(tmp_path, "redis-001:6379")
    setup.names |= {"redis-001": ["10.9.9.1"], "redis-002": ["10.9.9.2"]}
    async with setup.running():
        setup.write(CONFIG.format(endpoint="redis-002:6379"))
        setup.core.refuse = BindError("listener main: 127.0.0.1:6390: address already in use")
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: setup.info()["config"]["reload_failure"] == 1)
        setup.core.refuse = None
        assert setup.core.addresses == ["10.9.9.1:6379"]
        assert set(setup.supervisor.snapshot().names) == {"redis-001"}
        setup.names["redis-001"] = ["10.9.9.3"]
        await until(lambda: setup.core.addresses == ["10.9.9.3:6379"])


async def test_a_changed_file_is_noticed(setup: Setup) -> None:
    async with setup.running():
        setup.write(CONFIG.format(endpoint="127.0.0.1:2"))
        await until(lambda: setup.core.addresses == ["127.0.0.1:2"], 10)
        setup.write(CONFIG.format(endpoint="127.0.0.1:4"))
        await until(lambda: setup.core.addresses == ["127.0.0.1:4"], 10)


async def test_a_swapped_link_is_noticed_as_kubernetes_does_it(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"..{number}").mkdir()
        (tmp_path / f"..{number}" / "redisha.yaml").write_text(CONFIG.format(endpoint=f"127.0.0.1:{number}"))
    setup = Setup(tmp_path, "127.0.0.1:1")
    setup.file.unlink()
    (tmp_path / "..data").symlink_to("..1")
    setup.file.symlink_to("..data/redisha.yaml")
    async with setup.running():
        await asyncio.sleep(1.5)
        (tmp_path / "..data.new").symlink_to("..2")
        (tmp_path / "..data.new").replace(tmp_path / "..data")
        await until(lambda: setup.core.addresses == ["127.0.0.1:2"], 10)


async def test_sigterm_drains_and_exits_with_0(setup: Setup) -> None:
    async with setup.running() as task:
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: setup.core.drains == [200])
        snapshot = setup.supervisor.snapshot()
        assert (snapshot.state, snapshot.missing) == (
            ServerState.DRAINING,
            ("draining: no new clients are accepted",),
        )
        assert not task.done()
        setup.core.tell("drained")
        assert await task == 0
        assert setup.core.joined


async def test_a_drain_without_an_end_ends_anyway(setup: Setup) -> None:
    async with setup.running() as task:
        os.kill(os.getpid(), signal.SIGINT)
        async with asyncio.timeout(3):
            assert await task == 0


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_at_once(setup: Setup, sig: signal.Signals) -> None:
    setup.supervisor = Supervisor(load(setup.file), Options(drain_timeout=60), DataPlane(setup.core))
    async with setup.running() as task:
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: setup.core.drains)
        os.kill(os.getpid(), sig)
        async with asyncio.timeout(2):
            assert await task == 128 + sig


@pytest.mark.parametrize("draining", [False, True])
async def test_a_dead_worker_ends_the_process_with_70(
    setup: Setup, caplog: pytest.LogCaptureFixture, draining: bool
) -> None:
    async with setup.running() as task:
        if draining:
            setup.supervisor.drain()
            await until(lambda: setup.core.drains)
        setup.core.tell("worker_died", "worker 0", "index out of bounds")
        async with asyncio.timeout(2):
            assert await task == EXIT_WORKER_DIED
        assert "the data plane died: index out of bounds" in caplog.text
        assert not setup.core.joined


# --- mirrors ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def mirrored(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> Setup:
    """A route with a mirror."""
    setup.write(MIRRORED)
    setup.again()
    return setup


SUBJECT = "a/127.0.0.1:1 -> b/127.0.0.1:2"


async def test_a_mirror_that_is_its_own_primary_ends_the_start(mirrored: Setup) -> None:
    async with mirrored.running() as task:
        mirrored.core.tell("same_server", SUBJECT, "b/127.0.0.1:2 and a/127.0.0.1:1 are the same Redis")
        with pytest.raises(
            ConfigError, match=r"redisha\.yaml: a/.* are the same Redis \(name another server"
        ) as caught:
            await task
        assert caught.value.exit_code == 1
        assert mirrored.core.joined


@pytest.mark.parametrize("why", ["reloaded", "old"])
async def test_later_it_is_an_error_and_no_end(
    mirrored: Setup, why: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with mirrored.running() as task:
        await until(lambda: mirrored.info()["ready"])
        await until(lambda: "ready" in [record.message for record in caplog.records])
        if why == "reloaded":
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: mirrored.info()["config"]["reload_success"] == 1)
        else:
            monkeypatch.setattr(supervisor, "STARTING", 0.0)
        mirrored.core.tell("same_server", SUBJECT, "they are the same Redis")
        await until(lambda: f"refused {SUBJECT}: they are the same Redis" in caplog.text)
        assert "ERROR" in [each.levelname for each in caplog.records if "same Redis" in each.message]
        assert not task.done()


async def test_a_state_directory_that_cannot_be_used_ends_the_start(mirrored: Setup, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    mirrored.write(f"state_dir: {tmp_path}/file\n{MIRRORED}")
    mirrored.again()
    with pytest.raises(ConfigError, match=r"redisha\.yaml: state_dir: .*file is not a folder"):
        await mirrored.supervisor.run()
    assert mirrored.core.plans == []


async def test_the_state_directory_goes_to_the_plan_and_stays(mirrored: Setup, tmp_path: Path) -> None:
    mirrored.again(state_dir=str(tmp_path / "state"))
    async with mirrored.running():
        assert mirrored.info()["state_dir"] == str(tmp_path / "state")
        mirrored.write(f"state_dir: {tmp_path}/other\n{MIRRORED}")
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: mirrored.info()["config"]["reload_success"] == 1)
        assert [plan["state_dir"] for plan in mirrored.core.plans] == [str(tmp_path / "state")] * 2
        rival = Setup(tmp_path / "rival", "127.0.0.1:1")
        rival.write(MIRRORED)
        rival.again(state_dir=str(tmp_path / "state"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(statedir, "PATIENCE", 0.1)
            with pytest.raises(ConfigError, match=r"--state-dir: the folder .* is used by process"):
                await rival.supervisor.run()


async def test_without_a_state_directory_it_is_in_memory(mirrored: Setup) -> None:
    mirrored.again(state_dir="memory")
    async with mirrored.running():
        assert mirrored.info()["state_dir"] == "memory"
        assert mirrored.core.plans[0]["state_dir"] is None


async def test_what_an_operator_asks_for_reaches_the_data_plane(mirrored: Setup) -> None:
    async with mirrored.running():
        for cluster in ("a", "b"):
            for action in ("start", "full", "pause", "resume", "accept"):
                assert mirrored.supervisor.resync(cluster, action) == (SUBJECT,)
                assert mirrored.core.orders[-1] == ("resync", cluster, action)
        with pytest.raises(UnknownClusterError, match="no cluster 'c' has a mirror or is one; known: a, b"):
            mirrored.supervisor.resync("c", "start")
        with pytest.raises(ValueError, match="unknown action: stop; one of start, full, pause, resume, accept"):
            mirrored.supervisor.resync("a", "stop")


async def test_a_refill_is_done_and_told(mirrored: Setup, caplog: pytest.LogCaptureFixture) -> None:
    copied: list[str] = []
    plane = DataPlane(mirrored.core)
    care = Caretaker(plane, copy=lambda pair, rates, job: copied.append(str(pair)))
    mirrored.again(plane=plane, care=care)
    async with mirrored.running():
        mirrored.core.replica = "held"
        mirrored.core.tell("refill", SUBJECT, "the primary lost data that its mirror has")
        await until(lambda: mirrored.core.orders == [("refilled", "a/127.0.0.1:1", True)])
        assert copied == [SUBJECT]
        assert mirrored.supervisor.snapshot().refills["a/127.0.0.1:1"].state == "done"
        assert f"refill {SUBJECT}: the primary lost data" in caplog.text


async def test_a_scrub_hands_what_differs_to_the_data_plane(mirrored: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "TICK", 0.02)
    plane = DataPlane(mirrored.core)
    care = Caretaker(plane, compare=lambda pair, count, job: Sample(count, ((0, b"k"),)))
    mirrored.write(MIRRORED + "resync: {scrub: {interval: 100ms, sample: 7}}")
    mirrored.again(plane=plane, care=care)
    async with mirrored.running():
        await until(lambda: mirrored.core.orders)
        assert mirrored.core.orders[0] == ("doubt", "a/127.0.0.1:1", "b/127.0.0.1:2", [(0, b"k")])
        scrub = mirrored.supervisor.snapshot().scrubs["a/127.0.0.1:1", "b/127.0.0.1:2"]
        assert (scrub.last_keys, scrub.last_differ) == (7, 1)


async def test_an_unknown_event_is_logged_and_not_fatal(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    async with setup.running():
        setup.core.tell("weather", "the sun", "shines")
        await until(lambda: "the sun: shines" in caplog.text)


async def test_log_level(setup: Setup) -> None:
    root = logging.getLogger()
    before = root.level
    try:
        setup.supervisor.set_log_level("warning")
        assert root.level == logging.WARNING
        with pytest.raises(ValueError, match="loud"):
            setup.supervisor.set_log_level("loud")
    finally:
        root.setLevel(before)
