"""Logging: one line per event, readable on a terminal, JSON otherwise.

The standard library's logging and nothing else; a record's fields are given by ``extra={"cluster": …}``::

    log.warning("upstream lost", extra={"cluster": "redis-001", "reason": "connection refused"})

    09:15:02.113 warning supervisor: upstream lost cluster=redis-001 reason="connection refused"
    {"time":"2026-01-31T09:15:02.113Z","level":"warning","logger":"redisha.supervisor","message":"upstream lost",…}
"""

import json
import logging
import sys
import time
from typing import Any, TextIO

LEVELS = ("debug", "info", "warning", "error")

# What every record has; the rest came by `extra`.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def setup(level: str = "info", stream: TextIO | None = None, as_json: bool | None = None) -> None:
    """Send the records of all loggers to a stream. May be called again; the last call counts.

    Args:
        level: The lowest level that is written, one of :data:`LEVELS`.
        stream: Where to write; standard error by default.
        as_json: Whether to write JSON lines; by default where the stream is no terminal.

    Raises:
        ValueError: The level is not one of :data:`LEVELS`.
    """
    if level not in LEVELS:
        raise ValueError(f"log level must be one of {', '.join(LEVELS)}: {level}")
    stream = sys.stderr if stream is None else stream
    as_json = not stream.isatty() if as_json is None else as_json
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if as_json else HumanFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # The event loop's own chatter is asked for only by `debug`.
    logging.getLogger("asyncio").setLevel("DEBUG" if level == "debug" else "WARNING")


class HumanFormatter(logging.Formatter):
    """``time level module: message key=value …``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, with the traceback below it if there is one."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        name = record.name.removeprefix("redisha.")
        line = f"{clock}.{int(record.msecs):03d} {record.levelname.lower()} {name}: {record.getMessage()}"
        for key, value in _extra(record).items():
            text = str(value)
            line += (
                f" {key}={text}" if text.isprintable() and text and " " not in text else f" {key}={json.dumps(text)}"
            )
        trace = self._trace(record)
        return f"{line}\n{trace}" if trace else line

    def _trace(self, record: logging.LogRecord) -> str:
        return self.formatException(record.exc_info) if record.exc_info else ""


class JsonFormatter(logging.Formatter):
    """One JSON object per line: ``time`` (UTC), ``level``, ``logger``, ``message``, then the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback is the field ``exception``."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields: dict[str, Any] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields.update({key: value for key, value in _extra(record).items() if key not in fields})
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":"), default=str)


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _OWN}
