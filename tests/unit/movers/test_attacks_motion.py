"""Sources that move, and destinations too small: whole or told, never half and silent."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from dms_scheduler.movers import (
    Compare,
    MoverError,
    NoSpace,
    PartialFailure,
    Preserve,
    Progress,
    Refused,
    Verify,
)
from tests.unit.movers.attacks import classes_of_failures
from tests.unit.movers.support import Place, Recorder, look, temporaries

MIB = 1 << 20


def test_a_source_that_is_emptied_after_the_plan(place: Place) -> None:
    """Only what was an extra when the plan was made may go."""
    for number in range(30):
        place.write(f"src/{number}", "data")
        place.write(f"dst/{number}", "data", mtime=number)
    place.write("dst/extra")

    class Emptied(Recorder):
        def log(self, message: str) -> None:
            super().log(message)
            if message.startswith("plan"):
                shutil.rmtree(place.src)
                place.src.mkdir()

    control = Emptied()
    with suppress(MoverError):
        place.run(control, delete=True, backup_deleted=False, transfers=1)
    assert any(line.startswith("plan") for line in control.lines)
    assert set(os.listdir(place.dst)) >= {str(number) for number in range(30)}


def test_an_empty_source_of_any_kind_deletes_nothing(place: Place) -> None:
    place.write("dst/precious")
    place.write("dst/deep/precious")
    before = look(place.dst)
    (place.src / "folder").mkdir()
    os.mkfifo(place.src / "folder" / "fifo")
    place.write("src/filtered")
    with pytest.raises(Refused) as caught:
        place.run(delete=True, exclude=("filtered",), max_delete=10_000)
    assert caught.value.error_class == "empty_source"
    assert look(place.dst) == before


@pytest.mark.parametrize("change", ["grows", "shrinks", "is truncated and written anew"])
def test_a_file_in_motion_is_whole_or_told(place: Place, change: str) -> None:
    file = place.write("src/moving", b"a" * MIB)
    stop = threading.Event()
    ready = threading.Event()
    seen: set[str] = set()

    def move() -> None:
        with file.open("r+b", buffering=0) as out:
            size, content = MIB, b"b"
            while not stop.is_set():
                if change == "grows":
                    os.pwrite(out.fileno(), b"x" * 4096, size)
                    size = min(size + 4096, 4 * MIB)
                elif change == "shrinks":
                    size = max(size - 4096, 0)
                    out.truncate(size)
                else:
                    out.truncate(0)
                    os.pwrite(out.fileno(), content * MIB, 0)
                    content = bytes([98 + content[0] % 20])
                ready.set()

    mover = threading.Thread(target=move)
    mover.start()
    try:
        ready.wait(60)
        for _ in range(5):
            seen |= classes_of_failures(lambda: place.run(retries=1, compare=Compare.CHECKSUM))
    finally:
        stop.set()
        mover.join()
    assert seen <= {"changed_during_copy", "verify_mismatch"}
    assert not temporaries(place.root)
    place.run(compare=Compare.CHECKSUM)
    assert (place.dst / "moving").read_bytes() == file.read_bytes()


@pytest.mark.root
@pytest.mark.parametrize("sparse", [True, False])
def test_a_huge_sparse_file_meets_a_small_disk(
    place: Place, small_disk: Path, sparse: bool
) -> None:
    """A file of a terabyte without any data: copied as such, or refused by the disk."""
    with (place.src / "huge").open("wb") as file:
        file.truncate(1 << 40 if sparse else 1 << 30)
        file.write(b"start")
    place.write("src/small", "data")
    preserve = frozenset({Preserve.MTIME, Preserve.SPARSE} if sparse else {Preserve.MTIME})
    with suppress(NoSpace, PartialFailure):
        place.run(dst=small_disk / "dst", preserve=preserve, verify=Verify.NONE, retries=0)
    assert not [name for _, _, names in os.walk(small_disk) for name in names if ".dms-" in name]
    if sparse and (small_disk / "dst" / "huge").exists():
        assert (small_disk / "dst" / "huge").stat().st_size == 1 << 40


def test_a_tree_that_is_very_deep(place: Place) -> None:
    """Deeper than descriptors and paths last: told, never half of it silently, and it can go."""
    fd = os.open(place.src, os.O_RDONLY)
    for _ in range(400):
        os.mkdir("d" * 40, dir_fd=fd)
        below = os.open("d" * 40, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    assert classes_of_failures(place.run) <= {"name_too_long"}


def test_who_is_told_of_progress_may_not_be_led_astray_by_names(place: Place) -> None:
    """`current` and `active` are names too."""
    for name in ("\x1b]0;title\x07", "line\nbreak"):
        place.write(f"src/{name}", os.urandom(100_000))
    seen: list[Progress] = []

    class Watching(Recorder):
        def progress(self, progress: Progress) -> None:
            seen.append(progress)

    place.run(Watching(), bandwidth=MIB)
    assert seen
    for progress in seen:
        assert "\x1b" not in str(progress.to_dict())
        assert "\n" not in str(progress.to_dict())


def test_a_destination_that_runs_full_keeps_what_it_had(place: Place, small_disk: Path) -> None:
    place.write("src/big", os.urandom(2 * MIB))
    dst = small_disk / "dst"
    dst.mkdir()
    (dst / "big").write_text("old")
    (dst / "extra").write_text("kept, for a run that fails deletes nothing")
    with pytest.raises(NoSpace) as caught:
        place.run(dst=dst, delete=True)
    assert caught.value.error_class == "no_space"
    assert (dst / "big").read_text() == "old"
    assert (dst / "extra").exists()
    assert not temporaries(small_disk)
    assert os.strerror(errno.ENOSPC) in str(caught.value)
