"""Redis Cluster in the configuration: what it may be together with."""

import pytest

from redisha.config.dump import to_yaml
from redisha.config.load import parse
from redisha.errors import ConfigError

FILE = """
listeners: [{bind: "0.0.0.0:6380", routes: [%s]}]
clusters:
  a: {endpoints: "10.0.0.1:7001", discovery: static, %s}
  b: {endpoints: "10.0.0.2:6379", discovery: static}
"""
PLAIN, MIRRORED, MIRROR = (
    "{cluster: a}",
    "{cluster: a, mirrors: [{cluster: b}]}",
    "{cluster: b, mirrors: [{cluster: a}]}",
)


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        parse(text, "f.yaml", {})
    return [str(each) for each in error.value.problems]


def test_a_redis_cluster_is_read_and_written() -> None:
    text = FILE % (PLAIN, "type: redis_cluster, read_policy: prefer_replica, refresh: 2s")
    config = parse(text, "f.yaml", {}).config
    cluster = config.clusters["a"]
    assert (cluster.type, cluster.read_policy, cluster.refresh) == ("redis_cluster", "prefer_replica", 2000)
    assert parse(to_yaml(config), "g.yaml", {}).config == config
    config = parse(FILE % (PLAIN, "enable_redirection: true"), "f.yaml", {}).config
    assert config.clusters["a"].enable_redirection
    assert parse(to_yaml(config), "g.yaml", {}).config == config


@pytest.mark.parametrize(
    ("route", "cluster", "problem"),
    [
        (MIRRORED, "type: redis_cluster", "'a' is a Redis Cluster, which cannot have mirrors"),
        (MIRROR, "type: redis_cluster", "'a' is a Redis Cluster, which cannot be a mirror"),
        (MIRRORED, "enable_redirection: true", "'a' follows redirections, and so cannot have mirrors"),
        (MIRROR, "enable_redirection: true", "'a' follows redirections, and so cannot be a mirror"),
        (PLAIN, "read_policy: replica", "clusters.a.read_policy: only a cluster of the type redis_cluster has this"),
        (PLAIN, "refresh: 1s", "clusters.a.refresh: only a cluster of the type redis_cluster has this"),
        (PLAIN, "type: redis_clster", "(did you mean 'redis_cluster'?)"),
        (PLAIN, "type: redis_cluster, read_policy: slave", "expected 'master' or 'prefer_master' or 'replica'"),
        (PLAIN, "type: redis_cluster, refresh: 0", "clusters.a.refresh: the duration must be longer than 0"),
        (
            PLAIN,
            "type: redis_cluster, enable_redirection: false",
            "clusters.a.enable_redirection: a Redis Cluster cannot be used without its redirections",
        ),
    ],
)
def test_what_does_not_go_together(route: str, cluster: str, problem: str) -> None:
    found = problems(FILE % (route, cluster))
    assert len(found) == 1
    assert problem in found[0]


def test_its_nodes_are_known_by_host_and_port() -> None:
    text = (FILE % (PLAIN, "type: redis_cluster")).replace('"10.0.0.1:7001"', '["10.0.0.1:7001", "unix:/run/r.sock"]')
    assert any("the nodes of a Redis Cluster are known by host and port" in each for each in problems(text))


def test_a_group_is_not_over_one() -> None:
    group = "group: {name: g, listen: 10.0.0.9:8101, redis: 10.0.0.1:7001, peers: [10.0.0.3:8101]}\n"
    found = problems(FILE % (PLAIN, "type: redis_cluster") + group)
    assert any("10.0.0.1:7001 is a node of a Redis Cluster, and the group needs" in each for each in found)
