"""Random commands of every kind that writes, from a grammar of their arguments.

A line of :data:`GRAMMAR` is a command. Words in capitals that :data:`_MAKERS` knows are made at random,
``( a | b c | )`` is a choice, ``+( … )`` one to three times, ``K:l`` a key that mostly holds a list. All types share
few keys, so that a command often meets a key of another type, one that ends within milliseconds, or none.
"""

import random
import re
import time
from collections.abc import Callable

from support.wire import Arg

Command = tuple[Arg, ...]

GRAMMAR = """
append K:s V
bitfield K:s (SET u8 BIT INT | INCRBY i5 BIT INT | OVERFLOW SAT INCRBY u4 BIT INT GET u8 BIT)
bitop (AND K K:s K:s | NOT K K:s)
blmove K:l K:l SIDE SIDE 0.001
blmpop 0.001 1 K:l SIDE (| COUNT SMALL)
blpop K:l K:l 0.001
brpop K:l 0.001
brpoplpush K:l K:l 0.001
bzmpop 0.001 1 K:z (MIN | MAX)
bzpopmax K:z 0.001
bzpopmin K:z K:z 0.001
copy K K (| REPLACE)
decr K:s
decrby K:s INT
del +(K)
eval SCRIPT 2 K K V
expire K (0 | 1 | 7200) (| NX | XX | GT | LT)
expireat K (1 | 9999999999) (| NX | XX | GT | LT)
flushdb (| ASYNC | SYNC)
function|load REPLACE LIBRARY
fcall redisha_test 1 K V
geoadd K:g (| NX | XX) (| CH) LON LAT M
georadius K:g 10 20 9000 km (STORE K | STOREDIST K)
georadiusbymember K:g M 9000 km STORE K
geosearchstore K K:g FROMLONLAT 10 20 BYRADIUS 9000 km (| STOREDIST)
getdel K:s
getex K:s (EX 7200 | PX MS | PXAT AT | EXAT 9999999999 | PERSIST)
getset K:s V
hdel K:h +(F)
hincrby K:h F INT
hincrbyfloat K:h F FLOAT
hmset K:h +(F V)
hset K:h +(F V)
hsetnx K:h F V
incr K:s
incrby K:s INT
incrbyfloat K:s FLOAT
linsert K:l (BEFORE | AFTER) E E
lmove K:l K:l SIDE SIDE
lmpop 2 K:l K:l SIDE (| COUNT SMALL)
lpop K:l (| SMALL)
lpush K:l +(E)
lpushx K:l +(E)
lrem K:l INT E
lset K:l INDEX E
ltrim K:l INDEX INDEX
move K 1
mset +(K V)
msetnx +(K V)
persist K
pexpire K MS (| NX | XX | GT | LT)
pexpireat K AT (| NX | XX | GT | LT)
pfadd K:p +(E)
pfmerge K:p K:p K:p
psetex K MS V
publish channel V
rename K K
renamenx K K
restore K (0 | MS) DUMP (| REPLACE)
rpop K:l (| SMALL)
rpoplpush K:l K:l
rpush K:l +(E)
rpushx K:l +(E)
sadd K:t +(M)
script|load SCRIPT
sdiffstore K K:t K:t
set K V (| NX | XX) (| GET) (| EX 7200 | PX MS | PXAT AT | KEEPTTL)
setbit K:s BIT (0 | 1)
setex K 7200 V
setnx K V
setrange K:s SMALL V
sinterstore K K:t K:t
smove K:t K:t M
sort K:l ALPHA STORE K
spop K:t (| SMALL)
spublish channel V
srem K:t +(M)
sunionstore K K:t K:t
swapdb 0 1
unlink +(K)
xack K:x g ID
xadd K:x (| NOMKSTREAM) (| MAXLEN 5 | MAXLEN ~ 5 | MINID ~ ID) (* | ID) F V
xautoclaim K:x g c2 0 0 (| COUNT SMALL) (| JUSTID)
xclaim K:x g c2 0 ID (| JUSTID | FORCE)
xdel K:x ID
xgroup|create K:x g (0 | $) (| MKSTREAM)
xgroup|createconsumer K:x g c
xgroup|delconsumer K:x g c
xgroup|destroy K:x g
xgroup|setid K:x g (0 | $)
xreadgroup GROUP g c (| COUNT SMALL) (| BLOCK 1) (| NOACK) STREAMS K:x (> | 0)
xsetid K:x 9999999999999-9
xtrim K:x (MAXLEN | MAXLEN ~) SMALL
zadd K:z (| NX | XX) (| CH) +(SCORE M)
zadd K:z (GT | LT | XX GT) (| CH) SCORE M
zadd K:z INCR SCORE M
zdiffstore K 2 K:z K:z
zincrby K:z SCORE M
zinterstore K 2 K:z K:z (| WEIGHTS 2 3) (| AGGREGATE MAX)
zmpop 2 K:z K:z (MIN | MAX) (| COUNT SMALL)
zpopmax K:z (| SMALL)
zpopmin K:z (| SMALL)
zrangestore K K:z 0 2 (| REV)
zrem K:z +(M)
zremrangebylex K:z - [m3
zremrangebyrank K:z INDEX INDEX
zremrangebyscore K:z -3 3
zunionstore K 2 K:z K:z (| WEIGHTS 2 3) (| AGGREGATE MIN)
"""

