"""Envoy's listeners with their Redis proxy filter: addresses, routes, mirrors, passwords."""

from dataclasses import dataclass, field

from redisha.config.envoy.fields import Fields
from redisha.config.envoy.parts import check_type, translate_address, translate_secret
from redisha.config.tree import Item

_TYPE = "envoy.extensions.filters.network.redis_proxy.v3.RedisProxy"

_LISTENER_IGNORED = {
    "access_log": "no access log is written",
    "bypass_overload_manager": "",
    "connection_balance_config": "one worker serves all connections",
    "continue_on_listener_filters_timeout": "",
    "drain_type": "",
    "enable_reuse_port": "",
    "freebind": "",
    "ignore_global_conn_limit": "",
    "listener_filters_timeout": "",
    "max_connections_to_accept_per_socket_event": "",
    "metadata": "",
    "per_connection_buffer_limit_bytes": "buffers are bounded by limits",
    "reuse_port": "",
    "socket_options": "",
    "stat_prefix": "the filter's stat_prefix is used",
    "tcp_backlog_size": "",
    "tcp_fast_open_queue_length": "",
    "traffic_direction": "",
}

_SETTINGS_IGNORED = {
    "buffer_flush_timeout": "all writes of a turn leave together anyway",
    "dns_cache_config": "the addresses in redirections are used",
    "enable_command_stats": "commands are always counted",
    "max_buffer_size_before_flush": "all writes of a turn leave together anyway",
    "max_upstream_unknown_connections": "redirections lead to at most 100 unknown servers",
}


_READ_POLICIES: dict[str | int, str] = {
    name: policy.lower()
    for number, policy in enumerate(("MASTER", "PREFER_MASTER", "REPLICA", "PREFER_REPLICA", "ANY"))
    for name in (policy, number)
}


@dataclass(slots=True)
class Settings:
    """What Envoy sets per listener and redisha per cluster.

    Attributes:
        clusters: The clusters that the listener's routes lead to, mirrors included.
        op_timeout: The timeout of one command, in the native form.
        hash_tags: Whether ``{tag}`` in a key alone decides its server; None if not.
        redirection: Whether MOVED and ASK are followed; None if not.
        read_policy: Who is read from in a Redis Cluster, in the native form; None for its masters.
        mirrored: Those of the clusters that have mirrors or are one.
    """

    clusters: list[str] = field(default_factory=list)
    op_timeout: Item | None = None
    hash_tags: Item | None = None
    redirection: Item | None = None
    read_policy: Item | None = None
    mirrored: set[str] = field(default_factory=set)


def translate_listener(listener: Fields) -> tuple[Item, Settings]:
    """The native listener, and what belongs to its clusters."""
    native: dict[str, Item] = {}
    settings = Settings()
    if (name := listener.text("name")) is not None and name.value != "":
        native["name"] = name
    native["bind"] = listener.item.with_value(_addresses(listener))
    proxy = _proxy(listener)
    listener.refuse("listener_filters", "listener filters are not supported")
    listener.refuse("default_filter_chain", "only one filter chain is supported", "use filter_chains")
    listener.refuse("transparent", "transparent proxying is not supported")
    listener.refuse("use_original_dst", "transparent proxying is not supported")
    listener.ignore(_LISTENER_IGNORED)
    listener.done()
    if proxy is not None:
        _translate_proxy(proxy, native, settings)
    return listener.item.with_value(native), settings


def _addresses(listener: Fields) -> list[Item]:
    found: list[Item | None] = []
    address = listener.message("address")
    if address is not None:
        found.append(translate_address(address))
    else:
        listener.missing("address")
    for additional in listener.messages("additional_addresses"):
        inner = additional.message("address")
        found.append(translate_address(inner) if inner is not None else None)
        additional.done()
    return [item for item in found if item is not None]


def _proxy(listener: Fields) -> Fields | None:
    """The one redis_proxy filter of the one filter chain."""
    chains = listener.messages("filter_chains")
    filters: list[Fields] = []
    for chain in chains:
        filters += chain.messages("filters")
        chain.refuse("transport_socket", "TLS comes in a later version")
        chain.refuse("filter_chain_match", "only one filter chain, for all connections, is supported")
        chain.ignore({"metadata": "", "transport_socket_connect_timeout": ""})
        chain.take("name")
        chain.done()
    if len(chains) != 1 or len(filters) != 1:
        hint = f"this listener has {len(chains)} filter chains with {len(filters)} filters"
        listener.report.error(listener.item, "one filter chain with one redis_proxy filter is needed", hint)
        return None
    the_filter = filters[0]
    the_filter.take("name")
    the_filter.refuse("config_discovery", "configuration servers (xDS) are not supported")
    the_filter.refuse("config", "the filter is in the form of Envoy's v2 interface", "write typed_config with '@type'")
    config = the_filter.message("typed_config")
    the_filter.done()
    if config is None:
        the_filter.missing("typed_config")
        return None
    return config if check_type(config, _TYPE, "the Redis proxy") else None


def _translate_proxy(proxy: Fields, native: dict[str, Item], settings: Settings) -> None:
    prefix = proxy.required_text("stat_prefix")
    if prefix is not None:
        native["stat_prefix"] = prefix
    connection = proxy.message("settings")
    if connection is not None:
        _translate_settings(connection, settings)
    else:
        proxy.missing("settings")
    routes = proxy.message("prefix_routes")
    if routes is not None:
        _translate_routes(routes, native, settings)
    else:
        proxy.missing("prefix_routes")
    auth = _auth(proxy)
    if auth is not None:
        native["auth"] = auth
    proxy.take("latency_in_micros")  # latencies are always recorded in microseconds
    proxy.refuse("faults", "fault injection is not supported")
    proxy.refuse("external_auth_provider", "external authentication is not supported")
    proxy.ignore(
        {
            "custom_commands": "every command is forwarded",
            "protocol_version": "each client chooses RESP2 or RESP3 by HELLO",
        }
    )
    proxy.done()


