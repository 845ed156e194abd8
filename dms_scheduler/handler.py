"""Calling one handler and telling how it ended; the same in a child process and inline."""

import asyncio
import inspect
import json
import traceback as tracebacks
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Literal, Protocol, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.tasks import (
    MAX_DELAY_SECONDS,
    LeaseLost,
    PermanentFailure,
    RetryLater,
    Task,
    TaskCancelled,
    TaskControl,
    TaskDefinition,
    TaskStatus,
    running,
)
from dms_scheduler.plain import plain
from dms_scheduler.threads import in_own_thread

MAX_RESULT_BYTES = 8 * 1024 * 1024
MOST_LINE_CHARACTERS = 16_384  # of a log line; the journal cuts what is longer
_MAX_TRACEBACK_CHARACTERS = 16_384
_MAX_ERROR_CHARACTERS = 65_536  # what the record shows is cut further, after masking
_ENVELOPE = {"status", "message", "data"}


class TaskView(BaseModel):
    """What a handler may know of its task's record; JSON on the way to a child process."""

    model_config = ConfigDict(extra="forbid")

    id: str
    service: str
    user_id: str
    parameters: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    attempts: int
    max_attempts: int
    epoch: int
    description: str | None
    checkpoint: Any = None
    adjusted: dict[str, Any] = Field(default_factory=dict)


class CancellableControl(TaskControl, Protocol):
    """A control that can wake an event loop when the task is cancelled."""

    def on_cancel(self, call: Callable[[], object]) -> None:
        """Call `call` (from any thread) when the task is cancelled, or now if it is already."""
        ...


