"""Where a Redis is and as whom to ask it, and the URL form of that."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

DEFAULT_PORT = 6379


@dataclass(frozen=True, slots=True)
class Server:
    """Where a Redis is and as whom to ask it.

    Attributes:
        address: ``host:port``, ``[v6]:port`` or ``unix:/path``.
        username: for AUTH; None for the default user.
        password: for AUTH; None when the server asks for none. Not shown by ``repr``.
        connect_timeout: seconds.
        reply_timeout: seconds without a byte of an answer after which the server counts as hanging.
    """

    address: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    connect_timeout: float = 5.0
    reply_timeout: float = 30.0


def parse_url(url: str) -> Server:
    """Read ``redis://[user[:password]@]host[:port]`` or ``unix://[user[:password]@]/path``.

    Args:
        url: the text; user, password and path may have ``%``-escapes.

    Raises:
        ValueError: it is none of these; the text says what to write instead and has no secret in it.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("the port is no number from 0 to 65535, or the [v6 address] has no end") from None
    if parts.scheme == "rediss":
        raise ValueError("TLS (rediss://) is not supported: use redis:// or unix://")
    if parts.scheme not in {"redis", "unix"}:
        raise ValueError("expected redis://[user:password@]host:port or unix:///path/to.sock")
    if parts.query or parts.fragment:
        raise ValueError("nothing may follow the address; escape '?' and '#' in a password as %3F and %23")
    address = _path(parts) if parts.scheme == "unix" else _host(parts, port)
    username = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password else None
    if username is not None and password is None:
        raise ValueError("a user without a password; write redis://user:password@host, or redis://:password@host")
    return Server(address, username, password)


def _path(parts: SplitResult) -> str:
    if parts.hostname:
        raise ValueError("a socket's path begins with a slash: unix:///path/to.sock")
    if parts.path in {"", "/"}:
        raise ValueError("the socket's path is missing: unix:///path/to.sock")
    return f"unix:{unquote(parts.path)}"


def _host(parts: SplitResult, port: int | None) -> str:
    if not parts.hostname:
        raise ValueError("the host is missing: redis://host:port")
    if parts.path not in {"", "/"}:
        raise ValueError("nothing may follow the port; choose a database with --db")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{DEFAULT_PORT if port is None else port}"
