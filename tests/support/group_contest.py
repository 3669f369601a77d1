"""Clients of all members that want the same keys, and the account of what they were told.

Numbers are handed out, a queue is worked off, locks are taken, pairs are changed together: what one Redis would never
do twice, a group must not do twice either. Nothing is sent twice: what had no reply is in doubt.
"""

import bisect
import itertools
import random
import threading
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from support import wait
from support.crowd import Crowd
from support.group_stage import Member
from support.ledger import Fate, Register, fate
from support.redis_server import RedisServer
from support.wire import Arg, ClosedError, Conn, children
from support.writers import Operation, Writer

_SHOWN = 15
_REPLY_TIMEOUT = 25.0
_LOCK_S = 0.05
"""So long everybody wants the same lock."""
_REFUSED = (b"-NOLEADER ", b"-MISCONF ")
_SCRIPT = "local n = redis.call('incr', KEYS[1]); redis.call('rpush', KEYS[2], n .. ':' .. ARGV[1]); return n"
NUMBERS = ("c:number", "c:script", "c:one")


def fate_in_group(reply: bytes | None) -> Fate:
    """The same as :func:`support.ledger.fate`, with the words of groups and of a Redis whose disk is full."""
    return Fate.REFUSED if reply is not None and reply.startswith(_REFUSED) else fate(reply)


@dataclass
class _Account:
    """What one client was told."""

    numbers: dict[str, list[int]] = field(default_factory=dict)
    numbers_in_doubt: Tally[str] = field(default_factory=Tally)
    pushed: set[bytes] = field(default_factory=set)
    perhaps_pushed: set[bytes] = field(default_factory=set)
    popped: list[bytes] = field(default_factory=list)
    pops_in_doubt: int = 0
    locks: dict[str, bytes] = field(default_factory=dict)
    """Those it has got."""
    locks_in_doubt: dict[str, set[bytes]] = field(default_factory=dict)
    own: dict[str, Register] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    """When a write was acknowledged."""
    errors: list[tuple[float, str]] = field(default_factory=list)
    closed: list[float] = field(default_factory=list)
    """When a connection ended."""
    cut: int = 0
    """Commands that were on their way then."""
    violations: list[str] = field(default_factory=list)


