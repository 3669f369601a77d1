"""A group as the data plane might tell it, for tests of what is shown."""

from dataclasses import replace
from typing import Any

from redisha.admin import ServerState, Snapshot
from redisha.core import EndpointStats, ReplicaStats, Stats
from redisha.group.status import Data, GroupStatus, MemberStatus, PeerStatus, Position, Role

LEADER = MemberStatus(
    "redis-001", 3, "redis-001", Role.LEADER, Data.COMPLETE, "5f15", Position((3 << 32) + 2, 900), in_sync=True
)
FOLLOWER = replace(LEADER, member="redis-002", role=Role.FOLLOWER, position=Position((3 << 32) + 2, 890))
THIRD = replace(FOLLOWER, member="redis-003", position=Position((2 << 32) + 2, 40), in_sync=False, journal=7)

NEVER = 1 << 40


def peer(status: MemberStatus, host: str = "", **fields: Any) -> PeerStatus:
    """Another member, which is up and well unless ``fields`` say otherwise."""
    settings: dict[str, Any] = {"up": True, "silent_ms": 40, "reason": ""} | fields
    return PeerStatus(f"{host or status.member}:8101", status=status, **settings)


LED = GroupStatus(
    "cache",
    LEADER,
    (
        peer(FOLLOWER, caught_up=True, replica="in_sync", lag=10, lag_bytes=1204, lag_ms=3, skew_ms=3600),
        peer(THIRD, replica="resync", lag=860, lag_bytes=99_000, lag_ms=2500),
    ),
    counted=("redis-001", "redis-002"),
)
"""As the leader sees it."""

FOLLOWED = GroupStatus("cache", FOLLOWER, (peer(LEADER), peer(THIRD)))
"""As a follower does."""

UNLED = GroupStatus(
    "cache",
    replace(FOLLOWER, role=Role.NONE, leader="", in_sync=False),
    (peer(replace(LEADER, role=Role.NONE, leader=""), up=False, silent_ms=65_000, reason="connection refused"),),
)
"""Nobody leads."""

REPLICAS = (
    ReplicaStats("cache/redis:6379", "cache~redis-002:8101/redis-002:8101", "in_sync", healed="full: 9 keys"),
    ReplicaStats(
        "cache/redis:6379",
        "cache~redis-003:8101/redis-003:8101",
        "resync",
        reason="",
        resync="buckets",
        resync_done=300,
        resync_total=1200,
        resync_rate=90,
    ),
)


def snapshot(group: GroupStatus | None = LED, **fields: Any) -> Snapshot:
    """A sidecar that is a member of this group."""
    settings: dict[str, Any] = {
        "state": ServerState.LIVE,
        "missing": (),
        "stats": Stats(
            endpoints=(EndpointStats("cache", "redis:6379", "10.0.0.1:6379", "ready", version="7.0.15"),),
            replicas=REPLICAS,
        ),
        "clusters": {"cache": ("redis",)},
        "leader_changes": 2,
    }
    return Snapshot(group=group, **settings | fields)
