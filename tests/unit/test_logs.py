"""Log lines for people and for machines."""

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest

from redisha import logs


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def write(as_json: bool | None, level: str = "info") -> str:
    stream = io.StringIO()
    logs.setup(level, stream, as_json)
    log = logging.getLogger("redisha.supervisor")
    log.debug("detail")
    log.warning("lost %d", 3, extra={"cluster": "redis-001", "reason": "not there", "empty": ""})
    try:
        int("odd")
    except ValueError:
        log.exception("failed")
    return stream.getvalue()


def test_for_people() -> None:
    first, second, *trace = write(as_json=False).splitlines()
    assert re.fullmatch(
        r'\d\d:\d\d:\d\d\.\d{3} warning supervisor: lost 3 cluster=redis-001 reason="not there" empty=""', first
    )
    assert second.endswith("error supervisor: failed")
    assert trace[-1] == "ValueError: invalid literal for int() with base 10: 'odd'"


def test_for_machines() -> None:
    first, second = map(json.loads, write(as_json=None).splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert first == {
        "level": "warning",
        "logger": "redisha.supervisor",
        "message": "lost 3",
        "cluster": "redis-001",
        "reason": "not there",
        "empty": "",
    }
    assert second["exception"].endswith("'odd'")


def test_levels() -> None:
    assert "detail" in write(as_json=True, level="debug")
    assert "lost" not in write(as_json=True, level="error")
    with pytest.raises(ValueError, match="log level must be one of debug, info, warning, error: loud"):
        logs.setup("loud")