class Contest:
    """Clients of each member; start it with ``with``.

    Args:
        members: where they connect, ``clients`` to each.
        seed: for the order of what they do.
        consistency: what each connection asks for: ``("quorum",)``, ``("quorum", "leader")``; empty: the listener's.
        pace: each client's pause between two operations.
        patience: seconds to wait for a reply.
        transactions: whether MULTI … EXEC is among what they do.
    """

    def __init__(
        self,
        members: Sequence[Member],
        *,
        seed: int,
        clients: int = 2,
        consistency: Sequence[str] = (),
        pace: float = 0.003,
        patience: float = _REPLY_TIMEOUT,
        transactions: bool = True,
        name: str = "",
    ) -> None:
        self._consistency = consistency
        self._pace = pace
        self._patience = patience
        self._stop = threading.Event()
        self._accounts: dict[str, list[_Account]] = {member.name: [] for member in members}
        self._threads = []
        for member in members:
            for at in range(clients):
                account = _Account()
                self._accounts[member.name].append(account)
                rng = random.Random(f"{seed}{member.name}{at}")
                client = _Client(f"{name}{member.name}.{at}", member, account, rng, transactions=transactions)
                thread = threading.Thread(target=self._run, args=(client,), name=client.name, daemon=True)
                self._threads.append(thread)

    # --- looking ---

    def _of(self, member: Member | None) -> list[_Account]:
        if member is not None:
            return self._accounts[member.name]
        return [account for accounts in self._accounts.values() for account in accounts]

    def succeeded(self, member: Member | None = None, since: float = 0.0) -> int:
        """Acknowledged writes of a member's clients (all by default) since then."""
        return sum(len(a.times) - bisect.bisect_left(a.times, since) for a in self._of(member))

    def goes_on(self, count: int = 50, members: Iterable[Member] = (), timeout: float = 30.0) -> float:
        """Wait until so many more writes of each of these (all by default) are acknowledged; seconds it took."""
        since = time.monotonic()
        wanted = list(members)
        names = [member.name for member in wanted] or list(self._accounts)

        def enough() -> bool:
            assert not self.violations(), self.violations()[:_SHOWN]
            per = [sum(len(a.times) - bisect.bisect_left(a.times, since) for a in self._accounts[n]) for n in names]
            return min(per) >= count

        wait.until(enough, f"{count} writes at each of {names} are acknowledged", timeout)
        return time.monotonic() - since

    def first_success(self, member: Member | None, since: float) -> float:
        """Seconds from then until the first write that was sent and acknowledged later."""
        firsts = [a.times[at] for a in self._of(member) if (at := bisect.bisect_right(a.times, since)) < len(a.times)]
        assert firsts, "no write was acknowledged since"
        return min(firsts) - since

    def gap(self, member: Member | None, since: float) -> float:
        """The longest time without an acknowledged write since then."""
        times = sorted([since, *(t for a in self._of(member) for t in a.times if t > since)])
        return max(b - a for a, b in itertools.pairwise(times)) if len(times) > 1 else float("inf")

    def errors(self, member: Member | None = None, since: float = 0.0) -> list[str]:
        """Errors that a member's clients were told; broken connections are not among them."""
        return [text for a in self._of(member) for at, text in a.errors if at >= since]

    def cut(self, member: Member | None = None) -> int:
        """Commands whose connection ended before their replies."""
        return sum(a.cut for a in self._of(member))

    def closed(self, member: Member | None = None) -> int:
        """Connections that ended."""
        return sum(len(a.closed) for a in self._of(member))

    def violations(self) -> list[str]:
        """Replies that no Redis gives."""
        return [text for account in self._of(None) for text in account.violations]

    # --- running ---

    def stop(self) -> None:
        """Let each client finish what it does, and wait for that."""
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(_REPLY_TIMEOUT + 10)
                assert not thread.is_alive(), f"client {thread.name} hangs"

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self, client: "_Client") -> None:
        while not self._stop.is_set():
            try:
                with client.member.conn(self._patience) as conn:
                    if self._consistency:
                        reply = conn.command("REDISHA", "CONSISTENCY", *self._consistency)
                        assert reply == b"+OK\r\n", reply
                    while not self._stop.wait(self._pace):
                        client.act(conn)
            except TimeoutError as error:
                client.account.violations.append(f"{client.name} got no answer: {error}")
                return
            except (ClosedError, OSError):
                client.account.closed.append(time.monotonic())
                self._stop.wait(0.02)
            except Exception as error:
                client.account.violations.append(f"{client.name} failed: {error!r}")
                raise

    # --- the account ---

    def problems(self, server: RedisServer, *, lost: frozenset[str] = frozenset()) -> list[str]:
        """In what a server is not what the clients were told, and what they were told that cannot be.

        ``lost``: members whose clients' acknowledged writes may be missing (a leader that died with ``one``).
        """
        self.stop()
        accounts = self._of(None)
        sure = [a for name, group in self._accounts.items() if name not in lost for a in group]
        found = self.violations()
        with server.client(socket_timeout=30) as client:
            found += self._numbers_wrong(client, accounts, sure)
            found += _queue_wrong(client, accounts, sure)
            found += _locks_wrong(client, accounts, sure)
            a, b = (int(client.get(key) or 0) for key in ("c:one", "c:two"))
            if a != b:
                found.append(f"c:one is {a} and c:two is {b}, and they were only changed together")
            for account in sure:
                for key, register in account.own.items():
                    if text := register.wrong(client.get(key)):
                        found.append(f"{key} {text}")
        return found

    def assert_sane(self, server: RedisServer, *, lost: frozenset[str] = frozenset()) -> None:
        """Nothing was handed out twice, nothing acknowledged is missing, nothing is there that was refused."""
        found = self.problems(server, lost=lost)
        done = self.succeeded()
        shown = "\n".join(found[:_SHOWN])
        assert not found, (
            f"{len(found)} contradictions after {done} acknowledged writes, {len(self.errors())} errors"
            f" ({sorted(set(self.errors()))[:5]}), {self.cut()} cut:\n{shown}"
        )
        assert done > 0

    def assert_no_errors(self, member: Member | None = None, since: float = 0.0) -> None:
        """No client of this member was told an error, and none lost its connection."""
        errors = self.errors(member, since)
        assert not errors, f"{len(errors)} errors: {sorted(set(errors))[:5]}"
        gone = sum(t >= since for a in self._of(member) for t in a.closed)
        assert gone == 0, f"{gone} connections ended"

    @staticmethod
    def _numbers_wrong(client: Any, accounts: list[_Account], sure: list[_Account]) -> list[str]:
        found = []
        for key in NUMBERS:
            told = Tally(n for a in sure for n in a.numbers.get(key, ()))
            twice = sorted(n for n, times in told.items() if times > 1)
            if twice:
                found.append(f"{key}: {len(twice)} numbers were handed out twice: {twice[:10]}")
            now = int(client.get(key) or 0)
            doubts = sum(a.numbers_in_doubt[key] for a in accounts)
            all_told = sum(len(a.numbers.get(key, ())) for a in accounts)
            if told and now < max(told):
                found.append(f"{key} is {now}, and {max(told)} was handed out")
            if not len(set(told)) <= now <= all_told + doubts:
                found.append(f"{key} is {now} after {len(told)} to {all_told + doubts} increments")
        return found


