"""What pydantic finds wrong with a request, in our words: the cause, and what to send instead."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, cast, get_args

from pydantic import BaseModel, ValidationError

from app.core.errors import BadInputError
from task_state.naming import (
    NAME_PATTERN,
    NAME_WORDS,
    TASK_ID_PATTERN,
    TASK_ID_WORDS,
    meant,
)

_MAX_SHOWN: Final = 80
_OWN: Final = "Value error, "
_TIME: Final = "is no time: write ISO 8601, such as 2026-11-21T09:00:00Z"
_NO_WHOLE_NUMBER: Final = "is no whole number: write digits alone"
_NO_OBJECT: Final = 'is no object: send {"name": value}'
_NO_SWITCH: Final = "is neither true nor false: send one of these"


def shown(value: object) -> str:
    """A value as an error tells it: short, and without anything that acts on a terminal."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def told(finding: Mapping[str, Any], *, secret: bool = False) -> str:
    """One finding; the value stands in it unless it may be `secret`."""
    kind, context = str(finding["type"]), finding.get("ctx", {})
    if kind in {"value_error", "missing"}:
        text = str(finding["msg"])  # a message of ours, which has the value
        return text.removeprefix(_OWN) if kind == "value_error" else "is missing: give it a value"
    words = _WORDS.get(kind)
    what = words(context) if words else f"does not fit: {finding['msg']}"
    return f"this value {what}" if secret else f"{shown(finding['input'])} {what}"


def unknown(name: str, known: Iterable[str]) -> str:
    """What to do about a name that nobody knows here."""
    known = list(known)
    near = meant(name, known)
    hint = f"did you mean {near}? " if near else ""
    return f"{hint}use {', '.join(known)}" if known else "leave it out"


def body_error(model: type[BaseModel], error: ValidationError, form: str) -> BadInputError:
    """The refusal of a body that is no `model`: the first finding, and the `form` to send."""
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        name = str(first["loc"][-1])
        what = f"no such name here: {unknown(name, _names(model, first['loc'][:-1]))}"
    else:
        what = told(first, secret=True)
    return BadInputError(f"{where or 'the body'}: {what}; send {form}")


def _names(model: type[BaseModel], path: Sequence[int | str]) -> Iterable[str]:
    """The names that the object at that place of the model may have."""
    here: Any = model
    for step in path:
        if isinstance(step, int):
            here = next(iter(get_args(here)), None)
        elif isinstance(here, type) and issubclass(here, BaseModel):
            field = here.model_fields.get(step)
            here = None if field is None else field.annotation
    if isinstance(here, type) and issubclass(here, BaseModel):
        return here.model_fields
    return ()


def _pattern(context: Mapping[str, Any]) -> str:
    pattern = cast("str", context["pattern"])
    return _PATTERNS.get(pattern, f"does not fit the pattern {pattern}")


_PATTERNS: Final[Mapping[str, str]] = {
    NAME_PATTERN: f"is no name: {NAME_WORDS}",
    rf"{NAME_PATTERN}|^\*$": f"is no service: {NAME_WORDS}; or * for all services",
    TASK_ID_PATTERN: f"is no task's id: {TASK_ID_WORDS}",
}
_WORDS: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "string_pattern_mismatch": _pattern,
    "string_too_long": lambda c: f"is too long: {c['max_length']} characters are allowed",
    "string_too_short": lambda c: f"is too short: write at least {c['min_length']} characters",
    "string_type": lambda _: "is no text: put it into quotes",
    "literal_error": lambda c: f"is not known: use {c['expected']}",
    "enum": lambda c: f"is not known: use {c['expected']}",
    "greater_than_equal": lambda c: f"is too small: {c['ge']} is the least",
    "less_than_equal": lambda c: f"is too large: {c['le']} is the most",
    "int_parsing": lambda _: _NO_WHOLE_NUMBER,
    "int_parsing_size": lambda _: "is too large a number: write fewer digits",
    "int_type": lambda _: _NO_WHOLE_NUMBER,
    "int_from_float": lambda _: _NO_WHOLE_NUMBER,
    "float_parsing": lambda _: "is no number: write such as 1.5",
    "float_type": lambda _: "is no number: write such as 1.5",
    "finite_number": lambda _: "is no finite number: write such as 1.5",
    "bool_parsing": lambda _: _NO_SWITCH,
    "bool_type": lambda _: _NO_SWITCH,
    "list_type": lambda _: "is no list: send [...]",
    "dict_type": lambda _: _NO_OBJECT,
    "model_type": lambda _: _NO_OBJECT,
    "too_long": lambda c: f"has too many items: {c['max_length']} are allowed",
    "extra_forbidden": lambda _: "is not known here: leave it out",
    "datetime_type": lambda _: _TIME,
    "datetime_parsing": lambda _: _TIME,
    "datetime_from_date_parsing": lambda _: _TIME,
    "timezone_aware": lambda _: "has no offset: end it with Z or such as +09:00",
}
