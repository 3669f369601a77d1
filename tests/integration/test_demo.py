"""``redisha demo``: does what it says, and leaves nothing behind however it ends."""

import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from redisha.config.load import parse
from redisha.demo import benchmark, files, group_tour, tour
from redisha.demo.children import DemoError
from redisha.demo.compare import Content, Place, Sync, judge
from redisha.demo.contest import Contest, Told
from redisha.demo.report import Report
from redisha.demo.results import Results
from support import wait

DEMO = (sys.executable, "-m", "redisha", "demo", "--quick")
ENVOY = (*DEMO, "--envoy")
PARTS = {DEMO: group_tour.PARTS, ENVOY: tour.PARTS}


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """The folder for temporary files that the demo is given."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    return folder


def environment(scratch: Path, **more: str) -> dict[str, str]:
    return os.environ | {"TMPDIR": str(scratch)} | more


def left_behind(scratch: Path) -> list[str]:
    """Files in the folder, and processes that work in it or were started with a file of it."""
    found = [str(path) for path in scratch.iterdir()]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            folder = os.readlink(process / "cwd")
        except OSError:
            continue
        if str(scratch) in command or folder.startswith(str(scratch)):
            found.append(f"{process.name}: {command}")
    return found


class Terminal:
    """The demo on a terminal."""

    def __init__(self, scratch: Path, demo: tuple[str, ...]) -> None:
        self.fd, theirs = pty.openpty()
        self.process = subprocess.Popen(
            demo,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment(scratch, TERM="xterm"),
            start_new_session=True,
            preexec_fn=self._take,
        )
        os.close(theirs)
        self.seen = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @staticmethod
    def _take() -> None:
        """Make the terminal the session's, so that its Ctrl-C is a signal."""
        os.close(os.open(os.ttyname(0), os.O_RDWR))

    def _read(self) -> None:
        try:
            while data := os.read(self.fd, 65536):
                self.seen += data
        except OSError:
            pass  # the other end is closed

    def type(self, data: bytes) -> None:
        os.write(self.fd, data)

    def wait_for(self, text: bytes) -> None:
        def shown() -> bool:
            assert self.process.poll() is None or text in self.seen, self.seen.decode(errors="replace")[-2_000:]
            return text in self.seen

        wait.until(shown, f"{text!r} is shown", 40)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(10)
        os.close(self.fd)


@pytest.fixture
def terminal(scratch: Path, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    """The demo, just started on a terminal."""
    started = Terminal(scratch, getattr(request, "param", DEMO))
    yield started
    started.close()


both = pytest.mark.parametrize("terminal", [DEMO, ENVOY], indirect=True, ids=["group", "envoy"])


def run_through(demo: tuple[str, ...], scratch: Path) -> str:
    """What a demo prints that runs through without a terminal."""
    done = subprocess.run(
        demo,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(scratch),
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for part in range(1, PARTS[demo] + 1):
        assert f"[{part}/{PARTS[demo]}]" in done.stdout
    assert "Sync 100 %" in done.stdout
    for command in ("SET", "GET", "LPUSH", "LPOP"):
        assert f"\n  {command} " in done.stdout, "the benchmark's table"
    assert "\x1b" not in done.stdout, "no colours, no live display"
    assert left_behind(scratch) == []
    return done.stdout


@pytest.mark.slow
def test_of_a_group_all_parts_are_shown_and_it_ends(scratch: Path) -> None:
    shown = run_through(DEMO, scratch)
    assert re.search(r"\n  redis-00[12] leads, redis-00[12] follows and is in sync\n", shown)
    verdicts = re.findall(r"([\d,]+) numbers handed out, (\d+) of them twice; .* popped, (\d+) of them twice", shown)
    assert len(verdicts) == 4
    assert all(numbers != "0" and twice == popped == "0" for numbers, twice, popped in verdicts)
    for what in ("both sides write", "the leader's Redis killed", "leadership handed over", "redis-benchmark"):
        assert re.search(rf"^  {what} +[\d,]+ +[\d,]+ +0 +[\d,]+ +100 %$", shown, re.MULTILINE), "no error at all"
    assert re.search(r"^  the leader's sidecar killed .* 100 %$", shown, re.MULTILINE)
    assert re.search(r"errors of the side that was killed \(redis-00[12]\): .*connection lost [1-9]", shown)
    assert len(set(re.findall(r"group     cache: (redis-00[12]) leads, term", shown))) == 2, "both have led"
    assert re.search(r"redis-00[12] leads now, term \d+\n", shown)
    assert "equal: " in shown, "redisha verify's own words"


@pytest.mark.slow
def test_of_mirrors_all_parts_are_shown_and_it_ends(scratch: Path) -> None:
    shown = run_through(ENVOY, scratch)
    assert "departments… on its copy" in shown
    assert "its states: " in shown
    assert "healed: buckets: " in shown
    assert "healed: full: " in shown
    assert " keys copied from the mirror in " in shown
    for killed in ("mirror killed, back with its data", "mirror killed, back empty", "primary killed, back empty"):
        assert f"{killed}: errors " in shown
        assert re.search(rf"^  {killed} .* 100 %$", shown, re.MULTILINE), "the Sync column"


@pytest.mark.slow
@both
def test_on_a_terminal_it_stays_until_ctrl_c(scratch: Path, terminal: Terminal) -> None:
    terminal.wait_for(b"Ctrl-C ends it.")
    assert left_behind(scratch), "it is still there to play with"
    states = list(scratch.glob("*/sidecar-*/state/*.map"))
    assert len({state.parent for state in states}) >= 2, "their state is in the demo's folder"
    terminal.type(b"\x03")
    assert terminal.process.wait(20) == 0
    assert left_behind(scratch) == []


@both
def test_ctrl_c_in_the_midst(scratch: Path, terminal: Terminal) -> None:
    terminal.wait_for(b"[3/")
    terminal.type(b"\x03")
    assert terminal.process.wait(20) == 128 + signal.SIGINT
    assert left_behind(scratch) == []


def test_killed_it_leaves_no_process(scratch: Path, terminal: Terminal) -> None:
    """Nobody can clean up after SIGKILL but the kernel; the folder stays."""
    terminal.wait_for(b"[2/")
    terminal.process.kill()
    wait.until(lambda: all(path.startswith("/") for path in left_behind(scratch)), "no process is left")


def test_without_redis_server_it_says_how_to_install_it(scratch: Path) -> None:
    done = subprocess.run(
        DEMO, capture_output=True, text=True, env=environment(scratch, PATH=str(scratch)), timeout=20, check=False
    )
    assert done.returncode == 1
    assert "'redis-server' is not on the PATH" in done.stderr
    assert "install" in done.stderr
    assert done.stdout == ""
    assert left_behind(scratch) == []


def test_sync_is_100_percent_only_when_all_is_equal() -> None:
    many: dict[Place, Content] = {(0, b"%d" % number): ("string", b"v", -1) for number in range(100_000)}
    assert judge(many, dict(many)).percent == "100 %"
    assert judge({}, {}).percent == "100 %"
    assert judge(many, many | {(0, b"7"): ("string", b"w", -1)}).percent == "99.99 %"
    assert judge(many, {place: many[place] for place in list(many)[:50_000]}).percent == "50.00 %"


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({}, "nothing"),
        ({(1, b"k"): ("string", b"w", -1)}, "b'w'"),
        ({(1, b"k"): ("list", [b"v"], -1)}, "list"),
        ({(1, b"k"): ("string", b"v", 1_795_344_908_259)}, "1795344908259"),
    ],
)
def test_a_difference_is_told(other: dict[Place, Content], said: str) -> None:
    found = judge({(1, b"k"): ("string", b"v", -1)}, other)
    assert (found.keys, found.different) == (1, 1)
    assert "database 1, key b'k'" in found.example
    assert said in found.example


