"""Everything that can be asked of the API, as flows whose results are the API's own JSON.

`Client.run(calls.users("sync"))` carries one out. The methods of the client do the same and make
types of the result; this level is for programs that pass the JSON on, such as the command line.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, cast

from app.client import _flow as flows
from app.client._flow import Flow, Json, Stream
from app.client._request import Request, request, route
from app.client.errors import NotFoundError, UnexpectedAnswerError, UsageError
from app.client.types import SearchOptions, TaskArg, TaskKey, TaskRef

ModeChange = Literal["pause", "drain", "resume"]
EVERY_SERVICE: Final = "*"
"""Instead of a service: pause, drain or resume them all."""

_HEALTH: Final = Request("GET", "/readyz", at_origin=True, accepts=frozenset({503}))
_QUERY_NAMES: Final = {"task_id": "id", "text": "q", "user": "user_id"}


# --------------------------------------------------------------------------------------- one task
def submit(
    service: str,
    user: str,
    parameters: Mapping[str, Any],
    *,
    idempotency_key: str | None = None,
    strict: bool = False,
) -> Flow[Json]:
    """`{"task_id", "status", "idempotency_key"}`."""
    sent = request(
        "POST",
        route("services", service, "users", user, "tasks"),
        body={"parameters": dict(parameters)},
        headers={"Prefer": "handling=strict"} if strict else None,
    )
    return flows.submission(sent, idempotency_key)


def retry(task: TaskArg, *, idempotency_key: str | None = None) -> Flow[Json]:
    """`{"task_id", "status", "retry_of", "service", "user_id", "idempotency_key"}`."""
    key = yield from _key_of(task)
    sent = _task_request("POST", key, "retry")
    found = yield from flows.submission(sent, idempotency_key)
    return {**found, "service": key.service, "user_id": key.user_id}


def get(task: TaskArg) -> Flow[Json]:
    """The task itself, with its last 200 log lines."""
    found = yield from flows.call(_task_request("GET", (yield from _key_of(task))))
    return flows.task_of(found)


def wait(
    task: TaskArg, *, timeout: float | None = None, seen: Callable[[Json], object] = bool
) -> Flow[Json]:
    """The task once it has ended; `seen` is told of each reading."""

    def over(found: Json) -> bool:
        shown = flows.task_of(found)
        seen(shown)
        return flows.has_ended(shown)

    sent = _task_request("GET", (yield from _key_of(task)))
    what = "the task has not ended"
    return flows.task_of((yield from flows.poll(sent, over=over, timeout=timeout, what=what)))


def cancel(task: TaskArg) -> Flow[Json]:
    """`{"task_id", "status"}`: CANCELLED, or CANCEL_REQUESTED while a worker has to end it."""
    return flows.call(_change_request("POST", task, "cancel"))


def delete(task: TaskArg) -> Flow[Json]:
    """`{"task_id", "deleted"}`; not deleted yet while its worker still ends it."""
    return flows.call(_change_request("DELETE", task))


def logs(task: TaskArg, *, offset: int = 0, limit: int | None = None) -> Flow[Json]:
    """`{"lines", "offset", "total"}`; a negative offset counts from the end."""
    key = yield from _key_of(task)
    return (yield from flows.call(_task_request("GET", key, "logs", offset=offset, limit=limit)))


def output(task: TaskArg) -> Flow[str]:
    """All that the task's process has written."""
    return (yield from flows.text(_task_request("GET", (yield from _key_of(task)), "output")))


def report_request(
    task: TaskArg, *, actions: Sequence[str] = (), attempt: int | None = None
) -> Flow[Request]:
    """The request for a task's report, to be read by `Client.download`: lines of JSON."""
    key = yield from _key_of(task)
    return _task_request("GET", key, "report", action=list(actions) or None, attempt=attempt)


def throughput(task: TaskArg) -> Flow[Json]:
    """`{"points", "interval_seconds"}`; each point is [ms since 1970, bytes, files]."""
    key = yield from _key_of(task)
    return (yield from flows.call(_task_request("GET", key, "throughput")))


def adjust(task: TaskArg, *, bandwidth: str | int | None) -> Flow[Json]:
    """`{"task_id", "adjust"}`; bytes a second or a text such as 10M, 0 for no limit, None for the
    task's own."""
    return flows.call(_change_request("PATCH", task, body={"bandwidth": bandwidth}))


def follow(task: TaskArg, *, offset: int = 0) -> Stream[str]:
    """The log's lines, then new ones until the task has ended."""
    key = yield from _key_of(task)
    yield from flows.log_lines(
        lambda after: _streamed(_task_request("GET", key, "logs", offset=after)), offset
    )


def _task_request(
    method: str, task: TaskKey, *more: str, body: Json | None = None, **params: Any
) -> Request:
    path = route("services", task.service, "tasks", task.task_id, *more)
    return request(method, path, params={"user_id": task.user_id, **params}, body=body)


def _change_request(method: str, task: TaskArg, *more: str, body: Json | None = None) -> Request:
    if isinstance(task, str):
        return request(method, route("admin", "tasks", task, *more), body=body, operator=True)
    return _task_request(method, task, *more, body=body)


