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

Kind: TypeAlias = Literal["native", "envoy"]

MAX_FILE_BYTES = 4 * 1024**2

# A document with one of these at its root is an Envoy bootstrap file.
_ENVOY = {"static_resources", "dynamic_resources", "staticResources", "dynamicResources"}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that was read.

    Attributes:
        config: What it says.
        kind: In whose form the file is written.
        warnings: What works, but not quite as the file reads.
        source: The file.
        files: Every file that the configuration came from, the file itself and those of its secrets.
    """

    config: Config
    kind: Kind
    warnings: tuple[Problem, ...]
    source: Path
    files: tuple[Path, ...]


def load(path: str | Path, env: Mapping[str, str] | None = None) -> Loaded:
    """Read and check a configuration file.

    Args:
        path: The file: redisha's own YAML, or an Envoy bootstrap file with a redis_proxy filter.
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
    root = tree.read(text, report)
    kind: Kind = "native" if _ENVOY.isdisjoint(root.mapping) else "envoy"
    if kind == "envoy":
        from redisha.config.envoy import translate  # most sidecars start without it

        root = translate(root, report)
    else:
        _refuse_other_forms(root, report)
    secrets = Secrets(os.environ if env is None else env, path.parent)
    config = _validate(root, secrets, report, partial=kind == "envoy" and bool(report.problems))
    rules.check(root, report)
    report.raise_if_any()
    if config is None:
        raise AssertionError("a document without a model has problems")
    return Loaded(config, kind, tuple(dict.fromkeys(report.warnings)), path, (path, *dict.fromkeys(secrets.files)))


def _validate(root: Item, secrets: Secrets, report: Report, *, partial: bool) -> Config | None:
    try:
        return Config.model_validate(root.plain(), context=secrets)
    except ValidationError as error:
        explain(error, root, report, partial=partial)
        return None


def _refuse_other_forms(root: Item, report: Report) -> None:
    """Files that are meant for a later version get one clear problem instead of many."""
    group = root.get("group")
    if group is not None:
        report.error(group, "groups come in a later version of redisha", "use routes with mirrors")
        report.raise_if_any()
    if len(root.mapping) == 1:
        (item,) = root.mapping.values()
        if "dyn_o_mite" in root.mapping or {"dyn_listen", "dyn_seeds", "data_store"} & item.mapping.keys():
            report.error(item, "Dynomite files are read by a later version of redisha", "see 'redisha --help'")
            report.raise_if_any()


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
