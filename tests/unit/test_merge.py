"""Two members led at once: which write wins, what is kept of the loser, and who is told: ``redisha.group.merge``."""

import asyncio
import base64
import errno
import json
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisha.background import Job, Stopped
from redisha.core import DataPlane, Event, EventKind, bucket
from redisha.group import conflicts as conflicts_file
from redisha.group import payloads
from redisha.group.conflicts import NAME, Conflict, Conflicts, ConflictsError
from redisha.group.later import Fate, Journal, Known, Marks, Reason, Value, Verdict
from redisha.group.merge import MergeReport, Merges, MergeStats
from redisha.group.values import Pair, is_same

KEY = (0, b"k")
NOW = 1_000


# --- which write wins -------------------------------------------------------------------------------------------------


def journal(at: int | None = None, everything: int = 0, *, trusted: bool = True, complete: bool = True) -> Journal:
    return Journal(trusted, everything, {0: {b"k": at}} if at is not None else {}, complete)


def marks(*keys: tuple[int, bytes], everything: bool = False) -> Marks:
    bits = bytearray(128 << 10)
    for key in keys:
        bits[bucket(*key) // 8] |= 1 << bucket(*key) % 8
    return Marks(everything, False, bytes(bits), bucket)


def judge(ours: Journal, theirs: Journal, *, ours_there: bool = True, theirs_there: bool = True) -> Verdict:
    return Known(ours, theirs, None, NOW).judge(KEY, ours_there, theirs_there)


LEFT = Verdict(Fate.LEFT)
LOST = Verdict(Fate.LOST, reason=Reason.LATER_WRITE)


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        (5, 7, Verdict(Fate.TAKEN, 7, Reason.LATER_WRITE)),
        (7, 5, LOST),
        (7, 7, LOST),
        (None, 7, Verdict(Fate.TAKEN, 7)),
        (7, None, LEFT),
        (None, None, Verdict(Fate.TAKEN, 1)),
        # A clock that is ahead: what it wrote, it wrote before the merge began.
        (5, NOW + 500, Verdict(Fate.TAKEN, NOW, Reason.LATER_WRITE)),
        (NOW + 1, NOW + 500, LOST),
    ],
)
def test_the_later_of_two_noted_writes_wins(ours: int | None, theirs: int | None, verdict: Verdict) -> None:
    assert judge(journal(ours), journal(theirs)) == verdict


def test_a_deletion_wins_like_any_write_and_has_no_value_to_lose() -> None:
    assert judge(journal(5), journal(7), theirs_there=False) == Verdict(Fate.TAKEN, 7, Reason.DELETED)
    assert judge(journal(None), journal(7), theirs_there=False) == Verdict(Fate.TAKEN, 7)
    assert judge(journal(7), journal(5), theirs_there=False) == LEFT
    assert judge(journal(7), journal(5), ours_there=False) == Verdict(Fate.LOST, reason=Reason.DELETED)


def test_a_write_to_all_keys_counts_for_each() -> None:
    assert judge(journal(5), journal(None, 7)) == Verdict(Fate.TAKEN, 7, Reason.LATER_WRITE)
    assert judge(journal(5), journal(3, 7)) == Verdict(Fate.TAKEN, 7, Reason.LATER_WRITE)
    assert judge(journal(None, 9), journal(7)) == LOST


def test_without_a_time_theirs_wins_only_against_what_ours_did_not_write() -> None:
    lame = journal(complete=False)
    assert judge(journal(None), lame) == Verdict(Fate.TAKEN, 1)
    assert judge(journal(5), lame) == LOST
    assert judge(journal(5), lame, ours_there=False) == Verdict(Fate.LOST, reason=Reason.DELETED)
    # It may have been evicted.
    assert judge(journal(None), lame, theirs_there=False) == LEFT
    assert judge(journal(None), journal(None), theirs_there=False) == LEFT


def test_a_redis_that_was_started_since_changes_nothing() -> None:
    for theirs in (journal(7, trusted=False), journal(None, trusted=False)):
        assert judge(journal(5), theirs) == Verdict(Fate.LOST, reason=Reason.UNPROVEN)
        assert judge(journal(5), theirs, theirs_there=False) == LEFT


