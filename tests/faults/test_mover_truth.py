"""What a mover must not believe: storage that changes a byte, and sources that are written to."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from dms_scheduler.movers import Compare, MoveResult, NativeMover, PartialFailure, Verify
from dms_scheduler.movers.results import Action
from tests.support.mover_process import until
from tests.support.trees import content_of
from tests.unit.movers.support import Place, Recorder, look, temporaries

# A copy of two mebibytes at this rate would take forty seconds: nobody waits for that, since the
# limit is lifted as soon as the byte is changed, and nothing can be done before it is.
SIZE, RATE = 2 << 20, 50_000


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A root in this test's own directory."""
    return Place(tmp_path)


def flip(path: Path, offset: int) -> None:
    """Change one bit and nothing else: neither size nor time."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


class Faulty(Recorder):
    """A storage that changes the first byte of the copies that are made on it, so many times."""

    def __init__(self, target: Path, times: int) -> None:
        super().__init__()
        self.bandwidth = RATE
        self._target = target
        self._left = times
        self._spoilt = target / "nothing yet"
        self._lock = threading.Lock()

    def check(self) -> None:
        super().check()
        with self._lock:
            if self._left and not self._spoilt.exists():
                self.bandwidth = RATE
                self._spoil()

    def _spoil(self) -> None:
        for path in self._target.glob(".dms-*"):
            with suppress(FileNotFoundError):  # finished or discarded at this moment
                if 0 < path.stat().st_size < SIZE:
                    flip(path, 0)
                    self._spoilt = path
                    self._left -= 1
                    self.bandwidth = 0
                    return


def test_a_byte_that_the_storage_changed_is_noticed_and_the_file_copied_again(place: Place) -> None:
    place.write("src/file", content_of(SIZE, 1))
    storage = Faulty(place.dst, 1)
    result = place.run(storage, verify=Verify.TRANSFERRED, bandwidth=RATE)
    assert look(place.dst) == look(place.src)
    assert result.totals.files == 1
    assert storage.reports[-1].bytes > SIZE  # it was moved twice, or the byte never changed


def test_a_storage_that_stays_faulty_fails_the_file(place: Place) -> None:
    place.write("src/file", content_of(SIZE, 1))
    place.write("dst/file", "old")
    storage = Faulty(place.dst, 2)
    with pytest.raises(PartialFailure) as caught:
        place.run(storage, verify=Verify.TRANSFERRED, bandwidth=RATE, retries=1)
    result = caught.value.result
    assert isinstance(result, MoveResult)
    assert [failed.error_class for failed in result.failed] == ["verify_mismatch"]
    assert result.totals.files == 0
    assert (place.dst / "file").read_text() == "old"
    assert not temporaries(place.root)
    failures = [entry for entry in storage.entries if entry.action is Action.FAILED]
    assert [(entry.path, entry.error_class) for entry in failures] == [("file", "verify_mismatch")]


def test_verify_none_does_not_look(place: Place) -> None:
    """The counterpart of the two above: without it they could pass by never changing a byte."""
    place.write("src/file", content_of(SIZE, 1))
    place.run(Faulty(place.dst, 1), verify=Verify.NONE, bandwidth=RATE)
    assert (place.dst / "file").read_bytes()[1:] == content_of(SIZE, 1)[1:]
    assert (place.dst / "file").read_bytes() != content_of(SIZE, 1)


@pytest.mark.parametrize("size", [1, 4096, 200_000, 3 << 20])
def test_a_byte_that_rotted_is_found_by_checksum_alone(place: Place, size: int) -> None:
    place.write("src/file", content_of(size, 1))
    place.write("src/other", content_of(size, 2))
    place.run()
    flip(place.dst / "file", random.Random(size).randrange(size))
    assert place.run().totals.files == 0  # same size, same time
    checked = place.plan(compare=Compare.CHECKSUM)
    assert [entry.path for entry in checked.sample] == ["file"]
    with pytest.raises(PartialFailure) as caught:
        place.run(verify=Verify.ALL)
    assert caught.value.result is not None
    assert [failed.path for failed in caught.value.result.failed] == ["file"]
    assert place.run(compare=Compare.CHECKSUM).totals.files == 1
    assert look(place.dst) == look(place.src)


def test_a_byte_that_rotted_is_found_by_check(place: Place) -> None:
    place.write("src/sub/file", content_of(200_000, 1))
    place.write("src/sub/other", content_of(200_000, 2))
    place.run()
    flip(place.dst / "sub/file", 123_456)
    recorder = Recorder()
    request = place.request(compare=Compare.CHECKSUM)
    result = NativeMover().check(request, recorder)
    assert (result.totals.differs, result.same) == (1, False)
    found = [(entry.action, entry.path, entry.reason) for entry in recorder.entries]
    assert found == [(Action.DIFFERS, "sub/file", "content")]
    assert NativeMover().check(place.request(compare=Compare.SIZE_MTIME), Recorder()).same


# --------------------------------------------------------------------------- sources that change
# A file consists of lines of 16 bytes that name a version, written from the beginning to the end:
# at each moment the newer lines come first. A copy in which an older line comes before a newer one
# was never the file: its beginning was read before a change, and the rest after it.
WRITER = """
import os, random, sys, time
folder, blocks, chance = sys.argv[1], int(sys.argv[2]), random.Random(int(sys.argv[3]))
names = sorted(name for name in os.listdir(folder) if not name.endswith(".new"))
version = int(sys.argv[4])
while os.getppid() == int(sys.argv[5]):
    version += 1
    time.sleep(0.02)  # else no file would ever stay as it is for long enough
    path = os.path.join(folder, chance.choice(names))
    data = b"%15d\\n" % version * 256
    how = chance.choice(["replace", "rewrite", "rewrite", "append"])
    if how == "replace":
        with open(path + ".new", "wb") as file:
            file.write(data * blocks)
        os.rename(path + ".new", path)
    elif how == "append":
        with open(path, "ab") as file:
            file.write(b"%15d\\n" % 0 * 256)
    else:
        with open(path, "r+b", buffering=0) as file:
            for _ in range(blocks):
                file.write(data)
