"""Envoy's bootstrap files: what is honoured, ignored and refused."""

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from redisha.config.load import Loaded, load, parse
from redisha.config.model import Mirror, Route
from redisha.errors import ConfigError

DATA = Path(__file__).parent.parent / "support" / "data"
PROXY = "type.googleapis.com/envoy.extensions.filters.network.redis_proxy.v3.RedisProxy"
OPTIONS = "type.googleapis.com/envoy.extensions.filters.network.redis_proxy.v3.RedisProtocolOptions"
HEALTH = "type.googleapis.com/envoy.extensions.health_checkers.redis.v3.Redis"
REDIS_CLUSTER = "type.googleapis.com/envoy.extensions.clusters.redis.v3.RedisClusterConfig"

_NOT_MIRRORED = "redirections (MOVED, ASK) are not followed where writes are mirrored"

Tree = dict[str, Any]


def address(host: str, port: int) -> Tree:
    return {"socket_address": {"address": host, "port_value": port}}


def cluster(name: str, *hosts: str, **fields: Any) -> Tree:
    endpoints = [{"endpoint": {"address": address(host, 6379)}} for host in hosts or (name,)]
    return {
        "name": name,
        "connect_timeout": "0.25s",
        "type": "STRICT_DNS",
        "lb_policy": "MAGLEV",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    } | fields


def redis_cluster(name: str, **config: Any) -> Tree:
    kind = {"name": "envoy.clusters.redis", "typed_config": {"@type": REDIS_CLUSTER} | config}
    found = cluster(name, cluster_type=kind, lb_policy="CLUSTER_PROVIDED")
    del found["type"]
    return found


def proxy(*routes: Tree, **fields: Any) -> Tree:
    return {
        "@type": PROXY,
        "stat_prefix": "egress",
        "settings": {"op_timeout": "5s"},
        "prefix_routes": {"routes": list(routes) or [{"prefix": "", "cluster": "a"}]},
    } | fields


def listener(typed_config: Tree, port: int = 6380, **fields: Any) -> Tree:
    return {
        "name": f"listener-{port}",
        "address": address("0.0.0.0", port),
        "filter_chains": [{"filters": [{"name": "redis", "typed_config": typed_config}]}],
    } | fields


def bootstrap(*listeners: Tree, clusters: list[Tree] | None = None, **fields: Any) -> Tree:
    return {
        "static_resources": {
            "listeners": list(listeners) or [listener(proxy())],
            "clusters": [cluster("a")] if clusters is None else clusters,
        }
    } | fields


def read(tree: Tree, env: dict[str, str] | None = None) -> Loaded:
    return parse(yaml.safe_dump(tree, sort_keys=False), "envoy.yaml", env or {})


def problems(tree: Tree) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(tree)
    return [f"{problem.path}: {problem.message} ({problem.hint})" for problem in caught.value.problems]


def warnings(tree: Tree) -> list[str]:
    return [f"{warning.path.rpartition('.')[2]}: {warning.message}" for warning in read(tree).warnings]


def test_the_pair() -> None:
    loaded = load(DATA / "envoy-pair.yaml", {})
    config = loaded.config
    assert loaded.kind == "envoy"
    assert config.admin is not None
    assert config.admin.bind == "0.0.0.0:8001"
    (found,) = config.listeners
    assert (found.name, found.stat_prefix, found.bind) == ("redis_listener", "egress_redis", ("0.0.0.0:6380",))
    mirrors = (Mirror(cluster="redis-envoy-002", reads="exclude"),)
    assert found.routes == (Route(prefix="", cluster="redis-envoy-001", mirrors=mirrors),)
    assert list(config.clusters) == ["redis-envoy-001", "redis-envoy-002"]
    for name, one in config.clusters.items():
        assert one.endpoints == (f"{name}:6379",)
        assert (one.discovery, one.balance, one.connect_timeout, one.op_timeout) == ("strict_dns", "maglev", 250, 5000)
    (warning,) = loaded.warnings
    assert (warning.line, warning.path.rpartition(".")[2]) == (29, "enable_redirection")
    assert warning.message == f"ignored for redis-envoy-001, redis-envoy-002: {_NOT_MIRRORED}"


