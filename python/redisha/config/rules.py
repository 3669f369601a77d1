"""What the values of a file must be together: names that exist, nothing given twice, no mirror onto itself, no loop.

What is about groups is in :mod:`~redisha.config.membership`, what is about Redis Cluster in
:mod:`~redisha.config.slotted`, about balancing in :mod:`~redisha.config.balancing`, about mirrors of a part of the
commands in :mod:`~redisha.config.sampling`, and routes that meet in :mod:`~redisha.config.overlaps`.

The rules walk the document, not the model, so that they are told together with the errors of single values: a part
that has another form than expected is passed over here.
"""

from redisha.config import balancing, membership, overlaps, sampling, slotted
from redisha.config.lookup import address_of, elements, entries, here, leads_to, listener_name, one_or_more
from redisha.config.scalars import parse_address, parse_bind
from redisha.config.tree import Item, Report, suggest


def check(root: Item, report: Report) -> None:
    """Add everything that is wrong or odd between the values of a native document."""
    clusters = entries(root, "clusters")
    listeners = elements(root, "listeners")
    used: set[str] = set()
    for listener in listeners:
        used |= _check_listener(listener, clusters, report)
    _check_addresses(root, listeners, report)
    _check_twice(listeners, "name", "a listener", report)
    _check_loops(listeners, clusters, used, report)
    overlaps.check(listeners, report)
    membership.check(root, report)
    slotted.check(root, report)
    balancing.check(root, report)
    sampling.check(root, report)
    for name, cluster in clusters.items():
        _check_cluster(cluster, report)
        if name not in used and listeners:
            report.warn(cluster, "no route leads to this cluster")


def _check_listener(listener: Item, clusters: dict[str, Item], report: Report) -> set[str]:
    """Check one listener's routes; the names of the clusters they lead to."""
    routes = elements(listener, "routes")
    catch_all = listener.get("catch_all")
    targets = [target for route in routes for target in _targets(route)]
    if catch_all is not None:
        if catch_all.text is None:
            report.error(catch_all, "expected the name of a cluster", 'for mirrors write a route with prefix: ""')
        targets.append(catch_all)
    for target in targets:
        if target.text is not None and target.text not in clusters:
            report.error(target, f"there is no cluster '{target.text}'", suggest(target.text, clusters))
    if not routes and catch_all is None and listener.value is not None and "group" not in listener.mapping:
        report.error(listener, "the listener has no routes", 'write routes: [{prefix: "", cluster: NAME}]')
    _check_prefixes(listener, routes, report)
    for route in routes:
        _check_mirrors(route, clusters, report)
    return {target.text for target in targets if target.text is not None}


def _targets(route: Item) -> list[Item]:
    found = [route.get("cluster"), *(mirror.get("cluster") for mirror in elements(route, "mirrors"))]
    return [item for item in found if item is not None]


def _check_prefixes(listener: Item, routes: list[Item], report: Report) -> None:
    insensitive = (folded := listener.get("case_insensitive")) is not None and folded.value is True
    seen: dict[str, int] = {}
    catch_all = listener.get("catch_all")
    for route in routes:
        item = route.get("prefix") or route.with_value("")
        if item.text is None:
            continue
        prefix = item.text.lower() if insensitive else item.text
        if prefix in seen:
            report.error(item, f"the prefix '{item.text}' is given twice", f"first in line {seen[prefix]}")
        seen.setdefault(prefix, item.line)
    if catch_all is not None and "" in seen:
        report.error(
            catch_all, 'there is a route with the prefix "" already', f"in line {seen['']}; remove one of them"
        )


def _check_mirrors(route: Item, clusters: dict[str, Item], report: Report) -> None:
    """A mirror must be another Redis than the primary, and be named once."""
    primary = route.get("cluster")
    primary_name = primary.text if primary is not None else None
    primary_endpoints = _endpoints(clusters.get(primary_name or ""))
    seen: set[str] = set()
    for mirror in elements(route, "mirrors"):
        target = mirror.get("cluster")
        if target is None or target.text is None:
            continue
        if target.text == primary_name:
            report.error(target, f"the cluster '{target.text}' would mirror to itself")
        elif target.text in seen:
            report.error(target, f"the mirror '{target.text}' is given twice")
        elif shared := primary_endpoints & _endpoints(clusters.get(target.text)):
            report.error(
                target,
                f"the mirror '{target.text}' is the same Redis as the primary '{primary_name}': "
                f"{', '.join(sorted(shared))}",
                "every write would be done twice there; name another server, or remove the mirror",
            )
        seen.add(target.text)


def _endpoints(cluster: Item | None) -> set[str]:
    """The addresses of a cluster that can be read, in canonical form."""
    if cluster is None:
        return set()
    found = (address_of(item, parse_address) for item in one_or_more(cluster, "endpoints"))
    return {here(address) for address in found if address is not None}


def _check_addresses(root: Item, listeners: list[Item], report: Report) -> None:
    """No address is bound twice; port 0 is a new one each time."""
    binds = [bind for listener in listeners for bind in one_or_more(listener, "bind")]
    for section, key in (("group", "listen"), ("admin", "bind"), ("dynomite_stats", "bind")):
        inner = root.get(section)
        if inner is not None and (bind := inner.get(key)) is not None:
            binds.append(bind)
    seen: dict[str, int] = {}
    for item in binds:
        address = str(address_of(item, parse_bind) or "")
        if not address or address.endswith(":0"):
            continue
        if address in seen:
            report.error(item, f"the address {address} is given twice", f"first in line {seen[address]}")
        seen.setdefault(address, item.line)


def _check_loops(listeners: list[Item], clusters: dict[str, Item], used: set[str], report: Report) -> None:
    """No cluster is a listener of this very file: a command would come back in, again and again.

    Only listeners make loops: what a mirror gets goes straight to its Redis.
    """
    binds = [(listener, bind) for listener in listeners for bind in one_or_more(listener, "bind")]
    for name, cluster in clusters.items():
        for item in one_or_more(cluster, "endpoints") if name in used else ():
            endpoint = address_of(item, parse_address)
            for listener, bind in binds:
                if endpoint is not None and leads_to(endpoint, address_of(bind, parse_bind)):
                    report.error(
                        item,
                        f"the endpoint {endpoint} of the cluster '{name}' is this sidecar's own listener "
                        f"'{listener_name(listener)}' ({bind.value}): a loop",
                        "name the Redis server itself",
                    )


def _check_twice(items: list[Item], key: str, what: str, report: Report) -> None:
    seen: dict[str, int] = {}
    for item in items:
        name = item.get(key)
        if name is None or name.text is None:
            continue
        if name.text in seen:
            report.error(name, f"there is {what} '{name.text}' already", f"in line {seen[name.text]}")
        seen.setdefault(name.text, name.line)


def _check_cluster(cluster: Item, report: Report) -> None:
    endpoints = one_or_more(cluster, "endpoints")
    seen: set[str] = set()
    for item in endpoints:
        address = str(address_of(item, parse_address) or "")
        if address and address in seen:
            report.error(item, f"the endpoint {address} is given twice")
        seen.add(address)
