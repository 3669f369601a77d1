"""Dynomite's 42 directives: takes those that mean something here, and says of the others why they do not."""

import re
from typing import Literal, TypeAlias

from redisha.config.tree import Item, Report, describe, suggest

Kind: TypeAlias = Literal["number", "flag", "text", "anything"]

_BUFFERS = "memory is bounded by limits, and a request may be as long as limits.max_request"
_COPIES = "every member holds every key"
_CONNECTIONS = "one connection carries the commands of all clients"
_DETECTED = "a member is taken for gone after missed heartbeats, and connected to again by itself"
_UNUSED = "Dynomite reads it and uses it for nothing either"
_KEYS = "nothing between members is encrypted yet"

# What changes nothing here: the kind of its value, and why.
IGNORED: dict[str, tuple[Kind, str]] = {
    "auto_eject_hosts": ("flag", _DETECTED),
    "backlog": ("number", "the system's bound counts"),
    "client_connections": ("number", "the bound is limits.max_clients"),
    "conn_msg_rate": ("number", "what a member lacks is sent as fast as it takes it, from a bounded log"),
    "datastore_connections": ("number", _CONNECTIONS),
    "distribution": ("anything", f"{_COPIES}; Dynomite does not use it any more either"),
    "dyn_connections": ("number", _UNUSED),
    "dyn_port": ("number", _UNUSED),
    "dyn_read_timeout": ("number", _UNUSED),
    "dyn_write_timeout": ("number", _UNUSED),
    "enable_gossip": ("flag", "members tell each other their state with every heartbeat"),
    "env": ("text", "a member is known by its name, not by an address that the environment tells"),
    "gos_interval": ("number", "members tell each other their state with every heartbeat"),
    "hash": ("text", _COPIES),
    "hash_tag": ("text", _COPIES),
    "local_peer_connections": ("number", _CONNECTIONS),
    "max_msgs": ("number", _BUFFERS),
    "mbuf_size": ("number", _BUFFERS),
    "pem_key_file": ("text", _KEYS),
    "preconnect": ("flag", "connections are made at the start"),
    "read_repairs_enabled": ("flag", "members do not diverge, so there is nothing to repair while reading"),
    "recon_iv_file": ("text", _KEYS),
    "recon_key_file": ("text", _KEYS),
    "remote_peer_connections": ("number", _CONNECTIONS),
    "server_connections": ("anything", f"{_CONNECTIONS}; Dynomite does not use it any more either"),
    "server_failure_limit": ("number", _DETECTED),
    "server_retry_timeout": ("number", _DETECTED),
    "stats_interval": ("number", "statistics are as of the moment they are asked for"),
}

# Directives that only other versions of Dynomite know.
_ELSEWHERE = {
    "redis": "of old versions; write data_store: 0",
    "redis_requirepass": "remove it, run 'redisha convert', and add auth: {password: …} to the group",
    "requirepass": "remove it, run 'redisha convert', and add auth: {password: …} to the group",
}


class Pool:
    """The directives of a pool. Take what means something, then call :meth:`done`.

    As in Dynomite a number of 0 and an empty value are the same as no directive.
    """

    def __init__(self, item: Item, report: Report) -> None:
        self.item = item
        self.report = report
        self._left = {key: value for key, value in item.mapping.items() if value.value is not None}
        self._known = set(IGNORED)
        if not isinstance(item.value, dict):
            report.error(item, f"expected a mapping of directives, found {describe(item.plain())}")

    def take(self, name: str) -> Item | None:
        """A directive as it is; None if it is not there."""
        self._known.add(name)
        return self._left.pop(name, None)

    def text(self, name: str) -> Item | None:
        """A directive that is text; a whole number is text as well."""
        return self._as_text(self.take(name))

    def texts(self, name: str) -> list[Item]:
        """A directive that is a list of texts; empty if it is not there."""
        item = self.take(name)
        if item is None or isinstance(item.value, str):
            return [item] if item is not None else []
        if not isinstance(item.value, list):
            self.report.error(item, f"expected a list, found {describe(item.plain())}")
        return [found for each in item.sequence if (found := self._as_text(each)) is not None]

    def number(self, name: str) -> Item | None:
        """A directive that is a whole number, with its value as an int; None if it is 0."""
        item = self.take(name)
        if item is None or not self._fits(item, "number"):
            return None
        value = int(str(item.value))
        return item.with_value(value) if value else None

    def missing(self, name: str) -> None:
        """Tell that a directive is not there, if it is not: one that could not be read was told."""
        item = self.item.get(name)
        if isinstance(self.item.value, dict) and (item is None or item.value in (None, "", [])):
            self.report.error(self.item, f"the directive '{name}' is required")

    def done(self) -> None:
        """Warn of what is ignored; everything that was not asked for is a problem."""
        for name, (kind, why) in IGNORED.items():
            item = self._left.pop(name, None)
            if item is not None and self._fits(item, kind) and item.value not in (0, "", "0", "false"):
                self.report.warn(item, f"ignored: {why}")
        for name, item in self._left.items():
            hint = suggest(name, self._known)
            hint = _ELSEWHERE.get(name, hint if hint.startswith("did") else "")
            self.report.error(item, "Dynomite has no such directive", hint)
        self._left.clear()

    def _as_text(self, item: Item | None) -> Item | None:
        if item is None or isinstance(item.value, str):
            return item if item is not None and item.value != "" else None
        if type(item.value) is int:
            return item.with_value(str(item.value))
        self.report.error(item, f"expected text, found {describe(item.plain())}", "put quotes around it")
        return None

    def _fits(self, item: Item, kind: Kind) -> bool:
        """Whether the value is of its kind; if not, that is told."""
        text = str(item.value).lower() if isinstance(item.value, bool) else str(item.value)
        if isinstance(item.value, (list, dict)):
            good = kind == "anything"
        elif kind == "number":
            good = re.fullmatch(r"[0-9]{1,18}", text, re.ASCII) is not None
        else:
            good = kind != "flag" or text in ("true", "false")
        if not good:
            expected = {"number": "a whole number", "flag": "true or false"}.get(kind, "text")
            self.report.error(item, f"expected {expected}, found {describe(item.plain())}")
        return good
