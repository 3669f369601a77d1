"""Envoy's clusters: endpoints, discovery, timeouts, passwords, health checks."""

from redisha.config.balancing import WITHOUT_HASH
from redisha.config.envoy.fields import Fields
from redisha.config.envoy.parts import check_type, translate_address, translate_secret
from redisha.config.slotted import REDIS_CLUSTER
from redisha.config.tree import Item, suggest

_OPTIONS = "envoy.extensions.filters.network.redis_proxy.v3.RedisProtocolOptions"
_OPTIONS_KEY = "envoy.filters.network.redis_proxy"
_HEALTH = "envoy.extensions.health_checkers.redis.v3.Redis"

_REDIS_CLUSTER = "envoy.clusters.redis"
_CLUSTER_CONFIG = "envoy.extensions.clusters.redis.v3.RedisClusterConfig"

_CLUSTER_CONFIG_IGNORED = {
    "cluster_refresh_timeout": "a node has the timeout of its health check to answer",
    "failure_refresh_threshold": "the slot map is asked for as soon as a node is lost",
    "host_degraded_refresh_threshold": "the slot map is asked for as soon as a node is lost",
    "redirect_refresh_interval": "the slot map is asked for as soon as a slot has moved",
    "redirect_refresh_threshold": "the slot map is asked for as soon as a slot has moved",
}

# Envoy's own default, which the file counts on when it says nothing.
_CONNECT_TIMEOUT = "5s"

_DISCOVERY = {"STATIC": "static", "STRICT_DNS": "strict_dns", "LOGICAL_DNS": "strict_dns"}

_POLICIES = {name.upper(): name for name in ("maglev", "ring_hash", *WITHOUT_HASH)}

_RING_SIZES = ("minimum_ring_size", "maximum_ring_size")

_LEAST_IGNORED = (
    "active_request_bias",
    "enable_full_scan",
    "locality_lb_config",
    "selection_method",
    "slow_start_config",
)

_HASH_FUNCTIONS = {"XX_HASH": "xx_hash", "MURMUR_HASH_2": "murmur_hash_2"}

_IGNORED = {
    "alt_stat_name": "the cluster's name is used",
    "circuit_breakers": "the bounds are in limits",
    "cleanup_interval": "",
    "close_connections_on_host_health_failure": "",
    "common_lb_config": "",
    "connection_pool_per_downstream_connection": "",
    "dns_failure_refresh_rate": "names are asked for again every dns_refresh_rate",
    "dns_jitter": "",
    "dns_resolvers": "the system's resolver is used",
    "ignore_health_on_host_removal": "",
    "maglev_lb_config": "",
    "metadata": "",
    "outlier_detection": "health is probed",
    "per_connection_buffer_limit_bytes": "buffers are bounded by limits",
    "preconnect_policy": "",
    "round_robin_lb_config": "",
    "track_cluster_stats": "",
    "track_timeout_budgets": "",
    "typed_dns_resolver_config": "the system's resolver is used",
    "upstream_connection_options": "",
    "use_tcp_for_dns_lookups": "the system's resolver is used",
    "wait_for_warm_on_init": "",
}

_HEALTH_IGNORED = {
    "alt_port": "",
    "always_log_health_check_failures": "",
    "event_log_path": "",
    "event_logger": "",
    "healthy_edge_interval": "",
    "initial_jitter": "",
    "interval_jitter": "",
    "interval_jitter_percent": "",
    "no_traffic_healthy_interval": "",
    "no_traffic_interval": "",
    "reuse_connection": "",
    "unhealthy_edge_interval": "",
    "unhealthy_interval": "",
}


def translate_cluster(cluster: Fields) -> tuple[Item | None, Item]:
    """The cluster's name and the native cluster."""
    name = cluster.required_text("name")
    slotted = _redis_cluster(cluster)
    native: dict[str, Item] = {"discovery": _discovery(cluster, slotted=slotted is not None)} | (slotted or {})
    native["connect_timeout"] = cluster.duration("connect_timeout") or cluster.item.with_value(_CONNECT_TIMEOUT)
    if (refresh := cluster.duration("dns_refresh_rate")) is not None:
        native["dns_refresh"] = refresh
    if (ttl := cluster.flag("respect_dns_ttl")) is not None:
        native["respect_dns_ttl"] = ttl
    endpoints = _endpoints(cluster)
    native["endpoints"] = endpoints
    native |= _balance(cluster, len(endpoints.sequence), slotted=slotted is not None)
    if (auth := _auth(cluster)) is not None:
        native["auth"] = auth
    if (health := _health(cluster)) is not None:
        native["health"] = health
    family = cluster.text("dns_lookup_family")
    if family is not None and family.value not in ("AUTO", "V4_ONLY", "V4_PREFERRED"):
        cluster.report.error(family, f"only IPv4 addresses are preferred when a name has both: {family.value}")
    cluster.refuse("transport_socket", "TLS comes in a later version")
    cluster.refuse("transport_socket_matches", "TLS comes in a later version")
    cluster.refuse("hosts", "the field is of Envoy's v2 interface", "write load_assignment")
    cluster.ignore(_IGNORED)
    cluster.done()
    return name, cluster.item.with_value(native)


