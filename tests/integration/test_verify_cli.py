"""``redisha verify`` as a command: what it prints, where, and its exit codes."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support import wait
from support.every_type import KEYS, fill, run
from support.redis_server import RedisServer

QUICK = ("--passes", "1", "--settle", "0.01")


@pytest.fixture(scope="module")
def servers(module_redis_server) -> tuple[RedisServer, RedisServer]:
    """Two servers for all tests."""
    return module_redis_server(unixsocket=True), module_redis_server()


@pytest.fixture
def pair(servers: tuple[RedisServer, RedisServer]) -> tuple[RedisServer, RedisServer]:
    """The two, with the same data."""
    for server in servers:
        server.wipe()
        fill(server)
    return servers


def verify(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "redisha", "verify", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=os.environ | environment,
    )


def url(server: RedisServer) -> str:
    return f"redis://{server.address}"


def test_equal(pair) -> None:
    a, b = pair
    done = verify(url(a), url(b))
    assert done.returncode == 0
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"A  {a.address}  Redis ")
    assert [" ".join(line.split()) for line in lines[3:7]] == [
        "keys on A keys on B same different only on A only on B Sync",
        f"database 0 {KEYS - 1} {KEYS - 1} {KEYS - 1} 0 0 0 100 %",
        "database 3 1 1 1 0 0 0 100 %",
        f"all {KEYS} {KEYS} {KEYS} 0 0 0 100 %",
    ]
    assert lines[-1].startswith(f"equal: {KEYS} keys compared in ")


def test_different_then_repaired(pair) -> None:
    a, b = pair
    run(b, ("SET", "string", "other"), ("SET", "extra", "x"))
    done = verify(*QUICK, url(a), url(b))
    assert done.returncode == 1
    assert "different: database 0, key string (string with another value)\n" in done.stdout
    assert "only on B: database 0, key extra (string)\n" in done.stdout
    assert f"\ndifferent: 2 keys; {KEYS + 1} keys compared in " in done.stdout
    short = verify(*QUICK, "--limit", "1", url(a), url(b))
    assert "… and 1 more; --limit 2 lists all\n" in short.stdout
    repaired = verify(*QUICK, "--repair", url(a), url(b))
    assert repaired.returncode == 0
    assert "key extra (string) → repaired\n" in repaired.stdout
    assert f"\nequal now, 2 repaired: {KEYS + 1} keys compared in " in repaired.stdout
    assert verify(url(a), url(b)).returncode == 0


def test_json(pair) -> None:
    a, b = pair
    run(b, ("SET", "string", "other"))
    done = verify(*QUICK, "--json", f"unix://{a.unixsocket}", url(b))
    assert done.returncode == 1
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert found["equal"] is False
    assert found["a"]["address"] == f"unix:{a.unixsocket}"
    assert found["total"] | {"sync_percent": 0} == {
        "keys_a": KEYS,
        "keys_b": KEYS,
        "same": KEYS - 1,
        "different": 1,
        "only_a": 0,
        "only_b": 0,
        "in_flight": 0,
        "repaired": 0,
        "remaining": 1,
        "sync_percent": 0,
    }
    assert [each["db"] for each in found["databases"]] == [0, 3]
    assert found["functions"]["same"] == 1
    (difference,) = found["differences"]
    assert (difference["db"], difference["key"], difference["what"]) == (0, "string", "different")
    assert found["seconds"] > 0
    assert verify("--json", url(a), url(a)).returncode == 3


def test_an_error_as_json(pair) -> None:
    done = verify("--json", url(pair[0]), "unix:///no/such.sock")
    assert done.returncode == 3
    found = json.loads(done.stdout)
    assert found["equal"] is None
    assert found["error"].startswith("unix:/no/such.sock cannot be reached: ")
    assert done.stderr == f"redisha: {found['error']}\n"


def test_choices(pair) -> None:
    a, b = pair
    run(b, ("SET", "string", "other"), ("SET", "user:1", "x"))
    assert verify("--db", "3", url(a), url(b)).returncode == 0
    assert verify("--db", "3", "--db", "0", *QUICK, url(a), url(b)).returncode == 1
    assert verify("--match", "list*", url(a), url(b)).returncode == 0
    assert verify("--match", "user:*", *QUICK, url(a), url(b)).returncode == 1
    done = verify("--sample", "5", "--json", *QUICK, url(a), url(b))
    assert json.loads(done.stdout)["sampled"] is True
    assert 0 < json.loads(done.stdout)["total"]["keys_a"] <= 8


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "Missing argument 'A_URL'"),
        (("redis://h:1",), "Missing argument 'B_URL'"),
        (("h:1", "redis://h:2"), "Invalid value for 'A_URL': expected redis://"),
        (("redis://h:1", "rediss://h:2"), "Invalid value for 'B_URL': TLS (rediss://) is not supported"),
        (("redis://h:1", "redis://:hunter2@h:2/3"), "choose a database with --db"),
        (("redis://:${NO_SUCH_VARIABLE}@h:1", "redis://h:2"), "the environment variable NO_SUCH_VARIABLE is not set"),
        (("--db", "-1", "redis://h:1", "redis://h:2"), "Invalid value for '--db'"),
        (("--sample", "0", "redis://h:1", "redis://h:2"), "Invalid value for '--sample'"),
    ],
)
def test_a_wrong_command_line(arguments: tuple[str, ...], problem: str) -> None:
    done = verify(*arguments)
    assert done.returncode == 2
    assert problem in done.stderr
    assert "hunter2" not in done.stderr
    assert done.stdout == ""


def test_a_password_from_the_environment(pair, redis_server) -> None:
    server: RedisServer = redis_server()
    fill(server)
    server.cli("CONFIG", "SET", "requirepass", "hunter2")
    secret = f"redis://:${{REDIS_PASSWORD}}@{server.address}"
    done = verify(url(pair[0]), secret, REDIS_PASSWORD="hunter2")
    assert done.returncode == 0
    wrong = verify(url(pair[0]), secret, REDIS_PASSWORD="hunter3")
    assert wrong.returncode == 3
    assert "refuses the user or the password" in wrong.stderr
    assert "hunter" not in wrong.stderr + wrong.stdout + done.stdout


def test_a_bar_on_a_terminal_only(pair) -> None:
    """On standard error; standard output stays as it is, so that it can be piped."""
    a, b = pair
    for server in pair:
        server.cli("DEBUG", "POPULATE", 100_000, "key", 10)
    terminal, program = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "redisha", "verify", "--json", url(a), url(b)],
        stdout=subprocess.PIPE,
        stderr=program,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "150"},
    ) as process:
        os.close(program)
        shown = b""
        while True:
            try:
                data = os.read(terminal, 65536)
            except OSError:
                break
            if not data:
                break
            shown += data
        assert process.stdout is not None
        assert json.loads(process.stdout.read())["equal"] is True
    os.close(terminal)
    assert b"database 0: " in shown
    assert b"a second, ready in" in shown


def test_ctrl_c(pair, tmp_path: Path) -> None:
    a, b = pair
    b.pause()
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "redisha", "verify", url(a), url(b)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            with a.client() as client:
                names = lambda: [each["name"] for each in client.client_list()]  # noqa: E731 - for one call
                wait.until(lambda: "redisha-verify" in names(), "it is connected")
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=10)
    finally:
        b.resume()
    assert process.returncode == 130
    assert errors == b"redisha: stopped\n"
    assert output == b""
