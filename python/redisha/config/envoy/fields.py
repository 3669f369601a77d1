"""Walks a protobuf message in its JSON form: takes the fields one knows and complains about the rest."""

import math
import re
from collections.abc import Mapping
from decimal import Decimal

from redisha.config.scalars import format_duration
from redisha.config.tree import Item, Report, describe, suggest


class Fields:
    """The fields of one message. Take what is known, then call :meth:`done`.

    Names are accepted in snake_case and in lowerCamelCase, as protobuf does; null is a field that is not there.
    """

    def __init__(self, item: Item, report: Report) -> None:
        self.item = item
        self.report = report
        self._left = {_snake(key): value for key, value in item.mapping.items() if value.value is not None}
        self._known: set[str] = set()
        if not isinstance(item.value, dict) and item.value is not None:
            report.error(item, f"expected a mapping, found {describe(item.plain())}")

    def take(self, name: str) -> Item | None:
        """A field as it is; None if it is not there."""
        self._known.add(name)
        return self._left.pop(name, None)

    def message(self, name: str) -> "Fields | None":
        """A field that is a message."""
        item = self.take(name)
        return Fields(item, self.report) if item is not None else None

    def messages(self, name: str) -> "list[Fields]":
        """A field that is a list of messages."""
        item = self.take(name)
        if item is None:
            return []
        if not isinstance(item.value, list):
            self.report.error(item, f"expected a list, found {describe(item.plain())}")
        return [Fields(element, self.report) for element in item.sequence]

    def text(self, name: str) -> Item | None:
        """A field that is text."""
        item = self.take(name)
        if item is not None and item.text is None:
            self.report.error(item, f"expected text, found {describe(item.plain())}", "put quotes around it")
            return None
        return item

    def required_text(self, name: str) -> Item | None:
        """A field that is text and must be there."""
        if name not in self._left:
            self.missing(name)
        return self.text(name)

    def missing(self, name: str) -> None:
        """Tell that a field is not there."""
        self.report.error(self.item, f"the field '{name}' is required")

    def flag(self, name: str) -> Item | None:
        """A field that is true or false."""
        item = self.take(name)
        if item is not None and not isinstance(item.value, bool):
            self.report.error(item, f"expected true or false, found {describe(item.plain())}")
            return None
        return item

    def number(self, name: str) -> Item | None:
        """A field that is a whole number, which protobuf allows to be written as text."""
        item = self.take(name)
        if item is None:
            return None
        if isinstance(item.value, str) and re.fullmatch(r"[0-9]{1,18}", item.value, re.ASCII):
            return item.with_value(int(item.value))
        if isinstance(item.value, int) and not isinstance(item.value, bool) and item.value >= 0:
            return item
        self.report.error(item, f"expected a whole number, found {describe(item.plain())}")
        return None

    def duration(self, name: str) -> Item | None:
        """A field that is a duration (``0.25s``), in the native form (``250ms``)."""
        item = self.take(name)
        if item is None:
            return None
        match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s", item.text or "", re.ASCII)
        if match is None:
            self.report.error(item, f"expected a duration, found {describe(item.plain())}", "write for example 0.25s")
            return None
        return item.with_value(format_duration(math.ceil(Decimal(match[1]) * 1000)))

    def required_duration(self, name: str) -> Item | None:
        """A duration that must be there."""
        if name not in self._left:
            self.missing(name)
        return self.duration(name)

    def ignore(self, names: Mapping[str, str]) -> None:
        """Fields that change nothing here, each with the reason, which may be empty."""
        for name, why in names.items():
            item = self.take(name)
            if item is not None and item.value not in (False, "", [], {}):
                self.report.warn(item, f"ignored: {why}" if why else "ignored")

    def refuse(self, name: str, why: str, hint: str = "") -> None:
        """A field that may not be there, unless it is empty."""
        item = self.take(name)
        if item is not None and item.value not in (False, "", [], {}):
            self.report.error(item, why, hint)

    def done(self) -> None:
        """Every field that was not asked for is a problem."""
        for name, item in self._left.items():
            hint = suggest(name, self._known)
            self.report.error(item, "this field is not supported", hint if hint.startswith("did") else "")
        self._left.clear()


def _snake(name: str) -> str:
    return name if "_" in name else re.sub(r"(?<!^)([A-Z])", lambda match: f"_{match[1].lower()}", name)
