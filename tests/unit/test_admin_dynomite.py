"""Dynomite's REST over real HTTP, with a view that shows what a test wants."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Literal

import pytest

from redisha import __version__
from redisha.admin import dynomite
from redisha.admin.app import AdminServer
from redisha.admin.dynomite import DynomiteApi, UnsupportedError, state
from redisha.admin.dynomite_documents import POOL, SERVER, TOP
from redisha.config.load import parse
from redisha.errors import ListenError
from redisha.group.status import Data, GroupStatus, MemberStatus, PeerStatus, Position, Role

FILE = """
dynomite_stats:
  bind: 127.0.0.1:0
  datacenter: dc1
  rack: rack1
  token: 7
  nodes:
    - {peer: redis-002:8101, datacenter: dc1, rack: rack2, token: 7}
    - {peer: "[fd00::3]:8101", datacenter: dc2, rack: rack1, token: 7}
listeners: [{bind: 127.0.0.1:8102, group: cache}]
group:
  name: cache
  listen: 0.0.0.0:8101
  redis: 127.0.0.1:6379
  peers: [redis-002:8101, "[fd00::3]:8101", others:8101]
"""

ALONE = """
listeners: [{bind: 127.0.0.1:8102, catch_all: cache}]
clusters: {cache: {endpoints: [redis:6379]}}
"""

ME = MemberStatus("dc1-rack1-7", 3, "dc1-rack1-7", Role.LEADER, Data.COMPLETE, "x", Position(1, 5), in_sync=True)


def peer(name: str, member: str, **fields: Any) -> PeerStatus:
    return PeerStatus(name, fields.pop("up", True), 10, "", MemberStatus(member), **fields)


GROUP = GroupStatus(
    "cache",
    ME,
    (
        peer("redis-002:8101", "dc1-rack2-7", lag=2, lag_bytes=200),
        peer("[fd00::3]:8101", "dc2-rack1-7", lag=3, lag_bytes=300),
        peer("others:8101/10.0.0.9", "dc3-x-7", up=False),
        peer("others:8101/10.0.0.1", ME.member),  # this one, by the common name
    ),
)


class View:
    """What a test wants to be seen; keeps what was asked of it."""

    def __init__(self) -> None:
        self.status = GROUP
        self.levels = {"read": "DC_ONE", "write": "DC_SAFE_QUORUM"}
        self.asked: list[tuple[str, str]] = []

    def group(self) -> GroupStatus:
        return self.status

    def consistency(self) -> tuple[str, str]:
        return self.levels["read"], self.levels["write"]

    def set_consistency(self, which: Literal["read", "write"], level: str) -> None:
        self.levels[which] = level

    def request_counters(self) -> dict[str, int]:
        return {
            "client_read_requests": 11,
            "read_requests": 9,
            "latency_99th": 250,
            "unheard_of": 1,
            "peer_in_queue": 8,
        }

    def set_state(self, state: str) -> None:
        self.asked.append(("state", state))
        raise UnsupportedError(dynomite.NO_STATE)

    def peer(self, verb: str, name: str) -> None:
        self.asked.append((verb, name))
        raise UnsupportedError(dynomite.NO_PEER)

    def uptime(self) -> int:
        return 42


class Client:
    """Says HTTP to a server that shows a view."""

    def __init__(self, view: View, address: str) -> None:
        self.view = view
        self.address = address

    async def ask(self, path: str, method: str = "GET") -> tuple[int, str, str]:
        """Status, content type, body."""
        host, _, port = self.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        lines = head.split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:])
        assert int(headers["content-length"]) == len(body) or method == "HEAD"
        return int(lines[0].split()[1]), headers["content-type"], body

    async def body(self, path: str) -> str:
        """The body of an answer that is as Dynomite's."""
        status, kind, body = await self.ask(path)
        assert (status, kind) == (200, "application/json; charset=utf-8")
        return body


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    view = View()
    config = parse(FILE, "f.yaml", {}).config
    server = AdminServer(DynomiteApi(view, lambda: config, "redis-001"), dynomite.NAME, dynomite.HINT)
    assert config.dynomite_stats is not None
    yield Client(view, await server.start(config.dynomite_stats.bind))
    await server.close()


async def test_info(client: Client) -> None:
    found = json.loads(await client.body("/info"))
    assert {key: found[key] for key in ("service", "source", "version", "uptime", "rack", "dc")} == {
        "service": "dynomite",
        "source": "redis-001",
        "version": __version__,
        "uptime": 42,
        "rack": "rack1",
        "dc": "dc1",
    }
    assert found["timestamp"] > 1_700_000_000
    assert set(TOP.split()) <= found.keys()
    assert (found["latency_99th"], found["latency_max"]) == (250, 0)
    assert found["dyn_memory"] > 1000
    pool = found["cache"]
    server = pool.pop("127.0.0.1:6379")
    assert pool.keys() == set(POOL.split())
    assert server.keys() == set(SERVER.split())
    assert (pool["client_read_requests"], pool["client_write_requests"], server["read_requests"]) == (11, 0, 9)
    assert (pool["peer_connections"], pool["peer_in_queue"], pool["peer_in_queue_bytes"]) == (2, 8, 200)
    assert (pool["remote_peer_in_queue"], pool["remote_peer_in_queue_bytes"]) == (3, 300)
    assert "unheard_of" not in json.dumps(found)
    assert json.loads(await client.body("/")).keys() == found.keys()


