"""What works and is still worth a word before it is run."""

from redisha.config.balancing import WITHOUT_HASH
from redisha.config.model import Config, Route
from redisha.config.scalars import Tcp, parse_bind


def advise(config: Config) -> list[str]:
    """Sentences for the operator; the configuration is fine without following them."""
    return [*_mirrors(config), *_catch_all(config), *_several(config), *_group(config), *_admin(config)]


def _mirrors(config: Config) -> list[str]:
    """One advice for each set of mirrors: whether its Redis takes writes from elsewhere cannot be seen from here."""
    sets: dict[tuple[str, tuple[str, ...]], None] = {}
    for route in _routes(config):
        if route.copies:
            sets[(route.cluster, tuple(sorted(mirror.cluster for mirror in route.copies)))] = None
    return [
        f"{cluster} is mirrored to {' and '.join(mirrors)}: if {'that Redis' if len(mirrors) == 1 else 'one of them'} "
        "also takes writes through another sidecar, as in a pair that mirrors both ways, two writes of one key at the "
        "same moment can leave the servers with different values, and a resync only adds keys there, and overwrites "
        "none; send all writes through one sidecar, or use a group"
        for cluster, mirrors in sets
    ]


def _catch_all(config: Config) -> list[str]:
    return [
        f"the listener {listener.name} has no route for other keys and for commands without a key (DBSIZE, KEYS, "
        'FLUSHALL …): they get an error; add a route with prefix: "" to serve them'
        for listener in config.listeners
        if listener.group is None and all(route.prefix for route in listener.routes)
    ]


def _several(config: Config) -> list[str]:
    return [
        f"the keys of {name} are divided among {len(cluster.endpoints)} servers: commands with keys on two of them "
        "cannot be done"
        for name, cluster in config.clusters.items()
        if len(cluster.endpoints) > 1 and cluster.balance not in WITHOUT_HASH
    ]


def _group(config: Config) -> list[str]:
    if config.group is None or config.group.secret is not None:
        return []
    return [
        f"the group {config.group.name} has no secret: whoever reaches {config.group.listen} can read and change "
        "everything; add secret: ${GROUP_SECRET} on all members, or let only them reach that port"
    ]


def _admin(config: Config) -> list[str]:
    if config.admin is None:
        return ["there is no admin address: no metrics and no health check; add admin: {bind: 127.0.0.1:8001}"]
    address = parse_bind(config.admin.bind)
    if isinstance(address, Tcp) and address.host in ("0.0.0.0", "::"):  # noqa: S104  # compared, not bound
        return [f"the admin server listens on all addresses ({address}) and asks no password; guard it from outside"]
    return []


def _routes(config: Config) -> list[Route]:
    return [route for listener in config.listeners for route in listener.routes]
