"""The native `remove`: planned and bounded first, never a root, never beyond what was named."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.tasks import PermanentFailure, RetryLater
from dms_scheduler.movers import (
    Action,
    Cancelled,
    LeaseLost,
    MovePlan,
    MoveResult,
    NativeMover,
    PartialFailure,
    Refused,
    RemoveRequest,
    ReportEntry,
)
from dms_scheduler.movers.locks import Locks
from dms_scheduler.movers.native import doomed
from dms_scheduler.movers.paths import PATH_FLAGS, root_identities
from tests.unit.movers.forest import TREES, Folder
from tests.unit.movers.support import Place, Recorder, as_nobody, look
from tests.unit.movers.tasks import TaskRecorder, handle


def request(place: Place, path: str | Path, **changes: Any) -> RemoveRequest:
    text = path if isinstance(path, str) and path.startswith("/") else str(place.root / path)
    values: dict[str, Any] = {"task_id": "t-1", "epoch": 1, "roots": (str(place.root),), **changes}
    return RemoveRequest(path=text, **values)


def remove(
    place: Place, path: str | Path, control: Recorder | None = None, **changes: Any
) -> MoveResult:
    result = NativeMover().remove(request(place, path, **changes), control or Recorder())
    assert isinstance(result, MoveResult)
    return result


def tree(place: Place) -> None:
    place.write("a/f", "12345")
    place.write("a/b/한글", "123")
    place.write("a/b/c/deep", "1")
    (place.root / "a/empty").mkdir()
    (place.root / "a/link").symlink_to("/etc")
    os.mkfifo(place.root / "a/fifo")


def lines(control: Recorder) -> Counter[tuple[Action, str, int | None]]:
    return Counter((each.action, each.path, each.size) for each in control.entries)


def test_a_tree_goes_and_is_told(place: Place) -> None:
    tree(place)
    canary = place.write("z/canary")
    control = Recorder()
    result = remove(place, "a", control, recursive=True)
    assert not (place.root / "a").exists()
    assert canary.exists()
    assert Path("/etc/passwd").exists()
    assert (result.totals.deleted, result.totals.bytes) == (9, 9)
    assert lines(control) == {
        (Action.DELETE, "a/f", 5): 1,
        (Action.DELETE, "a/b/한글", 3): 1,
        (Action.DELETE, "a/b/c/deep", 1): 1,
        (Action.DELETE, "a/b/c", None): 1,
        (Action.DELETE, "a/b", None): 1,
        (Action.DELETE, "a/empty", None): 1,
        (Action.DELETE, "a/link", None): 1,
        (Action.DELETE, "a/fifo", None): 1,
        (Action.DELETE, "a", None): 1,
    }
    assert control.reports[-1].deletes == 9


@pytest.mark.parametrize("backup", [False, True])
@pytest.mark.parametrize("patterns", [{}, {"exclude": ("c/",)}, {"include": ("*.x", "f")}])
def test_a_dry_run_tells_what_a_run_then_does(
    place: Place, backup: bool, patterns: dict[str, Any]
) -> None:
    tree(place)
    place.write("a/b/d.x", "12")
    before = look(place.root)
    dry, real = Recorder(), Recorder()
    options = {"recursive": True, "backup": backup, **patterns}
    plan = NativeMover().remove(request(place, "a", dry_run=True, **options), dry)
    assert isinstance(plan, MovePlan)
    assert look(place.root) == before
    result = remove(place, "a", real, **options)
    assert lines(dry) == lines(real)
    assert (plan.totals.deleted, plan.totals.bytes) == (result.totals.deleted, result.totals.bytes)
    assert [each.to_dict() for each in plan.sample] == [each.to_dict() for each in dry.entries]


def test_a_single_file_a_link_and_an_empty_directory(place: Place) -> None:
    tree(place)
    for path in ("a/f", "a/link", "a/empty", "a/fifo", "a/b/c/deep"):
        assert remove(place, path).totals.deleted == 1
        assert not os.path.lexists(place.root / path)


def test_a_directory_that_is_not_empty_needs_recursive(place: Place) -> None:
    tree(place)
    before = look(place.root)
    with pytest.raises(Refused, match="recursive=true") as caught:
        remove(place, "a")
    assert caught.value.error_class == "not_empty"
    assert look(place.root) == before


@pytest.mark.parametrize("backup", [False, True])
def test_the_limit_holds_before_anything_goes(place: Place, backup: bool) -> None:
    tree(place)
    before = look(place.root)
    with pytest.raises(Refused, match="more than 8 entries") as caught:
        remove(place, "a", recursive=True, max_delete=8, backup=backup)
    assert caught.value.error_class == "max_delete"
    assert look(place.root) == before
    assert remove(place, "a", recursive=True, max_delete=9, backup=backup).totals.deleted == 9


def test_the_limit_holds_for_what_comes_after_the_plan(place: Place) -> None:
    """Entries that somebody makes while the task runs are not deleted without bound."""
    tree(place)
    control = Recorder()
    seen: list[int] = []

    def grow(_: int) -> None:
        if control.entries and not seen:
            seen.append(1)
            for number in range(20):
                place.write(f"a/b/new{number}")

    control = Recorder(grow)
    with pytest.raises(Refused, match="more than 9"):
        remove(place, "a", control, recursive=True, max_delete=9)
    assert len(control.entries) <= 9


def test_what_is_kept_can_be_put_back(place: Place) -> None:
    tree(place)
    before = look(place.root / "a")
    result = remove(place, "a", recursive=True, backup=True)
    assert result.totals.deleted == 9
    assert not (place.root / "a").exists()
    assert look(place.root / ".dms-deleted/t-1.1/a") == before


def test_a_part_that_is_kept_aside_keeps_its_place(place: Place) -> None:
    tree(place)
    remove(place, "a/b", recursive=True, backup=True, exclude=("c/",))
    kept = place.root / "a/.dms-deleted/t-1.1/b"
    assert look(kept).keys() == {"한글".encode()}
    assert (place.root / "a/b/c/deep").exists()


def test_backups_are_removed_for_good_and_never_kept_again(place: Place) -> None:
    tree(place)
    remove(place, "a", recursive=True, backup=True)
    with pytest.raises(Refused, match="where backups are kept"):
        remove(place, ".dms-deleted", recursive=True, backup=True)
    remove(place, ".dms-deleted", recursive=True)
    assert not (place.root / ".dms-deleted").exists()


def test_what_filters_leave_out_stays_with_what_holds_it(place: Place) -> None:
    tree(place)
    result = remove(place, "a", recursive=True, exclude=("한글",))
    assert look(place.root / "a").keys() == {b"b", "b/한글".encode()}
    assert result.totals.deleted == 6


def test_include_takes_files_and_leaves_directories(place: Place) -> None:
    tree(place)
    place.write("a/x.tmp")
    place.write("a/b/y.tmp")
    remove(place, "a", recursive=True, include=("*.tmp", "/b/c"))
    assert {os.fsdecode(name) for name in look(place.root / "a")} == {
        *("b", "b/한글", "empty", "f", "fifo", "link")
    }


def test_patterns_need_a_directory(place: Place) -> None:
    tree(place)
    with pytest.raises(Refused, match="mean a directory"):
        remove(place, "a/f", exclude=("x",))
    with pytest.raises(Refused, match="mean a directory"):
        remove(place, f"{place.root}/a/link/", recursive=True)


def test_leftovers_of_dead_tasks_go_too(place: Place) -> None:
    place.write("a/.dms-tmp.t.1.1")
    place.write("a/.dms-deleted/t.1/x")
    remove(place, "a", recursive=True)
    assert not (place.root / "a").exists()


@pytest.mark.parametrize("spelling", ["{}", "{}/", "{}//", "{}/.", "/{}", "/.{}", "{}/./."])
def test_a_root_is_never_removed(place: Place, spelling: str) -> None:
    tree(place)
    before = look(place.root)
    with pytest.raises(Refused) as caught:
        remove(place, spelling.format(place.root), recursive=True)
    assert caught.value.error_class == "root_refused"
    assert look(place.root) == before


def test_what_holds_a_root_is_never_removed(place: Place) -> None:
    tree(place)
    before = look(place.root)
    roots = (str(place.root), str(place.root / "a/b/c"))
    for path in ("a", "a/b", "a/b/c"):
        with pytest.raises(Refused) as caught:
            remove(place, path, recursive=True, roots=roots)
        assert caught.value.error_class == "root_refused"
    assert look(place.root) == before
    remove(place, "a", recursive=True, roots=roots, exclude=("c/",))
    assert (place.root / "a/b/c/deep").exists()


def test_a_link_that_a_root_is_spelled_by_is_never_removed(place: Place) -> None:
    place.write("real/x")
    link = place.root / "root-link"
    link.symlink_to(place.root / "real")
    with pytest.raises(Refused) as caught:
        remove(place, "root-link", roots=(str(place.root), str(link)))
    assert caught.value.error_class == "root_refused"
    assert link.is_symlink()


@contextmanager
def bound(source: Path, target: Path) -> Generator[None]:
    """Show `source` at `target` too."""
    target.mkdir(parents=True, exist_ok=True)
    command = ["mount", "--bind", str(source), str(target)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(target)], check=True)


@pytest.mark.parametrize("path", ["holder/alias", "holder"])
def test_a_root_under_another_name_is_never_removed(place: Place, path: str) -> None:
    canary = place.write("data/canary")
    data = str(place.root / "data")
    with bound(place.root / "data", place.root / "holder/alias"):
        with pytest.raises(Refused) as caught:
            remove(place, path, recursive=True, roots=(str(place.root), data))
        assert caught.value.error_class == "root_refused"
    assert canary.exists()


@pytest.mark.parametrize("path", ["holder/mounted", "holder"])
def test_a_mount_of_the_same_file_system_is_not_emptied(place: Place, path: str) -> None:
    canary = place.write("data/canary")
    place.write("holder/file")
    with bound(place.root / "data", place.root / "holder/mounted"):
        with pytest.raises(Refused, match="mounted") as caught:
            remove(place, path, recursive=True)
        assert caught.value.error_class == "other_file_system"
        assert (place.root / "holder/file").exists()
    assert canary.exists()


def test_what_is_not_there_is_refused_at_first_and_done_later(place: Place) -> None:
    for path in ("missing", "missing/deeper"):
        with pytest.raises(Refused, match="does not exist") as caught:
            remove(place, path)
        assert caught.value.error_class == "not_found"
        control = Recorder()
        assert remove(place, path, control, epoch=2).totals.deleted == 0
        assert "removed meanwhile" in control.lines[0]


def test_an_attempt_goes_on_where_one_before_was_killed(place: Place) -> None:
    tree(place)

    def die(_: int) -> None:
        if len(control.entries) == 4:
            raise KeyboardInterrupt

    control = Recorder(die)
    with pytest.raises(KeyboardInterrupt):
        remove(place, "a", control, recursive=True)
    result = remove(place, "a", recursive=True, epoch=2)
    assert result.totals.deleted == 5
    assert not (place.root / "a").exists()
    assert remove(place, "a", recursive=True, epoch=3).totals.deleted == 0


def test_outside_of_the_roots_is_refused(place: Place, tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        remove(place, "/etc/passwd")
    assert caught.value.error_class == "outside_roots"
    (place.root / "way").symlink_to("/etc")
    with pytest.raises(Refused) as caught:
        remove(place, "way/passwd")
    assert caught.value.error_class == "symlink_refused"


def test_what_cannot_be_removed_is_named_and_the_rest_goes(open_place: Place) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a directory that this user cannot change")
    open_place.write("a/locked/kept")
    open_place.write("a/gone")
    (open_place.root / "a").chmod(0o777)
    (open_place.root / "a/locked").chmod(0o755)
    control = Recorder()
    with as_nobody(), pytest.raises(PartialFailure, match="1 path failed") as caught:
        remove(open_place, "a", control, recursive=True)
    result = caught.value.result
    assert isinstance(result, MoveResult)
    assert (result.totals.deleted, result.failed_count) == (1, 1)
    assert result.failed[0].path == "a/locked/kept"
    assert result.failed[0].error_class == "permission_denied"
    failed = [each for each in control.entries if each.action is Action.FAILED]
    assert [each.path for each in failed] == ["a/locked/kept"]


@pytest.mark.parametrize("kind", ["link", "directory"])
def test_a_directory_that_was_swapped_is_left_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    tree(place)
    outside = place.root / "outside"
    (outside / "b").mkdir(parents=True)
    canary = outside / "b/canary"
    canary.write_text("1")
    real = doomed.open_same
    opened: list[str] = []

    def swap(each: doomed.Doomed) -> int:
        opened.append(each.path)
        if opened.count("a/b") == 2 and each.name == "b":  # the plan was the first
            os.rename(place.root / "a/b", place.root / "elsewhere")
            if kind == "link":
                os.symlink(outside / "b", place.root / "a/b")
            else:
                os.rename(outside / "b", place.root / "a/b")
        return real(each)

    monkeypatch.setattr(doomed, "open_same", swap)
    with pytest.raises(PartialFailure):
        remove(place, "a", recursive=True)
    assert canary.exists() or (place.root / "a/b/canary").exists()
    assert (place.root / "elsewhere/c/deep").exists()


@pytest.mark.parametrize("backup", [False, True])
def test_a_lease_that_ran_out_removes_nothing_more(place: Place, backup: bool) -> None:
    tree(place)
    before = look(place.root / "a")
    control = Recorder()
    control.deadline = time.monotonic() - 1
    with pytest.raises(LeaseLost):
        remove(place, "a", control, recursive=True, backup=backup)
    assert look(place.root / "a") == before


def test_a_lease_that_runs_out_spares_the_directory_that_was_emptied(place: Place) -> None:
    tree(place)

    class Expiring(Recorder):
        def report(self, entry: ReportEntry) -> None:
            super().report(entry)
            if entry.path == "a/b/c/deep":
                self.deadline = time.monotonic() - 1

    with pytest.raises(LeaseLost):
        remove(place, "a", Expiring(), recursive=True)
    assert (place.root / "a/b/c").is_dir()


def test_a_cancel_ends_it_and_tells_what_went(place: Place) -> None:
    for number in range(50):
        place.write(f"a/{number}")
    control = Recorder()

    def cancel(_: int) -> None:
        if len(control.entries) >= 10:
            raise Cancelled("stop")

    control = Recorder(cancel)
    with pytest.raises(Cancelled) as caught:
        remove(place, "a", control, recursive=True)
    result = caught.value.result
    assert isinstance(result, MoveResult)
    assert result.totals.deleted == 10 == 50 - len(look(place.root / "a"))


def test_deep_trees_go_and_too_deep_ones_are_refused(place: Place) -> None:
    def dig(name: str, depth: int) -> None:
        path = place.root / name
        path.mkdir()
        fd = os.open(path, os.O_RDONLY)
        for _ in range(depth):
            os.mkdir("d", dir_fd=fd)
            below = os.open("d", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        os.close(fd)

    dig("deep", 298)
    assert remove(place, "deep", recursive=True).totals.deleted == 299
    dig("deeper", 320)
    with pytest.raises(Refused) as caught:
        remove(place, "deeper", recursive=True)
    assert caught.value.error_class == "too_deep"
    remove(place, "deeper/" + "/".join("d" * 150), recursive=True)
    remove(place, "deeper", recursive=True)


def test_another_task_that_writes_there_is_waited_for(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMS_DATA_ROOTS", str(place.root))
    tree(place)
    fd = os.open(place.root / "a/b", PATH_FLAGS)
    locks = Locks(root_identities((str(place.root),)), lambda _: None)
    try:
        locks.write(fd)
        with pytest.raises(RetryLater) as caught:
            handle("rm", path=str(place.root / "a"), recursive="true")
        assert not caught.value.counted
    finally:
        locks.close()
        os.close(fd)
    assert handle("rm", path=str(place.root / "a"), recursive="true")["totals"]["deleted"] == 9


def test_the_handler_removes_and_reports(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMS_DATA_ROOTS", str(place.root))
    tree(place)
    path = str(place.root / "a")
    plan = handle("rm", path=path, recursive="true", options="--dryrun")
    assert (plan["dry_run"], plan["totals"]["deleted"]) == (True, 9)
    with pytest.raises(PermanentFailure) as caught:
        handle("rm", path=path)
    assert json.loads(json.dumps(caught.value.data))["error_class"] == "not_empty"
    control = TaskRecorder()
    result = handle("rm", control, path=path, recursive="true", backup_deleted="true")
    assert (result["totals"]["deleted"], result["error_class"]) == (9, None)
    assert (place.root / ".dms-deleted/42.1/a/f").exists()
    assert len(control.entries) == 9


@settings(max_examples=25, deadline=None)
@given(TREES, st.booleans(), st.sampled_from([(), ("a",), ("*.txt", "b/"), ("?",)]))
def test_any_tree_goes_but_for_what_is_excluded(
    tmp_path_factory: pytest.TempPathFactory, forest: Folder, backup: bool, exclude: tuple[str, ...]
) -> None:
    root = tmp_path_factory.mktemp("trees")
    forest.build(os.fsencode(root / "top"))
    place = Place(root)
    before = look(root / "top")
    dry = Recorder()
    options: dict[str, Any] = {"recursive": True, "exclude": exclude, "backup": backup}
    plan = NativeMover().remove(request(place, "top", dry_run=True, **options), dry)
    assert look(root / "top") == before
    done = Recorder()
    result = remove(place, "top", done, **options)
    assert lines(done) == lines(dry)
    left = look(root / "top") if (root / "top").exists() else {}
    top = 0 if (root / "top").exists() else 1
    assert result.totals.deleted == plan.totals.deleted == len(before) - len(left) + top
    if not exclude:
        assert not (root / "top").exists()
