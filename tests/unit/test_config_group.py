"""The section ``group``: what it may say, and what it and the rest of the file must be together."""

from typing import Any

import pytest
import yaml

from redisha.config.advice import advise
from redisha.config.dump import to_yaml
from redisha.config.load import Loaded, parse
from redisha.config.model import Config
from redisha.errors import ConfigError

Tree = dict[str, Any]

EVERYTHING = """
state_dir: /var/lib/redisha
dynomite_stats:
  bind: 0.0.0.0:22222
  datacenter: dc1
  rack: rack1
  token: 4294967295
  nodes: [{peer: redis-002:8101, datacenter: dc2, rack: rack2}]
listeners:
  - {bind: [0.0.0.0:6380], group: cache, write_consistency: all, read_consistency: leader}
  - {bind: [0.0.0.0:6381], group: cache}
group:
  name: cache
  member: redis-001
  listen: 0.0.0.0:8101
  redis: unix:/run/redis.sock
  peers: [redis-002:8101, "[::1]:8102"]
  write_consistency: quorum
  read_consistency: leader
  min_in_sync: 2
  on_partition: consistent
  arbiter:
    etcd: {endpoints: ["http://127.0.0.1:2379", "https://[::1]/"], key: /redisha/cache, username: u, password: p}
  secret: ${S}
  heartbeat: 100ms
  missed_heartbeats: 7
  connect_timeout: 1s
  op_timeout: 2s
  auth: {username: app, password: pw}
  health: {interval: 2s}
  dns_refresh: 1m
"""


def tree(listener: Tree | None = None, **group: Any) -> Tree:
    """A file with one listener and a group of two; a field that is None is left out."""
    section = {
        "name": "cache",
        "listen": "0.0.0.0:8101",
        "redis": "127.0.0.1:6379",
        "peers": ["redis-002:8101"],
    } | group
    return {
        "listeners": [{"bind": "0.0.0.0:6380", "group": "cache"} | (listener or {})],
        "group": {key: value for key, value in section.items() if value is not None},
    }


def read(document: Tree, env: dict[str, str] | None = None) -> Loaded:
    return parse(yaml.safe_dump(document, sort_keys=False), "f.yaml", env or {})


def problems(document: Tree) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(document)
    return [f"{problem.path}: {problem.message} ({problem.hint})" for problem in caught.value.problems]


def warnings(document: Tree) -> list[str]:
    return [f"{each.path}: {each.message}" for each in read(document).warnings]


def test_defaults() -> None:
    loaded = read(tree())
    assert loaded.warnings == ()
    assert loaded.config.clusters == {}
    (listener,) = loaded.config.listeners
    assert (listener.group, listener.routes) == ("cache", ())
    assert (listener.write_consistency, listener.read_consistency) == (None, None)
    group = loaded.config.group
    assert group is not None
    assert (group.name, group.member, group.listen, group.redis) == ("cache", None, "0.0.0.0:8101", "127.0.0.1:6379")
    assert group.peers == ("redis-002:8101",)
    assert (group.write_consistency, group.read_consistency, group.min_in_sync) == ("one", "one", 1)
    assert (group.on_partition, group.arbiter, group.secret, group.auth) == ("available", None, None, None)
    assert (group.heartbeat, group.missed_heartbeats, group.connect_timeout) == (200, 5, 250)
    assert (group.op_timeout, group.dns_refresh, group.health.interval) == (5000, 5000, 1000)


def test_everything_is_read_and_written_again() -> None:
    loaded = parse(EVERYTHING, "f.yaml", {"S": "secret"})
    config = loaded.config
    group = config.group
    assert group is not None
    assert group.arbiter is not None
    assert group.arbiter.etcd is not None
    assert group.arbiter.etcd.endpoints == ("http://127.0.0.1:2379", "https://[::1]")
    assert group.secret is not None
    assert group.secret.value == "secret"
    assert group.auth is not None
    assert (group.heartbeat, group.missed_heartbeats, group.health.interval) == (100, 7, 2000)
    assert config.dynomite_stats is not None
    assert config.dynomite_stats.nodes[0].rack == "rack2"
    text = to_yaml(config)
    assert parse(text, "f.yaml", {"S": "secret"}).config == config
    assert 'secret: "${S}"' in text
    assert "secret'" not in repr(config)


