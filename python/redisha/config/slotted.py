"""What a Redis Cluster, redirections and the rest of the file must be together."""

from redisha.config.lookup import address_of, elements, entries, here, one_or_more, text
from redisha.config.scalars import Unix, parse_address
from redisha.config.tree import Item, Report

REDIS_CLUSTER = "redis_cluster"

_OF_SLOT_MAPS = {"read_policy": "master", "refresh": None}
"""What only a cluster with a slot map has, each with the value that says nothing."""


def check(root: Item, report: Report) -> None:
    """Add everything that is wrong around clusters of the type ``redis_cluster``, and around redirections."""
    clusters = entries(root, "clusters")
    for cluster in clusters.values():
        if text(cluster, "type") == REDIS_CLUSTER:
            _check_redis_cluster(cluster, root.get("group"), report)
        else:
            _check_standalone(cluster, report)
    for listener in elements(root, "listeners"):
        for route in elements(listener, "routes"):
            _check_route(route, clusters, report)


def _check_redis_cluster(cluster: Item, group: Item | None, report: Report) -> None:
    own = group.get("redis") if group is not None else None
    groups_own = address_of(own, parse_address) if own is not None else None
    for item in one_or_more(cluster, "endpoints"):
        address = address_of(item, parse_address)
        if isinstance(address, Unix):
            report.error(item, "the nodes of a Redis Cluster are known by host and port", "write host:port")
        elif own is not None and address is not None and groups_own is not None and here(address) == here(groups_own):
            report.error(
                own,
                f"{address} is a node of a Redis Cluster, and the group needs a Redis with all of the keys",
                "name a standalone Redis",
            )
    redirection = cluster.get("enable_redirection")
    if redirection is not None and redirection.value is False:
        report.error(redirection, "a Redis Cluster cannot be used without its redirections", "remove it")


def _check_standalone(cluster: Item, report: Report) -> None:
    for key, nothing in _OF_SLOT_MAPS.items():
        item = cluster.get(key)
        if item is not None and item.value != nothing:
            hint = f"write type: {REDIS_CLUSTER}"
            if key == "read_policy":
                hint = f"{hint}, or name the replicas as endpoints of a cluster with balance: round_robin"
            report.error(item, f"only a cluster of the type {REDIS_CLUSTER} has this", hint)


def _check_route(route: Item, clusters: dict[str, Item], report: Report) -> None:
    """Mirrors follow the writes of one Redis in its order; where keys move from server to server there is none."""
    mirrors = elements(route, "mirrors")
    primary = route.get("cluster")
    for item in [primary, *(mirror.get("cluster") for mirror in mirrors)] if mirrors else []:
        cluster = clusters.get(item.text or "") if item is not None else None
        if item is None or cluster is None:
            continue
        redirection = cluster.get("enable_redirection")
        is_mirror = item is not primary
        if text(cluster, "type") == REDIS_CLUSTER:
            what = "cannot be a mirror" if is_mirror else "cannot have mirrors"
            hint = "name a standalone Redis" if is_mirror else "remove the mirrors: its own replicas are its copies"
            report.error(item, f"the cluster '{item.text}' is a Redis Cluster, which {what}", hint)
        elif redirection is not None and redirection.value is True:
            what = "be a mirror" if is_mirror else "have mirrors"
            message = f"the cluster '{item.text}' follows redirections, and so cannot {what}"
            report.error(item, message, "remove its enable_redirection, or the mirrors")
