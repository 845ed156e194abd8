"""A plain model of the task store: what each call must answer, and what must be there after it."""

from dataclasses import dataclass, field
from typing import Literal

from task_state import (
    TRANSITIONS,
    ConflictError,
    FencedError,
    InvalidRequestError,
    LeaseHeldError,
    TaskNotFoundError,
    TaskRecord,
    TaskStatus,
    TransitionError,
)

Error = type[Exception]
PENDING, DISPATCHING, RUNNING = TaskStatus.PENDING, TaskStatus.DISPATCHING, TaskStatus.RUNNING
CANCEL_REQUESTED, CANCELLED = TaskStatus.CANCEL_REQUESTED, TaskStatus.CANCELLED
FAILED = TaskStatus.FAILED
WAITING = {PENDING, DISPATCHING}


@dataclass
class Task:
    """What is known of one task."""

    task_id: str
    service: str
    user_id: str
    managed: bool
    status: TaskStatus = PENDING
    revision: int = 1
    epoch: int = 0
    attempts: int = 0
    deaths: int = 0
    lease: Literal["live", "expired"] | None = None
    worker: str = ""
    delete: bool = False
    logs: list[str] = field(default_factory=list[str])
    error: str | None = None
    checkpoint: int | None = None
    history: list[tuple[int, int, str]] = field(default_factory=list[tuple[int, int, str]])
    # What was last seen of it in the store.
    seen_epoch: int = 0
    seen_revision: int = 0
    seen_end: TaskStatus | None = None

    @property
    def held(self) -> bool:
        """Whether a worker's lease lives."""
        return self.lease == "live"

    def note(self, outcome: str) -> None:
        """The attempt did not succeed."""
        self.history.append((self.epoch, self.attempts, outcome))


