"""The life of the tasks that DMS dispatches: submitted, accepted, attempted under a lease, ended.

Every write of an attempt carries its epoch. Once a newer attempt exists the older one's writes are
refused with FencedError; until then even an expired lease is still its owner's.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from pydantic_core import from_json

from task_state._codec import check_name, decode_record, encode_json, encode_object, present
from task_state._scripts import MAX_ATTEMPTS
from task_state._store import Argument, Store
from task_state.errors import InvalidRequestError
from task_state.keys import COUNTERS
from task_state.log_entry import format_log_entry
from task_state.models import (
    MAX_CHECKPOINT_BYTES,
    AttemptOutcome,
    JsonObject,
    TaskRecord,
    TaskStatus,
)
from task_state.timezone import now

IDEMPOTENCY_HOURS = 24
POISON_DEATHS = 3
_REASON_CHARACTERS = 500
FIRST_CHECK_MS = 10_000  # when an admitted task's call is looked for at first
_NEXT_CHECK_MS = 30_000  # as long as the engine takes a silent worker for a living one


@dataclass(frozen=True, slots=True)
class Submission:
    """The task that a request became; `created` is False when its key named the task before."""

    task_id: str
    status: TaskStatus
    created: bool


@dataclass(frozen=True, slots=True)
class Attempt:
    """A lease on a task: the record without its log lines, the epoch, and the lease in seconds."""

    task: TaskRecord
    epoch: int
    lease_seconds: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """A task that waits for its attempt `epoch`."""

    task_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What an attempt saves for the next one: anything JSON can hold, 64 KiB at most."""

    value: Any


@dataclass(frozen=True, slots=True)
class Failing:
    """Why an attempt does not succeed, for the record's history; the reason is cut where it is
    longer than 500 characters."""

    outcome: AttemptOutcome
    reason: str


@dataclass(frozen=True, slots=True)
class Rescued:
    """A task taken back from a lost worker: it waits again, or ended FAILED or CANCELLED.
    `epoch` is the attempt that was lost."""

    task_id: str
    status: TaskStatus
    epoch: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A lease that was kept: the task's state, and what somebody has adjusted about the task."""

    status: TaskStatus
    adjusted: JsonObject


@dataclass(frozen=True, slots=True)
class ReportState:
    """How many lines a report has and has lost; once it is `full` only failures are added."""

    lines: int
    omitted: int
    full: bool


