"""Clients of both sides at one counter and one queue: what two sidecars must not give to two clients.

Owns: what each client was answered, and what it must not have been. Every number that ``INCR`` gives, and every element
that ``LPOP`` takes, may be given once. A client whose connection breaks goes to the other side, as a common service
would send it; an error reply is counted and it goes on.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from redisha.demo.children import wait_until
from redisha.demo.sidecars import Sidecar

if TYPE_CHECKING:
    from redis import Redis

COUNTER = "contest:counter"
QUEUE = "contest:queue"

CLIENTS = 3
"""Per side."""

_PAUSE = 0.01
_KEYS = 500

LOST = "connection lost"
"""How a broken connection is counted, whatever the library calls it."""


@dataclass(slots=True)
class Told:
    """What one client was answered.

    Attributes:
        home: the side where it began.
        numbers: that ``INCR`` gave it.
        pushed: elements whose ``RPUSH`` was answered.
        popped: elements that ``LPOP`` gave it.
        errors: error replies and broken connections, in words, each with the side where that was.
        unanswered_pops: ``LPOP`` that got no answer: each may have taken an element.
        answered: commands that were answered.
        longest: seconds of the slowest of them.
    """

    home: str
    numbers: list[int] = field(default_factory=list)
    pushed: list[str] = field(default_factory=list)
    popped: list[str] = field(default_factory=list)
    errors: list[tuple[str, str]] = field(default_factory=list)
    unanswered_pops: int = 0
    answered: int = 0
    longest: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What all clients together were answered.

    Attributes:
        answered: commands.
        numbers: that were handed out.
        twice: numbers that were handed out to two clients.
        popped: elements that were taken.
        popped_twice: elements that two clients were given.
        unanswered_pops: pops that got no answer: each may have taken an element.
    """

    answered: int
    numbers: int
    twice: int
    popped: int
    popped_twice: int
    unanswered_pops: int = 0

    def __str__(self) -> str:
        """In words."""
        return (
            f"{self.numbers:,} numbers handed out, {self.twice:,} of them twice; {self.popped:,} elements popped, "
            f"{self.popped_twice:,} of them twice"
        )


class Contest:
    """The clients, from ``with`` to the end of its block.

    Args:
        sides: the sidecars.
        clients: how many of each.
    """

    def __init__(self, sides: tuple[Sidecar, ...], clients: int = CLIENTS) -> None:
        self._sides = sides
        self._stop = threading.Event()
        self._told = [Told(side.name) for side in sides for _ in range(clients)]
        self._threads = [
            threading.Thread(target=self._play, args=(number, told), daemon=True)
            for number, told in enumerate(self._told)
        ]

    @property
    def answered(self) -> int:
        """Commands that were answered so far."""
        return sum(each.answered for each in self._told)

    def answered_at(self, side: str) -> int:
        """The same of the clients that began at a side."""
        return sum(each.answered for each in self._told if each.home == side)

    @property
    def errors(self) -> list[str]:
        """All errors so far, in words."""
        return [text for each in self._told for _, text in each.errors]

    def errors_at(self, side: str) -> list[str]:
        """The same, of commands that were sent to a side."""
        return [text for each in self._told for where, text in each.errors if where == side]

    @property
    def longest(self) -> float:
        """Seconds of the slowest command that was answered."""
        return max(each.longest for each in self._told)

    def wait_for_more(self) -> None:
        """Wait until the clients were answered some more commands.

        Raises:
            DemoError: they are not in time.
        """
        enough = self.answered + 4 * len(self._told)
        wait_until(lambda: self.answered > enough, "clients are answered", 30)

    def verdict(self) -> Verdict:
        """What all were answered; asked for at the end."""
        numbers = [number for each in self._told for number in each.numbers]
        popped = [element for each in self._told for element in each.popped]
        return Verdict(
            self.answered,
            len(numbers),
            sum(count - 1 for count in Counter(numbers).values()),
            len(popped),
            sum(count - 1 for count in Counter(popped).values()),
            sum(each.unanswered_pops for each in self._told),
        )

    def missing(self, left: list[str]) -> int:
        """Elements whose push was answered, that nobody was given and that are not left in the queue.

        A pop that got no answer may have taken one of them; more than that must not be missing.
        """
        pushed = {element for each in self._told for element in each.pushed}
        return len(pushed - {element for each in self._told for element in each.popped} - set(left))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)

    def _play(self, number: int, told: Told) -> None:
        from redis import ConnectionError as BrokenError
        from redis import RedisError

        at = next(at for at, side in enumerate(self._sides) if side.name == told.home)
        client = self._client(at)
        while not self._stop.is_set():
            try:
                self._round(client, number, told)
            except RedisError as error:
                broken = isinstance(error, BrokenError)
                told.errors.append((self._sides[at].name, LOST if broken else str(error)))
                if broken:
                    client.close()
                    at = (at + 1) % len(self._sides)
                    client = self._client(at)
                self._stop.wait(_PAUSE)
        client.close()

    def _client(self, at: int) -> "Redis":
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        # Without retries: an error that a client would see shall be counted.
        return self._sides[at].client(retry=Retry(NoBackoff(), 0), socket_timeout=15, decode_responses=True)

    def _round(self, client: Any, number: int, told: Told) -> None:
        """Four commands, one after the other."""
        drawn = int(self._timed(told, client.incr, COUNTER))
        told.numbers.append(drawn)
        element = f"{number}:{drawn}"
        self._timed(told, client.rpush, QUEUE, element)
        told.pushed.append(element)
        told.unanswered_pops += 1
        taken = self._timed(told, client.lpop, QUEUE)
        told.unanswered_pops -= 1
        if taken is not None:
            told.popped.append(str(taken))
        self._timed(told, client.set, f"contest:{drawn % _KEYS}", element)

    def _timed(self, told: Told, command: Callable[..., Any], *args: object) -> Any:
        begin = time.monotonic()
        answer = command(*args)
        told.longest = max(told.longest, time.monotonic() - begin)
        told.answered += 1
        return answer
