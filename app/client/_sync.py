"""The client of the API that blocks: one method a thing that can be asked."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar, Unpack, assert_never

import httpx2

from app.client import _results as results
from app.client import calls
from app.client import event_queues as queues
from app.client._flow import (
    Emit,
    Event,
    Flow,
    Json,
    Listen,
    NextEvent,
    Outcome,
    Pause,
    Send,
    Step,
    Stream,
)
from app.client._http import DEFAULT_TIMEOUT, Wiring, event_of
from app.client._request import Answer, Request
from app.client.errors import ClientError
from app.client.report import Lines
from app.client.types import SearchOptions, TaskArg

if TYPE_CHECKING:
    from app.client._shown_task import TaskShown
    from app.client.answers import (
        Change,
        DeadLetterPage,
        Definition,
        EventQueue,
        Health,
        Lost,
        ServiceState,
        Submitted,
        Throughput,
    )
    from task_state import LogPage, TaskCounts, TaskPage, TaskStatus

T = TypeVar("T")


class Client:
    """Calls a DMS. Every failure is a ClientError; threads may share a client.

    `base_url` is the API's root with its prefix (default: DMS_API_BASE, or a DMS on this machine).
    `token` is the operator's (default: DMS_OPERATOR_TOKEN; "" for none); it goes with an operator's
    requests alone. `timeout` is how many seconds an answer may be silent. `transport` replaces the
    network, `pause` the passing of time, in tests. Redirects are never followed.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        token: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        transport: httpx2.BaseTransport | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._wiring = Wiring(base_url, token, timeout)
        self._pause = pause
        self._http = httpx2.Client(transport=transport, **self._wiring.client_options())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r})"

    @property
    def base_url(self) -> str:
        """The API's root, without a password that stands in it."""
        return self._wiring.where.shown

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; leaving a `with` block does it."""
        self._http.close()

    # ------------------------------------------------------------------------------------- one task
    def submit(
        self,
        service: str,
        user: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
        strict: bool = False,
    ) -> "Submitted":
        """Submit a task. `strict` refuses parameters that do not fit the definition (RefusedError);
        otherwise such a task ends FAILED.

        Repeated with one key while its outcome is unknown; OutcomeUnknownError has the key then.
        """
        flow = calls.submit(
            service, user, parameters or {}, idempotency_key=idempotency_key, strict=strict
        )
        return self._typed(results.submitted(service, user), flow)

    def retry(self, task: TaskArg, *, idempotency_key: str | None = None) -> "Submitted":
        """Submit an ended task's parameters again, as a new task."""
        flow = calls.retry(task, idempotency_key=idempotency_key)
        return self._typed(results.resubmitted, flow)

    def get(self, task: TaskArg) -> "TaskShown":
        """The task, with its last 200 log lines and its place in the queue."""
        return self._typed(results.task, calls.get(task))

    def wait(
        self,
        task: TaskArg,
        timeout: float | None = None,
        on_change: Callable[["TaskShown"], object] | None = None,
    ) -> "TaskShown":
        """The task once it has ended, however that was: look at its `status` and `result`.

        `on_change` is told of each new state and progress. A frontend that is away for less than a
        minute is sat out. Raises WaitTimeoutError after `timeout` seconds.
        """
        seen = results.when_changed(on_change)
        return self._typed(results.task, calls.wait(task, timeout=timeout, seen=seen))

    def cancel(self, task: TaskArg) -> "TaskStatus":
        """End a task: CANCELLED at once, or CANCEL_REQUESTED while its worker still has it."""
        return self._typed(results.status, calls.cancel(task))

    def delete(self, task: TaskArg) -> bool:
        """Delete record and log, ending the task first; False: gone as soon as its worker ends."""
        return self._typed(results.deleted, calls.delete(task))

    def logs(self, task: TaskArg, *, offset: int = 0, limit: int | None = None) -> "LogPage":
        """A part of the log, at most 1000 lines; a negative offset counts from the end."""
        return self._typed(results.log_page, calls.logs(task, offset=offset, limit=limit))

    def output(self, task: TaskArg) -> str:
        """All that the task's process has written, 16 MiB at most."""
        return self.run(calls.output(task))

    def report(
        self, task: TaskArg, *, actions: Sequence[str] = (), attempt: int | None = None
    ) -> Generator[Json]:
        """Each line of the task's report, as far as it has got: of all `actions` unless some are
        named, and of all attempts. A last line with the action "omitted" counts what did not fit.
        """
        sent = self.run(calls.report_request(task, actions=actions, attempt=attempt))
        lines = Lines()
        with self.download(sent) as answer:
            for piece in answer.pieces:
                yield from lines.take(piece)

    def throughput(self, task: TaskArg) -> "Throughput":
        """How the task's progress went over time, over all attempts."""
        return self._typed(results.throughput, calls.throughput(task))

    def adjust(self, task: TaskArg, *, bandwidth: str | int | None) -> Mapping[str, Any]:
        """Change how fast a task that waits or runs may go: bytes a second or a text such as 10M, 0
        for no limit, None for its own again. All that was changed about the task."""
        return self._typed(results.adjusted, calls.adjust(task, bandwidth=bandwidth))

    def follow(self, task: TaskArg, *, offset: int = 0) -> Iterator[str]:
        """Each log line (`<iso-time>,<message>`), then the new ones, until the task has ended.

        A broken stream is taken up after the last line. A negative offset counts from the end.
        """
        return self.stream(calls.follow(task, offset=offset))

    # ----------------------------------------------------------------------------------- many tasks
    def search(self, **options: Unpack[SearchOptions]) -> "TaskPage":
        """One page of tasks, newest first unless asked otherwise; they carry no log lines."""
        return self._typed(results.page, calls.search(**options))

    def search_all(self, **options: Unpack[SearchOptions]) -> Iterator["TaskShown"]:
        """All tasks that fit, page by page by cursor; `limit` is the size of a page."""
        for page in self.stream(calls.search_pages(**options)):
            yield from results.read(results.tasks, page)

    def counts(self, service: str | None = None, user: str | None = None) -> "TaskCounts":
        """How many tasks there are by status, service and user."""
        return self._typed(results.counts, calls.counts(service, user))

    def users(self, service: str) -> list[str]:
        """Who has tasks of a service."""
        return self._typed(results.names, calls.users(service))

    def changes(
        self, service: str | None = None, user: str | None = None, *, after: str | None = None
    ) -> "Iterator[Change | Lost]":
        """Each change of tasks from now on, or after one by its id, without end.

        A broken stream is taken up after the last change; Lost says where some are missing.
        """
        for told in self.stream(calls.changes(service, user, after=after)):
            yield results.read(results.change, told)

    # ------------------------------------------------------------------------ definitions, services
    def definitions(self) -> "list[Definition]":
        """The task definitions that the scheduler knows."""
        return self._typed(results.definitions, calls.definitions())

    def services(self) -> "list[ServiceState]":
        """Every service, its mode, and what waits and runs."""
        return self._typed(results.services, calls.services())

    def service(self, name: str) -> "ServiceState":
        """One service's state."""
        return self._typed(results.service, calls.service(name))

    def pause(self, service: str, reason: str | None = None) -> "ServiceState":
        """Start nothing new of a service (`*`: of any); what runs goes on, submissions wait."""
        return self._typed(results.service, calls.change_mode(service, "pause", reason))

    def drain(self, service: str, reason: str | None = None) -> "ServiceState":
        """Refuse new submissions to a service (`*`: to any), and finish what it has."""
        return self._typed(results.service, calls.change_mode(service, "drain", reason))

    def resume(self, service: str) -> "ServiceState":
        """End what pause or drain began."""
        return self._typed(results.service, calls.change_mode(service, "resume"))

    def wait_idle(self, service: str, timeout: float | None = None) -> "list[ServiceState]":
        """Wait until a service (`*`: every one) has nothing left to do in its mode: a paused one
        until nothing runs, any other until nothing waits either. WaitTimeoutError as `wait`."""
        return self._typed(results.services, calls.wait_idle(service, timeout=timeout))

    def health(self) -> "Health":
        """Whether the frontend is ready, and what it says of its parts."""
        return self._typed(results.health, calls.health())

    # --------------------------------------------------------------------------------- event broker
    def event_queues(self) -> "list[EventQueue]":
        """The queues of the event broker, by pattern and group."""
        return self._typed(results.event_queues, queues.queues())

    def drop_event_group(self, pattern: str, group: str) -> None:
        """End a group of the event broker, with all that waits in it."""
        self.run(queues.drop_group(pattern, group))

    def dead_letters(
        self, *, limit: int | None = None, cursor: str | None = None
    ) -> "DeadLetterPage":
        """Events that could not be used, and why: oldest first, a page."""
        return self._typed(results.dead_letters, queues.dead_letters(limit=limit, cursor=cursor))

    def replay_dead_letters(
        self,
        ids: Sequence[str] | None = None,
        *,
        everything: bool = False,
        pattern: str | None = None,
        group: str | None = None,
    ) -> int:
        """Deliver dead letters again, to the queue that they died in: those with these ids, or
        `everything`, or all of a pattern and group; how many it was."""
        flow = queues.settle("replay", ids, everything=everything, pattern=pattern, group=group)
        return self._typed(results.count, flow)

    def discard_dead_letters(
        self,
        ids: Sequence[str] | None = None,
        *,
        everything: bool = False,
        pattern: str | None = None,
        group: str | None = None,
    ) -> int:
        """Remove dead letters for good, named as those to replay; how many it was."""
        flow = queues.settle("discard", ids, everything=everything, pattern=pattern, group=group)
        return self._typed(results.count, flow)

    # ----------------------------------------------------------------------------------- the engine
    def run(self, flow: Flow[T]) -> T:
        """Carry out one of `app.client.calls`; the result is the API's own JSON."""
        with _Talk(self._http, self._wiring, self._pause) as talk:
            try:
                step = next(flow)
                while True:
                    step = talk.do(step).tell(flow)
            except StopIteration as done:
                return done.value

    @contextmanager
    def download(self, sent: Request) -> "Generator[Download]":
        """An answer that may be larger than memory, such as an export, while it is open."""
        with (
            self._wiring.errors(sent),
            self._http.stream(
                **self._wiring.send_options(sent), timeout=self._wiring.stream_limits()
            ) as response,
        ):
            if response.status_code >= 300:
                response.read()
                self._wiring.read(sent, response)
            yield Download(response.headers, response.iter_bytes())

    def stream(self, flow: Stream[T]) -> Generator[T]:
        """The same for one that gives item after item."""
        with _Talk(self._http, self._wiring, self._pause) as talk:
            try:
                step = next(flow)
                while True:
                    if isinstance(step, Emit):
                        yield step.item
                        step = flow.send(None)
                    else:
                        step = talk.do(step).tell(flow)
            except StopIteration:
                return

    def _typed(self, make: Callable[[Json], T], flow: Flow[Json]) -> T:
        return results.read(make, self.run(flow))


