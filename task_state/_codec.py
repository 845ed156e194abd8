"""Between a TaskRecord and what Redis holds of it."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, tzinfo
from functools import lru_cache
from typing import Any

from pydantic_core import from_json

from task_state.errors import InvalidRequestError
from task_state.models import (
    NAME_PATTERN,
    AttemptNote,
    JsonObject,
    LoadedState,
    TaskRecord,
    TaskResult,
    TaskStatus,
)
from task_state.timezone import from_microseconds, get_timezone, to_microseconds

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


def _status(value: bytes) -> TaskStatus:
    return _STATUSES.get(value) or TaskStatus(_text(value))


def _history(value: bytes) -> list[AttemptNote]:
    """Notes as the scripts append them: JSON objects with commas between, times in microseconds."""
    notes = from_json(b"[" + value + b"]")
    return [
        AttemptNote.model_validate(note | {"ended_at": from_microseconds(note["ended_at"])})
        for note in notes
    ]


TIMES = ("created_at", "updated_at", "started_at", "completed_at")
_RESULT = ("pod_status", "data", "error")
_PIECE = 64  # as the scripts cut long values up (prelude.lua)
_STATUSES = {status.encode(): status for status in TaskStatus}
_Decoders = Mapping[bytes, tuple[str, Callable[[bytes], Any]]]


def _named(decode: Callable[[bytes], Any], *names: str) -> _Decoders:
    return {name.encode(): (name, decode) for name in names}


@lru_cache(maxsize=8)
def _fields(zone: tzinfo) -> _Decoders:
    def time(value: bytes) -> datetime:
        return from_microseconds(value, zone)

    return {
        **_named(_text, "service", "user_id", "description", "retry_of", "schedule_id"),
        **_named(int, "attempts", "max_attempts", "epoch", "revision"),
        **_named(_text, "pod_status", "error"),
        **_named(from_json, "parameters", "jobs", "progress", "checkpoint", "data"),
        **_named(time, *TIMES),
        b"log_lines": ("logs_total", int),
        **_named(_status, "status"),
        **_named(_history, "history"),
        **_named(_flag, "managed"),
    }


def _uncut(rest: Mapping[bytes, bytes], name: bytes, value: bytes) -> bytes:
    """The whole of a value whose first piece is `value`."""
    pieces = [value]
    while len(pieces[-1]) == _PIECE:
        pieces.append(rest.get(b"%b:%d" % (name, len(pieces)), b""))
    return b"".join(pieces)


def _decoded(flat: Sequence[bytes], fields: _Decoders) -> dict[str, Any]:
    """The fields that this version knows; a newer one may have written others."""
    values: dict[str, Any] = {}
    rest: dict[bytes, bytes] = {}
    first_pieces: list[tuple[bytes, bytes]] = []
    pairs = iter(flat)
    for name, value in zip(pairs, pairs, strict=True):
        if (found := fields.get(name)) is None:
            rest[name] = value
        elif len(value) == _PIECE:
            first_pieces.append((name, value))
        else:
            values[found[0]] = found[1](value)
    for name, value in first_pieces:
        field, decode = fields[name]
        values[field] = decode(_uncut(rest, name, value))
    return values


def _blank(model: type[TaskRecord | TaskResult]) -> dict[str, Any]:
    """Every field in its order with its default, but for those that have a factory."""
    return {
        name: None if field.is_required() else field.get_default()
        for name, field in model.model_fields.items()
    }


_BLANK, _BLANK_RESULT = _blank(TaskRecord), _blank(TaskResult)


def _trusted(values: dict[str, Any], result: dict[str, Any]) -> TaskRecord:
    """A record of values that were validated when they were stored: to check them again would be
    half of the cost of a listing. It is what `model_construct` makes, in a third of the time."""
    record, outcome = TaskRecord.__new__(TaskRecord), TaskResult.__new__(TaskResult)
    values["result"] = outcome
    _fill(outcome, _BLANK_RESULT | result, set(result), None)
    known = set(values)
    values = {**_BLANK, "parameters": {}, "jobs": [], "history": [], **values}
    _fill(record, values, known, None)
    _fill(record, values, known, {"_loaded": LoadedState(record)})
    return record


def _fill(
    model: TaskRecord | TaskResult,
    values: dict[str, Any],
    known: set[str],
    private: dict[str, Any] | None,
) -> None:
    put = object.__setattr__
    put(model, "__dict__", values)
    put(model, "__pydantic_fields_set__", known)
    put(model, "__pydantic_extra__", None)
    put(model, "__pydantic_private__", private)


def decode_record(
    task_id: str,
    flat: Sequence[bytes],
    *,
    lines: Sequence[bytes] = (),
    logs_total: int | None = None,
    output: bytes | None = None,
    zone: tzinfo | None = None,
) -> TaskRecord:
    """A record from its hash, the last of its log lines, their number (None where the hash tells
    it), and its output. Fields that this version does not know (a newer one wrote them) are passed
    over."""
    values = _decoded(flat, _fields(zone or get_timezone()))
    result = {name: values.pop(name) for name in _RESULT if name in values}
    if output:
        result["launcher_output"] = _text(output)
    values["task_id"], values["logs"] = task_id, [_text(line) for line in lines]
    if logs_total is not None or "logs_total" not in values:
        values["logs_total"] = logs_total or 0
    return _trusted(values, result)


def decode_listed(found: Sequence[Any]) -> list[TaskRecord]:
    """The records of a listing: id, hash, id, hash ..."""
    zone, parts = get_timezone(), iter(found)
    return [
        decode_record(task_id.decode(), flat, zone=zone)
        for task_id, flat in zip(parts, parts, strict=True)
    ]
