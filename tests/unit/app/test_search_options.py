"""What is a search for tasks and what is not, before any store is asked."""

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from app.tasks import DateRange, SearchOptionError, TaskSearchOptions, TasksError, TaskStatus
from task_state import TaskSearch

START = datetime(2026, 11, 1, tzinfo=UTC)
END = START + timedelta(days=1)


def test_the_options_are_what_the_repository_is_asked() -> None:
    options = TaskSearchOptions(
        id="1",
        type="sync",
        service="sync",
        status=TaskStatus.FAILED,
        user="alice",
        created_at_range=DateRange(START, END),
        updated_at_range=(START, None),
        text="한글",
        limit=5,
        offset=10,
        sort_by="updatedAt",
        sort_order="asc",
    )
    assert options.search() == TaskSearch(
        task_id="1",
        service="sync",
        user_id="alice",
        status=(TaskStatus.FAILED,),
        created_after=START,
        created_before=END,
        updated_after=START,
        q="한글",
        limit=5,
        offset=10,
        sort="updated_at",
        order="asc",
    )
    assert TaskSearchOptions().search() == TaskSearch()


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        (None, ()),
        ("failed", (TaskStatus.FAILED,)),
        (["FAILED", TaskStatus.PENDING, "failed"], (TaskStatus.FAILED, TaskStatus.PENDING)),
        ({"Running"}, (TaskStatus.RUNNING,)),
    ],
)
def test_a_status_is_one_or_several_in_any_case(
    status: Any, wanted: tuple[TaskStatus, ...]
) -> None:
    assert TaskSearchOptions(status=status).search().status == wanted


@pytest.mark.parametrize(
    "given", [DateRange(START), (START, None), {"start": START}, {"start": START, "end": None}]
)
def test_a_range_is_written_in_three_ways(given: Any) -> None:
    search = TaskSearchOptions(created_at_range=given).search()
    assert (search.created_after, search.created_before) == (START, None)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"id": "a b"}, "id='a b'"),
        ({"id": ""}, "id=''"),
        ({"id": 7}, "id=7"),
        ({"id": "a\n"}, "id='a\\n'"),
        ({"type": "a:b"}, "type='a:b'"),
        ({"service": "한글"}, "service='한글'"),
        ({"user": "u" * 65}, "user='uuu"),
        ({"type": "sync", "service": "copy"}, "type='sync' and service='copy'"),
        ({"status": "GONE"}, "status='GONE'"),
        ({"status": []}, "status=[]"),
        ({"status": 3}, "status=3"),
        ({"status": ["FAILED", None]}, "status=None"),
        ({"created_at_range": (END, START)}, "created_at_range"),
        ({"created_at_range": (START, START)}, "created_at_range"),
        ({"updated_at_range": (date(2026, 1, 1), None)}, "updated_at_range"),
        ({"updated_at_range": {"from": START}}, "updated_at_range"),
        ({"updated_at_range": "today"}, "updated_at_range='today'"),
        ({"updated_at_range": (START,)}, "updated_at_range"),
        ({"text": ""}, "text=''"),
        ({"text": " \t"}, "text=' \\t'"),
        ({"text": "a\0"}, "text='a\\x00'"),
        ({"text": "\ud800"}, "text='\\ud800'"),
        ({"text": "x" * 257}, "text='xxx"),
        ({"text": b"x"}, "text=b'x'"),
        ({"limit": 0}, "limit=0"),
        ({"limit": 201}, "limit=201"),
        ({"limit": True}, "limit=True"),
        ({"limit": "5"}, "limit='5'"),
        ({"offset": -1}, "offset=-1"),
        ({"offset": 10**30}, "offset=1000"),
        ({"offset": 1, "cursor": "YQ"}, "offset=1"),
        ({"cursor": ""}, "cursor=''"),
        ({"cursor": 7}, "cursor=7"),
        ({"sort_by": "user"}, "sort_by='user'"),
        ({"sort_by": []}, "sort_by=[]"),
        ({"sort_order": "up"}, "sort_order='up'"),
        ({"sort_order": None}, "sort_order=None"),
    ],
)
def test_an_option_that_makes_no_sense_is_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(SearchOptionError) as refused:
        TaskSearchOptions(**options)
    assert named in str(refused.value)
    assert len(str(refused.value)) < 400
    assert isinstance(refused.value, TasksError)


@pytest.mark.parametrize("name", ["created_at", "createdAt", "CREATED_AT", "CreatedAt"])
@pytest.mark.parametrize("order", ["asc", "ASC", "Asc"])
def test_what_orders_a_search_is_read_in_any_case(name: Any, order: Any) -> None:
    assert TaskSearchOptions(sort_by=name, sort_order=order).search() == TaskSearch(order="asc")


@pytest.mark.parametrize(
    ("name", "meant"),
    [("sortBy", "sort_by"), ("createdAtRange", "created_at_range"), ("ids", "id")],
)
def test_a_name_that_is_nearly_right_is_told(name: str, meant: str) -> None:
    with pytest.raises(SearchOptionError, match=f"did you mean {meant}"):
        TaskSearchOptions.of({name: "x"})


def test_a_naive_end_and_an_aware_start_are_compared_in_the_configured_zone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DMS_TIMEZONE", "Asia/Seoul")
    naive = datetime(2026, 11, 1, 9)  # noqa: DTZ001 - the same instant as START
    with pytest.raises(SearchOptionError, match="created_at_range"):
        TaskSearchOptions(created_at_range=(START, naive))
    assert TaskSearchOptions(created_at_range=(START, naive + timedelta(microseconds=1)))


def test_importing_the_search_does_not_load_the_redis_client() -> None:
    """A handler's module imports `app.tasks`, and most of them never search."""
    script = "import sys, app.tasks, app.tasks.core.search; print('redis' in sys.modules)"
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert shown.stdout.strip() == "False"
