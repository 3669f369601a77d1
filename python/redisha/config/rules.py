"""What the values of a file must be together: names that exist, nothing given twice, no mirror onto itself, no loop.

The rules walk the document, not the model, so that they are told together with the errors of single values: a part
that has another form than expected is passed over here.
"""

from collections.abc import Callable

from redisha.config import overlaps
from redisha.config.scalars import Address, ScalarError, Tcp, parse_address, parse_bind
from redisha.config.tree import Item, Report, suggest


def check(root: Item, report: Report) -> None:
    """Add everything that is wrong or odd between the values of a native document."""
    clusters = _entries(root, "clusters")
    listeners = _elements(root, "listeners")
    used: set[str] = set()
    for listener in listeners:
        used |= _check_listener(listener, clusters, report)
    _check_addresses(root, listeners, report)
    _check_twice(listeners, "name", "a listener", report)
    _check_loops(listeners, clusters, used, report)
    overlaps.check(listeners, report)
    for name, cluster in clusters.items():
        _check_cluster(cluster, report)
        if name not in used and listeners:
            report.warn(cluster, "no route leads to this cluster")


def _check_listener(listener: Item, clusters: dict[str, Item], report: Report) -> set[str]:
    """Check one listener's routes; the names of the clusters they lead to."""
    routes = _elements(listener, "routes")
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
    found = [route.get("cluster"), *(mirror.get("cluster") for mirror in _elements(route, "mirrors"))]
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
    for mirror in _elements(route, "mirrors"):
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
    found = (_address(item, parse_address) for item in _one_or_more(cluster, "endpoints"))
    return {_here(address) for address in found if address is not None}


def _check_addresses(root: Item, listeners: list[Item], report: Report) -> None:
    """No address is bound twice; port 0 is a new one each time."""
    binds = [bind for listener in listeners for bind in _one_or_more(listener, "bind")]
    admin = root.get("admin")
    if admin is not None and (bind := admin.get("bind")) is not None:
        binds.append(bind)
    seen: dict[str, int] = {}
    for item in binds:
        address = _canonical(item, parse_bind)
        if address is None or address.endswith(":0"):
            continue
        if address in seen:
            report.error(item, f"the address {address} is given twice", f"first in line {seen[address]}")
        seen.setdefault(address, item.line)


def _check_loops(listeners: list[Item], clusters: dict[str, Item], used: set[str], report: Report) -> None:
    """No cluster is a listener of this very file: a command would come back in, again and again.

    Only listeners make loops: what a mirror gets goes straight to its Redis.
    """
    binds = [(listener, bind) for listener in listeners for bind in _one_or_more(listener, "bind")]
    for name, cluster in clusters.items():
        for item in _one_or_more(cluster, "endpoints") if name in used else ():
            endpoint = _address(item, parse_address)
            for listener, bind in binds:
                if endpoint is not None and _leads_to(endpoint, _address(bind, parse_bind)):
                    report.error(
                        item,
                        f"the endpoint {endpoint} of the cluster '{name}' is this sidecar's own listener "
                        f"'{_listener_name(listener)}' ({bind.value}): a loop",
                        "name the Redis server itself",
                    )


def _leads_to(endpoint: Address, bound: Address | None) -> bool:
    """Whether who connects to the endpoint certainly comes to the bound address of this machine."""
    if isinstance(endpoint, Tcp) and isinstance(bound, Tcp):
        host = _here(endpoint).rpartition(":")[0].strip("[]")
        local = {"0.0.0.0": host.startswith("127."), "::": host == "::1"}  # noqa: S104  # compared, not bound
        return endpoint.port == bound.port and (host == bound.host or local.get(bound.host, False))
    return endpoint == bound


def _here(address: Address) -> str:
    """The address as text; the name localhost is the IPv4 address that it has."""
    if isinstance(address, Tcp) and address.host.lower().rstrip(".") == "localhost":
        return f"127.0.0.1:{address.port}"
    return str(address)


def _listener_name(listener: Item) -> str:
    name = listener.get("name")
    first = next(iter(_one_or_more(listener, "bind")), None)
    return str(name.text if name is not None and name.text is not None else first.value if first is not None else "")


def _canonical(item: Item, parse: Callable[[object], object]) -> str | None:
    try:
        return str(parse(item.value))
    except ScalarError:
        return None


def _address(item: Item, parse: Callable[[object], Address]) -> Address | None:
    try:
        return parse(item.value)
    except ScalarError:
        return None


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
    endpoints = _one_or_more(cluster, "endpoints")
    seen: set[str] = set()
    for item in endpoints:
        address = _canonical(item, parse_address)
        if address is not None and address in seen:
            report.error(item, f"the endpoint {address} is given twice")
        seen.add(address or "")


def _elements(item: Item, key: str) -> list[Item]:
    """The elements of a list that may be missing."""
    inner = item.get(key)
    return inner.sequence if inner is not None else []


def _one_or_more(item: Item, key: str) -> list[Item]:
    """The elements of a list for which a single text may stand."""
    inner = item.get(key)
    if inner is None:
        return []
    return [inner] if inner.text is not None else inner.sequence


def _entries(item: Item, key: str) -> dict[str, Item]:
    inner = item.get(key)
    return inner.mapping if inner is not None else {}
