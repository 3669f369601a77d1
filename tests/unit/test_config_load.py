"""The native form: what is read, and that everything wrong is told at once with its place."""

from pathlib import Path

import pytest

from redisha.config.load import load, parse
from redisha.config.model import Config, Mirror, Route
from redisha.config.tree import TEACH
from redisha.errors import ConfigError

SMALL = """
listeners:
  - bind: [0.0.0.0:6380]
    catch_all: a
clusters:
  a: {endpoints: [h1:6379]}
"""


def config(text: str, env: dict[str, str] | None = None) -> Config:
    return parse(text, "f.yaml", env or {}).config


def problems(text: str, env: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f.yaml", env or {})
    return [str(problem) for problem in caught.value.problems]


def with_cluster(fields: str) -> str:
    return f"listeners: [{{bind: 0.0.0.0:6380, catch_all: a}}]\nclusters:\n  a: {{{fields}}}\n"


def with_listener(fields: str) -> str:
    return f"listeners:\n  - {{{fields}}}\nclusters: {{a: {{endpoints: h1:6379}}, b: {{endpoints: h2:6379}}}}\n"


def test_the_example_that_the_empty_file_teaches_is_right() -> None:
    found = config(TEACH)
    assert found.listeners[0].routes == (Route(cluster="redis-001", mirrors=(Mirror(cluster="redis-002"),)),)


def test_defaults() -> None:
    found = config(SMALL)
    assert found.admin is None
    assert found.listeners[0].name == "0.0.0.0:6380"
    assert found.listeners[0].routes == (Route(prefix="", cluster="a"),)
    cluster = found.clusters["a"]
    assert (cluster.discovery, cluster.dns_refresh, cluster.connect_timeout, cluster.op_timeout) == (
        "strict_dns",
        5000,
        250,
        5000,
    )
    health = cluster.health
    assert (health.interval, health.timeout, health.unhealthy_threshold, health.healthy_threshold) == (1000, 1000, 3, 2)
    limits = found.limits
    assert (limits.max_clients, limits.max_request, limits.idle_timeout) == (10_000, 64 * 1024**2, 0)


def test_everything() -> None:
    found = config(
        """
admin: {bind: "[::1]:8001"}
workers: 4
listeners:
  - name: main
    stat_prefix: egress
    bind: [0.0.0.0:6380, "unix:/run/redisha.sock"]
    case_insensitive: true
    auth: {password: "${P}", users: [{name: app, password: "literal:${P}"}]}
    routes:
      - {prefix: "x:", cluster: a, remove_prefix: true, mirrors: [{cluster: b, reads: include, fraction: 100}]}
      - {prefix: "", cluster: b}
clusters:
  a:
    endpoints: [10.0.0.1:6379, "[::1]:6379", "unix:/run/redis.sock"]
    discovery: static
    balance: maglev
    hash_tags: true
    connect_timeout: 1s
    op_timeout: 0.5s
    auth: {username: u, password: p}
    health: {interval: 2s, timeout: 500ms, unhealthy_threshold: 1, healthy_threshold: 1}
  b: {endpoints: h2:6379, dns_refresh: 1m, respect_dns_ttl: true}
limits: {max_clients: 5, max_request: 1MB, max_output: 2MB, log_bytes: 3MB, idle_timeout: 5m, handshake_timeout: 0}
""",
        {"P": "secret"},
    )
    listener = found.listeners[0]
    assert found.workers == 4
    assert listener.auth is not None
    assert [password.value for password in listener.auth.passwords] == ["secret"]
    assert [(user.name.value, user.password.value) for user in listener.auth.users] == [("app", "${P}")]
    assert found.clusters["a"].op_timeout == 500
    assert found.clusters["b"].dns_refresh == 60_000
    assert found.limits.idle_timeout == 300_000
    assert "secret" not in repr(found)


def test_everything_wrong_is_told_at_once_in_the_order_of_the_file() -> None:
    assert problems(
        """
admin: {bind: localhost:8001}
lisners: 3
listeners:
  - bind: 0.0.0.0:6380
    routes:
     - {prefix: "", cluster: redis-01, remove_prefix: no}
clusters:
  redis-001: {connect_timeout: 5}
"""
    ) == [
        "f.yaml:2: admin.bind: 'localhost' is not an IP address (write 127.0.0.1:8001)",
        "f.yaml:3: lisners: unknown field (did you mean 'listeners'?)",
        "f.yaml:7: listeners[0].routes[0].remove_prefix: expected true or false, found the text 'no' (write false)",
        "f.yaml:7: listeners[0].routes[0].cluster: there is no cluster 'redis-01' (did you mean 'redis-001'?)",
        "f.yaml:9: clusters.redis-001.endpoints: this field is required",
        "f.yaml:9: clusters.redis-001.connect_timeout: the duration 5 has no unit (write 5ms or 5s)",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (SMALL + "workers: 0", "f.yaml:7: workers: must be greater than or equal to 1"),
        (SMALL + "workers: 65", "f.yaml:7: workers: must be less than or equal to 64"),
        (SMALL + "tls: {}", "f.yaml:7: tls: this is not supported yet (TLS comes in a later version)"),
        (SMALL + "limits: {max_clients: 0}", "f.yaml:7: limits.max_clients: must be greater than or equal to 1"),
        (SMALL + "limits: {max_request: 10XB}", "f.yaml:7: limits.max_request: expected a size, found '10XB'"),
        (SMALL + "limits: 3", "f.yaml:7: limits: expected a mapping, found the number 3"),
        ("clusters: {a: {endpoints: h:1}}", "f.yaml:1: listeners: this field is required"),
        ("listeners: []\nclusters: {}", "f.yaml:1: listeners: at least one is needed"),
        ("listeners: 3\nclusters: []", "f.yaml:2: clusters: expected a mapping, found a list"),
        (with_cluster("endpoints: []"), "f.yaml:3: clusters.a.endpoints: at least one is needed"),
        (
            with_cluster("endpoints: h1"),
            "clusters.a.endpoints: the address 'h1' has no port (write for example h1:6379)",
        ),
        (with_cluster("endpoints: [h1:1, h1:1]"), "clusters.a.endpoints[1]: the endpoint h1:1 is given twice"),
        (with_cluster("endpoints: [h1:1, 3]"), "clusters.a.endpoints[1]: expected an address, found 3"),
        (with_cluster("endpoints: h1:1, discovery: static"), "clusters.a: the discovery 'static' needs IP addresses"),
        (with_cluster("endpoints: h1:1, discovery: dns"), "expected 'static' or 'strict_dns', found the text 'dns'"),
        (with_cluster("endpoints: h1:1, discovery: strict"), "(did you mean 'strict_dns'?)"),
        (with_cluster("endpoints: h1:1, balance: maglef"), "found the text 'maglef' (did you mean 'maglev'?)"),
        (with_cluster("endpoints: h1:1, op_timeout: 0"), "clusters.a.op_timeout: the duration must be longer than 0"),
        (with_cluster("endpoints: h1:1, hash_tags: yes"), "expected true or false, found the text 'yes' (write true)"),
        (with_cluster("endpoints: h1:1, hash_tags: 1"), "expected true or false, found the number 1"),
        (with_cluster("endpoints: h1:1, helth: {}"), "clusters.a.helth: unknown field (did you mean 'health'?)"),
        (with_cluster("endpoints: h1:1, health: {intervall: 1s}"), "(did you mean 'interval'?)"),
        (
            with_cluster("endpoints: h1:1, health: {healthy_threshold: 1.5}"),
            "expected a whole number, found the number 1.5",
        ),
        (with_cluster("endpoints: h1:1, auth: {username: u}"), "clusters.a.auth.password: this field is required"),
        (with_cluster("endpoints: h1:1, auth: {password: 12}"), "clusters.a.auth.password: expected text"),
        (with_cluster("endpoints: h1:1, auth: {password: ''}"), "clusters.a.auth.password: the secret is empty"),
        (with_cluster("endpoints: h1:1, tls: true"), "clusters.a.tls: this is not supported yet"),
        (with_listener("bind: 0.0.0.0:1"), "f.yaml:2: listeners[0]: the listener has no routes"),
        (with_listener("catch_all: a"), "listeners[0].bind: this field is required"),
        (with_listener("bind: [], catch_all: a"), "listeners[0].bind: at least one is needed"),
        (with_listener("bind: h:1, catch_all: a"), "listeners[0].bind: 'h' is not an IP address (write 0.0.0.0:1)"),
        (with_listener("bind: 0.0.0.0:1, group: g"), "listeners[0].group: there is no group 'g' (add the section"),
        (with_listener("bind: 0.0.0.0:1, catch_all: 3"), "listeners[0].catch_all: expected the name of a cluster"),
        (with_listener("bind: 0.0.0.0:1, catch_all: c"), "there is no cluster 'c' (known: a, b)"),
        (
            with_listener("bind: 0.0.0.0:1, catch_all: a, name: 3"),
            "name: expected text, found the number 3 (put quotes",
        ),
        (with_listener("bind: 0.0.0.0:1, catch_all: a, name: ''"), "listeners[0].name: must not be empty"),
        (with_listener("bind: 0.0.0.0:1, catch_all: a, auth: {}"), "listeners[0].auth: no password and no user"),
        (with_listener("bind: 0.0.0.0:1, catch_all: a, routes: [{cluster: b}]"), 'a route with the prefix "" already'),
        (with_listener("bind: [0.0.0.0:1, '0.0.0.0:01'], catch_all: a"), "the address 0.0.0.0:1 is given twice"),
        (with_listener("bind: 0.0.0.0:1, routes: a"), "listeners[0].routes: expected a list, found the text 'a'"),
        (
            with_listener("bind: 0.0.0.0:1, routes: [a]"),
            "listeners[0].routes[0]: expected a mapping, found the text 'a'",
        ),
        (with_listener("bind: 0.0.0.0:1, routes: [{prefix: x}]"), "routes[0].cluster: this field is required"),
        (
            with_listener("bind: 0.0.0.0:1, routes: [{prefix: 1, cluster: a}]"),
            "prefix: expected text, found the number 1",
        ),
        (
            with_listener("bind: 0.0.0.0:1, routes: [{prefix: x, cluster: a}, {prefix: x, cluster: b}]"),
            "listeners[0].routes[1].prefix: the prefix 'x' is given twice",
        ),
        (
            with_listener(
                "bind: 0.0.0.0:1, case_insensitive: true, routes: [{prefix: x, cluster: a}, {prefix: X, cluster: b}]"
            ),
            "listeners[0].routes[1].prefix: the prefix 'X' is given twice",
        ),
        (
            with_listener("bind: 0.0.0.0:1, routes: [{cluster: a, mirrors: [{cluster: a}]}]"),
            "listeners[0].routes[0].mirrors[0].cluster: the cluster 'a' would mirror to itself",
        ),
        (
            with_listener("bind: 0.0.0.0:1, routes: [{cluster: a, mirrors: [{cluster: b}, {cluster: b}]}]"),
            "listeners[0].routes[0].mirrors[1].cluster: the mirror 'b' is given twice",
        ),
        (
            with_listener("bind: 0.0.0.0:1, routes: [{cluster: a, mirrors: [{cluster: b, fraction: 101}]}]"),
            "listeners[0].routes[0].mirrors[0].fraction: must be less than or equal to 100",
        ),
        (
            with_listener("bind: 0.0.0.0:1, routes: [{cluster: a, mirrors: [{cluster: b, reads: exlude}]}]"),
            "expected 'exclude' or 'include', found the text 'exlude' (did you mean 'exclude'?)",
        ),
        (
            "listeners: [{bind: 0.0.0.0:1, routes: [{cluster: a, mirrors: [{cluster: b}]}]}]\n"
            "clusters: {a: {endpoints: h:1}, b: {endpoints: [h:01, i:1]}}",
            "the mirror 'b' is the same Redis as the primary 'a': h:1 (every write would be done twice there",
        ),
        (
            "listeners: [{bind: 0.0.0.0:1, routes: [{cluster: a, mirrors: [{cluster: b}]}]}]\n"
            "clusters: {a: {endpoints: 'localhost:9'}, b: {endpoints: 127.0.0.1:9}}",
            "the mirror 'b' is the same Redis as the primary 'a': 127.0.0.1:9",
        ),
        (
            "listeners: [{bind: 0.0.0.0:7, name: main, routes: [{cluster: a, mirrors: [{cluster: b}]}]}]\n"
            "clusters: {a: {endpoints: h:1}, b: {endpoints: 'localhost:7'}}",
            "f.yaml:2: clusters.b.endpoints: the endpoint localhost:7 of the cluster 'b' is this sidecar's own "
            "listener 'main' (0.0.0.0:7): a loop (name the Redis server itself)",
        ),
        (
            "listeners: [{bind: ['unix:/a', 10.0.0.1:7], routes: [{cluster: a}]}]\n"
            "clusters: {a: {endpoints: [h:1, 10.0.0.1:7]}}",
            "clusters.a.endpoints[1]: the endpoint 10.0.0.1:7 of the cluster 'a' is this sidecar's own listener",
        ),
        (
            "listeners: [{bind: 'unix:/a', catch_all: a}]\nclusters: {a: {endpoints: 'unix:/a'}}",
            "the endpoint unix:/a of the cluster 'a' is this sidecar's own listener 'unix:/a' (unix:/a): a loop",
        ),
        (SMALL + "state_dir: 3", "f.yaml:7: state_dir: expected a folder, found 3 (write an absolute path, or memory"),
        (SMALL + "state_dir: var/x", "f.yaml:7: state_dir: the folder must be an absolute path: var/x"),
        (SMALL + "resync: {max_keys_per_second: -1}", "f.yaml:7: resync.max_keys_per_second: must be greater than or"),
        (SMALL + "resync: {max_bytes_per_second: 1XB}", "resync.max_bytes_per_second: expected a size, found '1XB'"),
        (SMALL + "resync: {scrub: {interval: 5}}", "f.yaml:7: resync.scrub.interval: the duration 5 has no unit"),
        (SMALL + "resync: {scrub: {samples: 5}}", "resync.scrub.samples: unknown field (did you mean 'sample'?)"),
        (
            "admin: {bind: 0.0.0.0:1}\nlisteners: [{bind: 0.0.0.0:1, catch_all: a}]\nclusters: {a: {endpoints: h:1}}",
            "f.yaml:1: admin.bind: the address 0.0.0.0:1 is given twice (first in line 2)",
        ),
        (
            "listeners: [{bind: 0.0.0.0:1, name: l, catch_all: a}, {bind: 0.0.0.0:2, name: l, catch_all: a}]\n"
            "clusters: {a: {endpoints: h:1}}",
            "listeners[1].name: there is a listener 'l' already (in line 1)",
        ),
        ("listeners: [{bind: 0.0.0.0:1, catch_all: a}]\nclusters: {}", "f.yaml:2: clusters: at least one is needed"),
        ("listeners: [{bind: 0.0.0.0:1, catch_all: a}]", "f.yaml:1: clusters: this field is required"),
    ],
)
def test_wrong(text: str, problem: str) -> None:
    found = problems(text)
    assert any(problem in line for line in found), found


