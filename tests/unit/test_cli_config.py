"""`redisha check`, `redisha convert` and `redisha --help`."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from redisha import __version__
from redisha.cli import COMMANDS, cli, main
from redisha.config.load import load, parse
from redisha.errors import ConfigError, DataPlaneError, ListenError, PlanError, Problem, RedishaError

DATA = Path(__file__).parent.parent / "support" / "data"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.yaml"
    path.write_text("listeners: []\nclusters: {a: {endpoints: h}}\n")
    return path


def test_check_tells_where_keys_go() -> None:
    result = run("check", str(DATA / "envoy-prefix.yaml"))
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0].endswith("envoy-prefix.yaml: fine (an Envoy bootstrap file)")
    assert lines[2:6] == [
        "listener redis_listener on 0.0.0.0:6380",
        "  departments…     → redis-master, writes also → redis-departments",
        "  employees…       → redis-master, writes also → redis-employees",
        "  everything else  → no route: an error",
    ]
    assert sum(line.startswith("advice: redis-master is mirrored") for line in lines) == 2
    assert any(line.startswith("warning: ") and "enable_redirection" in line for line in lines)


def test_check_tells_of_a_group() -> None:
    lines = run("check", str(DATA / "dynomite.yaml")).output.splitlines()
    assert lines[0].endswith("dynomite.yaml: fine (a Dynomite file)")
    assert lines[2:11] == [
        "listener dyn_o_mite on 0.0.0.0:8102",
        "  everything  → group dyn_o_mite",
        "",
        "group dyn_o_mite, member dc1-rack1-0",
        "  its Redis  redis-dyno-001:6379, connect 250ms, command 5s",
        "  peers      redis-dyno-002:8101, peer port 0.0.0.0:8101, no secret",
        "  writes     quorum, reads leader, min_in_sync 1",
        "  partition  available, no arbiter; a beat every 200ms, gone after 5 missed",
        "",
    ]
    assert any(line.startswith("note: ") and "dyn_seeds: becomes the group's peers" in line for line in lines)
    assert any(line.startswith("warning: ") and "pem_key_file: ignored" in line for line in lines)
    assert any(line.startswith("advice: the group dyn_o_mite has no secret") for line in lines)


def test_check_of_a_group_as_json(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(
        "dynomite_stats: {}\nlisteners: [{bind: 0.0.0.0:1, group: g, write_consistency: all}]\n"
        "group: {name: g, listen: 0.0.0.0:2, redis: h:1, peers: p:2, secret: hush1, auth: {password: hush2}, "
        "arbiter: {etcd: {endpoints: http://h, key: k, username: hush3, password: hush4}}}\n"
    )
    for arguments in (["check"], ["check", "--json"]):
        assert "hush" not in run(*arguments, str(path)).output
    found = json.loads(run("check", "--json", str(path)).stdout)
    group = found["group"]
    assert (group["name"], group["auth"], group["secret"], group["arbiter"]) == ("g", True, True, "etcd")
    assert (found["clusters"], found["dynomite_stats"]["bind"], found["notes"]) == ({}, "127.0.0.1:22222", [])
    text = run("check", str(path)).output
    assert "everything  → group g, writes all" in text
    assert "members know each other by a secret" in text


def test_check_tells_every_problem(bad: Path) -> None:
    result = run("check", str(bad))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert f"{bad}:1: listeners: at least one is needed\n" in result.stderr
    assert f"{bad}:2: clusters.a.endpoints: the address 'h' has no port" in result.stderr
    assert result.stderr.endswith("bad.yaml: 2 problems\n")


def test_check_as_json(bad: Path) -> None:
    wrong = run("check", "--json", str(bad))
    assert wrong.exit_code == 1
    found = json.loads(wrong.stdout)
    assert (found["ok"], [problem["line"] for problem in found["problems"]]) == (False, [1, 2])
    right = json.loads(run("check", "--json", str(DATA / "envoy-pair.yaml")).stdout)
    assert (right["ok"], right["kind"], right["admin"]) == (True, "envoy", "0.0.0.0:8001")
    assert right["listeners"][0]["routes"][0]["mirrors"][0]["cluster"] == "redis-envoy-002"
    assert right["clusters"]["redis-envoy-001"]["op_timeout"] == 5000
    assert len(right["warnings"]) == 1
    assert len(right["advice"]) == 2


def test_no_secret_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(
        "listeners: [{bind: 0.0.0.0:1, catch_all: a, auth: {users: [{name: app, password: hush1}]}}]\n"
        "clusters: {a: {endpoints: h:1, auth: {password: hush2}}}\n"
    )
    for arguments in (["check"], ["check", "--json"]):
        output = run(*arguments, str(path)).output
        assert "hush" not in output
        assert "AUTH" in output or '"auth": true' in output


@pytest.mark.parametrize("name", ["envoy-pair.yaml", "dynomite.yaml"])
def test_convert(name: str) -> None:
    source = DATA / name
    result = run("convert", str(source))
    assert result.exit_code == 0
    assert parse(result.stdout, "redisha.yaml", {}).config == load(source, {}).config


def test_help_teaches_with_a_configuration_that_is_right() -> None:
    output = run("--help").output
    lines = output.splitlines()
    first = next(number for number, line in enumerate(lines) if "# redisha.yaml" in line)
    example = textwrap.dedent("\n".join(lines[first : lines.index("", first)]))
    group = parse(example, "redisha.yaml", {}).config.group
    assert group is not None
    assert (group.member, group.peers) == ("redis-001", ("redis-002:8101",))
    assert "check    Say whether FILE is right" in output


def test_every_command_that_is_there_can_be_asked_for_help() -> None:
    context = click.Context(cli)
    names = cli.list_commands(context)
    assert {"check", "convert"} <= set(names) <= set(COMMANDS)
    for name in names:
        result = run(name, "--help")
        assert result.exit_code == 0, result.output
        assert result.output.startswith(f"Usage: cli {name}")
    assert run("nonsense").exit_code == 2


def test_version() -> None:
    assert run("--version").output == f"redisha, version {__version__}\n"


def test_a_failure_is_one_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["redisha", "convert", "/nowhere.yaml"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    assert capsys.readouterr().err == "redisha: /nowhere.yaml: cannot be read: No such file or directory\n"


def test_help_is_light() -> None:
    """Neither help nor the choice of a command imports what only a command needs."""
    code = (
        "import sys, redisha.cli; print(*sorted({'pydantic', 'yaml', 'asyncio', 'uvloop', 'rich'} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert found.stdout.strip() == ""


def test_errors() -> None:
    assert {
        kind.__name__: kind.exit_code for kind in (RedishaError, ConfigError, ListenError, PlanError, DataPlaneError)
    } == {
        "RedishaError": 1,
        "ConfigError": 1,
        "ListenError": 3,
        "PlanError": 4,
        "DataPlaneError": 70,
    }
    error = ConfigError(Problem("f", 3, "a.b", "is odd", "write c"), Problem("f", None, "", "is bad"))
    assert str(error) == "f:3: a.b: is odd (write c)\nf: is bad"
    assert (error.file, error.line, error.path, error.message, error.hint) == ("f", 3, "a.b", "is odd", "write c")
    with pytest.raises(ValueError, match="needs a problem"):
        ConfigError()
