"""Dynomite's files: what is honoured, ignored and refused."""

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from redisha.config.dump import to_yaml
from redisha.config.dynomite import levels
from redisha.config.dynomite.directives import IGNORED
from redisha.config.load import Loaded, load, parse
from redisha.config.model import Config, Group
from redisha.errors import ConfigError

DATA = Path(__file__).parent.parent / "support" / "data"

Tree = dict[str, Any]

STATS = {"stats_listen": "0.0.0.0:22222"}


def pool(**directives: Any) -> Tree:
    """A node of three, in as few words as possible; a directive that is None is left out."""
    found = {
        "datacenter": "dc",
        "rack": "rack1",
        "dyn_listen": "0.0.0.0:8101",
        "listen": "0.0.0.0:8102",
        "dyn_seeds": ["10.0.0.2:8101:rack2:dc:7", "10.0.0.3:8101:rack3:dc:7"],
        "servers": ["127.0.0.1:6379:1"],
        "tokens": 7,
        **STATS,
        **directives,
    }
    return {"dyn_o_mite": {key: value for key, value in found.items() if value is not None}}


def read(tree: Tree, env: dict[str, str] | None = None) -> Loaded:
    return parse(yaml.safe_dump(tree, sort_keys=False), "dynomite.yaml", env or {})


def group(tree: Tree, env: dict[str, str] | None = None) -> Group:
    found = read(tree, env).config.group
    assert found is not None
    return found


