"""What may be done with tasks, and by whom: not task definitions, which are `app.tasks`."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from typing import Any, Final

from app.core.bandwidth import shown_bandwidth
from app.core.errors import NotRetryableError
from app.services.deadline import store_deadline
from app.services.report import Chosen, chosen_lines, omitted_line
from task_state import (
    LogPage,
    StoreUnavailableError,
    TaskCounts,
    TaskNotFoundError,
    TaskPage,
    TaskSearch,
)
from task_state.managed import Submission
from task_state.models import TaskRecord, TaskReport, TaskStatus
from task_state.redis import RedisRepositoryProvider

DELETE_WAIT_SECONDS: Final = 3.0
"""How long a delete waits for a running task to end before it answers "later"."""

_DELETE_POLL_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose tasks are meant. Another's task answers exactly like a missing one."""

    service: str
    user_id: str

    def covers(self, task: TaskRecord) -> bool:
        """Whether the task is within the scope."""
        return task.service == self.service and task.user_id == self.user_id


@dataclass(frozen=True, slots=True)
class TaskView:
    """A task, and its place among the waiting ones of its service (1: next; None: not waiting)."""

    task: TaskRecord
    queue_position: int | None = None


@dataclass(frozen=True, slots=True)
class LogView:
    """Log lines, and the task's state: once that is terminal, lines after the page's end are all
    there will ever be."""

    page: LogPage
    status: TaskStatus