def test_what_ours_has_from_a_third_member_is_not_lost_silently() -> None:
    def judged(theirs: Journal, there: bool = True) -> Verdict:
        return Known(journal(None), theirs, marks(KEY), NOW).judge(KEY, True, there)

    assert judged(journal(7)) == Verdict(Fate.TAKEN, 7, Reason.LATER_WRITE)
    assert judged(journal(7), there=False) == Verdict(Fate.TAKEN, 7, Reason.DELETED)
    assert judged(journal(None)) == LEFT
    assert judged(journal(None, complete=False)) == Verdict(Fate.LOST, reason=Reason.UNPROVEN)
    others = Known(journal(None), journal(None, complete=False), marks((0, b"other")), NOW)
    assert others.judge(KEY, True, True) == Verdict(Fate.TAKEN, 1)


@given(st.integers(0, 15), st.binary(max_size=40))
def test_a_key_is_found_by_its_bucket(db: int, name: bytes) -> None:
    found = marks((db, name))
    assert found.has(db, name)
    assert not found.empty
    assert marks(everything=True).has(db, name)
    assert not marks().has(db, name)


def test_marks_may_be_of_nothing_or_of_everything() -> None:
    assert marks().empty
    assert not marks(everything=True).empty
    assert Marks(True, True, b"", bucket).has(3, b"any")


# --- when two values are the same -------------------------------------------------------------------------------------

END = b"\x0a\x00" + bytes(8)


def text(data: bytes) -> bytes:
    head = bytes([len(data)]) if len(data) < 64 else bytes([0x40 | len(data) >> 8, len(data) & 255])
    return head + data


def lzf(data: bytes) -> bytes:
    """Compressed as far as the runs of the first byte go; nothing else is."""
    run = len(data) - len(data.lstrip(data[:1]))
    assert 4 <= run <= 9
    packed = b"\x00" + data[:1] + bytes([(run - 3) << 5, 0])
    for at in range(run, len(data), 32):
        part = data[at : at + 32]
        packed += bytes([len(part) - 1]) + part
    return b"\xc3" + text(packed)[: len(text(packed)) - len(packed)] + text(data)[: -len(data)] + packed


def value(payload: bytes, expires: int = 0) -> Value:
    return Value(payload, expires, len(payload), payloads.kind_of(payload))


def same(ours: Value | None, theirs: Value | None) -> bool | None:
    return is_same(Pair(b"k", ours, theirs), True, NOW)


@pytest.mark.parametrize(
    ("a", "b", "differ"),
    [
        (b"\0" + text(b"one"), b"\0" + text(b"two"), True),
        (b"\0" + text(b"one"), b"\0\xc0\x01", True),
        (b"\0" + lzf(b"aaaaaone"), b"\0" + lzf(b"aaaaatwo"), True),
        (b"\0" + lzf(b"aaaaaone"), b"\0" + text(b"aaaaaone"), False),
        (b"\0" + lzf(b"aaaaaone"), b"\0" + text(b"aaaaatwo"), True),
        (b"\0" + text(b"HYLL" + bytes(12)), b"\0" + text(b"HYLL" + b"x" * 12), False),
        (b"\0" + text(b"one"), b"\x02\x01" + text(b"one"), True),  # a string and a set
        (b"\x0b" + text(b"ab"), b"\x14" + text(b"ab"), False),  # two forms of a set
        (b"\x10" + text(b"header-ab-cd"), b"\x10" + text(b"header-cd-ab"), False),  # a hash in another order
        (b"\x10" + text(b"header-ab-cd"), b"\x10" + text(b"header-cd-ax"), True),
        (b"\x11" + text(b"header-ab-cd"), b"\x11" + text(b"header-cd-ab"), True),  # a sorted set
        (
            b"\x12\x01\x02" + text(b"headerabcd\xff"),
            b"\x12\x02\x02" + text(b"otherha\xff\x02").replace(b"\x02", b""),
            False,
        ),
        (
            b"\x12\x01\x02" + text(b"headerabcd\xff"),
            b"\x12\x02\x02" + text(b"headerab\xff") + b"\x02" + text(b"headercd\xff"),
            False,
        ),
        (
            b"\x12\x01\x02" + text(b"headerabcd\xff"),
            b"\x12\x02\x02" + text(b"headerab\xff") + b"\x02" + text(b"headerxy\xff"),
            True,
        ),
        (b"\x12\x01\x01" + text(b"plain"), b"\x12\x01\x01" + text(b"other"), False),
        (b"\x0f" + text(b"stream"), b"\x0f" + text(b"other"), False),
        (b"\xff" + text(b"?"), b"\x00" + text(b"?"), False),
        (b"\0", b"\0\xc3", False),
    ],
)
def test_payloads_that_are_surely_of_different_values(a: bytes, b: bytes, differ: bool) -> None:
    assert payloads.differ(a + END, b + END) is differ
    assert payloads.differ(b + END, a + END) is differ
    assert same(value(a + END), value(b + END)) is (False if differ else None)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_garbage_is_no_proof(a: bytes, b: bytes) -> None:
    payloads.differ(a, b)
    assert not payloads.differ(a, a)


