"""Definitions: what registers, what is refused, and what running code can ask."""

import asyncio
import importlib
import sys
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, assert_type, cast
from uuid import uuid4

import pytest
from pydantic import AfterValidator, BaseModel, BeforeValidator, JsonValue, RootModel
from typing_extensions import TypedDict

import task_state
from app import tasks
from app.tasks import (
    DefinitionError,
    Task,
    TaskDefinition,
    TaskOptions,
    TasksError,
    TaskStatus,
    cancelled,
    checkpoint,
    current_control,
    current_task,
    define_task,
    definitions,
    get_definition,
)
from app.tasks.core import task as core


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a registry of its own."""
    monkeypatch.setattr(core, "_registry", {})


def handler(task: Task[dict[str, Any]]) -> None:
    """Does nothing."""


class Numbers(BaseModel):
    first: int


class Tree(BaseModel):
    """Refers to itself, so its schema is a reference."""

    first: int
    next: "Tree | None" = None


class Pair(NamedTuple):
    """A list, in JSON."""

    first: int


class Options(TypedDict):
    """An object, in JSON."""

    first: int


@dataclass
class Point:
    """An object, in JSON."""

    first: int


async def async_handler(task: Task[dict[str, Any]]) -> None:
    """Does nothing, asynchronously."""


class AsyncCallable:
    """An object that is called like an async function."""

    async def __call__(self, task: Task[dict[str, Any]]) -> str:
        return task.id


def test_a_definition_knows_its_options() -> None:
    made = define_task("report", handler, {"description": "A report", "max_attempts": 5})
    assert (made.id, made.description, made.max_attempts) == ("report", "A report", 5)
    assert made.handler is handler
    assert get_definition("report") is made
    assert get_definition("other") is None


def test_the_decorator_leaves_the_function_as_it_is() -> None:
    @define_task("decorated", options=TaskOptions(max_attempts=1))
    def decorated(task: Task[dict[str, Any]]) -> str:
        return task.id

    made = get_definition("decorated")
    assert made is not None
    assert made.handler is decorated
    assert made.max_attempts == 1


@pytest.mark.parametrize(
    ("function", "wanted", "expected"),
    [
        (handler, None, "process"),
        (async_handler, None, "inline"),
        (AsyncCallable(), None, "inline"),
        (handler, "inline", "inline"),
        (async_handler, "process", "process"),
    ],
)
def test_isolation_follows_the_kind_of_function(function: Any, wanted: Any, expected: str) -> None:
    assert define_task("t", function, TaskOptions(isolation=wanted)).isolation == expected


@pytest.mark.parametrize("bad", ["", "a:b", "a b", "x" * 65, "a/b", "a\n", "가", ".", ".."])
def test_a_malformed_id_is_refused(bad: str) -> None:
    with pytest.raises(DefinitionError, match="cannot be a definition's id"):
        define_task(bad, handler)


@pytest.mark.parametrize("bad", [None, 5, b"t", handler])
def test_an_id_is_a_text(bad: Any) -> None:
    with pytest.raises(DefinitionError, match=r"needs an id before|cannot be a definition's id"):
        define_task(bad, handler)


def test_the_bare_decorator_is_refused_with_the_right_spelling() -> None:
    with pytest.raises(DefinitionError, match='it is @define_task\\("its-id"\\)'):
        define_task(handler)  # pyright: ignore[reportArgumentType, reportCallIssue]


def test_a_bad_id_is_refused_before_the_decorator_sees_its_function() -> None:
    with pytest.raises(DefinitionError, match="cannot be a definition's id"):
        define_task("a b")


@pytest.mark.parametrize("bad", ["handler", 5, {"max_attempts": 1}, TaskOptions()])
def test_a_handler_can_be_called(bad: Any) -> None:
    with pytest.raises(DefinitionError, match="cannot be called: give a function"):
        define_task("t", bad)
    with pytest.raises(DefinitionError, match="cannot be called: give a function"):
        define_task("t")(bad)
    assert definitions() == {}


def no_task() -> None:
    """Takes nothing."""


def task_and_more(task: Task[Any, Any], more: str) -> None:
    """Wants more than the task."""


@pytest.mark.parametrize("bad", [no_task, task_and_more, AsyncCallable])
def test_a_handler_takes_the_task_alone(bad: Any) -> None:
    with pytest.raises(DefinitionError, match="cannot be called with the task alone"):
        define_task("t", bad)
    assert definitions() == {}


@pytest.mark.parametrize("bad", [5, ["max_attempts"], "max_attempts"])
def test_options_are_a_mapping(bad: Any) -> None:
    with pytest.raises(DefinitionError, match="neither TaskOptions nor a mapping"):
        define_task("t", handler, bad)


def test_an_id_belongs_to_one_handler() -> None:
    define_task("t", handler)
    again = define_task("t", handler, {"max_attempts": 1})
    with pytest.raises(DefinitionError, match="is taken by"):
        define_task("t", async_handler)
    assert get_definition("t") is again


BAD_OPTIONS: list[tuple[str, Any, str]] = [
    ("description", 3, "a text"),
    ("max_attempts", 0, "1 (no retry) to 1,000,000"),
    ("description", "\ud800", "UTF-8"),
    ("max_attempts", 10**30, "1,000,000"),
    ("max_attempts", "3", "whole number"),
    ("max_attempts", True, "whole number"),
    ("max_attempts", 2.5, "whole number"),
    ("timeout_seconds", 0, "above 0"),
    ("timeout_seconds", float("inf"), "leave it out"),
    ("timeout_seconds", float("nan"), "leave it out"),
    ("timeout_seconds", 10**40, "at most 31,622,400"),
    ("isolation", "thread", '"inline" or "process"'),
    ("isolation", ["inline"], '"inline" or "process"'),
    ("payload", 5, "no type that pydantic can check"),
    ("payload", Callable[[int], int], "no type that pydantic can check"),
    ("payload", int, "Use a pydantic model, a dataclass, a TypedDict or a dict type"),
    ("payload", str | None, "a task's parameters are a JSON object, and it takes none"),
    ("payload", list[Numbers], "never fits"),
    ("payload", Pair, "never fits"),
    ("payload", Literal["a", "b"], "never fits"),
    ("payload", RootModel[list[int]], "never fits"),
    ("result", "NoSuchType", "define it above the task"),
    ("result", complex(1), "Use a pydantic model"),
    ("retry", "never", '"fixed" or "exponential"'),
    ("retry", None, '"fixed" or "exponential"'),
    ("retry_delay_seconds", -1, "0 to 31,622,400"),
    ("retry_max_delay_seconds", None, "number of seconds"),
    ("jitter", 1.01, "0 to 1"),
    ("jitter", -0.1, "0 to 1"),
    ("concurrency_limit", 0, "leave it out: no limit"),
    ("concurrency_limit", 10**30, "1 to 1,000,000"),
    ("per_user_limit", 1.0, "whole number"),
    ("priority", 101, "-100 to 100"),
    ("priority", -101, "-100 to 100"),
    ("priority", None, "-100 to 100"),
]


@pytest.mark.parametrize(("name", "value", "remedy"), BAD_OPTIONS)
def test_a_bad_option_is_named_with_its_value_and_a_remedy(
    name: str, value: Any, remedy: str
) -> None:
    with pytest.raises(DefinitionError) as caught:
        define_task("t", handler, {name: value})
    message = str(caught.value)
    assert f"the option {name}={value!r}" in message
    assert remedy in message
    assert definitions() == {}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("maxAttempts", "max_attempts"),
        ("max-attempts", "max_attempts"),
        ("timeout", "timeout_seconds"),
        ("concurrencyLimit", "concurrency_limit"),
        ("prioritiy", "priority"),
        ("zzz", None),
        ("payload_adapter", None),
    ],
)
def test_an_unknown_option_is_told_what_was_meant(name: str, meant: str | None) -> None:
    with pytest.raises(DefinitionError, match=f"no task option '{name}'") as caught:
        define_task("t", handler, {name: 3})
    if meant is None:
        assert "known are description, max_attempts" in str(caught.value)
    else:
        assert f"did you mean {meant}?" in str(caught.value)


def test_all_good_options_are_kept() -> None:
    given: dict[str, Any] = {
        "description": "d",
        "max_attempts": 1,
        "timeout_seconds": 0.5,
        "isolation": "inline",
        "payload": Numbers,
        "result": list[int],
        "retry": "fixed",
        "retry_delay_seconds": 0,
        "retry_max_delay_seconds": 3.5,
        "jitter": 1,
        "concurrency_limit": 1,
        "per_user_limit": 7,
        "priority": -100,
    }
    options = define_task("t", handler, given).options
    assert {name: getattr(options, name) for name in given} == given
    assert options == TaskOptions(**given)


@pytest.mark.parametrize(
    "payload",
    [
        Numbers,
        Tree,
        Point,
        Options,
        Numbers | int,
        Numbers | None,
        dict[str, int],
        Mapping[str, Any],
        Any,
        JsonValue,
        RootModel[dict[str, int]],
        pytest.param(Annotated[int, BeforeValidator(lambda given: given["first"])], id="before"),
        pytest.param(Annotated[Numbers, AfterValidator(lambda made: made)], id="after"),
    ],
)
def test_types_that_an_object_can_fit(payload: Any) -> None:
    adapter = TaskOptions(payload=payload).payload_adapter
    assert adapter is not None
    adapter.validate_python({"first": 1})


def test_the_types_of_payload_and_result_are_known_to_a_type_checker() -> None:
    """Checked by basedpyright; at run time only that all of them register."""

    def plain(task: Task[Numbers, int]) -> int:
        return task.payload.first

    async def coroutine(task: Task[Numbers, int]) -> int:
        return task.payload.first

    async def enveloped(task: Task[Numbers, int]) -> dict[str, Any]:
        return {"status": "success", "data": task.payload.first}

    assert_type(define_task("plain", plain), TaskDefinition[Numbers, int])
    assert_type(define_task("coroutine", coroutine), TaskDefinition[Numbers, int])
    assert_type(define_task("enveloped", enveloped), TaskDefinition[Numbers, int])

    @define_task("decorated")
    def decorated(task: Task[Numbers, int]) -> int:
        return task.payload.first

    call: Callable[[Task[Numbers, int]], int] = decorated
    assert call is decorated
    assert list(definitions()) == ["coroutine", "decorated", "enveloped", "plain"]


def test_two_lambdas_are_two_handlers() -> None:
    define_task("t", lambda task: task.id)
    with pytest.raises(DefinitionError, match="is taken by"):
        define_task("t", lambda task: task.type)


def closure(number: int) -> Callable[[Task[Any]], int]:
    """Makes handlers that share a name."""
    return lambda task: number + len(task.id)


def test_two_handlers_of_one_name_are_two() -> None:
    first = closure(1)
    define_task("t", first)
    define_task("t", first, {"max_attempts": 1})  # the same object: its options are replaced
    with pytest.raises(DefinitionError, match="so another handler of that name needs another one"):
        define_task("t", closure(2))
    made = get_definition("t")
    assert made is not None
    assert (made.handler, made.max_attempts) == (first, 1)


MODULE = """
from app.tasks import Task, define_task