def test_kubernetes() -> None:
    lease: Tree = {"lease": "redisha-cache"}
    config = read(tree(arbiter={"kubernetes": lease})).config
    assert config.group is not None
    assert config.group.arbiter is not None
    found = config.group.arbiter.kubernetes
    assert found is not None
    assert (found.lease, found.namespace, found.server, found.token_file) == ("redisha-cache", None, None, None)
    lease |= {"namespace": "db", "server": "https://10.0.0.1:6443", "token_file": "/t", "ca_file": "/c"}
    config = read(tree(arbiter={"kubernetes": lease})).config
    assert read(yaml.safe_load(to_yaml(config))).config == config


def test_a_group_and_clusters() -> None:
    document = tree()
    document["listeners"].append({"bind": "0.0.0.0:6390", "catch_all": "a"})
    document["clusters"] = {"a": {"endpoints": "h:1"}}
    assert list(read(document).config.clusters) == ["a"]
    document["clusters"] = {}
    assert problems(document) == ["listeners[1].catch_all: there is no cluster 'a' ()"]


def test_the_folder_may_stand_in_the_group() -> None:
    document = tree(state_dir="/var/lib/redisha")
    assert read(document).config.state_dir == "/var/lib/redisha"
    assert read(document | {"state_dir": "/var/lib/redisha"}).config.state_dir == "/var/lib/redisha"
    assert problems(document | {"state_dir": "/other"}) == [
        "group.state_dir: there is another state_dir in line 11 (remove one of them)"
    ]
    assert problems(tree(state_dir="here"))[0].startswith("group.state_dir: the folder must be an absolute path: here")


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (tree(name=None), "group.name: this field is required"),
        (tree(listen=None), "group.listen: this field is required"),
        (tree(listen="redis-001:8101"), "group.listen: 'redis-001' is not an IP address (write 0.0.0.0:8101)"),
        (tree(listen="unix:/p"), "group.listen: the peer port is a TCP port (write for example 0.0.0.0:8101)"),
        (tree(redis=None), "group.redis: this field is required"),
        (tree(redis="redis"), "group.redis: the address 'redis' has no port"),
        (tree(peers=None), "group.peers: this field is required"),
        (tree(peers=[]), "group.peers: at least one is needed"),
        (tree(peers=["unix:/p"]), "group.peers[0]: a peer is reached over TCP"),
        (tree(peers=[f"h{n}:1" for n in range(7)]), "group.peers: at most 6 are possible, and here are 7"),
        (tree(peers=["h:1", "h:01"]), "group.peers[1]: the peer h:1 is given twice (first in line "),
        (tree(peers=["localhost:1", "127.0.0.1:1"]), "group.peers[1]: the peer 127.0.0.1:1 is given twice"),
        (
            tree(write_consistency="some"),
            "group.write_consistency: expected 'one' or 'quorum' or 'all', found the text",
        ),
        (
            tree(read_consistency="quorum"),
            "group.read_consistency: expected 'one' or 'leader', found the text 'quorum'",
        ),
        (tree(min_in_sync=0), "group.min_in_sync: must be greater than or equal to 1"),
        (tree(min_in_sync=8), "group.min_in_sync: must be less than or equal to 7"),
        (tree(on_partition="both"), "expected 'available' or 'consistent', found the text 'both'"),
        (tree(heartbeat=200), "group.heartbeat: the duration 200 has no unit"),
        (tree(missed_heartbeats=0), "group.missed_heartbeats: must be greater"),
        (tree(secret="${S}"), "group.secret: the environment variable S is not set"),
        (tree(auth={"username": "u"}), "group.auth.password: this field is required"),
        (tree(tls={}), "group.tls: this is not supported yet (TLS between members comes in a later version)"),
        (tree(peer="h:1"), "group.peer: unknown field (did you mean 'peers'?)"),
        (tree(arbiter={}), "group.arbiter: an arbiter is either kubernetes or etcd"),
        (
            tree(arbiter={"kubernetes": {"lease": "a"}, "etcd": {"endpoints": "http://h:1", "key": "k"}}),
            "group.arbiter: an arbiter is either kubernetes or etcd (write one of them",
        ),
        (tree(arbiter={"kubernetes": {}}), "group.arbiter.kubernetes.lease: this field is required"),
        (tree(arbiter={"kubernetes": {"lease": "A"}}), "lease: this is no name of a Kubernetes object"),
        (tree(arbiter={"kubernetes": {"lease": "a", "server": "h"}}), "server: expected a URL of a server"),
        (tree(arbiter={"kubernetes": {"lease": "a", "ca_file": "x"}}), "ca_file: expected the absolute path of a file"),
        (tree(arbiter={"etcd": {"endpoints": [], "key": "k"}}), "etcd.endpoints: at least one is needed"),
        (tree(arbiter={"etcd": {"endpoints": ["http://h:1/x"], "key": "k"}}), "endpoints[0]: expected a URL"),
        (tree(arbiter={"etcd": {"endpoints": ["http://h:x"], "key": "k"}}), "endpoints[0]: 'x' is not a port"),
        (
            tree(arbiter={"etcd": {"endpoints": ["http://h"], "key": "k", "username": "u"}}),
            "etcd: a username needs a password",
        ),
        (tree({"routes": [{"cluster": "a"}]}), "listeners[0].routes: a listener has either a group or routes (remove"),
        (tree({"catch_all": "a"}), "listeners[0].catch_all: a listener has either a group or routes"),
        (tree({"group": "cash"}), "listeners[0].group: there is no group 'cash' (did you mean 'cache'?)"),
        (tree({"group": 3}), "listeners[0].group: expected text, found the number 3"),
        (tree({"case_insensitive": True}), "case_insensitive: this is about the prefixes of routes, and a group has"),
        (tree({"prefix": "x"}), "listeners[0].prefix: unknown field"),
        (tree({"write_consistency": "two"}), "expected 'one' or 'quorum' or 'all', found the text 'two'"),
        (tree({"bind": "0.0.0.0:8101"}), "the address 0.0.0.0:8101 is given twice"),
        (tree() | {"admin": {"bind": "0.0.0.0:8101"}}, "admin.bind: the address 0.0.0.0:8101 is given twice"),
        (tree() | {"dynomite_stats": {"bind": "0.0.0.0:8101"}}, "dynomite_stats.bind: the address 0.0.0.0:8101 is"),
        (tree() | {"dynomite_stats": {"token": 2**32}}, "dynomite_stats.token: must be less than"),
        (
            tree(redis="127.0.0.1:6380"),
            "the Redis 127.0.0.1:6380 of the group is this sidecar's own listener '0.0.0.0:6380' (0.0.0.0:6380): a",
        ),
        (tree(redis="localhost:8101"), "of the group is this sidecar's own peer port (0.0.0.0:8101): a loop"),
        (
            tree(peers=["127.0.0.1:6380"]),
            "group.peers[0]: the peer 127.0.0.1:6380 is this sidecar's own listener '0.0.0.0:6380' (0.0.0.0:6380)",
        ),
        (
            tree(min_in_sync=3, peers=["10.0.0.2:1"]),
            "group.min_in_sync: the group has 2 members, and 3 must be in sync: no write of 'quorum' or 'all' would "
            "ever be done (write at most 2)",
        ),
        (tree(min_in_sync=4, peers=["a:1", "b:1"]), "the group has 3 members, and 4 must be in sync"),
        (
            tree(on_partition="consistent", write_consistency="quorum") | {"state_dir": "none"},
            "state_dir: with on_partition: consistent a member's votes must outlive its process",
        ),
        (
            tree() | {"clusters": {"cache": {"endpoints": "h:1"}}},
            "clusters.cache: the group has this name, and its Redis is known by it (give the cluster another name)",
        ),
        (tree() | {"group": 3}, "group: expected a mapping, found the number 3"),
        (tree() | {"group": None}, "clusters: this field is required"),
    ],
)
def test_wrong(document: Tree, problem: str) -> None:
    found = problems(document)
    assert any(problem in line for line in found), found


