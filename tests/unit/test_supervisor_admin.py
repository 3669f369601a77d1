"""The admin server's pure parts: HTTP's wire, the names of numbers, the answers to a view."""

import asyncio
import contextlib
import json
import re
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisha.admin import ServerState, Snapshot, UnknownClusterError, UnknownMemberError, metrics
from redisha.admin.api import ENDPOINTS, Api
from redisha.admin.app import AdminServer, BadRequest, Request, Response, encode, parse_request_line, read_request
from redisha.admin.replicas import progress
from redisha.core import (
    CommandStats,
    EndpointStats,
    Latency,
    ListenerStats,
    LogStats,
    ReplicaStats,
    Stats,
    WorkerStats,
    parse_stats,
)
from redisha.errors import ListenError
from redisha.health.monitor import EndpointHealth, EndpointKey
from redisha.health.probe import Facts
from redisha.health.state import Health, Verdict
from redisha.refill import RefillStats
from redisha.resolve import NameState
from redisha.scrub import ScrubStats

SNAPSHOT = Snapshot(
    state=ServerState.LIVE,
    missing=(),
    stats=Stats(
        worker=WorkerStats(turns=5, memory_bytes=1234, plan_generation=3),
        listeners=(
            ListenerStats("main", downstream_cx_total=7, downstream_rq_time_us=Latency(2, 30, 10, 20, 20, 20, 20)),
        ),
        commands=(CommandStats("set", 12), CommandStats("get", 3)),
        endpoints=(
            EndpointStats("a", "redis-001:6379", "10.0.0.1:6379", "ready", upstream_cx_total=2, upstream_rq_total=40),
            EndpointStats("a", "[::1]:6379", "[::1]:6379", "down", "refused", upstream_cx_total=1),
            EndpointStats("b", "unix:/r.sock", "unix:/r.sock", "ready"),
        ),
        replicas=(
            ReplicaStats(
                "a/redis-001:6379",
                "b/unix:/r.sock",
                "resync",
                lag=4,
                lost_total=1,
                resync="buckets",
                resync_done=300,
                resync_total=1200,
                resync_rate=90,
                sole="yes",
                healed="full: 9 of 9 keys <copied>",
            ),
        ),
        logs=(LogStats("a/redis-001:6379", 4, 400, 1000, 44, 1),),
    ),
    clusters={"a": ("redis-001",), "b": (), "empty": ()},
    health={
        EndpointKey("a", "redis-001:6379"): EndpointHealth(
            Verdict(Health.HEALTHY, attempt=3, success=3),
            Facts("abc", "7.0.15", "master", used_memory=99, maxmemory=100, maxmemory_policy="allkeys-lru"),
        ),
        EndpointKey("a", "[::1]:6379"): EndpointHealth(
            Verdict(Health.UNHEALTHY, reason="connection refused", attempt=3, failure=3, network_failure=3)
        ),
    },
    names={"redis-001": NameState(("10.0.0.1",), attempt=5, success=4, failure=1)},
    listeners=(("main", "127.0.0.1:6390"),),
    scrubs={
        ("a/redis-001:6379", "b/unix:/r.sock"): ScrubStats(2, 2000, 1, 0, 1_800_000_000, 1000, 1),
    },
    refills={
        "a/redis-001:6379": RefillStats(
            "a/redis-001:6379",
            "b/unix:/r.sock",
            "running",
            "it lost <data>",
            done=250,
            total=1000,
            rate=50,
            runs_total=1,
        )
    },
    prefixes={"main": "egress_redis"},
    counters={"config.reload_success": 1},
    gauges={"config.generation": 3},
)


class View:
    """A view that shows one snapshot and remembers what it was told to do."""

    def __init__(self, snapshot: Snapshot = SNAPSHOT) -> None:
        self._snapshot = snapshot
        self.did: list[str] = []

    def snapshot(self) -> Snapshot:
        return self._snapshot

    def server_info(self) -> dict[str, Any]:
        return {"version": "1"}

    def config_dump(self) -> dict[str, Any]:
        return {"config": {}}

    def resync(self, cluster: str, action: str) -> tuple[str, ...]:
        if cluster != "b":
            raise UnknownClusterError(cluster, ("a", "b"))
        if action not in ("start", "full"):
            raise ValueError(f"unknown action: {action}")
        self.did.append(f"{action} {cluster}")
        return ("a/redis-001:6379 -> b/unix:/r.sock",)

    async def hand_over(self, member: str) -> str:
        raise UnknownMemberError("this sidecar is in no group")

    def drain(self) -> None:
        self.did.append("drain")

    def quit(self) -> None:
        self.did.append("quit")

    def set_log_level(self, level: str) -> None:
        if level == "loud":
            raise ValueError("log level must be one of …: loud")
        self.did.append(level)