class ManagedTasks:
    """What the frontend, the scheduler and the workers do with managed tasks."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def submit(
        self,
        *,
        service: str,
        user_id: str,
        parameters: JsonObject,
        max_attempts: int = MAX_ATTEMPTS,
        retry_of: str | None = None,
        schedule_id: str | None = None,
        idempotency_key: str | None = None,
        log_entry: str | None = None,
    ) -> Submission:
        """Create a task and its outbox event in one step.

        The same `idempotency_key` (per service and user, for 24 hours) with the same parameters
        answers the first task again; with others it raises IdempotencyMismatchError. A service
        that is being drained raises ServiceDrainingError, and nothing is stored.
        """
        check_name(service, "service")
        check_name(user_id, "user_id")
        encoded = encode_object(parameters, "parameters")
        lines = _lines(log_entry)
        reply = await self._store.mutate(
            "submit",
            service,
            user_id,
            _digest(idempotency_key) if idempotency_key else "",
            _digest(_canonical(parameters)) if idempotency_key else "",
            IDEMPOTENCY_HOURS * 3_600_000,
            len(lines),
            *lines,
            *present(
                [
                    "managed", "1",
                    "parameters", encoded if parameters else "",
                    "max_attempts", str(max_attempts),
                    "retry_of", retry_of or "",
                    "schedule_id", schedule_id or "",
                ]
            ),
        )  # fmt: skip
        task_id, status, created = cast("tuple[bytes, bytes, int]", reply)
        return Submission(task_id.decode(), TaskStatus(status.decode()), created == 1)

    async def cancel(
        self,
        task_id: str,
        *,
        service: str | None = None,
        user_id: str | None = None,
        delete: bool = False,
        log_entry: str | None = None,
    ) -> TaskStatus | None:
        """Ask a task to end: CANCELLED at once without a live lease, else CANCEL_REQUESTED.

        With `delete` the record goes too: None when it is gone already, else the terminal step
        removes it. A `service` or `user_id` that is not the task's raises TaskNotFoundError.
        Raises TransitionError for a task that COMPLETED or FAILED (unless it is to be deleted).
        """
        lines = _lines(log_entry)
        reply = await self._store.mutate(
            "cancel",
            task_id,
            service or "",
            user_id or "",
            "1" if delete else "",
            len(lines),
            *lines,
            requested=TaskStatus.CANCELLED,
        )
        return None if reply == b"DELETED" else _status(reply)

    async def accept(self, task_id: str) -> Waiting | TaskStatus:
        """Take charge of a waiting task, which waits for a slot from now on: its next epoch; or the
        state of one that is past that.

        Raises InvalidRequestError for an unmanaged record.
        """
        status, epoch = await self._store.mutate("accept", task_id)
        found = _status(status)
        waits = found in {TaskStatus.PENDING, TaskStatus.DISPATCHING}
        return Waiting(task_id, epoch + 1) if waits else found

    async def begin(
        self,
        task_id: str,
        epoch: int,
        *,
        worker: str,
        lease_seconds: float = 60.0,
        max_attempts: int | None = None,
        description: str | None = None,
        admitted: bool = False,
        log_entry: str | None = None,
    ) -> Attempt | None:
        """Start attempt `epoch` if it is the next and the task waits; None drops the call.

        `admitted` starts it only if the admission has let it through, as workers must: a call may
        be left over from before a pause, or come from a backup.
        """
        lines = _lines(log_entry)
        line = await self._store.mutate(
            "begin",
            task_id,
            epoch,
            worker,
            int(lease_seconds * 1000),
            self._store.seen if admitted else "",
            len(lines),
            *lines,
            *present(
                [
                    "max_attempts", str(max_attempts or ""),
                    "description", description or "",
                ]
            ),
        )  # fmt: skip
        return Attempt(decode_record(task_id, line), epoch, lease_seconds) if line else None

    async def heartbeat(
        self,
        task_id: str,
        epoch: int,
        *,
        lease_seconds: float = 60.0,
        progress: JsonObject | None = None,
        advanced: bool = False,
        checkpoint: Checkpoint | None = None,
        series: bytes = b"",
    ) -> Kept:
        """Keep the lease, and note the progress and the checkpoint; `advanced` says that work was
        done since the last call, which clears the count of deaths, as a checkpoint does. A `series`
        (JSON) replaces the one that is stored. CANCEL_REQUESTED asks the attempt to stop."""
        status, adjusted = await self._store.mutate(
            "heartbeat",
            task_id,
            epoch,
            int(lease_seconds * 1000),
            "" if progress is None else encode_object(progress, "progress"),
            "1" if advanced else "",
            "" if checkpoint is None else _encode_checkpoint(checkpoint),
            series,
            epoch=epoch,
        )
        return Kept(_status(status), from_json(adjusted) if adjusted else {})

    async def adjust(
        self,
        task_id: str,
        name: str,
        value: int | str | None,
        *,
        service: str | None = None,
        user_id: str | None = None,
        log_entry: str,
    ) -> JsonObject:
        """Change what holds for a task that waits or runs, and answer all that was changed. Its
        handler sees it with its next heartbeat, and so do later attempts; None takes it back. Whole
        numbers up to 2**53 are exact.

        Raises TaskNotFoundError also for a `service` or `user_id` that is not the task's,
        TaskEndedError for a task that has ended, or is to, and InvalidRequestError for an unmanaged
        one.
        """
        adjusted = await self._store.mutate(
            "adjust",
            task_id,
            service or "",
            user_id or "",
            name,
            "" if value is None else encode_json(value, name),
            format_log_entry(log_entry),
        )
        return from_json(adjusted)

    async def append_report(
        self,
        task_id: str,
        epoch: int,
        block: bytes,
        lines: int,
        *,
        failed: bool = False,
        before: int,
    ) -> ReportState:
        """Add a block of `lines` to the task's report: one gzip member, or nothing if they were
        left out already. `failed` ones may fill the reserve too. `before` is how many lines the
        report had and had lost before, so that repeating the call changes nothing."""
        kept, omitted, full = await self._store.mutate(
            "report",
            task_id,
            epoch,
            block,
            lines,
            "1" if failed else "",
            before,
            epoch=epoch,
        )
        return ReportState(kept, omitted, full == 1)

    async def append_logs(
        self,
        task_id: str,
        epoch: int,
        entries: Sequence[str],
        launcher_output: str = "",
        *,
        batch: str | None = None,
    ) -> None:
        """Add formatted log lines and launcher output, in one step. Repeating the last `batch`
        changes nothing, so that a caller may repeat it when it got no answer."""
        await self._store.mutate(
            "write",
            task_id,
            epoch,
            launcher_output,
            len(entries),
            *entries,
            0,
            *present(["batch", batch or ""]),
            epoch=epoch,
        )

    async def finish(  # noqa: PLR0913 - one argument a field
        self,
        task_id: str,
        epoch: int,
        status: TaskStatus,
        *,
        log_entry: str | None = None,
        data: Any = None,
        error: str | None = None,
        launcher_output: str | None = None,
        progress: JsonObject | None = None,
        failing: Failing | None = None,
    ) -> TaskStatus:
        """End the task from its attempt; repeating the same end changes nothing."""
        if not status.is_terminal:
            raise InvalidRequestError(f"an attempt ends in a terminal state, not in {status}")
        lines = _lines(log_entry)
        fields = [
            "data", "" if data is None else encode_json(data, "data"),
            "error", error or "",
            "progress", "" if progress is None else encode_object(progress, "progress"),
        ]  # fmt: skip
        reply = await self._store.mutate(
            "transition",
            task_id,
            status,
            epoch,
            launcher_output or "",
            len(lines),
            *lines,
            *_note(failing),
            *present(fields),
            requested=status,
            epoch=epoch,
        )
        return _status(reply[0])

    async def retry(
        self,
        task_id: str,
        epoch: int,
        *,
        delay_seconds: float = 0.0,
        error: str | None = None,
        log_entry: str | None = None,
        failing: Failing | None = None,
    ) -> TaskStatus:
        """Give the task back after a failed attempt, which counts: PENDING, or CANCELLED if that
        was asked for. The next attempt is `epoch + 1`."""
        rest = [*_note(failing), *present(["error", error or ""])]
        return await self._give_back("retry", task_id, epoch, delay_seconds, log_entry, rest)

    async def release(
        self,
        task_id: str,
        epoch: int,
        *,
        delay_seconds: float = 0.0,
        log_entry: str | None = None,
        failing: Failing | None = None,
    ) -> TaskStatus:
        """Give the task back unfinished, uncounted, as a draining worker does; with a delay, as one
        whose task has to wait for something: then the same note is not made twice in a row."""
        rest = _note(failing)
        return await self._give_back("release", task_id, epoch, delay_seconds, log_entry, rest)

    async def rescue(
        self,
        *,
        grace_seconds: float = 10.0,
        period_seconds: float = 5.0,
        heartbeat_seconds: float = 15.0,
        limit: int = 100,
    ) -> list[Rescued]:
        """Take back tasks whose lease has been over for `grace_seconds` while Redis was reachable.

        Uncounted, but the third loss of a worker with no progress in between ends the task FAILED.
        Only one caller a period does it; to the others the answer is empty.
        """
        reply = await self._store.write(
            "rescue",
            "",
            int(grace_seconds * 1000),
            int(period_seconds * 1000),
            int(heartbeat_seconds * 1000),
            limit,
            POISON_DEATHS,
            now().isoformat(timespec="microseconds"),
        )
        return [
            Rescued(task_id.decode(), _status(status), epoch) for task_id, status, epoch in reply
        ]

    async def unqueued(self, limit: int = 500) -> list[Waiting]:
        """Admitted tasks that have not begun, and whose queue entry it is time to look for: soon
        after they were admitted, then each half minute."""
        reply = await self._store.write("unqueued", "", limit, _NEXT_CHECK_MS)
        return [Waiting(task_id.decode(), epoch + 1) for task_id, epoch in reply]

    async def sweep(self, limit: int = 1000, *, turn_seconds: float = 1.0) -> int:
        """Purge records whose time to live is over, and say how many; one caller a turn does it."""
        purged = await self._store.write("sweep", "", limit, max(int(turn_seconds * 1000) - 100, 1))
        return max(cast("int", purged), 0)

    async def fenced_count(self) -> int:
        """How many stale writes have been refused since the store began."""
        writer = self._store.writer
        return int(await self._store.call(lambda: writer.hget(COUNTERS, "fenced")) or 0)

    async def _give_back(
        self,
        mode: Literal["retry", "release"],
        task_id: str,
        epoch: int,
        delay_seconds: float,
        log_entry: str | None,
        rest: Sequence[str],
    ) -> TaskStatus:
        lines = _lines(log_entry)
        wait_ms = int(delay_seconds * 1000)
        return await self._attempt_write(
            "give_back", task_id, epoch, mode, wait_ms, len(lines), *lines, *rest
        )

    async def _attempt_write(
        self, name: str, task_id: str, epoch: int, *args: Argument
    ) -> TaskStatus:
        return _status(await self._store.mutate(name, task_id, epoch, *args, epoch=epoch))


def _lines(log_entry: str | None) -> list[str]:
    return [] if log_entry is None else [format_log_entry(log_entry)]


def _note(failing: Failing | None) -> list[str]:
    if failing is None:
        return []
    reason = failing.reason.encode("utf-8", "backslashreplace").decode()
    if len(reason) > _REASON_CHARACTERS:
        reason = reason[: _REASON_CHARACTERS - 1] + "…"
    return ["note", failing.outcome, reason]


def _encode_checkpoint(checkpoint: Checkpoint) -> str:
    text = encode_json(checkpoint.value, "checkpoint")
    size = len(text.encode())
    if size > MAX_CHECKPOINT_BYTES:
        raise InvalidRequestError(
            f"the checkpoint is {size} bytes of JSON, more than {MAX_CHECKPOINT_BYTES}: save where "
            "the work stands, and put what is large in a file"
        )
    return text


def _status(value: bytes) -> TaskStatus:
    return TaskStatus(value.decode())


def _canonical(parameters: JsonObject) -> str:
    return json.dumps(parameters, sort_keys=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
