"""What a server is and which commands it allows, asked once before it is compared."""

from __future__ import annotations

from dataclasses import dataclass

from redisha.core import ReplyError
from redisha.health.probe import parse_info
from redisha.verify.errors import ServerError, is_missing, refusal
from redisha.verify.link import Link

_PROBE = b"redisha:verify"
"""A key that is read and never written."""

_DATABASES = 16
"""Redis's own default, where ``CONFIG GET databases`` is not allowed."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a server.

    Attributes:
        address: as the operator named it.
        run_id: changes with every start; the same on two addresses means one server.
        version: for example ``7.0.15``.
        role: ``master`` or ``slave``.
        master: the address that a replica follows, else empty.
        cluster: it is a node of a cluster.
        keys: database → keys, as ``INFO keyspace`` says.
        databases: how many there are.
        dump: ``DUMP`` may be called.
        expiretime: ``PEXPIRETIME`` may be called; else times come from ``TIME`` and ``PTTL`` and are about 1 ms wrong.
        memory: ``MEMORY USAGE`` may be called.
        field_expiry: fields of hashes may expire (7.4 and newer).
    """

    address: str
    run_id: str
    version: str
    role: str
    master: str
    cluster: bool
    keys: dict[int, int]
    databases: int
    dump: bool
    expiretime: bool
    memory: bool
    field_expiry: bool

    @property
    def major(self) -> int:
        """The number before the first dot of the version; 0 if there is none."""
        head = self.version.partition(".")[0]
        return int(head) if head.isdecimal() else 0


async def learn(link: Link) -> Facts:
    """Ask a server.

    Raises:
        ServerError: it is not reachable any more, refuses ``INFO``, is loading, or is no server of keys.
    """
    reply = await link.call(b"INFO")
    if isinstance(reply, ReplyError):
        raise refusal(link.address, "INFO", reply)
    if not isinstance(reply, bytes):
        raise ServerError(f"{link.address} is no Redis: it answered INFO with {reply!r:.60}")
    info = parse_info(reply.decode(errors="replace"))
    if info.get("redis_mode") == "sentinel":
        raise ServerError(f"{link.address} is a Sentinel and has no keys")
    if info.get("loading", "0") != "0":
        raise ServerError(f"{link.address} is loading its data: try again when it has it")
    allowed = [
        not is_missing(await link.call(*command))
        for command in (
            (b"DUMP", _PROBE),
            (b"PEXPIRETIME", _PROBE),
            (b"MEMORY", b"USAGE", _PROBE),
            (b"HPEXPIRETIME", _PROBE, b"FIELDS", b"1", b"x"),
        )
    ]
    return Facts(
        link.address,
        info.get("run_id", ""),
        info.get("redis_version", ""),
        info.get("role", ""),
        f"{info['master_host']}:{info.get('master_port', '')}" if "master_host" in info else "",
        info.get("cluster_enabled", "0") == "1",
        _keyspace(info),
        await _databases(link),
        *allowed,
    )


def _keyspace(info: dict[str, str]) -> dict[int, int]:
    """Of ``db0: keys=5,expires=0,avg_ttl=0`` and its like."""
    found = {}
    for name, value in info.items():
        number = name.removeprefix("db")
        keys = value.partition("keys=")[2].partition(",")[0]
        if name.startswith("db") and number.isdecimal() and keys.isdecimal():
            found[int(number)] = int(keys)
    return found


async def _databases(link: Link) -> int:
    match await link.call(b"CONFIG", b"GET", b"databases"):
        case [b"databases", bytes(count)] if count.isdigit():
            return int(count)
    return _DATABASES


def refuse_same(a: Facts, b: Facts) -> None:
    """Two addresses of one server are no pair.

    Raises:
        ServerError: it is one server.
    """
    if a.run_id and a.run_id == b.run_id:
        raise ServerError(f"{a.address} and {b.address} are the same server: both have run_id {a.run_id}")


def refuse_target(facts: Facts) -> None:
    """What may not be written to.

    Raises:
        ServerError: it is a replica, or a node of a cluster.
    """
    if facts.role == "slave":
        raise ServerError(
            f"{facts.address} cannot be written: it is a replica of {facts.master}; name that one, or end the "
            "replication with REPLICAOF NO ONE"
        )
    if facts.cluster:
        raise ServerError(f"{facts.address} cannot be written: it is a node of a cluster, which keeps only its slots")
