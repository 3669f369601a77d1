"""What one client was told about keys that only it writes, and whether a server still holds it.

Every write has one of three fates: done (acknowledged), refused (the proxy said that not one byte was sent) or in
doubt (it may have been applied, or the connection ended before its reply). The entries below take fates and say what
a server may hold afterwards, as narrowly as the replies allow: an acknowledged write must be there, a refused one
must not, one in doubt is there as a whole or not at all.

Nothing here sends anything; :mod:`support.writers` does.
"""

from collections.abc import Collection, Iterable
from enum import Enum

_IN_DOUBT = b"-INDOUBT "
# LOADING is Redis's own word for the same: the command was not run.
_REFUSED = (b"-UNAVAILABLE ", b"-TIMEOUT ", b"-NOREPLICAS ", b"-LOADING ", b"-EXECABORT ")


class Fate(Enum):
    """What became of a write, as far as its client knows."""

    DONE = "done"
    REFUSED = "refused"
    IN_DOUBT = "in doubt"


def fate(reply: bytes | None) -> Fate:
    """The fate that a reply tells; None is a reply that never came."""
    if reply is None or reply.startswith(_IN_DOUBT):
        return Fate.IN_DOUBT
    return Fate.REFUSED if reply.startswith(_REFUSED) else Fate.DONE


class Register:
    """One value that is replaced as a whole. None is "not there"."""

    def __init__(self) -> None:
        self.possible: set[bytes | None] = {None}

    def write(self, fate: Fate, values: Collection[bytes | None]) -> None:
        """It became one of ``values`` (usually there is only one), or may have."""
        if fate is Fate.DONE:
            self.possible = set(values)
        elif fate is Fate.IN_DOUBT:
            self.possible |= set(values)

    def wrong(self, found: bytes | None) -> str:
        """What is wrong with the value that a server holds, or nothing."""
        if found in self.possible:
            return ""
        return f"is {found!r}, and could only be one of {sorted(map(repr, self.possible))}"


class Counter:
    """A number that is only added to."""

    def __init__(self) -> None:
        self.low = self.high = 0

    def add(self, fate: Fate, amount: int, result: int | None) -> str:
        """``amount`` was added; the reply was ``result``, if it told. Returns what is wrong with it, or nothing."""
        if fate is Fate.IN_DOUBT:
            self.low += min(amount, 0)
            self.high += max(amount, 0)
        elif fate is Fate.DONE:
            low, high = self.low + amount, self.high + amount
            self.low, self.high = (low, high) if result is None else (result, result)
            if not low <= self.low <= self.high <= high:
                return f"answered {result}, and could only be between {low} and {high}"
        return ""

    def wrong(self, found: int) -> str:
        """What is wrong with the number that a server holds, or nothing."""
        if self.low <= found <= self.high:
            return ""
        return f"is {found}, and could only be between {self.low} and {self.high}"


class Bag:
    """A container of names that are put in once and taken out once: a list, a set, a stream."""

    def __init__(self) -> None:
        self._put: set[bytes] = set()
        self._perhaps_put: set[bytes] = set()
        self._taken: set[bytes] = set()
        self._takes_in_doubt = 0

    def put(self, fate: Fate, names: Iterable[bytes]) -> None:
        """These were put in."""
        if fate is Fate.DONE:
            self._put |= set(names)
        elif fate is Fate.IN_DOUBT:
            self._perhaps_put |= set(names)

    def take(self, fate: Fate, names: Collection[bytes], at_most: int = 1) -> str:
        """These were handed out, of ``at_most`` asked for. Returns what is wrong with them, or nothing."""
        if fate is Fate.IN_DOUBT:
            self._takes_in_doubt += at_most
        if fate is not Fate.DONE:
            return ""
        twice = self._taken.intersection(names)
        unknown = set(names) - self._put - self._perhaps_put
        self._taken |= set(names)
        if twice:
            return f"handed out twice: {_shown(twice)}"
        return f"handed out, but never put in: {_shown(unknown)}" if unknown else ""

    def wrong(self, found: Collection[bytes]) -> str:
        """What is wrong with what a server holds, or nothing."""
        held = set(found)
        problems = []
        missing = self._put - self._taken - held
        if len(missing) > self._takes_in_doubt:
            problems.append(f"{len(missing)} of {len(self._put)} acknowledged are missing: {_shown(missing)}")
        if len(held) < len(found):
            problems.append(f"{len(found) - len(held)} are there more than once")
        if back := held & self._taken:
            problems.append(f"taken out, and there again: {_shown(back)}")
        if unknown := held - self._put - self._perhaps_put:
            problems.append(f"refused or never put in, and there: {_shown(unknown)}")
        return "; ".join(problems)


def _shown(names: Collection[bytes]) -> str:
    some = sorted(names)[:5]
    return ", ".join(map(repr, some)) + (" …" if len(names) > len(some) else "")
