"""Between a TaskRecord and what Redis holds of it."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from pydantic_core import from_json

from task_state.errors import InvalidRequestError
from task_state.models import NAME_PATTERN, JsonObject, TaskRecord
from task_state.timezone import from_microseconds, to_microseconds

LOADED_LINES = 200
LOADED_OUTPUT_BYTES = 2**20


_NAME = re.compile(NAME_PATTERN)


def check_name(name: str, what: str) -> None:
    """Raises InvalidRequestError for what cannot be a part of a key."""
    if not _NAME.fullmatch(name):
        raise InvalidRequestError(
            f"{what} {name!r:.80} is no name: 1 to 64 letters of A-Z a-z 0-9 . _ @ - make one"
        )


def encode_json(value: Any, what: str) -> str:
    """Compact JSON in UTF-8; raises InvalidRequestError for what JSON cannot carry, or carries so
    deep (about 200 levels) that it could not be read back."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        from_json(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{what} cannot be written as JSON: {error}") from error
    return text


def encode_object(value: JsonObject, what: str) -> str:
    """The same, of a JSON object and nothing else."""
    if not isinstance(value, dict):  # pyright: ignore[reportUnnecessaryIsInstance]  (other programs)
        raise InvalidRequestError(f"{what} must be a JSON object (a dict), not {value!r:.80}")
    return encode_json(value, what)


def _encode_jobs(jobs: Sequence[str]) -> str:
    if not all(isinstance(job, str) for job in jobs):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidRequestError(f"jobs must be texts: {jobs!r:.200}")
    return encode_json(jobs, "jobs")


def record_fields(task: TaskRecord) -> list[str]:
    """Field, value, ... of what save() writes; an empty value removes the field."""
    result = task.result
    return [
        "parameters", encode_object(task.parameters, "parameters") if task.parameters else "",
        "pod_status", result.pod_status or "",
        "data", "" if result.data is None else encode_json(result.data, "result.data"),
        "error", result.error or "",
        "jobs", _encode_jobs(task.jobs) if task.jobs else "",
        "started_at", _stamp(task.started_at),
        "completed_at", _stamp(task.completed_at),
        "max_attempts", str(task.max_attempts),
        "description", task.description or "",
        "retry_of", task.retry_of or "",
        "schedule_id", task.schedule_id or "",
    ]  # fmt: skip


def present(fields: Iterable[str]) -> list[str]:
    """The pairs that have a value: a new record need not remove anything."""
    pairs = iter(fields)
    return [
        part for name, value in zip(pairs, pairs, strict=True) if value for part in (name, value)
    ]


def _stamp(value: datetime | None) -> str:
    return "" if value is None else str(to_microseconds(value))


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _flag(value: bytes) -> bool:
    return value == b"1"


TIMES = ("created_at", "updated_at", "started_at", "completed_at")
_RESULT: dict[bytes, Callable[[bytes], Any]] = {
    b"pod_status": _text,
    b"error": _text,
    b"data": from_json,
}
_FIELDS: dict[bytes, Callable[[bytes], Any]] = {
    **dict.fromkeys((b"service", b"user_id", b"status"), _text),
    **dict.fromkeys((b"description", b"retry_of", b"schedule_id"), _text),
    **dict.fromkeys((b"attempts", b"max_attempts", b"epoch", b"revision"), int),
    **dict.fromkeys((b"parameters", b"jobs", b"progress"), from_json),
    **dict.fromkeys((name.encode() for name in TIMES), from_microseconds),
    b"managed": _flag,
}


def decode_record(
    task_id: str,
    flat: Sequence[bytes],
    *,
    lines: Sequence[bytes] = (),
    logs_total: int = 0,
    output: bytes | None = None,
) -> TaskRecord:
    """A record from its hash, the last of its log lines, their number, and its output. Fields that
    this version does not know (a newer one wrote them) are passed over."""
    values: dict[str, Any] = {"task_id": task_id, "logs_total": logs_total}
    result: dict[str, Any] = {}
    items = iter(flat)
    for name, value in zip(items, items, strict=True):
        if decode := _FIELDS.get(name):
            values[name.decode()] = decode(value)
        elif decode := _RESULT.get(name):
            result[name.decode()] = decode(value)
    if output:
        result["launcher_output"] = _text(output)
    task = TaskRecord.model_validate(
        values | {"logs": [_text(line) for line in lines], "result": result}
    )
    task.stored()
    return task
