"""The *Sync* column: two Redis servers key by key, in all databases: types, values, absolute expiry times.

Owns: what "equal" means. Never: writes to a server.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from redisha.demo.servers import RedisServer

if TYPE_CHECKING:
    from redis import Redis

Place: TypeAlias = tuple[int, bytes]
"""Database and key."""
Content: TypeAlias = tuple[str, object, int]
"""Type, value, and the millisecond at which it expires (-1 for never)."""

_BATCH = 500
_PAUSE = 0.05


@dataclass(frozen=True, slots=True)
class Sync:
    """How equal two servers are.

    Attributes:
        keys: keys that at least one of them has.
        different: those that are not the same on both.
        example: one of those in words; empty if there is none.
    """

    keys: int
    different: int
    example: str = ""

    @property
    def percent(self) -> str:
        """``100 %`` only if all keys are equal; otherwise two decimals, rounded down."""
        if not self.different:
            return "100 %"
        return f"{math.floor((self.keys - self.different) * 10_000 / self.keys) / 100:.2f} %"


def compare(
    left: RedisServer, right: RedisServer, only: Callable[[bytes], bool] = lambda _: True, within: float = 5.0
) -> Sync:
    """Compare two servers, again and again until they are equal or the time is over.

    Args:
        left: one server.
        right: the other.
        only: which keys of the left one are looked at; of the right one all are.
        within: seconds to wait for what is on its way, or just expires.
    """
    deadline = time.monotonic() + within
    while True:
        result = judge(read_all(left, only), read_all(right))
        if not result.different or time.monotonic() >= deadline:
            return result
        time.sleep(_PAUSE)


def judge(left: dict[Place, Content], right: dict[Place, Content]) -> Sync:
    """Compare what was read of two servers."""
    places = left.keys() | right.keys()
    different = sorted(place for place in places if left.get(place) != right.get(place))
    example = ""
    if different:
        database, key = place = different[0]
        example = f"database {database}, key {key[:60]!r}: {_words(left.get(place))} and {_words(right.get(place))}"
    return Sync(len(places), len(different), example)


def _words(content: Content | None) -> str:
    if content is None:
        return "nothing"
    kind, value, expiry = content
    shown = repr(value)
    return f"{kind} {shown if len(shown) <= 60 else shown[:60] + '…'} expiring at {expiry}"


def read_all(server: RedisServer, only: Callable[[bytes], bool] = lambda _: True) -> dict[Place, Content]:
    """All keys of a server with their contents."""
    found: dict[Place, Content] = {}
    with server.client() as client:
        info: Any = client.info("keyspace")
        databases = [int(name.removeprefix("db")) for name in info]
    for database in databases:
        with server.client(database) as client:
            for keys in _batches(client, only):
                found.update(((database, key), content) for key, content in _read(client, keys))
    return found


def _batches(client: "Redis", only: Callable[[bytes], bool]) -> Iterator[list[bytes]]:
    keys = [key for key in set(client.scan_iter(count=_BATCH)) if only(key)]
    for start in range(0, len(keys), _BATCH):
        yield keys[start : start + _BATCH]


def _read(client: "Redis", keys: list[bytes]) -> Iterator[tuple[bytes, Content]]:
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.type(key)
            pipe.pexpiretime(key)  # type: ignore[arg-type]  # a key may be bytes
        heads = pipe.execute()
        kinds = [kind.decode() for kind in heads[::2]]
        for key, kind in zip(keys, kinds, strict=True):
            _ask(pipe, kind, key)
        values = pipe.execute(raise_on_error=False)
    for key, kind, expiry, value in zip(keys, kinds, heads[1::2], values, strict=True):
        if kind != "none":  # it has expired since it was listed
            yield key, (kind, _normal(kind, value), expiry)


def _ask(pipe: Any, kind: str, key: bytes) -> None:
    """Queue the command that reads a key of this type whole."""
    match kind:
        case "string":
            pipe.get(key)
        case "list":
            pipe.lrange(key, 0, -1)
        case "set":
            pipe.smembers(key)
        case "hash":
            pipe.hgetall(key)
        case "zset":
            pipe.zrange(key, 0, -1, withscores=True)
        case "stream":
            pipe.xrange(key)
        case _:
            pipe.dump(key)


def _normal(kind: str, value: Any) -> object:
    """The value in a form in which equal means equal."""
    if isinstance(value, Exception):
        return repr(value)
    if kind == "string" and value is not None and value[:4] == b"HYLL":
        return value[:8] + value[16:]  # without the cached count, which a read may fill in
    return value
