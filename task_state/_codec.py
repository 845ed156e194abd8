"""Between a TaskRecord and what Redis holds of it."""

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, cast

from pydantic_core import from_json

from task_state.errors import InvalidRequestError
from task_state.models import LoadedState, TaskRecord, TaskResult, TaskStatus
from task_state.timezone import from_microseconds, to_microseconds

LOADED_LINES = 200


def encode_json(value: Any, what: str) -> str:
    """Compact JSON in UTF-8; raises InvalidRequestError for what JSON cannot carry."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{what} cannot be written as JSON: {error}") from error
    return text


def record_fields(task: TaskRecord) -> list[str]:
    """Field, value, ... of what save() writes; an empty value removes the field."""
    result = task.result
    return [
        "parameters", encode_json(task.parameters, "parameters") if task.parameters else "",
        "pod_status", result.pod_status or "",
        "data", "" if result.data is None else encode_json(result.data, "result.data"),
        "error", result.error or "",
        "jobs", encode_json(task.jobs, "jobs") if task.jobs else "",
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


def _pairs(flat: Sequence[bytes]) -> dict[str, bytes]:
    items: Iterator[bytes] = iter(flat)
    return {name.decode(): value for name, value in zip(items, items, strict=True)}


def _time(raw: dict[str, bytes], name: str) -> datetime | None:
    value = raw.get(name)
    return None if value is None else from_microseconds(int(value))


def _text(raw: dict[str, bytes], name: str) -> str | None:
    value = raw.get(name)
    return None if value is None else value.decode("utf-8", "replace")


def _json(raw: dict[str, bytes], name: str, default: Any) -> Any:
    value = raw.get(name)
    return default if value is None else from_json(value)


def decode_record(
    task_id: str,
    flat: Sequence[bytes],
    *,
    lines: Sequence[bytes] = (),
    logs_total: int = 0,
    output: bytes | None = None,
) -> TaskRecord:
    """A record from its hash. What the store holds was validated when it was written: it is not
    validated again, which makes a page of 200 records cheap."""
    raw = _pairs(flat)
    result = TaskResult.model_construct(
        pod_status=_text(raw, "pod_status"),
        launcher_output=None if output is None else output.decode("utf-8", "replace"),
        data=_json(raw, "data", None),
        error=_text(raw, "error"),
    )
    task = TaskRecord.model_construct(
        task_id=task_id,
        service=raw["service"].decode(),
        user_id=raw["user_id"].decode(),
        status=TaskStatus(raw["status"].decode()),
        parameters=_json(raw, "parameters", {}),
        logs=[line.decode("utf-8", "replace") for line in lines],
        result=result,
        jobs=_json(raw, "jobs", []),
        created_at=cast("datetime", _time(raw, "created_at")),
        updated_at=cast("datetime", _time(raw, "updated_at")),
        started_at=_time(raw, "started_at"),
        completed_at=_time(raw, "completed_at"),
        attempts=int(raw.get("attempts", 0)),
        max_attempts=int(raw.get("max_attempts", 3)),
        epoch=int(raw.get("epoch", 0)),
        progress=_json(raw, "progress", None),
        description=_text(raw, "description"),
        retry_of=_text(raw, "retry_of"),
        schedule_id=_text(raw, "schedule_id"),
        managed=raw.get("managed") == b"1",
        revision=int(raw["revision"]),
        logs_total=logs_total,
    )
    task.remember(LoadedState(task))
    return task
