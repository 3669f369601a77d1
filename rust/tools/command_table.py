#!/usr/bin/env python3
"""Generates the command table from what a Redis server says about itself.

    command_table.py                      record the facts, generate the table (starts a redis-server)
    command_table.py --url 127.0.0.1:6379 the same, from a running server
    command_table.py --check              change nothing; exit 1 and say what differs

Three files lie in rust/src/command/:

    commands.json   the facts: COMMAND's reply, recorded and sorted             written here
    overlay.json    our judgement: effect, reply class, treatment, key walker   written by hand
    table.rs        both, as the Rust table                                     generated here

A command that only one of the two JSON files knows is an error: nothing gets into the table by guessing.
"""

from __future__ import annotations

import argparse
import difflib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedIOBase

HERE = Path(__file__).resolve().parent.parent / "src" / "command"
FACTS, OVERLAY, TABLE = HERE / "commands.json", HERE / "overlay.json", HERE / "table.rs"

EFFECTS = {
    "none", "always", "changed", "unconditional", "replace", "restore", "set", "set_ex", "get_ex", "expire", "get_del",
    "pop", "float", "hash_float", "z_add", "bit_field", "sort", "geo_radius", "x_add", "x_trim",
    "copy_keys", "copy_changed", "script",
}  # fmt: skip
REPLIES = {"simple", "bare", "varies"}
TREATMENTS = {"forward", "local", "private", "refused", "transaction"}
WALKERS = {"every", "sort", "geo_radius", "migrate", "streams"}

Facts = dict[str, Any]


class TableError(Exception):
    """The facts and the overlay do not fit together."""


# ── the server ──────────────────────────────────────────────────────────────────────────────────────────────────────


def read_reply(stream: BufferedIOBase) -> Any:
    """Reads one RESP2 reply; nil is None."""
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        raise TableError("the server closed the connection")
    kind, rest = line[:1], line[1:-2]
    if kind == b"-":
        raise TableError(f"the server refused: {rest.decode()}")
    if kind == b":":
        return int(rest)
    if kind == b"+":
        return rest.decode()
    size = int(rest)
    if size < 0:
        return None
    if kind == b"$":
        return stream.read(size + 2)[:-2].decode("utf-8", "replace")
    return [read_reply(stream) for _ in range(size)]


def ask(address: tuple[str, int], *args: str) -> Any:
    """Sends one command on a connection of its own and gives its reply."""
    with socket.create_connection(address, timeout=10) as link, link.makefile("rwb") as stream:
        stream.write(b"".join([b"*%d\r\n" % len(args), *(b"$%d\r\n%b\r\n" % (len(a), a.encode()) for a in args)]))
        stream.flush()
        return read_reply(stream)


