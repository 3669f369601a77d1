"""Members in network namespaces of their own, with a router between them that drops what it is told to.

::

    net 1: lo, 10.77.1.2 ── router ── net 2: lo, 10.77.2.2

What is dropped is dropped in silence and in one direction, as a cable does it: connections stay open and nothing comes.
"""

import contextlib
import ctypes
import itertools
import os
import subprocess
from collections.abc import Iterator
from types import TracebackType
from typing import Self

_CLONE_NEWNET = 0x40000000
_count = itertools.count(1)
_libc = ctypes.CDLL(None, use_errno=True)


class NoNetsError(Exception):
    """Namespaces cannot be made here; says why."""


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoNetsError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def _enter(fd: int) -> None:
    """Move this thread."""
    if _libc.setns(fd, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Net:
    """A namespace, as a place of a member."""

    def __init__(self, name: str, host: str) -> None:
        self.name = name
        self.host = host

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """This thread, and the processes that it starts, are in there; sockets stay where they were made."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        try:
            _enter(there)
            try:
                yield
            finally:
                _enter(home)
        finally:
            os.close(home)
            os.close(there)


class Nets:
    """Some namespaces and their router; :attr:`places` are for the members."""

    def __init__(self, count: int) -> None:
        stem = f"redisha-{os.getpid()}-{next(_count)}"
        self._router = f"{stem}-r"
        self.places = [Net(f"{stem}-{at}", f"10.77.{at}.2") for at in range(1, count + 1)]
        self._cuts: set[tuple[str, str]] = set()

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def cut(self, one: Net, other: Net) -> None:
        """Drop what ``one`` sends to ``other``."""
        if (one.host, other.host) not in self._cuts:
            _ip("-n", self._router, "rule", "add", "pref", "100", "from", one.host, "to", other.host, "blackhole")
            self._cuts.add((one.host, other.host))

    def heal(self) -> None:
        """Drop nothing more."""
        for one, other in self._cuts:
            _ip("-n", self._router, "rule", "del", "pref", "100", "from", one, "to", other, "blackhole")
        self._cuts.clear()

    def _make(self) -> None:
        _ip("netns", "add", self._router)
        _ip("-n", self._router, "link", "set", "lo", "up")
        for at, net in enumerate(self.places, 1):
            _ip("netns", "add", net.name)
            _ip("-n", net.name, "link", "set", "lo", "up")
            _ip("-n", self._router, "link", "add", f"to{at}", "type", "veth", "peer", "name", "eth0", "netns", net.name)
            _ip("-n", self._router, "addr", "add", f"10.77.{at}.1/24", "dev", f"to{at}")
            _ip("-n", self._router, "link", "set", f"to{at}", "up")
            _ip("-n", net.name, "addr", "add", f"{net.host}/24", "dev", "eth0")
            _ip("-n", net.name, "link", "set", "eth0", "up")
            _ip("-n", net.name, "route", "add", "default", "via", f"10.77.{at}.1")
        with Net(self._router, "").inside(), open("/proc/sys/net/ipv4/ip_forward", "w") as file:
            file.write("1")

    def _remove(self) -> None:
        for name in [self._router, *(net.name for net in self.places)]:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