def _key_of(task: TaskArg) -> Generator[flows.Step, Any, TaskKey]:
    """Who owns the task, which an operator need not know."""
    if not isinstance(task, str):
        return task
    page = yield from search(task_id=task)
    try:
        for found in page["tasks"]:
            return TaskRef(found["task_id"], found["service"], found["user_id"])
    except (KeyError, TypeError):
        raise UnexpectedAnswerError("the answer lists no tasks", "is this a DMS?") from None
    raise NotFoundError(f"no task {task!r}", "the list of tasks shows what there is")


# ------------------------------------------------------------------------------------- many tasks
def search(**options: Any) -> Flow[Json]:
    """One page, `{"tasks", "next_cursor", "total"}`; `options` are those of SearchOptions."""
    return flows.call(_search_request(cast("SearchOptions", options)))


def search_pages(**options: Any) -> Stream[Json]:
    """All pages, one after another; `options` are those of SearchOptions."""
    first = cast("SearchOptions", options)

    def page(cursor: str | None) -> Request:
        if cursor is None:
            return _search_request(first)
        return _search_request({**first, "cursor": cursor, "offset": None})

    return flows.pages(page)


def _search_request(options: SearchOptions) -> Request:
    if unknown := sorted(options.keys() - SearchOptions.__annotations__.keys()):
        raise UsageError(f"no option of a search is called {', '.join(unknown)}", _named(unknown))
    service, user = options.get("service"), options.get("user")
    path, named = _listing(service, user)
    query = {
        _QUERY_NAMES.get(name, name): _instant(value)
        for name, value in options.items()
        if name not in named
    }
    return request("GET", path, params=query, operator=service is None or user is None)


def _named(unknown: list[str]) -> str:
    """What to write instead."""
    from task_state.naming import meant  # late: it loads pydantic

    known = SearchOptions.__annotations__
    near = meant(unknown[0], known)
    return f"did you mean {near}?" if near else f"they are {', '.join(known)}"


def _listing(service: str | None, user: str | None) -> tuple[str, set[str]]:
    """The path of a listing, and the options that it names already."""
    if service is None:
        return route("admin", "tasks"), set()
    if user is None:
        return route("admin", "services", service, "tasks"), {"service"}
    return route("services", service, "users", user, "tasks"), {"service", "user"}


def _instant(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def counts(service: str | None = None, user: str | None = None) -> Flow[Json]:
    """`{"total", "by_status", "by_service", "by_user"}`."""
    if service is not None and user is not None:
        return flows.call(request("GET", route("services", service, "users", user, "counts")))
    query = {"service": service, "user_id": user}
    return flows.call(request("GET", route("admin", "counts"), params=query, operator=True))


def users(service: str) -> Flow[Json]:
    """`{"users"}`, in alphabetical order."""
    return flows.call(request("GET", route("services", service, "users")))


def changes(
    service: str | None = None, user: str | None = None, *, after: str | None = None
) -> Stream[tuple[str, str, Json]]:
    """(id, name, data) of each change from now on, or after that one; without end."""
    if user is not None and service is None:
        raise UsageError("a user's changes are those of one service", "name the service too")
    sent = request(
        "GET",
        route("events"),
        params={"service": service, "user_id": user},
        operator=user is None,
    )
    return flows.changes(_streamed(sent), after)


def _streamed(sent: Request) -> Request:
    return sent._replace(headers={**sent.headers, "Accept": "text/event-stream"})


# -------------------------------------------------------------------------- definitions, services
def definitions() -> Flow[Json]:
    """`{"definitions"}` that the scheduler knows."""
    return flows.call(request("GET", route("definitions")))


def services() -> Flow[Json]:
    """`{"services"}`, each with its mode and what waits and runs."""
    return flows.call(request("GET", route("admin", "services"), operator=True))


def service(name: str) -> Flow[Json]:
    """One service's state."""
    return flows.call(request("GET", route("admin", "services", name), operator=True))


def change_mode(name: str, change: ModeChange, reason: str | None = None) -> Flow[Json]:
    """The state of the service, or of EVERY_SERVICE, after the change."""
    path = route("admin", "services", name, change)
    body = None if reason is None else {"reason": reason}
    return flows.call(request("POST", path, body=body, operator=True))


def wait_idle(
    name: str, *, timeout: float | None = None, seen: Callable[[Json], object] = bool
) -> Flow[Json]:
    """The state of a service, or of EVERY_SERVICE, once it has nothing left to do in its mode.

    Of a PAUSED one nothing runs then; of any other nothing waits either. `{"services"}`.
    """

    def over(found: Json) -> bool:
        mine = _states_of(name, found)
        seen({"services": mine})
        return not any(map(_busy, mine))

    sent = request("GET", route("admin", "services"), operator=True)
    what = "the work has not ended"
    found = yield from flows.poll(sent, over=over, timeout=timeout, what=what)
    return {"services": _states_of(name, found)}


def _states_of(name: str, found: Json) -> list[Json]:
    try:
        states: list[Json] = found["services"]
        return [state for state in states if name in {state["service"], EVERY_SERVICE}]
    except (KeyError, TypeError):
        raise UnexpectedAnswerError("the answer lists no services", "is this a DMS?") from None


def _busy(state: Json) -> bool:
    """Whether anything runs, or waits and will start."""
    waits = 0 if state["mode"] == "PAUSED" else state["waiting"] + state["delayed"]
    return bool(state["running"] or waits)


def health() -> Flow[Json]:
    """What the frontend says of itself at `/readyz`, ready or not."""
    return flows.call(_HEALTH)
