"""The wire table: the same bytes sent to a Redis and through a sidecar get the same bytes back."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from support import configs
from support.compare import assert_equal
from support.redis_server import RedisServer
from support.wire import Arg, Conn, children, encode
from support.workers import conn_on, with_workers
from wire.cases import CASES, MASKS, REFUSED_EVERYWHERE, REFUSED_MIRRORED, Case

RUNS = [pytest.param(case, protocol, id=f"{case.name}-resp{protocol}") for case in CASES for protocol in case.protocols]


@dataclass
class Side:
    """One way to reach a Redis, and the servers that hold what is written that way."""

    name: str
    connect: Callable[[], Conn]
    servers: list[RedisServer]

    def wipe(self) -> None:
        """Empty its servers."""
        for server in self.servers:
            server.wipe()


@pytest.fixture(scope="module")
def direct(module_redis_server) -> Side:
    """Redis itself: what it answers is right."""
    server = module_redis_server()
    return Side("direct", server.conn, [server])


@pytest.fixture(scope="module", params=["direct-again", "pass-through", "mirrored", "mirrored-worker-1"])
def side(request: pytest.FixtureRequest, module_redis_server) -> Iterator[Side]:
    """A second Redis (which proves that a case is deterministic), or a sidecar."""
    server = module_redis_server()
    if request.param == "direct-again":
        yield Side(request.param, server.conn, [server])
        return
    start = request.getfixturevalue("module_sidecar")
    if request.param == "pass-through":
        proxy = start(configs.pass_through(server.address))
        yield Side(request.param, proxy.conn, [server])
    else:
        mirror = module_redis_server()
        config = configs.mirrored(server.address, mirror.address)
        if request.param == "mirrored":
            yield Side(request.param, start(config).conn, [server, mirror])
            return
        # By way of the worker that gives the writes their order, from another one.
        proxy = start(with_workers(config, 2))
        yield Side("mirrored", lambda: conn_on(proxy, 1, 2), [server, mirror])


def converse(side: Side, case: Case, protocol: int, stepwise: bool) -> list[bytes]:
    """Run one case on a connection of its own and return its replies, masked."""
    side.wipe()
    with side.connect() as conn:
        if protocol == 3:
            conn.command("HELLO", 3)
        if stepwise:
            replies = []
            for request in case.requests:
                conn.send(request)
                replies += conn.replies(1)
        else:
            conn.send(b"".join(case.requests))
            replies = conn.replies(case.replies)
        # Nothing more came than the replies, and the connection still works.
        assert conn.command("PING", "still here") == b"$10\r\nstill here\r\n"
    return [mask(reply, case) for reply in replies]


def mask(reply: bytes, case: Case) -> bytes:
    """The reply without what may differ from run to run."""
    for name in case.mask:
        reply = MASKS[name].sub(b"<" + name.encode() + b">\r\n", reply)
    if case.sort:
        head, elements = children(reply)
        reply = head + b"".join(sorted(elements))
    return reply


def explain(case: Case, expected: list[bytes], actual: list[bytes]) -> str:
    """The first request whose reply differs."""
    for number, (want, got) in enumerate(zip(expected, actual, strict=True)):
        if want != got:
            request = case.requests[number] if len(case.requests) == case.replies else b"".join(case.requests)
            return f"reply {number + 1} to {request[:200]!r}: expected {want[:400]!r}, got {got[:400]!r}"
    return "equal"


@pytest.mark.parametrize(("case", "protocol"), RUNS)
def test_same_bytes(direct: Side, side: Side, case: Case, protocol: int) -> None:
    """Pipelined in one write: reply by reply the same; and what was mirrored is the same."""
    if side.name == "mirrored" and not case.mirrored:
        pytest.skip("refused in mirrored modes, see test_refused")
    expected = converse(direct, case, protocol, stepwise=False)
    actual = converse(side, case, protocol, stepwise=False)
    assert actual == expected, explain(case, expected, actual)
    if len(side.servers) == 2:
        assert_equal(side.servers[0], side.servers[1])


def test_same_bytes_one_at_a_time(direct: Side, side: Side) -> None:
    """The whole table again, each command sent after the reply of the one before."""
    wrong = []
    for case in CASES:
        if len(case.requests) != case.replies or len(case.requests) > 200 or 2 not in case.protocols:
            continue
        if side.name == "mirrored" and not case.mirrored:
            continue
        expected = converse(direct, case, 2, stepwise=True)
        actual = converse(side, case, 2, stepwise=True)
        if actual != expected:
            wrong.append(f"{case.name}: {explain(case, expected, actual)}")
    assert not wrong, "\n".join(wrong)


def test_table_is_wide_enough() -> None:
    """The table has what was asked of it, and no name twice."""
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))
    assert sum(len(case.requests) for case in CASES if not case.name.startswith(("large", "pipeline"))) > 800


def test_databases_interleaved_on_two_connections(direct: Side, side: Side) -> None:
    """Each connection has a database of its own, whatever the other one selects meanwhile."""
    script: list[tuple[int, tuple[Arg, ...]]] = []
    for step in range(64):
        who = step % 2
        script.append((who, ("SELECT", (step // 2 + who) % 4)))
        script.append((1 - who, ("INCR", "n")))
        script.append((who, ("APPEND", "log", f"{who}:{step} ")))
        script.append((1 - who, ("GET", "log")))
    _same_script(direct, side, (2, 2), script)


def test_protocols_interleaved_on_one_endpoint(direct: Side, side: Side) -> None:
    """A RESP2 and a RESP3 client share the endpoint; each is answered in its own protocol."""
    both: list[tuple[Arg, ...]] = [
        ("HSET", "h", "f", "v"),
        ("HGETALL", "h"),
        ("ZADD", "z", 1.5, "m"),
        ("ZSCORE", "z", "m"),
        ("ZRANGE", "z", 0, -1, "WITHSCORES"),
        ("SADD", "s", 1, 2),
        ("SMEMBERS", "s"),
        ("GET", "none"),
        ("LPOP", "none"),
        ("CONFIG", "GET", "maxmemory"),
        ("EVAL", "redis.setresp(3); return redis.call('hgetall', KEYS[1])", 1, "h"),
        ("MULTI",),
        ("HGETALL", "h"),
        ("GET", "none"),
        ("EXEC",),
        ("XADD", "x", "1-*", "f", "v"),
        ("XREAD", "COUNT", 1, "STREAMS", "x", 0),
        ("SMISMEMBER", "s", 1, 9),
        ("SET", "k", "v", "NX"),
    ]
    script = [(who, command) for _ in range(5) for command in both for who in (0, 1)]
    _same_script(direct, side, (2, 3), script)


def _same_script(
    direct: Side, side: Side, protocols: tuple[int, int], script: list[tuple[int, tuple[Arg, ...]]]
) -> None:
    """Run (connection, command) steps one after the other on both sides and compare each reply."""
    replies: list[list[bytes]] = []
    for place in (direct, side):
        place.wipe()
        with place.connect() as first, place.connect() as second:
            conns = (first, second)
            for conn, protocol in zip(conns, protocols, strict=True):
                if protocol == 3:
                    conn.command("HELLO", 3)
            replies.append([conns[who].command(*command) for who, command in script])
    for step, want, got in zip(script, *replies, strict=True):
        assert got == want, step
    if len(side.servers) == 2:
        assert_equal(side.servers[0], side.servers[1])


def test_hello_replies(direct: Side, side: Side) -> None:
    """HELLO tells the same server, version and modules; the id is the connection's own."""
    import re

    def hello(place: Side, *args: Arg) -> bytes:
        with place.connect() as conn:
            return re.sub(rb"(\$2\r\nid\r\n:)\d+", rb"\1<id>", conn.command("HELLO", *args))

    for args in ((), (2,), (3,), (3, "SETNAME", "me"), (2, "SETNAME", "me")):
        assert hello(side, *args) == hello(direct, *args), args


