"""Finding tasks in the task store: not task definitions, which `get_definition` finds."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, overload

from app.tasks.core.search_options import DateRange, SearchOptionError, TaskSearchOptions
from app.tasks.core.task import Task, TaskStatus, get_definition
from task_state import InvalidRequestError, TaskRecord, TaskRepository

if TYPE_CHECKING:
    from task_state.redis import RedisRepositoryProvider

__all__ = [
    "DateRange",
    "SearchOptionError",
    "TaskList",
    "TaskSearchOptions",
    "TaskStatus",
    "bind",
    "get_task_by_id",
    "search_tasks",
]


@dataclass(frozen=True, slots=True)
class TaskList(Sequence[Task[Any, Any]]):
    """A page of the tasks that were found.

    `next_cursor` is the `cursor` of the next page, None at the end. `total` counts all that fit,
    and is None where that would mean reading every record (see TaskPage).
    """

    tasks: Sequence[Task[Any, Any]]
    total: int | None = None
    next_cursor: str | None = None

    def __iter__(self) -> Iterator[Task[Any, Any]]:
        return iter(self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)

    @overload
    def __getitem__(self, index: int) -> Task[Any, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Task[Any, Any]]: ...
    def __getitem__(self, index: int | slice) -> Task[Any, Any] | Sequence[Task[Any, Any]]:
        return self.tasks[index]


async def search_tasks(
    options: TaskSearchOptions | Mapping[str, Any] | None = None,
) -> TaskList:
    """The tasks that fit, newest first and 50 a page unless `options` says otherwise.

    A task's `payload` is its parameters as they were sent; a value of more than 4 KiB is left out,
    and named in `omitted`: `get_task_by_id` has it. Raises SearchOptionError, and
    task_state's StoreUnavailableError and ConfigurationError (DMS_REDIS_WRITE_URL says where the
    store is, unless `bind` gave one).
    """
    search = _chosen(options).search()
    repository = await _repository()
    try:
        page = await repository.search(search)
    except InvalidRequestError as error:
        raise SearchOptionError(str(error)) from error
    return TaskList([_task(record) for record in page], page.total, page.next_cursor)


async def get_task_by_id(id: str) -> Task[Any, Any] | None:  # noqa: A002 - the documents' name
    """The task of that id, or None. A definition's id is no task's: `get_definition` has those.

    Raises task_state's StoreUnavailableError and ConfigurationError like `search_tasks`.
    """
    record = await (await _repository()).get(id)
    return None if record is None else _task(record)


def bind(repository: TaskRepository | None) -> None:
    """Search in that repository from now on; None goes back to the one that the environment names
    (DMS_REDIS_WRITE_URL and its neighbours), whose connections close with their event loop."""
    _bound.clear()
    if repository is not None:
        _bound.append(repository)


def _chosen(options: TaskSearchOptions | Mapping[str, Any] | None) -> TaskSearchOptions:
    if options is None:
        return TaskSearchOptions()
    return options if isinstance(options, TaskSearchOptions) else TaskSearchOptions.of(options)


def _task(record: TaskRecord) -> Task[Any, Any]:
    definition = get_definition(record.service)
    fallback = None if definition is None else definition.description
    return Task(
        id=record.task_id,
        type=record.service,
        payload=record.parameters,
        user_id=record.user_id,
        created_at=record.created_at,
        updated_at=record.updated_at,
        status=record.status,
        result=record.result.data,
        error=record.result.error,
        attempts=record.attempts,
        max_attempts=record.max_attempts,
        epoch=record.epoch,
        started_at=record.started_at,
        completed_at=record.completed_at,
        description=record.description or fallback,
        omitted=[_NAMES[name] for name in record.omitted if name in _NAMES],
    )


_NAMES: Final = {
    "parameters": "payload",
    "result.data": "result",
    "result.error": "error",
    "description": "description",
}


@dataclass(frozen=True, slots=True)
class _Opened:
    """A provider, and what closes it when its event loop ends."""

    provider: "RedisRepositoryProvider"
    keeper: AsyncGenerator[None]


_bound: Final[list[TaskRepository]] = []
# Connections belong to the event loop that made them: one provider for each that runs.
_opened: Final[dict[asyncio.AbstractEventLoop, _Opened]] = {}


async def _repository() -> TaskRepository:
    if _bound:
        return _bound[0]
    loop = asyncio.get_running_loop()
    opened = _opened.get(loop)
    if opened is None:
        _forget_closed_loops()
        provider = _provider()
        opened = _opened[loop] = _Opened(provider, _closing(loop, provider))
        # asyncio.run() and its like finish the generators that were begun before they close.
        await anext(opened.keeper)
    return await opened.provider.get_repository()


def _provider() -> "RedisRepositoryProvider":
    # Here and not above: handlers import this module's package, most of them never search.
    from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings

    return RedisRepositoryProvider(RedisRepositorySettings.from_env())


async def _closing(
    loop: asyncio.AbstractEventLoop, provider: "RedisRepositoryProvider"
) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        _opened.pop(loop, None)
        await provider.close()


def _forget_closed_loops() -> None:
    """A loop that was closed without finishing its generators left its connections for dead."""
    for loop in list(_opened):  # a copy: another thread's loop may come or go meanwhile
        if loop.is_closed():
            _opened.pop(loop, None)