def _translate_settings(fields: Fields, settings: Settings) -> None:
    settings.op_timeout = fields.required_duration("op_timeout")
    tags = fields.flag("enable_hashtagging")
    settings.hash_tags = tags if tags is not None and tags.value is True else None
    redirection = fields.flag("enable_redirection")
    settings.redirection = redirection if redirection is not None and redirection.value is True else None
    policy = fields.take("read_policy")
    if policy is not None:
        known = _READ_POLICIES.get(policy.value) if isinstance(policy.value, str | int) else None
        if known is None:
            fields.report.error(policy, f"this way of reading is not supported: {policy.value}", "write MASTER")
        elif known != "master":
            settings.read_policy = policy.with_value(known)
    fields.refuse("connection_rate_limit", "limiting the rate of connections is not supported")
    fields.ignore(_SETTINGS_IGNORED)
    fields.done()


def _translate_routes(prefix_routes: Fields, native: dict[str, Item], settings: Settings) -> None:
    routes = [_route(route, settings) for route in prefix_routes.messages("routes")]
    fold = prefix_routes.flag("case_insensitive")
    if fold is not None:
        native["case_insensitive"] = fold
    prefix_routes.refuse("catch_all_cluster", "the field is of Envoy's v2 interface", "write catch_all_route")
    catch_all = prefix_routes.message("catch_all_route")
    if catch_all is not None:
        if any(_prefix(route) == "" for route in routes):
            prefix_routes.report.warn(catch_all.item, 'never reached: a route with the prefix "" takes every key')
        else:
            catch_all.take("prefix")
            routes.append(_route(catch_all, settings))
    prefix_routes.done()
    native["routes"] = prefix_routes.item.with_value(list(routes))


def _prefix(route: Item) -> str | None:
    item = route.get("prefix")
    return item.text if item is not None else ""


def _route(route: Fields, settings: Settings) -> Item:
    native: dict[str, Item] = {"prefix": route.text("prefix") or route.item.with_value("")}
    cluster = route.required_text("cluster")
    if cluster is not None:
        native["cluster"] = cluster
        settings.clusters.append(str(cluster.value))
    if (remove := route.flag("remove_prefix")) is not None:
        native["remove_prefix"] = remove
    mirrors = [_mirror(policy, settings) for policy in route.messages("request_mirror_policy")]
    if mirrors:
        settings.mirrored |= {str(each.value) for each in (cluster, *(one.get("cluster") for one in mirrors)) if each}
        native["mirrors"] = route.item.with_value(list(mirrors))
    route.refuse("key_formatter", "rewriting keys is not supported")
    route.refuse("read_command_policy", "sending reads to another cluster is not supported")
    route.done()
    return route.item.with_value(native)


def _mirror(policy: Fields, settings: Settings) -> Item:
    native: dict[str, Item] = {}
    cluster = policy.required_text("cluster")
    if cluster is not None:
        native["cluster"] = cluster
        settings.clusters.append(str(cluster.value))
    exclude = policy.flag("exclude_read_commands")
    native["reads"] = (exclude or policy.item).with_value(
        "exclude" if exclude is not None and exclude.value is True else "include"
    )
    fraction = policy.message("runtime_fraction")
    if fraction is not None and (part := _fraction(fraction)) is not None:
        native["fraction"] = part
    policy.done()
    return policy.item.with_value(native)


def _fraction(fraction: Fields) -> Item | None:
    """The default value in per cent; None where it is not there, or wrong, which is told."""
    fraction.ignore({"runtime_key": "there are no runtime values; the default counts"})
    default = fraction.message("default_value")
    fraction.done()
    if default is None:
        fraction.missing("default_value")
        return None
    number, unit = default.number("numerator"), default.text("denominator")
    default.done()
    units: dict[object, int] = {"HUNDRED": 100, "TEN_THOUSAND": 10_000, "MILLION": 1_000_000}
    size = units.get(unit.value if unit is not None else "HUNDRED")
    if size is None:
        default.report.error(
            unit or default.item, "there is no such denominator", f"write {' or '.join(map(str, units))}"
        )
        return None
    return default.item.with_value(min(100.0, 100 * int(str(number.value)) / size if number is not None else 0.0))


def _auth(proxy: Fields) -> Item | None:
    """What clients must AUTH with; None if nothing."""
    sources = proxy.messages("downstream_auth_passwords")
    single = proxy.message("downstream_auth_password")
    passwords = [
        secret
        for source in ([single] if single is not None else []) + sources
        if (secret := translate_secret(source)) is not None
    ]
    user = proxy.message("downstream_auth_username")
    name = translate_secret(user) if user is not None else None
    if name is not None and not passwords:
        proxy.report.error(name, "a user without a password", "add downstream_auth_passwords")
        return None
    if not passwords:
        return None
    at = passwords[0]
    if name is None:
        return at.with_value({"passwords": at.with_value(list(passwords))})
    users = [password.with_value({"name": name, "password": password}) for password in passwords]
    return at.with_value({"users": at.with_value(list(users))})
