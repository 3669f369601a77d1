"""The section ``group``: the members that hold the same data, as this one sees them."""

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import BeforeValidator, Field, Strict, model_validator

from redisha.config.scalars import ScalarError, Tcp, parse_address, parse_bind, parse_endpoint
from redisha.config.section import (
    Count,
    Endpoint,
    Health,
    Name,
    SecretText,
    Section,
    Timeout,
    UpstreamAuth,
    one_or_more,
)

MAX_MEMBERS = 7


def _peer_port(value: object) -> str:
    address = parse_bind(value)
    if not isinstance(address, Tcp):
        raise ScalarError("the peer port is a TCP port", "write for example 0.0.0.0:8101")
    return str(address)


def _peer(value: object) -> str:
    address = parse_endpoint(value)
    if not isinstance(address, Tcp):
        raise ScalarError("a peer is reached over TCP", "write host:port, with the port that its group listens on")
    return str(address)


def _url(value: object) -> str:
    match = re.fullmatch(r"(https?)://([^/?#@\s]+)/?", value, re.ASCII) if isinstance(value, str) else None
    if match is None:
        raise ScalarError("expected a URL of a server, without a path", "write for example https://127.0.0.1:6443")
    host = match[2]
    parse_address(host if re.search(r":[^:\]]*\Z", host) else f"{host}:1")
    return f"{match[1]}://{host}"


def _object_name(value: object) -> str:
    """The name of a Kubernetes object."""
    if not isinstance(value, str) or not re.fullmatch(
        r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?", value, re.ASCII
    ):
        raise ScalarError("this is no name of a Kubernetes object", "use small letters, digits, '-' and '.'")
    return value


def _file(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise ScalarError("expected the absolute path of a file")
    return value


PeerPort: TypeAlias = Annotated[str, BeforeValidator(_peer_port)]
Peer: TypeAlias = Annotated[str, BeforeValidator(_peer)]
Url: TypeAlias = Annotated[str, BeforeValidator(_url)]
ObjectName: TypeAlias = Annotated[str, BeforeValidator(_object_name)]
File: TypeAlias = Annotated[str, BeforeValidator(_file)]
WriteConsistency: TypeAlias = Literal["one", "quorum", "all"]
ReadConsistency: TypeAlias = Literal["one", "leader"]


class KubernetesArbiter(Section):
    """A Lease object of Kubernetes that all members may read and change."""

    lease: ObjectName
    namespace: ObjectName | None = None
    """Where it is; None: the pod's own."""
    server: Url | None = None
    """The API server; None: the one that the environment of a pod names."""
    token_file: File | None = None
    """What to say to it; None: the pod's service account."""
    ca_file: File | None = None
    """Whose certificates to trust; None: the pod's service account's."""


class EtcdArbiter(Section):
    """A key of etcd."""

    endpoints: Annotated[tuple[Url, ...], BeforeValidator(one_or_more), Strict(False), Field(min_length=1)]
    key: Name
    username: SecretText | None = None
    password: SecretText | None = None

    @model_validator(mode="after")
    def _both_or_none(self) -> "EtcdArbiter":
        if (self.username is None) != (self.password is None):
            raise ScalarError("a username needs a password, and a password a username")
        return self


class Arbiter(Section):
    """Who has the vote that a group of two lacks: one of the two."""

    kubernetes: KubernetesArbiter | None = None
    etcd: EtcdArbiter | None = None

    @model_validator(mode="after")
    def _one(self) -> "Arbiter":
        if (self.kubernetes is None) == (self.etcd is None):
            raise ScalarError("an arbiter is either kubernetes or etcd", "write one of them, or remove 'arbiter'")
        return self


class Group(Section):
    """The members that hold the same data; this one, and where the others are."""

    later: ClassVar[Mapping[str, str]] = {"tls": "TLS between members comes in a later version"}

    name: Name
    """Equal on all members."""
    member: Name | None = None
    """This member, unlike all others; None: the machine's name."""
    listen: PeerPort
    """Where the other members come in."""
    redis: Endpoint
    """This member's own Redis, that nobody else writes to."""
    peers: Annotated[
        tuple[Peer, ...], BeforeValidator(one_or_more), Strict(False), Field(min_length=1, max_length=MAX_MEMBERS - 1)
    ]
    """The others' peer ports. Every address of a name is a member; one that turns out to be this member is left out."""
    write_consistency: WriteConsistency = "one"
    """How many members must have a write before it is acknowledged, where the listener does not say it."""
    read_consistency: ReadConsistency = "one"
    """``one``: this member's Redis; ``leader``: through the leader, and so of all writes acknowledged before."""
    min_in_sync: Annotated[int, Field(ge=1, le=MAX_MEMBERS)] = 1
    """How many members must be in sync for a write of ``quorum`` or ``all``."""
    on_partition: Literal["available", "consistent"] = "available"
    """What a member does that no majority can be reached from: go on alone, or only serve reads."""
    arbiter: Arbiter | None = None
    secret: SecretText | None = None
    """What members prove to each other that they know; None: nothing is asked."""
    heartbeat: Timeout = 200
    """Milliseconds from one beat to the next."""
    missed_heartbeats: Count = 5
    """A member that misses so many in a row is taken for gone."""
    connect_timeout: Timeout = 250
    """Milliseconds for connecting to the Redis, or to a peer."""
    op_timeout: Timeout = 5000
    """Milliseconds after which a command without a reply is in doubt."""
    auth: UpstreamAuth | None = None
    health: Health = Health()
    dns_refresh: Timeout = 5000
    """Milliseconds until a name is asked for again."""
