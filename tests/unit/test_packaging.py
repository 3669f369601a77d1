"""What the files of the build must agree on."""

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import redisha

ROOT = Path(__file__).parent.parent.parent


def toml(name: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / name).read_text())


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_one_version() -> None:
    assert (
        toml("pyproject.toml")["project"]["version"] == toml("Cargo.toml")["package"]["version"] == redisha.__version__
    )


def test_the_lock_has_every_dependency() -> None:
    project = toml("pyproject.toml")
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["development"]
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = {normal(line.partition("==")[0]) for line in lines if not line.startswith("#")}
    assert {normal(re.split(r"[<>=]", each)[0]) for each in wanted} <= pins


def test_every_pin_is_exact() -> None:
    for name in ("requirements.lock", "bench.lock"):
        for line in (ROOT / name).read_text().splitlines():
            assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line), line


def test_scripts_can_be_run() -> None:
    for path in [ROOT / ".ci" / "run", *(ROOT / "tools").glob("*.sh")]:
        assert os.access(path, os.X_OK), path
