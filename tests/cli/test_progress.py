"""Progress in words, as lines and as a bar; what the end means."""

import io

import pytest
from rich.console import Console

from cli.bar import bar_on
from cli.progress import duration, fraction, reporter, size, summary
from cli.waiting import exit_code

COPY = {
    "phase": "copy",
    "bytes": 512 * 1024,
    "total_bytes": 1024 * 1024,
    "files": 3,
    "total_files": 12,
    "speed": 2048.0,
    "eta": 256.4,
    "errors": 1,
}


def test_all_that_is_known_is_told() -> None:
    assert summary(COPY) == "copy 50% 512.0 KiB/1.0 MiB 3/12 files 2.0 KiB/s eta 4:16 1 errors"


def test_what_is_not_known_is_left_out() -> None:
    assert summary(None) == ""
    assert summary({"phase": "plan", "files": 7}) == "plan 7 files"
    assert summary({"phase": "delete", "files": 0, "deletes": 311}) == "delete 0 files 311 deleted"
    assert summary({"phase": "verify", "checks": 304}) == "verify 304 checked"
    assert summary({"phase": "\x1b[31m", "bytes": "many", "eta": None}) == r"\x1b[31m"


def test_millions_are_told_to_the_last_one() -> None:
    many = {"files": 1234567, "total_files": 12345678, "errors": 7654321}
    assert summary(many) == "10% 1234567/12345678 files 7654321 errors"


def test_fraction_is_by_bytes_then_by_files_and_never_above_one() -> None:
    assert fraction(COPY) == 0.5
    assert fraction({"bytes": 0, "total_bytes": 0, "files": 1, "total_files": 4}) == 0.25
    assert fraction({"bytes": 9, "total_bytes": 3}) == 1.0
    assert fraction({"files": 3}) is None


def test_sizes_and_durations() -> None:
    assert [size(0), size(1023), size(1536), size(5 * 1024**4)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5.0 TiB",
    ]
    assert [duration(0.4), duration(59.6), duration(3661)] == ["0:00", "1:00", "1:01:01"]


def test_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with reporter(quiet=False) as watch:
        for task in (
            {"status": "PENDING", "progress": None},
            {"status": "RUNNING", "progress": {"phase": "copy", "files": 1}},
            {"status": "RUNNING", "progress": {"phase": "copy", "files": 2}},
            {"status": "COMPLETED", "progress": {"phase": "verify"}},
        ):
            watch.show(task)
    assert capsys.readouterr().err.splitlines() == [
        "PENDING",
        "RUNNING copy 1 files",
        "COMPLETED verify",
    ]


def test_programs_get_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with reporter(quiet=True) as watch:
        watch.show({"status": "RUNNING", "progress": COPY})
    assert capsys.readouterr() == ("", "")


def test_the_bar_shows_names_as_text() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, no_color=True)
    with bar_on(console) as watch:
        watch.show({"status": "RUNNING", "progress": {**COPY, "phase": "[red]copy[/nope]"}})
    assert "[red]copy[/nope] 50%" in screen.getvalue()
    assert "RUNNING" in screen.getvalue()


@pytest.mark.parametrize(("state", "code"), [("COMPLETED", 0), ("FAILED", 10), ("CANCELLED", 11)])
def test_the_end_is_the_exit_code(state: str, code: int) -> None:
    assert exit_code({"status": state}) == code
