"""Progress in words, as lines and as a bar; waiting for the end."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rich.console import Console

from cli.client import UnreachableError
from cli.errors import CliError, ExitCode
from cli.progress import bar_on, duration, fraction, reporter, size, summary
from cli.waiting import exit_code, until_done

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
    assert summary({"phase": "\x1b[31m", "bytes": "many", "eta": None}) == r"\x1b[31m"


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


class Clock:
    """Time that passes only when somebody pauses."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


def read(states: list[str | CliError]) -> Callable[[], dict[str, Any]]:
    """Reads that give these states in turn; an error is raised."""
    steps: Iterator[str | CliError] = iter(states)

    def next_task() -> dict[str, Any]:
        step = next(steps)
        if isinstance(step, CliError):
            raise step
        return {"status": step}

    return next_task


AWAY = UnreachableError("gone", "")


def wait(states: list[str | CliError], timeout: float | None = None) -> dict[str, Any]:
    clock = Clock()
    with reporter(quiet=True) as watch:
        return until_done(read(states), watch, timeout, clock=clock, pause=clock.pause)


@pytest.mark.parametrize(("state", "code"), [("COMPLETED", 0), ("FAILED", 10), ("CANCELLED", 11)])
def test_the_end_is_the_exit_code(state: str, code: int) -> None:
    assert exit_code(wait(["PENDING", "RUNNING", state])) == code


def test_a_restart_of_the_frontend_is_sat_out() -> None:
    assert wait(["RUNNING", *[AWAY] * 20, "COMPLETED"])["status"] == "COMPLETED"


def test_silence_for_long_is_said() -> None:
    with pytest.raises(UnreachableError):
        wait(["RUNNING", *[AWAY] * 200])


def test_time_out() -> None:
    with pytest.raises(CliError, match="within 5 seconds") as caught:
        wait(["RUNNING"] * 100, timeout=5)
    assert caught.value.code is ExitCode.TIMEOUT


def test_deleted_meanwhile() -> None:
    with pytest.raises(CliError, match="no task"):
        wait(["RUNNING", CliError("no task", "", ExitCode.NOT_FOUND)])
