"""A task's report as it comes: pieces of bytes, of which lines are made."""

import json
from collections.abc import Iterator
from typing import Final

from app.client._flow import Json
from app.client.errors import UnexpectedAnswerError

_MOST_BYTES: Final = 1024 * 1024


class Lines:
    """Makes JSON objects of the bytes of NDJSON, however they are cut."""

    def __init__(self) -> None:
        self._rest = b""

    def take(self, piece: bytes) -> Iterator[Json]:
        """The lines that are whole by now; raises UnexpectedAnswerError for what is no object."""
        *whole, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > _MOST_BYTES:
            raise _unexpected("a line without an end")
        return map(_object, whole)


def _object(line: bytes) -> Json:
    try:
        found: object = json.loads(line)
    except ValueError:
        raise _unexpected(repr(line[:80])) from None
    if not isinstance(found, dict):
        raise _unexpected(repr(line[:80]))
    return found  # pyright: ignore[reportUnknownVariableType]  (JSON objects have texts as names)


def _unexpected(what: str) -> UnexpectedAnswerError:
    return UnexpectedAnswerError(f"the report has {what} among its lines", "is this a DMS?")
