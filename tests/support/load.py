"""Random commands, seeded: a mixed load that touches every data type."""

import random
from collections.abc import Callable

from support.wire import Arg

Command = tuple[Arg, ...]

_ADD_BOTH = "redis.call('incr', KEYS[1]); return redis.call('rpush', KEYS[2], ARGV[1])"
_TIME = "local t = redis.call('time'); return redis.call('set', KEYS[1], t[1] .. t[2])"
_RANDOM = "return redis.call('sadd', KEYS[1], math.random(1, 1000000))"


class Mixed:
    """An endless stream of commands over ``keys`` keys per type, the same for the same seed."""

    def __init__(self, seed: int, keys: int = 40, prefix: str = "") -> None:
        self._random = random.Random(seed)
        self._keys = keys
        self._prefix = prefix

    def command(self) -> Command:
        """The next single command."""
        return self._random.choice(_MAKERS)(self, self._random)

    def batch(self, size: int) -> list[Command]:
        """The next ``size`` commands; now and then a transaction is among them."""
        commands: list[Command] = []
        while len(commands) < size:
            if self._random.random() < 0.05:
                body = [self.command() for _ in range(self._random.randint(1, 4))]
                commands += [("MULTI",), *body, ("EXEC",) if self._random.random() < 0.8 else ("DISCARD",)]
            else:
                commands.append(self.command())
        return commands

    def key(self, kind: str) -> str:
        """One of the keys of a type. Strings share keys with expiry commands, on purpose."""
        return f"{self._prefix}{kind}:{self._random.randrange(self._keys)}"


def _value(rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice((0, 1, 8, 60, 300)))


def _score(rng: random.Random) -> Arg:
    return rng.choice((rng.randint(-50, 50), round(rng.uniform(-5, 5), 3)))


def _geo(rng: random.Random) -> tuple[Arg, Arg]:
    return round(rng.uniform(-180, 180), 4), round(rng.uniform(-85, 85), 4)


# Times to live are either long past the test or so short that keys expire while it runs.
def _ttl_ms(rng: random.Random) -> int:
    return rng.choice((rng.randint(1, 300), rng.randint(3_600_000, 7_200_000)))