OutcomeKind = Literal["success", "failure", "invalid", "cancelled", "lease_lost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one call of a handler ended.

    "invalid" parameters and a failure that is not `retryable` end the task. `message` is a line
    for the log, `error` what the failed task shows, `delay_seconds` the handler's own wish.
    A failure that is not `counted` is none: the task waits for what `error` says.
    `worn` says that the process that ran it should not run another.
    """

    kind: OutcomeKind
    data: Any = None
    message: str | None = None
    error: str | None = None
    traceback: str | None = None
    retryable: bool = True
    delay_seconds: float | None = None
    counted: bool = True
    worn: bool = False

    def to_json(self) -> dict[str, Any]:
        """All fields; `data` is JSON-able already."""
        return asdict(self)

    @classmethod
    def of_json(cls, fields: dict[str, Any]) -> "Outcome":
        """From what `to_json` made; raises ValueError for anything else."""
        try:
            made = cls(**fields)
        except TypeError as error:
            raise ValueError(str(error)) from error
        texts: list[object] = [made.message, made.error, made.traceback]
        flags: list[object] = [made.retryable, made.counted, made.worn]
        delay: object = made.delay_seconds
        if (
            made.kind not in get_args(OutcomeKind)
            or not all(text is None or isinstance(text, str) for text in texts)
            or not all(isinstance(flag, bool) for flag in flags)
            or not (delay is None or isinstance(delay, float))
        ):
            raise ValueError(f"no outcome: {fields!r:.100}")
        return made


def call_blocking(
    definition: TaskDefinition[Any, Any], view: TaskView, control: CancellableControl
) -> Outcome:
    """Run the handler in this thread, which has no event loop: a child's main thread."""
    task = _task(definition, view)
    if isinstance(task, Outcome):
        return task
    try:
        with running(task, control):
            result = definition.handler(task)
            if inspect.isawaitable(result):
                result = asyncio.run(_awaited(result, control))
    except BaseException as error:  # noqa: BLE001 - also SystemExit: a handler's end is told, not followed
        return failed(error)
    return succeeded(result, definition)


async def call_inline(
    definition: TaskDefinition[Any, Any], view: TaskView, control: TaskControl
) -> Outcome:
    """Run the handler in the worker's process: a coroutine in its loop, a function in a thread.

    A cancelled coroutine ends as "cancelled": the caller, who cancelled, knows why.
    """
    task = _task(definition, view)
    if isinstance(task, Outcome):
        return task
    try:
        with running(task, control):
            call = cast("Callable[[Task[Any, Any]], Any]", definition.handler)
            if definition.is_async:
                return succeeded(await call(task), definition)
            result = await in_own_thread(call, task)
            result = await result if inspect.isawaitable(result) else result
            return succeeded(result, definition)
    except BaseException as error:  # noqa: BLE001 - whatever a handler raises is its outcome
        return failed(error)  # even SystemExit, which would end the worker and all that it runs


async def _awaited(result: Awaitable[Any], control: CancellableControl) -> Any:
    """Await an async handler in a child, and cancel it when the control says so."""
    work = asyncio.ensure_future(result)
    loop = asyncio.get_running_loop()
    control.on_cancel(lambda: loop.call_soon_threadsafe(work.cancel))
    return await work


def _task(definition: TaskDefinition[Any, Any], view: TaskView) -> Task[Any, Any] | Outcome:
    payload: Any = view.parameters
    adapter = definition.options.payload_adapter
    if adapter is not None:
        try:
            payload = adapter.validate_python(view.parameters)
        except ValidationError as error:
            reason = f"the parameters do not fit {definition.id!r}: {_explain(error, 'parameters')}"
            return Outcome(kind="invalid", error=reason, retryable=False)
        except Exception as error:  # noqa: BLE001 - a validator of the user's own may raise anything
            return failed(error)
    return Task(
        id=view.id,
        type=view.service,
        status=TaskStatus.RUNNING,
        payload=payload,
        user_id=view.user_id,
        attempts=view.attempts,
        max_attempts=view.max_attempts,
        created_at=view.created_at,
        updated_at=view.updated_at,
        started_at=view.started_at,
        description=view.description,
        epoch=view.epoch,
    )


def _explain(error: ValidationError, whole: str) -> str:
    """One sentence a problem; the values stay out, for one of them may be a secret."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc']) or whole}: "
        f"{problem['msg'].removeprefix('Value error, ')}"
        for problem in problems
    )


def succeeded(result: Any, definition: TaskDefinition[Any, Any] | None = None) -> Outcome:
    """The outcome that a handler's return value means, checked against its definition."""
    try:
        value = plain(result if definition is None else _fitted(result, definition))
        size = len(json.dumps(value, allow_nan=False))
    except ValidationError as error:
        return _no_result(f"does not fit its definition: {_explain(error, 'result')}")
    except (ValueError, TypeError, RecursionError) as error:
        return _no_result(f"cannot be written as JSON: {error}; return plain values")
    except Exception as error:  # noqa: BLE001 - a validator of the user's own may raise anything
        return replace(failed(error), retryable=False)
    if size > MAX_RESULT_BYTES:
        return _no_result(
            f"is {size} bytes of JSON, more than {MAX_RESULT_BYTES}: "
            "write large results to a file and return its path"
        )
    return _read_envelope(value)


def _no_result(why: str) -> Outcome:
    return Outcome(kind="failure", error=f"the handler's result {why}", retryable=False)


def _fitted(result: Any, definition: TaskDefinition[Any, Any]) -> Any:
    """The result in an envelope, its data read and written by the definition's result type; as it
    is where there is none, and a failure's. Raises ValidationError."""
    adapter = definition.options.result_adapter
    if adapter is None:
        return result
    envelope = {"status": "success", "data": result}
    if isinstance(result, Mapping):
        answer = dict(cast("Mapping[Any, Any]", result))
        if answer.get("status") == "failure":
            return answer
        if answer.get("status") == "success" and set(answer) <= _ENVELOPE:
            envelope = answer
    data = adapter.validate_python(envelope.get("data"))
    written = adapter.dump_python(data, mode="json", by_alias=True, warnings="error")
    return envelope | {"data": written}


def _read_envelope(value: Any) -> Outcome:
    """Honour `{"status": "success"|"failure", "message", "data"}`; all else is the data itself."""
    if not isinstance(value, Mapping):
        return Outcome(kind="success", data=value)
    answer = cast("Mapping[str, Any]", value)
    status = answer.get("status")
    only_envelope = set(answer) <= _ENVELOPE
    message = None if answer.get("message") is None else str(answer["message"])
    if status == "failure":
        rest = {key: item for key, item in answer.items() if key not in {"status", "message"}}
        return Outcome(
            kind="failure",
            data=answer.get("data") if only_envelope else rest,
            error=message or "the handler answered that it failed, without a message",
            retryable=False,
        )
    if status == "success" and only_envelope:
        return Outcome(kind="success", data=answer.get("data"), message=message)
    return Outcome(kind="success", data=value)


def failed(error: BaseException) -> Outcome:
    """The outcome that an exception out of a handler means."""
    raised, error = error, _alone(error)
    text = _text(error)
    if isinstance(error, (TaskCancelled, asyncio.CancelledError)):
        return Outcome(kind="cancelled", error=text or None, worn=True)
    if isinstance(error, LeaseLost):
        return Outcome(kind="lease_lost", error=text, worn=True)
    if isinstance(error, PermanentFailure):
        return _with_data(Outcome(kind="failure", error=text, retryable=False, worn=True), error)
    if isinstance(error, RetryLater):
        # A subclass may have forgotten to call our constructor.
        counted = getattr(error, "counted", True) is not False
        outcome = Outcome(
            kind="failure", error=text, delay_seconds=_delay(error), counted=counted, worn=True
        )
        return _with_data(outcome, error)
    return Outcome(kind="failure", error=_reason(error), traceback=_traceback(raised), worn=True)


def _alone(error: BaseException) -> BaseException:
    """What a TaskGroup wrapped, where all that failed in it failed alike: it means what it means
    outside of one."""
    while isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        if len({(type(each), _text(each)) for each in group.exceptions}) > 1:
            return group
        error = group.exceptions[0]
    return error


def _delay(error: RetryLater) -> float | None:
    """Its own delay, unless a subclass has put something else there, or nothing."""
    delay: object = getattr(error, "delay_seconds", None)
    if isinstance(delay, int | float) and 0 <= delay <= MAX_DELAY_SECONDS:
        return float(delay)
    return None


def _with_data(outcome: Outcome, error: PermanentFailure | RetryLater) -> Outcome:
    """With the data that the exception carries; a subclass may have forgotten to set it."""
    checked = succeeded({"status": "success", "data": getattr(error, "data", None)})
    if checked.kind != "success":
        return replace(outcome, error=f"{outcome.error} ({checked.error})")
    return replace(outcome, data=checked.data)


def _reason(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "MemoryError: the task needed more memory than DMS_CHILD_MEMORY_BYTES allows a child"
    if isinstance(error, SystemExit):
        return f"the handler left its process by sys.exit({error.code!r})"
    text = _text(error)
    told = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return f"{told}: {_reason(group.exceptions[0])}; ..."
    return told


def _text(error: BaseException) -> str:
    try:
        return str(error)[:_MAX_ERROR_CHARACTERS]
    except BaseException as broken:  # noqa: BLE001 - an exception whose own message cannot be made
        return f"(its message cannot be shown: {type(broken).__name__} in its __str__)"


def _traceback(error: BaseException) -> str:
    """The traceback from the handler on; our own frames above it tell the user nothing."""
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_globals.get("__name__") == __name__:
        frame = frame.tb_next
    lines = tracebacks.format_exception(type(error), error, frame or error.__traceback__)
    text = "".join(lines)
    if len(text) <= _MAX_TRACEBACK_CHARACTERS:
        return text
    # From a line's start on: a secret that is cut in half would not be masked.
    return text[-_MAX_TRACEBACK_CHARACTERS:].partition("\n")[2]