def _queue_wrong(client: Any, accounts: list[_Account], sure: list[_Account]) -> list[str]:
    found = []
    popped = Tally(name for a in sure for name in a.popped)
    twice = sorted(name for name, times in popped.items() if times > 1)
    if twice:
        found.append(f"{len(twice)} elements were popped twice: {twice[:5]}")
    all_popped = {name for a in accounts for name in a.popped}
    known = {name for a in accounts for name in a.pushed | a.perhaps_pushed}
    if unknown := sorted(set(popped) - known):
        found.append(f"popped, but never pushed: {unknown[:5]}")
    left = client.lrange("c:queue", 0, -1)
    if len(set(left)) < len(left):
        found.append(f"{len(left) - len(set(left))} elements are in the queue twice")
    if back := sorted(set(left) & set(popped)):
        found.append(f"{len(back)} were popped and are in the queue: {back[:5]}")
    if unknown := sorted(set(left) - known):
        found.append(f"in the queue, but never pushed: {unknown[:5]}")
    missing = {name for a in sure for name in a.pushed} - set(left) - all_popped
    doubts = sum(a.pops_in_doubt for a in accounts)
    if len(missing) > doubts:
        found.append(f"{len(missing)} acknowledged elements are missing, {doubts} pops in doubt: {sorted(missing)[:5]}")
    return found


def _locks_wrong(client: Any, accounts: list[_Account], sure: list[_Account]) -> list[str]:
    found = []
    winners: dict[str, list[bytes]] = {}
    for account in sure:
        for lock, name in account.locks.items():
            winners.setdefault(lock, []).append(name)
    for lock, names in winners.items():
        if len(names) > 1:
            found.append(f"{lock} was given to {names}")
    locks = list(winners)
    for start in range(0, len(locks), 500):
        part = locks[start : start + 500]
        for lock, held in zip(part, client.mget(part), strict=True):
            if held != winners[lock][0]:
                found.append(f"{lock} was given to {winners[lock][0]!r} and is {held!r}")
    return found


