"""What the walk through a group checks after each part, and how it is told.

Owns: what counts as a broken promise of a group.
"""

from collections import Counter
from typing import Any

from redisha.demo.children import DemoError
from redisha.demo.contest import COUNTER, LOST, QUEUE, Contest
from redisha.demo.members import Member, Members, redisha
from redisha.demo.report import Report
from redisha.demo.results import Results


class Checks:
    """The checks.

    Args:
        report: what the reader sees.
        results: the rows of the Sync column.
    """

    def __init__(self, report: Report, results: Results) -> None:
        self._report = report
        self._results = results

    def status(self, member: Member) -> None:
        """Show what ``redisha status`` says of the group there.

        Raises:
            DemoError: it says nothing of it.
        """
        admin = f"127.0.0.1:{member.sidecar.admin}"
        done = redisha("status", "--admin", admin)
        _, group, rest = done.stdout.partition("group  ")
        if not group:
            raise DemoError(f"redisha status ended with {done.returncode}: {done.stderr.strip()}")
        self._report.command(f"redisha status --admin {admin}", f"…\n{group}{rest}".rstrip())

    def contest(self, members: Members) -> Contest:
        """Clients of both sides, who begin with a new counter and an empty queue."""
        with members.wait_in_sync().sidecar.client() as client:
            client.delete(COUNTER, QUEUE)
        return Contest(members.sidecars)

    def errors(self, contest: Contest, member: Member, what: str, expected: tuple[str, ...]) -> None:
        """Tell what errors the clients of a side got.

        Args:
            contest: the clients.
            member: the side.
            what: what is told.
            expected: how an error may begin.

        Raises:
            DemoError: one begins otherwise.
        """
        errors = contest.errors_at(member.sidecar.name)
        words = Counter(LOST if error == LOST else error.partition(" ")[0] for error in errors)
        told = ", ".join(f"{word} {count:,}" for word, count in words.most_common())
        self._report.line(f"{what} ({member.name}): {told or 'none'}")
        for word in words:
            if word != LOST:
                self._report.line(f"(error) {next(each for each in errors if each.startswith(word))}", "dim")
            if word not in expected:
                raise DemoError(f"{what}: {word} does not belong there")

    def judge(
        self, members: Members, contest: Contest, what: str, seconds: float, expected: tuple[str, ...] = ()
    ) -> None:
        """Tell what the clients were given, see that it holds, and compare both servers.

        Raises:
            DemoError: something was given to two clients, is nowhere, or differs; or an error is not expected.
        """
        verdict = contest.verdict()
        with members.wait_in_sync().server.client() as client:
            read: Any = client
            missing = contest.missing([element.decode() for element in read.lrange(QUEUE, 0, -1)])
        unanswered = verdict.unanswered_pops
        held = not (verdict.twice or verdict.popped_twice or missing > unanswered)
        # What a pop without an answer took is gone, as it is with any server whose client loses its connection.
        text = f"{verdict}; {max(0, missing - unanswered):,} lost"
        if unanswered:
            text += f", but for what pops without an answer took ({unanswered:,} of them)"
        (self._report.good if held else self._report.bad)(text)
        if not held:
            raise DemoError(f"{what}: {text}")
        self.compare(members, what, verdict.answered, seconds, contest.errors, expected)

    def compare(
        self,
        members: Members,
        what: str,
        answered: int,
        seconds: float,
        errors: list[str],
        expected: tuple[str, ...] = (),
    ) -> None:
        """Compare both Redis servers, and add a row to the Sync column.

        Raises:
            DemoError: they differ, or a client saw an error that is not expected.
        """
        with self._report.progress("redisha verify: comparing the two Redis servers"):
            members.wait_in_sync()
            sync = members.sync()
        self._results.add(what, sync, answered, seconds, errors, expected)