@define_task("reloaded")
def work(task: Task) -> str:
    return "version 1"
"""
TWICE = (
    MODULE
    + """
@define_task("reloaded")
def work(task: Task) -> str:
    return "it hides the first"
"""
)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """A module of tasks on disk, and the name to import it by."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # else an edit in one second is missed
    path = tmp_path / f"tasks_{uuid4().hex}.py"
    path.write_text(MODULE)
    yield path
    sys.modules.pop(path.stem, None)


@pytest.mark.parametrize("how", ["reload", "import again"])
def test_a_module_that_is_imported_again_replaces_its_handlers(module: Path, how: str) -> None:
    loaded = importlib.import_module(module.stem)
    module.write_text("# moved down a line\n" + MODULE.replace("version 1", "version 2"))
    if how == "reload":
        importlib.reload(loaded)
    else:
        del sys.modules[module.stem]
        importlib.invalidate_caches()
        loaded = importlib.import_module(module.stem)
    made = get_definition("reloaded")
    assert made is not None
    assert made.handler is loaded.work
    assert made.handler(cast("Any", None)) == "version 2"


def test_a_function_that_hides_another_of_its_module_needs_an_id_of_its_own(module: Path) -> None:
    module.write_text(TWICE)
    with pytest.raises(DefinitionError, match="another handler of that name"):
        importlib.import_module(module.stem)


