"""Reading what the suite printed."""

import re
from dataclasses import dataclass, field
from enum import Enum

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_EVENT = re.compile(
    r"^\[(?P<status>testing|tags|ok|err|skip|ignore|exception|TIMEOUT|\d+/\d+ done)\]: ?(?P<text>.*)$", re.MULTILINE
)
_TOOK = re.compile(r" \((\d+) ms\)$")
_END = "\n                   The End\n"


class End(Enum):
    """How a run of a unit ended."""

    DONE = "done"
    EXCEPTION = "exception"
    SILENT = "no progress"
    CUT = "cut off"


@dataclass
class Run:
    """One run of a unit: what each test came to, by name."""

    passed: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    """Test → the reason. A name that is used more than once has passed only if it always did."""
    end: End = End.CUT
    last: str | None = None
    """The test that was under way at the end."""
    reason: str = ""
    """Why it ended before its end, or what went wrong outside of any test."""
    tags: dict[str, frozenset[str]] = field(default_factory=dict)
    """Test → the suite's tags."""
    longest: float = 0.0
    """Seconds of the longest test that passed."""


def read(text: str) -> Run:
    """The run that printed this."""
    text = _COLOUR.sub("", text).partition(_END)[0]
    run = Run()
    events = list(_EVENT.finditer(text))
    for number, event in enumerate(events):
        until = events[number + 1].start() if number + 1 < len(events) else len(text)
        _take(run, event["status"], event["text"], text[event.start("text") : until].strip())
    run.passed -= run.failed.keys()
    return run


def _take(run: Run, status: str, line: str, whole: str) -> None:
    match status:
        case "testing":
            run.last = line
        case "tags":
            name, _, tags = line.rpartition("\t")
            run.tags[name] = frozenset(tags.split())
        case "ok" if run.last is not None:
            run.passed.add(run.last)
            took = _TOOK.search(line)
            run.longest = max(run.longest, int(took[1]) / 1000 if took else 0.0)
            run.last = None
        case "err" if run.last is not None:
            run.failed.setdefault(run.last, _detail(whole.removeprefix(run.last).strip()))
            run.last = None
        case "err":
            run.reason = run.reason or whole
        case "exception":
            run.end, run.reason = End.EXCEPTION, whole.removeprefix("Executing test client: ")
        case "TIMEOUT":
            run.end, run.reason = End.SILENT, "no reply that the test waits for"
        case _ if status.endswith("done") and run.end is End.CUT:
            run.end = End.DONE


def _detail(text: str) -> str:
    """Where and why a test failed.

    Told to go on after errors, the suite cuts the beginning of such an error, as if it were an assertion's, and prints
    it once more as a whole.
    """
    where, _, detail = text.partition("\n")
    cut, _, whole = detail.partition("\n")
    return f"{where}\n{whole if whole.partition(chr(10))[0].endswith(cut) else detail}"
