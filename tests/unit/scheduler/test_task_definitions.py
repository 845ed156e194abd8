"""Definitions: what registers, what is refused, and what running code can ask."""

import asyncio
import sys
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import task_state
from app import tasks
from app.tasks import (
    DefinitionError,
    Task,
    TaskLoadError,
    TaskOptions,
    TasksError,
    TaskStatus,
    current_control,
    current_task,
    define_task,
    definitions,
    get_definition,
)
from app.tasks.core import task as core
from dms_scheduler.definitions import (
    UnknownServiceError,
    describe,
    load_task_modules,
    require_definition,
)


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a registry of its own."""
    monkeypatch.setattr(core, "_registry", {})


def handler(task: Task[dict[str, Any]]) -> None:
    """Does nothing."""


async def async_handler(task: Task[dict[str, Any]]) -> None:
    """Does nothing, asynchronously."""


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
        (handler, "inline", "inline"),
        (async_handler, "process", "process"),
    ],
)
def test_isolation_follows_the_kind_of_function(function: Any, wanted: Any, expected: str) -> None:
    assert define_task("t", function, TaskOptions(isolation=wanted)).isolation == expected


@pytest.mark.parametrize("bad", ["", "a:b", "a b", "x" * 65, "a/b", "a\n", "가"])
def test_a_malformed_id_is_refused(bad: str) -> None:
    with pytest.raises(DefinitionError, match="cannot be a definition's id"):
        define_task(bad, handler)


def test_an_id_belongs_to_one_handler() -> None:
    define_task("t", handler)
    again = define_task("t", handler, {"max_attempts": 1})
    with pytest.raises(DefinitionError, match="is taken by"):
        define_task("t", async_handler)
    assert get_definition("t") is again


@pytest.mark.parametrize(
    "options",
    [
        {"max_attempts": 0},
        {"timeout_seconds": 0},
        {"isolation": "thread"},
        {"retry": "never"},
        {"retry_delay_seconds": -1},
        {"maxAttempts": 3},
    ],
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError):
        define_task("t", handler, options)


def test_definitions_are_listed_by_id() -> None:
    define_task("b", handler)
    define_task("a", async_handler)
    assert list(definitions()) == ["a", "b"]


def test_outside_of_a_handler_there_is_no_task() -> None:
    for ask in (current_task, current_control):
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


class TestLoading:
    @pytest.fixture(autouse=True)
    def clean_modules(self) -> Generator[None]:
        """What a test imports is forgotten again, so that it registers anew elsewhere."""
        before = set(sys.modules)
        yield
        for name in set(sys.modules) - before:
            del sys.modules[name]

    def test_a_module_registers_by_being_imported(self) -> None:
        load_task_modules(["examples.reports"])
        assert require_definition("generateUserReport").isolation == "inline"
        assert require_definition("countWords").isolation == "process"

    def test_a_definition_is_described_with_its_schema(self) -> None:
        load_task_modules(["examples.reports"])
        described = describe(require_definition("generateUserReport"))
        assert described["description"] == "Generates a user's report in the background"
        assert described["parameters"]["required"] == ["userId", "reportType"]
        define_task("plain", handler)
        assert describe(require_definition("plain"))["parameters"] is None

    @pytest.mark.parametrize(
        ("source", "cause"),
        [
            ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
            ("import no_such_module_of_ours", "no_such_module_of_ours"),
            ("def broken(", "SyntaxError"),
        ],
    )
    def test_a_module_that_fails_is_named_with_its_cause(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, cause: str
    ) -> None:
        (tmp_path / "failing_tasks.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path))
        with pytest.raises(TaskLoadError, match="'failing_tasks'") as caught:
            load_task_modules(["failing_tasks"])
        assert cause in str(caught.value)

    def test_an_unknown_service_says_what_is_known(self) -> None:
        define_task("known", handler)
        with pytest.raises(UnknownServiceError, match="known are: known"):
            require_definition("unknown")
