"""A real ``etcd`` of one member on free ports, with a directory of its own."""

import base64
import contextlib
import http.client
import json
import signal
import ssl
import subprocess
from pathlib import Path
from typing import Any

from support import wait
from support.ports import free_port
from support.process import EndedError, finish, spawn


class EtcdServer:
    """One etcd. Its ports and its directory stay the same over :meth:`restart`."""

    def __init__(self, directory: Path, certificate: Path | None = None, **options: str) -> None:
        """Prepare a server; with TLS if there is a folder of :func:`support.certificate.make_certificate`.

        ``options`` are etcd's, ``_`` for ``-``.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.port}"
        self._peer = f"http://127.0.0.1:{free_port()}"
        self._directory = directory
        self._certificate = certificate
        self._options = {"bcrypt_cost": "4"} | options
        self._log = directory / "etcd.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it has elected itself."""
        argv = ["etcd", "--data-dir", str(self._directory / "data"), "--log-outputs", "stderr"]
        argv += ["--listen-client-urls", self.url, "--advertise-client-urls", self.url]
        argv += ["--listen-peer-urls", self._peer, "--initial-advertise-peer-urls", self._peer]
        argv += [
            "--initial-cluster",
            f"default={self._peer}",
            "--heartbeat-interval",
            "20",
            "--election-timeout",
            "200",
        ]
        for name, value in self._options.items():
            argv += [f"--{name.replace('_', '-')}", value]
        if self._certificate is not None:
            argv += ["--cert-file", str(self._certificate / "ca.crt"), "--key-file", str(self._certificate / "key")]
        self._process = spawn(argv, self._log)
        wait.until(self._healthy, f"etcd on port {self.port} is healthy", timeout=30)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            finish(self._process, signal.SIGKILL)

    def restart(self) -> None:
        """Kill and start again: data and users stay, tokens do not."""
        self.kill()
        self.start()

    def put(self, key: str, value: str) -> None:
        """Write a key."""
        self.ask("kv/put", key=base64.b64encode(key.encode()).decode(), value=base64.b64encode(value.encode()).decode())

    def delete(self, key: str) -> None:
        """Delete a key."""
        self.ask("kv/deleterange", key=base64.b64encode(key.encode()).decode())

    def ask(self, path: str, token: str = "", **body: Any) -> Any:
        """POST to the gateway."""
        return self._request("POST", f"/v3/{path}", json.dumps(body), {"Authorization": token} if token else {})

    def demand_users(self, **passwords: str) -> None:
        """Make users, of which ``root`` may do all and the others nothing, and ask everybody for a password."""
        for name, password in passwords.items():
            self.ask("auth/user/add", name=name, password=password)
        self.ask("auth/role/add", name="root")
        self.ask("auth/user/grant", user="root", role="root")
        self.ask("auth/enable")

    def _healthy(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise EndedError(f"etcd ended with {self._process.returncode}:\n{self._log.read_text(errors='replace')}")
        return self._request("GET", "/health", None, {})["health"] == "true"

    def _request(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        if self._certificate is not None:
            context = ssl.create_default_context(cafile=str(self._certificate / "ca.crt"))
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=context)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            text = response.read().decode()
        if response.status != 200:
            raise OSError(f"{method} {path}: {response.status} {text}")
        return json.loads(text)