def ask(target: str, method: str = "GET", view: View | None = None) -> Response:
    answer = Api(view or View())(parse_request_line(f"{method} {target} HTTP/1.1"))
    assert isinstance(answer, Response), "only the hand-over waits"
    return answer


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda each: each.path)
def test_every_path_answers_its_method_and_refuses_the_other(endpoint: Any) -> None:
    other = "POST" if endpoint.method == "GET" else "GET"
    refused = ask(endpoint.path, other)
    assert (refused.status, refused.allow) == (HTTPStatus.METHOD_NOT_ALLOWED, endpoint.method)
    assert f"takes {endpoint.method}" in refused.body
    assert f"curl -X {endpoint.method} 'http://.../{endpoint.path.removeprefix('/')}" in refused.body
    wanted = {"/logging": 400, "/resync": 400, "/group": 404}.get(endpoint.path, 200)
    if endpoint.path == "/leader":
        return  # in test_admin_group.py
    answer = ask(endpoint.path, endpoint.method)
    assert answer.status == wanted
    assert answer.body.endswith("\n")


def test_unknown_path_lists_the_known_ones() -> None:
    answer = ask("/nope")
    assert answer.status == HTTPStatus.NOT_FOUND
    assert all(endpoint.path in answer.body for endpoint in ENDPOINTS)


def test_ready() -> None:
    assert (ask("/ready").status, ask("/ready").body) == (200, "LIVE\n")
    lame = View(replace(SNAPSHOT, missing=("cluster a has no ready endpoint: it has none",)))
    assert ask("/ready", view=lame).status == HTTPStatus.SERVICE_UNAVAILABLE
    assert ask("/ready", view=lame).body == "NOT READY\ncluster a has no ready endpoint: it has none\n"
    assert ask("/healthz", view=lame).status == HTTPStatus.OK


def test_post_endpoints_do_what_they_say() -> None:
    view = View()
    assert ask("/drain_listeners", "POST", view).status == HTTPStatus.OK
    assert ask("/quitquitquit", "POST", view).status == HTTPStatus.OK
    assert ask("/logging?level=debug", "POST", view).status == HTTPStatus.OK
    assert ask("/logging?level=loud", "POST", view).status == HTTPStatus.BAD_REQUEST
    assert view.did == ["drain", "quit", "debug"]


def test_resync_is_asked_for_and_refused() -> None:
    view = View()
    for target, status, text in (
        ("/resync", 400, "say which: POST /resync?cluster=NAME&action=start|full|pause|resume|accept"),
        ("/resync?cluster=", 400, "say which"),
        ("/resync?cluster=z", 404, "no cluster 'z' has a mirror or is one; known: a, b"),
        ("/resync?cluster=b&action=stop", 400, "unknown action: stop"),
        ("/resync?cluster=b", 200, "start: a/redis-001:6379 -> b/unix:/r.sock"),
        ("/resync?cluster=b&action=full", 200, "full: a/redis-001:6379 -> b/unix:/r.sock"),
    ):
        answer = ask(target, "POST", view)
        assert (answer.status, answer.body) == (status, text + "\n") or text == "say which"
    assert view.did == ["start b", "full b"]
    asked = json.loads(ask("/resync?cluster=b&action=full&format=json", "POST").body)
    assert asked == {"cluster": "b", "action": "full", "replicas": ["a/redis-001:6379 -> b/unix:/r.sock"]}
    refused = ask("/resync", "GET")
    assert "takes POST" in refused.body
    assert "resync?cluster=NAME&action=start|full|pause|resume|accept'" in refused.body


