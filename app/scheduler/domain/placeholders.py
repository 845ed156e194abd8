"""Texts among values of JSON that hold `{{ ... }}`: found, cut up, and put back filled in. Pure.

What may stand between the braces is the caller's business: a schedule's times (`templates`), or
what a webhook was sent. `{{{{` stands for the braces themselves.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar, cast

from app.scheduler.domain.errors import TemplateError

OPEN: Final = "{{"
CLOSE: Final = "}}"
LITERAL: Final = "{{{{"

_P = TypeVar("_P")
_PLAIN_KEY: Final = re.compile(r"\w+\Z")


def braced_texts(
    values: object, place: str, read: Callable[[str, str], _P]
) -> dict[str, tuple[str | _P, ...]]:
    """Each text that has braces, cut into its parts; names of members stay as they are.

    `read` makes a placeholder of what stands between braces, told the place; raises TemplateError,
    as this does for braces that nothing closes.
    """
    found: dict[str, tuple[str | _P, ...]] = {}
    for where, text in _texts(values, place):
        if OPEN in text and text not in found:
            found[text] = tuple(part for part in _parts(text, where, read) if part != "")
    return found


def put_back(value: Any, filled: Mapping[str, Any]) -> Any:
    """The value with these texts in it replaced."""
    if isinstance(value, str):
        return filled.get(value, value)
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value).items()
        return {name: put_back(inner, filled) for name, inner in members}
    if isinstance(value, list):
        return [put_back(inner, filled) for inner in cast("list[Any]", value)]
    return value


def _texts(value: object, place: str) -> Iterator[tuple[str, str]]:
    """All texts among the values, and where each stands."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for name, inner in cast("dict[str, Any]", value).items():
            yield from _texts(inner, _member(place, name))
    elif isinstance(value, list):
        for index, inner in enumerate(cast("list[Any]", value)):
            yield from _texts(inner, f"{place}[{index}]")


def _member(place: str, name: str) -> str:
    return f"{place}.{name}" if _PLAIN_KEY.match(name) else f"{place}[{name!r}]"


def _parts(text: str, place: str, read: Callable[[str, str], _P]) -> Iterator[str | _P]:
    at = 0
    while (start := text.find(OPEN, at)) >= 0:
        yield text[at:start]
        if text.startswith(LITERAL, start):
            yield OPEN
            at = start + len(LITERAL)
            continue
        end = text.find(CLOSE, start)
        if end < 0:
            raise TemplateError(
                place, f"{OPEN} has no {CLOSE} after it: for these characters write {LITERAL}"
            )
        yield read(text[start + len(OPEN) : end], place)
        at = end + len(CLOSE)
    yield text[at:]
