"""JSON schemas of parameters that take more spellings than their type tells, for strict checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from pydantic.fields import FieldInfo

from app.core.bandwidth import MAX_BANDWIDTH
from dms_scheduler.movers import Preserve

_CHOICES = [*(each.value for each in Preserve), "all", "none"]

PRESERVED: Final[dict[str, Any]] = {
    "anyOf": [
        {"type": "array", "items": {"type": "string", "enum": _CHOICES}},
        {"type": "string", "pattern": rf"^\s*(({'|'.join(_CHOICES)})\s*(,\s*|$))*$"},
    ]
}
BANDWIDTH: Final[dict[str, Any]] = {
    "anyOf": [
        {"type": "integer", "minimum": 1, "maximum": MAX_BANDWIDTH},
        {"type": "string", "pattern": r"^\s*\d{1,16}\s*[kKmMgGtT]?([iI]?[bB])?(/s)?\s*$"},
    ]
}
DEADLINE: Final[dict[str, Any]] = {
    "anyOf": [{"type": "string", "minLength": 1}, {"type": "number", "exclusiveMinimum": 0}]
}


def put_required_first(schema: dict[str, Any]) -> None:
    """Order the properties for people who fill in a form: what is required comes first."""
    properties = cast("dict[str, Any]", schema["properties"])
    required = cast("list[str]", schema.get("required", []))
    first = {name: properties[name] for name in required}
    schema["properties"] = first | properties


def in_order(fields: Mapping[str, FieldInfo]) -> tuple[str, ...]:
    """Return the names of a model's parameters, those that are required first."""
    return tuple(sorted(fields, key=lambda name: not fields[name].is_required()))
