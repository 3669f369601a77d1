"""What the reader of the demo sees: colours, tables and live progress on a terminal, plain lines elsewhere.

Owns: how it looks. Never: knows what happens.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

_PLAIN_WIDTH = 116
_INDENT = "  "


class Advance(Protocol):
    """Tells how far a step is: done of its total, and a note."""

    def __call__(self, done: float, note: str = "") -> None:
        """The step is at ``done``."""


class Report:
    """Writes to standard output.

    Args:
        parts: how many parts the demo has.
    """

    def __init__(self, parts: int) -> None:
        self.is_terminal = sys.stdout.isatty()
        self._console = Console(
            force_terminal=self.is_terminal, width=None if self.is_terminal else _PLAIN_WIDTH, highlight=False
        )
        self._parts = parts
        self._part = 0

    def title(self, text: str) -> None:
        """The first line."""
        self._print(text, "bold")

    def part(self, title: str, *text: str) -> None:
        """The next part begins; ``text`` is what the reader should know of it."""
        self._part += 1
        self._print()
        self._print(f"[{self._part}/{self._parts}] {title}", "bold cyan")
        for line in text:
            self._print(_INDENT + line)

    def heading(self, title: str) -> None:
        """Something that is no part."""
        self._print()
        self._print(title, "bold cyan")

    def line(self, text: str, style: str = "") -> None:
        """A line of the part."""
        self._print(_INDENT + text, style)

    def good(self, text: str) -> None:
        """A line that says that something is as it should be."""
        self.line(text, "green")

    def bad(self, text: str) -> None:
        """A line that says that something is not."""
        self.line(text, "bold red")

    def command(self, command: str, answer: str) -> None:
        """A command as one would type it, and what came back."""
        self.line(f"$ {command}", "bold")
        for line in answer.splitlines():
            self.line(line, "dim")

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table: the first column is text, the others are numbers."""
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
        for number, head in enumerate(heads):
            table.add_column(head, justify="right" if number else "left", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        self._print()
        self._console.print(Padding(table, (0, 0, 0, len(_INDENT)), expand=False))

    @contextmanager
    def progress(self, what: str, total: float | None = None) -> Iterator[Advance]:
        """A step that takes a while: a bar on a terminal, one line elsewhere. Without a total the bar only moves."""
        if not self.is_terminal or self._console.is_dumb_terminal:
            self.line(f"{what} …")
            yield lambda done, note="": None
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
        )
        with Progress(*columns, console=self._console, transient=True) as bar:
            task: TaskID = bar.add_task(_INDENT + what, total=total, note="")
            yield lambda done, note="": bar.update(task, completed=done, note=note)

    def _print(self, text: str = "", style: str = "") -> None:
        # A terminal folds long lines itself, so that a path or a command stays whole when it is copied.
        self._console.print(text, style=style or None, markup=False, emoji=False, soft_wrap=True)
