"""The pages say what the code does: commands run, links lead somewhere, every field and endpoint is named.

In a page, ``<!-- file NAME -->`` before a fenced block makes it a file, and ``<!-- run -->`` runs it: a console block's
``$ `` lines as commands whose output must be what stands below (``…`` for anything), a Python block as a program. The
number in ``<!-- run 1 -->`` is the exit code.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from redisha.admin import metrics
from redisha.admin.api import ENDPOINTS
from redisha.cli import COMMANDS
from redisha.config.load import parse
from redisha.config.model import Config

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md")])
TAG = re.compile(r"<!-- (file|run)(?: (\S+))? -->")
ANYTHING = "…"


@dataclass(frozen=True)
class Block:
    """A fenced block with a tag."""

    tag: str
    argument: str
    language: str
    text: str
    line: int


def read(page: str) -> str:
    return (ROOT / page).read_text()


def tagged(text: str) -> Iterator[Block]:
    """The blocks of a page that have a tag, in order."""
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        tag = TAG.fullmatch(line.strip())
        if tag is None:
            continue
        fence = next(lines)[1]
        assert fence.startswith("```"), f"line {number}: a tag without a fenced block"
        body = []
        for _, inner in lines:
            if inner.startswith("```"):
                break
            body.append(inner + "\n")
        yield Block(tag[1], tag[2] or "", fence.removeprefix("```"), "".join(body), number)


def run(block: Block, folder: Path) -> None:
    """Run a block in a folder and compare what it prints."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    code = int(block.argument or 0)
    for command, expected in commands(block):
        done = subprocess.run(
            command,
            shell=isinstance(command, str),
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == code, f"line {block.line}: {command}\n{done.stdout}"
        pattern = "".join(r"(?:.*\n)*?" if line.strip() == ANYTHING else re.escape(line) for line in expected)
        assert re.fullmatch(pattern, done.stdout), f"line {block.line}: {command} prints\n{done.stdout}"


def commands(block: Block) -> Iterator[tuple[str | list[str], list[str]]]:
    """Each command of a block, with the lines that it shall print."""
    if block.language == "python":
        yield [sys.executable, "-c", block.text], []
        return
    found: list[tuple[str, list[str]]] = []
    for line in block.text.splitlines(keepends=True):
        if line.startswith("$ "):
            found.append((line.removeprefix("$ ").strip(), []))
        else:
            found[-1][1].append(line)
    yield from found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_shows_is_so(page: Path, tmp_path: Path) -> None:
    for block in tagged(page.read_text()):
        if block.tag == "file":
            (tmp_path / block.argument).write_text(block.text)
        else:
            run(block, tmp_path)


def test_the_tags_are_found() -> None:
    """So that a change of their form does not silence the test above."""
    assert [block.tag for block in tagged(read("README.md"))] == ["file", "run"] * 3


def headings(page: Path) -> set[str]:
    """The anchors that a page has, as GitHub names them."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    found = re.findall(r"^#+ (.+)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in headings(target), f"{link}: there is no such heading"


def models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A model and all models in its fields."""
    yield model
    for field in model.model_fields.values():
        for inner in parts(field.annotation):
            yield from models(inner)


def parts(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from parts(argument)


def test_every_field_is_documented() -> None:
    page = read("docs/configuration.md")
    fields = {name for model in models(Config) for name in model.model_fields}
    assert {"log_bytes", "respect_dns_ttl", "healthy_threshold", "remove_prefix", "password"} <= fields
    assert {name for name in fields if f"`{name}`" not in page and f"{{{name}," not in page} == set()


def test_every_default_of_a_limit_is_documented() -> None:
    """The defaults that an operator plans with."""
    rows = dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", read("docs/configuration.md"), flags=re.M))
    text = "listeners: [{bind: '127.0.0.1:1', catch_all: a}]\nclusters: {a: {endpoints: '127.0.0.1:2'}}\n"
    limits = parse(text, "defaults.yaml").config.limits
    documented = {name: yaml.safe_load(rows[name]) for name in type(limits).model_fields}
    written = parse(text + yaml.safe_dump({"limits": documented}), "documented.yaml")
    assert written.config.limits == limits


def test_every_admin_endpoint_is_documented() -> None:
    page = read("docs/operations.md")
    assert [each.path for each in ENDPOINTS if f"`{each.method} {each.path}" not in page] == []


def test_every_metric_is_documented() -> None:
    page = read("docs/operations.md")
    assert [name for name in metrics.HELP if name.removesuffix("_total") not in page] == []


def test_every_command_is_documented() -> None:
    pages = "".join(page.read_text() for page in PAGES)
    there = [name for name in COMMANDS if (ROOT / "python" / "redisha" / "cli" / f"{name}.py").exists()]
    assert [name for name in there if f"redisha {name}" not in pages] == []


def test_the_kubernetes_example_has_configurations_that_load() -> None:
    documents = list(yaml.safe_load_all(read("deploy/kubernetes/redis-pair.yaml")))
    (config,) = [each for each in documents if each["kind"] == "ConfigMap"]
    files = {name: text for name, text in config["data"].items() if name.endswith(".yaml")}
    arguments = [
        container["args"][-1]
        for each in documents
        if each["kind"] == "Deployment"
        for container in each["spec"]["template"]["spec"]["containers"]
        if container["name"] == "redisha"
    ]
    assert sorted(Path(argument).name for argument in arguments) == sorted(files)
    services = {each["metadata"]["name"] for each in documents if each["kind"] == "Service"}
    for name, text in files.items():
        loaded = parse(text, name)
        assert loaded.warnings == ()
        hosts = {host for each in loaded.config.clusters.values() for host in each.endpoints}
        assert {host.partition(":")[0] for host in hosts} <= services | {"127.0.0.1"}
