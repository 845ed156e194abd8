"""The port of task records: what every store of them promises."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, overload

from task_state.models import JsonObject, TaskRecord, TaskStatus

DEFAULT_PAGE = 50
MAX_PAGE = 200
MAX_OFFSET = 1_000_000
MAX_TEXT = 256
MAX_COUNTED_USERS = 1000

Sort = Literal["created_at", "updated_at", "id"]


@dataclass(frozen=True, slots=True)
class TaskPage(Sequence[TaskRecord]):
    """One page of a listing. Records of a listing carry no log lines, no launcher output, and no
    field of more than 4 KiB as JSON: `TaskRecord.omitted` names those.

    `next_cursor` continues after the last record and is None at the end. `total` counts what the
    whole listing holds, and is None where counting would mean reading every record.
    """

    tasks: Sequence[TaskRecord]
    next_cursor: str | None = None
    total: int | None = None

    def __iter__(self) -> Iterator[TaskRecord]:
        return iter(self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)

    @overload
    def __getitem__(self, index: int) -> TaskRecord: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[TaskRecord]: ...
    def __getitem__(self, index: int | slice) -> TaskRecord | Sequence[TaskRecord]:
        return self.tasks[index]


@dataclass(frozen=True, slots=True, kw_only=True)
class Paging:
    """Which part of a listing is wanted, and in what order.

    `limit` is 1 to 200. Ranges are half-open: after <= t < before. `q` is text of at most 256
    characters to find in the id, the user or the parameters (of at most 16 KiB as JSON: longer ones
    are not looked through); letters of ASCII match in any case.
    A page starts after a `cursor`, or `offset` records (at most 1,000,000) after the first one; not
    both. `sort` orders by a time and then the id, or by the id alone, in the order of its bytes.
    """

    limit: int = DEFAULT_PAGE
    cursor: str | None = None
    offset: int = 0
    status: Sequence[TaskStatus] = ()
    created_after: datetime | None = None
    created_before: datetime | None = None
    updated_after: datetime | None = None
    updated_before: datetime | None = None
    q: str | None = None
    sort: Sort = "created_at"
    order: Literal["asc", "desc"] = "desc"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSearch(Paging):
    """A listing of everything, or of what one id, one service or one user narrows it to."""

    task_id: str | None = None
    service: str | None = None
    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class TaskCounts:
    """How many tasks there are, in all and by what they are.

    `by_user` is None unless a service was named, and where it has more than 1000 users. Names with
    no task are left out of `by_service` and `by_user`; `by_status` names every status.
    """

    total: int
    by_status: Mapping[TaskStatus, int]
    by_service: Mapping[str, int]
    by_user: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class LogPage:
    """Log lines `offset` to `offset + len(lines) - 1` of the `total` that the task has."""

    lines: Sequence[str]
    offset: int
    total: int


class TaskRepository(ABC):
    """Stores task records. All methods raise StoreUnavailableError when the store does not answer,
    and TaskNotFoundError for a write to a missing id: a write never recreates a record."""

    @abstractmethod
    async def next_task_id(self) -> str:
        """A new id: decimal, strictly increasing, ordered by time."""

    @abstractmethod
    async def save(self, task: TaskRecord) -> None:
        """Store the record, and bring its `revision` and `logs_total` up to date.

        A record that was loaded is compared by revision (ConflictError when somebody changed it
        since) and only its new log lines are appended. One that was never loaded is created, or
        replaces a record of its id that is terminal or unmanaged. Progress goes with a new record
        alone: it changes at any time, so `set_progress` writes it, and no older copy of it does.
        """

    @abstractmethod
    async def get(self, task_id: str) -> TaskRecord | None:
        """The record with its last 200 log lines and the last MiB of its output, or None."""

    @abstractmethod
    async def set_status(
        self, task_id: str, status: TaskStatus, log_entry: str | None = None
    ) -> None:
        """Move to `status`; the state it already has is a no-op that may add the log line.

        Raises TransitionError for a move that the table lacks, LeaseHeldError when a worker's
        lease lives (CANCEL_REQUESTED excepted).
        """

    @abstractmethod
    async def append_log(self, task_id: str, message: str) -> None:
        """Add one log line, prefixed with the time; costs the same at any length of the log."""

    @abstractmethod
    async def append_logs(self, task_id: str, entries: Sequence[str]) -> None:
        """Add lines that format_log_entry has made, in their order, in one step."""

    @abstractmethod
    async def update_result(
        self,
        task_id: str,
        *,
        pod_status: str | None = None,
        launcher_output: str | None = None,
        data: Any = None,
        error: str | None = None,
    ) -> None:
        """Write the fields that are passed, and leave the others; launcher output is appended."""

    @abstractmethod
    async def set_progress(self, task_id: str, progress: JsonObject) -> None:
        """Note how far the task is; the caller keeps to about one call a second."""

    @abstractmethod
    async def add_jobs(self, task_id: str, jobs: Sequence[str]) -> None:
        """Add job ids that are not there yet."""

    @abstractmethod
    async def delete(self, task_id: str) -> bool:
        """Remove a record with its logs from everywhere, whatever its state; False if it was
        not there. Managed tasks that may be active are deleted by ManagedTasks.cancel instead."""

    @abstractmethod
    async def search(self, search: TaskSearch) -> TaskPage:
        """The tasks that fit every option given; the listings below are special cases of it.

        Raises InvalidRequestError for an option that makes no sense, naming it and its value.
        """

    @abstractmethod
    async def counts(self, service: str | None = None, user_id: str | None = None) -> TaskCounts:
        """How many tasks there are of all, of a service, of a user, or of a user of a service;
        records whose time to live is over count until they are swept."""

    @abstractmethod
    async def list_all(self, paging: Paging | None = None) -> TaskPage:
        """Tasks of every service, newest first unless `paging` says otherwise."""

    @abstractmethod
    async def list_by_service(self, service: str, paging: Paging | None = None) -> TaskPage:
        """Tasks of one service."""

    @abstractmethod
    async def list_by_service_and_user(
        self, service: str, user_id: str, paging: Paging | None = None
    ) -> TaskPage:
        """Tasks of one user of a service."""

    @abstractmethod
    async def list_users_by_service(self, service: str) -> list[str]:
        """The users who have tasks in a service, in alphabetical order."""

    @abstractmethod
    async def list_by_ids(self, task_ids: Sequence[str]) -> list[TaskRecord]:
        """The records of those ids that exist, in the order asked for; at most 200 ids."""

    @abstractmethod
    async def get_logs(self, task_id: str, *, offset: int = 0, limit: int = 1000) -> LogPage:
        """A part of the log, oldest line first; a negative offset counts from the end."""

    @abstractmethod
    async def get_launcher_output(self, task_id: str) -> str:
        """All of the launcher's output (at most 16 MiB)."""
