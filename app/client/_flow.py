"""Conversations with the API as generators: what is asked, when it is asked again, when it is over.

A flow yields what is to be done (send, listen, pause ...) and is sent the outcome, or thrown the
ClientError that it was. It does no I/O itself, so the two faces of the client, the one that blocks
and the one that awaits, share every decision.
"""

import json
import time
from collections.abc import Callable, Generator
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeVar, cast

from app.client._request import Answer, Request, fits_header, json_object
from app.client.errors import (
    ClientError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
    UnexpectedAnswerError,
    UsageError,
    WaitTimeoutError,
)

T = TypeVar("T")
Json: TypeAlias = dict[str, Any]
Clock: TypeAlias = Callable[[], float]

PATIENCE_SECONDS: Final = 60.0
"""How long a wait, a follower or a listing sits out a frontend that is away (a restart, a deploy).
"""

_CREATE_DELAYS: Final = (0.2, 0.5, 1.0, 2.0)
_FIRST_PAUSE: Final = 0.1
_LAST_PAUSE: Final = 1.0
_GROWTH: Final = 1.3
_MAX_RETRY_AFTER: Final = 5.0
_TERMINAL: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED"})


class Send(NamedTuple):
    """Send the request; the outcome is its Answer."""

    request: Request


class Listen(NamedTuple):
    """Open the stream of events that the request asks for, in place of the one before; the outcome
    is what the events come from."""

    request: Request


class NextEvent(NamedTuple):
    """The outcome is the next Event of what `request` opened, or None at the end of the stream."""

    source: Any
    request: Request


class Pause(NamedTuple):
    """Let so many seconds pass."""

    seconds: float


class Emit(NamedTuple, Generic[T]):
    """Hand an item to the caller who iterates."""

    item: T


class Event(NamedTuple):
    """One server-sent event; `id` is empty for one without."""

    name: str
    data: str
    id: str = ""


Step: TypeAlias = Send | Listen | NextEvent | Pause
Flow: TypeAlias = Generator[Step, Any, T]
Stream: TypeAlias = Generator[Step | Emit[T], Any, None]


class Outcome(NamedTuple):
    """How a step went: a value, or the error that it was."""

    value: Any = None
    error: ClientError | None = None

    def tell(self, flow: Generator[Any, Any, Any]) -> Any:
        """Tell the flow; returns its next step, and raises StopIteration at its end."""
        return flow.send(self.value) if self.error is None else flow.throw(self.error)


class Patience:
    """How long failures that may pass are sat out, counted from the first one in a row."""

    def __init__(self, clock: Clock, seconds: float = PATIENCE_SECONDS) -> None:
        self._clock = clock
        self._seconds = seconds
        self._since: float | None = None
        self._step = _FIRST_PAUSE

    def answered(self) -> None:
        """The row of failures is over."""
        self._since = None
        self._step = _FIRST_PAUSE

    def after(self, error: UnavailableError) -> float:
        """The seconds to pause before the next try; raises the error when patience is over."""
        now = self._clock()
        if self._since is None:
            self._since = now
        elif now - self._since > self._seconds:
            raise error
        pause = max(self._step, min(error.retry_after, _MAX_RETRY_AFTER))
        self._step = min(self._step * _GROWTH, _LAST_PAUSE)
        return pause


def call(sent: Request) -> Flow[Json]:
    """One request and its JSON answer."""
    answer: Answer = yield Send(sent)
    return json_object(answer)


def text(sent: Request) -> Flow[str]:
    """One request and the text that answers it."""
    answer: Answer = yield Send(sent)
    return answer.body.decode("utf-8", errors="replace")


def patient(sent: Request, patience: Patience) -> Flow[Json]:
    """A request that only reads, repeated while nobody can answer it."""
    while True:
        try:
            found = yield from call(sent)
        except UnavailableError as error:
            yield Pause(patience.after(error))
        else:
            patience.answered()
            return found


def submission(sent: Request, key: str | None) -> Flow[Json]:
    """A request that makes a task, repeated with one key while its outcome is unknown.

    The answer's `idempotency_key` is that key, made up if none was given.
    """
    key = _new_key() if key is None else key
    if not key or not fits_header(key):
        raise UsageError(
            f"the idempotency key {key!r} cannot be sent",
            "use ASCII characters without spaces around them, such as a random UUID",
        )
    keyed = sent._replace(headers={**sent.headers, "Idempotency-Key": key})
    found = yield from _repeated(keyed, key)
    return {**found, "idempotency_key": key}


def _new_key() -> str:
    from uuid import uuid4  # late: most commands submit nothing

    return str(uuid4())


def _repeated(sent: Request, key: str) -> Flow[Json]:
    unknown: OutcomeUnknownError | None = None
    for delay in (*_CREATE_DELAYS, None):
        try:
            return (yield from call(sent))
        except UnavailableError as error:
            if isinstance(error, OutcomeUnknownError):
                unknown = error
            elif unknown is None and not error.reached:
                raise  # nobody was there, so nothing can have been made
            if delay is None:
                raise (_unknown(unknown, key) if unknown else error) from error
            pause = max(delay, min(error.retry_after, _MAX_RETRY_AFTER))
        yield Pause(pause)
    raise AssertionError("unreachable: the last delay is None")


