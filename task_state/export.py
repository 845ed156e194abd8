"""Tasks as lines of JSON, with everything that is known of them, in bounded memory.

Three forms, one task a line. `jsonl` is the whole TaskRecord with all of its log lines, output and
report.
`flat` is made to be loaded into tables: the same columns in every row, each of one type.
`brief` is what pruning needs. docs/operations.md describes the columns.
"""

from base64 import b64encode
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, cast

from pydantic_core import to_json

from task_state import keys
from task_state._redis_repository import RedisTaskRepository
from task_state._store import Store
from task_state.models import TaskRecord, TaskReport
from task_state.reports import Reports

LINES_A_STEP = 500
_SEPARATORS = "\u0085\u2028\u2029"


class ExportForm(StrEnum):
    """How a task is written."""

    JSONL = "jsonl"
    FLAT = "flat"
    BRIEF = "brief"


@dataclass(frozen=True, slots=True)
class Seen:
    """A task as somebody read it: its revision and log lines, the bytes of its output and the time
    of its last change, or None where these do not matter.

    The revision alone does not tell a record from another one of its id that came after it.
    """

    task_id: str
    revision: int
    logs_total: int
    output_bytes: int | None = None
    updated_at: datetime | None = None


class TaskExport:
    """One task as one line, whole or flat, read from the writer.

    `seen` says, once all chunks were taken, how much of the task is in it: what `Retention.prune`
    compares. It stays None for a task that was gone before all of it was read.
    """

    def __init__(self, store: Store, task_id: str, form: ExportForm) -> None:
        self._store = store
        self._repository = RedisTaskRepository(store)
        self._task_id = task_id
        self._form = form
        self.seen: Seen | None = None

    async def chunks(self) -> AsyncGenerator[bytes]:
        """The line in pieces, its line break included; the log is read part by part. Nothing for a
        task that is gone.

        A log that grows meanwhile ends where it ended when its last part was read.
        """
        task = await self._repository.get(self._task_id)
        if task is None:
            return
        # Before the text is read: what grows in between is then noticed when the task is pruned.
        size = await self._output_size()
        columns = _flat if self._form is ExportForm.FLAT else _whole
        yield _json(columns(task, await self._output() if size else None))[:-1] + b',"logs":['
        total = 0
        async for lines in self._log():
            part = _json(lines)[1:-1]
            yield b"," + part if total else part
            total += len(lines)
        yield b'],"logs_total":%d' % total
        if self._form is ExportForm.JSONL:
            async for part in self._report(task.report):
                yield part
        yield b"}\n"
        if await self._repository.get(self._task_id) is not None:
            self.seen = Seen(self._task_id, task.revision, total, size, task.updated_at)

    async def _output_size(self) -> int:
        writer, key = self._store.writer, keys.output(self._task_id)
        size = await self._store.call(lambda: cast("Awaitable[Any]", writer.strlen(key)))
        return cast("int", size)

    async def _output(self) -> str | None:
        return await self._repository.get_launcher_output(self._task_id) or None

    async def _report(self, report: TaskReport | None) -> AsyncGenerator[bytes]:
        """The report's numbers, and its lines packed as they are stored."""
        yield b',"report":' + (_json(report)[:-1] + b',"gzip":"' if report else b"null")
        if not report:
            return
        rest = b""
        async for piece in Reports(self._store).pieces(self._task_id):
            whole = rest + piece
            end = len(whole) - len(whole) % 3  # pieces of base64 that can stand in a row
            yield b64encode(whole[:end])
            rest = whole[end:]
        yield b64encode(rest) + b'"}'

    async def _log(self) -> AsyncGenerator[list[str]]:
        offset = 0
        while True:
            page = await self._repository.get_logs(self._task_id, offset=offset, limit=LINES_A_STEP)
            if page.lines:
                yield list(page.lines)
            offset += len(page.lines)
            if len(page.lines) < LINES_A_STEP:
                return


def _json(value: Any) -> bytes:
    """JSON that stays one line for those too who take Unicode's separators for line breaks."""
    text = to_json(value)
    for separator in _SEPARATORS:
        text = text.replace(separator.encode(), b"\\u%04x" % ord(separator))
    return text


async def brief_lines(store: Store, tasks: Sequence[TaskRecord]) -> bytes:
    """Tasks in brief, one a line, in one round trip."""

    async def ask() -> list[Any]:
        pipeline = store.writer.pipeline(transaction=False)
        for task in tasks:
            pipeline.strlen(keys.output(task.task_id))
        return await pipeline.execute()

    sizes = cast("list[int]", await store.call(ask) if tasks else [])
    pairs = zip(tasks, sizes, strict=True)
    return b"".join(_json(_brief(task, size)) + b"\n" for task, size in pairs)


def _brief(task: TaskRecord, output_bytes: int) -> dict[str, Any]:
    return {
        "task_id": task.task_id,
        "service": task.service,
        "user_id": task.user_id,
        "status": task.status,
        "created_at": _utc(task.created_at),
        "updated_at": _utc(task.updated_at),
        "completed_at": _utc(task.completed_at),
        "revision": task.revision,
        "logs_total": task.logs_total,
        "output_bytes": output_bytes,
    }


def _whole(task: TaskRecord, output: str | None) -> dict[str, Any]:
    values = task.model_dump(mode="json", exclude={"logs", "logs_total", "omitted", "report"})
    values["result"]["launcher_output"] = output
    return values


def _flat(task: TaskRecord, output: str | None) -> dict[str, Any]:
    result = task.result
    return {
        **{name: getattr(task, name) for name in _PLAIN},
        **{name: _utc(getattr(task, name)) for name in _TIMES},
        **{name: _text(getattr(task, name)) for name in _JSON},
        "data": _text(result.data),
        "error": result.error,
        "pod_status": result.pod_status,
        "launcher_output": output,
    }


def _utc(value: datetime | None) -> str | None:
    if value is None:
        return None
    stamp = value.astimezone(UTC).isoformat(timespec="microseconds")
    return stamp.removesuffix("+00:00") + "Z"


def _text(value: Any) -> str | None:
    """JSON as a text: a column of any shape would have no type."""
    return None if value is None else to_json(value).decode()


_PLAIN = (
    "task_id", "service", "user_id", "status", "managed", "attempts", "max_attempts", "epoch",
    "revision", "description", "retry_of", "schedule_id", "jobs",
)  # fmt: skip
_TIMES = ("created_at", "updated_at", "started_at", "completed_at")
_JSON = ("parameters", "progress", "history", "checkpoint")

FLAT_SCHEMA: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(("task_id", "service", "user_id", "status"), "string")
    | {"managed": "bool"}
    | dict.fromkeys(("attempts", "max_attempts", "epoch", "revision"), "int64")
    | dict.fromkeys(("description", "retry_of", "schedule_id"), "string, null")
    | {"jobs": "list of string"}
    | dict.fromkeys(("created_at", "updated_at"), "timestamp[us, UTC]")
    | dict.fromkeys(("started_at", "completed_at"), "timestamp[us, UTC], null")
    | {
        "parameters": "JSON",
        "progress": "JSON, null",
        "history": "JSON",
        "checkpoint": "JSON, null",
    }
    | {"data": "JSON, null"}
    | dict.fromkeys(("error", "pod_status", "launcher_output"), "string, null")
    | {"logs": "list of string", "logs_total": "int64"}
)
"""The columns of the flat form in their order, and their types: JSON stands for a string that holds
JSON, a timestamp for a string such as 2026-01-31T00:00:00.000000Z."""
