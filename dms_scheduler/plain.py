"""Making what handlers give us fit to be stored: JSON in UTF-8, whatever bytes a file name had."""

from collections.abc import Mapping
from typing import Any, cast

from pydantic_core import to_jsonable_python


def plain_text(text: str) -> str:
    """`text` with lone surrogates (bytes of a name that is no UTF-8) as readable escapes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def plain(value: Any) -> Any:
    """`value` as JSON can carry it: dates, models, sets, paths converted, texts made plain.

    Raises ValueError, TypeError or RecursionError for what has no such form.
    """
    try:
        return _plain_texts(to_jsonable_python(value))
    except UnicodeEncodeError:  # a ValueError that would name a codec instead of the remedy
        return to_jsonable_python(_plain_texts(value))


def _plain_texts(value: Any) -> Any:
    if isinstance(value, str):
        return plain_text(value)
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {_plain_texts(key): _plain_texts(item) for key, item in items}
    if isinstance(value, list | tuple):
        return [_plain_texts(item) for item in cast("list[Any]", value)]
    return value
