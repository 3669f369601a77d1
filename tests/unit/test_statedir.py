"""Which folder a sidecar keeps its state in, and that it has it alone: :mod:`redisha.statedir`."""

import asyncio
import errno
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from redisha import statedir
from redisha.config.load import parse
from redisha.config.model import Config
from redisha.errors import ConfigError
from redisha.statedir import Choice, Claim, StateDir, TakenError, acquire, choose, claim, identity, preview


def config(bind: str = "127.0.0.1:6380", name: str = "main", more: str = "", mirrors: str = "[{cluster: b}]") -> Config:
    return parse(
        f"listeners: [{{bind: '{bind}', name: {name}, routes: [{{cluster: a, mirrors: {mirrors}}}]}}]\n"
        f"clusters: {{a: {{endpoints: h1:1}}, b: {{endpoints: h2:1}}}}\n{more}",
        "f.yaml",
        {},
    ).config


@pytest.fixture(autouse=True)
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system directory of the test's own."""
    folder = tmp_path / "var" / "lib" / "redisha"
    monkeypatch.setattr(statedir, "SYSTEM", folder)
    return folder


HOLD = """
import fcntl, os, sys, time
lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(lock, fcntl.LOCK_EX)
os.pwrite(lock, b"process 1234 (listeners other)\\n", 0)
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Path]:
    """A folder that another process uses."""
    folder = tmp_path / "other"
    folder.mkdir()
    with held(folder, 60):
        yield folder


class held:  # noqa: N801 - used as a function
    """Another process that has a folder for some seconds."""

    def __init__(self, folder: Path, seconds: float) -> None:
        command = [sys.executable, "-c", HOLD, str(folder / statedir.LOCK), str(seconds)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "held\n"

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


# --- what was asked for -----------------------------------------------------------------------------------------------


def test_the_command_line_counts_before_the_file_and_the_file_before_the_environment(tmp_path: Path) -> None:
    asked = config(more="state_dir: /from/file")
    env = {"REDISHA_STATE_DIR": "/from/env"}
    assert choose("/from/line", env, asked) == Choice(Path("/from/line"), said="--state-dir")
    assert choose(None, env, asked, "f.yaml") == Choice(Path("/from/file"), said="state_dir", file="f.yaml")
    assert choose(None, env, config()) == Choice(Path("/from/env"), said="REDISHA_STATE_DIR")
    assert choose(None, {"REDISHA_STATE_DIR": ""}, config()) == Choice()
    assert choose("relative", {}, config()).path == Path.cwd() / "relative"
    with pytest.raises(ConfigError, match=r"--state-dir: the folder must be an absolute path: nothing"):
        choose("", {}, config())


@pytest.mark.parametrize("word", ["memory", "none"])
def test_in_memory_on_purpose(word: str) -> None:
    for choice in (
        choose(word, {}, config()),
        choose(None, {}, config(more=f"state_dir: {word}")),
        choose(None, {"REDISHA_STATE_DIR": word}, config()),
    ):
        assert (choice.path, choice.in_memory) == (None, True)
        assert claim(choice, config(), {}).path is None
        assert claim(choice, config(), {}).warning == ""
        assert preview(choice, config(), {}).note == "in memory, as asked for"


def test_sidecars_on_one_machine_have_folders_of_their_own() -> None:
    names = {identity(config(*args)) for args in (("127.0.0.1:1", "a"), ("127.0.0.1:2", "a"), ("127.0.0.1:1", "b"))}
    assert len(names) == 3
    assert identity(config()) == identity(config(more="workers: 1"))
    assert all(len(name) == 16 for name in names)


# --- taking it --------------------------------------------------------------------------------------------------------


def test_the_default_is_made(system: Path) -> None:
    ours = claim(Choice(), config(), {})
    assert ours.path == system / identity(config())
    assert stat.S_IMODE(ours.path.stat().st_mode) == 0o700
    assert ours.warning == ""
    assert (ours.path / "lock").read_text() == f"process {os.getpid()} (listeners main)\n"
    with pytest.raises(TakenError, match=rf"is used by process {os.getpid()} \(listeners main\)"):
        claim(Choice(), config(), {})
    ours.release()
    ours.release()
    claim(Choice(), config(), {}).release()


def test_the_users_directory_is_next(system: Path, tmp_path: Path) -> None:
    system.parent.parent.mkdir()
    system.parent.touch()  # a file: nothing can be made below it
    for env, where in (
        ({"XDG_STATE_HOME": str(tmp_path / "xdg")}, tmp_path / "xdg" / "redisha"),
        ({"HOME": str(tmp_path)}, tmp_path / ".local" / "state" / "redisha"),
        ({"HOME": str(tmp_path), "XDG_STATE_HOME": "relative"}, tmp_path / ".local" / "state" / "redisha"),
    ):
        ours = claim(Choice(), config(), env)
        assert ours.path == where / identity(config())
        assert preview(Choice(), config(), env).path == ours.path
        ours.release()


@pytest.mark.parametrize("env", [{}, {"HOME": ""}, {"HOME": "/dev/null"}])
def test_without_any_it_is_memory_with_a_warning(system: Path, env: dict[str, str]) -> None:
    system.parent.parent.mkdir()
    system.parent.touch()
    ours = claim(Choice(), config(), env)
    assert ours.path is None
    assert f"{system / identity(config())} is not a folder" in ours.warning
    assert "set state_dir to a folder, or to memory if that is fine" in ours.warning
    shown = preview(Choice(), config(), env)
    assert (shown.path, shown.ok) == (None, False)
    assert "remembered in memory only" in shown.note


def test_what_was_asked_for_is_made_with_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    assert preview(Choice(path), config(), {}) == statedir.Preview(path)
    assert not path.exists()
    assert claim(Choice(path), config(), {}).path == path


def _no_folder(root: Path) -> Path:
    (root / "file").touch()
    return root / "file"


def _below_a_file(root: Path) -> Path:
    return _no_folder(root) / "below"


def _in_proc(root: Path) -> Path:
    return Path("/proc/redisha")


@pytest.mark.parametrize(
    ("make", "message"),
    [(_no_folder, "file is not a folder"), (_below_a_file, "is not a folder"), (_in_proc, "cannot be used: ")],
)
def test_what_was_asked_for_and_cannot_be_used_is_an_error(tmp_path: Path, make: object, message: str) -> None:
    path = make(tmp_path)  # type: ignore[operator]
    with pytest.raises(ConfigError, match=message) as caught:
        claim(Choice(path, said="state_dir", file="f.yaml"), config(), {})
    assert str(caught.value).startswith("f.yaml: state_dir: ")
    assert str(path) in str(caught.value)
    with pytest.raises(ConfigError, match=r"^redisha run: --state-dir: "):
        claim(Choice(path, said="--state-dir"), config(), {})


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.EACCES, "give this user the right to write there"),
        (errno.EROFS, "mount a volume there that can be written"),
        (errno.ENOSPC, "make room on that disk"),
        (errno.EIO, "name another folder; or write memory"),
    ],
)
def test_each_reason_has_its_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, hint: str) -> None:
    def refuse(*args: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ConfigError, match=hint) as caught:
        claim(Choice(tmp_path, said="state_dir", file="f.yaml"), config(), {})
    assert os.strerror(number) in str(caught.value)


def test_a_disk_that_is_full_does_not_keep_the_lock_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", refuse)
    ours = claim(Choice(tmp_path), config(), {})
    with pytest.raises(TakenError, match="is used by another process"):
        claim(Choice(tmp_path), config(), {})
    ours.release()


async def test_a_folder_of_another_process_is_an_error_that_names_it(other: Path) -> None:
    choice = Choice(other, said="state_dir", file="f.yaml")
    assert preview(choice, config(), {}).note == "used by process 1234 (listeners other) now"
    with pytest.raises(ConfigError) as caught:
        await acquire(choice, config(), {}, patience=0.2)
    assert str(caught.value) == (
        f"f.yaml: state_dir: the folder {other} is used by process 1234 (listeners other) "
        "(end that process, or give each sidecar a folder of its own (state_dir in its file, or --state-dir))"
    )


async def test_a_default_of_another_process_is_memory_with_a_warning(system: Path) -> None:
    folder = system / identity(config())
    folder.mkdir(parents=True)
    with held(folder, 60):
        ours = await acquire(Choice(), config(), {}, patience=0.2)
    assert ours.path is None
    assert "is used by process 1234 (listeners other)" in ours.warning


async def test_one_that_is_about_to_end_is_waited_for(tmp_path: Path) -> None:
    with held(tmp_path, 0.5):
        started = time.monotonic()
        ours = await acquire(Choice(tmp_path), config(), {}, patience=10)
        assert ours.path == tmp_path
        assert time.monotonic() - started < 5
    ours.release()


def test_a_process_that_was_killed_leaves_the_folder(tmp_path: Path) -> None:
    with held(tmp_path, 60):
        pass
    claim(Choice(tmp_path), config(), {}).release()


def is_there(path: Path) -> bool:
    return path.exists()


# --- the folder of a process ------------------------------------------------------------------------------------------


async def test_nothing_is_made_for_a_sidecar_without_mirrors(system: Path, tmp_path: Path) -> None:
    state = StateDir(None, {})
    await state.take(config(mirrors="[]"), "f.yaml")
    assert (state.path, str(state)) == (None, "memory")
    assert not is_there(system)
    await state.take(config(), "f.yaml")  # a reload brought one
    assert state.path == str(system / identity(config()))
    state.close()
    explicit = StateDir(str(tmp_path / "x"), {})
    await explicit.take(config(mirrors="[]"), "f.yaml")
    assert is_there(tmp_path / "x")
    explicit.close()


def note_a_map(folder: str) -> None:
    """As the data plane does for a mirror."""
    Path(folder, "0123456789abcdef.map").touch()


async def test_a_sidecar_that_had_mirrors_takes_its_folder_to_forget_their_maps(system: Path) -> None:
    """A mirror that comes back later lacks what is written meanwhile: its map must not be believed then."""
    before = StateDir(None, {})
    await before.take(config(), "f.yaml")
    assert before.path is not None
    note_a_map(before.path)
    before.close()
    without = StateDir(None, {})
    await without.take(config(mirrors="[]"), "f.yaml")
    assert without.path == before.path
    without.close()


async def test_it_stays_the_same_until_the_end(system: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = StateDir(None, {})
    await state.take(config(), "f.yaml")
    await state.take(config("127.0.0.1:7777"), "f.yaml")
    assert "next start" not in caplog.text
    await state.take(config(more=f"state_dir: {tmp_path / 'elsewhere'}"), "f.yaml")
    assert f"the state directory changes with the next start; it stays {state.path}" in caplog.text
    assert not is_there(tmp_path / "elsewhere")
    state.close()


async def test_the_warning_is_told_once(
    system: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(statedir, "claim", lambda *_: Claim(None, "in memory, alas"))
    state = StateDir(None, {})
    for _ in range(3):
        await state.take(config(), "f.yaml")
        await asyncio.sleep(0)
    assert caplog.text.count("in memory, alas") == 1