_MAKERS: list[Callable[[Mixed, random.Random], Command]] = [
    lambda m, r: ("SET", m.key("s"), _value(r)),
    lambda m, r: ("SET", m.key("s"), _value(r), "PX", _ttl_ms(r)),
    lambda m, r: ("SET", m.key("s"), _value(r), "NX"),
    lambda m, r: ("SET", m.key("s"), _value(r), "XX", "GET"),
    lambda m, r: ("SET", m.key("s"), _value(r), "KEEPTTL"),
    lambda m, r: ("SETNX", m.key("s"), _value(r)),
    lambda m, r: ("SETEX", m.key("s"), 3600, _value(r)),
    lambda m, r: ("GETEX", m.key("s"), "PX", _ttl_ms(r)),
    lambda m, r: ("GETDEL", m.key("s")),
    lambda m, r: ("APPEND", m.key("s"), _value(r)),
    lambda m, r: ("SETRANGE", m.key("s"), r.randint(0, 40), _value(r)),
    lambda m, r: ("GET", m.key("s")),
    lambda m, r: ("INCR", m.key("n")),
    lambda m, r: ("DECRBY", m.key("n"), r.randint(1, 9)),
    lambda m, r: ("INCRBYFLOAT", m.key("f"), round(r.uniform(-3, 3), 4)),
    lambda m, r: ("MSET", m.key("s"), _value(r), m.key("s"), _value(r)),
    lambda m, r: ("MSETNX", m.key("s"), _value(r), m.key("x"), _value(r)),
    lambda m, r: ("PEXPIRE", m.key("s"), _ttl_ms(r), r.choice(("NX", "XX", "GT", "LT"))),
    lambda m, r: ("EXPIRE", m.key(r.choice("nfhlz")), r.randint(3600, 7200)),
    lambda m, r: ("PERSIST", m.key("s")),
    lambda m, r: ("DEL", m.key("s"), m.key("h")),
    lambda m, r: ("UNLINK", m.key("l")),
    lambda m, r: ("RENAME", m.key("s"), m.key("s")),
    lambda m, r: ("RENAMENX", m.key("s"), m.key("s")),
    lambda m, r: ("COPY", m.key("s"), m.key("s")),
    lambda m, r: ("LPUSH", m.key("l"), _value(r), _value(r)),
    lambda m, r: ("RPUSH", m.key("l"), _value(r)),
    lambda m, r: ("LPOP", m.key("l")),
    lambda m, r: ("RPOP", m.key("l"), 2),
    lambda m, r: ("LMOVE", m.key("l"), m.key("l"), r.choice(("LEFT", "RIGHT")), "LEFT"),
    lambda m, r: ("LTRIM", m.key("l"), 0, 20),
    lambda m, r: ("LINSERT", m.key("l"), "BEFORE", b"x", b"y"),
    lambda m, r: ("HSET", m.key("h"), f"f{r.randrange(9)}", _value(r), f"f{r.randrange(9)}", _value(r)),
    lambda m, r: ("HDEL", m.key("h"), f"f{r.randrange(9)}"),
    lambda m, r: ("HINCRBY", m.key("hn"), f"f{r.randrange(9)}", r.randint(-9, 9)),
    lambda m, r: ("HINCRBYFLOAT", m.key("hf"), f"f{r.randrange(9)}", round(r.uniform(-2, 2), 3)),
    lambda m, r: ("HSETNX", m.key("h"), f"f{r.randrange(9)}", _value(r)),
    lambda m, r: ("SADD", m.key("t"), *(f"m{r.randrange(30)}" for _ in range(4))),
    lambda m, r: ("SREM", m.key("t"), f"m{r.randrange(30)}"),
    lambda m, r: ("SPOP", m.key("t")),
    lambda m, r: ("SPOP", m.key("t"), r.randint(0, 3)),
    lambda m, r: ("SMOVE", m.key("t"), m.key("t"), f"m{r.randrange(30)}"),
    lambda m, r: ("SINTERSTORE", m.key("t"), m.key("t"), m.key("t")),
    lambda m, r: ("SUNIONSTORE", m.key("t"), m.key("t"), m.key("t")),
    lambda m, r: ("ZADD", m.key("z"), _score(r), f"m{r.randrange(30)}", _score(r), f"m{r.randrange(30)}"),
    lambda m, r: ("ZADD", m.key("z"), "GT", "CH", _score(r), f"m{r.randrange(30)}"),
    lambda m, r: ("ZINCRBY", m.key("z"), _score(r), f"m{r.randrange(30)}"),
    lambda m, r: ("ZPOPMIN", m.key("z"), r.randint(1, 2)),
    lambda m, r: ("ZREMRANGEBYRANK", m.key("z"), 20, -1),
    lambda m, r: ("ZUNIONSTORE", m.key("z"), 2, m.key("z"), m.key("z"), "AGGREGATE", "MAX"),
    lambda m, r: ("ZRANGESTORE", m.key("z"), m.key("z"), 0, 5),
    lambda m, r: ("GEOADD", m.key("g"), *_geo(r), f"m{r.randrange(30)}"),
    lambda m, r: ("XADD", m.key("x:stream"), "*", "f", _value(r)),
    lambda m, r: ("XADD", m.key("x:stream"), "MAXLEN", "~", 20, "*", "f", _value(r)),
    lambda m, r: ("XTRIM", m.key("x:stream"), "MAXLEN", 15),
    lambda m, r: ("SETBIT", m.key("b"), r.randrange(500), r.randrange(2)),
    lambda m, r: ("BITFIELD", m.key("b"), "INCRBY", "u8", r.randrange(200), 7),
    lambda m, r: ("BITOP", "XOR", m.key("b"), m.key("b"), m.key("b")),
    lambda m, r: ("PFADD", m.key("p"), *(f"e{r.randrange(5_000)}" for _ in range(5))),
    lambda m, r: ("PFMERGE", m.key("p"), m.key("p")),
    lambda m, r: ("SORT", m.key("n:list"), "STORE", m.key("l")),
    lambda m, r: ("EVAL", _ADD_BOTH, 2, m.key("n"), m.key("l"), _value(r)),
    lambda m, r: ("EVAL", _TIME, 1, m.key("s")),
    lambda m, r: ("EVAL", _RANDOM, 1, m.key("t")),
    # Errors: nothing may change, here or there.
    lambda m, r: ("INCR", m.key("l")),
    lambda m, r: ("LPUSH", m.key("h"), "x"),
    lambda m, r: ("SET", m.key("s")),
]