def test_the_prefixes() -> None:
    config = load(DATA / "envoy-prefix.yaml", {}).config
    assert config.admin is None
    assert [(route.prefix, route.cluster, route.mirrors[0].cluster) for route in config.listeners[0].routes] == [
        ("departments", "redis-master", "redis-departments"),
        ("employees", "redis-master", "redis-employees"),
    ]
    assert {one.op_timeout for one in config.clusters.values()} == {5000}


def test_lower_camel_case_is_the_same() -> None:
    def camel(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key if key.startswith("@") else key[0] + key.title().replace("_", "")[1:]: camel(inner)
                for key, inner in value.items()
            }
        return [camel(inner) for inner in value] if isinstance(value, list) else value

    text = (DATA / "envoy-pair.yaml").read_text()
    same = parse(yaml.safe_dump(camel(yaml.safe_load(text))), "envoy.yaml", {})
    assert same.kind == "envoy"
    assert same.config == parse(text, "envoy.yaml", {}).config


@pytest.mark.parametrize("struct", [False, True])
def test_a_redis_cluster(struct: bool) -> None:
    one = redis_cluster("a", cluster_refresh_rate="2s", cluster_refresh_timeout="3s", redirect_refresh_threshold=5)
    if struct:
        config = one["cluster_type"]["typed_config"]
        del config["@type"]
        one["cluster_type"]["typed_config"] = {"@type": "type.googleapis.com/google.protobuf.Struct", "value": config}
    settings = {"op_timeout": "5s", "enable_redirection": True, "read_policy": "PREFER_REPLICA"}
    routes = {"cluster": "a"}, {"cluster": "b", "prefix": "b:"}, {"cluster": "c", "prefix": "c:"}
    mirrored = routes[2] | {"request_mirror_policy": [{"cluster": "d"}]}
    clusters = [one, cluster("b"), cluster("c"), cluster("d")]
    loaded = read(bootstrap(listener(proxy(*routes[:2], mirrored, settings=settings)), clusters=clusters))
    found = loaded.config.clusters
    assert [found[name].type for name in "abcd"] == ["redis_cluster", "standalone", "standalone", "standalone"]
    assert (found["a"].discovery, found["a"].refresh, found["a"].read_policy) == ("strict_dns", 2000, "prefer_replica")
    assert [found[name].enable_redirection for name in "bcd"] == [True, False, False]
    assert found["b"].read_policy == "master"
    told = {(each.path.rpartition(".")[2], each.message) for each in loaded.warnings}
    assert told == {
        ("enable_redirection", f"ignored for c, d: {_NOT_MIRRORED}"),
        ("read_policy", "ignored for b, c, d: only a Redis Cluster tells which of its servers are replicas"),
        ("cluster_refresh_timeout", "ignored: a node has the timeout of its health check to answer"),
        ("redirect_refresh_threshold", "ignored: the slot map is asked for as soon as a slot has moved"),
    }


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"lb_policy": "RING_HASH"}, {"balance": "ring_hash", "minimum_ring_size": 1024, "maximum_ring_size": 8 << 20}),
        (
            {
                "lb_policy": "RING_HASH",
                "ring_hash_lb_config": {
                    "minimum_ring_size": "100",
                    "maximum_ring_size": 200,
                    "hash_function": "MURMUR_HASH_2",
                },
            },
            {"minimum_ring_size": 100, "maximum_ring_size": 200, "ring_hash_function": "murmur_hash_2"},
        ),
        ({"lb_policy": "LEAST_REQUEST"}, {"balance": "least_request", "choice_count": 2}),
        ({"lb_policy": "LEAST_REQUEST", "least_request_lb_config": {"choice_count": 3}}, {"choice_count": 3}),
        ({"lb_policy": "RANDOM"}, {"balance": "random"}),
        ({"lb_policy": "ROUND_ROBIN"}, {"balance": "round_robin"}),
        ({"lb_policy": None}, {"balance": "round_robin"}),
        ({"lb_policy": "MAGLEV"}, {"balance": "maglev"}),
    ],
)
def test_balancing_of_several(fields: Tree, found: Tree) -> None:
    loaded = read(bootstrap(clusters=[cluster("a", "x", "y", **fields)]))
    (one,) = loaded.config.clusters.values()
    assert {key: getattr(one, key) for key in found} == found
    scattered = one.balance not in ("maglev", "ring_hash")
    assert any("any of the 2 servers of 'a' gets any command" in each.message for each in loaded.warnings) == scattered


