"""Templates in a webhook's parameters, filled in from what was delivered. Not those of schedules,
which know times: `app.scheduler.domain.templates`. Both write `{{ name }}`, and `{{{{` for `{{`."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, cast

from app.core.errors import BadInputError, ConfigurationError

ROOTS: Final = ("payload", "webhook", "delivery", "event")
MAX_FILLED_BYTES: Final = 1024 * 1024

_OPEN, _CLOSE, _LITERAL = "{{", "}}", "{{{{"
_PATH: Final = re.compile(r"\s*([^\s.{}]+(?:\.[^\s.{}]+)*)\s*\Z")


class _Placeholder(NamedTuple):
    path: tuple[str, ...]
    place: str

    def __str__(self) -> str:
        return f"{_OPEN} {'.'.join(self.path)} {_CLOSE}"


_Parts = tuple[str | _Placeholder, ...]


class Template:
    """Parameters of which some texts hold `{{ payload.a.b }}`. Raises ConfigurationError with the
    place of one that means nothing.

    A text that is one placeholder and nothing else becomes the value as it was sent, be it a
    number or a list; inside a longer text only texts, numbers, true and false may stand.
    """

    __slots__ = ("_parameters", "_texts")

    def __init__(self, parameters: dict[str, Any], place: str = "parameters") -> None:
        self._parameters = parameters
        self._texts: dict[str, _Parts] = {}
        for where, text in _texts(parameters, place):
            if _OPEN in text and text not in self._texts:
                self._texts[text] = tuple(part for part in _parse(text, where) if part != "")

    def fill(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters for these values of ROOTS. Raises BadInputError when the payload has not
        what they ask for, or when they get too large."""
        filled = {text: _fill(parts, values) for text, parts in self._texts.items()}
        if not filled:
            return self._parameters
        made = {name: _replaced(value, filled) for name, value in self._parameters.items()}
        size = len(json.dumps(made, ensure_ascii=False).encode())
        if size > MAX_FILLED_BYTES:
            raise BadInputError(
                f"the task's parameters have {size} bytes with this payload, {MAX_FILLED_BYTES} "
                "are allowed: have the webhook take less of it"
            )
        return made


def _texts(value: object, place: str) -> Iterator[tuple[str, str]]:
    """All texts among the values of JSON, and where each stands."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for name, inner in cast("dict[str, Any]", value).items():
            yield from _texts(inner, f"{place}.{name}")
    elif isinstance(value, list):
        for index, inner in enumerate(cast("list[Any]", value)):
            yield from _texts(inner, f"{place}[{index}]")


def _parse(text: str, place: str) -> Iterator[str | _Placeholder]:
    at = 0
    while (start := text.find(_OPEN, at)) >= 0:
        yield text[at:start]
        if text.startswith(_LITERAL, start):
            yield _OPEN
            at = start + len(_LITERAL)
            continue
        end = text.find(_CLOSE, start)
        if end < 0:
            raise ConfigurationError(
                f"{place}: {_OPEN} has no {_CLOSE} after it: for these characters write {_LITERAL}"
            )
        yield _placeholder(text[start + 2 : end], place)
        at = end + len(_CLOSE)
    yield text[at:]


def _placeholder(body: str, place: str) -> _Placeholder:
    found = _PATH.match(body)
    path = tuple(found[1].split(".")) if found else ("",)
    if path[0] not in ROOTS or (path[0] != "payload" and len(path) > 1):
        raise ConfigurationError(
            f"{place}: {_OPEN}{body}{_CLOSE} is not known: write {{{{ payload.a.b }}}}, "
            "{{ webhook }}, {{ delivery }} or {{ event }}, and {{{{ for two braces"
        )
    return _Placeholder(path, place)


def _fill(parts: _Parts, values: Mapping[str, Any]) -> Any:
    if len(parts) == 1 and isinstance(parts[0], _Placeholder):
        return _value(parts[0], values)
    return "".join(p if isinstance(p, str) else _text(p, values) for p in parts)


def _value(placeholder: _Placeholder, values: Mapping[str, Any]) -> Any:
    value: Any = values
    for name in placeholder.path:
        value = _inner(value, name, placeholder)
    return value


def _inner(value: Any, name: str, placeholder: _Placeholder) -> Any:
    if isinstance(value, Mapping) and name in value:
        return cast("Mapping[str, Any]", value)[name]
    if isinstance(value, list):
        items = cast("list[Any]", value)
        if name.isascii() and name.isdigit() and len(name) < 9 and int(name) < len(items):
            return items[int(name)]
    raise BadInputError(
        f"{placeholder.place} asks for {placeholder}, and the delivery has no such value"
    )


def _text(placeholder: _Placeholder, values: Mapping[str, Any]) -> str:
    value = _value(placeholder, values)
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise BadInputError(
        f"{placeholder.place} puts {placeholder} into a text, and its value is none: "
        "send a text or a number there"
    )


def _replaced(value: Any, filled: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        return filled.get(value, value)
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value).items()
        return {name: _replaced(inner, filled) for name, inner in members}
    if isinstance(value, list):
        return [_replaced(inner, filled) for inner in cast("list[Any]", value)]
    return value
