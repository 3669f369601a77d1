"""Reads Dynomite's files: one pool, whose nodes are full copies of each other, becomes a listener and a group.

The file is translated into a native document, whose values keep the lines and the paths of the Dynomite file; the rest
(the model, the rules) is the same for all forms. As with Envoy's files a directive is honoured, ignored with a warning
that says why, or refused. What became of the honoured ones is told in notes.

::

    listen ─▶ listeners[].bind     dyn_listen ─▶ group.listen     servers ─▶ group.redis     dyn_seeds ─▶ group.peers
    datacenter, rack, tokens ─▶ group.member     the pool's name ─▶ group.name     stats_listen ─▶ dynomite_stats.bind

A file that names no other node has no group: all commands go to its one Redis.
"""

from collections.abc import Mapping

from redisha.config.dynomite import levels, topology
from redisha.config.dynomite.directives import Pool
from redisha.config.dynomite.lines import Place, parse_listen, parse_server, parse_tokens
from redisha.config.dynomite.seeds import Peers, read_peers
from redisha.config.scalars import ScalarError, format_duration
from redisha.config.tree import Item, Report, Scalar, describe, suggest

_STATS = "0.0.0.0:22222"

_SECURE = ("none", "rack", "datacenter", "all")


def translate(root: Item, report: Report, env: Mapping[str, str]) -> Item:
    """The native document for a Dynomite file.

    Args:
        root: The Dynomite document.
        report: Takes what is refused, what is ignored, and what became of the rest.
        env: The environment, in which Dynomite looks for the name of ``dns_provider``.
    """
    name = "dyn_o_mite" if "dyn_o_mite" in root.mapping else next(iter(root.mapping))
    item = root.mapping[name]
    for key, other in root.mapping.items():
        if key != name:
            report.error(other, f"a Dynomite file has one pool, and that is '{name}'", "remove this key")
    pool = Pool(item, report)
    here = _place(pool)
    listen, redis = _listen(pool, "listen", required=True), _redis(pool)
    peers = read_peers(pool, env)
    if here.tokens or pool.item.get("tokens") is None:
        topology.check(here, peers.seeds, report)
    _check_encryption(pool, here, peers)
    timeout = pool.number("timeout")
    common: dict[str, Item] = {"redis": redis} if redis is not None else {}
    if timeout is not None:
        common["op_timeout"] = timeout.with_value(format_duration(int(str(timeout.value))))
        report.note(timeout, f"becomes op_timeout: {common['op_timeout'].value}")
    document = _stats(pool, here, peers)
    listener: dict[str, Item] = {"name": item.with_value(name)}
    if listen is not None:
        listener["bind"] = listen
    if peers.named:
        listener["group"] = item.with_value(name)
        document["group"] = item.with_value({"name": item.with_value(name)} | _group(pool, here, peers) | common)
        report.note(item, f"becomes the listener '{name}' and the group '{name}'")
    else:
        listener["routes"] = item.with_value([item.with_value({"cluster": item.with_value(name)})])
        document["clusters"] = item.with_value({name: item.with_value(_alone(pool, common))})
        report.note(
            item, f"names no other node: becomes the listener '{name}', and all its commands go to the one Redis"
        )
    document["listeners"] = item.with_value([item.with_value(listener)])
    pool.done()
    return root.with_value(document)


def _place(pool: Pool) -> Place:
    tokens = pool.text("tokens")
    numbers: tuple[int, ...] = ()
    if tokens is not None:
        try:
            numbers = parse_tokens(str(tokens.value))
        except ScalarError as error:
            pool.report.error(tokens, error.message, error.hint)
    datacenter, rack = pool.text("datacenter"), pool.text("rack")
    return Place(
        str(datacenter.value) if datacenter is not None else "localdc",
        str(rack.value) if rack is not None else "localrack",
        numbers,
    )


def _listen(pool: Pool, name: str, *, required: bool = False) -> Item | None:
    item = pool.text(name)
    if item is None:
        if required:
            pool.missing(name)
        return None
    return item.with_value(parse_listen(str(item.value)))


def _redis(pool: Pool) -> Item | None:
    """The one server, and that it is a Redis."""
    store = pool.number("data_store")
    if store is not None:
        what = "memcached is not supported" if store.value == 1 else f"there is no data_store {store.value}"
        pool.report.error(store, what, "write data_store: 0, with a Redis as the server")
    servers = pool.texts("servers")
    if not servers:
        pool.missing("servers")
        return None
    for other in servers[1:]:
        pool.report.error(other, "a node has one server: Dynomite uses no other either", "remove this line")
    try:
        redis = parse_server(str(servers[0].value))
    except ScalarError as error:
        pool.report.error(servers[0], error.message, error.hint)
        return None
    pool.report.note(servers[0], f"becomes the Redis of this node: {redis}")
    return servers[0].with_value(redis)


