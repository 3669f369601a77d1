"""Durations, sizes and addresses: how the configuration writes them, and what they become.

Every parser raises :class:`ScalarError`, whose text fits behind a field's path.
"""

import ipaddress
import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias


class ScalarError(ValueError):
    """A value that cannot be used.

    Attributes:
        message: What is wrong.
        hint: What to write instead; may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


# --- durations: milliseconds ------------------------------------------------------------------------------------------

_UNITS_MS = {
    "us": Decimal("0.001"),
    "ms": Decimal(1),
    "s": Decimal(1000),
    "m": Decimal(60_000),
    "h": Decimal(3_600_000),
}
MAX_DURATION_MS = 24 * 3_600_000


def parse_duration(value: object) -> int:
    """``250ms``, ``0.25s``, ``5s``, ``1m``, ``2h`` or ``0``, as milliseconds.

    What is finer than a millisecond is rounded up, so that no timeout becomes zero.

    Raises:
        ScalarError: No duration, a negative one, one without a unit, or one of more than a day.
    """
    if value in (0, "0") and not isinstance(value, bool):
        return 0
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise ScalarError(f"the duration {value} has no unit", f"write {value}ms or {value}s")
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|m|h)", value, re.ASCII) if isinstance(value, str) else None
    if match is None:
        raise ScalarError(f"expected a duration, found {_shown(value)}", "write for example 250ms, 5s or 1m")
    milliseconds = Decimal(match[1]) * _UNITS_MS[match[2]]
    if milliseconds > MAX_DURATION_MS:
        raise ScalarError(f"the duration {value} is longer than a day")
    return math.ceil(milliseconds)


def parse_timeout(value: object) -> int:
    """A duration that is not zero, as milliseconds."""
    milliseconds = parse_duration(value)
    if milliseconds == 0:
        raise ScalarError("the duration must be longer than 0")
    return milliseconds


def format_duration(milliseconds: int) -> str:
    """The shortest exact way to write a duration."""
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0"


# --- sizes: bytes -----------------------------------------------------------------------------------------------------

_UNITS_BYTES = {"": 1, "b": 1, "kb": 1024, "kib": 1024, "mb": 1024**2, "mib": 1024**2, "gb": 1024**3, "gib": 1024**3}


def parse_size(value: object) -> int:
    """``64MB``, ``512kb``, ``1GiB`` or a number of bytes. As in redis.conf, a kilobyte (KB) is 1024 bytes.

    Raises:
        ScalarError: No size, or none that is positive.
    """
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    match = re.fullmatch(r"([0-9]+) ?([a-zA-Z]*)", text, re.ASCII) if isinstance(text, str) else None
    if match is None or match[2].lower() not in _UNITS_BYTES:
        raise ScalarError(f"expected a size, found {_shown(value)}", "write for example 64MB")
    size = int(match[1]) * _UNITS_BYTES[match[2].lower()]
    if not 0 < size <= 2**40:
        raise ScalarError(f"the size {value} is out of range", "it must be between 1 byte and 1024GB")
    return size


def parse_rate(value: object) -> int:
    """A size per second, or 0 for no limit, as bytes.

    Raises:
        ScalarError: No size.
    """
    return 0 if value in (0, "0") and not isinstance(value, bool) else parse_size(value)


def format_size(size: int) -> str:
    """The shortest exact way to write a size."""
    for unit, factor in (("GB", 1024**3), ("MB", 1024**2), ("KB", 1024)):
        if size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


# --- folders ----------------------------------------------------------------------------------------------------------

IN_MEMORY = "memory"
"""The word that stands for no folder at all."""


def parse_state_dir(value: object) -> str:
    """An absolute path, or ``memory`` (also written ``none``) for no folder on purpose.

    Raises:
        ScalarError: It is neither.
    """
    if not isinstance(value, str):
        raise ScalarError(
            f"expected a folder, found {_shown(value)}",
            f"write an absolute path, or {IN_MEMORY} to keep no state on disk",
        )
    if value in (IN_MEMORY, "none"):
        return IN_MEMORY
    if not value.startswith("/") or "\0" in value:
        raise ScalarError(
            f"the folder must be an absolute path: {value.split(chr(0))[0] or 'nothing'}",
            f"write for example /var/lib/redisha, or {IN_MEMORY} to keep no state on disk",
        )
    return value


# --- addresses --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tcp:
    """A host (a name or an IP address, without brackets) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        """``host:port``, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_ip(self) -> bool:
        """Whether the host is an IP address and needs no resolving."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Unix:
    """A Unix socket's path."""

    path: str

    def __str__(self) -> str:
        """``unix:/path``."""
        return f"unix:{self.path}"


Address: TypeAlias = Tcp | Unix

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,254}}\Z){_LABEL}(?:\.{_LABEL})*\.?\Z", re.ASCII)


def parse_address(value: object) -> Address:
    """``host:port``, ``[::1]:port`` or ``unix:/path``.

    Raises:
        ScalarError: It is none of these.
    """
    if not isinstance(value, str):
        raise ScalarError(f"expected an address, found {_shown(value)}", "write host:port or unix:/path")
    if value.startswith("unix:"):
        return _parse_unix(value)
    host, colon, port = value.rpartition(":")
    if not colon:
        raise ScalarError(f"the address '{value}' has no port", f"write for example {value or 'redis-001'}:6379")
    if host.startswith("[") and host.endswith("]"):
        host = _parse_ipv6(host[1:-1], value)
    elif ":" in host:
        raise ScalarError(f"the IPv6 address '{value}' needs brackets", "write for example [::1]:6379")
    elif not _HOST.match(host):
        raise ScalarError(f"'{host}' is not a host name", "write host:port or unix:/path")
    if not re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) or int(port) > 65535:
        raise ScalarError(f"'{port}' is not a port", "a port is a number up to 65535")
    return Tcp(host, int(port))


def parse_bind(value: object) -> Address:
    """An address to listen on: an IP address of this machine, or ``unix:/path``. Port 0 lets the system choose.

    Raises:
        ScalarError: It is none of these.
    """
    address = parse_address(value)
    if isinstance(address, Tcp) and not address.is_ip:
        known = {"localhost": "127.0.0.1", "*": "0.0.0.0"}  # noqa: S104  # said, not bound
        ip = known.get(address.host, "0.0.0.0")  # noqa: S104
        raise ScalarError(f"'{address.host}' is not an IP address", f"write {ip}:{address.port}")
    return address


def parse_endpoint(value: object) -> Address:
    """An address to connect to: ``host:port`` with a port above 0, or ``unix:/path``.

    Raises:
        ScalarError: It is neither.
    """
    address = parse_address(value)
    if isinstance(address, Tcp) and address.port == 0:
        raise ScalarError("0 is not a port one can connect to")
    return address


def _parse_unix(value: str) -> Unix:
    path = value.removeprefix("unix:")
    if not path.startswith("/"):
        raise ScalarError(f"the socket's path must begin with '/': {path or 'nothing'}", "write unix:/path")
    if len(path.encode()) > 107 or "\0" in path:
        raise ScalarError("the socket's path is longer than the system's 107 bytes")
    return Unix(path)


def _parse_ipv6(host: str, value: str) -> str:
    try:
        return str(ipaddress.IPv6Address(host))
    except ValueError:
        raise ScalarError(
            f"'{value}' has no IPv6 address between its brackets", "write for example [::1]:6379"
        ) from None


def _shown(value: object) -> str:
    return (
        f"'{value}'" if isinstance(value, str) else f"{value!r}" if isinstance(value, (bool, int, float)) else "no text"
    )
