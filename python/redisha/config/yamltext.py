"""Values as YAML text that is read as the same values."""

import json
import re
from collections.abc import Mapping
from typing import Any

# Text that every YAML reader takes for text, also within [] and {}.
_PLAIN = re.compile(
    r"(?!(?:null|true|false|yes|no|on|off|y|n)\Z)[A-Za-z][A-Za-z0-9_./-]*(?::[A-Za-z0-9_./-]+)*\Z", re.I | re.ASCII
)
_ADDRESS = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}:[0-9]{1,5}\Z", re.ASCII)
_QUANTITY = re.compile(r"[0-9]+(?:ms|s|m|h|KB|MB|GB)\Z", re.ASCII)


def comment(text: str) -> str:
    """A comment of one line."""
    return "# " + "".join(char if char.isprintable() else " " for char in text)


def flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return scalar(value) if isinstance(value, str) else str(value)


def scalar(text: str) -> str:
    """Text without quotes where no reader can take it for something else, otherwise in JSON's quotes."""
    if any(pattern.match(text) for pattern in (_PLAIN, _ADDRESS, _QUANTITY)):
        return text
    # JSON leaves DEL and the C1 controls as they are; YAML allows them only escaped.
    return re.sub(
        "[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]",
        lambda match: f"\\u{ord(match[0]):04x}",
        json.dumps(text, ensure_ascii=False),
    )