def test_the_expiry_is_part_of_a_value() -> None:
    one = b"\0" + text(b"one") + END
    assert same(value(one), value(one)) is True
    assert same(value(one, 5), value(one, 5)) is True
    assert same(value(one, 5), value(one)) is False
    assert same(value(one), value(one[:-1] + b"x")) is True  # only the checksum


def test_a_key_that_just_expires_is_no_difference() -> None:
    one = b"\0" + text(b"one") + END
    assert same(None, None) is True
    assert same(value(one, NOW), None) is True
    assert same(None, value(one, NOW - 1)) is True
    assert same(value(one, NOW + 1), None) is False
    assert same(None, value(one)) is False


# --- the file ---------------------------------------------------------------------------------------------------------


def conflict(name: bytes = b"k", payload: bytes | None = b"\0\x01x" + END, **fields: Any) -> Conflict:
    size = len(payload) if payload is not None else 77
    return Conflict(
        "cache", "b", "a", Reason.LATER_WRITE, (0, name), Value(payload, 5, size, "string"), 1_700_000_000_123, **fields
    )


def lines(folder: Path, name: str = NAME) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_a_line_says_all_that_is_needed_to_have_the_value_back(tmp_path: Path) -> None:
    kept = Conflicts(tmp_path)
    assert kept.add("a", [conflict()]) == 1
    [line] = lines(tmp_path)
    assert line.pop("time").endswith("Z")
    assert line == {
        "group": "cache",
        "db": 0,
        "key": "k",
        "key_encoding": "utf-8",
        "winner": "b",
        "loser": "a",
        "written": "2023-11-14T22:13:20.123Z",
        "reason": "later_write",
        "type": "string",
        "expires_ms": 5,
        "size": 13,
        "value": base64.b64encode(b"\0\x01x" + END).decode(),
    }
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600


def test_names_values_and_libraries_of_all_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conflicts_file, "VALUE_MOST", 13)
    library = Conflict("cache", "b", "a", Reason.NOT_APPLIED, library=(b"mine", b"#!lua \xff"))
    kept = Conflicts(tmp_path)
    kept.add("a", [conflict(b"\xff\n"), conflict(payload=None), conflict(b"long", b"\0\x02xx" + END), library])
    first, unread, long, code = lines(tmp_path)
    assert (first["key"], first["key_encoding"]) == (base64.b64encode(b"\xff\n").decode(), "base64")
    assert (unread["size"], unread["value"]) == (77, None)
    assert (long["size"], long["value"]) == (14, None)
    assert (code["library"], code["code"], code["reason"], code["written"]) == (
        "mine",
        "#!lua \\xff",
        "not_applied",
        None,
    )
    assert "key" not in code


def test_a_merge_that_is_repeated_tells_nothing_twice(tmp_path: Path) -> None:
    kept = Conflicts(tmp_path)
    assert kept.add("a", []) == 0
    assert not (tmp_path / NAME).exists()
    assert kept.add("a", [conflict(b"1"), conflict(b"1"), conflict(b"2")]) == 2
    assert kept.add("a", [conflict(b"2"), conflict(b"3")]) == 1
    assert kept.add("c", [conflict(b"2")]) == 1
    kept.end("a")
    kept.end("nobody")
    assert kept.add("a", [conflict(b"2")]) == 1
    assert [line["key"] for line in lines(tmp_path)] == ["1", "2", "3", "2", "2"]
    assert kept.total == 5


def test_half_a_line_of_a_process_that_died_spoils_no_other(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b'{"time": "20')
    Conflicts(tmp_path).add("a", [conflict()])
    torn, whole = (tmp_path / NAME).read_text().splitlines()
    assert torn == '{"time": "20'
    assert json.loads(whole)["key"] == "k"