@pytest.mark.parametrize(
    ("fraction", "found"),
    [
        ({"numerator": 30}, 30),
        ({"numerator": 0}, 0),
        ({}, 0),
        ({"numerator": 150}, 100),
        ({"numerator": 25, "denominator": "TEN_THOUSAND"}, 0.25),
        ({"numerator": 100, "denominator": "MILLION"}, 0.01),
    ],
)
def test_a_part_of_the_commands(fraction: Tree, found: float) -> None:
    config = read(_mirror(runtime_fraction={"default_value": fraction})).config
    (mirror,) = config.listeners[0].routes[0].mirrors
    assert (mirror.fraction, mirror.is_copy) == (found, found == 100)


def test_defaults_are_envoys() -> None:
    one = cluster("a", "10.0.0.1")
    for field in ("connect_timeout", "type", "lb_policy"):
        del one[field]
    loaded = read(
        bootstrap(
            listener(proxy({"cluster": "a", "request_mirror_policy": [{"cluster": "b"}]})), clusters=[one, cluster("b")]
        )
    )
    found = loaded.config.clusters["a"]
    assert (found.discovery, found.connect_timeout) == ("static", 5000)
    assert loaded.config.listeners[0].routes[0].prefix == ""
    assert loaded.config.listeners[0].routes[0].mirrors[0].reads == "include"
    assert loaded.warnings == ()


