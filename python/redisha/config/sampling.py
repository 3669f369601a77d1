"""Mirrors that get a part of the commands: no copies, so that nothing may count on them as such."""

from redisha.config.balancing import is_copy
from redisha.config.lookup import address_of, elements, entries, here, one_or_more
from redisha.config.scalars import parse_address
from redisha.config.tree import Item, Report


def check(root: Item, report: Report) -> None:
    """A Redis that gets a part of the commands must not be a copy, or have copies, by another route."""
    clusters = entries(root, "clusters")
    routes = [route for listener in elements(root, "listeners") for route in elements(listener, "routes")]
    copies: dict[str, str] = {}
    group = root.get("group")
    if group is not None:
        copies |= dict.fromkeys(_addresses(one_or_more(group, "redis")), "the group's own Redis")
    for route in routes:
        own = [mirror.get("cluster") for mirror in elements(route, "mirrors") if is_copy(mirror)]
        for item, what in [*((each, "a mirror that is a copy") for each in own), (route.get("cluster"), "mirrored")]:
            if own and item is not None:
                copies |= dict.fromkeys(_servers(clusters.get(item.text or "")), f"{what} in another route")
    for route in routes:
        for mirror in elements(route, "mirrors"):
            item = mirror.get("cluster")
            if item is None or is_copy(mirror):
                continue
            for address in _servers(clusters.get(item.text or "")):
                if address in copies:
                    message = f"{address} gets a part of the commands here, and is {copies[address]}"
                    report.error(item, message, "name another Redis, or write fraction: 100")


def _servers(cluster: Item | None) -> list[str]:
    return _addresses(one_or_more(cluster, "endpoints")) if cluster is not None else []


def _addresses(items: list[Item]) -> list[str]:
    found = (address_of(item, parse_address) for item in items)
    return [here(address) for address in found if address is not None]
