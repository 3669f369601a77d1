"""What `convert` prints is read as the same configuration."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisha.config.dump import to_yaml
from redisha.config.load import load, parse
from redisha.config.model import Config
from redisha.config.secret import Secrets, literal
from redisha.errors import Problem

DATA = Path(__file__).parent.parent / "support" / "data"

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
tricky = st.sampled_from(
    ["no", "1:30", "0o7", "~", "null", "a: b", "a #b", "- a", "{", "*a", "1e3", "001", "=", "\u2028"]
)
names = st.one_of(words, tricky)
secrets = st.one_of(st.just("${P}"), names.map(literal))
durations = st.integers(1, 100_000).map(lambda number: f"{number}ms")
sizes = st.integers(1, 2**31)
hosts = st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z]", fullmatch=True)
endpoints = st.one_of(
    st.builds("{}:{}".format, hosts, st.integers(1, 65535)), st.just("[::1]:6379"), st.just("unix:/a b")
)


def fields(**optional: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=optional)


clusters = st.fixed_dictionaries(
    {"endpoints": st.lists(endpoints, min_size=1, max_size=3, unique=True)},
    optional={
        "dns_refresh": durations,
        "respect_dns_ttl": st.booleans(),
        "connect_timeout": durations,
        "op_timeout": durations,
        "hash_tags": st.booleans(),
        "auth": st.fixed_dictionaries({"password": secrets}, optional={"username": secrets}),
        "health": fields(interval=durations, timeout=durations, unhealthy_threshold=st.integers(1, 9)),
    },
)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    cluster_names = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    return {
        "listeners": [
            {
                "bind": [f"127.0.0.1:{6000 + number}"],
                "name": f"{draw(names)}{number}",
                "case_insensitive": draw(st.booleans()),
                "routes": [
                    {
                        "prefix": prefix,
                        "cluster": draw(st.sampled_from(cluster_names)),
                        "remove_prefix": draw(st.booleans()),
                    }
                    for prefix in draw(st.lists(names, min_size=1, max_size=3, unique_by=str.lower))
                ],
            }
            | draw(
                fields(auth=fields(passwords=st.lists(secrets, min_size=1, max_size=2)).filter(bool), stat_prefix=names)
            )
            for number in range(draw(st.integers(1, 2)))
        ],
        "clusters": {name: draw(clusters) for name in cluster_names},
    } | draw(
        fields(
            admin=st.just({"bind": "127.0.0.1:8001"}),
            state_dir=st.sampled_from(["memory", "/var/lib/redisha", "/a b: c"]),
            resync=fields(
                max_keys_per_second=st.integers(0, 9),
                max_bytes_per_second=st.one_of(st.just(0), sizes),
                scrub=fields(interval=st.one_of(st.just(0), durations), sample=st.integers(1, 9)),
            ),
            limits=fields(
                max_clients=st.integers(1, 9),
                log_bytes=sizes,
                max_request=st.integers(1, 1024**3),
                idle_timeout=durations,
            ),
        )
    )


@given(documents())
def test_every_configuration_is_read_as_written(document: dict[str, Any]) -> None:
    env = {"P": "pw"}
    config = Config.model_validate(document, context=Secrets(env, Path()))
    assert parse(to_yaml(config), "f.yaml", env).config == config


urls = st.sampled_from(["http://127.0.0.1:2379", "https://[::1]:6443", "https://api"])
paths = st.sampled_from(["/ca.pem", "/a b: c"])
peers = st.one_of(st.builds("{}:{}".format, hosts, st.integers(1, 65535)), st.just("[::1]:8101"))
arbiters = st.one_of(
    st.fixed_dictionaries(
        {
            "kubernetes": st.fixed_dictionaries(
                {"lease": st.just("a.b-c")},
                optional={"namespace": st.just("no"), "server": urls, "token_file": paths, "ca_file": paths},
            )
        }
    ),
    st.fixed_dictionaries(
        {
            "etcd": st.one_of(
                st.fixed_dictionaries({"endpoints": st.lists(urls, min_size=1, max_size=2), "key": names}),
                st.fixed_dictionaries({"endpoints": urls, "key": names, "username": secrets, "password": secrets}),
            )
        }
    ),
)
places = {"datacenter": names, "rack": names, "token": st.integers(0, 2**32 - 1)}


@st.composite
def groups(draw: st.DrawFn) -> dict[str, Any]:
    name = draw(names)
    levels = {
        "write_consistency": st.sampled_from(["one", "quorum", "all"]),
        "read_consistency": st.sampled_from(["one", "leader"]),
    }
    return {
        "listeners": [{"bind": ["127.0.0.1:6000"], "name": draw(names), "group": name} | draw(fields(**levels))],
        "group": {
            "name": name,
            "listen": "127.0.0.1:8101",
            "redis": draw(endpoints),
            "peers": draw(st.lists(peers, min_size=2, max_size=6, unique=True)),
        }
        | draw(
            fields(
                **levels,
                member=names,
                min_in_sync=st.integers(1, 2),
                on_partition=st.sampled_from(["available", "consistent"]),
                arbiter=arbiters,
                secret=secrets,
                heartbeat=durations,
                missed_heartbeats=st.integers(1, 9),
                connect_timeout=durations,
                op_timeout=durations,
                dns_refresh=durations,
                auth=st.fixed_dictionaries({"password": secrets}, optional={"username": secrets}),
                health=fields(interval=durations, healthy_threshold=st.integers(1, 9)),
            )
        ),
    } | draw(
        fields(
            dynomite_stats=fields(
                **places,
                bind=st.just("0.0.0.0:22222"),
                nodes=st.lists(st.fixed_dictionaries(places | {"peer": peers}), min_size=1, max_size=2),
            ),
            clusters=st.fixed_dictionaries({}),
        )
    )


@given(groups())
def test_every_group_is_read_as_written(document: dict[str, Any]) -> None:
    env = {"P": "pw"}
    config = Config.model_validate(document, context=Secrets(env, Path()))
    assert parse(to_yaml(config), "f.yaml", env).config == config


@pytest.mark.parametrize("name", ["envoy-pair.yaml", "envoy-prefix.yaml"])
def test_the_seeds_files(name: str) -> None:
    loaded = load(DATA / name, {})
    text = to_yaml(loaded.config, name, loaded.warnings)
    again = parse(text, "redisha.yaml", {})
    assert (again.kind, again.config, again.warnings) == ("native", loaded.config, ())
    assert text.startswith(f"# converted from {name}\n# ")
    assert "enable_redirection" in text
    assert to_yaml(again.config) == to_yaml(loaded.config)


def test_mirrors_and_users_are_kept() -> None:
    text = """listeners:
  - name: l
    bind: [127.0.0.1:6380]
    auth: {users: [{name: app, password: ${P}}]}
    routes:
      - {prefix: "", cluster: a, mirrors: [{cluster: b, reads: include}]}
clusters:
  a:
    endpoints: [h:1]
    discovery: strict_dns
    balance: maglev
    connect_timeout: 250ms
    op_timeout: 5s
  b:
    endpoints: [i:1]
    discovery: strict_dns
    balance: maglev
    connect_timeout: 250ms
    op_timeout: 5s
""".replace("${P}", '"${P}"')
    assert to_yaml(parse(text, "f.yaml", {"P": "x"}).config) == text


def test_a_comment_stays_one_line() -> None:
    config = load(DATA / "envoy-pair.yaml", {}).config
    text = to_yaml(config, "a\nb", [Problem("f", 1, "p", "x\r\ny\x00z\u2028w")])
    assert text.splitlines()[:2] == ["# converted from a b", "# f:1: p: x  y z w"]