class Download(NamedTuple):
    """The headers of an answer, and its bytes as they come. Iterating raises ClientError when it
    is cut off: whoever comes to the end has all of it."""

    headers: Mapping[str, str]
    pieces: Iterator[bytes]


class _Talk:
    """Does the steps of one flow; holds the stream that it listens to."""

    def __init__(self, http: httpx2.Client, wiring: Wiring, pause: Callable[[float], None]) -> None:
        self._http = http
        self._wiring = wiring
        self._pause = pause
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def do(self, step: Step) -> Outcome:
        """Do a step."""
        try:
            return Outcome(self._do(step))
        except ClientError as error:
            return Outcome(error=error)

    def _do(self, step: Step) -> Any:
        match step:
            case Send(sent):
                return self._send(sent)
            case Listen(sent):
                return self._listen(sent)
            case NextEvent(source, sent):
                return self._next_event(source, sent)
            case Pause(seconds):
                return self._pause(seconds)
            case _:
                assert_never(step)

    def _send(self, sent: Request) -> Answer:
        with self._wiring.errors(sent):
            response = self._http.request(
                **self._wiring.send_options(sent), timeout=self._wiring.limits(sent)
            )
        return self._wiring.read(sent, response)

    def _listen(self, sent: Request) -> Iterator[httpx2.ServerSentEvent]:
        self._open.close()
        with self._wiring.errors(sent):
            opening: AbstractContextManager[httpx2.Response] = self._http.stream(
                **self._wiring.send_options(sent), timeout=self._wiring.stream_limits()
            )
            response = self._open.enter_context(opening)
            if response.status_code >= 300:
                response.read()
                self._wiring.read(sent, response)
        return iter(httpx2.EventSource(response))

    def _next_event(self, source: Iterator[httpx2.ServerSentEvent], sent: Request) -> Event | None:
        with self._wiring.errors(sent):
            found = next(source, None)
        return None if found is None else event_of(found)
