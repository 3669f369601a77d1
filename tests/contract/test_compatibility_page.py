"""docs/compatibility.md is what its tool writes, and has every command."""

import json
import re
import subprocess
import sys
from pathlib import Path

from redisha import _core

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "compatibility.py"


def test_the_page_is_what_the_tool_writes() -> None:
    done = subprocess.run([sys.executable, TOOL, "--check"], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_command_has_its_place() -> None:
    page = (ROOT / "docs" / "compatibility.md").read_text().partition("## Every command")[2]
    told = set()
    for head, rest in re.findall(
        r"^\| ([A-Z_-]+)((?: [^|]+)?) \| (?:passed|here|own|in line|refused|an error)", page, re.M
    ):
        subcommands = [word for word in rest.strip().split(", ") if word and word != "(alone)"]
        told |= {f"{head}|{word}".lower() for word in subcommands} or {head.lower()}
    names = {each["name"] for each in json.loads(_core.command_table())}
    containers = {name.partition("|")[0] for name in names if "|" in name}
    assert told == names - containers
