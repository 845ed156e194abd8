"""`delete`: refuses first, deletes last, and keeps what it took."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dms_scheduler.movers import MoveResult, Overwrite, PartialFailure, Refused
from tests.unit.movers.support import Place, Recorder, as_nobody, look


@pytest.fixture
def mirrored(place: Place) -> Place:
    """A destination with one file that the source has, and a file and a tree that it lacks."""
    place.write("src/both", "1")
    place.write("dst/both", "old")
    place.write("dst/extra", "2")
    place.write("dst/tree/a/b", "3")
    (place.dst / "tree/empty").mkdir()
    return place


def test_nothing_is_deleted_unless_asked_for(mirrored: Place) -> None:
    mirrored.run()
    assert (mirrored.dst / "extra").exists()
    assert (mirrored.dst / "tree/a/b").exists()


def test_what_is_deleted_is_kept_aside(mirrored: Place) -> None:
    result = mirrored.run(delete=True)
    assert result.totals.deleted == 5
    kept = mirrored.dst / ".dms-deleted" / "t-1.1"
    assert (kept / "extra").read_text() == "2"
    assert (kept / "tree/a/b").read_text() == "3"
    assert (kept / "tree/empty").is_dir()
    assert sorted(os.listdir(mirrored.dst)) == [".dms-deleted", "both"]
    assert mirrored.run(delete=True).totals.deleted == 0
    assert (kept / "extra").exists()


def test_without_backup_it_is_gone(mirrored: Place) -> None:
    mirrored.run(delete=True, backup_deleted=False)
    assert look(mirrored.dst) == look(mirrored.src)
    assert mirrored.dst.stat().st_mtime_ns == mirrored.src.stat().st_mtime_ns


@pytest.mark.parametrize("limit", [0, 4])
def test_too_many_deletions_are_refused_before_anything_is_done(
    mirrored: Place, limit: int
) -> None:
    before = look(mirrored.dst)
    for run in (mirrored.run, mirrored.plan):
        with pytest.raises(Refused, match="max_delete") as caught:
            run(delete=True, max_delete=limit)
        assert caught.value.error_class == "max_delete"
    assert look(mirrored.dst) == before


def test_exactly_the_limit_is_allowed(mirrored: Place) -> None:
    assert mirrored.run(delete=True, max_delete=5).totals.deleted == 5


@pytest.mark.parametrize("hollow", [False, True])
def test_an_empty_source_deletes_nothing_unless_allowed(place: Place, hollow: bool) -> None:
    if hollow:
        (place.src / "only/folders").mkdir(parents=True)
    place.write("dst/precious")
    with pytest.raises(Refused, match="allow_empty_src") as caught:
        place.run(delete=True)
    assert caught.value.error_class == "empty_source"
    assert (place.dst / "precious").exists()
    assert place.run(delete=True, allow_empty_src=True).totals.deleted == 1


@pytest.mark.parametrize("spelling", ["", "/", "/.", "//."])
def test_a_root_is_never_deleted_from(mirrored: Place, spelling: str) -> None:
    roots = (str(mirrored.dst), str(mirrored.src))
    with pytest.raises(Refused) as caught:
        mirrored.run(delete=True, dst=f"{mirrored.dst}{spelling}", roots=roots)
    assert caught.value.error_class == "root_refused"
    assert (mirrored.dst / "extra").exists()


def test_a_single_file_has_nothing_to_mirror(mirrored: Place) -> None:
    with pytest.raises(Refused):
        mirrored.run(delete=True, src=mirrored.src / "both")


def test_after_a_failure_nothing_is_deleted(open_place: Place) -> None:
    open_place.write("src/secret").chmod(0o000)
    open_place.write("dst/extra")
    with as_nobody(), pytest.raises(PartialFailure):
        open_place.run(delete=True)
    assert (open_place.dst / "extra").exists()


def test_an_unreadable_source_directory_does_not_look_empty(open_place: Place) -> None:
    open_place.write("src/good").chmod(0o644)
    open_place.write("src/closed/file")
    open_place.write("dst/closed/file")
    open_place.write("dst/extra")
    (open_place.src / "closed").chmod(0o000)
    with as_nobody(), pytest.raises(PartialFailure) as caught:
        open_place.run(delete=True)
    (open_place.src / "closed").chmod(0o755)
    assert isinstance(caught.value.result, MoveResult)
    assert [failure.path for failure in caught.value.result.failed] == ["closed"]
    assert caught.value.result.totals.deleted == 0
    assert sorted(look(open_place.dst)) == [b"closed", b"closed/file", b"extra", b"good"]


def test_what_the_filters_leave_out_stays(place: Place) -> None:
    place.write("src/a.txt")
    place.write("dst/cache/x")
    place.write("dst/old/keep.log")
    place.write("dst/old/gone.txt")
    result = place.run(delete=True, exclude=("cache/", "*.log"), backup_deleted=False)
    assert set(look(place.dst)) == {b"a.txt", b"cache", b"cache/x", b"old", b"old/keep.log"}
    assert result.totals.deleted == 1


def test_what_the_source_has_but_does_not_copy_stays(place: Place) -> None:
    os.mkfifo(place.src / "pipe")
    place.write("src/a")
    place.write("dst/pipe", "of the same name")
    place.run(delete=True)
    assert (place.dst / "pipe").exists()


def test_files_of_other_tasks_stay(place: Place) -> None:
    place.write("src/a")
    other = place.write("dst/.dms-tmp.other.1.1")
    place.run(delete=True)
    assert other.exists()


@pytest.mark.parametrize("backup", [False, True])
def test_another_kind_of_file_makes_place(place: Place, backup: bool) -> None:
    place.write("src/was-folder", "now a file")
    place.write("src/was-file/inner", "now a folder")
    place.write("dst/was-folder/x/y", "old")
    place.write("dst/was-file", "old")
    with pytest.raises(PartialFailure):
        place.run()
    with pytest.raises(Refused):
        place.run(delete=True, max_delete=3)
    assert place.run(delete=True, backup_deleted=backup).totals.deleted == 4
    kept = place.dst / ".dms-deleted/t-1.1"
    assert kept.exists() == backup
    if backup:
        assert (kept / "was-folder/x/y").read_text() == "old"
        assert (kept / "was-file").read_text() == "old"
    assert (place.dst / "was-folder").read_text() == "now a file"
    assert (place.dst / "was-file/inner").exists()


def test_never_overwriting_deletes_nothing_to_make_place(place: Place) -> None:
    place.write("src/name", "file")
    place.write("dst/name/inner", "old")
    place.run(delete=True, overwrite=Overwrite.NEVER)
    assert (place.dst / "name/inner").read_text() == "old"


def test_a_link_is_deleted_and_not_what_it_points_to(place: Place, tmp_path: Path) -> None:
    place.write("src/a")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    place.dst.mkdir()
    (place.dst / "link").symlink_to(outside)
    place.run(delete=True, backup_deleted=False)
    assert not (place.dst / "link").is_symlink()
    assert (outside / "precious").exists()


def test_a_root_inside_the_destination_is_not_deleted(mirrored: Place) -> None:
    inner = mirrored.dst / "tree"
    (mirrored.root / "alias").symlink_to(inner)
    roots = (str(mirrored.root), str(mirrored.root / "alias"))
    with pytest.raises(Refused) as caught:
        mirrored.run(delete=True, roots=roots)
    assert caught.value.error_class == "root_refused"
    assert (mirrored.dst / "extra").exists()
    with pytest.raises(Refused):  # the same root, reached by another name
        mirrored.run(delete=True, roots=roots, dst=inner)


@pytest.mark.root
def test_another_file_system_in_the_destination_is_not_emptied(
    mirrored: Place, small_disk: Path
) -> None:
    (small_disk / "precious").touch()
    mounted = mirrored.dst / "mounted"
    mounted.mkdir()
    subprocess.run(["mount", "--bind", str(small_disk), str(mounted)], check=True)
    try:
        with pytest.raises(PartialFailure) as caught:
            mirrored.run(delete=True, backup_deleted=False)
    finally:
        subprocess.run(["umount", str(mounted)], check=True)
    assert caught.value.result
    assert [failure.path for failure in caught.value.result.failed] == ["mounted"]
    assert (small_disk / "precious").exists()
    assert not (mirrored.dst / "extra").exists()


@pytest.mark.root
def test_a_bind_mount_does_not_hide_an_overlap(place: Place) -> None:
    place.write("src/a")
    place.write("dst/b")
    loop = place.src / "loop"
    loop.mkdir()
    subprocess.run(["mount", "--bind", str(place.dst), str(loop)], check=True)
    try:
        with pytest.raises(Refused) as caught:
            place.run()
    finally:
        subprocess.run(["umount", str(loop)], check=True)
    assert caught.value.error_class == "overlap"


def test_a_plan_counts_only_what_would_go(place: Place) -> None:
    place.write("src/a")
    place.write("dst/old/keep.log")
    place.write("dst/old/gone.txt")
    options: dict[str, Any] = {"delete": True, "exclude": ("*.log",)}
    assert place.plan(**options).totals.deleted == 1
    assert place.run(**options).totals.deleted == 1


def test_a_tree_as_deep_as_may_be_copied_may_be_deleted_too(place: Place) -> None:
    place.write("src/a")
    place.write("/".join(["dst", *["d"] * 295, "file"]))
    assert place.run(delete=True, backup_deleted=False).totals.deleted == 296
    assert os.listdir(place.dst) == ["a"]


def test_what_the_source_has_by_now_is_spared(place: Place) -> None:
    place.write("src/a")
    place.write("dst/tree/file", "kept")
    place.write("dst/extra")

    def come(_: int) -> None:
        if (place.dst / "a").exists():
            (place.src / "tree").mkdir(exist_ok=True)

    assert place.run(Recorder(come), delete=True).totals.deleted == 1
    assert (place.dst / "tree/file").read_text() == "kept"


def test_what_came_after_the_plan_is_not_deleted(place: Place) -> None:
    place.write("src/a")
    place.write("dst/tree/file")

    def come(_: int) -> None:
        if (place.dst / "a").exists():
            place.write("dst/tree/late", "kept")

    with pytest.raises(PartialFailure) as caught:
        place.run(Recorder(come), delete=True)
    assert caught.value.retryable
    assert (place.dst / "tree/late").read_text() == "kept"
