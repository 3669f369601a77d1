"""Reads a configuration file of any kind that redisha knows."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import ValidationError

from redisha.config import rules, tree
from redisha.config.explain import explain
from redisha.config.model import Config
from redisha.config.secret import Secrets
from redisha.config.tree import Item, Report
from redisha.errors import ConfigError, Problem

Kind: TypeAlias = Literal["native", "envoy", "dynomite"]

MAX_FILE_BYTES = 4 * 1024**2

# A document with one of these at its root is an Envoy bootstrap file.
_ENVOY = {"static_resources", "dynamic_resources", "staticResources", "dynamicResources"}

# What nearly every Dynomite file calls its one pool. A pool of another name is told by its directives.
_POOL = "dyn_o_mite"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that was read.

    Attributes:
        config: What it says.
        kind: In whose form the file is written.
        warnings: What works, but not quite as the file reads.
        source: The file.
        files: Every file that the configuration came from, the file itself and those of its secrets.
        notes: What a translation from another form made of it.
    """

    config: Config
    kind: Kind
    warnings: tuple[Problem, ...]
    source: Path
    files: tuple[Path, ...]
    notes: tuple[Problem, ...] = ()


def load(path: str | Path, env: Mapping[str, str] | None = None) -> Loaded:
    """Read and check a configuration file.

    Args:
        path: The file: redisha's own YAML, an Envoy bootstrap file with a redis_proxy filter, or a Dynomite file.
        env: Where ``${NAME}`` is looked up; the process environment by default.

    Raises:
        ConfigError: The file cannot be read or is wrong; with everything that is wrong.
    """
    path = Path(path)
    return parse(_read(path), path, env)


def parse(text: str, path: str | Path, env: Mapping[str, str] | None = None) -> Loaded:
    """The same for a text that is at hand.

    Args:
        text: What the file holds.
        path: The file's name, for messages, and for its folder, in which relative ``file:`` secrets are.
        env: Where ``${NAME}`` is looked up; the process environment by default.

    Raises:
        ConfigError: The text is wrong; with everything that is wrong.
    """
    path = Path(path)
    report = Report(str(path))
    env = os.environ if env is None else env
    root = tree.read(text, report)
    kind = _kind(root)
    # Most sidecars start without the readers of other forms.
    if kind == "envoy":
        from redisha.config import envoy

        root = envoy.translate(root, report)
    elif kind == "dynomite":
        from redisha.config import dynomite

        root = dynomite.translate(root, report, env)
    else:
        root = _lift_state_dir(root, report)
    secrets = Secrets(env, path.parent)
    partial = kind != "native" and bool(report.problems)
    config = _validate(root, secrets, report, partial=partial)
    rules.check(root, report)
    report.raise_if_any()
    if config is None:
        raise AssertionError("a document without a model has problems")
    return Loaded(
        config,
        kind,
        tuple(dict.fromkeys(report.warnings)),
        path,
        (path, *dict.fromkeys(secrets.files)),
        tuple(dict.fromkeys(report.notes)),
    )


def _kind(root: Item) -> Kind:
    """In whose form a document is written, by its root keys."""
    if not _ENVOY.isdisjoint(root.mapping):
        return "envoy"
    if _POOL in root.mapping:
        return "dynomite"
    if len(root.mapping) == 1:
        ((name, pool),) = root.mapping.items()
        directives = pool.mapping.keys()
        known = name in Config.model_fields and "dyn_listen" not in directives
        if not known and (directives & {"dyn_listen", "dyn_seeds"} or directives >= {"listen", "servers"}):
            return "dynomite"
    return "native"


def _validate(root: Item, secrets: Secrets, report: Report, *, partial: bool) -> Config | None:
    try:
        return Config.model_validate(root.plain(), context=secrets)
    except ValidationError as error:
        explain(error, root, report, partial=partial)
        return None


def _lift_state_dir(root: Item, report: Report) -> Item:
    """``state_dir`` may stand in the group as well: there is one for the whole file."""
    group = root.get("group")
    inner = group.get("state_dir") if group is not None else None
    if group is None or inner is None:
        return root
    rest = {key: item for key, item in group.mapping.items() if key != "state_dir"}
    outer = root.get("state_dir")
    if outer is not None and outer.value != inner.value:
        report.error(inner, f"there is another state_dir in line {outer.line}", "remove one of them")
    return root.with_value({"state_dir": inner} | root.mapping | {"group": group.with_value(rest)})


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(Problem(str(path), None, "", f"cannot be read: {error.strerror}")) from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(Problem(str(path), None, "", f"is larger than {MAX_FILE_BYTES // 1024**2} MB"))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(Problem(str(path), line, "", "this is not UTF-8 text")) from None