def test_everything_that_is_honoured() -> None:
    route = {
        "prefix": "x:",
        "cluster": "a",
        "remove_prefix": True,
        "request_mirror_policy": [
            {
                "cluster": "b",
                "exclude_read_commands": True,
                "runtime_fraction": {"default_value": {"numerator": 1_000_000, "denominator": "MILLION"}},
            }
        ],
    }
    prefix_routes = {"routes": [route], "case_insensitive": True, "catch_all_route": {"cluster": "b"}}
    auth = {
        "downstream_auth_passwords": [{"inline_string": "${x}"}, {"environment_variable": "P"}],
        "downstream_auth_username": {"inline_string": "app"},
    }
    settings = {"op_timeout": "0.5s", "enable_hashtagging": True, "read_policy": "MASTER", "enable_redirection": False}
    typed = proxy(prefix_routes=prefix_routes, settings=settings, latency_in_micros=True, **auth)
    upstream = {
        "@type": OPTIONS,
        "auth_password": {"inline_string": "up"},
        "auth_username": {"inline_string": "me"},
    }
    checks = [
        {
            "interval": "2s",
            "timeout": "0.5s",
            "unhealthy_threshold": 2,
            "healthy_threshold": "4",
            "custom_health_check": {"name": "envoy.health_checkers.redis", "typed_config": {"@type": HEALTH}},
        }
    ]
    a = cluster(
        "a",
        "h1",
        "h2",
        dns_refresh_rate="1.5s",
        respect_dns_ttl=True,
        dns_lookup_family="V4_ONLY",
        typed_extension_protocol_options={"envoy.filters.network.redis_proxy": upstream},
        health_checks=checks,
    )
    b = cluster("b", type="STATIC")
    b["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] = {"pipe": {"path": "/run/r.sock"}}
    extra = {"additional_addresses": [{"address": {"pipe": {"path": "/run/l.sock"}}}]}
    loaded = read(bootstrap(listener(typed, **extra), clusters=[a, b]), {"P": "pw"})
    (warning,) = loaded.warnings  # what is cut off and mirrored to b meets what b is sent directly
    assert "'b' is a mirror of 'a' and takes writes of the same keys itself" in warning.message
    (found,) = loaded.config.listeners
    assert found.bind == ("0.0.0.0:6380", "unix:/run/l.sock")
    assert found.case_insensitive
    assert [(route.prefix, route.cluster, route.remove_prefix) for route in found.routes] == [
        ("x:", "a", True),
        ("", "b", False),
    ]
    assert found.auth is not None
    assert [(user.name.value, user.password.value) for user in found.auth.users] == [("app", "${x}"), ("app", "pw")]
    one, other = loaded.config.clusters["a"], loaded.config.clusters["b"]
    assert one.endpoints == ("h1:6379", "h2:6379")
    assert (one.dns_refresh, one.respect_dns_ttl, one.op_timeout, one.hash_tags) == (1500, True, 500, True)
    assert one.auth is not None
    assert one.auth.username is not None
    assert (one.auth.username.value, one.auth.password.value) == ("me", "up")
    assert one.health.model_dump() == {
        "interval": 2000,
        "timeout": 500,
        "unhealthy_threshold": 2,
        "healthy_threshold": 4,
    }
    assert other.endpoints == ("unix:/run/r.sock",)


def test_one_password_of_the_default_user(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("from-file\n")
    typed = proxy(downstream_auth_password={"filename": str(tmp_path / "pw")})
    loaded = read(bootstrap(listener(typed)))
    auth = loaded.config.listeners[0].auth
    assert auth is not None
    assert [password.value for password in auth.passwords] == ["from-file"]
    assert loaded.files == (Path("envoy.yaml"), tmp_path / "pw")


def test_the_smaller_of_two_timeouts_counts() -> None:
    tree = bootstrap(
        listener(proxy(settings={"op_timeout": "1s"})),
        listener(proxy(settings={"op_timeout": "0.9s"}), 6381),
        listener(proxy(settings={"op_timeout": "2s"}), 6382),
    )
    loaded = read(tree)
    assert loaded.config.clusters["a"].op_timeout == 900
    assert warnings(tree) == [
        "op_timeout: two listeners have different timeouts for the cluster 'a': 900ms is used",
    ]


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (bootstrap(node={"id": "x"}), ["node: ignored"]),
        (
            bootstrap(admin={"access_log_path": "/tmp/log", "address": address("0.0.0.0", 1)}),
            ["access_log_path: no access"],
        ),
        (bootstrap(listener(proxy(custom_commands=["x"]))), ["custom_commands: ignored: every command is forwarded"]),
        (
            bootstrap(
                listener(
                    proxy(
                        settings={
                            "op_timeout": "1s",
                            "max_buffer_size_before_flush": 1024,
                            "buffer_flush_timeout": "0.003s",
                            "enable_command_stats": True,
                        }
                    )
                )
            ),
            [
                "buffer_flush_timeout: ignored: all writes of a turn leave together anyway",
                "enable_command_stats: ignored: commands are always counted",
                "max_buffer_size_before_flush: ignored: all writes of a turn leave together anyway",
            ],
        ),
        (bootstrap(clusters=[cluster("a", common_lb_config={"x": 1})]), ["common_lb_config: ignored"]),
        (bootstrap(clusters=[cluster("a", lb_policy="RANDOM")]), ["lb_policy: RANDOM makes no difference"]),
        (
            bootstrap(clusters=[cluster("a", ring_hash_lb_config={"minimum_ring_size": 5})]),
            ["ring_hash_lb_config: ignored: the lb_policy is MAGLEV"],
        ),
        (
            bootstrap(listener(proxy(settings={"op_timeout": "5s", "read_policy": "ANY"}))),
            ["read_policy: ignored for a: only a Redis Cluster tells which of its servers are replicas"],
        ),
        (bootstrap(clusters=[cluster("a", health_checks=[{}, {}])]), ["health_checks[1]: ignored: only the first"]),
        (bootstrap(clusters=[cluster("a"), cluster("b")]), ["clusters[1]: no route leads to this cluster"]),
        (
            bootstrap(listener(proxy(downstream_auth_password={"inline_string": ""}))),
            ["inline_string: the secret is empty"],
        ),
        (
            bootstrap(
                listener(proxy(prefix_routes={"routes": [{"cluster": "a"}], "catch_all_route": {"cluster": "a"}}))
            ),
            ["catch_all_route: never reached"],
        ),
        (bootstrap(clusters=[cluster("a", common_lb_config={}, circuit_breakers=None)]), []),
    ],
)
def test_ignored_with_a_warning(tree: Tree, expected: list[str]) -> None:
    found = warnings(tree)
    assert len(found) == len(expected), found
    for warning, beginning in zip(found, expected, strict=True):
        assert warning.startswith(beginning)


