"""What a member must not forget of elections: :mod:`redisha.group.ballot`."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redisha.group.ballot import ASIDE, FILE, BallotBox, BallotError
from redisha.group.view import BallotState, Recorded

STATE = BallotState(term=7, voted_for="b", trusted=True, founded=True, recorded=Recorded(6, 3, ("a", "b")))

names = st.text(min_size=1, max_size=20)
states = st.builds(
    BallotState,
    term=st.integers(0, 1 << 40),
    voted_for=st.text(max_size=20),
    trusted=st.booleans(),
    founded=st.booleans(),
    recorded=st.none() | st.builds(Recorded, st.integers(0, 9), st.integers(0, 9), st.lists(names).map(tuple)),
)


def box(folder: Path | None, group: str = "cache", member: str = "a") -> BallotBox:
    return BallotBox(folder, group, member)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(states)
def test_what_was_saved_is_found(tmp_path: Path, state: BallotState) -> None:
    first = box(tmp_path)
    first.save(state)
    assert first.state == state
    found = box(tmp_path)
    assert (found.state, found.warning) == (state, "")
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_without_a_file_it_is_fresh(tmp_path: Path) -> None:
    assert box(tmp_path).state == box(None).state == BallotState(fresh=True)


def test_in_memory_it_is_forgotten(tmp_path: Path) -> None:
    memory = box(None)
    memory.save(STATE)
    assert memory.state == STATE
    assert box(None).state == BallotState(fresh=True)


def test_it_is_on_disk_when_save_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, os.replace

    def spy_fsync(fd: int) -> None:
        done.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{fd}')).name}")
        fsync(fd)

    def spy_replace(old: Path, new: Path) -> None:
        done.append(f"rename {old.name} {new.name}")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    box(tmp_path).save(STATE)
    assert done == [f"fsync {FILE}.new", f"rename {FILE}.new {FILE}", f"fsync {tmp_path.name}"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_is_full_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    kept = box(tmp_path)
    kept.save(STATE)

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        with pytest.raises(BallotError, match="cannot be written: No space left on device; no vote is given"):
            kept.save(replace(STATE, term=8))
    assert kept.state == STATE
    assert box(tmp_path).state == STATE


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(BallotError, match="cannot be written: No such file"):
        box(tmp_path / "gone").save(STATE)


def test_a_file_that_cannot_be_read_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(BallotError, match="cannot be read: Is a directory; give this user"):
        box(tmp_path)


def test_a_torn_file_is_kept_aside_and_never_trusted(tmp_path: Path) -> None:
    whole = box(tmp_path)
    whole.save(STATE)
    content = (tmp_path / FILE).read_bytes()
    for length in range(len(content) - 2):
        (tmp_path / FILE).write_bytes(content[:length])
        torn = box(tmp_path)
        assert torn.state == BallotState()
        assert "is torn or no ballot; it is now" in torn.warning
        assert (tmp_path / (FILE + ASIDE)).read_bytes() == content[:length]
        again = box(tmp_path)
        assert (again.state, again.warning) == (BallotState(), "")


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("group", "other", "is of member a of group other"),
        ("member", "b", "is of member b of group cache"),
        ("v", 2, "is of version 2, and this redisha knows 1"),
        ("term", -1, "is torn"),
        ("term", True, "is torn"),
        ("term", "7", "is torn"),
        ("voted_for", None, "is torn"),
        ("recorded", [1, 2], "is torn"),
        ("recorded", [1, 2, [3]], "is torn"),
    ],
)
def test_what_is_not_this_members_is_kept_aside(tmp_path: Path, field: str, value: object, says: str) -> None:
    box(tmp_path).save(STATE)
    raw = json.loads((tmp_path / FILE).read_text()) | {field: value}
    (tmp_path / FILE).write_text(json.dumps(raw))
    other = box(tmp_path)
    assert says in other.warning
    assert not other.state.trusted
    assert not other.state.fresh
    assert json.loads((tmp_path / (FILE + ASIDE)).read_text()) == raw


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"7", b'"text"', b"\xff\xfe", b"{" * 2000])
def test_anything_else_is_no_ballot(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    assert not box(tmp_path).state.trusted