ELSEWHERE = {
    "evalsha": "as eval; its script may not be known",
    "flushall": "too often it would leave nothing to compare; tested by itself",
    "function": "a container",
    "function|delete": "as function|load",
    "function|flush": "as function|load",
    "function|restore": "as function|load",
    "migrate": "refused where writes are mirrored",
    "pfdebug": "a debugging command",
    "restore-asking": "of clusters",
    "script": "a container",
    "script|flush": "as script|load",
    "xgroup": "a container",
}
"""Commands that write and have no line here, and why."""

_DUMP = b"\x00\x04dump\x0a\x00"
_LIBRARY = (
    "#!lua name=redisha_grammar\n"
    "redis.register_function('redisha_test', function(k, a) return redis.call('SET', k[1], a[1]) end)"
)
_SCRIPTS = (
    "return redis.call('set', KEYS[1], ARGV[1])",
    "redis.call('del', KEYS[1]); return redis.call('rpush', KEYS[2], ARGV[1])",
    "return redis.pcall('incr', KEYS[1])",
    "return redis.call('set', KEYS[1], ARGV[1], 'px', 50)",
    "redis.call('set', KEYS[1], 'x'); return redis.call('nosuch')",
    "return redis.call('sadd', KEYS[2], math.random(1, 1000000))",
)
_KEYS = 4

_MAKERS: dict[str, Callable[[random.Random], Arg]] = {
    "V": lambda r: r.choice((r.randrange(100), b"", b"text", b"\x00\xff\r\n", b"1.5")),
    "E": lambda r: r.randrange(9),
    "F": lambda r: f"f{r.randrange(5)}",
    "M": lambda r: f"m{r.randrange(7)}",
    "INT": lambda r: r.randint(-9, 9),
    "SMALL": lambda r: r.randint(0, 3),
    "INDEX": lambda r: r.randint(-3, 3),
    "BIT": lambda r: r.randrange(40),
    "FLOAT": lambda r: round(r.uniform(-3, 3), 3),
    "SCORE": lambda r: r.choice((r.randint(-5, 5), round(r.uniform(-5, 5), 2))),
    "LON": lambda r: round(r.uniform(-170, 170), 3),
    "LAT": lambda r: round(r.uniform(-80, 80), 3),
    "MS": lambda r: r.choice((1, 3, 20, 100, 7_200_000)),
    "AT": lambda r: int(time.time() * 1000) + r.choice((-1, 1, 5, 50, 7_200_000)),
    "ID": lambda r: f"{r.randint(1, 9)}-{r.randrange(3)}",
    "SIDE": lambda r: r.choice(("LEFT", "RIGHT")),
    "SCRIPT": lambda r: r.choice(_SCRIPTS),
    "LIBRARY": lambda _: _LIBRARY,
}

Node = str | list["Node"] | tuple["Node", ...]
"""A word, a sequence, or a choice (whose first part says whether it is repeated)."""


def _parse(words: list[str]) -> list[Node]:
    """A sequence, up to a closing bracket or the next alternative."""
    found: list[Node] = []
    while words and words[0] not in (")", "|"):
        word = words.pop(0)
        if word not in ("(", "+("):
            found.append(word)
            continue
        choices: list[Node] = [_parse(words)]
        while words.pop(0) == "|":
            choices.append(_parse(words))
        found.append(("many" if word == "+(" else "one", *choices))
    return found


def _lines() -> list[tuple[str, list[Node]]]:
    split = [line.split(" ", 1) for line in GRAMMAR.strip().splitlines()]
    return [(name, _parse(re.findall(r"\+\(|[()|]|[^\s()|]+", rest))) for name, rest in split]


LINES = _lines()
NAMES = {name for name, _ in LINES}


class Grammar:
    """An endless stream of commands. What it draws depends on the seed, and the absolute times in it on the clock."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def command(self) -> Command:
        """The next one."""
        rng = self._random
        name, nodes = rng.choice(LINES)
        # Rarely what changes everything.
        while name in ("flushdb", "swapdb") and rng.random() < 0.9:
            name, nodes = rng.choice(LINES)
        return (*name.upper().split("|"), *self._expand(nodes))

    def batch(self, size: int) -> list[Command]:
        """Some commands; a part of them in transactions."""
        commands: list[Command] = []
        while len(commands) < size:
            if self._random.random() < 0.1:
                body = [self.command() for _ in range(self._random.randint(1, 5))]
                commands += [("MULTI",), *body, ("EXEC",)]
            else:
                commands.append(self.command())
        return commands

    def _expand(self, nodes: Node) -> list[Arg]:
        rng = self._random
        if isinstance(nodes, str):
            return [self._word(nodes)]
        if isinstance(nodes, list):
            return [arg for node in nodes for arg in self._expand(node)]
        kind, *choices = nodes
        times = rng.randint(1, 3) if kind == "many" else 1
        return [arg for _ in range(times) for arg in self._expand(rng.choice(choices))]

    def _word(self, word: str) -> Arg:
        rng = self._random
        if word == "DUMP":
            return DUMPS[rng.randrange(len(DUMPS))] if DUMPS else _DUMP
        if word == "K" or word.startswith("K:"):
            kind = word[2:] if word.startswith("K:") and rng.random() < 0.8 else rng.choice("slhtzxgp")
            return f"{kind}{rng.randrange(_KEYS)}"
        make = _MAKERS.get(word)
        return word if make is None else make(rng)


DUMPS: list[bytes] = []
"""Payloads that RESTORE takes; filled by the test from a real server."""