def _group(pool: Pool, here: Place, peers: Peers) -> dict[str, Item]:
    """What a node has that knows others."""
    group: dict[str, Item] = {"member": pool.item.with_value(here.member), "peers": peers.item}
    pool.report.note(pool.item, f"datacenter, rack and token become the name of this member: {here.member}")
    pool.report.note(
        peers.item, f"becomes the group's peers: {', '.join(str(item.value) for item in peers.item.sequence)}"
    )
    listen = _listen(pool, "dyn_listen", required=True)
    if listen is not None:
        group["listen"] = listen
        pool.report.warn(
            listen,
            "becomes the group's peer port: members speak redisha's own protocol there, so all nodes of the group must "
            "run redisha",
        )
    for which in ("write", "read"):
        found = _consistency(pool, f"{which}_consistency")
        if found is not None:
            level = str(found.value)
            tell = pool.report.note if level == "DC_ONE" else pool.report.warn
            tell(found, levels.explanation(which, level))
            group[f"{which}_consistency"] = found.with_value(levels.to_native(which, level))
    return group


def _consistency(pool: Pool, name: str) -> Item | None:
    """A level, in capital letters."""
    item = pool.text(name)
    if item is None:
        return None
    level = str(item.value).upper()
    if level not in levels.LEVELS:
        hint = suggest(level, levels.LEVELS)
        pool.report.error(item, f"expected one of {', '.join(levels.LEVELS)}, found {describe(item.value)}", hint)
        return None
    return item.with_value(level)


def _alone(pool: Pool, common: dict[str, Item]) -> dict[str, Item]:
    """The cluster of a node that knows no other."""
    for name in ("dyn_listen", "read_consistency", "write_consistency"):
        item = _consistency(pool, name) if name.endswith("consistency") else _listen(pool, name)
        if item is not None:
            pool.report.warn(item, "ignored: the file names no other node")
    cluster = {"op_timeout": common["op_timeout"]} if "op_timeout" in common else {}
    if "redis" in common:
        cluster["endpoints"] = common["redis"].with_value([common["redis"]])
    return cluster


def _stats(pool: Pool, here: Place, peers: Peers) -> dict[str, Item]:
    """The section for Dynomite's REST, if the file names its address."""
    bind = _listen(pool, "stats_listen")
    if bind is None:
        pool.report.warn(
            pool.item,
            f"there is no stats_listen: Dynomite would answer on {_STATS} then, and redisha does not",
            f"write stats_listen: {_STATS} if something asks there",
        )
        return {}
    pool.report.note(bind, f"becomes dynomite_stats.bind: {bind.value}")
    section = {"bind": bind} | _as_items(bind, here)
    nodes = [
        item.with_value({"peer": item.with_value(seed.address)} | _as_items(item, seed.place))
        for item, seed in peers.seeds
    ]
    if nodes:
        section["nodes"] = bind.with_value(list(nodes))
    return {"dynomite_stats": bind.with_value(section)}


def _as_items(item: Item, place: Place) -> dict[str, Item]:
    token = place.tokens[0] if place.tokens else 0
    values: dict[str, Scalar] = {"datacenter": place.datacenter, "rack": place.rack, "token": token}
    return {key: item.with_value(value) for key, value in values.items()}


def _check_encryption(pool: Pool, here: Place, peers: Peers) -> None:
    """Where Dynomite would encrypt, redisha does not start: it cannot, and in clear is not what was asked for."""
    item = pool.text("secure_server_option")
    if item is None or item.text == "none":
        return
    if item.text not in _SECURE:
        pool.report.error(item, f"expected one of {', '.join(_SECURE)}, found {describe(item.value)}")
        return
    places = [seed.place for _, seed in peers.seeds]
    if peers.complete and not any(_encrypts(str(item.text), here, place) for place in places):
        pool.report.warn(item, f"'{item.text}' encrypts nothing between the nodes of this file, in Dynomite neither")
        return
    pool.report.error(
        item,
        f"encryption between members is not supported yet: '{item.text}'",
        "write secure_server_option: none if the network between the nodes is trusted, or take the traffic through a "
        "tunnel that encrypts it",
    )


def _encrypts(option: str, here: Place, there: Place) -> bool:
    """Whether Dynomite encrypts between two nodes."""
    if option == "datacenter":
        return here.datacenter != there.datacenter
    return option == "all" or (here.datacenter, here.rack) != (there.datacenter, there.rack)
