"""Following a task's log live, taken up again where the connection broke."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from cli.client import Api, UnreachableError
from cli.errors import CliError, ExitCode

_PATIENCE_SECONDS = 60.0
_PAUSE_SECONDS = 1.0


def follow_logs(
    api: Api, path: str, user: str, offset: int = 0, pause: Callable[[float], None] = time.sleep
) -> Iterator[str]:
    """A task's log lines, then each new one, until the task has ended.

    `offset` leaves out so many lines at first; a negative one counts from the end.

    A broken connection is taken up again after the last line; raises CliError when nothing
    answers for a minute, or when the task is not there.
    """
    last: str | None = None
    heard = time.monotonic()
    while True:
        try:
            for event in api.events(path, params={"user_id": user, "offset": offset}, last=last):
                heard = time.monotonic()
                if event.event == "end":
                    _must_exist(json.loads(event.data))
                    return
                if event.event == "log":
                    last = event.id or last
                    yield json.loads(event.data)["line"]
        except UnreachableError:
            if time.monotonic() - heard > _PATIENCE_SECONDS:
                raise
        # The stream ended without its last word: the frontend stops, and another may answer.
        pause(_PAUSE_SECONDS)


def _must_exist(end: dict[str, Any]) -> None:
    """The last event names the status that the task ended with, or none if it was deleted."""
    if end["status"] is None:
        raise CliError("the task was deleted while its log was read", "", ExitCode.NOT_FOUND)