def test_quit_answers_and_closes(direct: Side, side: Side) -> None:
    """QUIT: what came before is answered, then OK, then the end."""
    seen = []
    for place in (direct, side):
        with place.connect() as conn:
            conn.send(encode("PING") + encode("ECHO", "x") + encode("QUIT"))
            seen.append(conn.until_closed())
    assert seen[1] == seen[0] == b"+PONG\r\n$1\r\nx\r\n+OK\r\n"


def test_client_name_is_the_sessions_own(direct: Side, side: Side) -> None:
    """Two clients on a shared upstream connection do not see each other's name, nor each other's id."""
    for place in (direct, side):
        with place.connect() as first, place.connect() as second:
            assert first.command("CLIENT", "SETNAME", "one") == b"+OK\r\n"
            assert second.command("CLIENT", "SETNAME", "two") == b"+OK\r\n"
            assert first.command("CLIENT", "GETNAME") == b"$3\r\none\r\n"
            assert second.command("CLIENT", "GETNAME") == b"$3\r\ntwo\r\n"
            assert first.command("CLIENT", "ID") != second.command("CLIENT", "ID")


def test_redis_py_handshake(direct: Side, side: Side) -> None:
    """What redis-py sends on connecting, in one write, gets as many replies as commands and no surprise after."""
    commands: list[tuple[Arg, ...]] = [
        ("HELLO", 3),
        ("CLIENT", "SETINFO", "LIB-NAME", "redis-py"),
        ("CLIENT", "SETINFO", "LIB-VER", "8"),
        ("SELECT", 1),
        ("PING",),
    ]
    for place in (direct, side):
        with place.connect() as conn:
            replies = conn.pipeline(*commands)
            assert replies[0][:1] == b"%"
            assert replies[3:] == [b"+OK\r\n", b"+PONG\r\n"]