def test_what_is_no_loop() -> None:
    for bind, endpoint in (
        ("127.0.0.1:7", "127.0.0.1:8"),
        ("127.0.0.1:7", "10.0.0.1:7"),
        ("0.0.0.0:7", "redis-001:7"),
        ("'[::1]:7'", "127.0.0.1:7"),
        ("127.0.0.1:0", "127.0.0.1:7"),
    ):
        config(f"listeners: [{{bind: [{bind}], catch_all: a}}]\nclusters: {{a: {{endpoints: ['{endpoint}']}}}}")


def test_state_and_resync() -> None:
    found = config(SMALL)
    assert found.state_dir is None
    resync = found.resync
    assert (resync.max_keys_per_second, resync.max_bytes_per_second) == (0, 0)
    assert (resync.scrub.interval, resync.scrub.sample) == (600_000, 1000)
    text = "state_dir: none\nresync: {max_keys_per_second: 9, max_bytes_per_second: 0, scrub: {interval: 0, sample: 1}}"
    found = config(SMALL + text)
    assert found.state_dir == "memory"
    assert found.resync.model_dump() == {
        "max_keys_per_second": 9,
        "max_bytes_per_second": 0,
        "scrub": {"interval": 0, "sample": 1},
    }
    assert config(SMALL + "state_dir: /var/lib/redisha").state_dir == "/var/lib/redisha"