def _redis_cluster(cluster: Fields) -> dict[str, Item] | None:
    """What ``cluster_type`` says; None if it is no Redis Cluster."""
    custom = cluster.message("cluster_type")
    if custom is None:
        return None
    kind = custom.text("name")
    if kind is None or kind.value != _REDIS_CLUSTER:
        name = kind.value if kind is not None else "without a name"
        message = f"this type of cluster is not supported: {name}"
        cluster.report.error(kind or custom.item, message, f"write {_REDIS_CLUSTER}, or type: STRICT_DNS")
        return None
    native = {"type": kind.with_value(REDIS_CLUSTER)}
    config = custom.message("typed_config")
    custom.done()
    if config is None:
        return native
    type_name = config.item.get("@type")
    if type_name is not None and str(type_name.value).endswith("/google.protobuf.Struct"):
        config.take("@type")
        inner = config.message("value")
        config.done()
        if inner is None:
            return native
        config = inner
    elif not check_type(config, _CLUSTER_CONFIG, "a Redis Cluster"):
        return native
    if (refresh := config.duration("cluster_refresh_rate")) is not None:
        native["refresh"] = refresh
    zones = config.flag("enable_zone_discovery")
    if zones is not None and zones.value is True:
        config.report.error(zones, "zones are not supported", "remove it")
    config.ignore(_CLUSTER_CONFIG_IGNORED)
    config.done()
    return native


def _discovery(cluster: Fields, *, slotted: bool) -> Item:
    kind = cluster.text("type")
    if kind is None:
        return cluster.item.with_value("strict_dns" if slotted else "static")  # Envoy's defaults
    if kind.value not in _DISCOVERY:
        hint = suggest(str(kind.value), _DISCOVERY)
        cluster.report.error(kind, f"this discovery is not supported: {kind.value}", hint)
        return kind.with_value("strict_dns")
    return kind.with_value(_DISCOVERY[str(kind.value)])


def _balance(cluster: Fields, endpoints: int, *, slotted: bool) -> dict[str, Item]:
    """``lb_policy`` and what is said of it."""
    given = cluster.text("lb_policy")
    policy = given or cluster.item.with_value("ROUND_ROBIN")  # Envoy's default
    ring, least = cluster.message("ring_hash_lb_config"), cluster.message("least_request_lb_config")
    cluster.refuse("load_balancing_policy", "extensions for balancing are not supported", "write lb_policy: MAGLEV")
    for config, owner in ((ring, "RING_HASH"), (least, "LEAST_REQUEST")):
        if config is not None and policy.value != owner:
            cluster.report.warn(config.item, f"ignored: the lb_policy is {policy.value}")
    native = _POLICIES.get(str(policy.value), "")
    if slotted:
        if policy.value != "CLUSTER_PROVIDED":
            message = f"the nodes of a Redis Cluster say where keys are, and not {policy.value}"
            cluster.report.error(policy, message, "write lb_policy: CLUSTER_PROVIDED")
        return {}
    if not native:
        hint = "write lb_policy: MAGLEV"
        cluster.report.error(policy, f"this way of balancing is not supported: {policy.value}", hint)
        return {}
    if native in WITHOUT_HASH and endpoints < 2:
        if given is not None:
            cluster.report.warn(policy, f"{policy.value} makes no difference with one endpoint; MAGLEV is used")
        return {}
    return {"balance": policy.with_value(native)} | _ring(native, ring) | _choices(native, least)


def _ring(policy: str, ring: Fields | None) -> dict[str, Item]:
    if policy != "ring_hash" or ring is None:
        return {}
    found = {key: size for key in _RING_SIZES if (size := ring.number(key)) is not None}
    function = ring.text("hash_function")
    if function is not None:
        known = _HASH_FUNCTIONS.get(str(function.value))
        if known is None:
            ring.report.error(function, f"this hash function is not supported: {function.value}", "write XX_HASH")
        else:
            found["ring_hash_function"] = function.with_value(known)
    ring.done()
    return found