@contextmanager
def temporary_server(binary: str) -> Iterator[tuple[str, int]]:
    """Runs a Redis without files on a free port for as long as the context lasts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = probe.getsockname()
    with tempfile.TemporaryDirectory() as folder:
        command = [binary, "--port", str(address[1]), "--bind", address[0], "--save", "", "--dir", folder]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603 (the operator names the binary)
        try:
            deadline = time.monotonic() + 10
            while True:
                try:
                    ask(address, "PING")
                    break
                except OSError:
                    if server.poll() is not None or time.monotonic() > deadline:
                        raise TableError(f"{binary} does not answer on port {address[1]}") from None
                    time.sleep(0.02)
            yield address
        finally:
            server.kill()
            server.wait()


def flat_map(pairs: Any) -> Any:
    """A RESP2 map (name, value, name, value) as a dictionary, in depth where it is one."""
    return {name: flat_map(value) if name in {"begin_search", "find_keys", "spec"} else value
            for name, value in zip(pairs[::2], pairs[1::2], strict=True)}  # fmt: skip


def facts_of(entry: list[Any]) -> Facts:
    """The facts of one command, in the form 7.0 gives them, without prose."""
    _name, arity, flags, first, last, step, _categories, _tips, specs, subcommands = entry
    facts: Facts = {"arity": arity, "flags": sorted(flags), "keys": [first, last, step], "key_specs": []}
    for spec in map(flat_map, specs):
        spec.pop("notes", None)
        spec["flags"].sort()
        facts["key_specs"].append(spec)
    if subcommands:
        facts["subcommands"] = {sub[0].partition("|")[2]: facts_of(sub) for sub in sorted(subcommands)}
    return facts


def facts_from(address: tuple[str, int]) -> Facts:
    """All facts of a running server, ordered by name."""
    info = dict(line.split(":", 1) for line in ask(address, "INFO", "server").splitlines() if ":" in line)
    entries = sorted(ask(address, "COMMAND"), key=lambda entry: entry[0])
    if not entries or len(entries[0]) != 10:
        raise TableError(f"COMMAND of {info['redis_version']} has another form; 7.0 or later is needed")
    version = ".".join(info["redis_version"].split(".")[:2])
    return {"version": version, "commands": {entry[0]: facts_of(entry) for entry in entries}}


# ── the table ───────────────────────────────────────────────────────────────────────────────────────────────────────


def camel(name: str) -> str:
    """geo_radius → GeoRadius."""
    return "".join(part.capitalize() for part in name.split("_"))


def keys_of(name: str, facts: Facts, walker: str | None) -> str:
    """The Rust expression that says where the keys are."""
    if walker is not None:
        return {"geo_radius": f"GeoRadius({abs(facts['arity'])})", "every": "Every"}.get(walker, camel(walker))
    specs = [spec for spec in facts["key_specs"] if "not_key" not in spec["flags"]]
    if not specs:
        return "None"
    first, last, step = facts["keys"]
    if "movablekeys" not in facts["flags"]:
        return f"Range({first}, {last}, {step})"
    counted = specs[-1]["find_keys"]
    found = (specs[-1]["begin_search"]["type"], counted["type"], counted["spec"])
    if found != ("index", "keynum", {"keynumidx": 0, "firstkey": 1, "keystep": 1}) or len(specs) > 2:
        raise TableError(f"{name}: its key specs need a walker in {OVERLAY.name}")
    if len(specs) == 2 and (first, last) != (1, 1):
        raise TableError(f"{name}: a destination that is not the first argument needs a walker in {OVERLAY.name}")
    at = specs[-1]["begin_search"]["spec"]["index"]
    return f"{'StoreCounted' if len(specs) == 2 else 'Counted'}({at})"


def judged(name: str, entry: dict[str, str]) -> tuple[str, str, str, str | None]:
    """Effect, reply class, treatment and walker of an overlay entry, each a word that exists."""
    rest = {word: value for word, value in entry.items() if word != "subcommands"}
    effect, reply = rest.pop("effect", ""), rest.pop("reply", "")
    treatment, walker = rest.pop("treatment", "forward"), rest.pop("keys", None)
    if rest or effect not in EFFECTS or reply not in REPLIES or treatment not in TREATMENTS:
        raise TableError(f"{name}: not understood in {OVERLAY.name}: {entry}")
    if walker is not None and walker not in WALKERS:
        raise TableError(f"{name}: no such walker: {walker}")
    return camel(effect), camel(reply), camel(treatment), walker


def row(name: str, facts: Facts, entry: dict[str, str], subcommands: tuple[int, int]) -> str:
    """One line of the Rust table."""
    effect, reply, treatment, walker = judged(name, entry)
    if "write" in facts["flags"] and effect == "None":
        raise TableError(f"{name}: the server calls it a write, {OVERLAY.name} gives it no effect")
    flags = " ".join("MOVABLE_KEYS" if flag == "movablekeys" else flag.upper() for flag in facts["flags"])
    subs = f"{subcommands[0]}..{sum(subcommands)}" if subcommands[1] else "0..0"
    keys = keys_of(name, facts, walker)
    return f'    row!("{name}", {facts["arity"]}, [{flags}], {keys}, {effect}, {reply}, {treatment}, {subs}),'


def both(facts: Facts, overlay: Facts, where: str) -> Iterator[tuple[str, Facts, Facts]]:
    """Pairs facts and judgement by name; what only one side knows is an error."""
    if facts.keys() != overlay.keys():
        unjudged, unknown = sorted(facts.keys() - overlay.keys()), sorted(overlay.keys() - facts.keys())
        raise TableError(f"{where}: without an entry in {OVERLAY.name}: {unjudged}; not of this server: {unknown}")
    for name in sorted(facts):
        yield name, facts[name], overlay[name]


def table_from(facts: Facts, overlay: Facts) -> str:
    """The text of table.rs: all commands by name, then the subcommands of each container."""
    commands = list(both(facts["commands"], overlay, "the table"))
    top: list[str] = []
    subs: list[str] = []
    for name, fact, entry in commands:
        inner = list(both(fact.get("subcommands", {}), entry.get("subcommands", {}), name))
        top.append(row(name, fact, entry, (len(commands) + len(subs), len(inner))))
        subs += [row(f"{name}|{sub}", sub_fact, sub_entry, (0, 0)) for sub, sub_fact, sub_entry in inner]
    lines = "\n".join(top + subs)
    return f"""\