def test_the_file_does_not_grow_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(conflicts_file, "FILE_MOST", 600)
    kept = Conflicts(tmp_path)
    for number in range(6):
        kept.add("a", [conflict(b"%d" % number)])
        assert "are gone" not in caplog.text or number >= 4
    assert [line["key"] for line in lines(tmp_path)] == ["4", "5"]
    assert [line["key"] for line in lines(tmp_path, f"{NAME}.1")] == ["2", "3"]
    assert "the older conflicts in" in caplog.text


def test_a_full_disk_leaves_whole_lines_and_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Conflicts(tmp_path)
    kept.add("a", [conflict(b"1")])
    write = os.write

    def half(fd: int, data: bytes) -> int:
        if write(fd, data[:10]):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return 0

    monkeypatch.setattr(conflicts_file.os, "write", half)
    with pytest.raises(
        ConflictsError, match=r"conflicts.jsonl cannot be written: No space left on device; the merge wa"
    ):
        kept.add("a", [conflict(b"2")])
    monkeypatch.setattr(conflicts_file.os, "write", lambda fd, data: write(fd, data[:7]))
    assert kept.add("a", [conflict(b"2")]) == 1
    assert [line["key"] for line in lines(tmp_path)] == ["1", "2"]
    with pytest.raises(ConflictsError, match="No such file or directory"):
        Conflicts(tmp_path / "missing").add("a", [conflict()])


def test_without_a_folder_conflicts_are_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(conflicts_file, "LOGGED_MOST", 2)
    kept = Conflicts(None)
    assert kept.path is None
    assert kept.add("a", [conflict(b"%d" % number) for number in range(2)]) == 2
    assert kept.add("a", [conflict(b"%d" % number) for number in range(5)]) == 3
    texts = [record.message for record in caplog.records]
    assert len(texts) == 3
    assert texts[0].startswith('conflict: {"group": "cache", "db": 0, "key": "0"')
    assert "value" not in texts[0]
    assert texts[2] == "more conflicts are not logged; with a state_dir each is kept with its value"


# --- who is told ------------------------------------------------------------------------------------------------------

PEER = "redis-001:8101"


class Core:
    """A core of a group of members, this one first."""

    def __init__(self) -> None:
        self.told: list[tuple[str, bool]] = []
        self.members = {PEER: "a"}
        self.ended = False

    def group(self) -> str:
        status = {"term": 2, "leader": "b", "role": "leader", "data": "complete", "set": "", "generation": 0}
        status |= {"sequence": 0, "in_sync": True, "journal": 0}
        peer = {"up": True, "silent_ms": 0, "reason": "", "caught_up": False, "sealed": True, "replica": ""}
        peer |= {"lag": 0, "lag_bytes": 0, "skew_ms": 0}
        peers = [
            peer | {"id": each, "status": status | {"member": name}, "lag_ms": 0, "counted": False}
            for each, name in self.members.items()
        ]
        return json.dumps(
            {"name": "cache", "me": status | {"member": "b"}, "peers": peers, "yielding": False, "lost": False}
        )

    def listeners(self) -> list[tuple[str, str]]:
        return [("clients", "0.0.0.0:6380"), ("cache peers", "0.0.0.0:8101")]

    def stats(self) -> bytes:
        return json.dumps(
            {"endpoints": [{"cluster": f"cache~{PEER}", "id": PEER, "address": "10.0.0.1:8101"}]}
        ).encode()

    def merged(self, peer: str, ok: bool) -> None:
        self.told.append((peer, ok))
        if self.ended:
            raise RuntimeError("the data plane is not running")


class Setup:
    """Merges with work of the test's own."""

    def __init__(self) -> None:
        self.core = Core()
        self.asked: list[tuple[Any, ...]] = []
        self.work: Callable[[Job], None] = lambda job: None
        self.conflicts = Conflicts(None)
        self.merges = Merges(DataPlane(self.core), lambda: "s", self.conflicts, self._work)  # type: ignore[arg-type]

    def _work(self, *args: Any, others: bool) -> MergeReport:
        *names, _, job = args
        self.asked.append((*names, others))
        self.work(job)
        return MergeReport(10, 5, 3, 2, 0.5)

    def event(self, peer: str = PEER) -> None:
        self.merges.on_merge(Event(EventKind.MERGE, peer, "cache"))

    async def rest(self) -> MergeStats:
        runs = [run.task for run in self.merges._runs.values()]
        async with asyncio.timeout(5):
            await asyncio.gather(*(task for task in runs if task is not None))
        return self.merges.stats


