"""One key of every type and encoding, in two databases, and a library of functions."""

from typing import Any

from support.redis_server import RedisServer

EXPIRY = 4_102_444_800_123
LIBRARY = "#!lua name=lib\nredis.register_function('one', function() return 1 end)"

COMMANDS: list[tuple[Any, ...]] = [
    ("SET", "string", "value"),
    ("SET", "empty", ""),
    ("SET", "integer", 12345),
    ("SET", "expiring", "value", "PXAT", EXPIRY),
    ("SET", "binary", bytes(range(256)) * 3),
    ("SET", "dash", "x\r\n-ERR no error\r\n$-1\r\n:-2\r\n"),
    ("SET", "4 kB", "x" * 4096),
    ("SET", "nearly 4 kB", "x" * 4095),
    ("SET", "long", "x" * 10_000, "PXAT", EXPIRY),
    ("SETBIT", "bitmap", 10_000, 1),
    ("RPUSH", "list", *(f"item {number}" for number in range(50))),
    ("RPUSH", "long list", *(f"item {number}" * 10 for number in range(1_000))),
    ("SADD", "set", "a", "b", "c"),
    ("SADD", "integers", 3, 1, 2),
    ("SADD", "large set", *(f"member {number}" for number in range(1_000))),
    ("HSET", "hash", "f", "v", "g", "w"),
    ("HSET", "large hash", *(f"field {number}" for number in range(2_000))),
    ("ZADD", "zset", 1, "one", 2.5, "two and a half", "-inf", "least"),
    ("ZADD", "large zset", *(part for number in range(1_000) for part in (number * 1.1, f"member {number}"))),
    ("GEOADD", "geo", 13.361389, 38.115556, "Palermo", 15.087269, 37.502669, "Catania"),
    ("PFADD", "hyperloglog", *range(500)),
    ("XADD", "stream", "1-1", "field", "value"),
    ("XADD", "stream", "2-1", "field", "value", "other", "more"),
    ("XADD", "stream", "3-1", "field", "value"),
    ("XDEL", "stream", "3-1"),
    ("XGROUP", "CREATE", "stream", "group", 0),
    ("XGROUP", "CREATECONSUMER", "stream", "group", "idle"),
    ("XCLAIM", "stream", "group", "busy", 0, "1-1", "RETRYCOUNT", 3, "FORCE", "JUSTID", "LASTID", "1-1"),
    ("XGROUP", "CREATE", "empty stream", "group", "$", "MKSTREAM"),
    ("PEXPIREAT", "large hash", EXPIRY + 1),
    ("FUNCTION", "LOAD", LIBRARY),
]
OTHER_DATABASE = 3
KEYS = len({command[2 if command[0] == "XGROUP" else 1] for command in COMMANDS if command[0] != "FUNCTION"}) + 1


def fill(server: RedisServer) -> None:
    """Write all of it."""
    run(server, *COMMANDS)
    run(server, ("SET", "string", "in another database"), db=OTHER_DATABASE)


def run(server: RedisServer, *commands: tuple[Any, ...], db: int = 0) -> None:
    """Run commands on a connection of their own; an error is raised."""
    with server.conn() as conn:
        for command, reply in zip(commands, conn.pipeline(("SELECT", db), *commands)[1:], strict=True):
            assert not reply.startswith(b"-"), f"{command[:3]}: {reply!r}"