//! GENERATED by `rust/tools/command_table.py` from `commands.json` and `overlay.json`; do not edit.

use super::Command;

/// The Redis version whose facts these are.
pub const VERSION: &str = "{facts["version"]}";

/// How many of the rows are commands; the rest are subcommands.
pub const TOP: usize = {len(top)};

/// How many rows there are.
pub const ROWS: usize = {len(top) + len(subs)};

/// Name, arity, flags, keys, effect, reply, treatment, the rows of its subcommands.
#[rustfmt::skip]
pub static TABLE: [Command; ROWS] = super::numbered([
{lines}
]);
"""


def facts_text(facts: Facts) -> str:
    """commands.json: one line per command, so that a change of one command is a change of one line."""
    lines = []
    for name, fact in facts["commands"].items():
        fact = dict(fact)
        subs = fact.pop("subcommands", {})
        inner = ",\n".join(f"      {json.dumps(sub)}: {json.dumps(sub_fact)}" for sub, sub_fact in subs.items())
        tail = f', "subcommands": {{\n{inner}\n    }}}}' if subs else "}"
        lines.append(f"    {json.dumps(name)}: {json.dumps(fact)[:-1]}{tail}")
    body = ",\n".join(lines)
    return f'{{\n  "version": {json.dumps(facts["version"])},\n  "commands": {{\n{body}\n  }}\n}}\n'


# ── the tool ────────────────────────────────────────────────────────────────────────────────────────────────────────


def differences(path: Path, wanted: str) -> list[str]:
    """What would have to change in a file, as a unified diff; nothing when it is as wanted."""
    present = path.read_text() if path.exists() else ""
    name = str(path.relative_to(HERE.parent.parent.parent))
    diff = difflib.unified_diff(present.splitlines(), wanted.splitlines(), name, f"{name} (from the server)", "", "", 1)
    return list(diff)


def facts_by_options(options: argparse.Namespace) -> Facts:
    """The facts of the server that the options name."""
    if options.url is not None:
        host, _, port = options.url.rpartition(":")
        return facts_from((host or "127.0.0.1", int(port)))
    binary = shutil.which(options.redis_server)
    if binary is None:
        raise TableError(f"no such program: {options.redis_server}; give one with --redis-server, or --url host:port")
    with temporary_server(binary) as address:
        return facts_from(address)


def main(arguments: list[str] | None = None) -> int:
    """Generates or checks; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", metavar="HOST:PORT", help="a running Redis; default: start a temporary one")
    parser.add_argument("--redis-server", default="redis-server", metavar="PROGRAM", help="which one to start")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when anything differs")
    options = parser.parse_args(arguments)
    try:
        facts = facts_by_options(options)
        wanted = {FACTS: facts_text(facts), TABLE: table_from(facts, json.loads(OVERLAY.read_text()))}
    except (TableError, OSError) as error:
        print(f"command_table: {error}", file=sys.stderr)
        return 1
    if not options.check:
        for path, text in wanted.items():
            path.write_text(text)
        return 0
    diff = [line for path, text in wanted.items() for line in differences(path, text)]
    print("\n".join(diff), end="\n" if diff else "")
    return 1 if diff else 0


if __name__ == "__main__":
    sys.exit(main())