def test_only_errors_that_belong_there_are_borne(capsys: pytest.CaptureFixture[str]) -> None:
    results = Results(Report(1))
    expected = ("UNAVAILABLE", "INDOUBT")
    results.add("a", Sync(3, 0), 5, 1.0, ["UNAVAILABLE cluster a: …"], expected)
    results.table()
    assert re.search(r"^  a +5 +5 +1 +3 +100 %$", capsys.readouterr().out, re.MULTILINE)
    with pytest.raises(DemoError, match="2 errors, for example: WRONGTYPE"):
        results.add("b", Sync(3, 0), 5, 1.0, ["WRONGTYPE", "UNAVAILABLE", "ERR"], expected)
    with pytest.raises(DemoError, match="1 errors"):
        results.add("c", Sync(3, 0), 5, 1.0, ["UNAVAILABLE"])
    with pytest.raises(DemoError, match="1 of 3 keys differ, for example key a"):
        results.add("d", Sync(3, 1, "key a"), 5, 1.0, [])


def test_what_was_given_twice_is_found() -> None:
    contest = Contest(())
    contest._told = [
        Told("a", numbers=[1, 2, 4], pushed=["x", "y"], popped=["x"], answered=7, longest=0.2),
        Told("b", numbers=[2, 3], pushed=["z"], popped=["x", "z"], errors=[("a", "INDOUBT …"), ("b", "b")]),
    ]
    verdict = contest.verdict()
    assert (verdict.numbers, verdict.twice, verdict.popped, verdict.popped_twice) == (5, 1, 3, 1)
    assert str(verdict) == "5 numbers handed out, 1 of them twice; 3 elements popped, 1 of them twice"
    contest._told[1].unanswered_pops = 2
    assert contest.verdict().unanswered_pops == 2
    assert (contest.missing([]), contest.missing(["y"])) == (1, 0)
    assert (contest.errors_at("a"), contest.errors) == (["INDOUBT …"], ["INDOUBT …", "b"])
    assert (contest.answered, contest.answered_at("b"), contest.longest) == (7, 0, 0.2)


def test_the_groups_file_is_one() -> None:
    config = parse(files.member("redis-001", 1, 2, 3, 4, 5), "redisha.yaml").config
    assert config.group is not None
    assert (config.group.member, config.group.peers, config.group.write_consistency) == (
        "redis-001",
        ("127.0.0.1:3",),
        "quorum",
    )


def test_the_benchmark_is_read_by_the_names_of_its_columns() -> None:
    text = (
        '"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms"\n'
        '"SET","20815.99","0.3","0.1","0.311","0.5","0.9"\n"LPUSH","21781.75","0.3","0.1","0.303","0.5","0.9"\n'
    )
    assert benchmark.parse(text) == {
        "SET": benchmark.Figure(20815.99, 0.311),
        "LPUSH": benchmark.Figure(21781.75, 0.303),
    }


@pytest.mark.parametrize("name", [files.PAIR, files.PREFIX])
def test_the_files_are_the_published_ones(name: str) -> None:
    tests = Path(__file__).parent.parent / "support" / "data" / name
    assert Path(files.__file__).with_name(name).read_text() == tests.read_text()