def problems(tree: Tree, env: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(tree, env)
    return [f"{problem.path}: {problem.message} ({problem.hint})" for problem in caught.value.problems]


def warnings(tree: Tree, env: dict[str, str] | None = None) -> list[str]:
    """Those that not every file gets."""
    found = [f"{each.path.rpartition('.')[2]}: {each.message}" for each in read(tree, env).warnings]
    return [each for each in found if not each.startswith("dyn_listen: becomes the group's peer port")]


def test_the_seeds_file() -> None:
    loaded = load(DATA / "dynomite.yaml", {})
    assert loaded.kind == "dynomite"
    config = loaded.config
    (listener,) = config.listeners
    assert (listener.name, listener.bind, listener.group) == ("dyn_o_mite", ("0.0.0.0:8102",), "dyn_o_mite")
    found = config.group
    assert found is not None
    assert (found.name, found.member, found.listen) == ("dyn_o_mite", "dc1-rack1-0", "0.0.0.0:8101")
    assert (found.redis, found.peers) == ("redis-dyno-001:6379", ("redis-dyno-002:8101",))
    assert (found.write_consistency, found.read_consistency, found.op_timeout) == ("quorum", "leader", 5000)
    assert (config.clusters, config.dynomite_stats, config.admin) == ({}, None, None)
    assert sorted((each.line, each.path.rpartition(".")[2]) for each in loaded.warnings) == [
        (1, "dyn_o_mite"),
        (4, "dyn_listen"),
        (7, "dyn_seeds[0]"),
        (12, "pem_key_file"),
        (14, "read_consistency"),
        (15, "write_consistency"),
    ]
    told = "\n".join(each.message for each in loaded.warnings)
    assert "DC_QUORUM becomes write_consistency: quorum: a majority of the members in sync, whatever their" in told
    assert "DC_QUORUM becomes read_consistency: leader" in told
    assert "the datacenters 'dc1' and 'dc2' are one group" in told
    assert "there is no stats_listen" in told


GOLDEN = """listeners:
  - name: dyn_o_mite
    bind: [0.0.0.0:8102]
    group: dyn_o_mite
group:
  name: dyn_o_mite
  member: dc1-rack1-0
  listen: 0.0.0.0:8101
  redis: redis-dyno-001:6379
  peers: [redis-dyno-002:8101]
  write_consistency: quorum
  read_consistency: leader
  min_in_sync: 1
  on_partition: available
"""


def test_the_seeds_file_converted() -> None:
    loaded = load(DATA / "dynomite.yaml", {})
    text = to_yaml(loaded.config, "dynomite.yaml", [*loaded.notes, *loaded.warnings])
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert text == "".join(f"{line}\n" for line in comments) + GOLDEN
    assert comments[0] == "# converted from dynomite.yaml"
    assert any("dyn_o_mite.dyn_seeds: becomes the group's peers: redis-dyno-002:8101" in line for line in comments)
    again = parse(text, "redisha.yaml", {})
    assert (again.kind, again.config, again.warnings, again.notes) == ("native", loaded.config, (), ())


def test_everything_that_is_honoured() -> None:
    tree = {
        "pool": {
            "datacenter": "us-east:1",
            "rack": "a",
            "dyn_listen": "localhost:8101",
            "listen": "/run/dyn.sock",
            "stats_listen": "localhost:33331",
            "dyn_seeds": ["fd00::2:8101:b:eu:437425602 second", "h:8101:c:eu:437425602"],
            "dyn_seed_provider": "simple_provider",
            "servers": ["/run/redis.sock:1 local"],
            "tokens": "437425602",
            "timeout": "10000",
            "data_store": 0,
            "secure_server_option": "none",
            "read_consistency": "dc_one",
            "write_consistency": "dc_each_safe_quorum",
        }
    }
    config = read(tree).config
    found = config.group
    assert found is not None
    assert config.listeners[0].bind == ("unix:/run/dyn.sock",)
    assert (found.name, found.member, found.listen) == ("pool", "us-east-1-a-437425602", "127.0.0.1:8101")
    assert (found.redis, found.peers) == ("unix:/run/redis.sock", ("[fd00::2]:8101", "h:8101"))
    assert (found.write_consistency, found.read_consistency, found.op_timeout) == ("all", "one", 10_000)
    stats = config.dynomite_stats
    assert stats is not None
    assert (stats.bind, stats.datacenter, stats.rack, stats.token) == ("127.0.0.1:33331", "us-east:1", "a", 437425602)
    assert [(each.peer, each.datacenter, each.rack, each.token) for each in stats.nodes] == [
        ("[fd00::2]:8101", "eu", "b", 437425602),
        ("h:8101", "eu", "c", 437425602),
    ]
    assert parse(to_yaml(config), "f.yaml", {}).config == config


def test_every_member_gives_itself_one_name() -> None:
    nodes = {f"10.0.0.{n}:8101": f"rack{n}" for n in range(1, 4)}
    members = set()
    for own, rack in nodes.items():
        seeds = [f"{address}:{other}:dc:7" for address, other in nodes.items() if address != own]
        found = group(pool(rack=rack, dyn_seeds=seeds))
        members.add(found.member)
        assert set(found.peers) == nodes.keys() - {own}
    assert members == {"dc-rack1-7", "dc-rack2-7", "dc-rack3-7"}


def test_zero_and_nothing_are_not_there() -> None:
    tree = pool(timeout=0, data_store=0, backlog=0, preconnect=False, mbuf_size=0, hash_tag="", env=None)
    tree["dyn_o_mite"]["dyn_seed_provider"] = None
    assert group(tree).op_timeout == 5000
    assert warnings(tree) == []


def test_the_form_of_the_file() -> None:
    text = yaml.safe_dump(pool())
    assert parse(text.replace("rack: rack1", "rack : rack1"), "f", {}).kind == "dynomite"
    assert parse(json.dumps(pool()), "f", {}).config == read(pool()).config  # flow style, which Dynomite refuses
    assert group(pool(tokens="7")).member == "dc-rack1-7"
    with pytest.raises(ConfigError, match="the key 'rack' is given twice"):
        parse(text + "  rack: rack1\n", "f", {})


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("dyn_o_mite: {}", "dynomite"),
        ("dyn_o_mite: 3", "dynomite"),
        ("dyn_o_mite: {}\nother: {}", "dynomite"),
        ("pool: {dyn_listen: 0.0.0.0:8101}", "dynomite"),
        ("pool: {dyn_seeds: []}", "dynomite"),
        ("pool: {listen: 0.0.0.0:8102, servers: []}", "dynomite"),
        ("group: {dyn_listen: 0.0.0.0:8101}", "dynomite"),
        ("pool: {listen: 0.0.0.0:8102}", "native"),
        ("clusters: {listen: {}, servers: {}}", "native"),
        ("group: {name: a, listen: 0.0.0.0:1, servers: []}", "native"),
    ],
)
def test_told_apart_by_the_root(text: str, kind: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f", {})
    native = any(problem.path == "listeners" for problem in caught.value.problems)
    assert native == (kind == "native")


# --- one node ---------------------------------------------------------------------------------------------------------


def test_a_node_that_knows_no_other() -> None:
    loaded = read(pool(dyn_seeds=None, write_consistency="DC_QUORUM", timeout=1000, secure_server_option="datacenter"))
    config = loaded.config
    assert config.group is None
    assert config.listeners[0].routes[0].cluster == "dyn_o_mite"
    cluster = config.clusters["dyn_o_mite"]
    assert (cluster.endpoints, cluster.op_timeout) == (("127.0.0.1:6379",), 1000)
    assert [f"{each.path}: {each.message}" for each in loaded.warnings] == [
        "dyn_o_mite.secure_server_option: 'datacenter' encrypts nothing between the nodes of this file, in Dynomite "
        "neither",
        "dyn_o_mite.dyn_listen: ignored: the file names no other node",
        "dyn_o_mite.write_consistency: ignored: the file names no other node",
    ]
    assert config.dynomite_stats is not None
    assert parse(to_yaml(config), "f.yaml", {}).config == config


# --- full copies ------------------------------------------------------------------------------------------------------


def test_the_same_ring_in_another_datacenter() -> None:
    tree = pool(dyn_seeds=["a:1:rack1:eu:7", "b:1:rack2:eu:7", "c:1:rack2:dc:7"])
    assert group(tree).peers == ("a:1", "b:1", "c:1")
    assert warnings(tree) == [
        "dyn_seeds[0]: the datacenters 'dc' and 'eu' are one group: one leader orders the writes of both, and all "
        "members count alike when a write is acknowledged; Dynomite waits for its own datacenter only"
    ]


def test_several_tokens_are_a_set() -> None:
    assert group(pool(tokens="5, 7", dyn_seeds=["a:1:rack2:dc:7,5"])).member == "dc-rack1-5"


@pytest.mark.parametrize(
    ("tree", "problem"),
    [
        (
            pool(rack="rack", dyn_seeds=["127.0.0.2:8101:rack:dc:1383429731"], tokens="12345678"),
            "dyn_seeds[0]: this node (tokens 12345678) and this seed (tokens 1383429731) divide the keys of the rack "
            "'rack' among them: that is not supported yet",
        ),
        (
            pool(dyn_seeds=["127.0.0.2:8101:rack2:dc2:1383429731"]),
            "dyn_seeds[0]: this seed has the tokens 1383429731 and this node 7: nodes of two racks are full copies",
        ),
        (pool(tokens=None), "dyn_seeds[0]: this node has no tokens, and a seed has (write tokens: '7')"),
        (
            pool(dyn_seeds=["a:1:rack1:dc:7"]),
            "dyn_seeds[0]: the node has the datacenter, the rack and the token of this node itself",
        ),
        (
            pool(dyn_seeds=["a:1:rack2:dc:7", "b:1:rack2:dc:7"]),
            "dyn_seeds[1]: the node has the datacenter, the rack and the token of the node in line 7",
        ),
        (
            pool(datacenter="x-y", rack="z", dyn_seeds=["a:1:y-z:x:7"]),
            "the datacenter, the rack and the token of this node itself",
        ),
        (pool(dyn_seeds=["a:1:rack2:dc:7"] * 2), "dyn_seeds[1]: the peer a:1 is given twice (first in line 7)"),
        (pool(dyn_seeds=[f"h{n}:1:r{n}:dc:7" for n in range(7)]), "dyn_seeds: at most 6 are possible, and here are 7"),
    ],
)
def test_what_is_no_full_copy(tree: Tree, problem: str) -> None:
    (found,) = problems(tree)
    assert problem in found


# --- where the seeds are ----------------------------------------------------------------------------------------------


def test_seeds_from_the_dns() -> None:
    tree = pool(dyn_seeds=None, dyn_seed_provider="dns_provider")
    env = {"DYNOMITE_DNS_NAME": "dyno.db.svc", "DYNOMITE_DNS_TYPE": "A"}
    assert group(tree, env).peers == ("dyno.db.svc:8101",)
    (warning,) = warnings(tree, env)
    assert warning.startswith("dyn_seed_provider: every address of dyno.db.svc is taken for a node that is a full copy")
    tree["dyn_o_mite"]["dyn_seeds"] = ["a:1:rack2:dc:7"]
    assert group(tree, env).peers == ("a:1", "dyno.db.svc:8101")


@pytest.mark.parametrize(
    ("provider", "env", "problem"),
    [
        ("dns_provider", {}, "seeds in a TXT record are not supported, only a name with an address (A) for each"),
        ("dns_provider", {"DYNOMITE_DNS_NAME": "x"}, "(set DYNOMITE_DNS_TYPE=A, and DYNOMITE_DNS_NAME to such a name"),
        ("dns_provider", {"DYNOMITE_DNS_TYPE": "A"}, "the environment variable DYNOMITE_DNS_NAME is not set"),
        ("florida_provider", {}, "(list the other nodes in dyn_seeds (host:port:rack:datacenter:tokens) and write"),
        ("simple_provder", {}, "there is no seed provider 'simple_provder' (did you mean 'simple_provider'?)"),
    ],
)
def test_other_providers(provider: str, env: dict[str, str], problem: str) -> None:
    for seeds in (None, ["a:1:rack2:dc:7"]):
        (found,) = problems(pool(dyn_seeds=seeds, dyn_seed_provider=provider), env)
        assert found.startswith("dyn_o_mite.dyn_seed_provider: ")
        assert problem in found


# --- encryption -------------------------------------------------------------------------------------------------------

REMOTE = ["a:1:rack2:eu:7"]


@pytest.mark.parametrize(
    ("option", "seeds", "encrypts"),
    [
        ("none", REMOTE, False),
        ("datacenter", None, False),
        ("datacenter", ["a:1:rack2:dc:7"], False),
        ("datacenter", REMOTE, True),
        ("rack", ["a:1:rack2:dc:7"], True),
        ("all", ["a:1:rack2:dc:7"], True),
    ],
)
def test_encryption(option: str, seeds: list[str] | None, encrypts: bool) -> None:
    tree = pool(dyn_seeds=seeds, secure_server_option=option, pem_key_file="/key.pem")
    if encrypts:
        assert problems(tree) == [
            f"dyn_o_mite.secure_server_option: encryption between members is not supported yet: '{option}' (write "
            "secure_server_option: none if the network between the nodes is trusted, or take the traffic through a "
            "tunnel that encrypts it)"
        ]
        return
    told = [each for each in warnings(tree) if each.startswith("secure_server_option")]
    assert (told != []) == (option != "none")
    assert "pem_key_file: ignored: nothing between members is encrypted yet" in warnings(tree)


def test_encryption_with_nodes_that_are_not_known_yet() -> None:
    env = {"DYNOMITE_DNS_NAME": "x", "DYNOMITE_DNS_TYPE": "A"}
    tree = pool(dyn_seeds=None, dyn_seed_provider="dns_provider", secure_server_option="datacenter")
    assert "encryption between members is not supported yet" in problems(tree, env)[0]


# --- consistency ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "write", "read"),
    [
        ("DC_ONE", "one", "one"),
        ("dc_quorum", "quorum", "leader"),
        ("Dc_Safe_Quorum", "quorum", "leader"),
        ("DC_EACH_SAFE_QUORUM", "all", "leader"),
    ],
)
def test_consistency(level: str, write: str, read: str) -> None:
    tree = pool(write_consistency=level, read_consistency=level)
    found = group(tree)
    assert (found.write_consistency, found.read_consistency) == (write, read)
    loaded = parse(yaml.safe_dump(tree), "f.yaml", {})
    told = [each.message for each in [*loaded.notes, *loaded.warnings] if "consistency" in each.path]
    assert [each.split(": ")[0] for each in told] == [
        f"{level.upper()} becomes write_consistency",
        f"{level.upper()} becomes read_consistency",
    ]
    assert (len(warnings(tree)) == 0) == (level == "DC_ONE")


