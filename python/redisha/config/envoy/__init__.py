"""Reads Envoy bootstrap files whose listeners are Redis proxies (``envoy.filters.network.redis_proxy``).

The file is translated into a native document, whose values keep the lines and the paths of the Envoy file; the rest
(the model, the rules) is the same for both forms. Three kinds of fields:

* honoured: what the two forms have in common;
* ignored with a warning: what tunes something that redisha does in another way, or does not need;
* refused: what would make the data go elsewhere, or what redisha has not, each named with its line.

``op_timeout``, ``enable_hashtagging``, ``enable_redirection`` and ``read_policy`` belong to a listener there and to a
cluster here: they are carried over to the clusters that the listener's routes lead to.
"""

from redisha.config.envoy.cluster import translate_cluster
from redisha.config.envoy.fields import Fields
from redisha.config.envoy.listener import Settings, translate_listener
from redisha.config.envoy.parts import translate_address
from redisha.config.scalars import parse_duration
from redisha.config.slotted import REDIS_CLUSTER
from redisha.config.tree import Item, Report

_IGNORED = {
    "cluster_manager": "",
    "flags_path": "",
    "header_prefix": "",
    "hds_config": "",
    "layered_runtime": "there are no runtime values",
    "node": "",
    "node_context_params": "",
    "overload_manager": "the memory budget is set by limits",
    "perf_tracing_file_path": "",
    "stats_config": "statistics are read from the admin address",
    "stats_flush_interval": "statistics are read from the admin address",
    "stats_sinks": "statistics are read from the admin address",
    "watchdog": "",
    "watchdogs": "",
    "use_tcp_for_dns_lookups": "the system's resolver is used",
    "typed_dns_resolver_config": "the system's resolver is used",
    "default_socket_interface": "",
}

_ADMIN_IGNORED = {
    "access_log": "no access log is written",
    "profile_path": "",
    "ignore_global_conn_limit": "",
    "socket_options": "",
}


def translate(root: Item, report: Report) -> Item:
    """The native document for an Envoy bootstrap file.

    Args:
        root: The Envoy document.
        report: Takes what is refused and what is ignored.
    """
    bootstrap = Fields(root, report)
    document: dict[str, Item] = {}
    admin = bootstrap.message("admin")
    if admin is not None and (bind := _admin(admin)) is not None:
        document["admin"] = admin.item.with_value({"bind": bind})
    resources = bootstrap.message("static_resources")
    bootstrap.refuse("dynamic_resources", "configuration servers (xDS) are not supported", "use static_resources")
    bootstrap.ignore(_IGNORED)
    bootstrap.done()
    if resources is None:
        report.error(root, "the file has no static_resources")
        return root.with_value(document)
    listeners = [translate_listener(listener) for listener in resources.messages("listeners")]
    clusters = _clusters(resources)
    for what, found in (("listeners", listeners), ("clusters", clusters)):
        if not found:
            report.error(resources.item, f"there are no {what}")
    resources.ignore({"secrets": "secrets are given where they are used"})
    resources.done()
    mirrored = {name for _, settings in listeners for name in settings.mirrored}
    for _, settings in listeners:
        _carry(settings, clusters, report)
        _carry_reads(settings, clusters, report)
        _carry_redirection(settings, clusters, mirrored, report)
    document["listeners"] = resources.item.with_value([listener for listener, _ in listeners])
    document["clusters"] = resources.item.with_value(clusters)
    return root.with_value(document)


def _admin(admin: Fields) -> Item | None:
    """The address of the admin server; None if there is none."""
    log = admin.text("access_log_path")
    if log is not None and log.text not in ("/dev/null", ""):
        admin.report.warn(log, "no access log is written")
    admin.ignore(_ADMIN_IGNORED)
    address = admin.message("address")
    bind = translate_address(address) if address is not None else None
    admin.done()
    return bind


def _clusters(resources: Fields) -> dict[str, Item]:
    clusters: dict[str, Item] = {}
    for fields in resources.messages("clusters"):
        name, cluster = translate_cluster(fields)
        if name is None or name.text is None:
            continue
        if name.text in clusters:
            line = clusters[name.text].line
            resources.report.error(name, f"there is a cluster '{name.text}' already", f"in line {line}")
        else:
            clusters[name.text] = cluster
    return clusters


def _carry(settings: Settings, clusters: dict[str, Item], report: Report) -> None:
    """Give a listener's settings to the clusters that its routes lead to."""
    for name in settings.clusters:
        cluster = clusters.get(name)
        if cluster is None:
            continue
        if settings.op_timeout is not None:
            _carry_timeout(settings.op_timeout, name, cluster, report)
        if settings.hash_tags is not None:
            cluster.mapping["hash_tags"] = settings.hash_tags


def _is_redis_cluster(cluster: Item | None) -> bool:
    kind = cluster.get("type") if cluster is not None else None
    return kind is not None and kind.text == REDIS_CLUSTER


def _carry_reads(settings: Settings, clusters: dict[str, Item], report: Report) -> None:
    """Only a Redis Cluster has replicas that are known; elsewhere Envoy ignores it as well."""
    policy = settings.read_policy
    if policy is None:
        return
    found = [clusters[name] for name in settings.clusters if _is_redis_cluster(clusters.get(name))]
    for cluster in found:
        cluster.mapping["read_policy"] = policy
    others = [name for name in dict.fromkeys(settings.clusters) if not _is_redis_cluster(clusters.get(name))]
    if others:
        why = "only a Redis Cluster tells which of its servers are replicas"
        report.warn(policy, f"ignored for {', '.join(others)}: {why}")


def _carry_redirection(settings: Settings, clusters: dict[str, Item], mirrored: set[str], report: Report) -> None:
    """A Redis Cluster's redirections are always followed; those of a Redis with mirrors never."""
    if settings.redirection is None:
        return
    given = [name for name in dict.fromkeys(settings.clusters) if name in clusters]
    for name in given:
        if name not in mirrored and not _is_redis_cluster(clusters[name]):
            clusters[name].mapping["enable_redirection"] = settings.redirection
    without = [name for name in given if name in mirrored and not _is_redis_cluster(clusters[name])]
    if without:
        why = "redirections (MOVED, ASK) are not followed where writes are mirrored"
        report.warn(settings.redirection, f"ignored for {', '.join(without)}: {why}")


def _carry_timeout(timeout: Item, name: str, cluster: Item, report: Report) -> None:
    other = cluster.get("op_timeout")
    if other is not None and other.value != timeout.value:
        timeout = min(timeout, other, key=lambda item: parse_duration(item.value))
        report.warn(timeout, f"two listeners have different timeouts for the cluster '{name}': {timeout.value} is used")
    cluster.mapping["op_timeout"] = timeout
