"""Are two Redis servers equal? Key by key, with values by type and absolute expiry."""

import time
from collections.abc import Iterator
from typing import Any

import redis
from support.redis_server import RedisServer

_BATCH = 500
_SHOWN = 20


def assert_equal(a: RedisServer, b: RedisServer, within: float = 10.0, tolerance_ms: int = 0) -> int:
    """Both servers hold the same keys in all databases, now or ``within`` seconds; returns how many keys.

    ``tolerance_ms`` is allowed between two expiry times; with absolute effects there is nothing to allow.
    """
    deadline = time.monotonic() + within
    while True:
        left, right = snapshot(a), snapshot(b)
        found = differences(left, right, tolerance_ms)
        if not found:
            return len(left)
        if time.monotonic() >= deadline:
            shown = "\n".join(found[:_SHOWN])
            raise AssertionError(
                f"{len(found)} differences ({len(left)} keys on {a.address}, {len(right)} on {b.address}):\n{shown}"
            )
        time.sleep(0.02)


Snapshot = dict[tuple[int, bytes], tuple[str, object, int]]


def differences(left: Snapshot, right: Snapshot, tolerance_ms: int = 0) -> list[str]:
    """One line for each key that differs."""
    lines = []
    for place in sorted(left.keys() | right.keys()):
        name = f"db {place[0]} key {place[1][:80]!r}"
        if place not in left or place not in right:
            side, (kind, value, expiry) = ("left", left[place]) if place in left else ("right", right[place])
            lines.append(f"{name}: only on the {side}: {kind} {_short(value)} expires at {expiry}")
            continue
        (a_type, a_value, a_expiry), (b_type, b_value, b_expiry) = left[place], right[place]
        if a_type != b_type:
            lines.append(f"{name}: {a_type} and {b_type}")
        elif a_value != b_value:
            lines.append(f"{name}: {a_type} {_short(a_value)} and {_short(b_value)}")
        elif (a_expiry < 0) != (b_expiry < 0) or abs(a_expiry - b_expiry) > tolerance_ms:
            lines.append(f"{name}: expires at {a_expiry} and {b_expiry}")
    return lines


def snapshot(server: RedisServer) -> Snapshot:
    """(database, key) → (type, value, absolute expiry in ms or -1)."""
    found: Snapshot = {}
    with server.client() as client:
        databases = [int(name[2:]) for name in client.info("keyspace")]
    for database in databases:
        with server.client(db=database) as client:
            for batch in _batches(client):
                found |= _read(client, database, batch)
    return found


def _batches(client: redis.Redis) -> Iterator[list[bytes]]:
    keys = list(set(client.scan_iter(count=1_000)))
    for start in range(0, len(keys), _BATCH):
        yield keys[start : start + _BATCH]


def _read(client: redis.Redis, database: int, keys: list[bytes]) -> Snapshot:
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.execute_command("TYPE", key)
            pipe.execute_command("PEXPIRETIME", key)
        heads = pipe.execute()
    types = [_text(kind) for kind in heads[::2]]
    expiries = heads[1::2]
    with client.pipeline(transaction=False) as pipe:
        for key, kind in zip(keys, types, strict=True):
            _ask(pipe, kind, key)
        values = pipe.execute(raise_on_error=False)
    found: Snapshot = {}
    for key, kind, expiry, value in zip(keys, types, expiries, values, strict=True):
        # Expired or deleted between SCAN and TYPE, or between TYPE and the reading: there are no empty lists.
        if kind == "none" or (not value and kind != "string") or value is None:
            continue
        found[database, key] = (kind, _normal(client, key, kind, value), expiry)
    return found


def _ask(pipe: Any, kind: str, key: bytes) -> None:
    """Queue the command that reads a key of this type as a whole."""
    match kind:
        case "string":
            pipe.execute_command("GET", key)
        case "list":
            pipe.execute_command("LRANGE", key, 0, -1)
        case "set":
            pipe.execute_command("SMEMBERS", key)
        case "hash":
            pipe.execute_command("HGETALL", key)
        case "zset":
            pipe.execute_command("ZRANGE", key, 0, -1, "WITHSCORES")
        case "stream":
            pipe.execute_command("XINFO", "STREAM", key, "FULL", "COUNT", 0)
        case _:
            pipe.execute_command("EXISTS", key)


def _normal(client: redis.Redis, key: bytes, kind: str, value: Any) -> object:
    """The value in a form in which equal means equal."""
    if isinstance(value, Exception):
        return repr(value)
    match kind:
        case "string":
            # A HyperLogLog caches its count in bytes 8 to 15, and a read may fill it in.
            return value[:8] + value[16:] if value[:4] == b"HYLL" else value
        case "set":
            return frozenset(value)
        case "stream":
            return _stream(client, key, value)
        case _:
            return value


def _stream(client: redis.Redis, key: bytes, info: Any) -> object:
    """What a stream is, without what depends on when it was read (idle times, radix tree nodes)."""
    info = _mapping(info)
    groups = []
    for group in map(_mapping, info["groups"]):
        pending = [(entry[0], entry[1], entry[3]) for entry in group["pending"]]
        consumers = sorted(bytes(_mapping(consumer)["name"]) for consumer in group["consumers"])
        groups.append((group["name"], group["last-delivered-id"], group["entries-read"], pending, consumers))
    facts = tuple(info.get(name) for name in ("length", "last-generated-id", "max-deleted-entry-id", "entries-added"))
    entries = client.execute_command("XRANGE", key, "-", "+")
    return facts, entries, sorted(groups, key=repr)


def _mapping(value: Any) -> dict[str, Any]:
    """A RESP2 map, or what redis-py made of it, with text keys."""
    if isinstance(value, dict):
        return {_text(name): field for name, field in value.items()}
    return {_text(name): field for name, field in zip(value[::2], value[1::2], strict=True)}


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
