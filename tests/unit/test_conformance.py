"""What the harness makes of what Redis's suite prints."""

from conformance.expected import LeftOut
from conformance.output import End, read
from conformance.report import Report
from conformance.unit import Result

DONE = """Starting test server at port 27079
[ready]: 12
Testing unit/multi
[testing]: MULTI basics
[ok]: MULTI basics (3 ms)
[testing]: EXEC fails
\x1b[31m[err]: EXEC fails in tests/unit/multi.tcl\x1b[0m
Expected 'a' to be equal to 'b' (context: type eval)
[ignore]: needs a server: Tag: external:skip
[testing]: twice
[ok]: twice (1200 ms)
[testing]: twice
[err]: twice in tests/unit/multi.tcl
the second time
[1/1 done]: unit/multi (1 seconds)

                   The End

!!! WARNING The following tests failed:

*** [err]: EXEC fails in tests/unit/multi.tcl
"""


def test_tests_that_passed_and_failed() -> None:
    run = read(DONE)
    assert run.passed == {"MULTI basics"}
    assert run.failed["EXEC fails"].endswith("Expected 'a' to be equal to 'b' (context: type eval)")
    assert "the second time" in run.failed["twice"]
    assert (run.end, run.last, run.reason, run.longest) == (End.DONE, None, "", 1.2)


def test_an_exception_belongs_to_the_test_that_was_under_way() -> None:
    run = read(
        "[testing]: one\n[ok]: one (0 ms)\n[testing]: two\n[exception]: Executing test client: ERR no.\nERR no\n"
    )
    assert (run.end, run.last, run.reason) == (End.EXCEPTION, "two", "ERR no.\nERR no")
    assert run.passed == {"one"}


def test_an_exception_between_tests_belongs_to_none() -> None:
    run = read("[testing]: one\n[ok]: one (0 ms)\n[exception]: Executing test client: ERR no\n")
    assert (run.end, run.last) == (End.EXCEPTION, None)


def test_an_error_that_the_suite_went_on_after_is_shown_as_a_whole() -> None:
    run = read(
        "[testing]: one\n[err]: one in tests/unit/a.tcl\ncommand 'x'\nERR unknown command 'x'\n    while executing\n"
    )
    assert run.failed["one"] == "in tests/unit/a.tcl\nERR unknown command 'x'\n    while executing"


def test_a_test_that_hangs() -> None:
    run = read("[testing]: one\n[TIMEOUT]: clients state report follows.\nsock7 => (IN PROGRESS) one\n")
    assert (run.end, run.last) == (End.SILENT, "one")


def test_a_run_that_was_cut_off() -> None:
    assert read("[testing]: one\n[ok]: one (0 ms)\n").end is End.CUT


def report(*expected: LeftOut) -> Report:
    made = Report(list(expected))
    made.add("unit/a", "direct", Result(passed={"x", "y", "z"}, failed={"w": "slow machine"}))
    made.add("unit/a", "pass", Result(passed={"x"}, failed={"y": "refused"}, ended="outside of a test: ERR"))
    return made


def test_what_is_lost_is_what_passes_directly() -> None:
    made = report()
    assert made.lost("unit/a", "pass") == {"y": "refused", "z": "not run: outside of a test: ERR"}
    assert made.not_run("unit/a", "pass") == 2
    assert not made.good()
    assert "| unit/a | 3 / 1 / 0 | 1 / 1 / 2 |" in made.markdown()


def test_what_need_not_pass_is_not_lost() -> None:
    assert report(LeftOut(("pass",), "a reason", "unit/a", ("y", "z"))).good()
    assert report(LeftOut(("pass",), "a reason", "unit/a")).good()
    assert not report(LeftOut(("pass",), "a reason", "unit/a", ("y",))).good()
    assert not report(LeftOut(("mirrored",), "a reason", "unit/a")).good()


def test_tests_are_left_out_by_the_tags_that_they_have_directly() -> None:
    run = read("[tags]: y\tmulti needs:repl\n[testing]: y\n[ok]: y (0 ms)\n[1/1 done]: unit/a (1 seconds)\n")
    assert run.tags == {"y": frozenset({"multi", "needs:repl"})}
    made = Report([LeftOut(("pass",), "a reason", tag="needs:repl")])
    made.add("unit/a", "direct", Result(passed={"x", "y"}, tags=run.tags))
    assert made.left_out("unit/a", "pass") == {"y"}
    assert made.left_out("unit/a", "mirrored") == set()
    made.add("unit/a", "pass", Result(passed={"x"}, left_out=1))
    assert made.good()
    assert "| 1 / 0 / 0 / 1 |" in made.markdown()


def test_servers_that_differ_are_a_fault() -> None:
    made = Report([])
    made.add("unit/a", "direct", Result(passed={"x"}))
    made.add("unit/a", "mirrored", Result(passed={"x"}, unequal=""))
    assert made.good()
    assert "1 / 0 / 0 =" in made.markdown()
    made.add("unit/a", "mirrored", Result(passed={"x"}, unequal="1 difference"))
    assert not made.good()
    assert "servers differ: 1 difference" in made.markdown()
