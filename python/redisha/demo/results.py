"""What was found: the rows of the *Sync* column. A demo that does not keep its word fails here.

Owns: what counts as a failure. Never: writes to a server.
"""

from redisha.demo.children import DemoError
from redisha.demo.compare import Sync
from redisha.demo.report import Report

_SHOWN_ERRORS = 3


class Results:
    """The rows so far.

    Args:
        report: is told each.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._rows: list[tuple[str, ...]] = []

    def add(
        self, what: str, sync: Sync, writes: int, seconds: float, errors: list[str], expected: tuple[str, ...] = ()
    ) -> None:
        """Tell a result, keep it for the table.

        Args:
            what: what was done.
            sync: how equal the servers are.
            writes: writes that were answered.
            seconds: how long they took.
            errors: what clients got besides, in words.
            expected: how such an error may begin.

        Raises:
            DemoError: a client saw an error that is not expected, or the servers differ.
        """
        rate = f"{writes / seconds:,.0f}" if seconds else "-"
        self._rows.append((what, f"{writes:,}", rate, f"{len(errors):,}", f"{sync.keys:,}", sync.percent))
        text = f"{what}: errors {len(errors):,}, keys compared {sync.keys:,}, Sync {sync.percent}"
        if sync.different:
            self._report.bad(text)
            raise DemoError(f"{what}: {sync.different} of {sync.keys} keys differ, for example {sync.example}")
        bad = [error for error in errors if not error.startswith(expected)] if expected else errors
        if bad:
            self._report.bad(text)
            examples = "; ".join(bad[:_SHOWN_ERRORS])
            raise DemoError(f"{what}: clients got {len(bad)} errors, for example: {examples}")
        self._report.good(text)

    def table(self) -> None:
        """All of them."""
        self._report.heading("The Sync column: both servers compared key by key (type, value, expiry time)")
        self._report.table(("what was done", "writes", "per second", "errors", "keys", "Sync"), self._rows)
