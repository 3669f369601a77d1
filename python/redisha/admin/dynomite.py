"""Dynomite's REST: its paths, its answers, its status 200 for whatever it does not know.

For health checks and scripts that are used to asking Dynomite. As there it is all GET, and asks no password. What a
member of a group does by itself (to become ready, to find and drop peers) cannot be ordered here: that is answered by
501 and a line that says so, never by an OK for something that was not done.

Owns: the paths and the form of the answers. Never: keeps state; what it tells and does is :class:`DynomiteView`'s.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, Protocol

from redisha import __version__
from redisha.admin.app import Request, Response
from redisha.admin.dynomite_documents import Here, describe, info
from redisha.config.dynomite.levels import LEVELS
from redisha.config.dynomite_stats import DynomiteStats
from redisha.group.status import GroupStatus, Role

if TYPE_CHECKING:
    from redisha.config.model import Config

JSON = "application/json; charset=utf-8"
"""What Dynomite calls all its answers."""

NAME = "Dynomite's REST"

HINT = "choose another address (dynomite_stats.bind, in a Dynomite file stats_listen) or remove it"
"""For the server that carries this, when its address cannot be bound."""

NO_STATE = "a member takes clients whenever it can serve them, and hands leadership over when it ends"
"""For :meth:`DynomiteView.set_state`."""

NO_PEER = "peers are found and dropped by themselves"
"""For :meth:`DynomiteView.peer`."""

OK = "OK\r\n"

HELP = """/info
/help
/ping
/cluster_describe
/get_consistency
/set_consistency/<read|write>/<dc_one|dc_quorum|dc_safe_quorum>
/get_timeout_factor
/peer/<up|down|reset>/<name|all>
/state/<get_state|standby|writes_only|normal|resuming>

"""

STATES = ("standby", "writes_only", "normal", "resuming")

VERBS = ("up", "down", "reset")


class UnsupportedError(Exception):
    """Dynomite does this, and redisha does not; the text says in a line why."""


class DynomiteView(Protocol):
    """What these paths ask of the supervisor."""

    def group(self) -> GroupStatus:
        """The group as this member sees it; for a sidecar without a group one of itself alone."""

    def consistency(self) -> tuple[str, str]:
        """Of reads and of writes, in Dynomite's words (see :mod:`redisha.config.dynomite.levels`)."""

    def set_consistency(self, which: Literal["read", "write"], level: str) -> None:
        """Set one of them for clients that come from now on; the level is one of Dynomite's, in capital letters."""

    def request_counters(self) -> dict[str, int]:
        """Numbers by the names that Dynomite's ``/info`` has (``client_read_requests``, ``latency_99th`` …)."""

    def set_state(self, state: str) -> None:
        """Take one of :data:`STATES`.

        Raises:
            UnsupportedError: this cannot be ordered (:data:`NO_STATE`).
        """

    def peer(self, verb: str, name: str) -> None:
        """Do one of :data:`VERBS` to a peer, or to ``all``.

        Raises:
            UnsupportedError: this cannot be ordered (:data:`NO_PEER`).
        """

    def uptime(self) -> int:
        """Seconds since the start."""


class DynomiteApi:
    """Answers a request as Dynomite does.

    Args:
        view: what is told and done.
        config: the configuration in force.
        host: the name of this machine.
    """

    def __init__(self, view: DynomiteView, config: Callable[[], Config], host: str) -> None:
        self._view = view
        self._config = config
        self._host = host

    def __call__(self, request: Request) -> Response:
        """Answer; 200 and OK for every path that means nothing, 405 for anything but GET."""
        if request.method not in ("GET", "HEAD"):
            return Response("GET is all that is taken here\n", HTTPStatus.METHOD_NOT_ALLOWED, allow="GET")
        try:
            return Response(self._body(request.path.split("/")[1:]), content_type=JSON)
        except UnsupportedError as error:
            return Response(f"not supported: {error}\n", HTTPStatus.NOT_IMPLEMENTED)

    def _body(self, path: list[str]) -> str:
        match path:
            case [""] | ["info"]:
                counters = {"dyn_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
                counters |= self._view.request_counters()
                now = int(time.time())
                return _json(info(self._here(), self._view.group(), counters, self._view.uptime(), now))
            case ["help"]:
                return HELP
            case ["cluster_describe"]:
                return _json(describe(self._here(), self._view.group()))
            case ["get_consistency"]:
                read, write = self._view.consistency()
                return f"Read Consistency: {read}\r\nWrite Consistency: {write}\r\n"
            case ["get_timeout_factor"]:
                return "Timeout factor: 1\n"
            case ["state", "get_state"]:
                return f"State: {state(self._view.group())}\n"
            case _:
                self._do(path)
                return OK

    def _do(self, path: list[str]) -> None:
        """What changes something; nothing for what is none of it, as in Dynomite."""
        match path:
            case ["set_consistency", "read" | "write" as which, level] if level.upper() in LEVELS[:3]:
                self._view.set_consistency("read" if which == "read" else "write", level.upper())
            case ["state", wanted] if wanted in STATES:
                # What is so already needs no order.
                if wanted != "normal" or state(self._view.group()) != "NORMAL":
                    self._view.set_state(wanted)
            case ["peer", verb, *name] if verb in VERBS:
                self._view.peer(verb, "/".join(name))
            case _:
                pass

    def _here(self) -> Here:
        config = self._config()
        group = config.group
        if group is not None:
            address, redis = group.listen, group.redis
        else:
            redis = next((each for cluster in config.clusters.values() for each in cluster.endpoints), "")
            address = ""
        stats = config.dynomite_stats or DynomiteStats()
        return Here(self._host, address or "0.0.0.0:0", redis, __version__, stats)


def state(group: GroupStatus) -> Literal["NORMAL", "STANDBY"]:
    """``NORMAL`` while this member knows who leads and has everything, else ``STANDBY``."""
    return "NORMAL" if group.me.role is not Role.NONE and group.me.in_sync else "STANDBY"


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document) + "\n"