async def test_cluster_describe(client: Client) -> None:
    assert json.loads(await client.body("/cluster_describe")) == {
        "dcs": [
            {
                "name": "dc1",
                "racks": [
                    {
                        "name": "rack1",
                        "servers": [{"name": "redis-001", "host": "redis-001", "port": 8101, "token": 7}],
                    },
                    {
                        "name": "rack2",
                        "servers": [{"name": "redis-002", "host": "redis-002", "port": 8101, "token": 7}],
                    },
                    {
                        "name": "dc3-x-7",
                        "servers": [{"name": "10.0.0.9", "host": "others", "port": 8101, "token": 7}],
                    },
                ],
            },
            {
                "name": "dc2",
                "racks": [
                    {"name": "rack1", "servers": [{"name": "fd00::3", "host": "fd00::3", "port": 8101, "token": 7}]}
                ],
            },
        ]
    }


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/ping", "OK\r\n"),
        ("/get_timeout_factor", "Timeout factor: 1\n"),
        ("/get_consistency", "Read Consistency: DC_ONE\r\nWrite Consistency: DC_SAFE_QUORUM\r\n"),
        ("/state/get_state", "State: NORMAL\n"),
        ("/state/normal", "OK\r\n"),
        ("/state/asleep", "OK\r\n"),
        ("/state", "OK\r\n"),
        ("/peer/kick/all", "OK\r\n"),
        ("/nonsense", "OK\r\n"),
        ("/info/more", "OK\r\n"),
        ("/set_consistency/write", "OK\r\n"),
        ("/set_consistency/both/dc_one", "OK\r\n"),
        ("/set_consistency/write/dc_two", "OK\r\n"),
        ("/set_consistency/write/dc_each_safe_quorum", "OK\r\n"),
    ],
)
async def test_answers_that_change_nothing(client: Client, path: str, body: str) -> None:
    before = dict(client.view.levels)
    assert await client.body(path) == body
    assert client.view.asked == []
    assert client.view.levels == before


async def test_help_names_every_path(client: Client) -> None:
    assert [line.split("/")[1] for line in (await client.body("/help")).split()] == [
        "info",
        "help",
        "ping",
        "cluster_describe",
        "get_consistency",
        "set_consistency",
        "get_timeout_factor",
        "peer",
        "state",
    ]


async def test_set_consistency(client: Client) -> None:
    assert await client.body("/set_consistency/read/dc_quorum") == "OK\r\n"
    assert await client.body("/set_consistency/write/DC_ONE") == "OK\r\n"
    assert await client.body("/get_consistency") == "Read Consistency: DC_QUORUM\r\nWrite Consistency: DC_ONE\r\n"


@pytest.mark.parametrize(
    ("path", "asked", "why"),
    [
        ("/state/standby", ("state", "standby"), dynomite.NO_STATE),
        ("/state/writes_only", ("state", "writes_only"), dynomite.NO_STATE),
        ("/state/resuming", ("state", "resuming"), dynomite.NO_STATE),
        ("/peer/down/redis-002:8101", ("down", "redis-002:8101"), dynomite.NO_PEER),
        ("/peer/reset/all", ("reset", "all"), dynomite.NO_PEER),
        ("/peer/up", ("up", ""), dynomite.NO_PEER),
    ],
)
async def test_what_cannot_be_ordered(client: Client, path: str, asked: tuple[str, str], why: str) -> None:
    status, kind, body = await client.ask(path)
    assert (status, kind) == (501, "text/plain; charset=utf-8")
    assert body == f"not supported: {why}\n"
    assert client.view.asked == [asked]


@pytest.mark.parametrize(
    ("me", "expected"),
    [
        (ME, "NORMAL"),
        (replace(ME, role=Role.FOLLOWER), "NORMAL"),
        (replace(ME, role=Role.NONE), "STANDBY"),
        (replace(ME, in_sync=False), "STANDBY"),
    ],
)
async def test_state(client: Client, me: MemberStatus, expected: str) -> None:
    client.view.status = replace(GROUP, me=me)
    assert state(client.view.status) == expected
    assert await client.body("/state/get_state") == f"State: {expected}\n"
    status, _, _ = await client.ask("/state/normal")
    assert status == (200 if expected == "NORMAL" else 501)


async def test_only_get(client: Client) -> None:
    status, _, body = await client.ask("/set_consistency/write/dc_one", "POST")
    assert (status, body) == (405, "GET is all that is taken here\n")
    assert client.view.levels["write"] == "DC_SAFE_QUORUM"
    assert await client.ask("/ping", "HEAD") == (200, "application/json; charset=utf-8", "")


async def test_without_a_group() -> None:
    view = View()
    view.status = GroupStatus("cache", ME, ())
    config = parse(ALONE, "f.yaml", {}).config
    server = AdminServer(DynomiteApi(view, lambda: config, os.uname().nodename))
    client = Client(view, await server.start("127.0.0.1:0"))
    found = json.loads(await client.body("/info"))
    assert (found["dc"], found["rack"]) == ("localdc", "localrack")
    assert found["cache"]["redis:6379"]["read_requests"] == 9
    (center,) = json.loads(await client.body("/cluster_describe"))["dcs"]
    assert len(center["racks"]) == 1
    await server.close()


async def test_an_address_that_is_taken(client: Client) -> None:
    server = AdminServer(lambda request: pytest.fail("never asked"), dynomite.NAME, dynomite.HINT)
    with pytest.raises(ListenError, match=r"Dynomite's REST: cannot bind .*: .*; choose another address \(dynomite_s"):
        await server.start(client.address)
