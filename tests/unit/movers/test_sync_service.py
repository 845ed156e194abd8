"""The service `sync`: its parameters, and what it tells the runner of its task."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from app.tasks import UNSET, PermanentFailure, RetryLater, Task, get_definition, running
from dms_scheduler.movers import Compare, MoveOptions, Overwrite, Preserve, Verify
from dms_scheduler.services.parameters import SyncParameters
from dms_scheduler.services.sync import sync
from tests.unit.movers.support import Place, look


def parse(**values: Any) -> SyncParameters:
    return SyncParameters.model_validate({"src": "/data/a", "dst": "/data/b", **values})


def test_defaults_are_those_of_the_movers() -> None:
    assert parse().options() == MoveOptions()


def test_everything_may_come_as_text() -> None:
    options = parse(
        compare="checksum",
        verify="none",
        delete="true",
        max_delete="5",
        allow_empty_src="1",
        backup_deleted="false",
        dry_run="yes",
        overwrite="never",
        symlinks="skip",
        preserve="mtime",
        include="*.txt",
        exclude=["a", "b"],
        bandwidth="10M",
        transfers="32",
        retries="0",
        label="nightly",
    ).options()
    assert (options.compare, options.verify) == (Compare.CHECKSUM, Verify.NONE)
    assert (options.delete, options.max_delete, options.allow_empty_src) == (True, 5, True)
    assert (options.backup_deleted, options.dry_run) == (False, True)
    assert options.overwrite is Overwrite.NEVER
    assert options.preserve == {Preserve.MTIME}
    assert (options.include, options.exclude) == (("*.txt",), ("a", "b"))
    assert (options.bandwidth, options.transfers, options.retries) == (10 * 1024**2, 32, 0)


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1), ("512K", 512 * 1024), ("1GiB", 1024**3), ("2 MB", 2 * 1024**2)]
)
def test_bandwidth_has_units(text: str, value: int) -> None:
    assert parse(bandwidth=text).bandwidth == value


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("mode,mtime", {Preserve.MODE, Preserve.MTIME}),
        (["mode", "mtime"], {Preserve.MODE, Preserve.MTIME}),
        ("", set[Preserve]()),
        ("none", set[Preserve]()),
    ],
)
def test_preserve_is_a_list_in_any_form(value: object, kept: set[Preserve]) -> None:
    assert parse(preserve=value).preserve == kept


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("input", "value", "Extra inputs are not permitted"),
        ("src", "remote:path", "remote"),
        ("src", "relative", "not absolute"),
        ("dst", "/a/../b", "'..'"),
        ("dst", ["/a", "/b"], "valid string"),
        ("compare", "date", "'size_mtime'"),
        ("verify", "some", "'transferred'"),
        ("symlinks", "follow", "'keep' or 'skip'"),
        ("delete", "perhaps", "boolean"),
        ("max_delete", "-1", "greater than or equal to 0"),
        ("max_delete", True, "whole number"),
        ("transfers", "0", "greater than or equal to 1"),
        ("transfers", "33", "less than or equal to 32"),
        ("transfers", "four", "valid integer"),
        ("transfers", 2.5, "valid integer"),
        ("bandwidth", "0", "greater than or equal to 1"),
        ("bandwidth", "9" * 400, "less than or equal to"),
        ("bandwidth", "fast", "bytes a second"),
        ("bandwidth", "-5M", "bytes a second"),
        ("preserve", "owner", "owner cannot be preserved"),
        ("preserve", "mtime,sparse", "sparse cannot be preserved"),
        ("preserve", "colour", "'mtime', 'mode'"),
        ("preserve", 7, "separated by commas"),
        ("include", "[z-a]", "cannot be read"),
        ("exclude", "/", "name something"),
        ("deadline", "soon", "valid"),
        ("deadline", "0", "more than nothing"),
        ("deadline", "2030-01-01T00:00:00", "timezone"),
        ("label", "x" * 201, "at most 200"),
    ],
)
def test_a_value_without_sense_is_refused(name: str, value: object, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        parse(**{name: value})


def test_a_deadline_is_a_duration_or_a_time() -> None:
    assert parse().seconds_left() is None
    assert parse(deadline="90").seconds_left() == 90
    assert parse(deadline="1.5h").seconds_left() == 5400
    assert parse(deadline=30).deadline == timedelta(seconds=30)
    past = parse(deadline=datetime(2020, 1, 1, tzinfo=UTC).isoformat()).seconds_left()
    assert past is not None
    assert past < 0


def test_the_definition_describes_its_parameters() -> None:
    definition = get_definition("sync")
    assert definition is not None
    assert (definition.isolation, definition.max_attempts) == ("process", 3)
    assert definition.options.payload is SyncParameters
    schema = SyncParameters.model_json_schema()
    assert set(schema["required"]) == {"src", "dst"}
    assert schema["additionalProperties"] is False
    assert all("description" in field for field in schema["properties"].values())


class TaskRecorder:
    """A runner's control that keeps what it is told."""

    def __init__(self) -> None:
        self.cancelled = False
        self.deadline_monotonic = 0.0
        self.reports: list[tuple[dict[str, Any], bool]] = []
        self.lines: list[str] = []

    def check(self) -> None:
        """Never stop."""

    def progress(self, progress: dict[str, Any], *, advanced: bool = False) -> None:
        self.reports.append((progress, advanced))

    def log(self, message: str) -> None:
        self.lines.append(message)

    def checkpoint(self, value: Any = UNSET, /) -> Any:
        """The mover saves none."""