def test_levels_there_and_back() -> None:
    for which in ("read", "write"):
        for level in levels.LEVELS:
            native = levels.to_native(which, level)
            assert levels.to_native(which, levels.from_native(which, native)) == native
            assert native in levels.explanation(which, level)


# --- ignored ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IGNORED)
def test_ignored_with_a_reason(name: str) -> None:
    kind, why = IGNORED[name]
    value = {"number": 5, "flag": True, "text": "x", "anything": ["x"]}[kind]
    assert why
    assert warnings(pool(**{name: value})) == [f"{name}: ignored: {why}"]
    if kind in ("number", "flag"):
        assert problems(pool(**{name: "soon"}))[0].startswith(f"dyn_o_mite.{name}: expected ")


HONOURED = {
    *("listen", "dyn_listen", "stats_listen", "servers", "data_store", "timeout", "tokens", "datacenter", "rack"),
    *("dyn_seed_provider", "dyn_seeds", "secure_server_option", "read_consistency", "write_consistency"),
}


def test_all_directives_are_known() -> None:
    assert len(HONOURED | IGNORED.keys()) == 42
    assert HONOURED.isdisjoint(IGNORED)


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "problem"),
    [
        ({"dyn_o_mite": 3}, "dyn_o_mite: expected a mapping of directives, found the number 3"),
        (pool() | {"more": {}}, "more: a Dynomite file has one pool, and that is 'dyn_o_mite' (remove this key)"),
        (pool(listen=None), "dyn_o_mite: the directive 'listen' is required"),
        (pool(listen="redis-001:8102"), "dyn_o_mite.listen: 'redis-001' is not an IP address (write 0.0.0.0:8102)"),
        (pool(listen="8102"), "dyn_o_mite.listen: the address '8102' has no port"),
        (pool(dyn_listen=None), "dyn_o_mite: the directive 'dyn_listen' is required"),
        (pool(dyn_listen="/run/p"), "dyn_o_mite.dyn_listen: the peer port is a TCP port"),
        (pool(dyn_listen="0.0.0.0:8102"), "the address 0.0.0.0:8102 is given twice"),
        (pool(servers=None), "dyn_o_mite: the directive 'servers' is required"),
        (pool(servers=[]), "dyn_o_mite: the directive 'servers' is required"),
        (pool(servers=["a:1:1", "b:1:1"]), "servers[1]: a node has one server: Dynomite uses no other either (remove"),
        (pool(servers=["a:1"]), "servers[0]: expected host:port:weight, found 'a:1' (write for example redis-001:6379"),
        (pool(servers=["a:0:1"]), "servers[0]: 0 is not a port one can connect to"),
        (pool(servers=["/s"]), "servers[0]: expected host:port:weight, found '/s'"),
        (pool(servers={"a": 1}), "servers: expected a list, found a mapping"),
        (pool(servers=[True]), "servers[0]: expected text, found true (put quotes around it)"),
        (
            pool(data_store=1),
            "data_store: memcached is not supported (write data_store: 0, with a Redis as the server)",
        ),
        (pool(data_store=2), "data_store: there is no data_store 2"),
        (pool(data_store="redis"), "data_store: expected a whole number, found the text 'redis'"),
        (pool(timeout="5s"), "timeout: expected a whole number, found the text '5s'"),
        (pool(timeout=-1), "timeout: expected a whole number, found the number -1"),
        (pool(timeout=90_000_000), "timeout: the duration 25h is longer than a day"),
        (pool(tokens="a"), "tokens: 'a' is not a token (a token is a number up to 4294967295)"),
        (pool(tokens=2**32), "tokens: '4294967296' is not a token"),
        (pool(rack=1.5), "rack: expected text, found the number 1.5 (put quotes around it)"),
        (
            pool(dyn_seeds=["127.0.0.5:8101:DC1:5,5005"]),
            "dyn_seeds[0]: expected host:port:rack:datacenter:tokens, found",
        ),
        (pool(dyn_seeds=["a:1:rack2:dc:x"]), "dyn_seeds[0]: 'x' is not a token"),
        (pool(dyn_seeds=["a b:1:rack2:dc:7"]), "dyn_seeds[0]: expected host:port:rack:datacenter:tokens"),
        (pool(dyn_seeds=["-:1:rack2:dc:7"]), "dyn_seeds[0]: '-' is not a host name"),
        (pool(secure_server_option="some"), "expected one of none, rack, datacenter, all, found the text 'some'"),
        (
            pool(read_consistency="DC_TWO"),
            "read_consistency: expected one of DC_ONE, DC_QUORUM, DC_SAFE_QUORUM, DC_EACH",
        ),
        (pool(stats_listen="0.0.0.0:8102"), "stats_listen: the address 0.0.0.0:8102 is given twice"),
        (pool(read_consistancy="DC_ONE"), "read_consistancy: Dynomite has no such directive (did you mean 'read_cons"),
        (pool(redis=True), "redis: Dynomite has no such directive (of old versions; write data_store: 0)"),
        (pool(requirepass="x"), "requirepass: Dynomite has no such directive (remove it, run 'redisha convert'"),
    ],
)
def test_refused(tree: Tree, problem: str) -> None:
    found = problems(tree)
    assert any(problem in line for line in found), found
    assert len(found) == 1, found