class _Client:
    """What one client does; each operation writes what it was told into the account."""

    def __init__(self, name: str, member: Member, account: _Account, rng: random.Random, *, transactions: bool) -> None:
        self._operations = [each for each in _OPERATIONS if transactions or each is not _Client._transaction]
        self.name = name
        self.member = member
        self.account = account
        self._random = rng
        self._serial = 0

    def act(self, conn: Conn) -> None:
        """One of the operations."""
        self._random.choice(self._operations)(self, conn)

    def _exchange(self, conn: Conn, *commands: tuple[Arg, ...]) -> list[bytes] | None:
        """The replies; None: the connection ended before the last. The caller settles, then the connection is left.

        On one that the other side has closed before nothing is sent: that costs a client nothing but the connecting.
        """
        if not conn.silent_for(0.0001):
            raise ClosedError(b"")
        try:
            return conn.pipeline(*commands)
        except (ClosedError, ConnectionError):
            self.account.cut += 1
            return None

    def _settle(self, reply: bytes | None, what: str) -> Fate:
        """The fate of a write, noted."""
        found = fate_in_group(reply)
        if reply is not None and reply.startswith(b"-"):
            self.account.errors.append((time.monotonic(), reply.decode(errors="replace").strip()))
            if found is Fate.DONE:
                self.account.violations.append(f"{self.name}: {what} was answered {reply[:200]!r}")
                return Fate.REFUSED
        elif found is Fate.DONE:
            self.account.times.append(time.monotonic())
        return found

    @staticmethod
    def _leave_if_closed(replies: list[bytes] | None) -> None:
        if replies is None:
            raise ClosedError(b"")

    def _unique(self) -> bytes:
        self._serial += 1
        return f"{self.name}:{self._serial}".encode()

    def _number(self, key: str, done: Fate, reply: bytes | None) -> None:
        if done is Fate.IN_DOUBT:
            self.account.numbers_in_doubt[key] += 1
        elif done is Fate.DONE and reply is not None:
            self.account.numbers.setdefault(key, []).append(int(reply[1:-2]))

    # --- operations ---

    def _increment(self, conn: Conn) -> None:
        replies = self._exchange(conn, ("INCR", "c:number"))
        reply = replies[0] if replies else None
        self._number("c:number", self._settle(reply, "INCR"), reply)
        self._leave_if_closed(replies)

    def _script(self, conn: Conn) -> None:
        replies = self._exchange(conn, ("EVAL", _SCRIPT, 2, "c:script", "c:scripts", self._unique()))
        reply = replies[0] if replies else None
        self._number("c:script", self._settle(reply, "EVAL"), reply)
        self._leave_if_closed(replies)

    def _push(self, conn: Conn) -> None:
        name = self._unique()
        replies = self._exchange(conn, ("LPUSH", "c:queue", name))
        done = self._settle(replies[0] if replies else None, "LPUSH")
        if done is Fate.DONE:
            self.account.pushed.add(name)
        elif done is Fate.IN_DOUBT:
            self.account.perhaps_pushed.add(name)
        self._leave_if_closed(replies)

    def _pop(self, conn: Conn) -> None:
        replies = self._exchange(conn, ("LPOP" if self._random.random() < 0.3 else "RPOP", "c:queue"))
        reply = replies[0] if replies else None
        done = self._settle(reply, "LPOP")
        if done is Fate.IN_DOUBT:
            self.account.pops_in_doubt += 1
        elif done is Fate.DONE and reply is not None and not reply.startswith(b"$-1"):
            self.account.popped.append(reply.split(b"\r\n", 1)[1][:-2])
        self._leave_if_closed(replies)

    def _lock(self, conn: Conn) -> None:
        lock, name = f"c:lock:{int(time.monotonic() / _LOCK_S)}", self._unique()
        replies = self._exchange(conn, ("SET", lock, name, "NX"))
        reply = replies[0] if replies else None
        done = self._settle(reply, "SET NX")
        if done is Fate.IN_DOUBT:
            self.account.locks_in_doubt.setdefault(lock, set()).add(name)
        elif reply == b"+OK\r\n":
            if lock in self.account.locks:
                self.account.violations.append(f"{self.name}: {lock} was given to it twice")
            self.account.locks[lock] = name
        self._leave_if_closed(replies)

    def _transaction(self, conn: Conn) -> None:
        replies = self._exchange(conn, ("MULTI",), ("INCR", "c:one"), ("INCR", "c:two"), ("EXEC",))
        reply = replies[-1] if replies else None
        done = self._settle(reply, "EXEC")
        if done is Fate.DONE and reply is not None:
            numbers = [int(each[1:-2]) for each in children(reply)[1] if each.startswith(b":")]
            if len(numbers) != 2 or numbers[0] != numbers[1]:
                self.account.violations.append(f"{self.name}: EXEC was answered {reply!r}")
            else:
                self.account.numbers.setdefault("c:one", []).append(numbers[0])
        elif done is Fate.IN_DOUBT:
            self.account.numbers_in_doubt["c:one"] += 1
        self._leave_if_closed(replies)

    def _own(self, conn: Conn) -> None:
        """A value that only this client writes, and reads at once: on the same connection, pipelined or not."""
        key, value = f"own:{self.name}:{self._random.randrange(50)}", self._unique()
        register = self.account.own.setdefault(key, Register())
        commands: list[tuple[Arg, ...]] = [("SET", key, value), ("GET", key)]
        if self._random.random() < 0.5:
            replies = self._exchange(conn, *commands)
            register.write(self._settle(replies[0] if replies else None, "SET"), {value})
            self._leave_if_closed(replies)
        else:
            one = self._exchange(conn, commands[0])
            register.write(self._settle(one[0] if one else None, "SET"), {value})
            self._leave_if_closed(one)
            two = self._exchange(conn, commands[1])
            self._leave_if_closed(two)
            replies = [*(one or ()), *(two or ())]
        if replies is not None and not replies[1].startswith(b"-"):
            read = None if replies[1].startswith(b"$-1") else replies[1].split(b"\r\n", 1)[1][:-2]
            if text := register.wrong(read):
                self.account.violations.append(f"{self.name} has just written {key} and reads: {text}")