def test_stats_text_is_sorted_and_envoys_names_are_there() -> None:
    lines = ask("/stats").body.splitlines()
    assert lines == sorted(lines, key=lambda line: line.partition(": ")[0])
    assert all(re.fullmatch(r"[^ :]+: .+", line) for line in lines)
    for line in (
        "redis.egress_redis.downstream_cx_total: 7",
        "redis.egress_redis.command.set.total: 12",
        "redis.egress_redis.downstream_rq_time_us: P50(10) P90(20) P99(20) P99.9(20) P100(20)",
        "cluster.a.upstream_cx_total: 3",
        "cluster.a.membership_total: 2",
        "cluster.a.membership_healthy: 1",
        "cluster.a.health_check.attempt: 6",
        "cluster.a.health_check.healthy: 1",
        "cluster.a.update_failure: 1",
        "cluster.empty.membership_total: 0",
        "replica.a/redis-001_6379.b/unix_/r.sock.lag: 4",
        "replica.a/redis-001_6379.b/unix_/r.sock.resync_total: 1200",
        "replica.a/redis-001_6379.b/unix_/r.sock.scrub_keys_total: 2000",
        "replica.a/redis-001_6379.b/unix_/r.sock.refill_done: 250",
        "log.a/redis-001_6379.bytes: 400",
        "worker.memory_bytes: 1234",
        "server.live: 1",
        "config.reload_success: 1",
    ):
        assert line in lines


def test_stats_filter_and_usedonly() -> None:
    assert ask("/stats?filter=%5Eredis%5C..*cx_total%24").body == "redis.egress_redis.downstream_cx_total: 7\n"
    used = ask("/stats?usedonly").body
    assert "downstream_cx_total: 7" in used
    assert not re.search(r": (0|No recorded values)$", used, re.MULTILINE)
    assert ask("/stats?filter=(").status == HTTPStatus.BAD_REQUEST
    assert ask("/stats?format=xml").status == HTTPStatus.BAD_REQUEST


def test_stats_json_has_envoys_list_and_the_core_document() -> None:
    document = json.loads(ask("/stats?format=json&filter=cx_total").body)
    assert {"name": "cluster.a.upstream_cx_total", "value": 3} in document["stats"]
    assert document["worker"]["plan_generation"] == 3
    assert document["replicas"][0]["state"] == "resync"
    assert document["names"]["redis-001"]["addresses"] == ["10.0.0.1"]


def test_commands_of_several_listeners_belong_to_none() -> None:
    two = replace(SNAPSHOT, stats=replace(SNAPSHOT.stats, listeners=(ListenerStats("x"), ListenerStats("y"))))
    assert "redis.all.command.set.total: 12" in ask("/stats", view=View(two)).body


def test_clusters() -> None:
    lines = ask("/clusters").body.splitlines()
    assert "a::10.0.0.1:6379::health_flags::healthy" in lines
    assert "a::[::1]:6379::health_flags::/failed_active_hc/not_connected" in lines
    assert "a::10.0.0.1:6379::cx_total::2" in lines
    assert "empty::membership_total::0" in lines
    document = json.loads(ask("/clusters?format=json").body)["cluster_statuses"]
    assert [each["name"] for each in document] == ["a", "b", "empty"]
    assert document[0]["host_statuses"][1]["address"] == {"socket_address": {"address": "::1", "port_value": 6379}}
    assert document[1]["host_statuses"][0]["address"] == {"pipe": {"path": "/r.sock"}}
    assert "a::10.0.0.1:6379::maxmemory_policy::allkeys-lru" in lines
    assert any(line.startswith("a::10.0.0.1:6379::warning::has the maxmemory-policy allkeys-lru") for line in lines)
    assert "a::[::1]:6379::warning::" in lines