def _mirror(**fields: Any) -> Tree:
    route = {"cluster": "a", "request_mirror_policy": [{"cluster": "b"} | fields]}
    return bootstrap(listener(proxy(route)), clusters=[cluster("a"), cluster("b")])


@pytest.mark.parametrize(
    ("tree", "problem"),
    [
        ({"dynamic_resources": {"lds_config": {}}}, "configuration servers (xDS) are not supported"),
        ({"static_resources": {}}, "static_resources: there are no listeners"),
        ({"static_resources": []}, "static_resources: expected a mapping, found a list"),
        (bootstrap(admn={}), "admn: this field is not supported (did you mean 'admin'?)"),
        (bootstrap(listener({"@type": PROXY + "x"})), "only the Redis proxy is supported here"),
        (
            bootstrap(listener({"@type": "x/envoy.config.filter.network.redis_proxy.v2.RedisProxy"})),
            "(type.googleapis.com/envoy.extensions",
        ),
        (bootstrap(listener({"stat_prefix": "x"})), "the field '@type' is required"),
        (bootstrap(listener(proxy(), filter_chains=[])), "one filter chain with one redis_proxy filter is needed"),
        (bootstrap(listener(proxy(), listener_filters=[{"name": "tls"}])), "listener filters are not supported"),
        (bootstrap(listener(proxy(), adress=1)), "adress: this field is not supported (did you mean 'address'?)"),
        (bootstrap({"name": "l", "filter_chains": []}), "the field 'address' is required"),
        (bootstrap(listener(proxy(), address=address("localhost", 1))), "'localhost' is not an IP address"),
        (bootstrap(listener(proxy(), address=address("0.0.0.0", 70000))), "'70000' is not a port"),
        (
            bootstrap(listener(proxy(), address={"socket_address": {"address": "0.0.0.0"}})),
            "needs an address and a port_value",
        ),
        (bootstrap(listener(proxy(), address={})), "the address needs a socket_address or a pipe"),
        (
            bootstrap(listener(proxy(), filter_chains=[{"filters": [], "transport_socket": {"name": "tls"}}])),
            "transport_socket: TLS comes in a later version",
        ),
        (bootstrap(listener(proxy(settings={}))), "settings: the field 'op_timeout' is required"),
        (
            bootstrap(listener(proxy(settings={"op_timeout": "5"}))),
            "op_timeout: expected a duration, found the text '5'",
        ),
        (bootstrap(listener(proxy(settings={"op_timeout": "-5s"}))), "op_timeout: expected a duration"),
        (
            bootstrap(listener(proxy(settings={"op_timeout": 5}))),
            "expected a duration, found the number 5 (write for example",
        ),
        (bootstrap(listener(proxy(settings={"op_timeout": "0s"}))), "op_timeout: the duration must be longer than 0"),
        (
            bootstrap(listener(proxy(settings={"op_timeout": "5s", "enable_hashtagging": "no"}))),
            "expected true or false",
        ),
        (bootstrap(listener(proxy(stat_prefix=None))), "the field 'stat_prefix' is required"),
        (bootstrap(listener(proxy(prefix_routes=None))), "the field 'prefix_routes' is required"),
        (bootstrap(listener(proxy(prefix_routes={"routes": []}))), "the listener has no routes"),
        (
            bootstrap(listener(proxy(prefix_routes={"routes": {"cluster": "a"}}))),
            "routes: expected a list, found a mapping",
        ),
        (bootstrap(listener(proxy(faults=[{"x": 1}]))), "faults: fault injection is not supported"),
        (bootstrap(listener(proxy({"prefix": "x"}))), "the field 'cluster' is required"),
        (bootstrap(listener(proxy({"cluster": "redis"}), clusters=[])), "there is no cluster 'redis'"),
        (
            bootstrap(listener(proxy({"cluster": "a", "key_formatter": "%KEY%"}))),
            "key_formatter: rewriting keys is not",
        ),
        (bootstrap(listener(proxy(downstream_auth_username={"inline_string": "u"}))), "a user without a password"),
        (bootstrap(listener(proxy(downstream_auth_password={}))), "a secret needs inline_string, filename or"),
        (bootstrap(listener(proxy(downstream_auth_password={"environment_variable": "NO"}))), "variable NO is not set"),
        (
            _mirror(runtime_fraction={"default_value": {"numerator": 1, "denominator": "BILLION"}}),
            "there is no such denominator (write HUNDRED or TEN_THOUSAND or MILLION)",
        ),
        (_mirror(runtime_fraction={"runtime_key": "x"}), "the field 'default_value' is required"),
        (_mirror(exclude_read_commands=1), "exclude_read_commands: expected true or false, found the number 1"),
        (_mirror(cluster="a"), "the cluster 'a' would mirror to itself"),
        (_mirror(cluster="c"), "there is no cluster 'c' (known: a, b)"),
        (
            bootstrap(clusters=[cluster("a", cluster_type={"name": "envoy.clusters.aggregate"})]),
            "this type of cluster is not supported: envoy.clusters.aggregate (write envoy.clusters.redis",
        ),
        (
            bootstrap(clusters=[cluster("a", cluster_type={"name": "envoy.clusters.redis"})]),
            "the nodes of a Redis Cluster say where keys are, and not MAGLEV (write lb_policy: CLUSTER_PROVIDED)",
        ),
        (bootstrap(clusters=[redis_cluster("a", enable_zone_discovery=True)]), "zones are not supported"),
        (bootstrap(clusters=[redis_cluster("a", refresh="1s")]), "refresh: this field is not supported"),
        (
            bootstrap(
                listener(proxy({"cluster": "a", "request_mirror_policy": [{"cluster": "b"}]})),
                clusters=[redis_cluster("a"), cluster("b")],
            ),
            "the cluster 'a' is a Redis Cluster, which cannot have mirrors",
        ),
        (
            bootstrap(listener(proxy(settings={"op_timeout": "5s", "read_policy": "LOCAL_ZONE_AFFINITY"}))),
            "this way of reading is not supported: LOCAL_ZONE_AFFINITY (write MASTER)",
        ),
        (bootstrap(clusters=[cluster("a") | {"name": 3}]), "name: expected text, found the number 3"),
        (bootstrap(clusters=[cluster("a") | {"name": ""}]), "must not be empty"),
        (bootstrap(clusters=[cluster("a", type="EDS")]), "this discovery is not supported: EDS"),
        (
            bootstrap(clusters=[cluster("a", type="STATIC")]),
            "the discovery 'static' needs IP addresses, and 'a' is a name",
        ),
        (
            bootstrap(clusters=[cluster("a", lb_policy="RING_HASH", ring_hash_lb_config={"hash_function": "MD5"})]),
            "this hash function is not supported: MD5 (write XX_HASH)",
        ),
        (
            bootstrap(clusters=[cluster("a", lb_policy="RING_HASH", ring_hash_lb_config={"minimum_ring_size": 10**7})]),
            "minimum_ring_size: must be less than or equal to 8388608",
        ),
        (bootstrap(clusters=[cluster("a", lb_policy="CLUSTER_PROVIDED")]), "not supported: CLUSTER_PROVIDED"),
        (bootstrap(clusters=[cluster("a", transport_socket={"name": "tls"})]), "TLS comes in a later version"),
        (
            bootstrap(clusters=[cluster("a", hosts=[{}])]),
            "the field is of Envoy's v2 interface (write load_assignment)",
        ),
        (bootstrap(clusters=[cluster("a", load_assignment=None)]), "the field 'load_assignment' is required"),
        (bootstrap(clusters=[cluster("a", load_assignment={})]), "the cluster has no endpoints"),
        (bootstrap(clusters=[cluster("a", dns_lookup_family="V6_ONLY")]), "V6_ONLY"),
        (bootstrap(clusters=[cluster("a"), cluster("a")]), "there is a cluster 'a' already (in line"),
        (
            bootstrap(clusters=[cluster("a", health_checks=[{"http_health_check": {"path": "/"}}])]),
            "a Redis is probed by PING",
        ),
        (
            bootstrap(
                clusters=[
                    cluster(
                        "a", health_checks=[{"custom_health_check": {"typed_config": {"@type": HEALTH, "key": "k"}}}]
                    )
                ]
            ),
            "a key that marks maintenance is not supported",
        ),
        (
            bootstrap(clusters=[cluster("a", health_checks=[{"healthy_threshold": 0}])]),
            "healthy_threshold: must be greater",
        ),
        (
            bootstrap(clusters=[cluster("a", upstream_bind_config={"x": 1})]),
            "upstream_bind_config: this field is not supported",
        ),
    ],
)
def test_refused(tree: Tree, problem: str) -> None:
    found = problems(tree)
    assert any(problem in line for line in found), found


