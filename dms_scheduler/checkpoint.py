"""One attempt's checkpoint on the handler's side: what was saved last, as JSON gives it back."""

import json
from typing import Any

from pydantic_core import from_json

from app.tasks import CheckpointError
from dms_scheduler.plain import plain
from task_state.models import MAX_CHECKPOINT_BYTES


class SavedCheckpoint:
    """Begins with what an earlier attempt saved. Kept as text, so that nobody can change it by
    changing what was read, and so that a handler reads at once what its next attempt would."""

    def __init__(self, value: Any) -> None:
        self._text = _encode(value)

    def save(self, value: Any) -> Any:
        """Take `value`, and answer it as it is to be stored; raises CheckpointError."""
        try:
            made = plain(value)
            text = _encode(made)
            from_json(text)  # what is nested too deep could be written, but never read
        except (ValueError, TypeError, RecursionError) as error:
            raise CheckpointError(
                f"the checkpoint cannot be written as JSON: {error}; save plain values"
            ) from error
        if len(text) > MAX_CHECKPOINT_BYTES:
            raise CheckpointError(
                f"the checkpoint is {len(text)} bytes of JSON, more than {MAX_CHECKPOINT_BYTES}: "
                "save where the work stands, and put what is large in a file"
            )
        self._text = text
        return made

    def read(self) -> Any:
        """A copy of what was saved last; None if nothing was."""
        return from_json(self._text)


def _encode(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