def test_replicas_and_listeners() -> None:
    assert "a/redis-001:6379 -> b/unix:/r.sock::lag::4" in ask("/replicas").body
    assert json.loads(ask("/replicas?format=json").body)["replicas"][0]["lost_total"] == 1
    for line in (
        "state::resync",
        "progress_percent::25.0",
        "progress_eta_s::10",
        "scrub_differ_total::1",
        "healed::full: 9 of 9 keys <copied>",
    ):
        assert f"a/redis-001:6379 -> b/unix:/r.sock::{line}\n" in ask("/replicas").body
    assert "a/redis-001:6379 <- b/unix:/r.sock::refill_percent::25.0\n" in ask("/replicas").body
    assert "::warning::a/redis-001:6379 has the maxmemory-policy allkeys-lru" in ask("/replicas").body
    document = json.loads(ask("/replicas?format=json").body)
    assert document["replicas"][0]["progress"] == {
        "kind": "buckets",
        "done": 300,
        "total": 1200,
        "percent": 25.0,
        "rate": 90,
        "eta_s": 10,
    }
    assert document["replicas"][0]["scrub"]["last_run"] == 1_800_000_000
    assert (document["refills"][0]["eta_s"], document["refills"][0]["state"]) == (15, "running")
    assert ask("/listeners").body == "main::127.0.0.1:6390\n"
    assert ask("/replicas", view=View(replace(SNAPSHOT, stats=Stats()))).body == "no route has a mirror\n"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"state": "in_sync"}, None),
        ({"resync": "log"}, None),
        ({"resync_total": 0}, (None, None)),
        ({"resync_total": 0, "resync_done": 0}, None),
        ({"resync_done": 1300}, (100.0, 0)),
        ({"resync_done": 1199}, (99.9, 0)),
        ({"resync_rate": 0}, (25.0, None)),
        ({"state": "paused", "resync_rate": 0}, (25.0, None)),
    ],
)
def test_progress(fields: dict[str, Any], expected: tuple[float | None, int | None] | None) -> None:
    found = progress(replace(SNAPSHOT.stats.replicas[0], **fields))
    assert (found and (found["percent"], found["eta_s"])) == expected


def test_front_page_shows_progress() -> None:
    body = ask("/").body
    assert "buckets <progress value=300 max=1200></progress> 25.0 %, 300 of 1,200 keys, 10 s to go" in body
    assert "<progress value=250 max=1000></progress> 25.0 %" in body
    assert "full: 9 of 9 keys &lt;copied&gt;" in body
    assert "maxmemory-policy allkeys-lru" in body


def test_front_page_escapes() -> None:
    evil = replace(SNAPSHOT, missing=("<script>alert(1)</script>",))
    assert "<script" not in ask("/", view=View(evil)).body


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_every_number_of_the_core_has_a_help_text() -> None:
    records = (ListenerStats(), EndpointStats(), ReplicaStats(), LogStats(), WorkerStats())
    assert {name for record in records for name, _ in metrics.numbers(record)} <= metrics.HELP.keys()


def test_prometheus_text() -> None:
    text = metrics.prometheus(SNAPSHOT)
    for line in (
        'redisha_downstream_cx_total{listener="main"} 7.0',
        'redisha_command_total{command="set"} 12.0',
        'redisha_upstream_rq_total{cluster="a",endpoint="redis-001:6379"} 40.0',
        'redisha_endpoint_ready{cluster="a",endpoint="[::1]:6379"} 0.0',
        'redisha_downstream_rq_time_us{listener="main",quantile="0.99"} 20.0',
        'redisha_downstream_rq_time_us_sum{listener="main"} 30.0',
        'redisha_downstream_rq_time_us_count{listener="main"} 2.0',
        'redisha_replica_lag{mirror="b/unix:/r.sock",primary="a/redis-001:6379"} 4.0',
        'redisha_dns_failure_total{name="redis-001"} 1.0',
        'redisha_redis_used_memory_bytes{cluster="a",endpoint="redis-001:6379"} 99.0',
        "redisha_config_reload_success_total 1.0",
        'redisha_redis_may_evict{cluster="a",endpoint="redis-001:6379"} 1.0',
        'redisha_replica_resync_done{mirror="b/unix:/r.sock",primary="a/redis-001:6379"} 300.0',
        'redisha_replica_resync_expected{mirror="b/unix:/r.sock",primary="a/redis-001:6379"} 1200.0',
        'redisha_replica_scrub_keys_total{mirror="b/unix:/r.sock",primary="a/redis-001:6379"} 2000.0',
        'redisha_replica_refill_running{mirror="b/unix:/r.sock",primary="a/redis-001:6379"} 1.0',
        "# TYPE redisha_replica_resync_expected gauge",
        "# TYPE redisha_replica_resync_keys_total counter",
        "# TYPE redisha_replica_scrub_runs_total counter",
        "# TYPE redisha_downstream_cx_active gauge",
        "# TYPE redisha_downstream_cx_destroy_total counter",
        "# TYPE redisha_upstream_rq_time_us summary",
    ):
        assert line in text.splitlines(), line


