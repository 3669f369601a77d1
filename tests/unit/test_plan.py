"""The plan: the frozen JSON of the boundary."""

import json
from pathlib import Path

import pytest

from redisha.config.load import load, parse
from redisha.config.model import Config
from redisha.plan import PlanEndpoint, Target, compile_plan, targets

DATA = Path(__file__).parent.parent / "support" / "data"


def config(clusters: str, listener: str = "bind: 0.0.0.0:6380, catch_all: a") -> Config:
    return parse(f"listeners: [{{{listener}}}]\nclusters: {{{clusters}}}", "f.yaml", {"P": "pä\u2028"}).config


def endpoints(text: str, **resolved: list[str]) -> tuple[PlanEndpoint, ...]:
    return compile_plan(config(f"a: {{endpoints: {text}}}"), resolved, 1).clusters[0].endpoints


def test_the_whole_json() -> None:
    plan = compile_plan(
        load(DATA / "envoy-pair.yaml", {}).config, {"redis-envoy-001": ["10.0.0.1"]}, 7, "/var/lib/redisha"
    )
    cluster = {
        "balance": "maglev",
        "hash_tags": False,
        "connect_timeout_ms": 250,
        "op_timeout_ms": 5000,
        "username": None,
        "password": None,
        "slots": [],
        "reads": "master",
        "redirects": False,
        "ring": {"minimum": 1024, "maximum": 8388608, "function": "xx_hash"},
        "choices": 2,
    }
    assert json.loads(plan.to_json()) == {
        "generation": 7,
        "host": "",
        "state_dir": "/var/lib/redisha",
        "limits": {
            "max_clients": 10000,
            "max_request": 67108864,
            "max_output": 67108864,
            "memory_bytes": 268435456,
            "log_bytes": 67108864,
            "idle_timeout_ms": 0,
            "handshake_timeout_ms": 10000,
            "resync_keys_per_s": 0,
            "resync_bytes_per_s": 0,
        },
        "listeners": [
            {
                "name": "redis_listener",
                "bind": ["0.0.0.0:6380"],
                "users": [],
                "case_insensitive": False,
                "routes": [
                    {
                        "prefix": "",
                        "remove_prefix": False,
                        "cluster": "redis-envoy-001",
                        "mirrors": [{"cluster": "redis-envoy-002", "reads": "exclude", "fraction": 1000000}],
                    }
                ],
                "port": "routes",
                "consistency": {"write": "one", "read": "one"},
            }
        ],
        "group": None,
        "workers": 1,
        "clusters": [
            {"name": "redis-envoy-001", "endpoints": [{"id": "redis-envoy-001:6379", "address": "10.0.0.1:6379"}]}
            | cluster,
            {"name": "redis-envoy-002", "endpoints": [{"id": "redis-envoy-002:6379", "address": None}]} | cluster,
        ],
    }


@pytest.mark.parametrize(
    ("text", "resolved", "expected"),
    [
        ("10.0.0.1:1", [], [("10.0.0.1:1", "10.0.0.1:1")]),
        ('"[::1]:1"', [], [("[::1]:1", "[::1]:1")]),
        ('"unix:/a"', [], [("unix:/a", "unix:/a")]),
        ("h:1", [], [("h:1", None)]),
        ("h:1", ["10.0.0.1"], [("h:1", "10.0.0.1:1")]),
        ("h:1", ["10.0.0.1", "10.0.0.1"], [("h:1", "10.0.0.1:1")]),
        ("h:1", ["fe80::1"], [("h:1", "[fe80::1]:1")]),
        ("h:1", ["::1", "127.0.0.1"], [("h:1", "127.0.0.1:1")]),
        ("h:1", ["10.0.0.10", "10.0.0.9"], [("h:1/10.0.0.9", "10.0.0.9:1"), ("h:1/10.0.0.10", "10.0.0.10:1")]),
        ("h:1", ["::2", "::1"], [("h:1/::1", "[::1]:1"), ("h:1/::2", "[::2]:1")]),
        (
            "[h:1, h:2]",
            ["10.0.0.1"],
            [("h:1", "10.0.0.1:1"), ("h:2", "10.0.0.1:2")],
        ),
    ],
)
def test_endpoints(text: str, resolved: list[str], expected: list[tuple[str, str | None]]) -> None:
    assert [(endpoint.id, endpoint.address) for endpoint in endpoints(text, h=resolved)] == expected


def test_the_order_of_a_resolvers_answer_does_not_count() -> None:
    assert endpoints("h:1", h=["10.0.0.2", "10.0.0.1"]) == endpoints("h:1", h=["10.0.0.1", "10.0.0.2"])


def test_targets_are_names_once_with_the_shortest_refresh() -> None:
    found = targets(
        config(
            "a: {endpoints: [h:1, 10.0.0.1:1, h:2]}, b: {endpoints: [i:1, h:1], dns_refresh: 1s, respect_dns_ttl: true}"
        )
    )
    assert found == (Target("h", 1000, respect_dns_ttl=True), Target("i", 1000, respect_dns_ttl=True))


def test_bounds_of_a_resync() -> None:
    text = (
        "listeners: [{bind: 0.0.0.0:6380, catch_all: a}]\nclusters: {a: {endpoints: h:1}}\n"
        "resync: {max_keys_per_second: 5000, max_bytes_per_second: 10MB}"
    )
    plan = compile_plan(parse(text, "f.yaml", {}).config, {}, 1)
    assert (plan.limits.resync_keys_per_s, plan.limits.resync_bytes_per_s) == (5000, 10 * 1024**2)
    assert plan.state_dir is None


def test_users_and_passwords() -> None:
    auth = "auth: {passwords: ['${P}', x, x], users: [{name: app, password: '${P}'}]}"
    found = config(
        "a: {endpoints: h:1, auth: {username: me, password: '${P}'}}", f"bind: 0.0.0.0:1, catch_all: a, {auth}"
    )
    plan = json.loads(compile_plan(found, {}, 1).to_json())
    assert plan["listeners"][0]["users"] == [
        {"name": None, "password": "pä\u2028"},
        {"name": None, "password": "x"},
        {"name": "app", "password": "pä\u2028"},
    ]
    assert (plan["clusters"][0]["username"], plan["clusters"][0]["password"]) == ("me", "pä\u2028")
