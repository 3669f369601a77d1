"""Getting the suite: Debian's source package of Redis, kept in a cache outside the tree.

apt verifies what it downloads by the hashes in the signed index. The machine's own configuration stays as it is: its
sources are copied to a folder of ours, with ``deb-src``.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

_PACKAGE = "redis"
_SOURCES = Path("/etc/apt")
_TOOLS = {"tclsh": "tcl", "apt-get": "apt", "dpkg-source": "dpkg-dev"}
_UNPACKED = "redis-*"
_SHOWN = 6
"""Lines of what a command said."""


class MissingError(Exception):
    """The suite cannot be had; the text says what to do."""


def cache() -> Path:
    """Where the suite is kept."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "redisha" / "conformance"


def suite(timeout: float = 600.0) -> Path:
    """The folder of Redis's sources, fetched if it is not in the cache; ``timeout`` bounds each step of that."""
    _need("tclsh")
    found = _cached()
    return found[-1] if found else _fetch(timeout)


def version(folder: Path) -> str:
    """Of the Redis that the suite came with."""
    return folder.name.partition("-")[2]


def _cached() -> list[Path]:
    return sorted(path for path in cache().glob(_UNPACKED) if (path / "tests" / "test_helper.tcl").exists())


def _fetch(timeout: float) -> Path:
    """Download and unpack beside the cache's place, and move it there when it is whole."""
    for tool in ("apt-get", "dpkg-source"):
        _need(tool)
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache(), prefix="fetch-") as name:
        work = Path(name)
        apt = ["apt-get", "-q", *_options(work)]
        # A list that cannot be had is only a warning, and often not one that is needed.
        warnings = _run([*apt, "update"], work, timeout)
        _run([*apt, "source", "--download-only", _PACKAGE], work, timeout, before=warnings)
        (description,) = work.glob("*.dsc")
        unpacked = work / f"redis-{description.stem.partition('_')[2].partition('-')[0]}"
        _run(["dpkg-source", "-x", description.name, unpacked.name], work, timeout)
        place = cache() / unpacked.name
        if not place.exists():
            unpacked.rename(place)
    return place


def _options(work: Path) -> list[str]:
    """apt's, for sources and lists of our own in the folder."""
    parts, lists = work / "sources", work / "lists"
    parts.mkdir()
    (lists / "partial").mkdir(parents=True)
    for place in (_SOURCES / "sources.list", *sorted((_SOURCES / "sources.list.d").glob("*"))):
        if place.suffix in {".list", ".sources"} and place.exists():
            (parts / place.name).write_text(_with_source(place.read_text(), place.suffix))
    settings = {
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": parts,
        "Dir::State::lists": lists,
        "Dir::Cache": work / "cache",
        # Without root, and in a folder that only its owner may enter.
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
    }
    (work / "cache" / "archives" / "partial").mkdir(parents=True)
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def _with_source(text: str, suffix: str) -> str:
    """The text of a list of apt's, for source packages instead of binary ones."""
    if suffix == ".sources":
        return "\n".join("Types: deb-src" if line.startswith("Types:") else line for line in text.splitlines()) + "\n"
    lines = (line for line in text.splitlines() if line.startswith(("deb ", "deb\t", "deb-src")))
    return "".join(f"deb-src{line.removeprefix('deb-src').removeprefix('deb')}\n" for line in lines)


def _run(argv: Sequence[str], folder: Path, timeout: float, before: str = "") -> str:
    """Run it and return its errors; when it fails, these and those of ``before`` are told."""
    advice = (
        f"without it: unpack Redis's sources as {cache()}/redis-VERSION ('apt-get source redis' on a Debian that has "
        "deb-src, or the release's archive)"
    )
    what = " ".join(word for word in argv if word != "-q" and "=" not in word and word != "-o")
    try:
        done = subprocess.run(
            argv, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise MissingError(f"'{what}' took more than {timeout:g} s; {advice}") from None
    if done.returncode != 0:
        last = "\n".join((before + done.stderr).strip().splitlines()[-_SHOWN:])
        raise MissingError(f"'{what}' failed; {advice}. It said:\n{last}")
    return done.stderr


def _need(tool: str) -> None:
    if shutil.which(tool) is None:
        raise MissingError(f"there is no '{tool}' (on Debian: apt-get install {_TOOLS[tool]})")
