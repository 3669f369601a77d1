"""``redisha init`` waits: how far this member's Redis is being filled, or why it is not."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from redisha import emptying
from redisha.admin.client import AdminClient, UnreachableError
from redisha.cli import members
from redisha.cli.words import coloured_state
from redisha.verify.errors import ServerError
from redisha.verify.server import Server

EVERY = 0.25
"""Seconds between two looks."""

PATIENCE = 20.0
"""Seconds without a leader, or in a state that does not end by waiting, after which it is told what is wrong."""

_STUCK = frozenset({"refused", "diverged", "unproven", "foreign", "down"})
"""States of this member's Redis that do not end by waiting."""


_UNSEEN = {"state": "down", "in_sync": False, "reason": ""}


@dataclass(slots=True)
class Filling:
    """Follows this member until it is in sync, or will not be.

    Attributes:
        client: the sidecar.
        server: its own Redis.
        member: its name.
        clock: seconds that do not go back.
    """

    client: AdminClient
    server: Server
    member: str
    clock: Callable[[], float] = time.monotonic

    def follow(self, timeout: float | None) -> bool:
        """Show how far it is until the end; returns whether this member is in sync."""
        begin = well = self.clock()
        screen = _Line()
        while True:
            group = self._look()
            now = self.clock()
            me: dict[str, Any] = group["members"][0] if group is not None else _UNSEEN
            if group is not None and group["leader"] and me["in_sync"]:
                screen.end(f"{self.member}: {coloured_state('in_sync')}, {self._keys()}, {group['leader']} leads")
                return True
            trouble = self._trouble(group, me)
            well = well if trouble else now
            screen.show(f"{self.member}: {coloured_state(me['state'])}, {self._keys()}", me["state"])
            late = timeout is not None and now - begin >= timeout
            if late or now - well >= PATIENCE:
                screen.end("")
                passed = f"not in sync after {now - begin:.0f} s"
                click.echo(f"{passed}: {trouble or 'it goes on'}; see redisha status, and the log", err=True)
                return False
            time.sleep(EVERY)

    def _look(self) -> dict[str, Any] | None:
        try:
            return members.ask(self.client)
        except UnreachableError:
            return None

    def _trouble(self, group: dict[str, Any] | None, me: dict[str, Any]) -> str:
        """What keeps this member from being filled now; empty: nothing does."""
        if group is None:
            return "the sidecar does not answer"
        if not group["leader"]:
            return f"nobody leads: {group['reason']}"
        return f"its Redis is {me['state']}: {me['reason']}" if me["state"] in _STUCK else ""

    def _keys(self) -> str:
        try:
            return f"{asyncio.run(emptying.contents(self.server)).keys:,} keys"
        except ServerError:
            return "its Redis does not answer"


class _Line:
    """On a terminal one line is written over; elsewhere a line is written when the state is another one."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._news = ""

    def show(self, text: str, news: str) -> None:
        """How it is."""
        if self._terminal:
            click.echo(f"\r\x1b[2K{text}", nl=False)
        elif news != self._news:
            self._news = news
            click.echo(text)

    def end(self, text: str) -> None:
        """How it ended."""
        if self._terminal:
            click.echo("\r\x1b[2K", nl=False)
        if text:
            click.echo(text)