def test_a_mistake_is_told_once() -> None:
    assert len(problems(with_cluster("endpoints: h1"))) == 1
    assert len(problems(with_listener("bind: 0.0.0.0:1, catch_all: c"))) == 1


def test_port_0_may_be_bound_twice() -> None:
    assert len(config(with_listener("bind: [127.0.0.1:0, 127.0.0.1:0], catch_all: a")).listeners[0].bind) == 2


def test_a_cluster_without_a_route_is_a_warning() -> None:
    warnings = parse(SMALL + "  b: {endpoints: h2:1}\n", "f.yaml", {}).warnings
    assert [str(warning) for warning in warnings] == ["f.yaml:7: clusters.b: no route leads to this cluster"]


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "redisha.yaml"
    with pytest.raises(ConfigError, match=r"redisha\.yaml: cannot be read: No such file"):
        load(path)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(ConfigError, match=r"redisha\.yaml:2: this is not UTF-8 text"):
        load(path)
    path.write_bytes(b"#" * (4 * 1024**2 + 1))
    with pytest.raises(ConfigError, match="larger than 4 MB"):
        load(path)
    path.write_bytes(b"\xef\xbb\xbf" + SMALL.encode())
    loaded = load(path)
    assert (loaded.kind, loaded.source, loaded.files) == ("native", path, (path,))


