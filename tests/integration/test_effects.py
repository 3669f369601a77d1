"""Every command that writes: after any sequence of them through a mirrored route, both servers are equal."""

import contextlib
import json
from collections.abc import Callable, Iterator

import pytest

from redisha import _core
from support import configs, grammar
from support.equality import assert_same
from support.grammar import ELSEWHERE, NAMES, Grammar
from support.redis_server import RedisServer
from support.sidecar import Sidecar
from support.wire import Conn, encode

ROUNDS, BATCH, CONNECTIONS = 60, 40, 3


def test_every_command_that_writes_has_a_line() -> None:
    """A new command of the table is not forgotten here."""
    table = json.loads(_core.command_table())
    writes = {row["name"] for row in table if row["effect"] != "None"}
    assert writes - NAMES == set(ELSEWHERE)
    assert not NAMES - writes


@pytest.mark.parametrize("seed", range(4))
def test_random_sequences(redis_server: Callable[..., RedisServer], sidecar: Callable[..., Sidecar], seed: int) -> None:
    primary, mirror = redis_server(), redis_server()
    proxy = sidecar(configs.mirrored(primary.address, mirror.address))
    for kind, *rest in (("SET", "d", "v"), ("RPUSH", "d", 1, 2), ("SADD", "d", "a"), ("ZADD", "d", 1, "a")):
        primary.cli("DEL", "d")
        primary.cli(kind, *rest)
        grammar.DUMPS.append(primary.cli("DUMP", "d"))
    primary.cli("DEL", "d")
    drawn = Grammar(seed)
    with contextlib.ExitStack() as stack:
        conns = [stack.enter_context(proxy.conn()) for _ in range(CONNECTIONS)]
        replies = [reply for _ in range(ROUNDS) for reply in _converse(conns, drawn)]
    errors = sum(reply.startswith(b"-") for reply in replies)
    assert errors < len(replies) / 2, "most of what is drawn does something"
    assert_same(primary, mirror, within=10)


def _converse(conns: list[Conn], drawn: Grammar) -> Iterator[bytes]:
    """All send a batch at once; what they are answered."""
    batches = [drawn.batch(BATCH) for _ in conns]
    for conn, batch in zip(conns, batches, strict=True):
        conn.send(b"".join(encode(*command) for command in batch))
    for conn, batch in zip(conns, batches, strict=True):
        for command, reply in zip(batch, conn.replies(len(batch)), strict=True):
            assert not reply.startswith((b"-ERR unknown", b"-ERR syntax", b"-ERR wrong number")), (command, reply)
            yield reply