def test_every_problem_is_told_at_once_and_only_once() -> None:
    found = problems(
        bootstrap(
            listener(proxy({"cluster": "nowhere"}, settings={})),
            clusters=[cluster("a", type="EDS", connect_timeout="soon")],
            watchdog={},
            surprise=1,
        )
    )
    assert [line.split(" (")[0].rpartition("]")[2] for line in found] == [
        ".typed_config.settings: the field 'op_timeout' is required",
        ".cluster: there is no cluster 'nowhere'",
        ".connect_timeout: expected a duration, found the text 'soon'",
        ".type: this discovery is not supported: EDS",
        "surprise: this field is not supported",
    ]


def test_other_parts_of_the_tree_may_be_anything() -> None:
    """No document, however wrong, is more than a list of problems."""
    base = yaml.safe_load((DATA / "envoy-pair.yaml").read_text())

    def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return [path, *(inner for key, child in items for inner in paths(child, (*path, key)))]

    for path in paths(base)[1:]:
        for junk in (None, 3, "x", [], {}, [3], {"x": 3}, [None], True):
            tree = copy.deepcopy(base)
            inner = tree
            for step in path[:-1]:
                inner = inner[step]
            inner[path[-1]] = junk
            with contextlib.suppress(ConfigError):
                parse(json.dumps(tree), "envoy.yaml", {})
