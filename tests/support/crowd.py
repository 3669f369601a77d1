"""Clients that write through a sidecar while everything around them breaks, and remember what they were told.

Each client has a thread and a connection. When the connection ends it makes another one: what had no reply is in
doubt. Nothing is sent twice.
"""

import random
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from support import wait
from support.ledger import Fate
from support.load import Mixed
from support.redis_server import RedisServer
from support.wire import Arg, ClosedError, Conn, encode
from support.writers import Operation, Writer

_REPLY_TIMEOUT = 20.0
_SHOWN = 20


class Source(Protocol):
    """What a client sends: batches of commands for a database."""

    def operations(self, database: int, size: int) -> Sequence[Operation]:
        """The next ones."""


class _Own:
    """A writer with its ledger."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer

    def operations(self, database: int, size: int) -> Sequence[Operation]:
        return [self.writer.operation(database) for _ in range(size)]


class Wild:
    """Mixed commands of every type on keys that all clients of this kind share; nobody remembers their replies.

    Short lives, scripts that are not repeatable, errors: what can only be checked by comparing the servers.
    """

    def __init__(self, seed: int, prefix: str = "wild:", keys: int = 30) -> None:
        self._mixed = Mixed(seed, keys=keys, prefix=prefix)

    def operations(self, database: int, size: int) -> Sequence[Operation]:
        """One batch as a whole: there may be a transaction in it."""
        return [Operation(self._mixed.batch(size), _forget)]


class Movers:
    """Renames, copies, moves and swaps whole databases of keys; only in databases where nobody has a ledger."""

    def __init__(self, seed: int, databases: Sequence[int], prefix: str = "m:", keys: int = 200) -> None:
        self._random = random.Random(seed)
        self._databases = databases
        self._prefix = prefix
        self._keys = keys

    def operations(self, database: int, size: int) -> Sequence[Operation]:
        """``database`` is where the connection is; the others are named in the commands."""
        return [Operation([self._command(database)], _forget) for _ in range(size)]

    def _command(self, database: int) -> tuple[Arg, ...]:
        rng, other = self._random, self._random.choice(self._databases)
        one, two = (f"{self._prefix}{rng.randrange(self._keys)}" for _ in range(2))
        commands: list[tuple[int, tuple[Arg, ...]]] = [
            (30, ("SET", one, rng.randbytes(20))),
            (10, ("SET", one, rng.randbytes(20), "PX", rng.choice((50, 7_200_000)))),
            (10, ("RPUSH", f"{one}:list", rng.randbytes(5))),
            (15, ("RENAME", one, two)),
            (10, ("RENAMENX", one, two)),
            (10, ("COPY", one, two, "DB", other, "REPLACE")),
            (5, ("LMOVE", f"{one}:list", f"{two}:list", "LEFT", "RIGHT")),
            (5, ("COPY", f"{one}:list", f"{two}:list")),
            (10, ("MOVE", one, other if other != database else self._databases[database == self._databases[0]])),
            (0 if rng.random() > 0.1 else 5, ("SWAPDB", database, other)),
            (0 if rng.random() > 0.02 else 5, ("FLUSHDB",)),
        ]
        return rng.choices([command for _, command in commands], [weight for weight, _ in commands])[0]


def _forget(replies: Sequence[bytes] | None) -> None:
    """Nobody keeps account of these."""


class Crowd:
    """Some writers and some others, sending until told to stop."""

    def __init__(
        self,
        port: int,
        *,
        seed: int,
        writers: int = 3,
        wild: int = 1,
        name: str = "c",
        functions: bool = True,
        databases: Sequence[int] = (0, 1),
        others: Sequence[tuple[Source, Sequence[int]]] = (),
        pace: float = 0.005,
        batch: int = 10,
    ) -> None:
        """``others`` are more sources, each with its databases; ``pace`` is each client's pause between two batches."""
        self._port = port
        self._pace = pace
        self._batch = batch
        self._stop = threading.Event()
        self._go = threading.Event()
        self._go.set()
        self._broken: list[str] = []
        self.writers = [
            Writer(f"{name}{number}", seed * 1_000 + number, functions=functions) for number in range(writers)
        ]
        sources: list[tuple[Source, Sequence[int]]] = [(_Own(writer), databases) for writer in self.writers]
        sources += [(Wild(seed * 1_000 + 100 + number), databases) for number in range(wild)]
        sources += others
        self._answered = [0] * len(sources)
        self._resting = [False] * len(sources)
        self._threads = [
            threading.Thread(target=self._run, args=(number, *source), name=f"{name}{number}", daemon=True)
            for number, source in enumerate(sources)
        ]

    @property
    def answered(self) -> int:
        """How many commands of all clients were answered, whatever the answer."""
        return sum(self._answered)

    @property
    def acknowledged(self) -> int:
        """How many writes the ledgers know to be done."""
        return sum(writer.fates[Fate.DONE] for writer in self.writers)

    @property
    def in_doubt(self) -> int:
        """How many writes the ledgers have in doubt."""
        return sum(writer.fates[Fate.IN_DOUBT] for writer in self.writers)

    def acknowledges(self, count: int, timeout: float = 30.0) -> None:
        """Wait until so many more writes are acknowledged."""
        goal = self.acknowledged + count
        wait.until(lambda: self._broken or self.acknowledged >= goal, f"{count} writes are acknowledged", timeout)
        assert not self._broken, self._broken

    def rest(self) -> None:
        """Let each client finish its batch and send nothing more, until :meth:`go_on`."""
        self._go.clear()
        wait.until(lambda: all(self._resting), "all clients rest", _REPLY_TIMEOUT + 10)

    def go_on(self) -> None:
        """End a :meth:`rest`."""
        self._go.set()

    def stop(self) -> None:
        """Let each client finish its batch, and wait for that."""
        self._stop.set()
        self._go.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(_REPLY_TIMEOUT + 10)
                assert not thread.is_alive(), f"client {thread.name} hangs"

    def assert_kept(self, server: RedisServer) -> None:
        """The server holds what was acknowledged, nothing that was refused, and nothing twice."""
        self.stop()
        found = self._broken + [problem for writer in self.writers for problem in writer.problems(server)]
        shown = "\n".join(found[:_SHOWN])
        assert not found, (
            f"{len(found)} contradictions on {server.address} after {self.acknowledged} acknowledged writes"
            f" and {self.in_doubt} in doubt:\n{shown}"
        )

    def assert_undisturbed(self) -> None:
        """No client was told anything but success: what broke was not its business."""
        assert not self._broken, self._broken
        fates = [writer.fates for writer in self.writers]
        assert not any(each[Fate.REFUSED] or each[Fate.IN_DOUBT] for each in fates), fates

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self, number: int, source: Source, databases: Sequence[int]) -> None:
        rng = random.Random(number)
        while not self._stop.is_set():
            self._rest_if_told(number)
            try:
                with Conn(self._port, timeout=_REPLY_TIMEOUT) as conn:
                    self._serve(conn, number, source, databases, rng)
            except TimeoutError as error:
                self._broken.append(f"client {number} got no answer: {error}")
                return
            except (ClosedError, OSError):
                self._stop.wait(0.02)
            except Exception as error:
                self._broken.append(f"client {number} failed: {error!r}")
                raise

    def _rest_if_told(self, number: int) -> None:
        self._resting[number] = True
        self._go.wait()
        self._resting[number] = False

    def _serve(self, conn: Conn, number: int, source: Source, databases: Sequence[int], rng: random.Random) -> None:
        """Send batches over one connection until it ends or it is time to stop."""
        while not self._stop.wait(self._pace):
            self._rest_if_told(number)
            database = rng.choice(databases)
            if conn.command("SELECT", database) != b"+OK\r\n":
                continue
            operations = source.operations(database, self._batch)
            commands = [command for operation in operations for command in operation.commands]
            settled = 0
            try:
                conn.send(b"".join(encode(*command) for command in commands))
                for operation in operations:
                    replies = [conn.reply() for _ in operation.commands]
                    self._answered[number] += len(replies)
                    settled += 1
                    operation.settle(replies)
            finally:
                for operation in operations[settled:]:
                    operation.settle(None)
