"""What a group, the listeners that lead to it and the rest of the file must be together."""

from collections.abc import Iterator

from redisha.config.lookup import address_of, elements, entries, here, leads_to, listener_name, one_or_more, text
from redisha.config.scalars import IN_MEMORY, Tcp, parse_bind, parse_endpoint
from redisha.config.tree import Item, Report, suggest

_CONSISTENCIES = ("write_consistency", "read_consistency")


def check(root: Item, report: Report) -> None:
    """Add everything that is wrong or odd around the section ``group`` of a native document."""
    group = root.get("group")
    listeners = elements(root, "listeners")
    for listener in listeners:
        _check_listener(listener, group, report)
    if group is None or not group.mapping:
        return
    if listeners and not any("group" in listener.mapping for listener in listeners):
        name = text(group, "name") or "NAME"
        report.warn(group, "no listener leads to this group", f"write group: {name} in a listener, instead of routes")
    _check_peers(group, listeners, report)
    _check_redis(group, listeners, entries(root, "clusters"), report)
    _check_in_sync(group, report)
    on_partition = group.get("on_partition")
    if on_partition is not None and on_partition.text == "consistent":
        _check_consistent(on_partition, root, group, listeners, report)


def _check_listener(listener: Item, group: Item | None, report: Report) -> None:
    """A listener has a group or routes, and what belongs to the one is not written with the other."""
    item = listener.get("group")
    if item is None:
        for key in _CONSISTENCIES:
            if (other := listener.get(key)) is not None:
                report.error(other, "only a listener of a group has a consistency", "remove it, or write group: NAME")
        return
    for key in ("routes", "catch_all"):
        if (other := listener.get(key)) is not None:
            report.error(other, "a listener has either a group or routes", f"remove {key}, or remove group")
    folded = listener.get("case_insensitive")
    if folded is not None and folded.value is not False:
        report.error(folded, "this is about the prefixes of routes, and a group has none", "remove it")
    name = text(group, "name")
    if item.text is None or item.text == name:
        return
    if group is None:
        report.error(item, f"there is no group '{item.text}'", "add the section 'group', or write routes")
    elif name is not None:
        report.error(item, f"there is no group '{item.text}'", suggest(item.text, [name]))


# --- addresses --------------------------------------------------------------------------------------------------------


def _peers(group: Item) -> list[tuple[Item, Tcp]]:
    """The peers that can be read."""
    found = ((item, address_of(item, parse_endpoint)) for item in one_or_more(group, "peers"))
    return [(item, address) for item, address in found if isinstance(address, Tcp)]


def _check_peers(group: Item, listeners: list[Item], report: Report) -> None:
    seen: dict[str, int] = {}
    peers = _peers(group)
    for item, address in peers:
        name = here(address)
        if name in seen:
            report.error(item, f"the peer {address} is given twice", f"first in line {seen[name]}")
        seen.setdefault(name, item.line)
        for listener, bind in _binds(listeners):
            if leads_to(address, address_of(bind, parse_bind)):
                report.error(
                    item,
                    f"the peer {address} is this sidecar's own listener '{listener_name(listener)}' ({bind.value})",
                    "name the others' peer ports: what they have as 'listen' in their groups",
                )
    listen = group.get("listen")
    if listen is not None and len(peers) == 1 and leads_to(peers[0][1], address_of(listen, parse_bind)):
        report.warn(peers[0][0], "the only peer is this member itself", "name the other members' peer ports")


def _binds(listeners: list[Item]) -> Iterator[tuple[Item, Item]]:
    return ((listener, bind) for listener in listeners for bind in one_or_more(listener, "bind"))


def _check_redis(group: Item, listeners: list[Item], clusters: dict[str, Item], report: Report) -> None:
    """The member's Redis is no port of this sidecar, and gets no writes beside the group's."""
    item = group.get("redis")
    redis = address_of(item, parse_endpoint) if item is not None else None
    if item is None or redis is None:
        return
    ports = [(f"listener '{listener_name(listener)}'", bind) for listener, bind in _binds(listeners)]
    if (listen := group.get("listen")) is not None:
        ports.append(("peer port", listen))
    for what, bind in ports:
        if leads_to(redis, address_of(bind, parse_bind)):
            report.error(
                item,
                f"the Redis {redis} of the group is this sidecar's own {what} ({bind.value}): a loop",
                "name the Redis server itself",
            )
    for name, cluster in clusters.items():
        if name == text(group, "name"):
            report.error(
                cluster, "the group has this name, and its Redis is known by it", "give the cluster another name"
            )
        for endpoint in one_or_more(cluster, "endpoints"):
            address = address_of(endpoint, parse_endpoint)
            if address is not None and here(address) == here(redis):
                report.warn(
                    endpoint,
                    f"{address} is the group's own Redis: what is written there by way of the cluster '{name}', "
                    "the other members are not told",
                    "send these writes through the group's listener",
                )


# --- how many ---------------------------------------------------------------------------------------------------------


def _check_in_sync(group: Item, report: Report) -> None:
    """No more members are waited for than there are."""
    item = group.get("min_in_sync")
    peers = [address for _, address in _peers(group)]
    if item is None or type(item.value) is not int or not peers or item.value <= len(peers) + 1:
        return
    names = {address.host for address in peers if not address.is_ip}
    if not names or len(names) == len(peers) > 1:
        report.error(
            item,
            f"the group has {len(peers) + 1} members, and {item.value} must be in sync: no write of 'quorum' or 'all' "
            "would ever be done",
            f"write at most {len(peers) + 1}",
        )
    else:
        report.warn(
            item,
            f"{item.value} members must be in sync, and the file names {len(peers) + 1}: right only if "
            f"'{min(names)}' stands for several",
        )


def _check_consistent(on_partition: Item, root: Item, group: Item, listeners: list[Item], report: Report) -> None:
    """What ``on_partition: consistent`` needs to keep what it promises."""
    state_dir = root.get("state_dir")
    if state_dir is not None and state_dir.text in (IN_MEMORY, "none"):
        report.error(
            state_dir,
            "with on_partition: consistent a member's votes must outlive its process",
            "name a folder on a disk that stays, for example /var/lib/redisha",
        )
    if group.get("arbiter") is None and len(_peers(group)) == 1:
        report.warn(
            on_partition,
            "a group of two without an arbiter has no majority when one member is gone: the other then only serves "
            "reads",
            "add an arbiter, or a third member, or write on_partition: available",
        )
    for item in _acknowledged_by_one(on_partition, group, listeners):
        report.warn(
            item,
            "with write_consistency: one a write is acknowledged before another member has it: even with "
            "on_partition: consistent it may be lost with its leader",
            "write write_consistency: quorum",
        )


def _acknowledged_by_one(on_partition: Item, group: Item, listeners: list[Item]) -> list[Item]:
    """Where it is said, or left unsaid, that clients' writes are acknowledged by one member."""
    default = group.get("write_consistency")
    default_is_one = default is None or default.text == "one"
    leading = [listener for listener in listeners if "group" in listener.mapping]
    own = [item for listener in leading if (item := listener.get("write_consistency")) is not None]
    found = [item for item in own if item.text == "one"]
    if default_is_one and (len(own) < len(leading) or not leading):
        found.append(default or on_partition)
    return found
