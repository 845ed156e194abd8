"""Between a TaskRecord and what Redis holds of it."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, tzinfo
from typing import Any

from pydantic import BaseModel
from pydantic_core import from_json

from task_state._layout import FIELDS, LINE_BREAK
from task_state.errors import InvalidRequestError
from task_state.models import (
    AttemptNote,
    JsonObject,
    LoadedState,
    TaskRecord,
    TaskReport,
    TaskResult,
    TaskStatus,
)
from task_state.naming import NAME_WORDS, is_name
from task_state.timezone import from_microseconds, get_timezone, to_microseconds

LOADED_LINES = 200
LOADED_OUTPUT_BYTES = 2**20


def check_name(name: str, what: str) -> None:
    """Raises InvalidRequestError for what cannot be a part of a key."""
    if not is_name(name):
        raise InvalidRequestError(f"{what} {name!r:.80} is no name: {NAME_WORDS}")


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


def changed_fields(task: TaskRecord) -> list[str]:
    """The same of a loaded record, without what a listing left out and nobody has set since.

    Raises InvalidRequestError for such a field that was changed in place: what it held is unknown.
    """
    hidden = frozenset[str]() if task.loaded is None else task.loaded.omitted
    left = {LISTED[name] for name in hidden if name in LISTED and not _is_set(task, name)}
    pairs = iter(record_fields(task))
    kept: list[str] = []
    for name, value in zip(pairs, pairs, strict=True):
        if name not in left:
            kept += [name, value]
        elif value:
            raise InvalidRequestError(
                f"task {task.task_id!r}: {name} was left out of the listing that it comes from, "
                "and was changed nevertheless: get() the task, change that one, and save it"
            )
    return kept


def still_omitted(task: TaskRecord) -> list[str]:
    """What a record from a listing lacks after it was saved."""
    hidden = () if task.loaded is None else task.loaded.omitted
    return sorted(name for name in hidden if not _is_set(task, name))


def _is_set(task: TaskRecord, name: str) -> bool:
    """Whether somebody has given the field a value."""
    model, _, field = name.rpartition(".")
    return field in (task.result if model else task).model_fields_set


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


def _history(notes: list[dict[str, Any]]) -> list[AttemptNote]:
    """Notes as the scripts write them: times in microseconds."""
    return [
        AttemptNote.model_validate(note | {"ended_at": from_microseconds(note["ended_at"])})
        for note in notes
    ]


TIMES = ("created_at", "updated_at", "started_at", "completed_at")
_RESULT = ("pod_status", "data", "error")
# The fields that a listing may leave out, by their names in a record, and as they are stored.
LISTED = {
    **{name: name for name in ("parameters", "progress", "checkpoint", "jobs", "description")},
    **{f"result.{name}": name for name in _RESULT},
    "history": "history",
}
_RECORD_NAMES = {stored: name for name, stored in LISTED.items()}
_STATUSES = {status.value: status for status in TaskStatus}
_BREAK = LINE_BREAK.encode()
_Row = Sequence[Any]
_KNOWN = len(FIELDS)
_MISSING: _Row = (None,) * _KNOWN
_MAX_ATTEMPTS: int = TaskRecord.model_fields["max_attempts"].default
_SET, _SET_RESULT = set(TaskRecord.model_fields), set(TaskResult.model_fields)
# The slots of every model: to set them by name takes twice as long.
_put_dict, _put_known, _put_extra, _put_private = (
    vars(BaseModel)[f"__{name}__"].__set__
    for name in ("dict", "pydantic_fields_set", "pydantic_extra", "pydantic_private")
)


def _value(text: bytes) -> Any:
    """A value of a line, parsed alone: as deep as it may be, and readable whatever its bytes."""
    return from_json(_text(text))


def _rows(lines: Sequence[bytes]) -> list[_Row]:
    """The values of each line. All are parsed at once; where that fails (a value nested as deep as
    JSON may be, or a text that is not UTF-8) each value alone."""
    if not lines:
        return []
    try:
        return from_json(b"[[" + b"],[".join(lines) + b"]]")
    except ValueError:
        return [[_value(part) for part in line.split(_BREAK)] for line in lines]


def _record(
    task_id: str,
    row: _Row,
    zone: tzinfo,
    logs: list[str],
    logs_total: int | None,
    output: str | None,
) -> TaskRecord:
    """A record of values that were validated when they were stored: to check them again would be
    half of the cost of a listing. It is what `model_construct` makes, in a fifth of the time."""
    (
        status, service, user_id, created, updated, revision, epoch, managed, started, _,
        log_lines, completed, attempts, max_attempts, parameters, _, data, error, jobs, pod_status,
        progress, description, retry_of, schedule_id, history, _, checkpoint, worker, left_out,
        report, adjust,
    ) = (*row[:_KNOWN], *_MISSING[len(row) :])  # fmt: skip
    result = TaskResult.__new__(TaskResult)
    outcome = {"pod_status": pod_status, "launcher_output": output, "data": data, "error": error}
    known, known_of_result = _SET.copy(), _SET_RESULT.copy()
    named: list[str] = left_out.split() if left_out else []
    omitted = [_RECORD_NAMES.get(name, name) for name in named]
    for name in omitted:  # so that save() sees whether somebody sets them
        known.discard(name)
        known_of_result.discard(name.removeprefix("result."))
    _fill(result, outcome, known_of_result, None)
    updated_at = from_microseconds(updated, zone)
    values: dict[str, Any] = {
        "task_id": task_id,
        "service": service,
        "user_id": user_id,
        "status": _STATUSES.get(status) or TaskStatus(status),
        "parameters": parameters or {},
        "logs": logs,
        "result": result,
        "jobs": jobs or [],
        "created_at": from_microseconds(created, zone),
        "updated_at": updated_at,
        "started_at": _time(started, zone),
        "completed_at": updated_at if completed == updated else _time(completed, zone),
        "attempts": attempts or 0,
        "max_attempts": _MAX_ATTEMPTS if max_attempts is None else max_attempts,
        "epoch": epoch or 0,
        "progress": progress,
        "checkpoint": checkpoint,
        "history": _history(history) if history else [],
        "description": description,
        "retry_of": retry_of,
        "schedule_id": schedule_id,
        "worker": worker,
        "report": TaskReport(lines=report[0], omitted=report[1]) if report else None,
        "adjust": adjust,
        "managed": managed == 1,
        "revision": revision or 0,
        "logs_total": (log_lines or 0) if logs_total is None else logs_total,
        "omitted": omitted,
    }
    record = TaskRecord.__new__(TaskRecord)
    _fill(record, values, known, None)
    _put_private(record, {"_loaded": LoadedState(record)})
    return record


def _time(value: int | None, zone: tzinfo) -> datetime | None:
    return None if value is None else from_microseconds(value, zone)


def _fill(
    model: TaskRecord | TaskResult,
    values: dict[str, Any],
    known: set[str],
    private: dict[str, Any] | None,
) -> None:
    _put_dict(model, values)
    _put_known(model, known)
    _put_extra(model, None)
    _put_private(model, private)


def decode_record(
    task_id: str,
    line: bytes,
    *,
    lines: Sequence[bytes] = (),
    logs_total: int | None = None,
    output: bytes | None = None,
) -> TaskRecord:
    """A record from its line (_layout.py), the last of its log lines, their number (None where the
    line tells it), and its output. Values that this version does not know (a newer one wrote them)
    are passed over."""
    logs = [_text(entry) for entry in lines]
    text = _text(output) if output else None
    return _record(task_id, _rows([line])[0], get_timezone(), logs, logs_total, text)


def decode_listed(found: Sequence[bytes]) -> list[TaskRecord]:
    """The records of a listing: id, line, id, line ..."""
    zone, rows = get_timezone(), _rows(found[1::2])
    return [
        _record(task_id.decode(), row, zone, [], None, None)
        for task_id, row in zip(found[::2], rows, strict=True)
    ]
