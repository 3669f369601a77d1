"""Compiles a configuration and resolved names into the plan that the data plane walks. Pure.

The dataclasses are the plan's JSON, field by field; the data plane refuses every other one.
"""

import ipaddress
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from redisha.config.model import Cluster, Config, Listener, ListenerAuth, Resync
from redisha.config.model import Limits as ConfigLimits
from redisha.config.scalars import Address, Tcp, parse_endpoint


@dataclass(frozen=True, slots=True)
class Target:
    """A host name that an endpoint has instead of an address.

    Attributes:
        host: The name.
        refresh_ms: After how many milliseconds it is to be asked for again.
        respect_dns_ttl: Whether the TTL of the answer counts instead, where it is known.
    """

    host: str
    refresh_ms: int
    respect_dns_ttl: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the process, in bytes and milliseconds; a time or a rate of 0 is no limit."""

    max_clients: int
    max_request: int
    max_output: int
    memory_bytes: int
    log_bytes: int
    idle_timeout_ms: int
    handshake_timeout_ms: int
    resync_keys_per_s: int
    resync_bytes_per_s: int


@dataclass(frozen=True, slots=True)
class PlanUser:
    """A name (None is the default user) and a password that a client may AUTH with."""

    name: str | None
    password: str


@dataclass(frozen=True, slots=True)
class PlanMirror:
    """A cluster that receives a route's writes, and its reads if ``reads`` is ``include``."""

    cluster: str
    reads: str


@dataclass(frozen=True, slots=True)
class PlanRoute:
    """Key prefix → cluster; the prefix "" takes what no other does."""

    prefix: str
    remove_prefix: bool
    cluster: str
    mirrors: tuple[PlanMirror, ...]


@dataclass(frozen=True, slots=True)
class PlanListener:
    """Where clients come in. Without users no AUTH is asked."""

    name: str
    bind: tuple[str, ...]
    users: tuple[PlanUser, ...]
    case_insensitive: bool
    routes: tuple[PlanRoute, ...]


@dataclass(frozen=True, slots=True)
class PlanEndpoint:
    """One server. The id stays the same from plan to plan; the address may change under it.

    Without an address its name has not resolved yet; what a mirror is to get waits in the log meanwhile.
    """

    id: str
    address: str | None


@dataclass(frozen=True, slots=True)
class PlanCluster:
    """A named set of servers."""

    name: str
    endpoints: tuple[PlanEndpoint, ...]
    balance: str
    hash_tags: bool
    connect_timeout_ms: int
    op_timeout_ms: int
    username: str | None
    password: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What the data plane does, whole. Each plan replaces the one before.

    ``host`` is the machine's name, by which the data plane knows its own markers again. ``state_dir`` is the
    folder of the dirty maps, None to keep them in memory; it stays the same from plan to plan.
    """

    generation: int
    host: str
    state_dir: str | None
    limits: Limits
    listeners: tuple[PlanListener, ...]
    clusters: tuple[PlanCluster, ...]

    def to_json(self) -> bytes:
        """The plan as the data plane reads it. Holds passwords: never log it."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":")).encode()


def targets(config: Config) -> tuple[Target, ...]:
    """The names to resolve, each once, in the order of the file.

    A name of several clusters is asked for as often as the most eager one wants. IP addresses and Unix sockets need no
    resolving and are not among them.
    """
    found: dict[str, Target] = {}
    for cluster in config.clusters.values():
        for endpoint in cluster.endpoints:
            host = _name(parse_endpoint(endpoint))
            if host is not None:
                known = found.get(host, Target(host, cluster.dns_refresh, respect_dns_ttl=False))
                found[host] = Target(
                    host,
                    min(known.refresh_ms, cluster.dns_refresh),
                    respect_dns_ttl=known.respect_dns_ttl or cluster.respect_dns_ttl,
                )
    return tuple(found.values())


