"""Says in plain words what is wrong with a task's parameters: the cause, and what to give instead.

The values themselves stay out of it: one of them may be a secret.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from pydantic import ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from dms_scheduler.movers import readable

_LONGEST_NAME = 64
_WORDS = {
    "missing": "is missing; it is required",
    "bool_parsing": "give true or false",
    "bool_type": "give true or false",
    "int_parsing": "give a whole number",
    "int_parsing_size": "the number is too large",
    "int_type": "give a whole number",
    "int_from_float": "give a whole number",
    "string_type": "give one text, and give the parameter once",
    "tuple_type": "give a list of texts",
    "greater_than_equal": "is too small: at least {ge}",
    "less_than_equal": "is too large: at most {le}",
    "too_long": "too many values: at most {max_length}",
    "string_too_long": "the text is too long: at most {max_length} characters",
    "enum": "is none of the choices: {expected}",
    "model_type": "give the parameters as a JSON object",
    "model_attributes_type": "give the parameters as a JSON object",
}


def raise_in_plain_words(
    error: ValidationError, known: Sequence[str], elsewhere: Mapping[str, str]
) -> NoReturn:
    """Raise `error` once more with words of our own.

    `known` are the names of the parameters, `elsewhere` says of a name that is none of them why.
    """
    told: dict[tuple[str, str], InitErrorDetails] = {}
    for problem in error.errors(include_url=False, include_input=False):
        name = readable(str(problem["loc"][0]))[:_LONGEST_NAME] if problem["loc"] else ""
        words = _words(name, problem, known, elsewhere)
        told[name, words] = _detail(name, words)
    raise ValidationError.from_exception_data(error.title, list(told.values()))


def problem_of(name: str, words: str) -> ValidationError:
    """Return the error for one parameter (or all of them, with an empty name)."""
    return ValidationError.from_exception_data("parameters", [_detail(name, words)])


def _detail(name: str, words: str) -> InitErrorDetails:
    kind = PydanticCustomError("parameter", "{words}", {"words": words})
    return InitErrorDetails(type=kind, loc=(name,) if name else (), input=None)


def _words(
    name: str, problem: ErrorDetails, known: Sequence[str], elsewhere: Mapping[str, str]
) -> str:
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        return elsewhere.get(name) or _unknown(name, known)
    if kind == "value_error":
        return str(context.get("error", problem["msg"]))
    if kind in _WORDS:
        return _WORDS[kind].format_map(_plain(context))
    return problem["msg"]


def _unknown(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"there is no such parameter; {hint}there are {', '.join(known)}"


def _plain(context: Mapping[str, Any]) -> dict[str, str]:
    """Return the context's values as texts, choices without their quotes."""
    return {name: str(value).replace("'", "") for name, value in context.items()}
