"""The group of the demo: two Redis servers and their sidecars, and what they say of themselves."""

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from redisha.demo.children import DemoError, wait_until
from redisha.demo.compare import Sync
from redisha.demo.servers import RedisServer
from redisha.demo.sidecars import Sidecar

_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Member:
    """One Redis and its sidecar; the name is the group's for it."""

    name: str
    server: RedisServer
    sidecar: Sidecar

    def group(self) -> dict[str, Any]:
        """What it tells of the group."""
        found: dict[str, Any] = self.sidecar.document("/group")
        return found


@dataclass(frozen=True, slots=True)
class Members:
    """The group."""

    first: Member
    second: Member

    @property
    def both(self) -> tuple[Member, Member]:
        """The members."""
        return self.first, self.second

    @property
    def sidecars(self) -> tuple[Sidecar, Sidecar]:
        """Through which clients come in."""
        return self.first.sidecar, self.second.sidecar

    def wait_in_sync(self, timeout: float = 30.0) -> Member:
        """Wait until both say that both are in sync, and who leads; returns that one.

        Raises:
            DemoError: they do not in time.
        """
        found: list[Member] = []

        def look() -> bool:
            groups = [each.group() for each in self.both]
            well = all(member["in_sync"] for group in groups for member in group["members"])
            found[:] = [each for each in self.both if all(group["leader"] == each.name for group in groups)]
            return well and bool(found)

        wait_until(look, "both members are in sync", timeout)
        return found[0]

    def other(self, member: Member) -> Member:
        """The one that is not this one."""
        return self.second if member is self.first else self.first

    def wait_led_by(self, member: Member, seen_by: Member, timeout: float = 30.0) -> None:
        """Wait until a member is seen to lead."""
        wait_until(lambda: seen_by.group()["leader"] == member.name, f"{member.name} leads", timeout)

    def healed(self, leader: Member) -> str:
        """How the other one was brought up to date, in the leader's words."""
        healed: str = next(each["healed"] for each in leader.group()["members"] if not each["me"])
        return healed or "by the log alone"

    def sync(self) -> Sync:
        """Both Redis servers compared by ``redisha verify``: every key by a digest of type, value and expiry time."""
        done = self.verify("--json")
        try:
            total: dict[str, int] = json.loads(done.stdout)["total"]
        except (ValueError, KeyError):
            raise DemoError(f"redisha verify ended with {done.returncode}: {done.stderr.strip()}") from None
        different = total["different"] + total["only_a"] + total["only_b"]
        example = "" if done.returncode == 0 else done.stdout[-500:]
        return Sync(total["same"] + different, different or int(done.returncode != 0), example)

    def verify(self, *options: str) -> "subprocess.CompletedProcess[str]":
        """Run ``redisha verify`` on the two Redis servers."""
        return redisha("verify", self.first.server.url, self.second.server.url, *options)


def redisha(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of redisha, as one would type it."""
    argv = [sys.executable, "-m", "redisha", *arguments]
    return subprocess.run(  # noqa: S603 - our own program
        argv, capture_output=True, text=True, check=False, timeout=_TIMEOUT, stdin=subprocess.DEVNULL
    )