@pytest.mark.parametrize("command", REFUSED_EVERYWHERE + REFUSED_MIRRORED, ids=lambda c: b"-".join(c[:2]).decode())
def test_refused(side: Side, command: tuple[bytes, ...]) -> None:
    """What this version cannot do gets a clear error, in order, and the connection goes on."""
    if side.name == "direct-again":
        pytest.skip("a Redis does these")
    if command in REFUSED_MIRRORED and side.name != "mirrored":
        pytest.skip("refused only where writes are mirrored")
    side.wipe()
    with side.connect() as conn:
        conn.send(encode("SET", "k", "before") + encode(*command) + encode("GET", "k"))
        before, refusal, after = conn.replies(3)
        assert before == b"+OK\r\n"
        assert refusal.startswith(b"-ERR "), refusal
        assert command[0].lower() in refusal.lower(), f"the error does not name the command: {refusal!r}"
        assert after == b"$6\r\nbefore\r\n"
        assert conn.command("PING") == b"+PONG\r\n"


def test_client_lines_have_redis_fields(direct: Side, side: Side) -> None:
    """The fields of Redis 7.0 in their order, then those of later versions; and what can be known is right."""
    seen = []
    for place in (direct, side):
        with place.connect() as conn:
            assert conn.command("CLIENT", "SETNAME", "me") == b"+OK\r\n"
            assert conn.command("SELECT", 2) == b"+OK\r\n"
            line = conn.command("CLIENT", "INFO").split(b"\r\n")[1].decode()
            fields = dict(field.split("=", 1) for field in line.split())
            host, port = conn.socket.getsockname()[:2]
            assert fields["addr"] == f"{host}:{port}"
            assert fields["laddr"] == "{}:{}".format(*conn.socket.getpeername()[:2])
            same = ("name", "db", "flags", "multi", "cmd", "user", "redir", "resp", "events", "sub", "argv-mem")
            seen.append((list(fields), {name: fields[name] for name in same}))
    (names, values), (own_names, own_values) = seen
    assert own_names[: len(names)] == names
    assert own_names[len(names) :] in ([], ["lib-name", "lib-ver"])
    assert own_values == values


def test_client_kill(direct: Side, side: Side) -> None:
    """By id, by address, by both, and all but oneself: the same counts, and the right ones are gone."""
    for place in (direct, side):
        with place.connect() as killer, place.connect() as one, place.connect() as two, place.connect() as three:
            id_one = int(one.command("CLIENT", "ID")[1:])
            address = "{}:{}".format(*two.socket.getsockname()[:2])
            assert killer.command("CLIENT", "KILL", "ID", id_one, "ADDR", address) == b":0\r\n"
            assert killer.command("CLIENT", "KILL", "ID", id_one, "TYPE", "pubsub") == b":0\r\n"
            assert killer.command("CLIENT", "KILL", "TYPE", "normal", "ID", id_one) == b":1\r\n"
            assert one.until_closed() == b""
            assert killer.command("CLIENT", "KILL", address) == b"+OK\r\n"
            assert two.until_closed() == b""
            assert killer.command("CLIENT", "KILL", address) == b"-ERR No such client\r\n"
            me = int(killer.command("CLIENT", "ID")[1:])
            assert killer.command("CLIENT", "KILL", "ID", me) == b":0\r\n"
            assert int(killer.command("CLIENT", "KILL", "USER", "default", "SKIPME", "yes")[1:]) >= 1
            assert three.until_closed() == b""
            killer.send(encode("CLIENT", "KILL", "ID", me, "SKIPME", "no") + encode("PING"))
            assert killer.until_closed() == b":1\r\n"


