"""Templates in a webhook's parameters, filled in from what was delivered. Not those of schedules,
which know times: `app.scheduler.domain.templates`."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast

from app.core.errors import BadInputError, ConfigurationError
from app.scheduler.domain.errors import TemplateError
from app.scheduler.domain.placeholders import CLOSE, OPEN, braced_texts, put_back

ROOTS: Final = ("payload", "webhook", "delivery", "event")
MAX_FILLED_BYTES: Final = 1024 * 1024

_PATH: Final = re.compile(r"\s*([^\s.{}]+(?:\.[^\s.{}]+)*)\s*\Z")


class _Placeholder(NamedTuple):
    path: tuple[str, ...]
    place: str

    def __str__(self) -> str:
        return f"{OPEN} {'.'.join(self.path)} {CLOSE}"


class Template:
    """Parameters of which some texts hold `{{ payload.a.b }}`. Raises ConfigurationError with the
    place of one that means nothing.

    A text that is one placeholder and nothing else becomes the value as it was sent, be it a
    number or a list; inside a longer text only texts, numbers, true and false may stand.
    """

    __slots__ = ("_parameters", "_texts")

    def __init__(self, parameters: dict[str, Any], place: str = "parameters") -> None:
        self._parameters = parameters
        try:
            self._texts = braced_texts(parameters, place, _placeholder)
        except TemplateError as error:
            raise ConfigurationError(str(error)) from None

    def fill(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters for these values of ROOTS. Raises BadInputError when the payload has not
        what they ask for, or when they get too large."""
        filled = {text: _fill(parts, values) for text, parts in self._texts.items()}
        if not filled:
            return self._parameters
        made = put_back(self._parameters, filled)
        size = len(json.dumps(made, ensure_ascii=False).encode())
        if size > MAX_FILLED_BYTES:
            raise BadInputError(
                f"the task's parameters have {size} bytes with this payload, {MAX_FILLED_BYTES} "
                "are allowed: have the webhook take less of it"
            )
        return made


def _placeholder(body: str, place: str) -> _Placeholder:
    found = _PATH.match(body)
    path = tuple(found[1].split(".")) if found else ("",)
    if path[0] not in ROOTS or (path[0] != "payload" and len(path) > 1):
        raise TemplateError(
            place,
            f"{OPEN}{body}{CLOSE} is not known: write {{{{ payload.a.b }}}}, "
            "{{ webhook }}, {{ delivery }} or {{ event }}, and {{{{ for two braces",
        )
    return _Placeholder(path, place)


def _fill(parts: tuple[str | _Placeholder, ...], values: Mapping[str, Any]) -> Any:
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
