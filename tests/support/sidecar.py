"""A running ``redisha run FILE``."""

import copy
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

import redis
from support import wait
from support.ports import free_port
from support.process import EndedError, finish, spawn
from support.wire import Conn

_PLACEHOLDER = re.compile(r"\{(admin|port\d*)\}")
_BIND_TRIES = 3

ConfigInput = str | dict[str, Any]

RUN = ("-m", "redisha", "run")
HOOKED = (str(Path(__file__).with_name("hooked.py")),)
"""A sidecar that panics on SIGUSR1 and whose control plane is blocked for a while by SIGUSR2."""

WORKERS = os.environ.get("REDISHA_TEST_WORKERS", "")
"""So many workers wherever a configuration does not say, so that any test can be run with several."""

STATS_PATH = "/stats?format=json"


class Sidecar:
    """One sidecar process with a configuration file of its own.

    The configuration is YAML text or a dictionary; ``{port}``, ``{port2}`` … and ``{admin}`` in it
    become free ports, the same ones for the life of this object.
    """

    def __init__(
        self,
        directory: Path,
        config: ConfigInput,
        program: Sequence[str] = RUN,
        state_dir: Path | str | None = None,
    ) -> None:
        """Prepare a sidecar.

        Args:
            directory: its own folder.
            config: what it is to run.
            program: the arguments of Python that the file's name is appended to.
            state_dir: where it keeps its state if the configuration does not say; by default a folder in ``directory``,
                which stays the same over restarts of this object. ``"memory"`` for none.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.state_dir = directory / "state" if state_dir is None else state_dir
        self.file = directory / "redisha.yaml"
        self.ports: dict[str, int] = {}
        self._config = config
        self._program = program
        self._log = directory / "redisha.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, ready: bool = True, timeout: float = 20.0) -> None:
        """Start, and wait for ``/ready`` unless told otherwise; takes other ports when one was taken."""
        for last in [False] * (_BIND_TRIES - 1) + [True]:
            self._write(self._config)
            setting = f"REDISHA_STATE_DIR={self.state_dir}"
            self._process = spawn(["env", setting, sys.executable, *self._program, str(self.file)], self._log)
            if not ready:
                return
            try:
                wait.until(self.is_ready, "the sidecar is ready", timeout)
            except EndedError:
                if last or "in use" not in self.log():
                    raise
                self.ports.clear()
            else:
                return

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def port(self) -> int:
        """The port of ``{port}``."""
        return self.ports["port"]

    @property
    def admin_port(self) -> int:
        """The port of ``{admin}``."""
        return self.ports["admin"]

    @property
    def url(self) -> str:
        """For ``redis.from_url``."""
        return f"redis://127.0.0.1:{self.port}/0"

    def is_ready(self) -> bool:
        """Whether ``/ready`` says so; ``EndedError`` when the process has ended."""
        if self.exit_code() is not None:
            raise EndedError(f"redisha ended with {self.exit_code()}:\n{self.log()}")
        return self.get_status("/ready")[0] == 200

    def get_status(self, path: str, timeout: float = 5.0) -> tuple[int, bytes]:
        """Status and body of a GET on the admin port."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=timeout) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def get(self, path: str) -> bytes:
        """The body of a GET on the admin port, which must be a 200."""
        status, body = self.get_status(path)
        assert status == 200, f"GET {path}: {status} {body[:500]!r}"
        return body

    def stats(self) -> dict[str, Any]:
        """The data plane's counters as one document."""
        return json.loads(self.get(STATS_PATH))

    def conn(self, timeout: float = 10.0, **options: Any) -> Conn:
        """A raw connection to the first listener."""
        return Conn(self.port, timeout=timeout, **options)

    def client(self, **options: Any) -> redis.Redis:
        """A redis-py client of the first listener."""
        return redis.Redis(host="127.0.0.1", port=self.port, **({"socket_timeout": 10} | options))

    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def exit_code(self) -> int | None:
        """The exit code, or None while it runs."""
        assert self._process is not None, "not started"
        return self._process.poll()

    def wait_exit(self, timeout: float = 10.0) -> int:
        """Wait for the end and return the exit code."""
        assert self._process is not None, "not started"
        return self._process.wait(timeout)

    def signal(self, sig: signal.Signals) -> None:
        """Send a signal and do not wait."""
        assert self._process is not None, "not started"
        self._process.send_signal(sig)

    def stop(self, timeout: float = 15.0) -> None:
        """SIGTERM; it must drain and exit with 0."""
        if self._process is not None:
            code = finish(self._process, signal.SIGTERM, timeout)
            assert code == 0, f"exit code {code} after SIGTERM"

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            finish(self._process, signal.SIGKILL)

    def reload(self, config: ConfigInput, timeout: float = 10.0) -> None:
        """Put another configuration in the file, send SIGHUP and wait until the data plane has it."""
        before = self.stats()["worker"]["plan_generation"]
        self._write(config)
        self.signal(signal.SIGHUP)
        wait.until(lambda: self.stats()["worker"]["plan_generation"] > before, "the new plan is in force", timeout)

    def memory_bytes(self) -> int:
        """Resident memory of the process."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]

    def _write(self, config: ConfigInput) -> None:
        """Write the file as a whole: it is never seen half written."""
        if isinstance(config, dict) and WORKERS and "workers" not in config:
            config = config | {"workers": int(WORKERS)}
        text = config if isinstance(config, str) else yaml.safe_dump(copy.deepcopy(config), sort_keys=False)
        for name in set(_PLACEHOLDER.findall(text)):
            if name not in self.ports:
                self.ports[name] = free_port()
        text = _PLACEHOLDER.sub(lambda match: str(self.ports[match[1]]), text)
        fresh = self.file.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.file)