def test_client_kill_inside_multi(side: Side) -> None:
    """Who kills itself in a transaction is given EXEC's reply and closed; Redis itself writes no more of it."""
    side.wipe()
    with side.connect() as conn:
        address = "{}:{}".format(*conn.socket.getsockname()[:2])
        requests = (("MULTI",), ("INCR", "n"), ("CLIENT", "KILL", address), ("INCR", "n"), ("EXEC",), ("PING",))
        conn.send(b"".join(encode(*request) for request in requests))
        replies = conn.until_closed().partition(b"*3\r\n")[2]
        assert replies == b":1\r\n+OK\r\n" + (b"" if side.name == "direct-again" else b":2\r\n")


BEFORE_LOGIN: dict[str, tuple[tuple[Arg, ...], ...]] = {
    "anything": (("PING",), ("GET", "k"), ("COMMAND",), ("CLIENT", "ID"), ("MULTI",), ("SELECT", 0), ("READONLY",)),
    "wrong": (("NOSUCH", "a"), ("GET",), ("CLIENT",), ("CLIENT", "BOGUS"), ("CLIENT", "GETNAME", "x"), ("EXEC", "x")),
    "transaction": (("EXEC",), ("DISCARD",), ("MULTI", "x")),
    "reset": (("RESET", "x"), ("RESET",), ("PING",)),
    "auth": (("AUTH",), ("AUTH", "bad"), ("AUTH", "default", "bad"), ("AUTH", "a", "b", "c"), ("AUTH", "secret")),
    "hello": (("HELLO",), ("HELLO", 3), ("HELLO", 9), ("HELLO", "x"), ("HELLO", 2, "AUTH", "default", "bad")),
    "hello-name": (("HELLO", 2, "SETNAME", "me"), ("AUTH", "secret"), ("CLIENT", "GETNAME")),
    "hello-order": (
        ("HELLO", 2, "SETNAME", "one", "AUTH", "default", "bad"),
        ("HELLO", 2, "AUTH", "default", "secret", "BOGUS"),
        ("PING",),
        ("CLIENT", "GETNAME"),
    ),
    "multi": (
        ("AUTH", "default", "secret"),
        ("MULTI",),
        ("AUTH", "bad"),
        ("HELLO", 2, "AUTH", "default", "bad"),
        ("AUTH", "secret"),
        ("SET", "k", "v"),
        ("EXEC",),
        ("GET", "k"),
        ("RESET",),
        ("GET", "k"),
    ),
    "quit": (("AUTH", "secret"), ("PING",)),
}


@pytest.fixture(scope="module")
def locked(module_redis_server, module_sidecar) -> tuple[Side, Side]:
    """A Redis with a password, and a sidecar with the same one in front of another Redis."""
    guarded, open_one = module_redis_server(), module_redis_server()
    guarded.cli("CONFIG", "SET", "requirepass", "secret")
    config = configs.pass_through(open_one.address)
    config["listeners"][0]["auth"] = {"passwords": ["secret"]}
    proxy = module_sidecar(config)
    return Side("direct", guarded.conn, []), Side("pass-through", proxy.conn, [open_one])


@pytest.mark.parametrize("commands", BEFORE_LOGIN.values(), ids=BEFORE_LOGIN.keys())
def test_before_login(locked: tuple[Side, Side], commands: tuple[tuple[Arg, ...], ...]) -> None:
    """Who has not logged in is told the same things in the same order."""
    seen = []
    for place in locked:
        with place.connect() as conn:
            seen.append(conn.pipeline(*commands))
    assert seen[1] == seen[0]
