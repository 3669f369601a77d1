"""Turns pydantic's errors into problems with a line, a path, our words and a suggestion."""

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from redisha.config.model import Config, Section
from redisha.config.scalars import ScalarError
from redisha.config.tree import Item, Report, describe, join, suggest

_EXPECTED = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


# What a translation that left something out brings about; the cause has been told.
_FOLLOWS = ("missing", "too_short")


def explain(error: ValidationError, root: Item, report: Report, *, partial: bool = False) -> None:
    """Add every error to the report.

    Args:
        error: What pydantic said about ``root.plain()``.
        root: The document, for places.
        report: Takes the problems.
        partial: Whether the document lacks what a translation could not read; that something is missing is then
            left out.
    """
    for details in error.errors(include_url=False):
        if (partial and details["type"] in _FOLLOWS) or _counts_the_wrong(details):
            continue
        item = _locate(root, details["loc"])
        message, hint = _words(details, item)
        report.error(item, message, hint)


def _counts_the_wrong(details: ErrorDetails) -> bool:
    """Pydantic calls a list too short when its elements are wrong; that they are is told anyway."""
    return details["type"] == "too_short" and bool(details["input"])


def _locate(root: Item, loc: tuple[int | str, ...]) -> Item:
    """The item at pydantic's location; where there is none, a place named like it in the nearest item around it."""
    item = root
    for depth, step in enumerate(loc):
        inner = _step(item, step)
        if inner is None:
            rest = [part for part in loc[depth:] if part != "[key]"]
            path = item.path
            for part in rest:
                path = join(path, part)
            return Item(None, item.line, path)
        item = inner
    return item


def _step(item: Item, step: int | str) -> Item | None:
    if isinstance(step, str):
        return item.get(step)
    if item.sequence:
        return item.sequence[step] if step < len(item.sequence) else None
    return item if item.text is not None and step == 0 else None  # a single text stands for a list of one


def _words(details: ErrorDetails, item: Item) -> tuple[str, str]:
    """Message and hint."""
    kind = details["type"]
    value = details["input"]
    context = details.get("ctx", {})
    if kind == "value_error" and isinstance(fault := context.get("error"), ScalarError):
        return fault.message, fault.hint
    if kind == "missing":
        return "this field is required", ""
    if kind == "extra_forbidden":
        return _unknown(details["loc"])
    if kind == "literal_error":
        return _choice(details["loc"], value)
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, found {describe(value)}", _quote(kind, value)
    if kind == "too_long":
        return f"at most {context['max_length']} are possible, and here are {context['actual_length']}", ""
    if kind in ("too_short", "string_too_short"):
        return "at least one is needed" if kind == "too_short" else "must not be empty", ""
    return _plain(details["msg"]), ""


def _plain(message: str) -> str:
    """Pydantic's text in our style: lower case, no full stop."""
    message = message.removeprefix("Value error, ").rstrip(".").replace("Input should be", "must be")
    return message[:1].lower() + message[1:]


def _quote(kind: str, value: object) -> str:
    if kind == "string_type" and isinstance(value, (int, float)):
        return "put quotes around it"
    if kind == "bool_type" and isinstance(value, str) and value.lower() in ("yes", "on", "no", "off"):
        return f"write {str(value.lower() in ('yes', 'on')).lower()}"
    return ""


def _unknown(loc: tuple[int | str, ...]) -> tuple[str, str]:
    name = str(loc[-1])
    section = _section(loc[:-1])
    if section is not None and name in section.later:
        return "this is not supported yet", section.later[name]
    return "unknown field", suggest(name, section.model_fields) if section is not None else ""


def _choice(loc: tuple[int | str, ...], value: object) -> tuple[str, str]:
    """A value out of a fixed set: say which, and whether the value belongs to a later version."""
    name = str(loc[-1])
    section = _section(loc[:-1])
    field = section.model_fields.get(name) if section is not None else None
    choices = get_args(_without_none(field.annotation)) if field is not None else ()
    shown = " or ".join(f"'{choice}'" if isinstance(choice, str) else str(choice) for choice in choices)
    hint = suggest(value, map(str, choices)) if isinstance(value, str) else ""
    return f"expected {shown}, found {describe(value)}", hint if hint.startswith("did") else ""


def _section(loc: tuple[int | str, ...]) -> type[Section] | None:
    """The section of the model that a location is in."""
    kind: Any = Config
    for step in loc:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(step))
            kind = field.annotation if field is not None else None
        else:
            kind = _inner(kind)
        kind = _without_none(kind)
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def _without_none(kind: Any) -> Any:
    choices = [choice for choice in get_args(kind) if choice is not type(None)]
    return choices[0] if len(choices) == 1 and type(None) in get_args(kind) else kind


def _inner(kind: Any) -> Any:
    """The type of the elements of a tuple, or of the values of a mapping."""
    arguments = get_args(kind)
    origin = getattr(kind, "__origin__", None)
    if origin is tuple:
        return arguments[0]
    return arguments[1] if isinstance(origin, type) and issubclass(origin, Mapping) else None
