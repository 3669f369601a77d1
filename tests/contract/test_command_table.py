"""The command table against a real server: its facts, and what we judged about them."""

import importlib.util
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "rust" / "tools" / "command_table.py"
COMMAND = ROOT / "rust" / "src" / "command"

Address = tuple[str, int]
Command = tuple[str, dict[str, Any], dict[str, Any]]


def load_tool() -> Any:
    spec = importlib.util.spec_from_file_location("command_table", TOOL)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


tool = load_tool()
FACTS: dict[str, Any] = json.loads((COMMAND / "commands.json").read_text())
OVERLAY: dict[str, Any] = json.loads((COMMAND / "overlay.json").read_text())


@pytest.fixture(scope="module")
def redis() -> Iterator[Address]:
    """A server of the table's version."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.fail("redis-server is not installed")
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True, timeout=10).stdout
    version = ".".join(said.partition("v=")[2].split(".")[:2])
    if version != FACTS["version"]:
        pytest.skip(f"the table is of Redis {FACTS['version']}, redis-server is {version}")
    with tool.temporary_server(binary) as address:
        yield address


def commands() -> Iterator[Command]:
    """Name, facts and judgement of each command and subcommand."""
    for name, facts in FACTS["commands"].items():
        yield name, facts, OVERLAY[name]
        for sub, sub_facts in facts.get("subcommands", {}).items():
            yield f"{name} {sub}", sub_facts, OVERLAY[name]["subcommands"][sub]


def check(tool_path: Path, address: Address) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(tool_path), "--check", "--url", f"{address[0]}:{address[1]}"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


@pytest.fixture
def copied_tool(tmp_path: Path) -> Path:
    """The tool and its files in a tree that a test may spoil."""
    (tmp_path / "rust" / "tools").mkdir(parents=True)
    shutil.copytree(COMMAND, tmp_path / "rust" / "src" / "command")
    return Path(shutil.copy(TOOL, tmp_path / "rust" / "tools"))


def test_table_is_what_the_server_says(redis: Address) -> None:
    done = check(TOOL, redis)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["commands.json", "table.rs"])
def test_a_changed_file_is_shown(redis: Address, copied_tool: Path, name: str) -> None:
    changed = copied_tool.parents[1] / "src" / "command" / name
    lines = changed.read_text().splitlines(keepends=True)
    changed.write_text("".join(line for line in lines if '"getdel"' not in line))
    done = check(copied_tool, redis)
    assert done.returncode == 1
    assert [line[:1] for line in done.stdout.splitlines() if '"getdel"' in line] == ["+"]


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        (None, "without an entry in overlay.json: ['getdel']"),
        ({"effect": "none", "reply": "simple"}, "getdel: the server calls it a write"),
        ({"effect": "always", "reply": "maybe"}, "getdel: not understood"),
        ({"effect": "always", "reply": "simple", "keys": "there"}, "no such walker: there"),
    ],
)
def test_a_judgement_that_does_not_fit_is_refused(
    redis: Address, copied_tool: Path, entry: dict[str, str] | None, complaint: str
) -> None:
    overlay = {name: judged for name, judged in OVERLAY.items() if name != "getdel"}
    if entry is not None:
        overlay["getdel"] = entry
    (copied_tool.parents[1] / "src" / "command" / "overlay.json").write_text(json.dumps(overlay))
    done = check(copied_tool, redis)
    assert done.returncode == 1
    assert complaint in done.stderr


def test_every_write_of_the_server_has_an_effect(redis: Address) -> None:
    facts = tool.facts_from(redis)["commands"]
    writes = [name for name, fact in facts.items() if "write" in fact["flags"]]
    writes += [
        f"{name} {sub}"
        for name, fact in facts.items()
        for sub, sub_fact in fact.get("subcommands", {}).items()
        if "write" in sub_fact["flags"]
    ]
    effects = {name: entry["effect"] for name, _, entry in commands()}
    assert len(writes) > 100
    assert [name for name in writes if effects.get(name, "none") == "none"] == []


def test_effects_that_the_server_does_not_call_writes() -> None:
    effective = {
        name for name, facts, entry in commands() if entry["effect"] != "none" and "write" not in facts["flags"]
    }
    containers = {"function", "script", "xgroup"}  # what an unknown subcommand of theirs would be
    assert effective - containers == {
        "eval", "evalsha", "fcall", "publish", "spublish", "script flush", "script load",
    }  # fmt: skip


# One key of each type; the arguments below are tried on all of them.
KEYS = {
    "string": ["SET", "string", "1"],
    "list": ["RPUSH", "list", "1", "2", "3"],
    "hash": ["HSET", "hash", "1", "1", "f", "2"],
    "set": ["SADD", "set", "1", "2", "3"],
    "zset": ["ZADD", "zset", "1", "1", "2", "2", "3", "3"],
    "stream": ["XADD", "stream", "1-1", "f", "v"],
    "absent": ["DEL", "absent"],
}
# Which simple commands cannot be had by filling in numbers and keys.
SAMPLES: dict[str, list[list[str]]] = {
    "bitop": [["AND", "absent", "string"]],
    "geoadd": [["geo", "13.3", "38.1", "m"]],
    "geodist": [["geo", "m", "m"], ["geo", "m", "n"]],
    "geosearchstore": [["geo2", "geo", "FROMMEMBER", "m", "BYRADIUS", "1", "km"]],
    "linsert": [["list", "BEFORE", "1", "0"]],
    "lmove": [["list", "list", "LEFT", "RIGHT"], ["absent", "list", "LEFT", "RIGHT"]],
    "set": [["string", "1", "GET"], ["absent", "1", "XX"], ["absent", "1", "XX", "GET"], ["string", "1", "NX"]],
    "getex": [["string", "PERSIST"]],
    "xadd": [["stream", "*", "f", "v"], ["absent", "NOMKSTREAM", "*", "f", "v"]],
    "xgroup create": [["stream", "g", "$"]],
    "xtrim": [["stream", "MAXLEN", "5"]],
    "zlexcount": [["zset", "-", "+"]],
    "zrangestore": [["absent", "zset", "0", "1"]],
    "zunionstore": [["absent", "1", "zset"]],
    "function load": [["#!lua name=l\nredis.register_function('f', function() return 1 end)"]],
    "script load": [["return 1"]],
}


def requests(name: str, facts: dict[str, Any]) -> Iterator[list[str]]:
    words = name.split()
    yield from ([*words, *sample] for sample in SAMPLES.get(name, []))
    first, last, step = facts["keys"]
    count = abs(facts["arity"])
    places = range(first, (last if last >= 0 else count + last) + 1, max(step, 1)) if first else []
    for key in KEYS if first else ["1"]:
        yield [words[i] if i < len(words) else key if i in places else "1" for i in range(count)]


def read_frame(stream: BufferedIOBase) -> bytes:
    line = stream.readline()
    kind = line[:1]
    if kind in b"$=!" and int(line[1:]) >= 0:
        return line + stream.read(int(line[1:]) + 2)
    if kind in b"*~>%":
        elements = max(int(line[1:]), 0) * (2 if kind == b"%" else 1)
        return line + b"".join(read_frame(stream) for _ in range(elements))
    return line


@pytest.mark.parametrize(("version", "allowed"), [("2", b"+-:$"), ("3", b"+-:$_")])
def test_simple_replies_are_simple(redis: Address, version: str, allowed: bytes) -> None:
    wrong, answered = [], set()
    with socket.create_connection(redis, timeout=20) as link, link.makefile("rwb") as stream:

        def call(words: list[str]) -> bytes:
            parts = [b"$%d\r\n%b\r\n" % (len(word.encode()), word.encode()) for word in words]
            stream.write(b"*%d\r\n%b" % (len(parts), b"".join(parts)))
            stream.flush()
            return read_frame(stream)

        call(["HELLO", version])
        for name, facts, entry in commands():
            if entry["reply"] not in {"simple", "bare"} or entry.get("treatment", "forward") != "forward":
                continue
            for words in requests(name, facts):
                for key in KEYS:
                    call(["DEL", key])
                    call(KEYS[key])
                reply = call(words)
                if reply[:1] not in {bytes([byte]) for byte in allowed} or reply.startswith(b"*"):
                    wrong.append((words, reply))
                elif not reply.startswith(b"-"):
                    answered.add(name)
    assert wrong == []
    assert len(answered) > 110  # most were answered with more than an error