def generator(task: Task[Any]) -> Any:
    """Calling it runs nothing."""
    yield task.id


async def async_generator(task: Task[Any]) -> Any:
    """Calling it runs nothing."""
    yield task.id


@pytest.mark.parametrize("bad", [generator, async_generator])
def test_a_generator_is_no_handler(bad: Any) -> None:
    with pytest.raises(DefinitionError, match="is a generator: calling it would run nothing"):
        define_task("t", bad)
    assert definitions() == {}


def test_definitions_are_listed_by_id() -> None:
    define_task("b", handler)
    define_task("a", async_handler)
    assert list(definitions()) == ["a", "b"]


def test_outside_of_a_handler_there_is_no_task() -> None:
    for ask in (current_task, current_control, cancelled, checkpoint):
        with pytest.raises(TasksError, match="no task is running here"):
            ask()


async def test_each_running_handler_sees_its_own_task() -> None:
    async def seen(name: str) -> str:
        moment = datetime(2026, 1, 1, tzinfo=UTC)
        task: Task[None] = Task(
            id=name, type="t", payload=None, user_id="u", created_at=moment, updated_at=moment
        )
        control: Any = object()
        with tasks.running(task, control):
            await asyncio.sleep(0)
            assert current_control() is control
            return current_task().id

    assert await asyncio.gather(seen("1"), seen("2")) == ["1", "2"]


def test_the_status_is_the_stores() -> None:
    assert TaskStatus is task_state.TaskStatus
