"""Messages say cause and remedy; cursors and pages hold what they are given."""

import contextlib
from datetime import UTC, datetime
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from task_state import (
    FencedError,
    IdempotencyMismatchError,
    InvalidRequestError,
    LeaseHeldError,
    Paging,
    TaskNotFoundError,
    TaskPage,
    TaskRecord,
    TransitionError,
)
from task_state._listing import PageRequest
from task_state._scripts import script


def test_messages() -> None:
    assert "COMPLETED task cannot become RUNNING" in str(TransitionError("COMPLETED", "RUNNING"))
    assert "no task 'x'" in str(TaskNotFoundError("x"))
    assert "attempt 3 of task 'x' is over" in str(FencedError("x", 3))
    assert "request its cancellation" in str(LeaseHeldError("x"))
    assert "send a new key" in str(IdempotencyMismatchError())


IDS = st.from_regex(r"[A-Za-z0-9._-]{1,128}", fullmatch=True)


@given(st.integers(-(10**17), 10**17), IDS)
def test_cursors_come_back(score: int, task_id: str) -> None:
    first = PageRequest(Paging())
    cursor = first.cursor(str(score), task_id)
    arguments = PageRequest(Paging(cursor=cursor)).arguments()
    assert arguments[5:7] == [str(score), task_id]
    with pytest.raises(InvalidRequestError, match="another order"):
        PageRequest(Paging(cursor=cursor, order="asc")).arguments()
    with pytest.raises(InvalidRequestError, match="another order"):
        PageRequest(Paging(cursor=cursor, sort="updated_at")).arguments()


@given(st.text())
def test_no_text_is_more_than_a_bad_cursor(text: str) -> None:
    with contextlib.suppress(InvalidRequestError):
        PageRequest(Paging(cursor=text)).arguments()


def test_a_page_is_a_sequence() -> None:
    tasks = [TaskRecord(task_id=str(n), service="s", user_id="u") for n in range(3)]
    page = TaskPage(tasks, "next", 9)
    assert len(page) == 3
    assert list(page) == tasks
    assert page[0] is tasks[0]
    assert page[1:] == tasks[1:]
    assert tasks[2] in page


def test_ranges_are_given_in_microseconds() -> None:
    after, before = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    arguments = PageRequest(Paging(created_after=after, created_before=before)).arguments()
    assert arguments[3:5] == ["1767225600000000", "(1767312000000000"]


def test_scripts_are_whole_and_use_nothing_newer_than_redis_6_2() -> None:
    files = resources.files("task_state").joinpath("scripts").iterdir()
    names = {file.name.removesuffix(".lua") for file in files} - {"prelude"}
    assert {"save", "submit", "transition", "page"} <= names
    newer = ("#!lua", "redis.setresp", "redis.acl_check_cmd", "redis.register_function", "server.")
    for name in names:
        loaded = script(name)
        assert loaded is script(name)
        assert "$" not in loaded.source.replace("$'", "").replace("$)", ""), "all constants are in"
        assert not [word for word in newer if word in loaded.source]
