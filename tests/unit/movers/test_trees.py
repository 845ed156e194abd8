"""Whole trees: whatever they hold, the destination is the same afterwards."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, example, given, settings

from dms_scheduler.movers import Cancelled, Compare, Overwrite, PartialFailure, Symlinks, Verify
from tests.unit.movers.forest import TREES, File, Folder, Link, Node
from tests.unit.movers.support import Look, Place, Recorder, as_nobody, look, temporaries

MIRROR: dict[str, Any] = {"delete": True, "allow_empty_src": True, "backup_deleted": False}
SET_ID = stat.S_ISUID | stat.S_ISGID


@contextmanager
def grown(source: Node, target: Node | None = None) -> Generator[Place]:
    """Build one or two trees in a fresh root."""
    root = Path(tempfile.mkdtemp(prefix="dms-test-"))
    try:
        place = Place(root)
        place.src.rmdir()
        source.build(os.fsencode(place.src))
        if target:
            target.build(os.fsencode(place.dst))
        yield place
    finally:
        shutil.rmtree(os.fsencode(root))


def without_set_id(seen: dict[bytes, Look]) -> dict[bytes, Look]:
    """Return what a destination must look like: the same, without setuid and setgid."""
    stripped: dict[bytes, Look] = {}
    for path, (kind, mode, *rest) in seen.items():
        assert isinstance(mode, int)
        stripped[path] = (kind, mode & ~SET_ID, *rest)
    return stripped


@given(source=TREES, target=TREES)
@example(
    source=Folder({b"a": File(b"1", 0o644, 5), b"b": Folder({}, 0o755, 7)}, 0o755, 1),
    target=Folder({b"a": Folder({b"x": Link(b"y", 3)}, 0o755, 1), b"b": Link(b"a", 2)}, 0o755, 1),
)
@settings(max_examples=60)
def test_a_mirror_is_equal_whatever_was_there_before(source: Folder, target: Folder) -> None:
    with grown(source, target) as place:
        before = look(place.src)
        place.run(verify=Verify.ALL, **MIRROR)
        assert look(place.src) == before
        assert look(place.dst) == without_set_id(before)
        again = place.run(**MIRROR).totals
        assert (again.files, again.links, again.deleted, again.dirs, again.updated) == (0,) * 5
        assert look(place.dst) == without_set_id(before)


@given(source=TREES, target=TREES)
@settings(max_examples=60)
def test_without_delete_nothing_else_is_touched(source: Folder, target: Folder) -> None:
    with grown(source, target) as place:
        wanted, had = without_set_id(look(place.src)), look(place.dst)
        try:
            place.run()
        except PartialFailure as error:
            event("conflict")
            failed = error.result.failed if error.result else ()
        else:
            failed = ()
        assert {failure.error_class for failure in failed} <= {"type_conflict"}
        blocked = {os.fsencode(failure.path) for failure in failed}
        have = look(place.dst)
        for path, entry in had.items():
            if path not in wanted:
                assert have[path] == entry
        for path, entry in wanted.items():
            if not any(path == top or path.startswith(top + b"/") for top in blocked):
                assert have[path] == entry
        assert not temporaries(place.root)


@given(source=TREES, target=TREES)
@settings(max_examples=40)
def test_a_plan_tells_what_a_run_does_and_writes_nothing(source: Folder, target: Folder) -> None:
    with grown(source, target) as place:
        before = look(place.root)
        plan = place.plan(**MIRROR)
        assert look(place.root) == before
        result = place.run(**MIRROR)
        for count in ("files", "bytes", "skipped", "updated", "links", "dirs", "deleted"):
            assert getattr(plan.totals, count) == getattr(result.totals, count), count


@given(source=TREES, target=TREES)
@settings(max_examples=30)
def test_stopped_at_any_check_it_leaves_no_temporary_file_and_a_rerun_completes(
    source: Folder, target: Folder
) -> None:
    with grown(source, target) as place:
        stop_at = 1

        def stop(count: int) -> None:
            if count >= stop_at:
                raise Cancelled("stop")

        while True:
            recorder = Recorder(stop)
            try:
                place.run(recorder, **MIRROR)
                break
            except Cancelled:
                assert not temporaries(place.root)
            stop_at += max(1, stop_at // 2)
        assert look(place.dst) == without_set_id(look(place.src))


def test_a_missing_destination_is_made_with_its_parents(place: Place) -> None:
    place.write("src/a/b.txt", "hello")
    place.run(dst=place.root / "deep" / "er" / "dst")
    assert look(place.root / "deep/er/dst") == look(place.src)


def test_a_rerun_skips_what_is_done_and_takes_what_changed(place: Place) -> None:
    place.write("src/same", "1")
    changed = place.write("src/changed", "22", mtime=1_000_000_001)
    assert place.run().totals.files == 2
    changed.write_text("33")
    os.utime(changed, ns=(1_000_000_001, 1_000_000_002))  # one nanosecond is a change
    totals = place.run().totals
    assert (totals.files, totals.skipped, totals.bytes) == (1, 1, 2)
    assert (place.dst / "changed").read_text() == "33"


def test_a_mode_alone_is_updated_in_place(place: Place) -> None:
    file = place.write("src/tool", "#!")
    place.run()
    inode = (place.dst / "tool").stat().st_ino
    file.chmod(0o700)
    totals = place.run().totals
    assert (totals.files, totals.updated) == (0, 1)
    assert (place.dst / "tool").stat().st_ino == inode
    assert look(place.dst) == look(place.src)


def test_attributes_of_a_file_with_other_names_are_not_changed(place: Place) -> None:
    file = place.write("src/tool", "#!")
    place.run()
    elsewhere = place.root / "elsewhere"
    os.link(place.dst / "tool", elsewhere)
    before = elsewhere.stat().st_mode
    file.chmod(0o700)
    place.run()
    assert elsewhere.stat().st_mode == before
    assert look(place.dst) == look(place.src)


@pytest.mark.parametrize(
    ("compare", "copied"),
    [
        (Compare.EXISTS, set[str]()),
        (Compare.SIZE, {"size"}),
        (Compare.SIZE_MTIME, {"size", "time"}),
        (Compare.CHECKSUM, {"size", "content"}),
    ],
)
def test_compare_says_what_is_copied(place: Place, compare: Compare, copied: set[str]) -> None:
    for name, old, new, when in (
        ("same", "abc", "abc", 5),
        ("size", "abc", "abcd", 5),
        ("time", "abc", "abc", 6),
        ("content", "abc", "xyz", 5),
    ):
        place.write(f"src/{name}", new, mtime=when)
        place.write(f"dst/{name}", old, mtime=5)
    inodes = {
        name: (place.dst / name).stat().st_ino for name in ("same", "size", "time", "content")
    }
    place.run(compare=compare)
    now = {name: (place.dst / name).stat().st_ino for name in inodes}
    assert {name for name in inodes if now[name] != inodes[name]} == copied


def test_checksum_gives_a_file_of_the_same_content_its_time(place: Place) -> None:
    place.write("src/a", "abc", mtime=6)
    place.write("dst/a", "abc", mtime=5)
    totals = place.run(compare=Compare.CHECKSUM).totals
    assert (totals.files, totals.updated) == (0, 1)
    assert look(place.dst) == look(place.src)


@pytest.mark.parametrize(
    ("overwrite", "replaced"),
    [
        (Overwrite.ALWAYS, {"older", "newer"}),
        (Overwrite.NEVER, set[str]()),
        (Overwrite.NEWER, {"older"}),
    ],
)
def test_overwrite_says_what_is_replaced(
    place: Place, overwrite: Overwrite, replaced: set[str]
) -> None:
    for name, when in (("older", 5), ("newer", 15)):
        place.write(f"src/{name}", "source", mtime=10)
        place.write(f"dst/{name}", "target", mtime=when)
    place.write("src/missing", "source")
    place.run(overwrite=overwrite)
    now = {name for name in ("older", "newer") if (place.dst / name).read_text() == "source"}
    assert now == replaced
    assert (place.dst / "missing").exists()


def test_never_overwriting_leaves_directories_as_they_are_too(place: Place) -> None:
    place.write("src/old/a")
    place.write("src/new/a")
    place.write("dst/old/b")
    for folder in (place.src / "old", place.src / "new"):
        folder.chmod(0o711)
        os.utime(folder, ns=(5, 5))
    place.run(overwrite=Overwrite.NEVER)
    made, kept = (place.dst / "new").stat(), (place.dst / "old").stat()
    assert (made.st_mode & 0o777, made.st_mtime_ns) == (0o711, 5)
    assert kept.st_mode & 0o777 == 0o755
    assert kept.st_mtime_ns != 5


def test_links_can_be_skipped_and_special_files_always_are(place: Place) -> None:
    place.write("src/file")
    (place.src / "link").symlink_to("file")
    os.mkfifo(place.src / "fifo")
    totals = place.run(symlinks=Symlinks.SKIP).totals
    assert (totals.files, totals.links, totals.skipped, totals.special) == (1, 0, 1, 1)
    assert os.listdir(place.dst) == ["file"]


def test_attributes_are_preserved_only_if_asked_for(place: Place) -> None:
    file = place.write("src/a/b", mtime=1_000)
    file.chmod(0o741)
    place.run(preserve=frozenset())
    status = (place.dst / "a/b").stat()
    assert status.st_mtime_ns != 1_000
    assert stat.S_IMODE(status.st_mode) & 0o111 == 0


def test_patterns_select(place: Place) -> None:
    for name in ("a.txt", "b.log", "keep/c.txt", "keep/d.bin", "tmp/e.txt", "empty/f.bin"):
        place.write(f"src/{name}")
    place.run(include=("*.txt",), exclude=("tmp/",))
    assert set(look(place.dst)) == {b"a.txt", b"keep", b"keep/c.txt"}


def test_a_rerun_after_a_read_only_directory_succeeds(open_place: Place) -> None:
    folder = open_place.src / "locked"
    with as_nobody():
        folder.mkdir()
        (folder / "a").write_text("1")
        folder.chmod(0o500)
        open_place.run()
        folder.chmod(0o700)
        (folder / "b").write_text("2")
        folder.chmod(0o500)
        open_place.run()
    assert look(open_place.dst) == look(open_place.src)


def test_many_files_in_parallel_are_equal(place: Place) -> None:
    for number in range(300):
        place.write(f"src/{number % 7}/{number}.bin", os.urandom(number * 37))
    recorder = Recorder()
    result = place.run(recorder, transfers=16)
    assert result.totals.files == 300
    assert look(place.dst) == look(place.src)
    last = recorder.reports[-1]
    assert (last.files, last.bytes) == (300, last.total_bytes)
    assert [report.bytes for report in recorder.reports] == sorted(
        r.bytes for r in recorder.reports
    )
