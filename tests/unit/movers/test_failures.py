"""What goes wrong while moving: full disks, missing rights, files in motion, faulty storage."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from dms_scheduler.movers import Compare, MoverError, NoSpace, PartialFailure, Verify, durable
from dms_scheduler.movers.native import content, spans
from tests.unit.movers.support import Place, Recorder, as_nobody, look, temporaries

MIB = 1 << 20


def failures(error: PartialFailure) -> dict[str, str]:
    assert error.result
    return {failure.path: failure.error_class for failure in error.result.failed}


@pytest.mark.root
def test_a_full_disk_ends_the_run_and_names_the_path(place: Place, small_disk: Path) -> None:
    for number in range(8):
        place.write(f"src/{number}", os.urandom(300_000))
    with pytest.raises(NoSpace) as caught:
        place.run(dst=small_disk / "dst", transfers=2)
    error = caught.value
    assert (error.error_class, error.retryable) == ("no_space", False)
    assert "retry the task" in str(error)
    assert error.result
    assert error.result.failed_count >= 1
    assert error.result.failed[0].path in {str(number) for number in range(8)}
    assert not temporaries(small_disk)
    source = look(place.src)
    assert all(entry == source[path] for path, entry in look(small_disk / "dst").items())


@pytest.mark.root
def test_space_for_a_directory_may_lack_too(place: Place, small_disk: Path) -> None:
    place.write("src/sub/a")
    dst = small_disk / "dst"
    dst.mkdir()

    def fill() -> None:
        for number in range(1000):
            (small_disk / str(number)).touch()

    with pytest.raises(OSError, match="No space"):
        fill()
    with pytest.raises(NoSpace, match="sub: No space"):
        place.run(dst=dst)


def test_what_may_not_be_read_fails_by_name_and_the_rest_is_done(open_place: Place) -> None:
    open_place.write("src/good").chmod(0o644)
    open_place.write("src/secret").chmod(0o000)
    open_place.write("src/closed/inner")
    (open_place.src / "closed").chmod(0o000)
    with as_nobody(), pytest.raises(PartialFailure) as caught:
        open_place.run()
    assert failures(caught.value) == {"secret": "permission_denied", "closed": "permission_denied"}
    assert not caught.value.retryable
    assert os.listdir(open_place.dst) == ["good"] or "good" in os.listdir(open_place.dst)
    assert not temporaries(open_place.dst)
    (open_place.src / "closed").chmod(0o755)


def test_what_may_not_be_written_fails_by_name(open_place: Place) -> None:
    open_place.write("src/a/file").chmod(0o644)
    open_place.write("src/b/file").chmod(0o644)
    for folder in ("src/a", "src/b"):
        (open_place.root / folder).chmod(0o755)
    (open_place.dst / "a").mkdir()
    (open_place.dst / "a").chmod(0o555)
    with as_nobody(), pytest.raises(PartialFailure) as caught:
        open_place.run()
    if os.geteuid() == 0:  # else the directory is this user's own, and is made writable
        assert failures(caught.value) == {"a/file": "permission_denied"}
    assert (open_place.dst / "b/file").exists()


def test_only_the_first_hundred_failures_are_named(place: Place) -> None:
    for number in range(120):
        place.write(f"src/{number}", "x")
        (place.dst / str(number)).mkdir(parents=True)
    with pytest.raises(PartialFailure) as caught:
        place.run()
    result = caught.value.result
    assert result
    assert (len(result.failed), result.failed_count) == (100, 120)
    assert {item.error_class for item in result.failed} == {"type_conflict"}
    assert caught.value.error_class == "partial_failure"


class Writer(Recorder):
    """Changes a source file while it is copied, a given number of times."""

    def __init__(self, file: Path, place: Place, times: int) -> None:
        super().__init__()
        self._file = file
        self._place = place
        self._left = times
        self._copies: set[bytes] = set()

    def check(self) -> None:
        super().check()
        copying = set(temporaries(self._place.dst)) if self._place.dst.exists() else set[bytes]()
        if self._left and copying - self._copies:
            self._copies |= copying
            self._left -= 1
            with self._file.open("ab") as file:
                file.write(b"more")


@pytest.mark.parametrize("verify", [Verify.NONE, Verify.TRANSFERRED])
def test_a_source_that_changes_once_is_copied_again(place: Place, verify: Verify) -> None:
    file = place.write("src/log", os.urandom(3 * MIB))
    result = place.run(Writer(file, place, 1), verify=verify)
    assert (result.totals.files, result.totals.bytes) == (1, 3 * MIB + 4)
    assert look(place.dst) == look(place.src)


def test_a_source_that_never_rests_fails_and_may_be_retried(place: Place) -> None:
    file = place.write("src/log", os.urandom(2 * MIB))
    place.write("src/other", "quiet")
    with pytest.raises(PartialFailure) as caught:
        place.run(Writer(file, place, 100), retries=1)
    assert failures(caught.value) == {"log": "changed_during_copy"}
    assert caught.value.retryable
    assert os.listdir(place.dst) == ["other"]


def flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("size", [1000, 20 * MIB])
def test_verify_catches_storage_that_writes_something_else(
    place: Place, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    place.write("src/file", os.urandom(size))
    old = place.write("dst/file", "what was there")
    write, write_at = content.write_all, spans.write_at

    def spoil(fd: int, data: bytes) -> None:
        write(fd, flip(data))

    def spoil_at(fd: int, data: bytes | memoryview, place: int) -> None:
        write_at(fd, memoryview(flip(bytes(data))), place)

    monkeypatch.setattr(content, "write_all", spoil)
    monkeypatch.setattr(spans, "write_at", spoil_at)
    with pytest.raises(PartialFailure) as caught:
        place.run(retries=1)
    assert failures(caught.value) == {"file": "verify_mismatch"}
    assert old.read_text() == "what was there"
    assert not temporaries(place.root)


def test_a_copy_that_went_wrong_once_is_made_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write("src/file", os.urandom(1000))
    write, spoiled = content.write_all, [True]

    def spoil_first(fd: int, data: bytes) -> None:
        write(fd, flip(data) if spoiled else data)
        spoiled.clear()

    monkeypatch.setattr(content, "write_all", spoil_first)
    recorder = Recorder()
    place.run(recorder)
    assert look(place.dst) == look(place.src)
    assert recorder.reports[-1].bytes == recorder.reports[-1].total_bytes == 2000


def test_verify_all_finds_damage_that_size_and_time_hide(place: Place) -> None:
    for name in ("good", "bad"):
        place.write(f"src/{name}", "abc")
    place.run()
    status = (place.dst / "bad").stat()
    (place.dst / "bad").write_text("xyz")
    os.utime(place.dst / "bad", ns=(status.st_atime_ns, status.st_mtime_ns))
    place.run(verify=Verify.TRANSFERRED)
    with pytest.raises(PartialFailure) as caught:
        place.run(verify=Verify.ALL)
    assert failures(caught.value) == {"bad": "verify_mismatch"}
    place.run(verify=Verify.ALL, compare=Compare.CHECKSUM)
    assert look(place.dst) == look(place.src)


def test_storage_that_cannot_be_flushed_is_no_success(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write("src/file")

    def broken(_: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(durable, "_syncfs", broken)
    with pytest.raises(MoverError) as caught:
        place.run()
    assert (caught.value.error_class, caught.value.retryable) == ("io_error", True)


def test_a_tree_that_is_too_deep_fails_by_name(place: Place) -> None:
    fd = os.open(place.src, os.O_RDONLY)
    for _ in range(320):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    with pytest.raises(PartialFailure) as caught:
        place.run()
    assert set(failures(caught.value).values()) == {"name_too_long"}
