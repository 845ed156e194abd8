"""Messages say cause and remedy; cursors and pages hold what they are given."""

import contextlib
import json
import string
from datetime import UTC, datetime
from importlib import resources
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from task_state import (
    FencedError,
    IdempotencyMismatchError,
    InvalidRequestError,
    LeaseHeldError,
    TaskNotFoundError,
    TaskPage,
    TaskRecord,
    TaskSearch,
    TransitionError,
)
from task_state._listing import Position, SearchRequest
from task_state._scripts import script
from task_state.naming import is_task_id


def test_messages() -> None:
    assert "COMPLETED task cannot become RUNNING" in str(TransitionError("COMPLETED", "RUNNING"))
    assert "no task 'x'" in str(TaskNotFoundError("x"))
    assert "attempt 3 of task 'x' is over" in str(FencedError("x", 3))
    assert "request its cancellation" in str(LeaseHeldError("x"))
    assert "send a new key" in str(IdempotencyMismatchError())


AT, LATER = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
IDS = st.from_regex(r"[A-Za-z0-9._-]{1,128}", fullmatch=True).filter(is_task_id)
LETTERS = string.ascii_letters + string.digits + "-_"


def arguments(**options: Any) -> dict[str, Any]:
    """What the script is asked, but for the text."""
    asked, _ = SearchRequest(TaskSearch(**options)).arguments()
    return json.loads(asked)


@given(st.integers(-(10**17), 10**17), IDS, st.integers(0, 10**6))
def test_cursors_come_back(score: int, task_id: str, skip: int) -> None:
    first = SearchRequest(TaskSearch())
    cursor = first.cursor(Position(str(score), task_id, skip))
    given_ = arguments(cursor=cursor)
    assert (given_["score"], given_["after"], given_["skip"]) == (str(score), task_id, skip)
    with pytest.raises(InvalidRequestError, match="another order"):
        arguments(cursor=cursor, order="asc")
    with pytest.raises(InvalidRequestError, match="another order than sort=updated_at"):
        arguments(cursor=cursor, sort="updated_at")
    with pytest.raises(InvalidRequestError, match="another order than sort=id"):
        arguments(cursor=cursor, sort="id")
    with pytest.raises(InvalidRequestError, match="offset=5 and a cursor"):
        arguments(cursor=cursor, offset=5)


@given(st.text())
def test_no_text_is_more_than_a_bad_cursor(text: str) -> None:
    with contextlib.suppress(InvalidRequestError):
        arguments(cursor=text)


@given(st.integers(0, 10**17), IDS, st.integers(0, 10**6), st.data())
def test_a_cursor_that_was_changed_is_refused(
    score: int, task_id: str, skip: int, data: st.DataObject
) -> None:
    cursor = SearchRequest(TaskSearch()).cursor(Position(str(score), task_id, skip)) or ""
    at = data.draw(st.integers(0, len(cursor) - 1))
    letter = data.draw(st.sampled_from(LETTERS.replace(cursor[at], "")))
    for wrong in (
        cursor[:at],
        cursor[at + 1 :],
        cursor[:at] + letter + cursor[at + 1 :],
        cursor[:at] + letter + cursor[at:],
        cursor + "=",
        cursor + "!",
        f" {cursor}",
    ):
        if wrong:  # an empty one asks for the first page
            with pytest.raises(InvalidRequestError, match=r"^cursor=.* is none of ours"):
                arguments(cursor=wrong)


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
    given_ = arguments(created_after=after, updated_before=before)
    assert given_["created"] == ["1767225600000000", ""]
    assert given_["updated"] == ["", "1767312000000000"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "limit=0: a page holds 1 to 200"),
        ({"limit": 201}, "limit=201"),
        ({"offset": -1}, "offset=-1: it is 0 to 1000000"),
        ({"offset": 1_000_001}, "offset=1000001"),
        ({"sort": "size"}, "sort='size': choose one of created_at, updated_at, id"),
        ({"order": "up"}, "order='up': choose one of asc, desc"),
        ({"status": "FAILED"}, "status='FAILED': give a list"),
        ({"status": ["GONE"]}, "status: 'GONE' is not a valid TaskStatus; choose among PENDING"),
        ({"task_id": ""}, "task_id='' is no id"),
        ({"task_id": "a b"}, "task_id='a b' is no id"),
        ({"task_id": ".."}, "task_id='..' is no id: .* not dots alone"),
        ({"service": "."}, "service '.' is no name: .* not dots alone"),
        ({"user_id": "." * 64}, "user_id '\\.+' is no name"),
        ({"service": "a:b"}, "service 'a:b' is no name"),
        ({"user_id": ""}, "user_id '' is no name"),
        ({"q": " "}, r"q=' ' \(1 characters\): give 1 to 256"),
        ({"q": "a\0"}, "without NUL"),
        ({"q": "a" * 257}, r"\(257 characters\)"),
        ({"created_after": AT, "created_before": AT}, "created_after=.* and created_before="),
        ({"updated_after": LATER, "updated_before": AT}, "updated_after=.*must be the later one"),
        ({"cursor": "x"}, "cursor='x' is none of ours"),
    ],
)
def test_an_option_that_makes_no_sense_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        arguments(**options)


def test_scripts_are_whole_and_use_nothing_newer_than_redis_6_2() -> None:
    files = resources.files("task_state").joinpath("scripts").iterdir()
    names = {file.name.removesuffix(".lua") for file in files}
    names -= {"prelude", "record_prelude", "schedule_prelude"}
    assert {"save", "submit", "transition", "search"} <= names
    newer = ("#!lua", "redis.setresp", "redis.acl_check_cmd", "redis.register_function", "server.")
    for name in names:
        loaded = script(name)
        assert loaded is script(name)
        assert "$" not in loaded.source.replace("$'", "").replace("$)", ""), "all constants are in"
        assert not [word for word in newer if word in loaded.source]
