"""What follows from a configuration: :mod:`redisha.derive`."""

import json
from dataclasses import asdict

import pytest

from redisha.admin import ServerState
from redisha.config.load import parse
from redisha.config.model import Config
from redisha.core import EndpointStats
from redisha.derive import checks, cluster_hosts, missing, policies, primary_clusters, redacted
from redisha.health.monitor import EndpointKey
from redisha.plan import compile_plan
from redisha.process import Allocator, Trimmer, resident_bytes
from redisha.resolve import NameState, Policy

TEXT = """
listeners:
  - name: main
    bind: [127.0.0.1:6390]
    auth: {passwords: [hunter2], users: [{name: app, password: "file:secret"}]}
    routes:
      - {prefix: "", cluster: a, mirrors: [{cluster: b}]}
      - {prefix: "x:", cluster: c}
clusters:
  a:
    endpoints: [redis-001:6379]
    auth: {username: boss, password: "${SESAME}"}
    health: {interval: 2s, timeout: 300ms, unhealthy_threshold: 4, healthy_threshold: 1}
  b: {endpoints: [redis-002:6379, redis-001:6380], dns_refresh: 1s, respect_dns_ttl: true}
  c: {endpoints: [127.0.0.1:6379, "[::1]:6379", "unix:/run/redis.sock"]}
"""


@pytest.fixture
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("config")
    (folder / "secret").write_text("opensesame")
    return parse(TEXT, folder / "redisha.yaml", {"SESAME": "swordfish"}).config


def test_names_and_their_policies(config: Config) -> None:
    assert cluster_hosts(config) == {"a": ("redis-001",), "b": ("redis-002", "redis-001"), "c": ()}
    assert policies(config) == {
        "redis-001": Policy(1.0, respect_dns_ttl=True),
        "redis-002": Policy(1.0, respect_dns_ttl=True),
    }


def test_every_endpoint_is_probed_as_its_cluster_says(config: Config) -> None:
    plan = compile_plan(config, {"redis-001": ["10.0.0.1"], "redis-002": []}, 1)
    found = checks(config, plan)
    assert [str(key) for key in found] == [
        "a/redis-001:6379",
        "b/redis-001:6380",
        "c/127.0.0.1:6379",
        "c/[::1]:6379",
        "c/unix:/run/redis.sock",
    ]
    first = found[EndpointKey("a", "redis-001:6379")]
    assert (first.interval, first.timeout, first.thresholds.unhealthy) == (2.0, 0.3, 4)
    assert (first.target.address, first.target.username) == ("10.0.0.1:6379", "boss")
    assert "swordfish" not in repr(first)


def test_primary_clusters_are_those_of_routes(config: Config) -> None:
    assert primary_clusters(config) == ("a", "c")


READY = [
    EndpointStats("a", "redis-001:6379", state="ready"),
    EndpointStats("c", "127.0.0.1:6379", state="ready"),
    EndpointStats("c", "[::1]:6379", state="down", reason="refused"),
]


@pytest.mark.parametrize(
    ("endpoints", "names", "reasons"),
    [
        (READY, {}, ()),
        (
            [],
            {"redis-001": NameState(error="Name or service not known")},
            (
                "cluster a has no ready endpoint: redis-001 does not resolve: Name or service not known",
                "cluster c has no ready endpoint: it has none",
            ),
        ),
        (
            READY[2:],
            {"redis-001": NameState()},
            (
                "cluster a has no ready endpoint: redis-001 does not resolve: no answer yet",
                "cluster c has no ready endpoint: [::1]:6379 is down (refused)",
            ),
        ),
    ],
)
def test_missing_tells_why(
    config: Config, endpoints: list[EndpointStats], names: dict[str, NameState], reasons: tuple[str, ...]
) -> None:
    assert missing(ServerState.LIVE, config, endpoints, names) == reasons
    assert missing(ServerState.DRAINING, config, READY, names)
    assert missing(ServerState.PRE_INITIALIZING, config, READY, names)


def test_nothing_secret_is_shown(config: Config) -> None:
    plan = compile_plan(config, {}, 1)
    shown = json.dumps([redacted(config), redacted(asdict(plan))])
    for secret in ("hunter2", "opensesame", "swordfish", "boss"):
        assert secret in plan.to_json().decode()
        assert secret not in shown
    assert shown.count("[redacted]") >= 6
    assert redacted(config)["clusters"]["a"]["health"]["interval"] == 2000


def test_memory_is_given_back_when_much_was_freed_in_a_calm_moment() -> None:
    trimmer = Trimmer(step=100, calm=10.0)
    asked: list[int] = []

    def due(resident: int, free: int, requests: int, now: float) -> bool:
        return trimmer.due(resident, lambda: asked.append(free) or free, requests, now)

    assert not due(5000, 1000, 0, 1.0)
    assert not due(5099, 2000, 0, 2.0)  # no larger than it was
    assert not due(6000, 1099, 0, 3.0)  # little was freed
    assert not due(6000, 2000, 1000, 4.0)  # busy
    assert due(6000, 2000, 1001, 5.0)
    assert asked == [1000, 1099, 2000]
    trimmer.trimmed(2010)  # freed memory stays free, without its pages
    assert not due(5200, 2050, 1001, 6.0)
    assert not due(6000, 500, 1001, 7.0)  # used again
    assert due(6000, 600, 1001, 8.0)


def test_the_allocator_can_be_asked() -> None:
    allocator = Allocator()
    assert allocator.free_bytes() >= 0
    allocator.trim()
    assert resident_bytes() > 1 << 20
