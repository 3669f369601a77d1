"""What can go wrong, as the operator sees it. The number is the exit code of the command line.

::

    RedishaError                1
    ├── ConfigError             1   a configuration file is wrong; tells every place at once
    ├── ListenError             3   an address cannot be bound
    ├── PlanError               4   the data plane refused a plan: a fault of redisha, not of the file
    └── DataPlaneError         70   the data plane died

Exit code 2 is a wrong command line (click's choice).
"""

from dataclasses import asdict, dataclass
from typing import ClassVar


class RedishaError(Exception):
    """A failure that is told in one message, without a traceback."""

    exit_code: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, or worth a warning, at one place of a configuration file.

    Attributes:
        file: The file as the operator named it.
        line: The line, counted from 1; None when the problem is the file as a whole.
        path: The field, for example ``clusters.redis-001.endpoints[0]``; empty for the document as a whole.
        message: What is wrong, in lower case and without a full stop.
        hint: What to do about it; may be empty.
    """

    file: str
    line: int | None
    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        """``file:line: path: message (hint)``, without the parts that are missing."""
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        path = f" {self.path}:" if self.path else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}:{path} {self.message}{hint}"

    def as_dict(self) -> dict[str, str | int | None]:
        """The fields, for JSON."""
        return asdict(self)


class ConfigError(RedishaError):
    """A configuration file is wrong. Carries everything that is wrong with it, in the order of the file.

    Attributes:
        problems: At least one. :attr:`file`, :attr:`line`, :attr:`path`, :attr:`message` and :attr:`hint` are those of
            the first.
    """

    def __init__(self, *problems: Problem) -> None:
        if not problems:
            raise ValueError("a ConfigError needs a problem")
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems

    @property
    def file(self) -> str:
        """The file as the operator named it."""
        return self.problems[0].file

    @property
    def line(self) -> int | None:
        """The first problem's line."""
        return self.problems[0].line

    @property
    def path(self) -> str:
        """The first problem's field."""
        return self.problems[0].path

    @property
    def message(self) -> str:
        """What the first problem is."""
        return self.problems[0].message

    @property
    def hint(self) -> str:
        """What to do about the first problem; may be empty."""
        return self.problems[0].hint


class ListenError(RedishaError):
    """A listener's or the admin server's address cannot be bound."""

    exit_code = 3


class PlanError(RedishaError):
    """The data plane refused a plan that passed our own checks; nothing was changed."""

    exit_code = 4


class DataPlaneError(RedishaError):
    """The data plane stopped by itself; the process cannot go on."""

    exit_code = 70
