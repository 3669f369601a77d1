"""HTTP/1.1 for the admin port: reads a request, finds its route, writes the answer.

A server of our own, because of what it is not: ``aiohttp.web`` does all this, and costs 16 MB of resident memory (it
imports its client) and 0.15 s of start; the whole control plane without it has 40 MB. Measured with Python 3.11 and
aiohttp 3.14. The handlers in ``api`` know nothing of HTTP's wire, so the choice is this file's alone.

Owns: the admin socket. Never: knows what an answer means.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from redisha.errors import ListenError

log = logging.getLogger(__name__)

HEAD_LIMIT = 16 * 1024
"""Bytes of a request's head."""

BODY_LIMIT = 64 * 1024
"""Bytes of a request's body."""

IDLE_LIMIT = 60.0
"""Seconds that a connection may be silent, and that a request may take to arrive."""

CONNECTION_LIMIT = 64
"""Connections at a time; one more, and the oldest is closed."""

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
HTML = "text/html; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Request:
    """A request without its wire form; ``query`` has the last value of each name, ``""`` for a bare one."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Response:
    """An answer without its wire form."""

    body: str
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = TEXT
    allow: str = ""
    """For a 405: the method that is allowed."""


def json_answer(document: Any, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """A document as an answer; what JSON has no form for is told as text."""
    return Response(json.dumps(document, indent=1, default=str) + "\n", status, content_type=JSON)


Handler = Callable[[Request], Response | Awaitable[Response]]


class BadRequest(Exception):  # noqa: N818 - HTTP's name for it
    """The bytes are no request we take; ends the connection after the answer."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.response = Response(text + "\n", status)


class AdminServer:
    """The admin port.

    Args:
        handler: answers every request; an exception of it becomes a 500.
        name: what messages call it.
        hint: what to do when its address cannot be bound.
    """

    def __init__(
        self,
        handler: Handler,
        name: str = "admin server",
        hint: str = "choose another address (admin.bind in the file, or --admin HOST:PORT) or none (--admin off)",
    ) -> None:
        self._handler = handler
        self._name = name
        self._hint = hint
        self._server: asyncio.Server | None = None
        self._tasks: dict[asyncio.Task[None], None] = {}

    async def start(self, address: str) -> str:
        """Listen on ``ip:port``, ``[v6]:port`` or ``unix:/path``; returns the address as bound.

        Raises:
            ListenError: it cannot be bound.
        """
        try:
            if address.startswith("unix:"):
                path = address.removeprefix("unix:")
                self._server = await asyncio.start_unix_server(self._accept, path, limit=HEAD_LIMIT)
                return address
            self._server = await asyncio.start_server(self._accept, sock=listening(address), limit=HEAD_LIMIT)
        except OSError as error:
            # create_server puts its own words over the system's; the number is the system's.
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise ListenError(f"{self._name}: cannot bind {address}: {reason}; {self._hint}") from error
        bound = self._server.sockets[0].getsockname()
        return f"[{bound[0]}]:{bound[1]}" if ":" in bound[0] else f"{bound[0]}:{bound[1]}"

    async def close(self) -> None:
        """Stop listening and close every connection."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - streams run this callback as a task
        if len(self._tasks) >= CONNECTION_LIMIT:
            next(iter(self._tasks)).cancel()  # the oldest: one that never closes keeps nobody else out
        self._tasks[task] = None
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # The peer is gone or silent, or we end: nothing is owed.
        finally:
            self._tasks.pop(task, None)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        keep = True
        while keep:
            try:
                async with asyncio.timeout(IDLE_LIMIT):
                    request, keep = await read_request(reader)
            except BadRequest as bad:
                writer.write(encode(bad.response, keep=False))
                await writer.drain()
                return
            response = await self._answer(request)
            writer.write(encode(response, keep=keep, head_only=request.method == "HEAD"))
            async with asyncio.timeout(IDLE_LIMIT):
                await writer.drain()

    async def _answer(self, request: Request) -> Response:
        try:
            response = self._handler(request)
            return response if isinstance(response, Response) else await response
        except Exception:
            log.exception("%s: %s %s failed", self._name, request.method, request.path)
            return Response("internal error; the log has the details\n", HTTPStatus.INTERNAL_SERVER_ERROR)


def listening(address: str) -> socket.socket:
    """A socket that listens on ``ip:port`` or ``[v6]:port``; made here, so that no resolver is asked.

    Raises:
        OSError: it cannot be bound.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    return socket.create_server((host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


async def read_request(reader: asyncio.StreamReader) -> tuple[Request, bool]:
    """Read one request; returns it and whether the connection stays open.

    Raises:
        BadRequest: it is malformed or too long.
        asyncio.IncompleteReadError: the peer closed.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"head longer than {HEAD_LIMIT} bytes") from None
    line, *rest = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (each.partition(":") for each in rest if each)}
    request = parse_request_line(line)
    if "transfer-encoding" in headers:
        raise BadRequest(HTTPStatus.LENGTH_REQUIRED, "send a Content-Length, not a Transfer-Encoding")
    body = await _body(reader, headers.get("content-length", "0"))
    origin = headers.get("origin")
    if request.method == "POST" and origin is not None and urlsplit(origin).netloc != headers.get("host"):
        raise BadRequest(HTTPStatus.FORBIDDEN, "a page of another site may not do this")
    asked = headers.get("connection", "").lower()
    return replace(request, body=body), asked != "close" and (line.endswith("HTTP/1.1") or asked == "keep-alive")


async def _body(reader: asyncio.StreamReader, length: str) -> bytes:
    if not (length.isascii() and length.isdecimal()):
        raise BadRequest(HTTPStatus.BAD_REQUEST, "Content-Length is no number")
    if len(length) > len(str(BODY_LIMIT)) or int(length) > BODY_LIMIT:
        raise BadRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"body longer than {BODY_LIMIT} bytes")
    return await reader.readexactly(int(length))


def parse_request_line(line: str) -> Request:
    """``GET /stats?filter=cx HTTP/1.1`` as a request.

    Raises:
        BadRequest: it is no request line of HTTP/1.
    """
    parts = line.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1.") or not parts[1].startswith("/"):
        raise BadRequest(HTTPStatus.BAD_REQUEST, "this port speaks HTTP/1.1; try GET /help")
    path, _, query = parts[1].partition("?")
    return Request(parts[0], path, dict(parse_qsl(query, keep_blank_values=True)))


def encode(response: Response, *, keep: bool, head_only: bool = False) -> bytes:
    """The answer's bytes."""
    body = response.body.encode()
    lines = [
        f"HTTP/1.1 {response.status.value} {response.status.phrase}",
        f"content-type: {response.content_type}",
        f"content-length: {len(body)}",
        "cache-control: no-cache, max-age=0",
        "x-content-type-options: nosniff",
        f"connection: {'keep-alive' if keep else 'close'}",
    ]
    if response.allow:
        lines.append(f"allow: {response.allow}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (b"" if head_only else body)
