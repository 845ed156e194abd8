"""Between stored schedules, with their histories, and what Redis holds of them."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn, cast

from pydantic import ValidationError
from pydantic_core import from_json

from task_state._codec import encode_object
from task_state._schedule_models import (
    MAX_PARAMETERS_BYTES,
    MAX_SLOT_TASKS,
    SCHEDULE_PATTERN,
    Fire,
    ScheduleRecord,
    ScheduleSpec,
    SlotTask,
)
from task_state._store import Argument
from task_state.errors import (
    InvalidRequestError,
    ScheduleConflictError,
    ScheduleExistsError,
    ScheduleNotFoundError,
    ScheduleUnreadableError,
    ServiceDrainingError,
)
from task_state.log_entry import format_log_entry
from task_state.models import JsonObject
from task_state.timezone import from_microseconds, get_timezone, now

MAX_REASON = 500
_ID = re.compile(SCHEDULE_PATTERN)


def check_schedule_id(schedule_id: str) -> None:
    """Raises InvalidRequestError for what cannot name a schedule."""
    if not _ID.fullmatch(schedule_id):
        raise InvalidRequestError(
            f"schedule_id {schedule_id!r:.80} is no name of a schedule: 1 to 64 letters of "
            "A-Z a-z 0-9 . _ - make one, and the first is no dot"
        )


def check_reason(reason: str | None) -> str:
    """The reason as the scripts take it."""
    if reason is not None and len(reason) > MAX_REASON:
        raise InvalidRequestError(
            f"a reason of {len(reason)} characters: say it in at most {MAX_REASON}"
        )
    return reason or ""


def encode_parameters(parameters: JsonObject, most: int) -> str:
    """Parameters as JSON, nothing for none."""
    text = encode_object(parameters, "parameters")
    if len(text.encode()) > most:
        raise InvalidRequestError(
            f"the parameters are {len(text.encode())} bytes of JSON, more than {most}: put what is "
            "large in a file, and give its path"
        )
    return text if parameters else ""


def spec_fields(spec: ScheduleSpec) -> list[str]:
    """Field, value, ...: the whole for the callers, and what the scripts need of it."""
    encode_parameters(spec.parameters, MAX_PARAMETERS_BYTES)
    return [
        "spec", spec.model_dump_json(),
        "service", spec.service,
        "user_id", spec.user_id,
        "overlap", spec.overlap,
        "pause_after", str(spec.pause_after_failures or ""),
    ]  # fmt: skip


def slot_arguments(schedule_id: str, tasks: Sequence[SlotTask]) -> list[Argument]:
    """Slot, log line, parameters of each task; raises InvalidRequestError where that is too much,
    or where slots are not whole seconds in their order."""
    slots = [task.slot for task in tasks]
    if len(slots) > MAX_SLOT_TASKS:
        raise InvalidRequestError(f"{len(slots)} slots in one call: give at most {MAX_SLOT_TASKS}")
    if any(slot < 0 for slot in slots) or slots != sorted(set(slots)):
        raise InvalidRequestError("slots must be seconds since 1970, each once, oldest first")
    arguments: list[Argument] = []
    for task in tasks:
        at = datetime.fromtimestamp(task.slot, get_timezone()).isoformat()
        line = format_log_entry(f"Submitted by schedule {schedule_id} for {at}")
        arguments += [task.slot, line, encode_parameters(task.parameters, 4 * MAX_PARAMETERS_BYTES)]
    return arguments


def stamp() -> str:
    """The time prefix of log lines that a script writes."""
    return now().isoformat(timespec="microseconds")


def refused(schedule_id: str, reply: Any) -> None:
    """Raise what a script refuses."""
    parts = cast("list[bytes]", reply) if isinstance(reply, list) else []
    if parts and parts[0] == b"!":
        _refusal(schedule_id, *(part.decode() for part in parts[1:]))


def _refusal(schedule_id: str, code: str, *rest: str) -> NoReturn:
    match code:
        case "MISSING":
            raise ScheduleNotFoundError(schedule_id)
        case "EXISTS":
            raise ScheduleExistsError(schedule_id)
        case "CONFLICT":
            raise ScheduleConflictError(schedule_id)
        case "DRAINING":
            raise ServiceDrainingError(rest[0])
        case "EARLY":
            raise InvalidRequestError(
                "a slot lies in the future: only slots of the past can be made up"
            )
        case _:
            raise AssertionError(f"the scripts have no refusal {code!r}")


def decode_schedule(row: Sequence[Any]) -> ScheduleRecord:
    """A schedule as the scripts show it; raises ScheduleUnreadableError."""
    name, flat, active_count, active, buffered = row
    schedule_id = cast("bytes", name).decode()
    pairs = iter(cast("list[bytes]", flat))
    fields = {field.decode(): value for field, value in zip(pairs, pairs, strict=True)}
    paused_at = fields.get("paused_at")
    reason = fields.get("reason")
    return ScheduleRecord(
        schedule_id=schedule_id,
        spec=_decode_spec(schedule_id, fields["spec"]),
        source="file" if fields["source"] == b"file" else "api",
        revision=int(fields["revision"]),
        created_at=from_microseconds(fields["created_at"]),
        updated_at=from_microseconds(fields["updated_at"]),
        paused=paused_at is not None,
        paused_at=None if paused_at is None else from_microseconds(paused_at),
        reason=reason.decode("utf-8", "replace") if reason else None,
        cursor=int(fields["cursor"]),
        **_counters(fields),
        active=[task_id.decode() for task_id in active],
        active_count=active_count,
        buffered=sorted(int(slot) for slot in buffered),
    )


def _counters(fields: Mapping[str, bytes]) -> dict[str, int]:
    return {name: int(fields.get(name, 0)) for name in ("fired", "missed", "skipped", "failures")}


def _decode_spec(schedule_id: str, text: bytes) -> ScheduleSpec:
    """A newer version may have written fields that this one does not know: they are passed over,
    but one that it knows must have a value that it knows."""
    known = ScheduleSpec.model_fields
    try:
        values = {name: value for name, value in from_json(text).items() if name in known}
        return ScheduleSpec.model_validate(values)
    except (ValueError, AttributeError) as error:
        what = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise ScheduleUnreadableError(schedule_id, what) from error


def decode_fire(text: bytes) -> Fire:
    """An entry of the history, or of an answer."""
    entry = cast("dict[str, Any]", json.loads(text))
    return Fire(
        slot=entry.get("slot"),
        at=from_microseconds(int(entry["at"])),
        kind=entry["kind"],
        outcome=entry["outcome"],
        task_id=entry.get("task"),
        reason=entry.get("reason"),
        count=entry["count"],
        first=entry.get("first"),
        number=entry["number"],
    )