@pytest.fixture
def setup(caplog: pytest.LogCaptureFixture) -> Setup:
    caplog.set_level(logging.INFO)
    return Setup()


async def test_a_merge_is_told_to_the_data_plane_and_counted(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    setup.event()
    assert setup.merges.stats.running == (PEER,)
    stats = await setup.rest()
    assert setup.asked == [("0.0.0.0:8101", "10.0.0.1:8101", "cache", "b", "s", "a", False)]
    assert setup.core.told == [(PEER, True)]
    assert stats == MergeStats(runs_total=1, keys_total=10, applied_total=3, last_seconds=0.5)
    assert (
        f"merged what {PEER} wrote while it led: 10 keys looked at, 3 taken over, 2 values lost, 0.5 s" in caplog.text
    )


async def test_further_members_are_minded(setup: Setup) -> None:
    setup.core.members |= {"redis-002:8101": "b", "redis-003:8101": ""}  # itself, and one nobody has heard of
    setup.event()
    await setup.rest()
    assert setup.asked[0][-1] is True


async def test_a_failure_is_told_and_tried_again_when_asked(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    def work(job: Job) -> None:
        if len(setup.asked) < 3:
            raise OSError("no route")

    setup.work = work
    for number in (1, 2):
        setup.event()
        stats = await setup.rest()
        assert (stats.failures_total, stats.last_error) == (number, "no route")
    setup.event()
    stats = await setup.rest()
    assert setup.core.told == [(PEER, False), (PEER, False), (PEER, True)]
    assert (stats.runs_total, stats.failures_total, stats.last_error) == (3, 2, "")
    assert caplog.text.count("could not be merged, trying again: no route") == 1
    assert caplog.text.count("what it wrote is being merged") == 1


async def test_another_leadership_ends_the_merge_of_the_one_before(setup: Setup) -> None:
    begun = threading.Event()

    def work(job: Job) -> None:
        begun.set()
        assert job._stop.wait(5)

    setup.work = work
    setup.event()
    await asyncio.to_thread(begun.wait, 5)
    setup.event()
    stats = await setup.rest()
    # It may even have come to its end: for the leadership that is now it counts for nothing.
    assert len(setup.asked) == 1
    assert setup.core.told == [(PEER, False)]
    assert (stats.failures_total, stats.keys_total) == (0, 0)


async def test_a_stopped_merge_is_no_failure(setup: Setup) -> None:
    def work(job: Job) -> None:
        raise Stopped

    setup.work = work
    setup.event()
    stats = await setup.rest()
    assert setup.core.told == [(PEER, False)]
    assert (stats.failures_total, stats.last_error) == (0, "")


@pytest.mark.parametrize("peer", ["redis-009:8101", "redis-004:8101"])
async def test_a_member_that_is_not_known_is_not_merged(setup: Setup, peer: str) -> None:
    setup.core.members["redis-004:8101"] = "d"  # in the group, but its address is not known
    setup.event(peer)
    stats = await setup.rest()
    assert setup.core.told == [(peer, False)]
    assert peer in stats.last_error
    assert setup.asked == []


async def test_two_members_are_merged_side_by_side(setup: Setup) -> None:
    both = threading.Barrier(2, timeout=5)
    setup.work = lambda job: (both.wait(), None)[1]
    setup.core.members["redis-003:8101"] = "c"
    stats = json.loads(setup.core.stats())
    stats["endpoints"].append({"cluster": "cache~redis-003:8101", "id": "", "address": "10.0.0.3:8101"})
    setup.core.stats = lambda: json.dumps(stats).encode()  # type: ignore[method-assign]
    setup.event()
    setup.event("redis-003:8101")
    await setup.rest()
    assert sorted(setup.core.told) == [(PEER, True), ("redis-003:8101", True)]


async def test_closing_ends_what_runs(setup: Setup) -> None:
    ended = threading.Event()

    def work(job: Job) -> None:
        assert job._stop.wait(5)
        ended.set()

    setup.work = work
    setup.event()
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await setup.merges.close()
        await asyncio.to_thread(ended.wait, 5)
    assert setup.core.told == []


async def test_a_data_plane_that_has_ended_needs_no_word(setup: Setup) -> None:
    setup.core.ended = True
    setup.event()
    await setup.rest()
    assert setup.core.told == [(PEER, True)]