class Store:
    """All tasks, and the outbox as (kind, task id)."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.outbox: list[tuple[str, str]] = []
        self.fenced = 0

    # ------------------------------------------------------------------------------------- records
    def create(self, task: Task) -> None:
        """A record that is not there; its terminal state is an event."""
        self.tasks[task.task_id] = task
        if task.managed:
            self.outbox.append(("submitted", task.task_id))
        if task.status.is_terminal:
            self.outbox.append(("finished", task.task_id))

    def save_new(self, task: Task) -> Error | None:
        """save() of a record that was never loaded."""
        old = self.tasks.get(task.task_id)
        if old and old.managed and not old.status.is_terminal:
            return ConflictError
        if old:
            task.revision = old.revision + 1
            task.epoch = old.epoch + (1 if old.managed else 0)
        self.create(task)
        return None

    def save_loaded(self, copy: TaskRecord, line: str) -> Error | None:
        """save() of a copy that was loaded at its revision, by now with another status and line."""
        task, status = self.tasks.get(copy.task_id), copy.status
        if task is None:
            return TaskNotFoundError
        # Another task of that id may have come to the same revision: it is not this one's copy.
        if (task.revision, task.service, task.user_id) != (
            copy.revision,
            copy.service,
            copy.user_id,
        ):
            return ConflictError
        if refused := self._refused(task, status):
            return refused
        task.logs.append(line)
        if status is task.status:
            task.revision += 1
        else:
            self._move(task, status)
        return None

    def set_status(self, task_id: str, status: TaskStatus, line: str) -> Error | None:
        """A move without an epoch."""
        task = self.tasks.get(task_id)
        if task is None:
            return TaskNotFoundError
        if refused := self._refused(task, status):
            return refused
        task.logs.append(line)
        if status is not task.status:
            self._move(task, status)
        return None

    def append_log(self, task_id: str, line: str) -> Error | None:
        """A log line without an epoch."""
        if task_id not in self.tasks:
            return TaskNotFoundError
        self.tasks[task_id].logs.append(line)
        return None

    def update_error(self, task_id: str, error: str) -> Error | None:
        """A result field without an epoch."""
        task = self.tasks.get(task_id)
        if task is None:
            return TaskNotFoundError
        task.error = error
        task.revision += 1
        return None

    def delete(self, task_id: str) -> bool:
        """A delete, whatever the state."""
        return self.tasks.pop(task_id, None) is not None

    # ------------------------------------------------------------------------------------ attempts
    def accept(self, task_id: str) -> Error | TaskStatus | int:
        """The epoch to queue, or the state of a task that is past that."""
        task = self.tasks.get(task_id)
        if task is None:
            return TaskNotFoundError
        if not task.managed:
            return InvalidRequestError
        return task.epoch + 1 if task.status in WAITING else task.status

    def begin(self, task_id: str, epoch: int, worker: str, line: str) -> bool:
        """Whether the attempt starts (or had started for the same worker)."""
        task = self.tasks.get(task_id)
        if task is None or not task.managed:
            return False
        if task.epoch == epoch and task.held and task.worker == worker:
            return True
        if epoch != task.epoch + 1 or task.status not in WAITING:
            return False
        task.epoch, task.lease, task.worker, task.error = epoch, "live", worker, None
        task.attempts += 1
        task.logs.append(line)
        self._move(task, RUNNING)
        return True

    def heartbeat(
        self, task_id: str, epoch: int, *, advanced: bool, saved: int | None
    ) -> Error | TaskStatus:
        """The state, which carries the cancel flag."""
        task = self._current(task_id, epoch)
        if task is None:
            return FencedError
        if task.lease is None:
            self.fenced += 1
            return FencedError
        task.lease = "live"
        task.deaths = 0 if advanced or saved is not None else task.deaths
        task.checkpoint = task.checkpoint if saved is None else saved
        return task.status

    def append_logs(self, task_id: str, epoch: int, line: str) -> Error | None:
        """A log line of an attempt."""
        task = self._current(task_id, epoch)
        if task is None:
            return FencedError
        task.logs.append(line)
        return None

    def finish(
        self, task_id: str, epoch: int, status: TaskStatus, line: str, outcome: str | None
    ) -> Error | TaskStatus:
        """The end of an attempt; repeating it is a no-op."""
        task = self._current(task_id, epoch)
        if task is None:
            return FencedError
        if task.status is status:
            return status
        if status not in TRANSITIONS[task.status]:
            return TransitionError
        task.logs.append(line)
        if outcome:
            task.note(outcome)
        self._move(task, status)
        return status

    def give_back(
        self, task_id: str, epoch: int, line: str, *, counted: bool
    ) -> Error | TaskStatus:
        """Retry or release."""
        task = self._current(task_id, epoch)
        if task is None:
            return FencedError
        if task.lease is None:
            return task.status
        task.logs.append(line)
        task.note("failed" if counted else "released")
        task.attempts -= 0 if counted else 1
        task.lease = None
        self._move(task, CANCELLED if task.status is CANCEL_REQUESTED else PENDING)
        return task.status

    def cancel(self, task_id: str, line: str, *, delete: bool) -> Error | TaskStatus | None:
        """A user's cancel or delete."""
        task = self.tasks.get(task_id)
        if task is None:
            return TaskNotFoundError
        if task.status.is_terminal:
            if delete:
                del self.tasks[task_id]
                return None
            return CANCELLED if task.status is CANCELLED else TransitionError
        task.delete = task.delete or delete
        target = CANCEL_REQUESTED if task.held else CANCELLED
        if target is task.status:
            return target
        task.logs.append(line)
        if task.lease == "expired":
            task.note("lost")
        if task.managed and task.status is not PENDING:
            self.outbox.append(("cancel", task_id))
        self._move(task, target)
        return None if task_id not in self.tasks and delete else target

    def rescue(self) -> dict[str, tuple[TaskStatus, int]]:
        """Every task whose lease is over."""
        lost = [task for task in self.tasks.values() if task.lease == "expired"]
        for task in lost:
            self._lose(task)
        return {task.task_id: (task.status, task.epoch) for task in lost}

    def _lose(self, task: Task) -> None:
        task.note("lost")
        task.deaths += 1
        task.attempts -= 1
        task.lease = None
        task.logs.append("lost")
        if task.status is CANCEL_REQUESTED:
            self._move(task, CANCELLED)
        elif task.deaths >= 3:
            task.error = "poison"
            self._move(task, FAILED)
        else:
            self._move(task, PENDING)

    # -------------------------------------------------------------------------------------- shared
    def _current(self, task_id: str, epoch: int) -> Task | None:
        task = self.tasks.get(task_id)
        if task and task.epoch != epoch:
            self.fenced += 1
        return task if task and task.epoch == epoch else None

    @staticmethod
    def _refused(task: Task, status: TaskStatus) -> Error | None:
        if status is task.status:
            return None
        if task.held and status is not CANCEL_REQUESTED:
            return LeaseHeldError
        return None if status in TRANSITIONS[task.status] else TransitionError

    def _move(self, task: Task, status: TaskStatus) -> None:
        task.status = status
        task.revision += 1
        if status.is_terminal:
            task.lease = None
            task.checkpoint = None
            self.outbox.append(("finished", task.task_id))
            if task.delete:
                del self.tasks[task.task_id]
