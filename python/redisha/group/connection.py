"""One HTTP/1.1 connection that is kept, and made again when it is broken.

Owns: the socket, TLS, and the reading of one whole answer. Never: decides whether a request may be sent again.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from redisha.group.arbiter import ArbiterError

LIMIT = 1 << 20
"""Bytes of an answer that are read at most: a record has a few hundred."""


class NotSentError(ArbiterError):
    """Nothing was sent: the server could not be reached, or there was nothing to authorize the request with."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server says.

    Attributes:
        status: HTTP's number.
        body: the JSON object; empty if the answer is something else.
        text: the answer as it came, for messages.
    """

    status: int
    body: dict[str, Any]
    text: str

    @property
    def uncertain(self) -> bool:
        """Whether a change that is answered so may have been made: a server, or a proxy before it, gave up on it."""
        return self.status >= 500 or self.status in (408, 499)


class Connection:
    """The way to one server. All but :meth:`wake` is for one thread at a time.

    Args:
        url: ``http://…`` or ``https://…``, with a path if it is not at the root.
        ca_file: PEM file of the authorities that may have signed the server's certificate; None for the system's.

    Raises:
        ArbiterError: this is no URL.
    """

    def __init__(self, url: str, ca_file: str | None) -> None:
        parts = _parsed(url)
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._prefix = parts.path.rstrip("/")
        self._host = parts.hostname or ""
        self._port = parts.port
        self._tls = parts.scheme == "https"
        self._ca_file = ca_file
        self._http: http.client.HTTPConnection | None = None

    def usable(self) -> bool:
        """Whether there is an open connection; one that the server has closed is closed here too."""
        sock = self._http.sock if self._http is not None else None
        if sock is None:
            return False
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        if poll.poll(0):  # Nobody owes us anything now: this is its end.
            self.close()
            return False
        return True

    def open(self, timeout: float) -> None:
        """Connect, unless there is a connection.

        Args:
            timeout: seconds for each address that the name has.

        Raises:
            NotSentError: it cannot be connected to.
        """
        if self._http is not None and self._http.sock is not None:
            return
        made = self._made(timeout)
        made.auto_open = 0  # It must not connect behind our back in the middle of a request.
        self._http = made
        try:
            made.connect()
        except ssl.SSLCertVerificationError as error:
            self.close()
            raise NotSentError(
                f"{self.url} has a certificate that is not trusted: {error.verify_message}; name the file of the "
                "authority that signed it"
            ) from None
        except (OSError, UnicodeError) as error:
            self.close()
            raise NotSentError(f"{self.url} cannot be reached: {reason(error)}") from None

    def ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str], timeout: float) -> Answer:
        """Send a request over the open connection, and read the answer.

        Args:
            method: HTTP's verb.
            path: below the URL's.
            body: what to send; None for nothing.
            headers: sent as they are.
            timeout: seconds for each wait for more of the answer.

        Raises:
            OSError: the connection broke, or the time is over.
            http.client.HTTPException: the answer is no HTTP, is cut off, or has no end.
        """
        made = self._http
        if made is None or made.sock is None:
            raise http.client.NotConnected
        made.sock.settimeout(timeout)
        made.request(method, self._prefix + path, body, headers)
        return _read(made.getresponse())

    def wake(self) -> None:
        """End the connection under whoever waits on it; from any thread."""
        sock = getattr(self._http, "sock", None)
        if sock is not None:
            # The plain socket's: TLS's own method takes away what the other thread is reading with.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it, if there is one."""
        if self._http is not None:
            self._http.close()

    def _made(self, timeout: float) -> http.client.HTTPConnection:
        if not self._tls:
            return http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        try:
            # Made anew, so that a file that was replaced counts.
            context = ssl.create_default_context(cafile=self._ca_file)
        except OSError as error:
            raise NotSentError(f"the CA file {self._ca_file} cannot be used: {reason(error)}") from None
        # What later Pythons ask of a certificate, those of many clusters' own authorities do not have.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return http.client.HTTPSConnection(self._host, self._port, timeout=timeout, context=context)


def reason(error: Exception) -> str:
    """What went wrong, without numbers and names of types where there is a text."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _parsed(url: str) -> SplitResult:
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and "@" not in parts.netloc:
            return parts
    raise ArbiterError(f"'{url}' is no address of a server; write http://host:port or https://host:port")


def _read(response: http.client.HTTPResponse) -> Answer:
    data = response.read(LIMIT + 1)
    if response.length and len(data) <= LIMIT:  # Asked for a number of bytes, it says nothing of an early end itself.
        raise http.client.IncompleteRead(data, response.length)
    if len(data) > LIMIT:
        raise http.client.HTTPException(f"the answer is longer than {LIMIT} bytes")
    text = data.decode(errors="replace")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = {}
    return Answer(response.status, body if isinstance(body, dict) else {}, text.strip())