class TaskService:
    """Creates, shows, cancels, retries and deletes tasks.

    A `scope` of None is the operator's: any task. Raises task_state's errors, of which
    StoreUnavailableError comes within the store's time-out for each request.
    """

    def __init__(self, provider: RedisRepositoryProvider, *, timeout_seconds: float) -> None:
        self._provider = provider
        self._timeout = timeout_seconds

    async def create(
        self,
        scope: Scope,
        parameters: dict[str, Any],
        *,
        idempotency_key: str | None = None,
        log_entry: str | None = None,
    ) -> Submission:
        """Store a new task and the event that has it dispatched, in one step."""
        async with self._deadline():
            managed = await self._provider.get_managed()
            return await managed.submit(
                service=scope.service,
                user_id=scope.user_id,
                parameters=parameters,
                idempotency_key=idempotency_key,
                log_entry=log_entry,
            )

    async def get(self, task_id: str, scope: Scope | None) -> TaskView:
        """The task with its last log lines."""
        async with self._deadline():
            task = await self._load(task_id, scope)
            admission = await self._provider.get_admission()
            return TaskView(task, await admission.position(task))

    async def search(self, search: TaskSearch) -> TaskPage:
        """A page of the tasks that fit; InvalidRequestError for options that make no sense."""
        async with self._deadline():
            repository = await self._provider.get_repository()
            return await repository.search(search)

    async def counts(self, service: str | None, user_id: str | None) -> TaskCounts:
        """How many tasks there are of all, of a service, of a user, or of a user in a service."""
        async with self._deadline():
            repository = await self._provider.get_repository()
            return await repository.counts(service, user_id)

    async def users(self, service: str) -> list[str]:
        """Who has tasks in a service."""
        async with self._deadline():
            repository = await self._provider.get_repository()
            return await repository.list_users_by_service(service)

    async def logs(self, task_id: str, scope: Scope, *, offset: int, limit: int) -> LogView:
        """A part of a task's log, and the state that the task had before those lines were read."""
        async with self._deadline():
            task = await self._summary(task_id, scope)
            repository = await self._provider.get_repository()
            page = await repository.get_logs(task_id, offset=offset, limit=limit)
            return LogView(page, task.status)

    async def output(self, task_id: str, scope: Scope) -> str:
        """All that a task's process has written; empty while there is nothing."""
        async with self._deadline():
            await self._summary(task_id, scope)
            repository = await self._provider.get_repository()
            return await repository.get_launcher_output(task_id)

    async def report(self, task_id: str, scope: Scope) -> TaskReport:
        """How many lines the task's report has, and has lost; zeros while there is none."""
        async with self._deadline():
            task = await self._summary(task_id, scope)
            return task.report or TaskReport(lines=0)

    async def report_lines(self, task_id: str, chosen: Chosen) -> AsyncGenerator[bytes]:
        """The chosen lines of a task's report as far as it has got, in pieces; the last line says
        how many were left out, if any were."""
        reports = await self._provider.get_reports()
        async with aclosing(chosen_lines(reports.pieces(task_id), chosen)) as pieces:
            async for piece in pieces:
                yield piece
        facts = await reports.facts(task_id)
        if last := omitted_line(facts.omitted if facts else 0, chosen):
            yield last

    async def throughput(self, task_id: str, scope: Scope) -> dict[str, Any]:
        """How the task's progress went over time: points [ms since 1970, bytes, files], and how
        many seconds lie between them."""
        async with self._deadline():
            await self._summary(task_id, scope)
            reports = await self._provider.get_reports()
            series = await reports.series(task_id) or {"points": [], "interval_seconds": 1}
            return {name: series[name] for name in ("points", "interval_seconds")}

    async def set_bandwidth(
        self, task_id: str, scope: Scope | None, limit: int | None
    ) -> dict[str, Any]:
        """Limit a task that waits or runs to so many bytes a second (0: no limit, None: its own),
        from now on; all that was adjusted about it."""
        shown = "is the task's own again" if limit is None else f"set to {shown_bandwidth(limit)}"
        if limit == 0:
            shown = "set to no limit"
        by = f"user {scope.user_id}" if scope else "an operator"
        async with self._deadline():
            managed = await self._provider.get_managed()
            return await managed.adjust(
                task_id,
                "bandwidth",
                limit,
                service=scope.service if scope else None,
                user_id=scope.user_id if scope else None,
                log_entry=f"Bandwidth {shown}, by {by}",
            )

    async def cancel(self, task_id: str, scope: Scope | None) -> TaskStatus:
        """End a task: CANCELLED when nothing ran, else CANCEL_REQUESTED, which a worker sees."""
        status = await self._cancel(task_id, scope, delete=False)
        if status is None:  # a delete came first
            raise TaskNotFoundError(task_id)
        return status

    async def delete(self, task_id: str, scope: Scope | None) -> bool:
        """Remove a task with its logs; an active one is cancelled first.

        True when it is gone, False when it will go as soon as its worker has ended it.
        """
        status = await self._cancel(task_id, scope, delete=True)
        return status is None or await self._gone(task_id)

    async def _cancel(
        self, task_id: str, scope: Scope | None, *, delete: bool
    ) -> TaskStatus | None:
        async with self._deadline():
            managed = await self._provider.get_managed()
            return await managed.cancel(
                task_id,
                service=scope.service if scope else None,
                user_id=scope.user_id if scope else None,
                delete=delete,
                log_entry="Cancellation requested" + ("" if scope else " by an operator"),
            )

    async def retry(
        self, task_id: str, scope: Scope, *, idempotency_key: str | None = None
    ) -> Submission:
        """Submit the same parameters again, as a new task that remembers the old one."""
        async with self._deadline():
            task = await self._summary(task_id, scope)
            if not task.managed:
                raise NotRetryableError(
                    f"task {task_id!r} belongs to the program that saved it, not to DMS: only that "
                    "program can run it again"
                )
            if not task.status.is_terminal:
                raise NotRetryableError(
                    f"task {task_id!r} is {task.status}: wait for its end, or cancel it, then retry"
                )
            managed = await self._provider.get_managed()
            return await managed.submit(
                service=task.service,
                user_id=task.user_id,
                parameters=task.parameters,
                retry_of=task_id,
                idempotency_key=idempotency_key,
                log_entry=f"Retry of task {task_id}",
            )

    async def _load(self, task_id: str, scope: Scope | None) -> TaskRecord:
        repository = await self._provider.get_repository()
        task = await repository.get(task_id)
        if task is None or (scope is not None and not scope.covers(task)):
            raise TaskNotFoundError(task_id)
        return task

    async def _summary(self, task_id: str, scope: Scope | None) -> TaskRecord:
        """The record without log lines and output, which may be long, from the reader; what the
        reader does not know (yet) is looked for at the writer."""
        repository = await self._provider.get_repository()
        for task in await repository.list_by_ids([task_id]):
            if scope is not None and not scope.covers(task):
                raise TaskNotFoundError(task_id)
            return task
        return await self._load(task_id, scope)

    async def _gone(self, task_id: str) -> bool:
        try:
            async with asyncio.timeout(DELETE_WAIT_SECONDS):
                while True:
                    await self._summary(task_id, None)
                    await asyncio.sleep(_DELETE_POLL_SECONDS)
        except TaskNotFoundError:
            return True
        except (TimeoutError, StoreUnavailableError):
            # The wish is stored: the terminal step honours it whoever is listening.
            return False

    def _deadline(self) -> AbstractAsyncContextManager[None]:
        return store_deadline(self._timeout)
