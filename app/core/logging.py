"""Structured logs of every DMS process: a constant message, an `action`, ids as fields.

Write them as `log.info("Task accepted", extra={"action": "task.submit", "task_id": ...})`. In JSON
(the default) the fields are keys beside the message; otherwise they follow it. The standard library
carries them, so the lines of uvicorn, docket and users' modules take the same form.
"""

import json
import logging
import re
import sys
from collections.abc import Collection, Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import Any, Final, cast

import orjson

from app.core.config import Settings
from task_state.timezone import get_timezone

request_id_var: ContextVar[str | None] = ContextVar("dms_request_id", default=None)
"""The id of the HTTP request being served; every log line written meanwhile carries it."""

_MAX_TEXT: Final = 8192
_MAX_DEPTH: Final = 6
_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {
    "message",
    "asctime",
    "taskName",
}
# uvicorn repeats its message with colours in this field.
_IGNORED: Final = _STANDARD | {"color_message"}
# Escape sequences first (CSI, OSC, then any other), so that no rest of one stays readable.
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b.?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def clean(text: str) -> str:
    """One line that cannot steer a terminal or forge a second line; at most 8192 characters."""
    if len(text) > _MAX_TEXT:
        text = text[:_MAX_TEXT] + "..."
    if text.isprintable():
        return text
    return _CONTROL.sub(" ", _ANSI.sub("", text.expandtabs(4)))


def _plain(value: object, depth: int = 0) -> Any:
    """The value as JSON can carry it, with every text in it cleaned."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str) or depth >= _MAX_DEPTH:
        return clean(str(value))
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return {clean(str(key)): _plain(item, depth + 1) for key, item in items}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, depth + 1) for item in cast("Collection[object]", value)]
    return clean(str(value))


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = {
        name: _plain(value)
        for name, value in record.__dict__.items()
        if name not in _IGNORED and not name.startswith("_")
    }
    request_id = request_id_var.get()
    if request_id is not None:
        fields.setdefault("request_id", request_id)
    return fields


class JsonFormatter(logging.Formatter):
    """One JSON object a line. A traceback is one field, its lines kept apart by escapes."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, get_timezone()).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": clean(record.getMessage()),
        }
        entry |= {name: value for name, value in _fields(record).items() if name not in entry}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(entry, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
        except TypeError:  # half a surrogate pair in a text, or an integer past 64 bits
            text = json.dumps(entry, ensure_ascii=False, default=str)
            return text.encode(errors="replace").decode()


class PrettyFormatter(logging.Formatter):
    """A line for people: time, level, message, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, get_timezone()).strftime("%H:%M:%S.%f")[:-3]
        fields = " ".join(f"{name}={value}" for name, value in _fields(record).items())
        line = f"{time} {record.levelname:<7} {clean(record.getMessage())}  {fields}".rstrip()
        if record.exc_info:
            trace = self.formatException(record.exc_info).splitlines()
            line = "\n".join([line, *(clean(part) for part in trace)])
        return line.encode(errors="replace").decode()


def configure_logging(settings: Settings) -> None:
    """Send all logs of this process to stdout in one form; calling it again replaces the form."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter() if settings.log_json else PrettyFormatter())
    root = logging.getLogger()
    for old in [
        h for h in root.handlers if isinstance(h.formatter, JsonFormatter | PrettyFormatter)
    ]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(settings.log_level)
    _adopt_uvicorn()
    # One line a request is our middleware's; these would add one for every call to the scheduler.
    for chatty in ("httpx2", "httpcore2"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _adopt_uvicorn() -> None:
    """`uvicorn app.main:app` brings handlers of its own: its lines shall take our form instead."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
