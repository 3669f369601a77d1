"""Writers: threads with a redis-py client each, which go on until told to stop.

Owns: what is written. Every writer has keys of its own (its ``prefix``), and changes them in every way that Redis has:
values of all types, counters, random pops, ids of the server's making, expiry, transactions, scripts. Each batch also
adds its number to a set, so that it can be told whether a write that was answered is missing.
"""

import itertools
import random
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from redisha.demo.servers import RedisServer
from redisha.demo.sidecars import Sidecar

if TYPE_CHECKING:
    from redis import Redis

_KEYS = 200
_BATCH = 20
_PAUSE = 0.05
_PUSH = "redis.call('incr', KEYS[1]); return redis.call('rpush', KEYS[2], ARGV[1])"


class Load:
    """Some writers through one sidecar.

    Args:
        sidecar: through which they write.
        prefix: how their keys begin.
        writers: how many.
    """

    def __init__(self, sidecar: Sidecar, prefix: str, writers: int = 2) -> None:
        self._sidecar = sidecar
        self._stop = threading.Event()
        self._written = [0] * writers
        self._prefixes = [f"{prefix}:{number}" for number in range(writers)]
        self._answered: list[set[int]] = [set() for _ in range(writers)]
        self.errors: list[str] = []
        """Error replies and broken connections, in words."""
        self._threads = [
            threading.Thread(target=self._write, args=(number, each), daemon=True)
            for number, each in enumerate(self._prefixes)
        ]

    @property
    def written(self) -> int:
        """Writes that were answered so far."""
        return sum(self._written)

    def missing(self, server: RedisServer) -> int:
        """How many batches were answered and are not on a server."""
        with server.client() as client:
            found: Any = [client.smembers(_ledger(prefix)) for prefix in self._prefixes]
        there = [{int(batch) for batch in batches} for batches in found]
        return sum(len(answered - seen) for answered, seen in zip(self._answered, there, strict=True))

    def stop(self) -> None:
        """Let each writer finish its batch, and wait for that."""
        self._stop.set()
        for thread in self._threads:
            thread.join(15)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _write(self, number: int, prefix: str) -> None:
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        from redis import RedisError

        rng = random.Random(prefix)  # noqa: S311 - the same load each time
        # Without retries: an error that a client would see shall be counted.
        with self._sidecar.client(retry=Retry(NoBackoff(), 0), socket_timeout=10) as client:
            for batch in itertools.count():
                if self._stop.is_set():
                    return
                try:
                    replies = _batch(client, rng, prefix, batch)
                except RedisError as error:
                    self.errors.append(str(error))
                    self._stop.wait(_PAUSE)
                    continue
                failed = [str(reply) for reply in replies if isinstance(reply, Exception)]
                self._written[number] += len(replies) - len(failed)
                if not isinstance(replies[-1], Exception):
                    self._answered[number].add(batch)
                if failed:
                    self.errors += failed
                    self._stop.wait(_PAUSE)


def _ledger(prefix: str) -> str:
    return f"{prefix}:answered"


def _batch(client: "Redis", rng: random.Random, prefix: str, number: int) -> list[Any]:
    """One pipeline of writes, the last of which notes its number; now and then it is a transaction."""

    def key(kind: str) -> str:
        return f"{prefix}:{kind}:{rng.randrange(_KEYS)}"

    with client.pipeline(transaction=rng.random() < 0.1) as pipe:
        for _ in range(_BATCH):
            rng.choice(_WRITES)(pipe, key, rng)
        pipe.sadd(_ledger(prefix), number)
        return pipe.execute(raise_on_error=False)


# Each takes a pipeline, a function that names a key of a type, and the source of what is random.
_WRITES: tuple[Any, ...] = (
    lambda pipe, key, rng: pipe.set(key("string"), rng.randbytes(30)),
    lambda pipe, key, rng: pipe.set(key("string"), rng.randbytes(9), ex=rng.randint(3600, 7200)),
    lambda pipe, key, rng: pipe.set(key("string"), b"first", nx=True),
    lambda pipe, key, rng: pipe.append(key("string"), b"+"),
    lambda pipe, key, rng: pipe.expire(key("hash"), rng.randint(3600, 7200)),
    lambda pipe, key, rng: pipe.incr(key("counter")),
    lambda pipe, key, rng: pipe.incrbyfloat(key("float"), 0.1),
    lambda pipe, key, rng: pipe.lpush(key("list"), rng.randbytes(9), rng.randbytes(9)),
    lambda pipe, key, rng: pipe.lpop(key("list")),
    lambda pipe, key, rng: pipe.ltrim(key("list"), 0, 20),
    lambda pipe, key, rng: pipe.hset(key("hash"), f"field{rng.randrange(9)}", rng.randbytes(9)),
    lambda pipe, key, rng: pipe.hincrby(key("hash-counter"), f"field{rng.randrange(9)}", 2),
    lambda pipe, key, rng: pipe.sadd(key("set"), *(rng.randrange(30) for _ in range(3))),
    lambda pipe, key, rng: pipe.spop(key("set")),
    lambda pipe, key, rng: pipe.zadd(key("zset"), {f"member{rng.randrange(30)}": rng.randint(-50, 50)}),
    lambda pipe, key, rng: pipe.xadd(key("stream"), {"field": rng.randrange(99)}, maxlen=20, approximate=False),
    lambda pipe, key, rng: pipe.delete(key("string"), key("list")),
    lambda pipe, key, rng: pipe.copy(key("set"), key("set-copy"), replace=True),
    lambda pipe, key, rng: pipe.eval(_PUSH, 2, key("counter"), key("list"), rng.randbytes(9)),
)
