"""What is told of each replica: a mirror, or a member of the group. Pure.

The data plane's record, how far its resync is, scrubs, refills, warnings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from redisha.admin import Snapshot
from redisha.core import ReplicaStats
from redisha.health.evictions import advice
from redisha.plan import peer_cluster
from redisha.refill import RefillStats


def documents(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Every replica, ready for JSON. One that is a member of the group has the member's name, any other none."""
    return [_document(snapshot, replica) for replica in snapshot.stats.replicas]


def member_of(snapshot: Snapshot, replica: ReplicaStats) -> str:
    """The member of the group that a replica is; its address while its name is not known; empty: it is a mirror."""
    group = snapshot.group
    if group is None:
        return ""
    for peer in group.peers:
        if replica.mirror == f"{peer_cluster(group.name, peer.id)}/{peer.id}":
            return peer.status.member or peer.id
    return ""


def _document(snapshot: Snapshot, replica: ReplicaStats) -> dict[str, Any]:
    scrub = snapshot.scrubs.get((replica.primary, replica.mirror))
    return asdict(replica) | {
        "member": member_of(snapshot, replica),
        "progress": progress(replica),
        "scrub": asdict(scrub) if scrub is not None else None,
        "warnings": list(warnings(snapshot, replica)),
    }


def refill_documents(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Every primary that is being filled again from a mirror, or was; ready for JSON."""
    return [
        asdict(refill) | {"percent": _percent(refill.done, refill.total), "eta_s": _refill_eta(refill)}
        for refill in snapshot.refills.values()
    ]


def lines(snapshot: Snapshot) -> Iterator[str]:
    """The same as ``primary -> mirror::key::value``."""
    for replica in snapshot.stats.replicas:
        document = _document(snapshot, replica)
        name = f"{document.pop('primary')} -> {document.pop('mirror')}"
        for key, value in _flat(document):
            yield f"{name}::{key}::{value}"
    for refill in refill_documents(snapshot):
        name = f"{refill.pop('primary')} <- {refill.pop('mirror')}"
        for key, value in refill.items():
            yield f"{name}::refill_{key}::{'' if value is None else value}"


def _flat(document: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        if isinstance(value, dict):
            yield from ((f"{key}_{inner}", "" if each is None else each) for inner, each in value.items())
        elif isinstance(value, list):
            yield from ((key.removesuffix("s"), each) for each in value)
        elif value is not None:
            yield key, value


def progress(replica: ReplicaStats) -> dict[str, Any] | None:
    """How far the running resync is; None when none runs, or nothing was counted yet."""
    counted = replica.resync_total or replica.resync_done
    if replica.state not in ("resync", "paused") or replica.resync in ("", "log") or not counted:
        return None
    left = max(0, replica.resync_total - replica.resync_done)
    known = replica.resync_total and replica.resync_rate
    return {
        "kind": replica.resync,
        "done": replica.resync_done,
        "total": replica.resync_total,
        "percent": _percent(replica.resync_done, replica.resync_total),
        "rate": replica.resync_rate,
        "eta_s": round(left / replica.resync_rate) if known else None,
    }


def warnings(snapshot: Snapshot, replica: ReplicaStats) -> Iterator[str]:
    """What may make the two differ again."""
    if not replica.is_copy:
        return
    for key, health in snapshot.health.items():
        if (
            str(key) in (replica.primary, replica.mirror)
            and health.facts is not None
            and (text := advice(health.facts))
        ):
            yield f"{key} {text}"


def _percent(done: int, total: int) -> float | None:
    """One decimal; 100 only at the end, although the total is an estimate."""
    if total <= 0:
        return None
    return 100.0 if done >= total else min(99.9, round(100 * done / total, 1))


def _refill_eta(refill: RefillStats) -> int | None:
    if not refill.active or not refill.rate or not refill.total:
        return None
    return round(max(0, refill.total - refill.done) / refill.rate)
