"""What the data plane told: on the log in words, and the last of it kept for ``/server_info``.

Owns: the levels and sentences of events. Never: acts on one; :mod:`redisha.supervisor` does.
"""

from __future__ import annotations

import collections
import logging
import time
from dataclasses import asdict

from redisha.core import Event, EventKind

log = logging.getLogger(__name__)

KEPT = 50
"""Events that are kept."""

_FORMS = {
    EventKind.APPLIED: (logging.INFO, "plan {} is in force"),
    EventKind.UPSTREAM_UP: (logging.INFO, "connected to {}"),
    EventKind.UPSTREAM_DOWN: (logging.WARNING, "not connected to {}"),
    EventKind.REPLICA: (logging.INFO, "replica {}"),
    EventKind.LOST: (logging.ERROR, "effects lost for {}"),
    EventKind.OVERFLOW: (logging.WARNING, "the log is full for {}"),
    EventKind.HEALED: (logging.INFO, "healed {}"),
    EventKind.PRIMARY: (logging.WARNING, "primary {}"),
    EventKind.REFILL: (logging.WARNING, "refill {}"),
    EventKind.SAME_SERVER: (logging.ERROR, "refused {}"),
    EventKind.MAP: (logging.WARNING, "dirty map of {}"),
    EventKind.GROUP: (logging.DEBUG, "group {}"),
    EventKind.ASK: (logging.DEBUG, "another member asks ({})"),
    EventKind.ANSWER: (logging.DEBUG, "another member answers ({})"),
    EventKind.MERGE: (logging.INFO, "what {} wrote while it led is to be merged"),
    EventKind.REDIRECTED: (logging.DEBUG, "cluster {} redirects"),
    EventKind.LISTENER: (logging.WARNING, "listener {}"),
    EventKind.DRAINED: (logging.INFO, "drained"),
    EventKind.WORKER_DIED: (logging.CRITICAL, "the data plane died"),
    EventKind.OTHER: (logging.INFO, "{}"),
}

_REPLICA = {
    "down": logging.WARNING,
    "held": logging.WARNING,
    "unproven": logging.WARNING,
    "diverged": logging.ERROR,
    "refused": logging.ERROR,
}

_ALWAYS = frozenset({EventKind.LOST, EventKind.OVERFLOW, EventKind.HEALED, EventKind.REFILL})
"""Each of these is news, however like the one before it."""

_CHATTER = frozenset({EventKind.GROUP, EventKind.ASK, EventKind.ANSWER, EventKind.REDIRECTED})
"""Between members, and of a Redis Cluster while its slots move; not kept."""


def sentence(event: Event) -> str:
    """The event in words."""
    text = _FORMS[event.kind][1].format(event.subject)
    return f"{text}: {event.detail}" if event.detail else text


def level(event: Event) -> int:
    """The log's level for an event; that of a replica depends on the state, with which the detail begins."""
    if event.kind is EventKind.REPLICA:
        return _REPLICA.get(event.detail.split(maxsplit=1)[0].rstrip(":,;") if event.detail else "", logging.INFO)
    return _FORMS[event.kind][0]


def timestamp() -> str:
    """Now, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class Chronicle:
    """Logs events and keeps the last ones.

    The same event of the same subject again (a server that stays away) is logged for ``debug`` only.
    """

    def __init__(self) -> None:
        self._recent: collections.deque[dict[str, str]] = collections.deque(maxlen=KEPT)
        self._last: dict[str, Event] = {}

    def take(self, event: Event) -> None:
        """One more event."""
        repeated = event.kind not in _ALWAYS and self._last.get(event.subject) == event
        self._last[event.subject] = event
        if not repeated and event.kind not in _CHATTER:
            self._recent.append({"time": timestamp()} | {key: str(value) for key, value in asdict(event).items()})
        log.log(logging.DEBUG if repeated else level(event), "%s", sentence(event))

    def recent(self) -> list[dict[str, str]]:
        """The last events, oldest first; ready for JSON."""
        return list(self._recent)
