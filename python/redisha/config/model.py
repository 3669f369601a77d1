"""The configuration as frozen, strict values: durations in milliseconds, sizes in bytes, addresses as canonical text.

The model says what *one* value may be; :mod:`redisha.config.rules` says what the values of a file may be together.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, Strict, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from redisha.config.dynomite_stats import DynomiteNode, DynomiteStats
from redisha.config.group import Group, ReadConsistency, WriteConsistency
from redisha.config.scalars import ScalarError, Tcp, parse_endpoint
from redisha.config.section import (
    Bind,
    Bytes,
    Count,
    Endpoint,
    Folder,
    Health,
    Milliseconds,
    Name,
    Rate,
    RingSize,
    SecretText,
    Section,
    Timeout,
    UpstreamAuth,
    one_or_more,
)

__all__ = [
    "Admin",
    "Cluster",
    "Config",
    "DynomiteNode",
    "DynomiteStats",
    "Group",
    "Health",
    "Limits",
    "Listener",
    "ListenerAuth",
    "Mirror",
    "Resync",
    "Route",
    "Scrub",
    "Section",
    "UpstreamAuth",
    "User",
]


class Admin(Section):
    """The HTTP server for metrics, health and insight."""

    bind: Bind = "127.0.0.1:8001"


class Mirror(Section):
    """A second cluster that receives a route's writes."""

    cluster: Name
    reads: Literal["exclude", "include"] = "exclude"
    fraction: Annotated[float, Field(ge=0, le=100)] = 100
    """Per cent of the commands that are mirrored; a mirror that lacks some of them is no copy."""

    @property
    def is_copy(self) -> bool:
        """Whether it gets everything, so that it is to be equal."""
        return self.fraction == 100  # per cent


class Route(Section):
    """Key prefix → cluster, with mirrors. The longest prefix wins; "" takes all other keys and keyless commands."""

    prefix: Annotated[str, Field(max_length=1000)] = ""
    remove_prefix: bool = False
    """Whether the upstream sees the keys without the prefix."""
    cluster: Name
    mirrors: Annotated[tuple[Mirror, ...], Strict(False)] = ()

    @property
    def copies(self) -> tuple[Mirror, ...]:
        """The mirrors that get everything."""
        return tuple(mirror for mirror in self.mirrors if mirror.is_copy)


class User(Section):
    """A name and password that clients may AUTH with."""

    name: SecretText
    password: SecretText


class ListenerAuth(Section):
    """What clients must AUTH with. Every password and every user listed is good."""

    passwords: Annotated[tuple[SecretText, ...], BeforeValidator(one_or_more), Strict(False)] = ()
    """For ``AUTH password``, the user ``default``."""
    users: Annotated[tuple[User, ...], Strict(False)] = ()

    @model_validator(mode="before")
    @classmethod
    def _password(cls, data: Any) -> Any:
        """``password: x`` is ``passwords: [x]``."""
        if isinstance(data, dict) and "password" in data and "passwords" not in data:
            data = dict(data)
            data["passwords"] = [data.pop("password")]
        return data

    @model_validator(mode="after")
    def _not_empty(self) -> "ListenerAuth":
        if not self.passwords and not self.users:
            raise ScalarError("no password and no user", "remove 'auth' if no password is asked")
        return self


