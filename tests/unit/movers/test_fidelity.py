"""Fidelity: the table of docs/fidelity.md is true, and a run that is repeated does nothing."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dms_scheduler.movers import (
    Action,
    Cancelled,
    Compare,
    Fsync,
    MoveResult,
    Overwrite,
    PartialFailure,
    Preserve,
    Verify,
)
from tests.unit.movers import fidelity
from tests.unit.movers.support import NOBODY, Place, Recorder, as_nobody, temporaries

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="owners, devices, trusted.*: needs root")


@as_root
@pytest.mark.parametrize("column", fidelity.COLUMNS)
def test_the_documented_table_is_true(tmp_path: Path, column: str) -> None:
    if fidelity.missing(column):
        pytest.skip(f"{column}: not installed here")
    found = fidelity.fill(column, tmp_path)
    documented = fidelity.documented()[column]
    assert set(documented) == {row.title for row in fidelity.ROWS}
    assert found == {title: documented[title] for title in found}
    assert len(found) > len(documented) / 2  # what this file system cannot hold is left out


def test_the_table_can_be_written_as_it_is_read() -> None:
    table = fidelity.documented()
    assert list(table) == list(fidelity.COLUMNS)
    assert fidelity.render(table) in fidelity.DOCUMENT.read_text()


@contextmanager
def fresh_root() -> Generator[Path]:
    root = Path(tempfile.mkdtemp(prefix="dms-test-"))
    try:
        yield root
    finally:
        shutil.rmtree(os.fsencode(root))


# The flag keeps its file from being removed, and the deep one is too deep for `rmtree`.
SOME_OF_EACH = tuple(
    row for row in fidelity.ROWS if "immutable" not in row.title and "4096" not in row.title
)


def grow(source: Path) -> None:
    """Make one of each kind that this user and file system can have."""
    for number, row in enumerate(SOME_OF_EACH):
        folder = source / str(number)
        folder.mkdir()
        try:
            row.build(os.fsencode(folder))
        except OSError:
            continue
    os.utime(source, ns=(5, 5))


def stamps(top: Path) -> dict[bytes, tuple[int, int]]:
    """Return inode and time of any change of every entry, the top included."""
    seen: dict[bytes, tuple[int, int]] = {}
    for folder, directories, files in os.walk(os.fsencode(top)):
        for path in (folder, *(os.path.join(folder, name) for name in (*directories, *files))):
            status = os.lstat(path)
            seen[path] = (status.st_ino, status.st_ctime_ns)
    return seen


PRESERVED = st.sets(st.sampled_from(sorted(Preserve))).map(frozenset)


@given(
    preserve=PRESERVED,
    compare=st.sampled_from(Compare),
    overwrite=st.sampled_from(Overwrite),
    verify=st.sampled_from(Verify),
    delete=st.booleans(),
)
@settings(max_examples=40)
def test_a_run_that_is_repeated_changes_nothing(
    preserve: frozenset[Preserve],
    compare: Compare,
    overwrite: Overwrite,
    verify: Verify,
    *,
    delete: bool,
) -> None:
    if compare is Compare.SIZE_MTIME and overwrite is not Overwrite.NEVER:
        preserve |= {Preserve.MTIME}  # without it everything differs, as documented
    if overwrite is Overwrite.NEWER and compare is not Compare.EXISTS:
        preserve |= {Preserve.MTIME}
    with fresh_root() as root:
        place = Place(root)
        grow(place.src)
        options: dict[str, Any] = {
            "fsync": Fsync.NONE,
            "preserve": preserve,
            "compare": compare,
            "overwrite": overwrite,
            "verify": verify,
            "delete": delete,
        }
        place.run(**options)
        before = stamps(place.dst)
        recorder = Recorder()
        again = place.run(recorder, **options).totals
        assert (again.files, again.links, again.hardlinks, again.updated) == (0, 0, 0, 0)
        assert (again.dirs, again.deleted, again.bytes) == (0, 0, 0)
        assert stamps(place.dst) == before
        assert {entry.action for entry in recorder.entries} <= {Action.SPECIAL}


NAMES = "abcdefg"
SIDE = st.dictionaries(
    st.sampled_from(NAMES),
    st.tuples(st.integers(0, 2), st.integers(0, 1)),
    max_size=len(NAMES),
)


def lay(folder: Path, side: dict[str, tuple[int, int]]) -> None:
    """Make files whose names share an inode where the first number is the same; the second, of
    the first name, says what it holds and how old it is."""
    folder.mkdir(exist_ok=True)
    first: dict[int, Path] = {}
    for name, (group, content) in side.items():
        (folder / name[0]).mkdir(exist_ok=True)
        path = folder / name[0] / name
        if group in first:
            os.link(first[group], path)
        else:
            path.write_text(str(content))
            os.utime(path, ns=(content, 10 + content))
            first[group] = path


def families(folder: Path) -> set[frozenset[str]]:
    """Return the sets of names that are one file."""
    found: dict[int, set[str]] = {}
    for path in folder.glob("*/*"):
        found.setdefault(path.lstat().st_ino, set()).add(path.name)
    return {frozenset(names) for names in found.values()}


def contents(folder: Path) -> dict[str, tuple[str, int]]:
    return {path.name: (path.read_text(), path.stat().st_mtime_ns) for path in folder.glob("*/*")}


@given(
    source=SIDE,
    target=SIDE,
    compare=st.sampled_from([Compare.SIZE_MTIME, Compare.CHECKSUM]),
    overwrite=st.sampled_from(Overwrite),
)
@settings(max_examples=80)
def test_names_of_one_file_stay_together_whatever_was_there(
    source: dict[str, tuple[int, int]],
    target: dict[str, tuple[int, int]],
    compare: Compare,
    overwrite: Overwrite,
) -> None:
    with fresh_root() as root:
        place = Place(root)
        lay(place.src, source)
        lay(place.dst, target)
        had, wanted = contents(place.dst), contents(place.src)
        options: dict[str, Any] = {
            "fsync": Fsync.NONE,
            "preserve": frozenset({Preserve.MTIME, Preserve.MODE, Preserve.HARDLINKS}),
            "compare": compare,
            "overwrite": overwrite,
        }
        plan = place.plan(**options).totals
        done = place.run(**options).totals
        assert (plan.files, plan.hardlinks, plan.updated, plan.skipped) == (
            done.files,
            done.hardlinks,
            done.updated,
            done.skipped,
        )
        have = contents(place.dst)
        for name, entry in wanted.items():
            keeps = name in had and (
                overwrite is Overwrite.NEVER
                or (overwrite is Overwrite.NEWER and had[name][1] > entry[1])
            )
            assert have[name] == (had[name] if keeps else entry)
        assert all(have[name] == entry for name, entry in had.items() if name not in wanted)
        if overwrite is Overwrite.ALWAYS:
            for family in families(place.src):
                assert any(family <= found for found in families(place.dst))
        before = stamps(place.dst)
        again = place.run(**options).totals
        assert (again.files, again.hardlinks, again.updated) == (0, 0, 0)
        assert stamps(place.dst) == before
        assert not temporaries(place.root)


def test_a_link_is_not_made_to_what_could_not_be_copied(open_place: Place) -> None:
    if os.geteuid() != 0:
        pytest.skip("makes a file that the mover's user may not read: needs root")
    first = open_place.write("src/a", "new1", mtime=20)
    os.link(first, open_place.src / "b")
    first.chmod(0o600)
    for name in ("a", "b"):
        file = open_place.write(f"dst/{name}", "old1", mtime=10)
        os.chown(file, NOBODY, NOBODY)
    recorder = Recorder()
    with as_nobody(), pytest.raises(PartialFailure):
        open_place.run(recorder, preserve=frozenset(Preserve) - {Preserve.OWNER})
    failed = [entry for entry in recorder.entries if entry.action is Action.FAILED]
    assert {entry.path for entry in failed} == {"a", "b"}
    assert [entry.error_class for entry in failed] == ["permission_denied", "hardlink_not_made"]
    assert len(recorder.entries) == 2
    assert {(open_place.dst / name).read_text() for name in ("a", "b")} == {"old1"}


def test_stopped_anywhere_a_rerun_brings_the_families_together(tmp_path: Path) -> None:
    for at in itertools.count(1):
        root = tmp_path / str(at)
        root.mkdir()
        place = Place(root)
        lay(place.src, {"a": (0, 0), "b": (0, 0), "c": (1, 1), "d": (0, 0), "e": (1, 1)})
        lay(place.dst, {"a": (0, 1), "b": (1, 1), "c": (0, 1), "d": (2, 0)})
        stopped = False

        def stop(count: int, at: int = at) -> None:
            if count >= at:
                raise Cancelled("stop")

        options: dict[str, Any] = {"preserve": frozenset(Preserve), "fsync": Fsync.NONE}
        try:
            place.run(Recorder(stop), **options)
        except Cancelled:
            stopped = True
            assert not temporaries(place.root)
            place.run(epoch=2, **options)
        assert contents(place.dst) == contents(place.src)
        assert families(place.dst) == families(place.src)
        if not stopped:
            break


def test_what_cannot_be_given_fails_its_own_path_alone(open_place: Place) -> None:
    if os.geteuid() != 0:
        pytest.skip("makes a file of another user: needs root")
    theirs = open_place.write("src/theirs", "1")
    mine = open_place.write("src/mine", "2")
    os.chown(theirs, 1234, 1234)
    os.chown(mine, NOBODY, NOBODY)
    for path in (open_place.src, open_place.dst):
        os.chown(path, NOBODY, NOBODY)
    with as_nobody(), pytest.raises(PartialFailure) as caught:
        open_place.run(preserve=frozenset(Preserve))
    result = caught.value.result
    assert isinstance(result, MoveResult)
    assert [(f.path, f.error_class) for f in result.failed] == [("theirs", "owner_not_permitted")]
    assert not caught.value.retryable
    assert os.listdir(open_place.dst) == ["mine"]


def test_attributes_that_changed_alone_are_set_in_place(place: Place) -> None:
    file, folder = place.write("src/folder/file"), place.src / "folder"
    preserve = frozenset(Preserve)
    place.run(preserve=preserve)
    before = (place.dst / "folder/file").stat().st_ino
    for path in (file, folder):
        try:
            os.setxattr(path, "user.name", b"value")
        except OSError:
            pytest.skip("this file system keeps no extended attributes")
    totals = place.run(preserve=preserve).totals
    assert (totals.files, totals.updated) == (0, 1)
    for name in ("folder", "folder/file"):
        assert os.getxattr(place.dst / name, "user.name") == b"value"
    assert (place.dst / "folder/file").stat().st_ino == before
    os.removexattr(folder, "user.name")
    assert place.run(preserve=preserve).totals.updated == 0  # directories are not counted
    assert os.listxattr(place.dst / "folder") == []
    os.setxattr(place.dst / "folder/file", "user.extra", b"too much")
    assert place.run(preserve=preserve).totals.updated == 1
    assert os.listxattr(place.dst / "folder/file") == ["user.name"]


def test_a_name_on_another_file_system_gets_a_copy_once(place: Place) -> None:
    other = place.dst / "other"
    other.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "dms-test", str(other)]
    done = subprocess.run(mount, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.decode().strip()}")
    try:
        place.write("src/a", "data")
        (place.src / "other").mkdir()
        for name in ("other/b", "other/c", "d"):
            os.link(place.src / "a", place.src / name)
        options: dict[str, Any] = {"preserve": frozenset(Preserve)}
        place.run(**options)
        assert {path.read_text() for path in place.dst.rglob("?")} == {"data"}
        assert (place.dst / "d").samefile(place.dst / "a")
        before = stamps(place.dst)
        assert place.plan(**options).totals.hardlinks == 0
        assert place.run(**options).totals.skipped == 4
        assert stamps(place.dst) == before
    finally:
        subprocess.run(["umount", "-l", str(other)], check=True)


@pytest.mark.parametrize("verify", Verify)
def test_a_terabyte_of_hole_is_moved_and_verified_without_being_read(
    place: Place, verify: Verify
) -> None:
    size = 1 << 40
    with (place.src / "disk").open("wb") as file:
        file.truncate(size)
        file.seek(size // 3)
        file.write(b"island")
    if (place.src / "disk").stat().st_blocks * 512 > 1 << 20:
        pytest.skip("this file system stores holes")
    result = place.run(preserve=frozenset(Preserve), verify=verify)
    assert result.totals.bytes == size
    assert (place.dst / "disk").stat().st_blocks * 512 <= 1 << 20
    with (place.dst / "disk").open("rb") as file:
        file.seek(size // 3)
        assert file.read(7) == b"island\0"
    again = place.run(preserve=frozenset(Preserve), verify=verify, compare=Compare.CHECKSUM)
    assert again.totals.files == 0
