"""JSON over HTTP/1.1, for the arbiters: one request at a time to one server.

Owns: the thread that waits for the answer, and the knowledge whether a request may have been carried out.
Never: sends a request a second time that changes something.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redisha.group.arbiter import ArbiterError
from redisha.group.connection import Answer, Connection, NotSentError, reason

__all__ = ["Answer", "JsonClient", "NoAnswerError", "NotSentError", "Request"]


class NoAnswerError(ArbiterError):
    """The request was sent, at least in part, and no whole answer came: the server may have carried it out."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for.

    Attributes:
        method: HTTP's verb.
        path: starts with ``/``; quoted.
        body: the JSON object to send; None for none.
        changes: whether it changes something. What does not is sent once more if the kept connection proves dead.
    """

    method: str
    path: str
    body: dict[str, Any] | None = None
    changes: bool = True


class JsonClient:
    """One server. For one event loop.

    Args:
        url: ``http://…`` or ``https://…``, with a path if it is not at the root; a bare ``host:port`` is plain HTTP.
        authorization: gives the Authorization header for the next request; empty for none. It is called in a thread.
        ca_file: PEM file of the authorities that may have signed the server's certificate, read with each connection;
            None for those of the system.

    Raises:
        ArbiterError: this is no URL.
    """

    def __init__(self, url: str, authorization: Callable[[], str] = str, ca_file: str | None = None) -> None:
        self._connection = Connection(url if "://" in url else f"http://{url}", ca_file)
        self._authorization = authorization
        self._turn = asyncio.Lock()

    def __str__(self) -> str:
        """The URL."""
        return self._connection.url

    async def ask(self, request: Request, timeout: float, reach: float | None = None) -> Answer:  # noqa: ASYNC109
        """Send a request, and wait for the answer; an HTTP error is an answer too.

        Args:
            request: what is asked for.
            timeout: seconds for all of it. It holds whatever takes so long: a lookup of a name, an answer in drops.
            reach: seconds of these after which it is given up if nothing was sent yet; None for all.

        Raises:
            NotSentError: nothing was sent.
            NoAnswerError: no answer came; what was asked for may have been done.
        """
        clock = asyncio.get_running_loop().time
        start = clock()
        reach = timeout if reach is None else min(reach, timeout)
        try:
            async with asyncio.timeout(reach):
                await self._turn.acquire()
        except TimeoutError:
            raise NotSentError(f"{self} cannot be asked: it has not answered an earlier request yet") from None
        exchange = _Exchange(self._connection, request, self._authorization, reach, timeout)
        # A thread cannot be cancelled: it is watched, and keeps our turn until it has let go of the connection.
        thread = asyncio.create_task(asyncio.to_thread(exchange.run))
        thread.add_done_callback(self._ended)
        sent = True
        try:
            await asyncio.wait({thread}, timeout=start + reach - clock())
            if exchange.sent:
                await asyncio.wait({thread}, timeout=start + timeout - clock())
        finally:
            if not thread.done():
                sent = exchange.give_up()
        if thread.done():
            return thread.result()
        waited = f"no answer within {clock() - start:.1f} s"
        raise exchange.no_answer(waited) if sent else NotSentError(f"{self} cannot be reached: {waited}")

    async def close(self) -> None:
        """Close the kept connection; a request that is under way fails."""
        self._connection.wake()
        with contextlib.suppress(TimeoutError):  # A thread that is still looking up a name closes it by itself.
            async with asyncio.timeout(1.0), self._turn:
                self._connection.close()

    def _ended(self, thread: asyncio.Task[Answer]) -> None:
        self._turn.release()
        if not thread.cancelled():
            thread.exception()  # Whoever gave it up does not ask for it.


class _Exchange:
    """One request on its way through a thread. The event loop may give it up at any time."""

    def __init__(
        self, connection: Connection, request: Request, authorization: Callable[[], str], reach: float, timeout: float
    ) -> None:
        self._connection = connection
        self._request = request
        self._authorization = authorization
        self._reach = reach
        self._timeout = timeout
        self._lock = threading.Lock()
        self._given_up = False
        self.sent = False
        """Whether some of it may have been sent."""

    def run(self) -> Answer:
        """Send it and read the answer; in a thread of its own."""
        kept = self._connection.usable()
        try:
            return self._once()
        except NoAnswerError:
            if self._request.changes or not kept:
                raise
            # That the server had just closed the kept connection does not mean that it does not answer.
            return self._once()

    def give_up(self) -> bool:
        """Make the thread end soon, and send nothing more; whether something may have been sent."""
        with self._lock:
            self._given_up = True
        self._connection.wake()
        return self.sent

    def no_answer(self, why: str) -> NoAnswerError:
        """What to raise when it may have been carried out."""
        what = f"{self._request.method} {self._connection.url}{self._request.path}"
        if not self._request.changes:
            return NoAnswerError(f"{what} is not answered: {why}")
        return NoAnswerError(f"it is not known whether {what} was carried out: {why}")

    def _once(self) -> Answer:
        headers = self._headers()
        body = None if self._request.body is None else json.dumps(self._request.body).encode()
        self._connection.open(self._reach)
        with self._lock:
            if self._given_up:
                self._connection.close()
                raise NotSentError(f"{self._connection.url} was reached too late")
            self.sent = True
        try:
            return self._connection.ask(self._request.method, self._request.path, body, headers, self._timeout)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise self.no_answer(reason(error)) from None

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json", "Content-Type": "application/json", "User-Agent": "redisha"}
        authorization = self._authorization()
        if not (authorization.isascii() and authorization.isprintable()):
            raise NotSentError(f"the token for {self._connection.url} has characters that no token has")
        if authorization:
            headers["Authorization"] = authorization
        return headers
