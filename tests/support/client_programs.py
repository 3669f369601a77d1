"""Programs that use a client library of another language; their sources are in ``tests/clients``.

What they need comes from the language's registry, in the versions that are pinned beside the sources, and is kept, with
the built program, in the user's cache folder: fetched again only after a source has changed.
"""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parents[1] / "clients"

# What the languages' tools print when their registry does not answer, or is not allowed to be asked.
_UNREACHABLE = (
    "ENOTFOUND", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "EAI_AGAIN", "ENETUNREACH",
    "dial tcp", "no such host", "i/o timeout", "module lookup disabled", "GOTOOLCHAIN=local",
    "No plugin found for prefix", "Unknown host", "Could not transfer artifact", "Connection refused",
    "Connect timed out", "download of config.json failed", "Could not connect to server", "Couldn't connect to server",
)  # fmt: skip


class UnavailableError(Exception):
    """The language is not installed, or its registry cannot be reached."""


@dataclass(frozen=True)
class Language:
    """How the programs of a language are built and run, in the folder of the build."""

    folder: str
    needs: tuple[str, ...]
    build: tuple[tuple[str, ...], ...]
    run: tuple[str, ...]

    def built(self) -> Path:
        """The folder with the programs, ready to run."""
        missing = [tool for tool in self.needs if shutil.which(tool) is None]
        if missing:
            raise UnavailableError(f"not installed: {', '.join(missing)}")
        built = _cache() / f"{self.folder}-{self._digest()}"
        if built.exists():
            return built
        built.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=built.parent) as made:
            place = Path(made) / self.folder
            shutil.copytree(SOURCES / self.folder, place)
            for command in self.build:
                _call(command, place)
            place.rename(built)
        return built

    def _digest(self) -> str:
        digest = hashlib.sha256(repr(self.build).encode())
        for path in filter(Path.is_file, sorted((SOURCES / self.folder).iterdir())):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Program:
    """A program that prints what its client library sees of the server at a port."""

    language: Language
    name: str

    def sees(self, port: int, protocol: str) -> dict[str, Any]:
        """What it prints; ``protocol`` is ``2``, ``3``, or ``default`` for the library's own choice."""
        command = [word.replace("{name}", self.name) for word in self.language.run]
        done = subprocess.run(
            [*command, str(port), protocol],
            cwd=self.language.built(),
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert done.returncode == 0, f"{self.name} on port {port}: {done.stderr}\n{done.stdout}"
        return dict(json.loads(done.stdout))


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "redisha-tests" / "clients"


def _call(command: tuple[str, ...], folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False
    )
    if done.returncode == 0:
        return
    if any(words in done.stdout for words in _UNREACHABLE):
        raise UnavailableError(f"{' '.join(command)}: {done.stdout[-400:]}")
    raise AssertionError(f"{' '.join(command)}: {done.stdout}")


_GO = Language("go", ("go",), (("go", "mod", "download"), ("go", "build", "-o", "client", ".")), ("./client",))
_JAVASCRIPT = Language(
    "javascript",
    ("node", "npm"),
    (("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"),),
    ("node", "{name}.js"),
)
_RUST = Language(
    "rust", ("cargo",), (("cargo", "fetch", "--locked"), ("cargo", "build", "-q", "--locked")), ("target/debug/client",)
)
_JAVA = Language(
    "java",
    ("javac", "java", "mvn"),
    (
        ("mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=lib"),
        ("javac", "-nowarn", "-cp", "lib/*", "-d", "classes", "Client.java"),
    ),
    ("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", "classes:lib/*", "Client"),
)

PROGRAMS = {
    "go-redis": Program(_GO, "go-redis"),
    "ioredis": Program(_JAVASCRIPT, "ioredis"),
    "node-redis": Program(_JAVASCRIPT, "node-redis"),
    "jedis": Program(_JAVA, "jedis"),
    "redis-rs": Program(_RUST, "redis-rs"),
}
