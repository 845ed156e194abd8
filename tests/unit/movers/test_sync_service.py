"""The services `sync` and `copy`: what they tell the runner of their task."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from app.tasks import LeaseLost, PermanentFailure, RetryLater, TaskCancelled
from dms_scheduler.movers import NativeMover
from dms_scheduler.movers.locks import Locks
from dms_scheduler.movers.paths import PATH_FLAGS, root_identities
from dms_scheduler.movers.rclone import RcloneMover
from dms_scheduler.services.handling import TaskMoveControl, engine_for
from tests.unit.movers.support import Place, look
from tests.unit.movers.tasks import TaskRecorder, handle


@pytest.fixture(autouse=True)
def _roots(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setenv("DMS_DATA_ROOTS", str(place.root))


def move(place: Place, control: TaskRecorder | None = None, **values: Any) -> dict[str, Any]:
    service = values.pop("service", "sync")
    return handle(service, control, src=str(place.src), dst=str(place.dst), **values)


def test_the_handler_moves_and_reports(place: Place) -> None:
    place.write("src/한글.txt", "hello")
    control = TaskRecorder()
    result = move(place, control)
    assert look(place.dst) == look(place.src)
    assert json.loads(json.dumps(result)) == result
    totals = dict.fromkeys(
        ("skipped", "updated", "links", "hardlinks", "dirs", "special", "checks", "deleted"), 0
    )
    assert result["totals"] == {"files": 1, "bytes": 5, **totals}
    assert (result["engine"], result["error_class"], result["failed"]) == ("native", None, [])
    assert control.reports[0][1] is False
    assert any(advanced for _, advanced in control.reports)
    assert control.reports[-1][0]["bytes"] == 5
    json.dumps(control.reports)
    again = TaskRecorder()
    move(place, again)
    assert not any(advanced for _, advanced in again.reports)


def test_what_was_done_is_in_the_report(place: Place) -> None:
    place.write("src/a/한글.txt", "hello")
    control = TaskRecorder()
    move(place, control)
    assert {"action": "copy", "path": "a/한글.txt", "size": 5} in control.entries
    json.dumps(control.entries)


def test_a_dry_run_answers_with_the_plan(place: Place) -> None:
    place.write("src/a", "hello")
    result = move(place, dry_run="true")
    assert result["dry_run"] is True
    assert {"action": "copy", "path": "a", "size": 5} in result["sample"]
    assert not place.dst.exists()


def test_a_copy_never_deletes(place: Place) -> None:
    place.write("src/a")
    kept = place.write("dst/kept")
    assert move(place, service="copy")["totals"]["files"] == 1
    assert kept.exists()


def test_old_options_without_an_effect_are_told(place: Place) -> None:
    place.write("src/a")
    control = TaskRecorder()
    move(place, control, options="--contents --batch-files 10 -v", service="copy")
    told = [line for line in control.lines if "no effect" in line]
    assert len(told) == 2
    assert "--batch-files of dsync" in told[0]


def test_without_roots_the_task_fails_for_good(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DMS_DATA_ROOTS", raising=False)
    with pytest.raises(PermanentFailure, match="DMS_DATA_ROOTS") as caught:
        move(place)
    assert caught.value.data["error_class"] == "outside_roots"


def test_a_failure_carries_what_was_done(place: Place) -> None:
    place.write("src/a")
    place.write("src/b")
    (place.dst / "b").mkdir(parents=True)
    control = TaskRecorder()
    with pytest.raises(PermanentFailure, match="b: another kind") as caught:
        move(place, control)
    data = json.loads(json.dumps(caught.value.data))
    assert (data["error_class"], data["failed_count"], data["totals"]["files"]) == (
        "partial_failure",
        1,
        1,
    )
    assert data["failed"][0]["path"] == "b"
    assert any("failed: b" in line for line in control.lines)


def test_what_may_pass_is_tried_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = place.root / "unmounted"
    monkeypatch.setenv("DMS_DATA_ROOTS", f"{place.root}:{gone}")
    with pytest.raises(RetryLater, match="mount it") as caught:
        handle("sync", src=str(gone / "a"), dst=str(place.dst))
    assert caught.value.counted


def test_waiting_for_another_task_uses_up_no_attempt(place: Place) -> None:
    place.write("src/a")
    place.dst.mkdir()
    with held(place.dst, place.root), pytest.raises(RetryLater) as caught:
        move(place)
    assert not caught.value.counted
    assert caught.value.data["error_class"] == "destination_busy"
    assert move(place)["totals"]["files"] == 1


def held(folder: Path, root: Path) -> ExitStack:
    """Hold a directory as another task that writes there does."""
    stack = ExitStack()
    fd = os.open(folder, PATH_FLAGS)
    stack.callback(os.close, fd)
    locks = Locks(root_identities((str(root),)), lambda _: None)
    stack.callback(locks.close)
    locks.write(fd)
    return stack


def test_a_deadline_that_passed_ends_the_task(place: Place) -> None:
    place.write("src/a")
    with pytest.raises(PermanentFailure, match="deadline") as caught:
        move(place, deadline="2020-01-01T00:00:00Z")
    assert caught.value.data["error_class"] == "deadline_exceeded"


@pytest.mark.parametrize(
    ("adjusted", "bandwidth"),
    [({}, None), ({"bandwidth": 0}, 0), ({"bandwidth": 1024}, 1024), ({"bandwidth": None}, None)],
)
def test_a_limit_that_somebody_set_reaches_the_mover(
    adjusted: dict[str, Any], bandwidth: int | None
) -> None:
    assert TaskMoveControl(TaskRecorder(adjusted), None).bandwidth == bandwidth


def test_the_places_choose_the_engine() -> None:
    assert isinstance(engine_for("/data/a", "/data/b:c"), NativeMover)
    assert isinstance(engine_for("/data/a", "s3:bucket"), RcloneMover)
    assert isinstance(engine_for("s3:bucket", "/data/a"), RcloneMover)


def test_a_remote_that_nobody_set_up_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DMS_RCLONE_CONFIG", raising=False)
    with pytest.raises(PermanentFailure, match="DMS_RCLONE_CONFIG"):
        handle("sync", src="s3:bucket/a", dst=str(place.dst))


class Stopper(TaskRecorder):
    """A runner that stops the mover at its second question."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error
        self._asked = 0

    def check(self) -> None:
        self._asked += 1
        if self._asked > 1:
            raise self._error


@pytest.mark.parametrize(
    "error",
    [TaskCancelled("enough"), TaskCancelled("drain", ends_task=False), LeaseLost("nobody answers")],
)
def test_what_the_runner_says_comes_back_as_it_was(place: Place, error: Exception) -> None:
    place.write("src/file")
    with pytest.raises(type(error), match=str(error)) as caught:
        move(place, Stopper(error))
    assert getattr(caught.value, "ends_task", None) == getattr(error, "ends_task", None)