def handle(control: TaskRecorder, **values: Any) -> dict[str, object]:
    now = datetime.now(UTC)
    task = Task(
        id="42",
        type="sync",
        payload=SyncParameters.model_validate(values),
        user_id="kim",
        created_at=now,
        updated_at=now,
        epoch=1,
    )
    with running(task, control):
        return sync(task)


def test_the_handler_moves_and_reports(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMS_DATA_ROOTS", str(place.root))
    place.write("src/한글.txt", "hello")
    control = TaskRecorder()
    result = handle(control, src=str(place.src), dst=str(place.dst))
    assert look(place.dst) == look(place.src)
    assert json.loads(json.dumps(result)) == result
    assert result["totals"] == {
        "files": 1,
        "bytes": 5,
        "skipped": 0,
        "updated": 0,
        "links": 0,
        "hardlinks": 0,
        "dirs": 0,
        "special": 0,
        "checks": 0,
        "deleted": 0,
    }
    assert control.reports[0][1] is False
    assert any(advanced for _, advanced in control.reports)
    assert control.reports[-1][0]["bytes"] == 5
    json.dumps(control.reports)
    again = TaskRecorder()
    handle(again, src=str(place.src), dst=str(place.dst))
    assert not any(advanced for _, advanced in again.reports)


def test_a_dry_run_answers_with_the_plan(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMS_DATA_ROOTS", str(place.root))
    place.write("src/a", "hello")
    result = handle(TaskRecorder(), src=str(place.src), dst=str(place.dst), dry_run="true")
    assert result["dry_run"] is True
    assert result["sample"] == [{"action": "copy", "path": "a"}]
    assert not place.dst.exists()


def test_without_roots_the_task_fails_for_good(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DMS_DATA_ROOTS", raising=False)
    with pytest.raises(PermanentFailure, match="DMS_DATA_ROOTS") as caught:
        handle(TaskRecorder(), src=str(place.src), dst=str(place.dst))
    assert caught.value.data["error_class"] == "outside_roots"


def test_a_failure_carries_what_was_done(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMS_DATA_ROOTS", str(place.root))
    place.write("src/a")
    place.write("src/b")
    (place.dst / "b").mkdir(parents=True)
    control = TaskRecorder()
    with pytest.raises(PermanentFailure, match="b: another kind") as caught:
        handle(control, src=str(place.src), dst=str(place.dst))
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
    with pytest.raises(RetryLater, match="mount it"):
        handle(TaskRecorder(), src=str(gone / "a"), dst=str(place.dst))


def test_a_deadline_that_passed_ends_the_task(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMS_DATA_ROOTS", str(place.root))
    place.write("src/a")
    with pytest.raises(PermanentFailure, match="deadline") as caught:
        handle(
            TaskRecorder(), src=str(place.src), dst=str(place.dst), deadline="2020-01-01T00:00:00Z"
        )
    assert caught.value.data["error_class"] == "deadline_exceeded"
