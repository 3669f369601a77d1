"""docs/compatibility.md is true: every command is executed where the page says, and has the effect that it names.

Where a command was executed is told by the servers' own statistics (``INFO commandstats``) and lists of clients.
"""

import importlib.util
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support import configs, wait
from support.group_stage import Groups
from support.redis_server import RedisServer
from support.wire import Conn, encode

TOOL = Path(__file__).parents[2] / "tools" / "compatibility.py"


def load_tool() -> Any:
    spec = importlib.util.spec_from_file_location("compatibility", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["compatibility"] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


tool = load_tool()
ROWS: dict[str, Any] = {name: row for row in tool.rows() for name in row.names}
ARITY: dict[str, int] = {each["name"]: each["arity"] for each in tool.json.loads(tool._core.command_table())}

# What must not be tried with ones as arguments.
ARGUMENTS = {
    "shutdown": ["x"], "failover": ["ABORT"], "replicaof": ["NO", "ONE"], "slaveof": ["NO", "ONE"],
    "blmove": ["absent", "absent", "LEFT", "LEFT", "0"], "blmpop": ["0", "1", "absent", "LEFT"],
    "blpop": ["absent", "0"], "brpop": ["absent", "0"], "brpoplpush": ["absent", "absent", "0"],
    "bzmpop": ["0", "1", "absent", "MIN"], "bzpopmax": ["absent", "0"], "bzpopmin": ["absent", "0"],
    "xread": ["STREAMS", "absent", "0"], "xreadgroup": ["GROUP", "g", "c", "STREAMS", "absent", ">"],
    "bgrewriteaof": [], "scan": ["0"], "wait": ["0", "1"],
}  # fmt: skip
FIRST = {"exec": [["MULTI"], ["GET", "absent"]]}
# What is sent in their place where writes have effects elsewhere: their time is relative.
ABSOLUTE = {"expire": "pexpireat", "pexpire": "pexpireat", "setex": "set", "psetex": "set"}
SKIPPED = {
    "unsubscribe", "punsubscribe", "sunsubscribe",  # answered at once by redisha where nothing is subscribed
}  # fmt: skip


@dataclass
class Way:
    """A sidecar, its own Redis, and the server that has the writes' effects (or gives the orders)."""

    column: str
    port: int
    own: RedisServer
    leader: RedisServer


@pytest.fixture(scope="module", params=["plain", "mirrored", "leader", "follower"])
def way(request: pytest.FixtureRequest, module_redis_server: Callable[..., RedisServer], module_sidecar: Any) -> Way:
    """A sidecar in each of the four places."""
    if request.param == "plain":
        server = module_redis_server()
        return Way("plain", module_sidecar(configs.pass_through(server.address)).port, server, server)
    if request.param == "mirrored":
        server, mirror = module_redis_server(), module_redis_server()
        return Way("mirrored", module_sidecar(configs.mirrored(server.address, mirror.address)).port, server, server)
    leader, follower = Groups(module_redis_server, module_sidecar)().pair()
    me = leader if request.param == "leader" else follower
    return Way(request.param, me.proxy.port, me.redis, leader.redis)


def executed(server: RedisServer) -> Counter[str]:
    """How often a server was given each command."""
    with server.client() as client:
        stats = client.info("commandstats")
    return Counter(
        {name.removeprefix("cmdstat_"): each["calls"] + each["rejected_calls"] for name, each in stats.items()}
    )


def running(server: RedisServer) -> set[str]:
    """The last command of each client of a server."""
    with server.client() as client:
        return {each["cmd"] for each in client.client_list()}


def words(name: str) -> list[str]:
    """The command with arguments that it has at least."""
    given = name.split("|")
    if name in ARGUMENTS:
        return given + ARGUMENTS[name]
    return given + ["1"] * (abs(ARITY[name]) - len(given))


def wrong(way: Way, name: str, claim: str) -> str:
    """What does not fit the claim; empty if all does."""
    server = way.leader if "leader" in claim else way.own
    with Conn(way.port, timeout=10) as conn:
        for before in FIRST.get(name, []):
            conn.command(*before)
        counts = executed(server)
        conn.send(encode(*words(name)))
        if claim.startswith("own connection"):
            wait.until(lambda: name in running(server), f"{name} runs there on a connection of its own")
            return ""
        if claim.startswith("in line"):
            stand_ins = [word.strip("`").lower() for word in tool.LINED[name].split(" or ")]
            tried = lambda: executed(server) - counts  # noqa: E731
            wait.until(lambda: any(tried()[word] for word in stand_ins), f"{stand_ins} is tried for {name}")
            return "it was sent itself" if tried()[name] else ""
        [reply] = conn.replies(1)
    sent = name if way.column == "plain" else ABSOLUTE.get(name, name)
    ran = (executed(server) - counts)[sent] - (name == "info")  # which was how it was asked
    if claim == "refused":
        return "" if b"refused" in reply and reply.startswith(b"-ERR") and not ran else repr(reply)
    if claim == "an error":
        return "" if reply.startswith(b"-ERR") and not ran else repr(reply)
    return "" if bool(ran) == (claim != "here") else f"executed {ran} times, {reply[:80]!r}"


@pytest.mark.timeout(240)
def test_every_command_is_executed_where_the_page_says(way: Way) -> None:
    found = {}
    for name, row in ROWS.items():
        claim = getattr(row, way.column).partition(";")[0]
        if name in SKIPPED or (name == "wait" and way.column == "follower"):
            continue
        # redisha asks servers PING, SELECT and the like by itself: what it does not do each time is not the client's.
        # And a follower that has something to catch up with has reads done by the leader until then.
        patience = {"here": 1.0, "read": 15.0}.get(claim, 0.0)
        deadline = time.monotonic() + patience
        while complaint := wrong(way, name, claim):
            if time.monotonic() > deadline:
                found[name] = (claim, complaint)
                break
    assert found == {}


def test_reads_that_block(way: Way) -> None:
    claims = [getattr(ROWS[name], way.column).partition("`BLOCK`: ")[2] for name in ("xread", "xreadgroup")]
    with Conn(way.port, timeout=10) as conn:
        conn.command("XGROUP", "CREATE", "stream", "g", "$", "MKSTREAM")
        for name, claim in zip(("xread", "xreadgroup"), claims, strict=True):
            server = way.leader if "leader" in claim else way.own
            group = ["GROUP", "g", "c"] if name == "xreadgroup" else []
            with Conn(way.port, timeout=10) as blocked:
                counts = executed(server)
                blocked.send(encode(name, *group, "BLOCK", "0", "STREAMS", "stream", ">" if group else "$"))
                if claim.startswith("own"):
                    wait.until(lambda name=name, server=server: name in running(server), f"{name} blocks there")  # type: ignore[misc]
                else:
                    wait.until(lambda s=server, c=counts: (executed(s) - c)["xreadgroup"], "it is tried")  # type: ignore[misc]
                    assert server.client().info("clients")["blocked_clients"] == 0


STREAM = ["XGROUP CREATE x g $ MKSTREAM", "XADD x 7-1 f v"]
# Commands, and what is executed at the mirror for the last of them.
EFFECTS: list[tuple[str, list[str], set[str]]] = [
    ("None", ["SET k v", "GET k"], set()),
    ("Always", ["INCR n"], {"incr"}),
    ("Always", ["PUBLISH c m"], {"publish"}),
    ("Changed", ["RPUSH l a", "LPOP l"], {"lpop"}),
    ("Changed", ["LPOP l"], set()),
    ("Unconditional", ["SETNX k v"], {"set"}),
    ("Unconditional", ["SET k v", "SETNX k v"], set()),
    ("Replace", ["SET k v", "COPY k k2"], {"copy"}),
    ("Set", ["SET k v EX 100 NX"], {"set"}),
    ("Set", ["SET k v XX"], set()),
    ("SetEx", ["SETEX k 100 v"], {"set"}),
    ("GetEx", ["SET k v", "GETEX k EX 100"], {"pexpireat"}),
    ("GetEx", ["SET k v EX 100", "GETEX k PERSIST"], {"persist"}),
    ("Expire", ["SET k v", "EXPIRE k 100 NX"], {"pexpireat"}),
    ("GetDel", ["SET k v", "GETDEL k"], {"del"}),
    ("Pop", ["SADD s a b", "SPOP s"], {"srem"}),
    ("Float", ["INCRBYFLOAT k 1.5"], {"set"}),
    ("HashFloat", ["HINCRBYFLOAT h f 1.5"], {"hset"}),
    ("ZAdd", ["ZADD z 1 m"], {"zadd"}),
    ("BitField", ["BITFIELD k SET u8 0 1"], {"bitfield"}),
    ("BitField", ["BITFIELD k GET u8 0"], set()),
    ("Sort", ["RPUSH l 2 1", "SORT l STORE d"], {"sort"}),
    ("Sort", ["RPUSH l 2 1", "SORT l BY w_* STORE d"], {"restore"}),
    ("Sort", ["RPUSH l 2 1", "SORT l"], set()),
    ("GeoRadius", ["GEOADD g 13 38 m", "GEORADIUS g 13 38 1 km STORE d"], {"georadius"}),
    ("XAdd", ["XADD x * f v"], {"xadd"}),
    ("XAdd", ["XADD x MAXLEN ~ 5 * f v"], {"restore"}),
    ("XTrim", ["XADD x * f v", "XTRIM x MAXLEN 0"], {"xtrim"}),
    ("CopyKeys", [*STREAM, "XCLAIM x g c 0 7-1"], {"restore"}),
    ("CopyChanged", [*STREAM, "XREADGROUP GROUP g c STREAMS x >"], {"restore"}),
    ("CopyChanged", ["RPUSH l a", "BLPOP l 0"], {"lpop"}),
    ("CopyChanged", ["ZADD z 1 m", "BZPOPMIN z z2 0"], {"zmpop"}),
    ("Script", ["EVAL return(redis.call('SET',KEYS[1],'v')) 1 k"], {"restore"}),
    ("Script", ["EVAL return(redis.call('SET','k','v')) 0"], set()),
]  # fmt: skip
UPKEEP = {
    "ping", "select", "info", "client|setinfo", "client|kill", "client|setname", "client|list", "hello", "multi",
    "exec", "setbit", "getbit", "function|list", "function|load", "config|get", "command", "time", "client|id",
    "pexpiretime",
}  # fmt: skip


def test_effects_at_a_mirror(redis_server: Any, sidecar: Any) -> None:
    primary, mirror = redis_server(), redis_server()
    proxy = sidecar(configs.mirrored(primary.address, mirror.address))
    wait.until(lambda: proxy.stats()["replicas"][0]["state"] == "in_sync", "the mirror is in sync")
    assert {each[0] for each in EFFECTS} == set(tool.EFFECTS) - {"Restore"}
    found = []
    with Conn(proxy.port, timeout=10) as conn, mirror.client() as there:

        def arrived() -> None:
            marks.update(sent=1)
            conn.command("SETBIT", "mark", marks["sent"], 1)
            wait.until(lambda: there.getbit("mark", marks["sent"]) == 1, "all before has arrived")

        marks: Counter[str] = Counter()
        for effect, commands, expected in EFFECTS:
            conn.command("FLUSHALL")
            for command in commands[:-1]:
                conn.command(*command.split())
            arrived()
            before = executed(mirror)
            reply = conn.command(*commands[-1].split())
            arrived()
            ran = set(executed(mirror) - before) - UPKEEP
            if ran != expected or reply.startswith(b"-"):
                found.append((effect, commands, ran, reply))
    assert found == []
