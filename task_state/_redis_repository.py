"""Task records in Redis or Valkey: one script, hence one round trip, for every mutation."""

from collections.abc import Awaitable, Sequence
from typing import Any, cast

from task_state import keys
from task_state._codec import (
    LOADED_LINES,
    LOADED_OUTPUT_BYTES,
    TIMES,
    changed_fields,
    check_name,
    decode_record,
    encode_json,
    encode_object,
    present,
    record_fields,
    still_omitted,
)
from task_state._listing import SearchRequest, as_search, decode_counts
from task_state._port import (
    MAX_COUNTED_USERS,
    MAX_PAGE,
    LogPage,
    Paging,
    TaskCounts,
    TaskPage,
    TaskRepository,
    TaskSearch,
)
from task_state._store import Argument, Store
from task_state.errors import ConflictError, InvalidRequestError
from task_state.log_entry import format_log_entry
from task_state.models import JsonObject, LoadedState, TaskRecord, TaskStatus
from task_state.timezone import from_microseconds, to_microseconds


class RedisTaskRepository(TaskRepository):
    """The repository that programs share with DMS. Reads by id ask the writer, lists the reader,
    which may lag behind it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def next_task_id(self) -> str:
        return cast("bytes", await self._store.write("next_id", "")).decode()

    async def save(self, task: TaskRecord) -> None:
        loaded = task.loaded
        lines = _new_lines(task, loaded)
        fields = _new_fields(task) if loaded is None else changed_fields(task)
        reply = await self._store.mutate(
            "save",
            task.task_id,
            "" if loaded is None else task.revision,
            task.service,
            task.user_id,
            task.status,
            _created(task),
            *_output_change(task, loaded),
            len(lines),
            *lines,
            *fields,
            requested=task.status,
        )
        _after_save(task, loaded, cast("list[Any]", reply), len(lines))

    async def get(self, task_id: str) -> TaskRecord | None:
        wanted = (LOADED_LINES, LOADED_OUTPUT_BYTES)
        reply = await self._store.read("get", task_id, *wanted, fresh=True)
        if not reply:
            return None
        line, lines, total, output = reply
        return decode_record(task_id, line, lines=lines, logs_total=total, output=output)

    async def set_status(
        self, task_id: str, status: TaskStatus, log_entry: str | None = None
    ) -> None:
        lines = [] if log_entry is None else [format_log_entry(log_entry)]
        await self._store.mutate(
            "transition", task_id, status, "", "", len(lines), *lines, requested=status
        )

    async def append_log(self, task_id: str, message: str) -> None:
        await self._store.mutate("log", task_id, format_log_entry(message))

    async def append_logs(self, task_id: str, entries: Sequence[str]) -> None:
        await self._store.mutate("log", task_id, *entries)

    async def update_result(
        self,
        task_id: str,
        *,
        pod_status: str | None = None,
        launcher_output: str | None = None,
        data: Any = None,
        error: str | None = None,
    ) -> None:
        encoded = None if data is None else encode_json(data, "data")
        values = {"pod_status": pod_status, "data": encoded, "error": error}
        fields = [part for pair in values.items() if pair[1] is not None for part in pair]
        await self._write(task_id, output=launcher_output or "", fields=cast("list[str]", fields))

    async def set_progress(self, task_id: str, progress: JsonObject) -> None:
        await self._store.mutate("progress", task_id, encode_object(progress, "progress"))

    async def add_jobs(self, task_id: str, jobs: Sequence[str]) -> None:
        await self._write(task_id, jobs=jobs)

    async def delete(self, task_id: str) -> bool:
        return await self._store.mutate("delete", task_id) == 1

    async def search(self, search: TaskSearch) -> TaskPage:
        request = SearchRequest(search)
        return request.page(await self._store.read("search", *request.arguments()))

    async def counts(self, service: str | None = None, user_id: str | None = None) -> TaskCounts:
        if service is not None:
            check_name(service, "service")
        if user_id is not None:
            check_name(user_id, "user_id")
        reply = await self._store.read("counts", service or "", user_id or "", MAX_COUNTED_USERS)
        return decode_counts(reply)

    async def list_all(self, paging: Paging | None = None) -> TaskPage:
        return await self.search(as_search(paging))

    async def list_by_service(self, service: str, paging: Paging | None = None) -> TaskPage:
        return await self.search(as_search(paging, service=service))

    async def list_by_service_and_user(
        self, service: str, user_id: str, paging: Paging | None = None
    ) -> TaskPage:
        return await self.search(as_search(paging, service=service, user_id=user_id))

    async def list_users_by_service(self, service: str) -> list[str]:
        reader = self._store.reader
        users = await self._store.call(
            lambda: cast("Awaitable[Any]", reader.hkeys(keys.users(service)))
        )
        return sorted(user.decode() for user in cast("list[bytes]", users))

    async def list_by_ids(self, task_ids: Sequence[str]) -> list[TaskRecord]:
        if len(task_ids) > MAX_PAGE:
            raise InvalidRequestError(
                f"{len(task_ids)} ids asked for at once: at most {MAX_PAGE} go into one call"
            )
        found = await self._store.read("records", *task_ids)
        return [
            decode_record(task_id.decode(), line, logs_total=total)
            for task_id, line, total in found
        ]

    async def get_logs(self, task_id: str, *, offset: int = 0, limit: int = 1000) -> LogPage:
        if limit < 1:
            raise InvalidRequestError(f"limit={limit}: a part of a log holds at least one line")
        reply = await self._store.read("logs", task_id, offset, limit, fresh=True)
        start, total, lines = cast("tuple[int, int, list[bytes]]", reply)
        return LogPage([line.decode("utf-8", "replace") for line in lines], start, total)

    async def get_launcher_output(self, task_id: str) -> str:
        writer, key = self._store.writer, keys.output(task_id)
        output = await self._store.call(lambda: cast("Awaitable[Any]", writer.get(key)))
        return cast("bytes", output or b"").decode("utf-8", "replace")

    async def _write(
        self,
        task_id: str,
        *,
        output: str = "",
        jobs: Sequence[str] = (),
        fields: Sequence[str] = (),
    ) -> None:
        await self._store.mutate("write", task_id, "", output, 0, len(jobs), *jobs, *fields)


def _created(task: TaskRecord) -> Argument:
    return to_microseconds(task.created_at) if "created_at" in task.model_fields_set else ""


def _new_fields(task: TaskRecord) -> list[str]:
    if task.omitted:
        raise InvalidRequestError(
            f"task {task.task_id!r} is not whole: the listing that it comes from left out "
            f"{', '.join(task.omitted)}; get() it, and save that"
        )
    progress = "" if task.progress is None else encode_object(task.progress, "progress")
    return present([*record_fields(task), "progress", progress])


def _new_lines(task: TaskRecord, loaded: LoadedState | None) -> list[str]:
    old = [] if loaded is None else loaded.log_lines
    if task.logs[: len(old)] != old:
        raise ConflictError(
            f"task {task.task_id!r} was not written: lines of its log were changed or removed, "
            "which save() cannot do: append to the lines that were loaded"
        )
    return task.logs[len(old) :]


def _output_change(task: TaskRecord, loaded: LoadedState | None) -> tuple[str, str]:
    new = task.result.launcher_output or ""
    old = (loaded.launcher_output if loaded else None) or ""
    if new == old:
        return "", ""
    return ("append", new[len(old) :]) if new.startswith(old) else ("replace", new)


def _after_save(task: TaskRecord, loaded: LoadedState | None, reply: list[Any], added: int) -> None:
    revision, *stamps = reply
    times = {
        name: from_microseconds(value)
        for name, value in zip(TIMES, stamps, strict=True)
        if value is not None
    }
    total = added if loaded is None else task.logs_total + added
    task.stored(revision=revision, logs_total=total, omitted=still_omitted(task), **times)