def _choices(policy: str, least: Fields | None) -> dict[str, Item]:
    if policy != "least_request" or least is None:
        return {}
    choices = least.number("choice_count")
    least.ignore(dict.fromkeys(_LEAST_IGNORED, "some are drawn, and the least busy of them is taken"))
    least.done()
    return {"choice_count": choices} if choices is not None else {}


def _endpoints(cluster: Fields) -> Item:
    assignment = cluster.message("load_assignment")
    if assignment is None:
        cluster.missing("load_assignment")
        return cluster.item.with_value([])
    found: list[Item] = []
    assignment.take("cluster_name")
    for locality in assignment.messages("endpoints"):
        found += [item for endpoint in locality.messages("lb_endpoints") if (item := _endpoint(endpoint)) is not None]
        priority = locality.number("priority")
        if priority is not None and priority.value != 0:
            cluster.report.error(priority, "priorities are not supported: data does not follow a change of server")
        locality.ignore({"locality": "", "load_balancing_weight": "", "metadata": ""})
        locality.done()
    assignment.ignore({"policy": ""})
    assignment.refuse("named_endpoints", "named endpoints are not supported")
    assignment.done()
    if not found:
        cluster.report.error(assignment.item, "the cluster has no endpoints")
    return assignment.item.with_value(list(found))


def _endpoint(fields: Fields) -> Item | None:
    fields.ignore({"metadata": "", "load_balancing_weight": "all endpoints weigh the same"})
    status = fields.text("health_status")
    if status is not None and status.value not in ("UNKNOWN", "HEALTHY"):
        fields.report.error(status, f"a fixed health is not supported: {status.value}", "remove the endpoint")
    fields.refuse("endpoint_name", "named endpoints are not supported")
    endpoint = fields.message("endpoint")
    fields.done()
    if endpoint is None:
        fields.missing("endpoint")
        return None
    address = endpoint.message("address")
    endpoint.ignore({"hostname": "", "health_check_config": ""})
    endpoint.refuse("additional_addresses", "several addresses of one endpoint are not supported")
    endpoint.done()
    if address is None:
        endpoint.missing("address")
        return None
    return translate_address(address)


def _auth(cluster: Fields) -> Item | None:
    """What to say to the servers."""
    extensions = cluster.message("typed_extension_protocol_options")
    if extensions is None:
        return None
    options = extensions.message(_OPTIONS_KEY)
    extensions.done()
    if options is None or not check_type(options, _OPTIONS, "RedisProtocolOptions"):
        return None
    user, password = options.message("auth_username"), options.message("auth_password")
    options.refuse("aws_iam", "AWS IAM is not supported")
    options.refuse("credentials", "credentials per endpoint are not supported", "make a cluster per endpoint")
    options.done()
    native: dict[str, Item] = {}
    if password is not None and (secret := translate_secret(password)) is not None:
        native["password"] = secret
    if user is not None and (name := translate_secret(user)) is not None:
        native["username"] = name
        if "password" not in native:
            cluster.report.error(name, "a user without a password", "add auth_password")
            return None
    return options.item.with_value(native) if native else None


def _health(cluster: Fields) -> Item | None:
    checks = cluster.messages("health_checks")
    if not checks:
        return None
    for other in checks[1:]:
        cluster.report.warn(other.item, "ignored: only the first health check is done")
    check = checks[0]
    native: dict[str, Item] = {}
    for key in ("interval", "timeout"):
        if (value := check.duration(key)) is not None:
            native[key] = value
    for key in ("unhealthy_threshold", "healthy_threshold"):
        if (count := check.number(key)) is not None:
            native[key] = count
    check.take("tcp_health_check")  # a PING on a connection proves all that a TCP check proves
    for key in ("http_health_check", "grpc_health_check"):
        check.refuse(
            key, "a Redis is probed by PING", "write tcp_health_check, or the custom envoy.health_checkers.redis"
        )
    custom = check.message("custom_health_check")
    if custom is not None:
        _custom_check(custom)
    check.refuse("tls_options", "TLS comes in a later version")
    check.refuse("transport_socket_match_criteria", "TLS comes in a later version")
    check.ignore(_HEALTH_IGNORED)
    check.done()
    return check.item.with_value(native)


def _custom_check(custom: Fields) -> None:
    custom.take("name")
    config = custom.message("typed_config")
    custom.done()
    if config is None or not check_type(config, _HEALTH, "the Redis health check"):
        return
    config.refuse("key", "a key that marks maintenance is not supported", "remove it: the check is PING")
    config.refuse("aws_iam", "AWS IAM is not supported")
    config.done()
