"""A real ``redis-server`` on a free port, with a directory of its own."""

import signal
import subprocess
from pathlib import Path
from typing import Any

import redis
from support import wait
from support.ports import free_port
from support.process import EndedError, finish, spawn
from support.wire import Conn

_BIND_TRIES = 5
_BIND_RACE = "Could not create server TCP listening socket"


class RedisServer:
    """One Redis. Its port and its directory stay the same over :meth:`restart`."""

    def __init__(self, directory: Path, *, unixsocket: bool = False, **options: str) -> None:
        """Prepare a server. ``options`` are ``redis.conf`` settings, ``_`` for ``-``."""
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = free_port()
        self.host = "127.0.0.1"
        self.unixsocket = str(directory / "redis.sock") if unixsocket else None
        self._options = {"save": "", "appendonly": "no", "enable-debug-command": "local"}
        self._options |= {name.replace("_", "-"): value for name, value in options.items()}
        self._log = directory / "redis.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it answers; the first start takes another port when this one was taken."""
        first = self._process is None
        for _ in range(_BIND_TRIES if first else 1):
            before = len(self.log())
            self._process = spawn(self._argv(), self._log)
            try:
                wait.until(self._answers, f"redis-server on port {self.port} answers")
            except EndedError:
                if not first or _BIND_RACE not in self.log()[before:]:
                    raise
                self.port = free_port()
            else:
                return
        raise RuntimeError(f"redis-server found no port in {_BIND_TRIES} tries")

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None, "not started"
        return self._process.pid

    def is_running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def address(self) -> str:
        """``host:port``, as in an ``endpoints`` list."""
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """For ``redis.from_url``."""
        return f"redis://{self.address}/0"

    def client(self, **options: Any) -> redis.Redis:
        """A redis-py client that speaks RESP2 and returns bytes, unless ``options`` say otherwise."""
        return redis.Redis(host=self.host, port=self.port, **({"protocol": 2, "socket_timeout": 10} | options))

    def cli(self, *args: Any, db: int = 0) -> Any:
        """Run one command on a connection of its own and return redis-py's view of the reply."""
        with self.client(db=db) as client:
            return client.execute_command(*args)

    def conn(self, timeout: float = 10.0, **options: Any) -> Conn:
        """A raw connection."""
        return Conn(self.port, timeout=timeout, **options)

    def kill(self) -> None:
        """SIGKILL: no goodbye to clients, nothing saved."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and wait."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """SIGSTOP: the server hangs, its sockets stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Stop if it runs, and start again on the same port and directory."""
        self.stop()
        self.start()

    def wipe(self) -> None:
        """Empty its data and its scripts and functions, on the server itself."""
        for command in (("FLUSHALL",), ("SCRIPT", "FLUSH"), ("FUNCTION", "FLUSH")):
            self.cli(*command)

    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def _end(self, sig: signal.Signals) -> None:
        if self._process is not None:
            finish(self._process, sig)

    def _argv(self) -> list[str]:
        settings = {"port": str(self.port), "bind": self.host, "dir": str(self.directory), "daemonize": "no"}
        if self.unixsocket is not None:
            settings["unixsocket"] = self.unixsocket
        argv = ["redis-server"]
        for name, value in (settings | self._options).items():
            argv += [f"--{name}", value]
        return argv

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise EndedError(f"redis-server ended with {self._process.returncode}:\n{self.log()}")
        with self.conn(timeout=1.0) as conn:
            # -LOADING until an append-only file is read: not ready yet.
            return conn.command("PING") == b"+PONG\r\n"
