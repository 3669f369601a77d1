"""One of the two servers of a comparison or a copy: what it is, and connections to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from redisha.verify import facts
from redisha.verify.chunks import Value
from redisha.verify.facts import Facts
from redisha.verify.link import Link
from redisha.verify.server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MARKERS = b"redisha:markers"
"""A key that belongs to redisha, in the highest database."""


class Side:
    """A server with three connections, so that nothing waits behind something slow.

    Attributes:
        facts: what it is.
        keys: for ``SCAN``, sizes, ``EXISTS``.
        pages: for the values of whole pages.
        looks: for single keys, read again, copied or deleted.
    """

    def __init__(self, facts: Facts, links: Sequence[Link]) -> None:
        self.facts = facts
        self.keys, self.pages, self.looks = links

    @property
    def address(self) -> str:
        """As the operator named it."""
        return self.facts.address

    async def use(self, database: int) -> None:
        """The connections for keys and pages go to this database.

        Raises:
            NoDatabaseError: there is none.
        """
        await self.keys.use(database)
        await self.pages.use(database)

    def value(self, key: bytes, kind: str, size: int) -> Value:
        """A key to be read in pieces, in the database of :attr:`looks`."""
        return Value(self.looks, key, kind, size, self.facts.field_expiry)


@asynccontextmanager
async def open_sides(a: Server, b: Server) -> AsyncIterator[tuple[Side, Side]]:
    """Connect to both, and see that they are two.

    Raises:
        ServerError: one cannot be asked, or they are the same.
    """
    async with AsyncExitStack() as stack:
        sides = []
        for server in (a, b):
            links = []
            for _ in range(3):
                links.append(await Link.open(server))
                stack.callback(links[-1].close)
            sides.append(Side(await facts.learn(links[0]), links))
        facts.refuse_same(sides[0].facts, sides[1].facts)
        yield sides[0], sides[1]


def hidden(database: int, *sides: Side) -> frozenset[bytes]:
    """Keys of this database that are redisha's own and are no data."""
    highest = {side.facts.databases - 1 for side in sides}
    return frozenset({MARKERS}) if database in highest else frozenset()


async def wanted(
    batches: AsyncIterator[list[bytes]], hidden: frozenset[bytes], only: Callable[[bytes], bool] | None
) -> AsyncIterator[list[bytes]]:
    """The batches without hidden keys, and with nothing that ``only`` refuses."""
    async for batch in batches:
        kept = [key for key in batch if key not in hidden] if hidden else batch
        if only is not None:
            kept = list(filter(only, kept))
        if kept:
            yield kept
