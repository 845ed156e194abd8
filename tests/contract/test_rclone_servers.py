"""The rclone engine against real servers: S3, SFTP and WebDAV, all served by rclone on loopback."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

from dms_scheduler.movers import (
    Compare,
    MoveResult,
    Overwrite,
    PartialFailure,
    Phase,
    Preserve,
    Progress,
    Refused,
    Symlinks,
    Verify,
)
from tests.contract.rclone_place import KINDS, Scene, contents, lines
from tests.unit.movers.support import Recorder


@pytest.mark.parametrize("kind", KINDS)
def test_a_tree_goes_there_once(scene: Scene, kind: str) -> None:
    scene.fill()
    os.mkfifo(scene.src / "fifo")
    planned, done, again = Recorder(), Recorder(), Recorder()
    plan = scene.plan(scene.src, scene.remote(kind), planned)
    assert not scene.store(kind).exists()
    result = scene.run(scene.src, scene.remote(kind), done)
    assert lines(planned) == lines(done)
    assert plan.totals == result.totals
    assert (result.totals.files, result.totals.links, result.totals.special) == (64, 2, 1)
    stored = contents(scene.store(kind))
    assert stored.pop(b"link.rclonelink") == b"many/00"
    assert stored.pop(b"dangling.rclonelink") == b"/no/such/file"
    assert stored == {
        path: value for path, value in contents(scene.src).items() if b"link" not in path
        and path != b"dangling"
    }  # fmt: skip
    second = scene.run(scene.src, scene.remote(kind), again)
    assert lines(again) == {("special", "fifo", None)}
    assert (second.totals.files, second.totals.bytes, second.totals.skipped) == (0, 0, 66)
    looked = Recorder()
    checked = scene.check(scene.src, scene.remote(kind), looked, compare=Compare.CHECKSUM)
    assert (checked.same, checked.totals.special) == (True, 1)
    assert [entry.path for entry in looked.entries] == ["fifo"]


def test_a_round_trip_over_all_of_them_is_equal(scene: Scene) -> None:
    scene.fill()
    scene.run(scene.src, scene.remote("s3"))
    scene.run(scene.remote("s3"), scene.remote("sftp"))
    scene.run(scene.remote("sftp"), scene.remote("webdav"))
    for kind in KINDS:
        back = scene.root / f"back-{kind}"
        planned, done = Recorder(), Recorder()
        scene.plan(scene.remote(kind), back, planned)
        assert not back.exists()
        scene.run(scene.remote(kind), back, done)
        assert lines(planned) == lines(done)
        assert contents(back) == contents(scene.src)
        if kind != "webdav":  # it keeps no times
            assert (back / "big").stat().st_mtime_ns == 10**18
        again = scene.run(scene.remote(kind), back)
        assert (again.totals.files, again.totals.links) == (0, 0)


@pytest.mark.parametrize(
    ("kind", "backup"), [("s3", True), ("sftp", True), ("webdav", True), ("sftp", False)]
)
def test_what_the_source_lacks_is_deleted(scene: Scene, kind: str, backup: bool) -> None:
    scene.fill()
    scene.run(scene.src, scene.remote(kind))
    (scene.src / "many" / "07").unlink()
    (scene.src / "link").unlink()
    for file in (scene.src / "odd").iterdir():
        file.unlink()
    (scene.src / "odd").rmdir()
    scene.write("new")
    planned, done = Recorder(), Recorder()
    options: dict[str, Any] = {"delete": True, "backup_deleted": backup}
    plan = scene.plan(scene.src, scene.remote(kind), planned, **options)
    result = scene.run(scene.src, scene.remote(kind), done, **options)
    assert lines(planned) == lines(done)
    assert plan.totals.deleted == result.totals.deleted == 9 + (kind != "s3")
    kept = scene.store(kind) / ".dms-deleted" / "t-1.1"
    assert kept.exists() is backup
    if backup:
        assert (kept / "odd" / "한글 이름.txt").read_text() == "한글 이름.txt"
        assert len(contents(kept)) == 9
    back = scene.root / "back"
    scene.run(scene.remote(kind), back)
    assert contents(back) == contents(scene.src)
    again = scene.run(scene.src, scene.remote(kind), **options)
    assert (again.totals.files, again.totals.deleted) == (0, 0)


def test_a_mirror_to_local_files_deletes_and_keeps(scene: Scene) -> None:
    scene.fill()
    scene.run(scene.src, scene.remote("s3"))
    dst = scene.root / "dst"
    (dst / "old folder").mkdir(parents=True)
    (dst / "old folder" / "old").write_text("old")
    (dst / ".dms-deleted" / "t-0.1").mkdir(parents=True)
    (dst / ".dms-deleted" / "t-0.1" / "older").write_text("older")
    result = scene.run(scene.remote("s3"), dst, delete=True)
    assert result.totals.deleted == 2
    assert (dst / ".dms-deleted" / "t-1.1" / "old folder" / "old").read_text() == "old"
    assert (dst / ".dms-deleted" / "t-0.1" / "older").read_text() == "older"
    assert not (dst / "old folder").exists()


@pytest.mark.parametrize("kind", ["s3", "sftp"])
def test_a_deletion_that_was_not_meant_is_refused(scene: Scene, kind: str) -> None:
    for number in range(5):
        scene.write(str(number))
    there = scene.remote(kind)
    scene.run(scene.src, there)
    before = contents(scene.store(kind))
    scene.write("new")
    for number in range(4):
        (scene.src / str(number)).unlink()
    with pytest.raises(Refused) as caught:
        scene.run(scene.src, there, delete=True, max_delete=3)
    assert caught.value.error_class == "max_delete"
    empty = scene.root / "empty"
    empty.mkdir()
    with pytest.raises(Refused) as caught:
        scene.run(empty, there, delete=True)
    assert caught.value.error_class == "empty_source"
    assert contents(scene.store(kind)) == before
    scene.run(empty, there, delete=True, allow_empty_src=True, backup_deleted=False)
    assert not contents(scene.store(kind))


@pytest.mark.parametrize("path", ["sftp:", "sftp:/", "sftp:.", "sftp:/./", "s3:", "webdav://"])
def test_the_top_of_a_remote_is_never_deleted_from(scene: Scene, path: str) -> None:
    scene.write("a")
    with pytest.raises(Refused) as caught:
        scene.run(scene.src, path, delete=True)
    assert caught.value.error_class == "root_refused"
    with pytest.raises(Refused) as caught:
        scene.remove(path, recursive=True)
    assert caught.value.error_class == "root_refused"


def test_a_bucket_is_never_removed(scene: Scene) -> None:
    for path in ("s3:bucket", "s3:/bucket/", "s3:bucket/."):
        with pytest.raises(Refused) as caught:
            scene.remove(path, recursive=True)
        assert caught.value.error_class == "root_refused"
    assert scene.remotes.servers["s3"].top.joinpath("bucket").is_dir()


@pytest.mark.parametrize("kind", ["s3", "sftp"])
def test_removing(scene: Scene, kind: str) -> None:
    scene.fill()
    scene.run(scene.src, scene.remote(kind))
    with pytest.raises(Refused) as caught:
        scene.remove(scene.remote(kind, "many"))
    assert caught.value.error_class == "not_empty"
    with pytest.raises(Refused) as caught:
        scene.remove(scene.remote(kind, "many"), recursive=True, max_delete=54)
    assert caught.value.error_class == "max_delete"
    planned, done = Recorder(), Recorder()
    scene.remove(scene.remote(kind, "many"), planned, recursive=True, dry_run=True)
    assert scene.store(kind, "many", "54").exists()
    result = scene.remove(scene.remote(kind, "many"), done, recursive=True)
    assert isinstance(result, MoveResult)
    assert result.totals.deleted == 55 + (kind != "s3")
    assert lines(planned) == lines(done)
    whole = ["many"] if kind == "sftp" else []  # S3 has no folders
    expected = sorted([*(f"many/{number:02}" for number in range(55)), *whole])
    assert sorted(line.path for line in done.entries) == expected
    assert not scene.store(kind, "many").exists()
    with pytest.raises(Refused) as caught:
        scene.remove(scene.remote(kind, "many"), recursive=True)
    assert caught.value.error_class == "not_found"
    assert scene.remove(scene.remote(kind, "many"), recursive=True, epoch=2).totals.deleted == 0


@pytest.mark.parametrize("kind", ["s3", "sftp"])
def test_removing_with_a_backup_and_patterns(scene: Scene, kind: str) -> None:
    scene.fill()
    scene.run(scene.src, scene.remote(kind))
    kept = scene.store(kind, ".dms-deleted", "t-1.1")
    scene.remove(scene.remote(kind, "big"), backup=True)
    assert (kept / "big").read_bytes() == (scene.src / "big").read_bytes()
    assert not scene.store(kind, "big").exists()
    scene.remove(scene.remote(kind, "many"), backup=True, recursive=True, include=("1*",))
    assert len(contents(kept / "many")) == 10
    assert len(contents(scene.store(kind, "many"))) == 45
    scene.remove(scene.remote(kind, "empty"))
    assert not scene.store(kind, "empty").exists()


@pytest.mark.parametrize("kind", ["s3", "sftp"])
def test_single_files(scene: Scene, kind: str) -> None:
    file = scene.write("한글 file", b"x" * 100)
    scene.run(file, scene.remote(kind, "sub", "other name"))
    scene.run(file, scene.remote(kind, "sub") + "/")
    assert contents(scene.store(kind, "sub")) == {
        b"other name": b"x" * 100,
        "한글 file".encode(): b"x" * 100,
    }
    scene.run(scene.remote(kind, "sub", "other name"), scene.root / "new" / "name")
    assert (scene.root / "new" / "name").read_bytes() == b"x" * 100
    scene.run(scene.remote(kind, "sub", "other name"), scene.root / "new")
    scene.run(scene.remote(kind, "sub", "other name"), f"{scene.root}/folder/")
    assert os.listdir(scene.root / "folder") == ["other name"]
    again = scene.run(scene.remote(kind, "sub", "other name"), scene.root / "new")
    assert (again.totals.files, again.totals.skipped) == (0, 1)
    with pytest.raises(Refused) as caught:
        scene.run(scene.remote(kind, "sub", "other name"), scene.root / "new", delete=True)
    assert caught.value.error_class == "bad_source"
    with pytest.raises(Refused) as caught:
        scene.run(scene.remote(kind, "nothing"), scene.root / "new")
    assert caught.value.error_class == "not_found"


@pytest.mark.parametrize("kind", ["s3", "webdav"])
def test_differences_are_found(scene: Scene, kind: str) -> None:
    scene.fill()
    there = scene.remote(kind)
    scene.run(scene.src, there)
    scene.write("many/01", "CONTENT 1")  # as long and as old as it was
    scene.write("many/02", "longer than it was")
    scene.write("added")
    (scene.src / "many" / "03").unlink()
    control = Recorder()
    result = scene.check(scene.src, there, control, compare=Compare.CHECKSUM)
    found = {(entry.action.value, entry.path, entry.reason) for entry in control.entries}
    assert found == {
        ("differs", "many/01", "content"),
        ("differs", "many/02", "size"),
        ("missing_dst", "added", None),
        ("missing_src", "many/03", None),
    }
    totals = result.totals
    assert (totals.differs, totals.missing_dst, totals.missing_src) == (2, 1, 1)
    assert (totals.same, result.same) == (63, False)
    by_size = scene.check(scene.src, there, compare=Compare.SIZE)
    assert (by_size.totals.differs, by_size.totals.same) == (1, 64)
    by_name = scene.check(scene.src, there, compare=Compare.EXISTS, one_way=True)
    assert (by_name.totals.differs, by_name.totals.missing_src) == (0, 0)
    scene.write("many/04", "content 4", mtime=5 * 10**17)
    by_time = scene.check(scene.src, there, compare=Compare.SIZE_MTIME)
    assert by_time.totals.differs == (1 if kind == "webdav" else 2)
    assert not scene.store(kind, "added").exists()


@pytest.mark.parametrize("verify", [Verify.TRANSFERRED, Verify.ALL])
@pytest.mark.parametrize("kind", ["s3", "webdav"])
def test_a_byte_that_changes_at_the_remote_is_found(
    scene: Scene, kind: str, verify: Verify
) -> None:
    """`all` reads what was there before too; the others are about what was copied alone."""
    scene.write("a", "aaaa")
    scene.run(scene.src, scene.remote(kind))
    stored = scene.store(kind, "a")
    times = stored.stat().st_mtime_ns
    stored.write_bytes(b"aaba")
    os.utime(stored, ns=(times, times))
    scene.write("b", "bbbb")
    if verify is Verify.ALL:
        with pytest.raises(PartialFailure) as caught:
            scene.run(scene.src, scene.remote(kind), verify=verify, compare=Compare.SIZE)
        assert isinstance(caught.value.result, MoveResult)
        assert [each.path for each in caught.value.result.failed] == ["a"]
        assert caught.value.result.failed[0].error_class == "verify_mismatch"
    else:
        scene.run(scene.src, scene.remote(kind), verify=verify, compare=Compare.SIZE)
    assert stored.read_bytes() == b"aaba"


def test_rules_for_what_is_there_already(scene: Scene) -> None:
    there, stored = scene.remote("sftp"), scene.store("sftp", "a")
    scene.write("a", "first")
    scene.run(scene.src, there)
    scene.write("a", "other", mtime=9 * 10**17)  # as long, but older
    scene.run(scene.src, there, overwrite=Overwrite.NEVER)
    scene.run(scene.src, there, overwrite=Overwrite.NEWER)
    scene.run(scene.src, there, compare=Compare.EXISTS)
    scene.run(scene.src, there, compare=Compare.SIZE)
    assert stored.read_text() == "first"
    updated = scene.run(scene.src, there, compare=Compare.CHECKSUM)
    assert (updated.totals.files, stored.read_text()) == (1, "other")
    scene.write("a", "other", mtime=10**18)
    control = Recorder()
    result = scene.run(scene.src, there, control)
    assert (result.totals.updated, result.totals.files) == (1, 0)
    assert lines(control) == {("update", "a", None)}
    assert stored.stat().st_mtime_ns == 10**18


def test_options_that_no_remote_can_fulfil_are_refused(scene: Scene) -> None:
    scene.write("a")
    for wish in (Preserve.OWNER, Preserve.XATTRS, Preserve.HARDLINKS, Preserve.SPARSE):
        with pytest.raises(Refused, match=wish.value) as caught:
            scene.run(scene.src, scene.remote("s3"), preserve=frozenset({wish}))
        assert caught.value.error_class == "unsupported_option"
    with pytest.raises(Refused) as caught:
        scene.run(scene.src, scene.remote("webdav"), compare=Compare.CHECKSUM)
    assert caught.value.error_class == "no_common_hash"


@pytest.mark.parametrize(
    "pair", [("a", "a"), ("a", "a/b"), ("a/b", "a"), ("", "a"), ("a", "/a/../a")]
)
def test_overlap_within_a_remote_is_refused(scene: Scene, pair: tuple[str, str]) -> None:
    with pytest.raises(Refused):
        scene.run(f"sftp:{pair[0]}", f"sftp:{pair[1]}")


def test_patterns_choose_and_protect(scene: Scene) -> None:
    scene.fill()
    there = scene.remote("sftp")
    scene.run(scene.src, there, include=("/odd", "1?"), exclude=("*.tmp",))
    assert len(contents(scene.store("sftp"))) == 16
    assert not scene.store("sftp", "odd", "x.tmp").exists()
    scene.store("sftp", "protected.tmp").write_text("x")
    (scene.src / "odd" / "-rf").unlink()
    result = scene.run(scene.src, there, delete=True, exclude=("*.tmp",))
    assert result.totals.deleted == 1
    assert scene.store("sftp", "protected.tmp").exists()


def test_links_may_be_left_out(scene: Scene) -> None:
    scene.fill()
    scene.run(scene.src, scene.remote("s3"), symlinks=Symlinks.SKIP)
    assert not [name for name in contents(scene.store("s3")) if b"link" in name]


def test_special_files_are_told(scene: Scene) -> None:
    scene.write("a")
    os.mkfifo(scene.src / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(scene.src / "sock"))
        control = Recorder()
        result = scene.run(scene.src, scene.remote("webdav"), control)
    assert result.totals.special == 2
    assert {line[1] for line in lines(control) if line[0] == "special"} == {"fifo", "sock"}


class Watching(Recorder):
    """Lifts the limit when a file was seen on its way, with all that there is to tell of it."""

    def progress(self, progress: Progress) -> None:
        super().progress(progress)
        if progress.active and progress.eta is not None and progress.speed > 0:
            self.bandwidth = 0


def test_progress_has_all_its_fields(scene: Scene) -> None:
    scene.write("big", os.urandom(4 << 20))
    control = Watching()
    scene.run(scene.src, scene.remote("sftp"), control, bandwidth=100_000)
    seen = [each for each in control.reports if each.phase is Phase.COPY]
    assert [each.bytes for each in seen] == sorted(each.bytes for each in seen)
    assert all(each.total_bytes == 4 << 20 for each in seen)
    on_its_way = [each for each in seen if each.active]
    assert on_its_way
    assert any(each.eta is not None and each.speed > 0 for each in on_its_way)
    assert {each.current for each in on_its_way} == {"big"}
    assert seen[-1].bytes == 4 << 20
