"""How the keys of a cluster are spread: what belongs to which policy, and who can have mirrors."""

from redisha.config.lookup import address_of, elements, entries, one_or_more, text
from redisha.config.scalars import Tcp, parse_address
from redisha.config.slotted import REDIS_CLUSTER
from redisha.config.tree import Item, Report

WITHOUT_HASH = ("round_robin", "least_request", "random")
"""The policies that look at no key: any endpoint gets any command."""

_OF_POLICIES = {
    "minimum_ring_size": "ring_hash",
    "maximum_ring_size": "ring_hash",
    "ring_hash_function": "ring_hash",
    "choice_count": "least_request",
}

_RING = {"minimum_ring_size": 1024, "maximum_ring_size": 8 * 1024**2}

_HINT = "write balance: maglev, in Envoy's files lb_policy: MAGLEV, so that a key stays at its server"


def check(root: Item, report: Report) -> None:
    """Add everything that is wrong or odd around the field ``balance``."""
    clusters = entries(root, "clusters")
    for name, cluster in clusters.items():
        _check_cluster(name, cluster, report)
    for listener in elements(root, "listeners"):
        for route in elements(listener, "routes"):
            _check_route(route, clusters, report)


def _policy(cluster: Item) -> str:
    return text(cluster, "balance") or "maglev"


def _check_cluster(name: str, cluster: Item, report: Report) -> None:
    policy = _policy(cluster)
    given = cluster.get("balance")
    if given is not None and text(cluster, "type") == REDIS_CLUSTER and policy != "maglev":
        report.error(given, "the nodes of a Redis Cluster say where keys are", "remove it")
    for field, owner in _OF_POLICIES.items():
        item = cluster.get(field)
        if item is not None and policy != owner:
            report.error(item, f"only the balance {owner} has this", f"write balance: {owner}, or remove it")
    sizes = {field: item.value if (item := cluster.get(field)) else size for field, size in _RING.items()}
    smallest, largest = sizes.values()
    if isinstance(smallest, int) and isinstance(largest, int) and smallest > largest:
        item = cluster.get("minimum_ring_size") or cluster.get("maximum_ring_size") or cluster
        report.error(item, f"the minimum_ring_size {smallest} is more than the maximum_ring_size {largest}")
    endpoints = one_or_more(cluster, "endpoints")
    if policy in WITHOUT_HASH and len(endpoints) > 1:
        report.warn(
            given or cluster,
            f"any of the {len(endpoints)} servers of '{name}' gets any command, whatever its keys are: a key that was "
            f"written to one is not found on the others, unless all are copies of the same data ({_HINT})",
        )


def _check_route(route: Item, clusters: dict[str, Item], report: Report) -> None:
    """A mirror follows the order of one Redis."""
    mirrors = elements(route, "mirrors")
    primary = route.get("cluster")
    copies = [mirror.get("cluster") for mirror in mirrors if is_copy(mirror)]
    for item in [primary, *copies] if mirrors else []:
        cluster = clusters.get(item.text or "") if item is not None else None
        if item is None or cluster is None or _policy(cluster) not in WITHOUT_HASH or not _may_be_several(cluster):
            continue
        what = "have mirrors" if item is primary else "be a mirror"
        message = f"any server of the cluster '{item.text}' gets any command, so it cannot {what}"
        report.error(item, f"{message} (balance: {_policy(cluster)})", _HINT)


def is_copy(mirror: Item) -> bool:
    """Whether a mirror gets all that it is to have, and not only a part of the commands."""
    fraction = mirror.get("fraction")
    return fraction is None or not isinstance(fraction.value, int | float) or fraction.value >= 100


def _may_be_several(cluster: Item) -> bool:
    """Whether a cluster has several endpoints, or a name that may have several addresses."""
    addresses = [address_of(item, parse_address) for item in one_or_more(cluster, "endpoints")]
    named = any(isinstance(each, Tcp) and not each.is_ip for each in addresses)
    return len(addresses) > 1 or named