def test_every_problem_is_told_at_once_with_its_line() -> None:
    text = yaml.safe_dump(pool(listen=None, servers=["a"], tokens="x", surprise=1), sort_keys=False)
    with pytest.raises(ConfigError) as caught:
        parse(text, "dynomite.yaml", {})
    assert [(each.line, each.path) for each in caught.value.problems] == [
        (1, "dyn_o_mite"),
        (9, "dyn_o_mite.servers[0]"),
        (10, "dyn_o_mite.tokens"),
        (12, "dyn_o_mite.surprise"),
    ]


# --- Dynomite's own samples -------------------------------------------------------------------------------------------

NODE = {"dyn_listen": "127.0.0.1:8101", "listen": "127.0.0.1:8102", "servers": ["127.0.0.1:22122:1"], "data_store": 0}

# conf/redis_rack*_node.yml: three racks of one datacenter.
RACKS = {
    f"rack{n}": NODE
    | {
        "datacenter": "dc",
        "rack": f"rack{n}",
        "dyn_listen": f"127.0.0.{n}:8101",
        "listen": f"127.0.0.{n}:8102",
        "dyn_seeds": [f"127.0.0.{m}:8101:rack{m}:dc:1383429731" for m in (1, 2, 3) if m != n],
        "tokens": "1383429731",
        "secure_server_option": "datacenter",
        "pem_key_file": "conf/dynomite.pem",
        "read_consistency": "DC_SAFE_QUORUM",
        "write_consistency": "DC_SAFE_QUORUM",
        "stats_listen": f"0.0.0.0:2222{n}",
    }
    for n in (1, 2, 3)
}

