"""`hotcold`: every file counts once, in its class, its bucket and its folders."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.tasks import PermanentFailure
from dms_scheduler.movers import Cancelled, PartialFailure, Refused
from dms_scheduler.movers.native.ageing import AgeBy, AgeRequest, age
from dms_scheduler.movers.native.ages import BUCKET_DAYS, MOST_TOP_FOLDERS, AgeClass, Ages
from dms_scheduler.movers.results import AgeResult
from tests.unit.movers.support import Place, Recorder, as_nobody, look
from tests.unit.movers.tasks import TaskRecorder, handle

DAY = 86_400
NOW = 2_000_000_000


def aged(place: Place, path: str, days: float, size: int, *, read_days: float = 5000) -> Path:
    """Make a file that was written and read so many days before NOW."""
    file = place.write(f"src/{path}", b"x" * size)
    os.utime(file, (NOW - read_days * DAY, NOW - days * DAY))
    return file


def ages(place: Place, control: Recorder | None = None, **changes: Any) -> dict[str, Any]:
    request = AgeRequest(path=str(place.src), roots=(str(place.root),), **changes)
    result = age(request, control or Recorder(), now=NOW).to_dict()
    return json.loads(json.dumps(result))


def forest(place: Place) -> None:
    aged(place, "top", 400, 7)
    aged(place, "old/deep/a", 200, 100)
    aged(place, "old/deep/b", 800, 50)
    aged(place, "old/c", 180, 10)
    aged(place, "mixed/new", 0.5, 3)
    aged(place, "mixed/old1", 365, 20)
    aged(place, "mixed/all-old/old2", 300, 30)
    aged(place, "mixed/warm/w", 100, 1000)


def test_classes_folders_and_what_is_cold(place: Place) -> None:
    forest(place)
    (place.src / "link").symlink_to("top")
    os.mkfifo(place.src / "fifo")
    before = look(place.root)
    control = Recorder()
    result = ages(place, control)
    assert look(place.root) == before
    assert result["totals"] == {
        "files": 8,
        "bytes": 1220,
        "dirs": 5,
        "links": 1,
        "special": 1,
    }
    assert result["classes"] == {
        "hot": {"files": 1, "bytes": 3},
        "warm": {"files": 1, "bytes": 1000},
        "cold": {"files": 6, "bytes": 217},
    }
    assert [(each["path"], each["bytes"]) for each in result["folders"]] == [
        ("mixed", 1053),
        ("old", 160),
    ]
    assert result["folders"][0]["cold"] == {"files": 2, "bytes": 50}
    assert result["cold_folders"] == [
        {"path": "old", "files": 3, "bytes": 160, "whole": True},
        {"path": "mixed/all-old", "files": 1, "bytes": 30, "whole": True},
        {"path": "mixed", "files": 1, "bytes": 20, "whole": False},
        {"path": ".", "files": 1, "bytes": 7, "whole": False},
    ]
    assert result["oldest"]["path"] == "old/deep/b"
    assert result["newest"] == {"path": "mixed/new", "size": 3, "time": "2033-05-17T15:33:20+00:00"}
    lines = {each.path: (each.action.value, each.size, each.reason) for each in control.entries}
    assert lines["old/deep/b"] == ("aged", 50, "800 days")
    assert set(lines) == {
        *("top", "old/deep/a", "old/deep/b", "old/c", "mixed/old1", "mixed/all-old/old2")
    }


def test_a_tree_that_is_all_cold_is_one_folder(place: Place) -> None:
    aged(place, "a/b", 1000, 5)
    aged(place, "c", 1000, 5)
    assert ages(place)["cold_folders"] == [{"path": ".", "files": 2, "bytes": 10, "whole": True}]


def test_an_empty_tree_has_no_ages(place: Place) -> None:
    result = ages(place)
    assert result["totals"]["files"] == 0
    assert (result["oldest"], result["newest"], result["cold_folders"]) == (None, None, [])


def test_the_histogram_has_every_file_once(place: Place) -> None:
    for number, days in enumerate((0, 0.99, 1, 6.99, 7, 29, 30, 90, 180, 365, 730, 9999)):
        aged(place, str(number), days, 1)
    buckets = ages(place)["histogram"]
    assert [each["files"] for each in buckets] == [2, 2, 2, 1, 1, 1, 1, 2]
    assert [each["to_days"] for each in buckets] == [*BUCKET_DAYS, None]
    assert [each["from_days"] for each in buckets] == [0, *BUCKET_DAYS]


@pytest.mark.parametrize(
    ("by", "expected"), [(AgeBy.MTIME, "cold"), (AgeBy.ATIME, "hot"), (AgeBy.NEWEST, "hot")]
)
def test_which_time_counts(place: Place, by: AgeBy, expected: str) -> None:
    aged(place, "read-lately", 1000, 1, read_days=1)
    assert ages(place, by=by)["classes"][expected]["files"] == 1


def test_a_time_in_the_future_is_hot(place: Place) -> None:
    aged(place, "clock-was-wrong", -500, 1)
    result = ages(place, hot_days=1)
    assert result["classes"]["hot"]["files"] == 1
    assert result["histogram"][0]["files"] == 1


def test_patterns_choose_the_files(place: Place) -> None:
    forest(place)
    assert ages(place, include=("/old",))["totals"]["files"] == 3
    assert ages(place, exclude=("old/",))["totals"]["files"] == 5


def test_the_biggest_are_kept_and_the_others_added_up() -> None:
    counted = Ages(now=NOW, hot_days=1, cold_days=2, top=3)
    counted.enter("")
    many = MOST_TOP_FOLDERS + 20
    for number in range(many):
        name = f"{number:04}"
        counted.enter(name)
        counted.add(name, f"{name}/a", number, NOW - 10 * DAY)
        counted.add(name, f"{name}/b", 1, NOW)
        counted.leave(name, "")
    counted.leave("", None)
    result: dict[str, Any] = counted.to_dict()
    assert len(result["folders"]) == MOST_TOP_FOLDERS
    assert result["folders"][0]["path"] == f"{many - 1:04}"
    assert result["other_folders"]["count"] == 20
    assert result["other_folders"]["cold"] == {"files": 20, "bytes": sum(range(20))}
    assert [each["bytes"] for each in result["cold_folders"]] == [many - 1, many - 2, many - 3]


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from("abc"), max_size=3),
            st.integers(0, 1000),
            st.integers(-10, 2000),
        ),
        max_size=30,
    )
)
def test_cold_folders_add_up_to_what_is_cold(files: list[tuple[list[str], int, int]]) -> None:
    counted = Ages(now=NOW, hot_days=30, cold_days=180, top=1000)
    tree: dict[str, list[tuple[int, int]]] = {"": []}
    for parts, size, days in files:
        for depth in range(len(parts) + 1):
            tree.setdefault("/".join(parts[:depth]), [])
        tree["/".join(parts)].append((size, days))

    def visit(folder: str, parent: str | None) -> None:
        counted.enter(folder)
        for number, (size, days) in enumerate(tree[folder]):
            counted.add(folder, f"{folder}/{number}", size, NOW - days * DAY)
        for below in tree:
            if below and below.rpartition("/")[0] == folder:
                visit(below, folder)
        counted.leave(folder, parent)

    visit("", None)
    result: dict[str, Any] = counted.to_dict()
    cold = [size for _, size, days in files if days >= 180]
    assert sum(each["bytes"] for each in result["cold_folders"]) == sum(cold)
    assert sum(each["files"] for each in result["cold_folders"]) == len(cold)
    assert result["classes"][AgeClass.COLD] == {"files": len(cold), "bytes": sum(cold)}
    assert sum(each["files"] for each in result["histogram"]) == len(files)


def test_a_part_that_cannot_be_read_fails_it_with_what_was_counted(open_place: Place) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a directory that this user cannot read")
    aged(open_place, "a", 1, 5)
    open_place.write("src/secret/x").parent.chmod(0o700)
    with as_nobody(), pytest.raises(PartialFailure, match="secret") as caught:
        ages(open_place)
    result = caught.value.result
    assert isinstance(result, AgeResult)
    assert result.to_dict()["totals"] == {
        "files": 1,
        "bytes": 5,
        "dirs": 0,
        "links": 0,
        "special": 0,
    }


def test_a_cancel_ends_it(place: Place) -> None:
    forest(place)

    def cancel(checks: int) -> None:
        if checks > 3:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        ages(place, Recorder(cancel))


def test_only_a_directory_has_ages(place: Place) -> None:
    file = place.write("src/a")
    with pytest.raises(Refused) as caught:
        age(AgeRequest(path=str(file), roots=(str(place.root),)), Recorder())
    assert caught.value.error_class == "bad_source"


def test_the_handler_counts_and_reports(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMS_DATA_ROOTS", str(place.root))
    old = place.write("src/한글", "12345")
    os.utime(old, (0, 0))
    place.write("src/new", "1")
    control = TaskRecorder()
    result = handle("hotcold", control, path=str(place.src), cold_days="365", top="1")
    assert result["classes"]["cold"] == {"files": 1, "bytes": 5}
    assert (result["cold_days"], result["by"]) == (365, "mtime")
    (line,) = control.entries
    assert (line["action"], line["path"], line["size"]) == ("aged", "한글", 5)
    with pytest.raises(PermanentFailure) as caught:
        handle("hotcold", path=str(place.root / "missing"))
    assert caught.value.data["error_class"] == "not_found"