_OPERATIONS: list[Callable[[_Client, Conn], None]] = [
    *[_Client._increment] * 3,
    *[_Client._push] * 3,
    *[_Client._pop] * 3,
    *[_Client._lock] * 2,
    *[_Client._own] * 3,
    _Client._transaction,
    _Client._script,
]


class _Translated:
    """A writer's operations; a refusal that the ledger does not know is told to it as one that it knows."""

    def __init__(self, writer: Writer, *, transactions: bool) -> None:
        self._writer = writer
        self._transactions = transactions

    def operations(self, database: int, size: int) -> Sequence[Operation]:
        """The next ones."""
        made = [self._writer.operation(database) for _ in range(size)]
        return [self._told(each) for each in made if self._transactions or each.commands[0] != ("MULTI",)]

    @staticmethod
    def _told(operation: Operation) -> Operation:
        def settle(replies: Sequence[bytes] | None) -> None:
            operation.settle(None if replies is None else [_known(reply) for reply in replies])

        return Operation(operation.commands, settle)


def _known(reply: bytes) -> bytes:
    return b"-UNAVAILABLE " + reply[1:] if reply.startswith(_REFUSED) else reply


class GroupCrowd(Crowd):
    """The crowd of one member: every type of data on keys of its own, with a ledger; and some that are shared."""

    def __init__(self, member: Member, *, seed: int, writers: int = 2, wild: int = 1, **options: Any) -> None:
        databases = options.pop("databases", (0, 1))
        transactions = options.pop("transactions", True)
        seed += sum(member.name.encode())
        made = [Writer(f"{member.name}-{number}", seed * 1_000 + number, functions=False) for number in range(writers)]
        super().__init__(
            member.port,
            seed=seed,
            writers=0,
            wild=wild,
            name=member.name,
            databases=databases,
            others=[(_Translated(writer, transactions=transactions), databases) for writer in made],
            **options,
        )
        self.writers = made
