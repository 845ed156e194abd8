"""Lists and single tasks as they are printed: nothing acts on the terminal, nothing is lost."""

import json
from typing import Any

import pytest

from cli.commands.tasks import show_task
from cli.listing import show_pages
from cli.output import Format, ListFormat

EVIL = "\x1b[2J한국어"
TASK: dict[str, Any] = {
    "task_id": "7",
    "service": "sync",
    "user_id": "김철수",
    "status": "FAILED",
    "created_at": "2026-11-21T12:00:00.5+09:00",
    "updated_at": "2026-11-21T12:01:30+09:00",
    "started_at": "2026-11-21T12:00:10+09:00",
    "completed_at": "2026-11-21T12:01:30+09:00",
    "attempts": 2,
    "max_attempts": 3,
    "progress": {"phase": EVIL},
    "result": {"error": f"{EVIL}\n" + "길다 " * 100},
    "history": [
        {
            "epoch": 1,
            "attempt": 1,
            "worker": EVIL,
            "ended_at": "2026-11-21T12:01:00+09:00",
            "outcome": "timeout",
            "reason": f"{EVIL} took too long",
        }
    ],
    "checkpoint": {"자리": 5},
    "queue_position": None,
}
WAITING: dict[str, Any] = {
    **TASK,
    "task_id": "8",
    "status": "PENDING",
    "started_at": None,
    "completed_at": None,
    "result": {},
    "history": [],
    "progress": None,
    "attempts": 0,
    "worker": "host-7",
}


def page(*tasks: dict[str, Any], after: str | None = None, total: int | None = 9) -> dict[str, Any]:
    """A page as the API gives it."""
    return {"tasks": list(tasks), "next_cursor": after, "total": total}


def test_a_wide_list_has_what_a_list_has_and_more(capsys: pytest.CaptureFixture[str]) -> None:
    show_pages(iter([page(TASK, WAITING)]), ListFormat.TABLE)
    narrow = capsys.readouterr().out.splitlines()
    show_pages(iter([page(TASK, WAITING)]), ListFormat.WIDE)
    wide = capsys.readouterr().out.splitlines()
    assert [line.startswith(short.rstrip()) for short, line in zip(narrow, wide, strict=True)]
    assert wide[0].split()[-4:] == ["ATTEMPTS", "DURATION", "WORKER", "ERROR"]
    assert "2/3" in wide[1]
    assert "host-7" not in wide[1]
    assert "host-7" in wide[2]
    assert "1:20" in wide[1]
    assert wide[1].endswith("…")
    assert "0/3" in wide[2]
    assert "\x1b" not in "".join(wide)
    assert "한국어" in wide[1]


def test_an_error_that_the_list_left_out_is_not_passed_over(
    capsys: pytest.CaptureFixture[str],
) -> None:
    long = {**TASK, "result": {"error": None}, "omitted": ["result.error"]}
    show_pages(iter([page(long)]), ListFormat.WIDE)
    assert "tasks status shows it" in capsys.readouterr().out


@pytest.mark.parametrize("output", [ListFormat.TABLE, ListFormat.WIDE, ListFormat.JSONL])
def test_what_follows_is_said_once_and_aside(
    output: ListFormat, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = [page(TASK, after="c1"), page(WAITING, after="c2")]
    show_pages(iter(pages), output)
    out, err = capsys.readouterr()
    assert err == "2 of 9 tasks; more: --all, or --cursor c2\n"
    assert "c2" not in out


def test_where_nobody_counted_no_number_is_made_up(capsys: pytest.CaptureFixture[str]) -> None:
    show_pages(iter([page(TASK, after="c1", total=None)]), ListFormat.TABLE)
    assert capsys.readouterr().err == "1 tasks; more: --all, or --cursor c1\n"


def test_a_last_page_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    show_pages(iter([page(after=None, total=0)]), ListFormat.TABLE)
    out, err = capsys.readouterr()
    assert (out.split()[0], err) == ("TASK", "")


def test_json_is_one_document_and_jsonl_a_line_a_task(capsys: pytest.CaptureFixture[str]) -> None:
    show_pages(iter([page(TASK, after="c1"), page(WAITING)]), ListFormat.JSON)
    found = json.loads(capsys.readouterr().out)
    assert found == {"tasks": [TASK, WAITING], "next_cursor": None, "total": 9}
    show_pages(iter([page(TASK, after="c1"), page(WAITING)]), ListFormat.JSONL)
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [TASK, WAITING]
    assert "\x1b" not in "".join(lines)


def test_times_that_are_none_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    odd = {**TASK, "started_at": "soon", "history": None, "result": None, "attempts": 1}
    show_pages(iter([page(odd)]), ListFormat.WIDE)
    assert "1/3" in capsys.readouterr().out


def test_one_task_tells_why_its_attempts_failed(capsys: pytest.CaptureFixture[str]) -> None:
    show_task(TASK, Format.TABLE)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "Attempts that did not succeed" in shown
    row = next(line for line in shown.splitlines() if "took too long" in line)
    assert row.split()[:2] == ["1", "timeout"]
    assert '{"자리": 5}' in shown
    assert "Queue position" not in shown


def test_a_waiting_task_tells_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    show_task({**WAITING, "queue_position": 3, "checkpoint": None}, Format.TABLE)
    shown = capsys.readouterr().out
    assert "Queue position  3" in shown
    assert "did not succeed" not in shown
    assert "Checkpoint" not in shown


def test_a_completed_task_shows_no_error_of_an_earlier_attempt(
    capsys: pytest.CaptureFixture[str],
) -> None:
    again: dict[str, Any] = {**TASK, "result": {}, "status": "RUNNING"}
    show_pages(iter([page(again)]), ListFormat.WIDE)
    assert "took too long" in capsys.readouterr().out
    show_pages(iter([page({**again, "status": "COMPLETED"})]), ListFormat.WIDE)
    assert "took too long" not in capsys.readouterr().out