"""
# A file takes a few chunks, with pauses between them.
BLOCKS, FILES, ROUNDS, SPEED = 128, 4, 4, 4 << 20


def was_ever(content: bytes) -> bool:
    """Whether the file had this content at any moment."""
    versions = [int(content[at : at + 16]) for at in range(0, len(content), 16)]
    return versions == sorted(versions, reverse=True)


@contextmanager
def writer(folder: Path, first: int) -> Generator[None]:
    """A program that writes to the files of the folder all the time, `first` being a version."""
    args = [str(folder), str(BLOCKS), str(first), str(first), str(os.getpid())]
    process = subprocess.Popen([sys.executable, "-c", WRITER, *args])
    try:
        before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
        until(lambda: any(_changed(path, time) for path, time in before.items()), "it writes")
        yield
        assert process.poll() is None, "it did not write all the time"
    finally:
        process.kill()
        process.wait()


def _changed(path: Path, time: int) -> bool:
    return path.exists() and path.stat().st_mtime_ns != time


@pytest.fixture
def fine_times(tmp_path: Path) -> None:
    """A file system whose times tell two writes apart, however soon the second comes."""
    with (tmp_path / "probe").open("wb", buffering=0) as file:
        file.write(b"1")
        first = os.fstat(file.fileno()).st_mtime_ns
        file.write(b"2")
        if os.fstat(file.fileno()).st_mtime_ns == first:
            pytest.skip("times are coarse here (Linux before 6.13): some writes leave no trace")


@pytest.mark.usefixtures("fine_times")
@pytest.mark.parametrize("verify", [Verify.NONE, Verify.TRANSFERRED])
def test_what_is_told_to_be_done_is_the_file_as_it_was_at_one_moment(
    place: Place, verify: Verify
) -> None:
    for number in range(FILES):
        place.write(f"src/file.{number}", (b"%15d\n" % 1) * 256 * BLOCKS)
    for attempt in range(1, ROUNDS + 1):
        with writer(place.src, attempt * 1_000_000):
            _sync(place, verify, attempt)
        for path in place.dst.iterdir():
            assert was_ever(path.read_bytes()), f"{path.name} never was like that"
        assert not temporaries(place.dst)
    place.run(exclude=("*.new",))
    for path in place.src.glob("*.new"):  # the writer was killed before its rename
        path.unlink()
    assert look(place.dst).keys() == look(place.src).keys()
    assert all(each.read_bytes() == (place.src / each.name).read_bytes() for each in files(place))


def files(place: Place) -> list[Path]:
    """The files at the destination."""
    return sorted(place.dst.iterdir())


def _sync(place: Place, verify: Verify, attempt: int) -> None:
    """Sync once; whatever fails must fail for having changed."""
    recorder = Recorder()
    with suppress(PartialFailure):
        place.run(
            recorder,
            verify=verify,
            retries=1,
            bandwidth=SPEED,
            task_id=f"t-{attempt}",
            exclude=("*.new",),
        )
    classes = {entry.error_class for entry in recorder.entries if entry.action is Action.FAILED}
    assert classes <= {"changed_during_copy"}