def test_prometheus_text_is_read_back_by_its_own_parser() -> None:
    from prometheus_client.parser import text_string_to_metric_families

    families = list(text_string_to_metric_families(metrics.prometheus(SNAPSHOT)))
    assert len({family.name for family in families}) == len(families) > 60
    assert all(family.documentation for family in families)


@given(st.dictionaries(st.sampled_from(["turns", "cpu_us", "new"]), st.integers(0)))
def test_stats_of_another_version_are_readable(worker: dict[str, int]) -> None:
    stats = parse_stats(json.dumps({"worker": worker, "endpoints": [{"id": "x", "new": 1}], "new": []}).encode())
    assert stats.worker.turns == worker.get("turns", 0)
    assert stats.endpoints[0].id == "x"


# --- the wire ---------------------------------------------------------------------------------------------------------


async def read(data: bytes) -> tuple[Request, bool]:
    reader = asyncio.StreamReader(limit=16 * 1024)
    reader.feed_data(data)
    reader.feed_eof()
    return await read_request(reader)


@pytest.mark.parametrize(
    ("data", "method", "path", "query", "keep"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "GET", "/", {}, True),
        (b"GET /a?x=1&y&x=2 HTTP/1.0\r\n\r\n", "GET", "/a", {"x": "2", "y": ""}, False),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", "GET", "/", {}, False),
        (b"GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n", "GET", "/", {}, True),
        (b"POST /x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "POST", "/x", {}, True),
        (b"POST /x HTTP/1.1\r\nHost: h:1\r\nOrigin: http://h:1\r\n\r\n", "POST", "/x", {}, True),
    ],
)
async def test_requests(data: bytes, method: str, path: str, query: dict[str, str], keep: bool) -> None:
    body = data.partition(b"\r\n\r\n")[2]
    assert await read(data) == (Request(method, path, query, body), keep)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"PING\r\n\r\n", 400),
        (b"GET nope HTTP/1.1\r\n\r\n", 400),
        (b"GET / SPDY/3\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nhost: h:1\r\norigin: http://evil\r\n\r\n", 403),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 4000 + b"\r\n", 431),
    ],
)
async def test_bad_requests(data: bytes, status: int) -> None:
    with pytest.raises(BadRequest) as caught:
        await read(data)
    assert caught.value.response.status == status


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    with contextlib.suppress(BadRequest, asyncio.IncompleteReadError):
        asyncio.run(read(data))


def test_encoding() -> None:
    head, body = encode(Response("é\n", allow="POST"), keep=False).split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"content-length: 3\r\n" in head + b"\r\n"
    assert b"connection: close" in head
    assert head.endswith(b"allow: POST")
    assert body == "é\n".encode()
    assert encode(Response("x"), keep=True, head_only=True).endswith(b"\r\n\r\n")


async def exchange(address: str, data: bytes) -> bytes:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_server_keeps_a_connection_and_survives_a_failing_handler(caplog: pytest.LogCaptureFixture) -> None:
    def handler(request: Request) -> Response:
        if request.path == "/fail":
            raise RuntimeError("boom")
        return Response(f"{request.method} {request.path}")

    server = AdminServer(handler)
    address = await server.start("127.0.0.1:0")
    answer = await exchange(address, b"GET /a HTTP/1.1\r\n\r\nHEAD /b HTTP/1.1\r\n\r\nGET /fail HTTP/1.1\r\n\r\n")
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"200", b"500"]
    assert b"GET /a" in answer
    assert b"HEAD /b" not in answer
    assert "boom" in caplog.text
    assert (await exchange(address, b"nonsense\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
    with pytest.raises(ListenError, match=rf"cannot bind {address}: .*in use.*--admin"):
        await AdminServer(handler).start(address)
    await server.close()
    with pytest.raises(OSError, match=r"refused|Connect"):
        await exchange(address, b"GET / HTTP/1.1\r\n\r\n")