SAMPLES = {
    # conf/redis_single.yml
    "single": NODE | {"dyn_seed_provider": "simple_provider", "tokens": 437425602},
    # conf/node1.yml
    "node1": NODE
    | {"datacenter": "dc1", "rack": "rack1", "dyn_seeds": ["127.0.0.1:8113:rack1:dc2:101134286"], "preconnect": True}
    | {"tokens": "101134286", "dyn_seed_provider": "simple_provider", "stats_listen": "0.0.0.0:33331"},
    # what dynomite-manager writes, with simple_provider and without encryption
    "manager": NODE
    | {"auto_eject_hosts": True, "distribution": "vnode", "gos_interval": 10000, "hash": "murmur", "preconnect": True}
    | {"server_retry_timeout": 30000, "timeout": 5000, "mbuf_size": 16384, "max_msgs": 200000, "hash_tag": "{}"}
    | {"rack": "a", "datacenter": "dc", "tokens": "0", "dyn_seeds": ["h:8101:b:dc:0"], "stats_listen": "0.0.0.0:22222"}
    | {"datastore_connections": 1, "local_peer_connections": 1, "remote_peer_connections": 1, "dyn_port": 8101},
} | RACKS


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_run(name: str) -> None:
    loaded = read({"dyn_o_mite": SAMPLES[name]})
    text = to_yaml(loaded.config, name, [*loaded.notes, *loaded.warnings])
    again = parse(text, "redisha.yaml", {})
    assert (again.kind, again.config) == ("native", loaded.config)
    assert again.warnings == ()


def test_other_parts_of_the_tree_may_be_anything() -> None:
    """No document, however wrong, is more than a list of problems."""
    base = pool(timeout=5, hash="murmur", secure_server_option="none", write_consistency="DC_ONE")
    everything: list[Any] = [None, 3, -1, 1.5, "x", "", ":", [], {}, [3], [[]], {"x": 3}, [None], True]
    for key in base["dyn_o_mite"]:
        for junk in everything:
            tree = copy.deepcopy(base)
            tree["dyn_o_mite"][key] = junk
            with contextlib.suppress(ConfigError):
                assert isinstance(read(tree).config, Config)
