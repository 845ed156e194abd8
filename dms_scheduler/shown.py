"""One attempt's progress on the handler's side: made plain and bounded before it goes anywhere."""

import json
from collections.abc import Callable, Mapping
from typing import Any, cast

from app.tasks import TasksError
from dms_scheduler.plain import plain

MAX_PROGRESS_BYTES = 16 * 1024


class ShownProgress:
    """Takes what a handler shows. What is too large is left out, and `log` is told so once: a
    display is no reason to end a task that does its work."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._told = False

    def take(self, values: object) -> dict[str, Any] | None:
        """The progress as it is to be stored, None when it is too large. Raises TasksError, in the
        handler, for what is no JSON object."""
        made, size = _plain_object(values)
        if size <= MAX_PROGRESS_BYTES:
            return made
        if not self._told:
            self._told = True
            self._log(
                f"Progress of {size} bytes of JSON is not shown, only up to {MAX_PROGRESS_BYTES} "
                "are: show counts and names, and put what is large in the log or a file"
            )
        return None


def _plain_object(values: object) -> tuple[dict[str, Any], int]:
    """It, and the bytes that it takes."""
    if not isinstance(values, Mapping):
        raise TasksError(
            f"progress() shows a JSON object such as {{'phase': 'copy', 'done': 1}}, "
            f"not {values!r:.100}"
        )
    try:
        made = plain(cast("Mapping[Any, Any]", values))
        text = json.dumps(made, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (ValueError, TypeError, RecursionError) as error:
        raise TasksError(
            f"the progress cannot be written as JSON: {error}; show plain values"
        ) from error
    return made, len(text.encode())