def compile_plan(
    config: Config,
    resolved: Mapping[str, Sequence[str]],
    generation: int,
    state_dir: str | None = None,
    host: str = "",
) -> Plan:
    """The plan of a configuration.

    Args:
        config: What was read.
        resolved: The IP addresses of each host name, in any order. A name that is missing, or has none, gives an
            endpoint without an address.
        generation: The number of the plan, greater than that of the plan before.
        state_dir: The folder of the dirty maps; None for memory only.
        host: The name of this machine.
    """
    return Plan(
        generation=generation,
        host=host,
        state_dir=state_dir,
        limits=_limits(config.limits, config.resync),
        listeners=tuple(_listener(listener) for listener in config.listeners),
        clusters=tuple(_cluster(name, cluster, resolved) for name, cluster in config.clusters.items()),
    )


def _limits(limits: ConfigLimits, resync: Resync) -> Limits:
    return Limits(
        max_clients=limits.max_clients,
        max_request=limits.max_request,
        max_output=limits.max_output,
        memory_bytes=limits.memory,
        log_bytes=limits.log_bytes,
        idle_timeout_ms=limits.idle_timeout,
        handshake_timeout_ms=limits.handshake_timeout,
        resync_keys_per_s=resync.max_keys_per_second,
        resync_bytes_per_s=resync.max_bytes_per_second,
    )


def _listener(listener: Listener) -> PlanListener:
    return PlanListener(
        name=listener.name,
        bind=listener.bind,
        users=_users(listener.auth),
        case_insensitive=listener.case_insensitive,
        routes=tuple(
            PlanRoute(
                prefix=route.prefix,
                remove_prefix=route.remove_prefix,
                cluster=route.cluster,
                mirrors=tuple(PlanMirror(mirror.cluster, mirror.reads) for mirror in route.mirrors),
            )
            for route in listener.routes
        ),
    )


def _users(auth: ListenerAuth | None) -> tuple[PlanUser, ...]:
    if auth is None:
        return ()
    users = [PlanUser(None, password.value) for password in auth.passwords]
    users += [PlanUser(user.name.value, user.password.value) for user in auth.users]
    return tuple(dict.fromkeys(users))


def _cluster(name: str, cluster: Cluster, resolved: Mapping[str, Sequence[str]]) -> PlanCluster:
    auth = cluster.auth
    return PlanCluster(
        name=name,
        endpoints=tuple(found for endpoint in cluster.endpoints for found in _endpoints(endpoint, resolved)),
        balance=cluster.balance,
        hash_tags=cluster.hash_tags,
        connect_timeout_ms=cluster.connect_timeout,
        op_timeout_ms=cluster.op_timeout,
        username=auth.username.value if auth is not None and auth.username is not None else None,
        password=auth.password.value if auth is not None else None,
    )


def _endpoints(endpoint: str, resolved: Mapping[str, Sequence[str]]) -> list[PlanEndpoint]:
    """One endpoint of the configuration: as it is, or one per address of its name."""
    address = parse_endpoint(endpoint)
    host = _name(address)
    if host is None or not isinstance(address, Tcp):
        return [PlanEndpoint(endpoint, endpoint)]
    ips = _one_family(resolved.get(host, ()))
    if not ips:
        return [PlanEndpoint(endpoint, None)]
    if len(ips) == 1:
        return [PlanEndpoint(endpoint, str(Tcp(ips[0], address.port)))]
    return [PlanEndpoint(f"{endpoint}/{ip}", str(Tcp(ip, address.port))) for ip in ips]


def _one_family(addresses: Sequence[str]) -> list[str]:
    """The addresses in a fixed order. One server often has an address of each family: then the IPv4 ones count."""
    known = {ipaddress.ip_address(address) for address in addresses}
    chosen = {address for address in known if address.version == 4} or known
    return [str(address) for address in sorted(chosen, key=int)]


def _name(address: Address) -> str | None:
    """The host name of an address that has one."""
    return address.host if isinstance(address, Tcp) and not address.is_ip else None
