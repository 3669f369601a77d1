"""An HTTP/1.1 server in threads, whose answers a test can hold back, lose or replace."""

import contextlib
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class HttpApi:
    """Listens on a free port of 127.0.0.1.

    Attributes:
        log: method and path of each request that was read.
        connections: how many it has accepted.
        raw: ``(status, text)`` to answer everything with; None for what :meth:`carry_out` says.
    """

    def __init__(self, certificate: Path | None = None) -> None:
        """Listen; with TLS if there is a PEM file with a key and a certificate."""
        self.log: list[str] = []
        self.connections = 0
        self.raw: tuple[int, str] | None = None
        self._scheme = "https" if certificate else "http"
        self._lock = threading.RLock()
        self._drop = 0
        self._flow = threading.Event()
        self._flow.set()
        self._open: set[socket.socket] = set()
        self._server = _Server(self)
        self.port = self._server.server_port
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            # Hands are shaken in the connection's own thread.
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Its URL."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._open)

    def stop(self) -> None:
        """Close everything."""
        self._flow.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(5)
            self._server.server_close()
        self.cut()

    def cut(self) -> None:
        """Close the connections there are."""
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def drop(self, count: int = 1) -> None:
        """Carry out the next requests, but close the connection in place of an answer."""
        self._drop = count

    def stall(self) -> None:
        """Read requests, and do nothing with them, until :meth:`flow`."""
        self._flow.clear()

    def flow(self) -> None:
        """End :meth:`stall`: what was read is carried out now."""
        self._flow.set()

    def carry_out(self, method: str, path: str, authorization: str, data: bytes) -> tuple[int, str]:
        """Status and text for a request; called by one thread at a time."""
        raise NotImplementedError

    # --- for the server's threads -------------------------------------------------------------------------------------

    def opened(self, sock: socket.socket) -> None:
        """A connection was accepted."""
        with self._lock:
            self.connections += 1
            self._open.add(sock)

    def closed(self, sock: socket.socket) -> None:
        """A connection is about to be closed."""
        with self._lock:
            self._open.discard(sock)

    def answer(self, method: str, path: str, authorization: str, data: bytes) -> tuple[int, str] | None:
        """Status and text for a request; None to close the connection."""
        self.log.append(f"{method} {path}")
        self._flow.wait(30)
        with self._lock:
            answer = self.raw or self.carry_out(method, path, authorization, data)
            if self._drop:
                self._drop -= 1
                return None
            return answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, api: HttpApi) -> None:
        self.api = api
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.api.opened(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.api.closed(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: clients that go away are what is tested."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _handle(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = self.server.api.answer(self.command, self.path, self.headers.get("Authorization", ""), data)
        if answer is None:
            self.close_connection = True
            return
        status, text = answer
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = _handle  # noqa: N815 - http.server's names

    def log_message(self, *_: Any) -> None:
        """Nothing."""