def test_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "redisha.yaml"
    path.write_text(with_cluster("endpoints: h1:1, auth: {username: '${REDIS_USER}', password: 'file:secret.txt'}"))
    monkeypatch.delenv("REDIS_USER", raising=False)
    with pytest.raises(ConfigError) as caught:
        load(path)
    messages = [problem.message for problem in caught.value.problems]
    assert messages == [
        "the environment variable REDIS_USER is not set",
        f"the file {tmp_path}/secret.txt cannot be read: No such file or directory",
    ]
    monkeypatch.setenv("REDIS_USER", "app")
    (tmp_path / "secret.txt").write_text("p4ss\n")
    loaded = load(path)
    auth = loaded.config.clusters["a"].auth
    assert auth is not None
    assert auth.username is not None
    assert (auth.username.value, auth.password.value) == ("app", "p4ss")
    assert loaded.files == (path, tmp_path / "secret.txt")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\n", "the secret is empty"), (b"\xff", "is not UTF-8 text"), (b"x" * 5000, "is longer than 4096 bytes")],
)
def test_secret_files_that_are_none(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "s").write_bytes(content)
    text = with_cluster("endpoints: h1:1, auth: {password: 'file:s'}")
    with pytest.raises(ConfigError, match=message):
        parse(text, tmp_path / "f.yaml", {})


def test_the_environment_may_hold_bytes_that_are_no_text() -> None:
    text = with_cluster("endpoints: h1:1, auth: {password: '${P}'}")
    assert "the environment variable P is not UTF-8 text" in problems(text, {"P": "\udcff"})[0]


def test_no_password_is_shown() -> None:
    text = with_cluster("endpoints: h1:1, auth: {password: 'hush', username: [hush]}, hush: 1").replace(
        "hush: 1", "x: hush"
    )
    assert "hush" not in "\n".join(problems(text))
