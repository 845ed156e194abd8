"""Every way to copy bytes gives the same bytes, also when a file system refuses the quick ones."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import xxhash

from dms_scheduler.movers.guard import Guard
from dms_scheduler.movers.native.content import copy_content
from dms_scheduler.movers.native.filecopy import FilePace
from dms_scheduler.movers.native.meter import Meter
from tests.unit.movers.support import Recorder

DATA = os.urandom(300_001)


def unsupported(*_: object) -> int:
    raise OSError(errno.EOPNOTSUPP, "not here")


def copy(tmp_path: Path, data: bytes, *, hashed: bool = False, size: int | None = None) -> bytes:
    (tmp_path / "source").write_bytes(data)
    source = os.open(tmp_path / "source", os.O_RDONLY)
    target = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        pace = FilePace(Guard(Recorder()), Meter(), None, 65_536)
        copied = copy_content(source, target, size or len(data), pace, hashed=hashed)
        assert copied.size == pace.moved
        if hashed:
            assert copied.digest == xxhash.xxh3_128(data[: copied.size]).digest()
    finally:
        os.close(source)
        os.close(target)
    return (tmp_path / "target").read_bytes()


@pytest.mark.parametrize("data", [b"", b"x", DATA])
@pytest.mark.parametrize("missing", [0, 1, 2])
def test_all_ways_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, missing: int
) -> None:
    for name in ("copy_file_range", "sendfile")[:missing]:
        monkeypatch.setattr(os, name, unsupported)
    assert copy(tmp_path, data) == data


def test_a_way_that_gives_up_in_the_middle_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole: Callable[[int, int, int, int, int], int] = os.copy_file_range
    calls: list[int] = []

    def fading(source: int, target: int, size: int, start: int, to: int) -> int:
        calls.append(size)
        return whole(source, target, size, start, to) if len(calls) < 3 else unsupported()

    monkeypatch.setattr(os, "copy_file_range", fading)
    assert copy(tmp_path, DATA) == DATA
    assert len(calls) == 3


def test_a_real_error_is_not_taken_for_a_missing_feature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(OSError, match="full"):
        copy(tmp_path, DATA)


def test_the_hash_is_of_what_was_read(tmp_path: Path) -> None:
    assert copy(tmp_path, DATA, hashed=True) == DATA


@pytest.mark.parametrize("hashed", [False, True])
def test_a_source_that_shrank_gives_fewer_bytes(tmp_path: Path, hashed: bool) -> None:
    assert copy(tmp_path, DATA, hashed=hashed, size=len(DATA) + 5000) == DATA


@pytest.mark.parametrize("hashed", [False, True])
def test_a_clone_counts_as_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hashed: bool
) -> None:
    """What btrfs and xfs do, on whatever file system this test runs."""

    def clone(target: int, _: int, source: int) -> int:
        return os.sendfile(target, source, 0, len(DATA))

    monkeypatch.setattr(fcntl, "ioctl", clone)
    monkeypatch.setattr(os, "copy_file_range", unsupported)
    assert copy(tmp_path, DATA, hashed=hashed) == DATA


@pytest.mark.parametrize("call", ["write", "pwrite"])
def test_writes_that_are_cut_short_are_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Of a file that fits into one buffer, and of one that does not."""
    write, cut = getattr(os, call), list[int]()

    def short(fd: int, data: bytes | memoryview, *place: int) -> int:
        cut.append(len(data))
        return write(fd, data[:1000], *place)

    monkeypatch.setattr(os, call, short)
    data = DATA[:5000] if call == "write" else DATA
    assert copy(tmp_path, data, hashed=True) == data
    assert len(cut) > 1
