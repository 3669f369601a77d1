"""Routes that meet in one Redis: works, and is worth a warning before it surprises.

What a mirror gets goes straight to its Redis and never through a listener, so routes that mirror in a circle are no
loop. But each route orders its own writes only, and what a Redis gets as a mirror is not sent on to its own mirrors.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from redisha.config.tree import Item, Report


@dataclass(frozen=True, slots=True)
class Way:
    """A route's way into one cluster.

    Attributes:
        place: where the cluster is named, for messages.
        cluster: the cluster.
        primary: the cluster that orders these writes; for a primary itself the same as ``cluster``.
        prefix: how the keys begin at the Redis; None when the prefix is cut off and they begin in any way.
        listener: which listener, counted from 0.
        folded: whether the listener takes prefixes in any case.
        mirrors: the clusters that the same writes go to.
    """

    place: Item
    cluster: str
    primary: str
    prefix: str | None
    listener: int
    folded: bool
    mirrors: tuple[str, ...] = ()

    @property
    def is_mirror(self) -> bool:
        """Whether it comes to the cluster as a mirror's."""
        return self.cluster != self.primary


def check(listeners: list[Item], report: Report) -> None:
    """Warn where two routes write the same keys of one Redis in orders of their own, and where writes end halfway."""
    ways = [way for number, listener in enumerate(listeners) for way in _ways(number, listener)]
    told: set[tuple[str, str, str]] = set()
    for one, other in combinations(ways, 2):
        if one.cluster != other.cluster or one.primary == other.primary or not _meet(one, other):
            continue
        subject = _subject(one.cluster, one.primary, other.primary)
        if subject not in told and not _circle(one, other, told):
            _tell(one, other, report)
        told.add(subject)


def _subject(cluster: str, one: str, other: str) -> tuple[str, str, str]:
    return cluster, min(one, other), max(one, other)


def _ways(number: int, listener: Item) -> Iterator[Way]:
    folded = (item := listener.get("case_insensitive")) is not None and item.value is True
    catch_all = listener.get("catch_all")
    if catch_all is not None and catch_all.text is not None:
        yield Way(catch_all, catch_all.text, catch_all.text, "", number, folded)
    routes = listener.get("routes")
    for route in routes.sequence if routes is not None else ():
        primary = route.get("cluster")
        if primary is None or primary.text is None:
            continue
        prefix = item.text or "" if (item := route.get("prefix")) is not None else ""
        cut = (item := route.get("remove_prefix")) is not None and item.value is True
        kept = None if cut else prefix
        mirrors = route.get("mirrors")
        targets = [each.get("cluster") for each in (mirrors.sequence if mirrors is not None else ())]
        named = [target for target in targets if target is not None and target.text is not None]
        names = tuple(str(target.text) for target in named)
        yield Way(primary, primary.text, primary.text, kept, number, folded, names)
        for target in named:
            yield Way(target, str(target.text), primary.text, kept, number, folded)


def _meet(one: Way, other: Way) -> bool:
    """Whether both may write one key."""
    if one.prefix is None or other.prefix is None:
        return True
    first, second = one.prefix, other.prefix
    if one.folded or other.folded:
        first, second = first.lower(), second.lower()
    if one.listener == other.listener:
        return first == second  # of two prefixes that a key has, the longer one takes it
    return first.startswith(second) or second.startswith(first)


def _circle(one: Way, other: Way, told: set[tuple[str, str, str]]) -> bool:
    """Whether it is the other half of two clusters that mirror to each other, and that was told."""
    mirror, primary = (one, other) if one.is_mirror else (other, one)
    if primary.is_mirror or mirror.primary not in primary.mirrors:
        return False
    return _subject(mirror.primary, mirror.primary, mirror.cluster) in told


def _tell(one: Way, other: Way, report: Report) -> None:
    first, second = (one, other) if one.is_mirror else (other, one)
    line = f"in line {second.place.line}"
    if second.is_mirror:
        report.warn(
            first.place,
            f"'{first.cluster}' is a mirror of '{first.primary}' and of '{second.primary}' ({line}) for the same keys: "
            "the one may overwrite what the other wrote",
            "give the routes prefixes of their own",
        )
    elif first.primary in second.mirrors:
        report.warn(
            first.place,
            f"'{first.primary}' and '{second.cluster}' mirror the same keys to each other ({line}): two writes of one "
            "key at the same moment can leave them with different values",
            "send the writes of a key through one of the two",
        )
    else:
        ends = f", and is not sent on to {' and '.join(second.mirrors)}" if second.mirrors else ""
        report.warn(
            first.place,
            f"'{first.cluster}' is a mirror of '{first.primary}' and takes writes of the same keys itself ({line}): "
            f"what it gets as a mirror may overwrite them{ends}",
            "send all writes of these keys through one route",
        )
