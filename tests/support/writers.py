"""A client's stream of writes on keys of its own, each with an entry in its ledger.

A :class:`Writer` makes operations and settles them with the replies; :mod:`support.crowd` carries them.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import redis
from support.ledger import Bag, Counter, Fate, Register, fate
from support.redis_server import RedisServer
from support.wire import Arg, children

Place = tuple[int, str]
"""Database and key."""
Entry = Register | Counter | Bag
E = TypeVar("E", bound=Entry)

_PUSH_COUNTED = "redis.call('incr', KEYS[1]); return redis.call('rpush', KEYS[2], ARGV[1])"
_LIBRARY = "#!lua name={0}\n-- {1}\nredis.register_function('{0}', function(keys) return #keys end)"
_REGISTERS = 12
_FUNCTIONS = 0.003
"""How many of the operations load a function library, which is dear."""
_EXPIRES_S = 7_200
"""Long past any test: the moment is compared between the servers, the value with the ledger."""


@dataclass(frozen=True)
class Operation:
    """Commands that belong together, and what to do with their replies.

    ``settle`` gets one reply per command, or None where the connection ended before the last of them.
    """

    commands: Sequence[tuple[Arg, ...]]
    settle: Callable[[Sequence[bytes] | None], None]


class Writer:
    """The same writes for the same seed; ``violations`` are replies that no healthy Redis would have given."""

    def __init__(self, name: str, seed: int, *, functions: bool = True) -> None:
        self.violations: list[str] = []
        self.fates = dict.fromkeys(Fate, 0)
        self._name = name
        self._functions = functions
        self._random = random.Random(seed)
        self._serial = 0
        self._entries: dict[tuple[Place, str], tuple[str, Entry]] = {}
        """(place, field or "") → what is read there, and what it may be."""
        self._twins: set[tuple[Place, Place]] = set()
        self._library = Register()

    def operation(self, database: int) -> Operation:
        """The next one, for a connection that is in this database."""
        functions = self._functions and self._random.random() < _FUNCTIONS
        make = Writer._function if functions else self._random.choice(_OPERATIONS)
        return make(self, database)

    def problems(self, server: RedisServer) -> list[str]:
        """Everything in which a server is not what this client was told."""
        found = list(self.violations)
        for database in sorted({place[0] for place, _ in self._entries}):
            with server.client(db=database) as client:
                found += self._compare(client, database)
        if not self._functions:
            return found
        with server.client() as client:
            libraries = client.execute_command("FUNCTION", "LIST", "LIBRARYNAME", self._name, "WITHCODE")
        code = _pairs(libraries[0])[b"library_code"] if libraries else None
        found += _named(f"function library {self._name}", self._library.wrong(code))
        return found

    # --- operations ---

    def _set(self, database: int) -> Operation:
        place, value = self._register(database), self._unique()
        options = self._random.choice(((), (), ("EX", _EXPIRES_S), ("PX", _EXPIRES_S * 1000), ("KEEPTTL",)))
        return self._single(("SET", place[1], value, *options), lambda done, _: self._at(place).write(done, {value}))

    def _replace(self, database: int) -> Operation:
        place, value = self._register(database), self._random.choice((self._unique(), None))
        command: tuple[Arg, ...] = ("SET", place[1], value, "GET") if value else ("GETDEL", place[1])

        def settle(done: Fate, old: bytes | None) -> None:
            if done is Fate.DONE:
                self._refuted(place, self._at(place).wrong(old))
            self._at(place).write(done, {value})

        return self._single(command, settle)

    def _append(self, database: int) -> Operation:
        place, value = self._register(database), self._unique()

        def settle(done: Fate, _: object) -> None:
            entry = self._at(place)
            entry.write(done, {(old or b"") + value for old in entry.possible})

        return self._single(("APPEND", place[1], value), settle)

    def _delete(self, database: int) -> Operation:
        place = self._register(database)
        command = self._random.choice(("DEL", "UNLINK"))
        return self._single((command, place[1]), lambda done, _: self._at(place).write(done, {None}))

    def _rename(self, database: int) -> Operation:
        source, target = self._register(database), self._register(database)

        def settle(replies: Sequence[bytes] | None) -> None:
            reply = replies[0] if replies else None
            if reply is not None and reply.startswith(b"-ERR no such key"):
                self._refuted(source, "no such key" if None not in self._at(source).possible else "")
                self._at(source).write(Fate.DONE, {None})
                return
            done = self._fate(reply)
            values = self._at(source).possible - {None}
            if done is not Fate.REFUSED:
                self._refuted(source, "renamed, but is not there" if done is Fate.DONE and not values else "")
                if source != target:
                    self._at(target).write(done, values)
                    self._at(source).write(done, {None})
                elif done is Fate.DONE:
                    self._at(source).write(done, values)

        return Operation([("RENAME", source[1], target[1])], settle)

    def _increment(self, database: int) -> Operation:
        place, amount = self._key(database, "n", 6), self._random.choice((1, 1, 1, 5, -3, 1000))
        commands: dict[int, tuple[Arg, ...]] = {1: ("INCR", place[1]), -3: ("DECRBY", place[1], 3)}
        command = commands.get(amount, ("INCRBY", place[1], amount))
        entry = self._counter(place)
        return self._single(command, lambda done, result: self._refuted(place, entry.add(done, amount, result)))

    def _push(self, database: int) -> Operation:
        place, entry = self._bag(database, "list")
        names = [self._unique() for _ in range(self._random.randint(1, 3))]
        command = self._random.choice(("LPUSH", "RPUSH"))
        return self._single((command, place[1], *names), lambda done, _: entry.put(done, names))

    def _pop(self, database: int) -> Operation:
        place, entry = self._bag(database, "list")
        return self._takes(place, entry, (self._random.choice(("LPOP", "RPOP")), place[1], 2), at_most=2)

    def _set_add(self, database: int) -> Operation:
        place, entry = self._bag(database, "set")
        names = [self._unique() for _ in range(self._random.randint(1, 3))]
        return self._single(("SADD", place[1], *names), lambda done, _: entry.put(done, names))

    def _set_pop(self, database: int) -> Operation:
        place, entry = self._bag(database, "set")
        return self._takes(place, entry, ("SPOP", place[1], 2), at_most=2)

    def _sorted_add(self, database: int) -> Operation:
        place, entry = self._bag(database, "zset")
        name = self._unique()
        score = round(self._random.uniform(-9, 9), 3)
        return self._single(("ZADD", place[1], score, name), lambda done, _: entry.put(done, [name]))

    def _sorted_pop(self, database: int) -> Operation:
        place, entry = self._bag(database, "zset")

        def settle(done: Fate, result: Any) -> None:
            self._refuted(place, entry.take(done, (result or [])[::2]))

        return self._single(("ZPOPMIN", place[1]), settle)

    def _sorted_increment(self, database: int) -> Operation:
        return self._adds_field(database, "zset", "ZINCRBY")

    def _hash_increment(self, database: int) -> Operation:
        return self._adds_field(database, "hash", "HINCRBY")

    def _adds_field(self, database: int, kind: str, command: str) -> Operation:
        place, field = self._key(database, f"sums-{kind}", 2), f"f{self._random.randrange(8)}"
        entry = self._counter(place, f"{kind} number", field)
        pair: tuple[Arg, ...] = (field, 1) if kind == "hash" else (1, field)
        return self._single(
            (command, place[1], *pair),
            lambda done, result: self._refuted(place, entry.add(done, 1, None if result is None else int(result))),
        )

    def _hash_set(self, database: int) -> Operation:
        place, field, value = self._key(database, "hash", 3), f"f{self._random.randrange(8)}", self._unique()
        entry = self._entry(place, "hash value", Register, field)
        return self._single(("HSET", place[1], field, value), lambda done, _: entry.write(done, {value}))

    def _stream_add(self, database: int) -> Operation:
        place, entry = self._bag(database, "stream")
        name = self._unique()
        return self._single(("XADD", place[1], "*", "name", name), lambda done, _: entry.put(done, [name]))

    def _script(self, database: int) -> Operation:
        counter, (place, bag), name = self._key(database, "n-script", 1), self._bag(database, "list"), self._unique()
        entry = self._counter(counter)

        def settle(done: Fate, _: object) -> None:
            bag.put(done, [name])
            entry.add(done, 1, None)

        return self._single(("EVAL", _PUSH_COUNTED, 2, counter[1], place[1], name), settle)

    def _transaction(self, database: int) -> Operation:
        one, two = self._key(database, "twin-a", 1), self._key(database, "twin-b", 1)
        (place, bag), name = self._bag(database, "set"), self._unique()
        counters = [self._counter(each) for each in (one, two)]
        self._twins.add((one, two))
        body: list[tuple[Arg, ...]] = [("INCR", one[1]), ("SADD", place[1], name), ("INCR", two[1])]

        def settle(replies: Sequence[bytes] | None) -> None:
            reply = replies[-1] if replies else None
            if replies is not None and replies[0] != b"+OK\r\n":
                self.violations.append(f"{self._name}: MULTI was answered {replies[0][:200]!r}")
            done = self._fate(reply)
            results = _value(reply) if done is Fate.DONE and reply is not None else None
            if done is Fate.DONE and (not isinstance(results, list) or len(results) != len(body)):
                self.violations.append(f"{self._name}: EXEC was answered {reply[:200]!r}" if reply else "")
                return
            bag.put(done, [name])
            for counter, place_, index in zip(counters, (one, two), (0, 2), strict=True):
                self._refuted(place_, counter.add(done, 1, results[index] if results else None))

        return Operation([("MULTI",), *body, ("EXEC",)], settle)

    def _function(self, database: int) -> Operation:
        code = _LIBRARY.format(self._name, self._unique().decode())
        return self._single(
            ("FUNCTION", "LOAD", "REPLACE", code), lambda done, _: self._library.write(done, {code.encode()})
        )

    # --- helpers of the operations ---

    def _single(self, command: tuple[Arg, ...], settle: Callable[[Fate, Any], None]) -> Operation:
        """One command that a healthy Redis does not answer with an error."""

        def settled(replies: Sequence[bytes] | None) -> None:
            reply = replies[0] if replies else None
            done = self._fate(reply)
            result = _value(reply) if done is Fate.DONE and reply is not None else None
            if isinstance(result, redis.ResponseError):
                self.violations.append(f"{self._name}: {command[:3]!r} was answered {result}")
                return
            settle(done, result)

        return Operation([command], settled)

    def _takes(self, place: Place, entry: Bag, command: tuple[Arg, ...], at_most: int) -> Operation:
        return self._single(
            command, lambda done, result: self._refuted(place, entry.take(done, result or [], at_most=at_most))
        )

    def _fate(self, reply: bytes | None) -> Fate:
        found = fate(reply)
        self.fates[found] += 1
        return found

    def _refuted(self, place: Place, problem: str) -> None:
        self.violations += _named(_name(place), problem)

    def _unique(self) -> bytes:
        self._serial += 1
        return b"%b.%d" % (self._name.encode(), self._serial)

    def _key(self, database: int, kind: str, keys: int) -> Place:
        return database, f"{self._name}:{kind}:{self._random.randrange(keys)}"

    def _register(self, database: int) -> Place:
        return self._key(database, "s", _REGISTERS)

    def _at(self, place: Place) -> Register:
        return self._entry(place, "string", Register)

    def _bag(self, database: int, kind: str) -> tuple[Place, Bag]:
        place = self._key(database, kind, 3)
        return place, self._entry(place, kind, Bag)

    def _counter(self, place: Place, kind: str = "number", field: str = "") -> Counter:
        return self._entry(place, kind, Counter, field)

    def _entry(self, place: Place, kind: str, make: Callable[[], E], field: str = "") -> E:
        """The entry of a key, or of its field; it is always asked for with the same type."""
        return self._entries.setdefault((place, field), (kind, make()))[1]  # type: ignore[return-value]

    # --- comparing ---

    def _compare(self, client: redis.Redis, database: int) -> list[str]:
        found: list[str] = []
        for (place, field), (kind, entry) in self._entries.items():
            if place[0] == database:
                found += _named(
                    f"{_name(place)} {field}".rstrip(), entry.wrong(_contents(client, kind, place[1], field))
                )
        for one, two in self._twins:
            if one[0] == database and client.get(one[1]) != client.get(two[1]):
                found.append(f"{_name(one)} and {_name(two)} were only changed together, and differ")
        return found


_OPERATIONS: list[Callable[[Writer, int], Operation]] = [
    *[Writer._set] * 4,
    Writer._append,
    Writer._replace,
    Writer._delete,
    Writer._rename,
    *[Writer._increment] * 3,
    *[Writer._push] * 2,
    *[Writer._pop] * 2,
    *[Writer._set_add] * 2,
    *[Writer._set_pop] * 2,
    Writer._sorted_add,
    Writer._sorted_pop,
    Writer._sorted_increment,
    *[Writer._hash_set] * 2,
    Writer._hash_increment,
    Writer._stream_add,
    Writer._script,
    *[Writer._transaction] * 2,
]


def _contents(client: redis.Redis, kind: str, key: str, field: str) -> Any:
    """What a server holds, in the form that the entry of this kind compares."""
    readers: dict[str, Callable[[], Any]] = {
        "string": lambda: client.get(key),
        "number": lambda: int(client.get(key) or 0),
        "list": lambda: client.lrange(key, 0, -1),
        "set": lambda: list(client.smembers(key)),
        "zset": lambda: client.zrange(key, 0, -1),
        "stream": lambda: [fields[b"name"] for _, fields in client.xrange(key)],
        "hash value": lambda: client.hget(key, field),
        "hash number": lambda: int(client.hget(key, field) or 0),
        "zset number": lambda: int(client.zscore(key, field) or 0),
    }
    return readers[kind]()


def _value(reply: bytes) -> Any:
    """A reply as int, bytes, None, list, text (status) or ``ResponseError``."""
    head, elements = children(reply)
    body = head[1:-2]
    match head[:1]:
        case b":":
            return int(body)
        case b"+":
            return body.decode()
        case b"-":
            return redis.ResponseError(body.decode(errors="replace"))
        case b"*":
            return None if body == b"-1" else [_value(element) for element in elements]
        case b"_":
            return None
        case _:
            if reply.startswith(b"$-1"):
                return None
            start = reply.index(b"\r\n") + 2
            return reply[start:-2]


def _pairs(flat: list[Any]) -> dict[bytes, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _named(name: str, problem: str) -> list[str]:
    return [f"{name} {problem}"] if problem else []


def _name(place: Place) -> str:
    return f"db {place[0]} {place[1]}"
