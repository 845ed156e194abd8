"""Removes what a step that was stopped left at its destination, as long as a cancel may wait.

rclone removes unfinished files itself, but not when its job was stopped in the very moment of it:
the removal then runs with what was stopped, and is skipped.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from dms_scheduler.movers.rclone.answers import fields, items
from dms_scheduler.movers.rclone.daemon import Daemon

_PAUSE_SECONDS = 0.02
_FILES_ALONE = {"filesOnly": True, "noModTime": True, "noMimeType": True}


def remove_unfinished(
    daemon: Daemon, fs: str, suffix: str, paths: Iterable[str], end: float
) -> None:
    """Remove the files with this task's `suffix` beside `paths`, which were on their way.

    Gives up at the monotonic time `end`. Raises CallError and RcloneError.
    """
    for folder in {path.rpartition("/")[0] for path in paths}:
        parameters = {"fs": fs, "remote": folder, "opt": _FILES_ALONE}
        answer = _within(daemon, "operations/list", parameters, end)
        for item in map(fields, items(answer.get("list"))):
            path = str(item.get("Path", ""))
            if path.endswith(suffix):
                _within(daemon, "operations/deletefile", {"fs": fs, "remote": path}, end)


def _within(
    daemon: Daemon, call: str, parameters: Mapping[str, object], end: float
) -> dict[str, object]:
    """Return the answer of a call, nothing if it has none by the time `end`."""
    number = daemon.call(call, {**parameters, "_async": True})["jobid"]
    while time.monotonic() < end:
        status = daemon.call("job/status", {"jobid": number})
        if status.get("finished"):
            return fields(status.get("output"))
        time.sleep(_PAUSE_SECONDS)
    return {}
