"""Balancing and mirrors of a part of the commands in the configuration: what they may be together with."""

import pytest

from redisha.cli.check import summary
from redisha.config.dump import to_yaml
from redisha.config.load import Loaded, parse
from redisha.derive import mirrored_pairs
from redisha.errors import ConfigError
from redisha.plan import PlanRing, compile_plan

FILE = """
listeners: [{bind: "0.0.0.0:6380", routes: [%s]}]
clusters:
  a: {endpoints: ["10.0.0.1:7001", "10.0.0.1:7002"], discovery: static, %s}
  b: {endpoints: "10.0.0.2:6379", discovery: static}
"""
PLAIN, MIRRORED, MIRROR, SAMPLED = (
    "{cluster: a}",
    "{cluster: a, mirrors: [{cluster: b}]}",
    "{cluster: b, mirrors: [{cluster: a}]}",
    "{cluster: a, mirrors: [{cluster: b, fraction: 30}]}",
)


def read(text: str) -> Loaded:
    return parse(text, "f.yaml", {})


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        read(text)
    return [str(each) for each in error.value.problems]


@pytest.mark.parametrize("policy", ["random", "round_robin", "least_request"])
def test_policies_without_a_hash_are_warned_of(policy: str) -> None:
    loaded = read(FILE % (PLAIN, f"balance: {policy}") + '  c: {endpoints: "h:1", balance: random}\n')
    warned = [str(each) for each in loaded.warnings if "gets any command" in each.message]
    assert len(warned) == 1, "with one endpoint there is nothing to warn of"
    assert "clusters.a.balance: any of the 2 servers of 'a' gets any command" in warned[0]
    assert any("balance: maglev" in line for line in summary(loaded))
    assert parse(to_yaml(loaded.config), "g.yaml", {}).config == loaded.config
    assert compile_plan(loaded.config, {}, 1).clusters[0].balance == policy


def test_a_ring_is_read_and_written() -> None:
    text = "balance: ring_hash, minimum_ring_size: 10, maximum_ring_size: 20, ring_hash_function: murmur_hash_2"
    loaded = read(FILE % (PLAIN, text))
    assert not loaded.warnings or all("gets any" not in each.message for each in loaded.warnings)
    assert parse(to_yaml(loaded.config), "g.yaml", {}).config == loaded.config
    cluster = compile_plan(loaded.config, {}, 1).clusters[0]
    assert (cluster.balance, cluster.ring) == ("ring_hash", PlanRing(10, 20, "murmur_hash_2"))


@pytest.mark.parametrize(
    ("route", "cluster", "problem"),
    [
        (MIRRORED, "balance: random", "any server of the cluster 'a' gets any command, so it cannot have mirrors"),
        (MIRROR, "balance: random", "any server of the cluster 'a' gets any command, so it cannot be a mirror"),
        (SAMPLED, "balance: random", "any server of the cluster 'a' gets any command, so it cannot have mirrors"),
        (PLAIN, "choice_count: 3", "clusters.a.choice_count: only the balance least_request has this"),
        (PLAIN, "balance: least_request, choice_count: 1", "clusters.a.choice_count: must be greater than or equal to"),
        (PLAIN, "minimum_ring_size: 3", "clusters.a.minimum_ring_size: only the balance ring_hash has this"),
        (
            PLAIN,
            "balance: ring_hash, maximum_ring_size: 1000",
            "the minimum_ring_size 1024 is more than the maximum_ring_size 1000",
        ),
        (PLAIN, "type: redis_cluster, balance: random", "the nodes of a Redis Cluster say where keys are"),
        (PLAIN, "read_policy: any", "or name the replicas as endpoints of a cluster with balance: round_robin)"),
    ],
)
def test_what_does_not_go_together(route: str, cluster: str, problem: str) -> None:
    found = problems(FILE % (route, cluster))
    assert len(found) == 1
    assert problem in found[0]


def test_a_name_may_have_several_addresses() -> None:
    text = (FILE % (MIRRORED, "balance: random")).replace('["10.0.0.1:7001", "10.0.0.1:7002"]', "%s")
    text = text.replace("discovery: static, balance", "balance")
    assert "so it cannot have mirrors" in problems(text % '"redis:6379"')[0]
    assert read(text % '"10.0.0.1:6379"').config


def test_a_sampled_mirror_is_no_copy() -> None:
    loaded = read(FILE % (SAMPLED, "hash_tags: true"))
    (route,) = loaded.config.listeners[0].routes
    assert (route.copies, route.mirrors[0].fraction) == ((), 30)
    assert mirrored_pairs(loaded.config) == ()
    assert any("writes also → b (sampled: 30 %, no copy)" in line for line in summary(loaded))
    assert parse(to_yaml(loaded.config), "g.yaml", {}).config == loaded.config
    (planned,) = compile_plan(loaded.config, {}, 1).listeners[0].routes[0].mirrors
    assert planned.fraction == 300_000


@pytest.mark.parametrize(("text", "part"), [("100", 1_000_000), ("99.99999999", 999_999), ("0", 0), ("0.01", 100)])
def test_parts_of_a_million(text: str, part: int) -> None:
    config = read(FILE % (SAMPLED.replace("30", text), "hash_tags: true")).config
    assert compile_plan(config, {}, 1).listeners[0].routes[0].mirrors[0].fraction == part


@pytest.mark.parametrize(
    ("routes", "problem"),
    [
        (
            '{cluster: a, mirrors: [{cluster: b, fraction: 1}]}, {prefix: "x", cluster: a, mirrors: [{cluster: b}]}',
            "10.0.0.2:6379 gets a part of the commands here, and is a mirror that is a copy in another route",
        ),
        (
            '{cluster: a, mirrors: [{cluster: b, fraction: 1}]}, {prefix: "x", cluster: b, mirrors: [{cluster: c}]}',
            "10.0.0.2:6379 gets a part of the commands here, and is mirrored in another route",
        ),
    ],
)
def test_a_copy_gets_everything(routes: str, problem: str) -> None:
    text = FILE % (routes, "hash_tags: true") + '  c: {endpoints: "10.0.0.3:1", discovery: static}\n'
    assert any(problem in each for each in problems(text))