class Listener(Section):
    """Where clients come in, and where their commands go."""

    later: ClassVar[Mapping[str, str]] = {
        "tls": "TLS comes in a later version",
        "workers": "all workers serve all listeners: write it beside them",
    }

    name: Name
    """Identity across reloads, and in metrics and logs. By default the first address."""
    stat_prefix: Name | None = None
    """The name in Envoy-compatible statistics (``redis.<stat_prefix>.``)."""
    bind: Annotated[tuple[Bind, ...], BeforeValidator(one_or_more), Strict(False), Field(min_length=1)]
    auth: ListenerAuth | None = None
    case_insensitive: bool = False
    """Whether prefixes match keys in any case."""
    routes: Annotated[tuple[Route, ...], Strict(False)] = ()
    group: Name | None = None
    """The group that has all keys of this listener, instead of routes."""
    write_consistency: WriteConsistency | None = None
    """For the clients of this listener; None: the group's."""
    read_consistency: ReadConsistency | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, data: Any) -> Any:
        """``catch_all: x`` is a route with the prefix ""; a listener without a name is called by its first address."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        if isinstance(data.get("catch_all"), str) and isinstance(data.get("routes", []), list):
            data["routes"] = [*data.get("routes", []), {"prefix": "", "cluster": data.pop("catch_all")}]
        if "name" not in data:
            addresses = one_or_more(data.get("bind"))
            data["name"] = str(addresses[0]) if isinstance(addresses, list) and addresses else "listener"
        return data


class Cluster(Section):
    """A named set of Redis servers."""

    later: ClassVar[Mapping[str, str]] = {"tls": "TLS comes in a later version"}

    type: Literal["standalone", "redis_cluster"] = "standalone"
    """``redis_cluster``: ``endpoints`` are some nodes of a Redis Cluster, which tell of the others."""
    endpoints: Annotated[tuple[Endpoint, ...], BeforeValidator(one_or_more), Strict(False), Field(min_length=1)]
    discovery: Literal["static", "strict_dns"] = "strict_dns"
    """``strict_dns``: every address of every name is a server; names are asked for again. ``static``: no names."""
    balance: Literal["maglev", "ring_hash", "round_robin", "least_request", "random"] = "maglev"
    """Which endpoint gets a command: by its key with the first two, else whose turn it is."""
    minimum_ring_size: RingSize = 1024
    maximum_ring_size: RingSize = 8 * 1024**2
    ring_hash_function: Literal["xx_hash", "murmur_hash_2"] = "xx_hash"
    """What places endpoints on the ring."""
    choice_count: Annotated[int, Field(ge=2, le=100)] = 2
    """How many endpoints ``least_request`` draws to take the least busy of."""
    dns_refresh: Timeout = 5000
    respect_dns_ttl: bool = False
    connect_timeout: Timeout = 250
    op_timeout: Timeout = 5000
    hash_tags: bool = False
    """Whether ``{tag}`` in a key alone decides its server."""
    enable_redirection: bool = False
    """Whether a command that is answered with MOVED or ASK is sent there; of a Redis Cluster always."""
    read_policy: Literal["master", "prefer_master", "replica", "prefer_replica", "any"] = "master"
    """Who is read from in a Redis Cluster."""
    refresh: Timeout = 5000
    """How often a Redis Cluster is asked for its slot map."""
    auth: UpstreamAuth | None = None
    health: Health = Health()

    @model_validator(mode="after")
    def _static_is_static(self) -> "Cluster":
        if self.discovery == "static":
            for endpoint in self.endpoints:
                address = parse_endpoint(endpoint)
                if isinstance(address, Tcp) and not address.is_ip:
                    raise ScalarError(
                        f"the discovery 'static' needs IP addresses, and '{address.host}' is a name",
                        "write discovery: strict_dns",
                    )
        return self


class Limits(Section):
    """The bounds of the process. Each has a counter for what it refused."""

    max_clients: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    max_request: Annotated[Bytes, Field(le=1024**3)] = 64 * 1024**2
    """One command, with all its arguments."""
    max_output: Bytes = 64 * 1024**2
    """Replies that a client did not read yet; past it the client is closed."""
    memory: Bytes = 256 * 1024**2
    """All of it together; past it the client that holds most is closed."""
    log_bytes: Bytes = 64 * 1024**2
    """Writes that a mirror did not acknowledge yet, per Redis server that has mirrors."""
    idle_timeout: Milliseconds = 0
    """After which a silent client is closed; 0 is never."""
    handshake_timeout: Milliseconds = 10_000
    """The time to AUTH where a password is asked; 0 is no limit."""


class Scrub(Section):
    """The comparison in the background: a random sample of keys of each mirror that should be equal."""

    interval: Milliseconds = 600_000
    """From one run to the next; 0 is never."""
    sample: Count = 1000
    """Keys per run and mirror."""


class Resync(Section):
    """How mirrors are brought up to date, and how it is checked that they are."""

    max_keys_per_second: Annotated[int, Field(ge=0, le=10**9)] = 0
    """Keys copied per second, for each mirror; 0 is no limit but the latency that clients see."""
    max_bytes_per_second: Rate = 0
    """The same in bytes."""
    scrub: Scrub = Scrub()


class Config(Section):
    """A whole configuration."""

    later: ClassVar[Mapping[str, str]] = {"tls": "TLS comes in a later version"}

    admin: Admin | None = None
    dynomite_stats: DynomiteStats | None = None
    state_dir: Folder | None = None
    """Where it is kept which keys a copy may lack; ``memory`` is nowhere, None what :mod:`redisha.statedir` finds."""
    listeners: Annotated[tuple[Listener, ...], Strict(False), Field(min_length=1)]
    group: Group | None = None
    clusters: dict[Name, Cluster]
    """May be empty where there is a group."""
    resync: Resync = Resync()
    limits: Limits = Limits()
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Threads that serve clients; a reload cannot change it."""

    @model_validator(mode="before")
    @classmethod
    def _a_group_needs_no_clusters(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("group") is not None and data.get("clusters") is None:
            return {**data, "clusters": {}}
        return data

    @field_validator("clusters")
    @classmethod
    def _something_to_serve(cls, clusters: dict[str, Cluster], info: ValidationInfo) -> dict[str, Cluster]:
        # A group that is wrong is not in the data: it was told.
        if not clusters and info.data.get("group", cls) is None:
            raise PydanticCustomError("too_short", "at least one is needed")
        return clusters
