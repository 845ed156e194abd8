"""What one event of the outbox means for the scheduler, and what its answer means for the task."""

import contextlib
import logging
from datetime import timedelta
from typing import Literal

from app.core.errors import SchedulerRejectedError
from app.services.scheduler import Acknowledgement, SchedulerClient, TaskCall
from task_state import (
    LeaseHeldError,
    TaskNotFoundError,
    TaskRecord,
    TaskRepository,
    TaskStatus,
    TransitionError,
)
from task_state.outbox import OutboxEvent
from task_state.redis import RedisRepositoryProvider
from task_state.timezone import now

log = logging.getLogger(__name__)

Outcome = Literal["sent", "skipped", "rejected", "expired"]

# Somebody else was quicker, and the task is where it should be.
_OVERTAKEN = (TransitionError, LeaseHeldError, TaskNotFoundError)
_WAITING = frozenset({TaskStatus.PENDING, TaskStatus.DISPATCHING})
# A task that ended by itself need not be cancelled any more.
_ENDED_BY_ITSELF = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED})


class Dispatcher:
    """Settles one event at a time. Each step may be repeated: events come at least once.

    Raises SchedulerUnavailableError when the event has to wait.
    """

    def __init__(
        self,
        provider: RedisRepositoryProvider,
        scheduler: SchedulerClient,
        *,
        deadline_seconds: float | None,
    ) -> None:
        self._provider = provider
        self._scheduler = scheduler
        self._deadline = None if deadline_seconds is None else timedelta(seconds=deadline_seconds)

    async def handle(self, event: OutboxEvent) -> Outcome:
        """Tell the scheduler what it must know."""
        if event.kind == "submitted":
            return await self._submit(event)
        if event.kind == "cancel":
            return await self._cancel(event)
        return "skipped"

    async def note_waiting(self, event: OutboxEvent, reason: str) -> None:
        """Say in the task's log why nothing happens; nothing, if it has gone on or ended by now."""
        repository = await self._provider.get_repository()
        with contextlib.suppress(*_OVERTAKEN):
            await repository.set_status(
                event.task_id,
                TaskStatus.DISPATCHING,
                log_entry=f"Waiting to be dispatched: {reason}",
            )

    async def _submit(self, event: OutboxEvent) -> Outcome:
        repository = await self._provider.get_repository()
        task = await repository.get(event.task_id)
        if task is None or not task.managed or task.status not in _WAITING:
            return "skipped"
        if self._deadline is not None and now() - task.created_at > self._deadline:
            await self._expire(repository, task, self._deadline)
            return "expired"
        if not await self._mark(repository, task):
            return "skipped"
        call = _call(event)
        try:
            answer = await self._scheduler.submit(call, task.parameters)
        except SchedulerRejectedError as error:
            await _fail(repository, task.task_id, f"Rejected by the scheduler: {error}", str(error))
            return "rejected"
        await self._acknowledge(repository, call, answer)
        return "sent"

    async def _mark(self, repository: TaskRepository, task: TaskRecord) -> bool:
        if task.status is TaskStatus.DISPATCHING:
            return True
        try:
            await repository.set_status(
                task.task_id, TaskStatus.DISPATCHING, log_entry="Dispatching to scheduler"
            )
        except _OVERTAKEN:
            return False
        return True

    async def _acknowledge(
        self, repository: TaskRepository, call: TaskCall, answer: Acknowledgement
    ) -> None:
        if answer.job_id is not None:
            with contextlib.suppress(TaskNotFoundError):
                await repository.add_jobs(call.task_id, [answer.job_id])
        if answer.status is not None:
            return  # whoever names a status keeps the record himself
        try:
            await repository.set_status(
                call.task_id, TaskStatus.RUNNING, log_entry="Accepted by the scheduler"
            )
        except TransitionError as error:
            # Cancelled while the call was under way: the scheduler may have been told in the wrong
            # order, and must not run what nobody wants.
            if error.current in {TaskStatus.CANCELLED, TaskStatus.CANCEL_REQUESTED}:
                await self._tell_cancelled(call)
        except TaskNotFoundError:
            await self._tell_cancelled(call)
        except LeaseHeldError:
            return

    async def _cancel(self, event: OutboxEvent) -> Outcome:
        repository = await self._provider.get_repository()
        found = await repository.list_by_ids([event.task_id])
        if found and (not found[0].managed or found[0].status in _ENDED_BY_ITSELF):
            return "skipped"
        return await self._tell_cancelled(_call(event))

    async def _tell_cancelled(self, call: TaskCall) -> Outcome:
        try:
            await self._scheduler.cancel(call)
        except SchedulerRejectedError as error:
            # It does not know the task, or knows that it is over. The record says what is wanted.
            log.info(
                "The scheduler refused a cancellation",
                extra={"action": "dispatch.cancel", "task_id": call.task_id, "reason": str(error)},
            )
            return "rejected"
        return "sent"

    async def _expire(
        self, repository: TaskRepository, task: TaskRecord, deadline: timedelta
    ) -> None:
        reason = (
            f"the scheduler did not take it within {deadline.total_seconds():g} s "
            "(DMS_DISPATCH_DEADLINE_SECONDS)"
        )
        await _fail(repository, task.task_id, f"Given up: {reason}", reason)


def _call(event: OutboxEvent) -> TaskCall:
    return TaskCall(event.task_id, event.service, event.user_id)


async def _fail(repository: TaskRepository, task_id: str, log_entry: str, reason: str) -> None:
    """End a task FAILED; the reason is written first, so that whoever sees the end sees it too."""
    with contextlib.suppress(*_OVERTAKEN):
        await repository.update_result(task_id, error=reason)
        await repository.set_status(task_id, TaskStatus.FAILED, log_entry=log_entry)
