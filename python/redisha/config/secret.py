"""Passwords and user names: literal, from the environment, or from a file.

==================== ========================================================================
written              meaning
==================== ========================================================================
``s3cret``           the text itself
``${NAME}``          the environment variable ``NAME``
``file:/path``       the file's text, without the line end (relative to the configuration's folder)
``literal:text``     ``text`` itself, for a password that looks like one of the above
==================== ========================================================================
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from redisha.config.scalars import ScalarError

MAX_SECRET_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret and how the configuration names it.

    Attributes:
        reference: As written in the file; shown by ``convert``.
        value: What it stood for when the file was read; never shown.
    """

    reference: str
    value: str = field(repr=False)


@dataclass(slots=True)
class Secrets:
    """Where references are looked up while one file is read.

    Attributes:
        env: The environment.
        folder: Where a relative path begins: the folder of the configuration file.
        files: Every file that was read, for the watcher.
    """

    env: Mapping[str, str]
    folder: Path
    files: list[Path] = field(default_factory=list)

    def resolve(self, reference: object) -> Secret:
        """Look a reference up.

        Raises:
            ScalarError: It is no text, the variable or the file is missing, or the secret is empty.
        """
        if isinstance(reference, Secret):
            return reference
        if not isinstance(reference, str):
            raise ScalarError("expected text, found something else", "put quotes around it")
        value = self._lookup(reference)
        if not value:
            raise ScalarError("the secret is empty", "remove the field if no password is asked")
        return Secret(reference, value)

    def _lookup(self, reference: str) -> str:
        variable = re.fullmatch(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", reference, re.ASCII)
        if variable:
            if variable[1] not in self.env:
                raise ScalarError(f"the environment variable {variable[1]} is not set")
            value = self.env[variable[1]]
            if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
                raise ScalarError(f"the environment variable {variable[1]} is not UTF-8 text")
            return value
        if reference.startswith("file:"):
            return self._read(self.folder / reference.removeprefix("file:"))
        return reference.removeprefix("literal:")

    def _read(self, path: Path) -> str:
        self.files.append(path)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_SECRET_BYTES + 1)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ScalarError(f"the file {path} cannot be read: {reason}") from None
        if len(data) > MAX_SECRET_BYTES:
            raise ScalarError(f"the file {path} is longer than {MAX_SECRET_BYTES} bytes; is it a password?")
        try:
            return data.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise ScalarError(f"the file {path} is not UTF-8 text") from None


def literal(text: str) -> str:
    """The reference that stands for exactly this text."""
    special = text.startswith(("file:", "literal:")) or re.fullmatch(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}", text, re.ASCII)
    return f"literal:{text}" if special else text
