"""Reads rclone's JSON log: what was done with which path, and what went wrong."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import cast


class Kind(StrEnum):
    """What a line of the log tells."""

    COPIED = "copied"
    MADE = "made"
    UPDATED = "updated"
    DELETED = "deleted"
    MOVED = "moved"
    FOLDER_DELETED = "folder_deleted"
    SPECIAL = "special"
    FAILED = "failed"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Event:
    """One line; `path` is relative to the source or destination, `size` in bytes if known."""

    kind: Kind
    path: str
    message: str
    size: int | None = None


_PLANNED = {
    "copy": Kind.COPIED,
    "make directory": Kind.MADE,
    "update modification time": Kind.UPDATED,
    "set modification time": Kind.UPDATED,
    "delete": Kind.DELETED,
    "remove directory": Kind.FOLDER_DELETED,
    "move": Kind.MOVED,
    "move into backup dir": Kind.MOVED,
}
_DONE = (
    ("Copied (", Kind.COPIED),
    ("Multi-thread Copied (", Kind.COPIED),
    ("Making directory", Kind.MADE),
    ("Updated modification time", Kind.UPDATED),
    ("Deleted", Kind.DELETED),
    ("Moved (", Kind.MOVED),
    ("Removing directory", Kind.FOLDER_DELETED),
    ("Can't transfer non file/directory", Kind.SPECIAL),
)


def read_line(line: bytes) -> Event | None:
    """Return what a line of the log tells, None if it is no JSON object."""
    try:
        value: object = json.loads(line)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    fields = cast("dict[str, object]", value)
    message = str(fields.get("msg", ""))
    path = fields.get("object")
    if str(fields.get("objectType", "")).endswith("Fs"):
        path = None  # it is about a side as a whole
    size = fields.get("size")
    kind = _kind(fields, message, has_path=isinstance(path, str))
    return Event(
        kind,
        path if isinstance(path, str) else "",
        message,
        size if isinstance(size, int) else None,
    )


def _kind(fields: dict[str, object], message: str, *, has_path: bool) -> Kind:
    if fields.get("level") in {"error", "critical", "alert", "emergency"}:
        return Kind.FAILED
    if not has_path:
        return Kind.NOTE
    planned = fields.get("skipped")
    if isinstance(planned, str):
        return _PLANNED.get(planned, Kind.NOTE)
    for beginning, kind in _DONE:
        if message.startswith(beginning):
            return kind
    return Kind.NOTE
