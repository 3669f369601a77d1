"""Talks to the admin server of a running sidecar, for the command line.

Owns: one request at a time over HTTP. Never: imports the server.
"""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from redisha.config.scalars import ScalarError, Tcp, Unix, parse_address
from redisha.errors import RedishaError

DEFAULT = "127.0.0.1:8001"

TIMEOUT = 10.0
"""Seconds for one answer."""

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # who listens everywhere is reached here


class UnreachableError(RedishaError):
    """No sidecar answers at the admin address."""

    exit_code = 69  # EX_UNAVAILABLE


class AnswerError(RedishaError):
    """The sidecar refused what was asked.

    Attributes:
        status: HTTP's number.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class AdminClient:
    """One sidecar's admin server.

    Args:
        address: ``host:port``, ``unix:/path``, or a URL.

    Raises:
        ScalarError: it is no address.
    """

    def __init__(self, address: str = DEFAULT) -> None:
        plain = address.removeprefix("http://").rstrip("/") if not address.startswith("unix:") else address
        self._address = parse_address(plain)
        if isinstance(self._address, Tcp) and self._address.port == 0:
            raise ScalarError("the port 0 is another one each time", "give the port that the log names")

    def __str__(self) -> str:
        """The address that is connected to."""
        return str(self._there())

    def get(self, path: str) -> Any:
        """What a GET with ``format=json`` says.

        Raises:
            UnreachableError: nobody answers there, or not a sidecar.
            AnswerError: it answers with an error.
        """
        text = self._ask("GET", f"{path}?format=json")
        try:
            return json.loads(text)
        except ValueError:
            raise self._stranger(f"GET {path} is answered with {text[:40]!r}") from None

    def post(self, path: str, **query: str) -> str:
        """What a POST is answered with.

        Raises:
            UnreachableError: nobody answers there, or not a sidecar.
            AnswerError: it answers with an error.
        """
        return self._ask("POST", f"{path}?{urlencode(query)}")

    def _there(self) -> Tcp | Unix:
        if isinstance(self._address, Tcp) and self._address.host in _EVERYWHERE:
            return Tcp(_EVERYWHERE[self._address.host], self._address.port)
        return self._address

    def _ask(self, method: str, target: str) -> str:
        connection = _Connection(self._there())
        try:
            connection.request(method, target)
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
        except http.client.HTTPException as error:
            raise self._stranger(str(error) or type(error).__name__) from None
        except OSError as error:
            raise UnreachableError(
                f"no sidecar answers at {self}: {error.strerror or error}; is it running, and is this its admin "
                "address (admin.bind in its file)? name another one with --admin HOST:PORT or -c FILE"
            ) from None
        finally:
            connection.close()
        if response.status >= 400:
            raise AnswerError(response.status, text.strip() or f"HTTP {response.status}")
        return text

    def _stranger(self, why: str) -> UnreachableError:
        return UnreachableError(f"what answers at {self} is no redisha admin server: {why}; name another with --admin")


class _Connection(http.client.HTTPConnection):
    """HTTP to an address or a Unix socket."""

    def __init__(self, address: Tcp | Unix) -> None:
        host, port = (address.host, address.port) if isinstance(address, Tcp) else ("localhost", 80)
        super().__init__(host, port, timeout=TIMEOUT)
        self._path = address.path if isinstance(address, Unix) else None

    def connect(self) -> None:
        """Connect; over the socket's file where there is one."""
        if self._path is None:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self._path)


def address_in(file: Path) -> str:
    """The admin address that a configuration names.

    Raises:
        ConfigError: the file is wrong.
        RedishaError: it names none.
    """
    from redisha.config.load import load

    config = load(file).config
    if config.admin is None:
        raise RedishaError(
            f"{file} has no admin address; name the one that the sidecar was started with: --admin HOST:PORT"
        )
    return config.admin.bind