def _unknown(last: OutcomeUnknownError, key: str) -> OutcomeUnknownError:
    error = OutcomeUnknownError(
        f"{last.cause}; whether the task was accepted is unknown",
        f"submit it again with the idempotency key {key}: it is accepted only once",
        status=last.status,
        kind=last.kind,
        request_id=last.request_id,
        retry_after=last.retry_after,
    )
    error.idempotency_key = key
    return error


def poll(
    sent: Request,
    *,
    over: Callable[[Json], bool],
    timeout: float | None,
    what: str,
    clock: Clock = time.monotonic,
) -> Flow[Json]:
    """Read again and again until `over` says so of an answer, which is the result.

    A restart of the frontend is sat out. Raises WaitTimeoutError after `timeout` seconds, whose
    message says that `what` was not so by then.
    """
    start, step, patience = clock(), _FIRST_PAUSE, Patience(clock)
    while True:
        left = _left(timeout, start, clock)
        pause = step
        try:
            found = yield from call(_bounded(sent, left))
        except UnavailableError as error:
            pause = patience.after(error)
        else:
            patience.answered()
            if over(found):
                return found
        left = _left(timeout, start, clock)
        if left is not None and left <= 0:
            raise WaitTimeoutError(
                f"{what} within {timeout:g} seconds", "it goes on; wait again for it"
            )
        yield Pause(pause if left is None else min(pause, left))
        step = min(step * _GROWTH, _LAST_PAUSE)


def _left(timeout: float | None, start: float, clock: Clock) -> float | None:
    return None if timeout is None else timeout - (clock() - start)


def _bounded(sent: Request, left: float | None) -> Request:
    """A request that does not outlast a wait by much: a second, so that one read is always made."""
    return sent if left is None else sent._replace(timeout=max(left, 1.0))


def task_of(found: Json) -> Json:
    """The task in an answer."""
    try:
        task: Json = found["task"]
        task["status"]
    except (KeyError, TypeError):
        raise UnexpectedAnswerError("the answer holds no task", "is this a DMS?") from None
    return task


def has_ended(task: Json) -> bool:
    """Whether nothing can follow in a task's life."""
    return task["status"] in _TERMINAL


def pages(sent: Callable[[str | None], Request], clock: Clock = time.monotonic) -> Stream[Json]:
    """Every page of a listing; `sent` makes the request that follows a cursor (None: the first)."""
    cursor, patience = None, Patience(clock)
    while True:
        page = yield from patient(sent(cursor), patience)
        yield Emit(page)
        cursor = page.get("next_cursor")
        if not cursor:
            return


def log_lines(
    sent: Callable[[int], Request], offset: int, clock: Clock = time.monotonic
) -> Stream[str]:
    """A task's log lines from the one after `offset` on, then each new one, to the task's end.

    `sent` makes the request for the stream after a line; a negative offset counts from the end. A
    broken stream is taken up after the last line, so none is lost and none comes twice.
    """
    last: int | None = None
    patience = Patience(clock)
    while True:
        try:
            asked = sent(offset) if last is None else _after(sent(last), str(last))
            source = yield Listen(asked)
            patience.answered()
            while (event := (yield NextEvent(source, asked))) is not None:
                if event.name == "end":
                    return _must_exist(_data(event))
                if event.name == "log":
                    number, line = _line(event)
                    if last is None or number > last:
                        last = number
                        yield Emit(line)
            # Ended without its last word: that frontend stops, and another may answer.
            yield Pause(_LAST_PAUSE)
        except UnavailableError as error:
            yield Pause(patience.after(error))


def changes(
    sent: Request, after: str | None, clock: Clock = time.monotonic
) -> Stream[tuple[str, str, Json]]:
    """(id, name, data) of each change after that one (None: from now on), without end.

    A broken stream is taken up after the last change; the name `lost` says that some are missing.
    """
    patience = Patience(clock)
    while True:
        try:
            asked = sent if after is None else _after(sent, after)
            source = yield Listen(asked)
            patience.answered()
            while (event := (yield NextEvent(source, asked))) is not None:
                after = event.id or after
                if event.data:
                    yield Emit((event.id, event.name, _data(event)))
            yield Pause(_LAST_PAUSE)
        except UnavailableError as error:
            yield Pause(patience.after(error))


def _after(sent: Request, last: str) -> Request:
    return sent._replace(headers={**sent.headers, "Last-Event-ID": last})


def _data(event: Event) -> Json:
    try:
        found = json.loads(event.data)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UnexpectedAnswerError(f"the event {event.name!r} is not DMS's", "is this a DMS?")
    return cast("Json", found)


def _line(event: Event) -> tuple[int, str]:
    data = _data(event)
    number, line = data.get("n"), data.get("line")
    if not isinstance(number, int) or not isinstance(line, str):
        raise UnexpectedAnswerError("the event 'log' is not DMS's", "is this a DMS?")
    return number, line


def _must_exist(end: Json) -> None:
    """The last event names the status that the task ended with, or none if it was deleted."""
    if end.get("status") is None:
        raise NotFoundError("the task was deleted while its log was read")
