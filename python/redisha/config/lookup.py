"""Looks into a document that may have any form: what is there in the expected form, and nothing where it has another.

The rules look through these, so that what is wrong with single values is told by the model alone.
"""

from collections.abc import Callable

from redisha.config.scalars import Address, ScalarError, Tcp
from redisha.config.tree import Item


def elements(item: Item, key: str) -> list[Item]:
    """The elements of a list that may be missing."""
    inner = item.get(key)
    return inner.sequence if inner is not None else []


def one_or_more(item: Item, key: str) -> list[Item]:
    """The elements of a list for which a single text may stand."""
    inner = item.get(key)
    if inner is None:
        return []
    return [inner] if inner.text is not None else inner.sequence


def entries(item: Item, key: str) -> dict[str, Item]:
    """The entries of a mapping that may be missing."""
    inner = item.get(key)
    return inner.mapping if inner is not None else {}


def text(item: Item | None, key: str) -> str | None:
    """The text of an entry; None if it is missing or no text."""
    inner = item.get(key) if item is not None else None
    return inner.text if inner is not None else None


def address_of(item: Item, parse: Callable[[object], Address]) -> Address | None:
    """An address that can be read; None for any other value."""
    try:
        return parse(item.value)
    except ScalarError:
        return None


def leads_to(endpoint: Address, bound: Address | None) -> bool:
    """Whether who connects to the endpoint certainly comes to the bound address of this machine."""
    if isinstance(endpoint, Tcp) and isinstance(bound, Tcp):
        host = here(endpoint).rpartition(":")[0].strip("[]")
        local = {"0.0.0.0": host.startswith("127."), "::": host == "::1"}  # noqa: S104  # compared, not bound
        return endpoint.port == bound.port and (host == bound.host or local.get(bound.host, False))
    return endpoint == bound


def here(address: Address) -> str:
    """The address as text; the name localhost is the IPv4 address that it has."""
    if isinstance(address, Tcp) and address.host.lower().rstrip(".") == "localhost":
        return f"127.0.0.1:{address.port}"
    return str(address)


def listener_name(listener: Item) -> str:
    """How messages call a listener: by its name, or by its first address."""
    name = text(listener, "name")
    first = next(iter(one_or_more(listener, "bind")), None)
    return name if name is not None else str(first.value) if first is not None else ""
