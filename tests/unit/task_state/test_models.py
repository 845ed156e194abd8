"""The record, its states, and the table of transitions."""

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from pydantic import ValidationError

from task_state import TRANSITIONS, TaskRecord, TaskResult, TaskStatus
from task_state.timezone import get_timezone

STATES = "PENDING DISPATCHING RUNNING COMPLETED FAILED CANCEL_REQUESTED CANCELLED"


def record(**values: Any) -> TaskRecord:
    request: dict[str, Any] = {"task_id": "1", "service": "s", "user_id": "u"}
    return TaskRecord(**{**request, **values})


def test_the_value_of_a_status_is_its_name() -> None:
    assert [status.value for status in TaskStatus] == STATES.split()
    assert [str(status) for status in TaskStatus] == STATES.split()
    assert [status.name for status in TaskStatus] == STATES.split()


@pytest.mark.parametrize("text", ["running", "Running", "RUNNING", "rUnNiNg"])
def test_reading_a_status_accepts_any_case(text: str) -> None:
    assert TaskStatus(text) is TaskStatus.RUNNING
    assert record(status=text).status is TaskStatus.RUNNING


@pytest.mark.parametrize("value", ["", "WAITING", " RUNNING", None, 1])
def test_anything_else_is_no_status(value: Any) -> None:
    with pytest.raises(ValueError, match="not a valid TaskStatus"):
        TaskStatus(value)


def test_the_table_of_transitions() -> None:
    ends = "COMPLETED FAILED CANCELLED"
    table = {
        "PENDING": f"DISPATCHING RUNNING CANCEL_REQUESTED {ends}",
        "DISPATCHING": f"RUNNING CANCEL_REQUESTED {ends}",
        "RUNNING": f"CANCEL_REQUESTED {ends}",
        "CANCEL_REQUESTED": ends,
        "COMPLETED": "",
        "FAILED": "",
        "CANCELLED": "",
    }
    assert {name: set(text.split()) for name, text in table.items()} == TRANSITIONS
    with pytest.raises(TypeError):
        cast("Any", TRANSITIONS)[TaskStatus.FAILED] = {TaskStatus.PENDING}


def test_terminal_states() -> None:
    terminal = {status for status in TaskStatus if status.is_terminal}
    assert terminal == {TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED}


def test_a_new_record() -> None:
    new = record()
    assert new.status is TaskStatus.PENDING
    assert (new.parameters, new.logs, new.jobs, new.result) == ({}, [], [], TaskResult())
    assert new.created_at.tzinfo is get_timezone()
    assert timedelta(0) <= new.updated_at - new.created_at < timedelta(minutes=1)
    assert not new.managed
    assert new.loaded is None


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("task_id", ["external-1", "123", "a.b_C-9", "x" * 128], ["a/b", "x" * 129]),
        ("service", ["sync", "a.b_C@x-9", "x" * 64], ["*", "x" * 65]),
        ("user_id", ["alice", "a@example.org", "x" * 64], ["{0}", "x" * 65]),
    ],
)
def test_names(field: str, good: list[str], bad: list[str]) -> None:
    for name in good:
        assert getattr(record(**{field: name}), field) == name
    for name in [*bad, "", "a b", "a:b", "한", "a\n"]:
        with pytest.raises(ValidationError, match=field):
            record(**{field: name})
        with pytest.raises(ValidationError, match=r"pattern|at most"):
            setattr(record(), field, name)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("jobs", [5]),
        ("parameters", [1]),
        ("progress", "half"),
        ("status", "WAITING"),
        ("logs", "x"),
    ],
)
def test_assignments_are_checked(field: str, value: Any) -> None:
    """One record that cannot be read back would spoil every listing that it is in."""
    with pytest.raises(ValidationError):
        setattr(record(), field, value)
    with pytest.raises(ValidationError):
        record().result.error = cast("Any", 5)


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError, match="extra"):
        record(task="x")
    with pytest.raises(ValidationError, match="extra"):
        TaskResult.model_validate({"output": "x"})


def test_a_record_survives_json() -> None:
    made = record(
        parameters={"경로": [1, None]},
        status="cancel_requested",
        result={"data": {"a": 1}, "error": "왜"},
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    assert TaskRecord.model_validate_json(made.model_dump_json()) == made
    assert made.model_dump(mode="json")["status"] == "CANCEL_REQUESTED"