def test_consistencies_belong_to_groups() -> None:
    document = {
        "listeners": [{"bind": "0.0.0.0:1", "catch_all": "a", "write_consistency": "one", "read_consistency": "one"}],
        "clusters": {"a": {"endpoints": "h:1"}},
    }
    assert problems(document) == [
        f"listeners[0].{key}: only a listener of a group has a consistency (remove it, or write group: NAME)"
        for key in ("write_consistency", "read_consistency")
    ]


def test_a_mistake_is_told_once() -> None:
    assert len(problems(tree(name=None))) == 1
    assert len(problems(tree() | {"group": {"name": "cache"}})) == 3  # listen, redis, peers
    assert len(problems(tree(peers=["h"]))) == 1


CONSISTENT: Tree = {"on_partition": "consistent", "write_consistency": "quorum"}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (
            tree({"group": None, "catch_all": "a"}) | {"clusters": {"a": {"endpoints": "h:1"}}},
            ["group: no listener leads to this group"],
        ),
        (
            tree(peers=["127.0.0.1:8101"]),
            ["group.peers[0]: the only peer is this member itself"],
        ),
        (
            tree(min_in_sync=3),
            ["group.min_in_sync: 3 members must be in sync, and the file names 2: right only if 'redis-002'"],
        ),
        (tree(min_in_sync=4, peers=["h:1", "h:2"]), ["group.min_in_sync: 4 members must be in sync, and the file"]),
        (tree(**CONSISTENT), ["group.on_partition: a group of two without an arbiter has no majority when one member"]),
        (tree(**CONSISTENT, arbiter={"kubernetes": {"lease": "a"}}), []),
        (tree(**CONSISTENT, peers=["a:1", "b:1"]), []),
        (
            tree(on_partition="consistent", peers=["a:1", "b:1"]),
            ["group.on_partition: with write_consistency: one a write is acknowledged before another member has it"],
        ),
        (
            tree(on_partition="consistent", write_consistency="one", peers=["a:1", "b:1"]),
            ["group.write_consistency: with write_consistency: one a write"],
        ),
        (tree({"write_consistency": "all"}, on_partition="consistent", peers=["a:1", "b:1"]), []),
        (
            tree({"write_consistency": "one"}, **CONSISTENT, peers=["a:1", "b:1"]),
            ["listeners[0].write_consistency: with write_consistency: one a write"],
        ),
        (
            tree() | {"clusters": {"a": {"endpoints": ["localhost:6379"]}}},
            [
                "clusters.a.endpoints[0]: localhost:6379 is the group's own Redis: what is written there by way of the "
                "cluster 'a'",
                "clusters.a: no route leads to this cluster",
            ],
        ),
    ],
)
def test_odd(document: Tree, expected: list[str]) -> None:
    document["listeners"] = [
        {key: value for key, value in each.items() if value is not None} for each in document["listeners"]
    ]
    found = warnings(document)
    assert len(found) == len(expected), found
    for beginning in expected:
        assert any(warning.startswith(beginning) for warning in found), found


def advice(config: Config) -> str:
    return "\n".join(advise(config))


def test_advice() -> None:
    found = advice(read(tree()).config)
    assert "the group cache has no secret: whoever reaches 0.0.0.0:8101 can read and change everything" in found
    assert "has no route for other keys" not in found
    assert "secret" not in advice(read(tree(secret="x")).config)
