"""Stretches of a file: the buffer for many bytes, what is read back, what is written out early."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import xxhash

from dms_scheduler.movers.guard import Guard
from dms_scheduler.movers.native import spans
from dms_scheduler.movers.native.filecopy import FilePace
from dms_scheduler.movers.native.meter import Meter
from dms_scheduler.movers.native.spans import EarlyPace, copy_and_reread, copy_range, is_memory
from tests.unit.movers.support import Recorder

KIB = 1 << 10
DATA = os.urandom(1_100_001)
START, END = 4096, 1_050_007
WRITE_ALONE = 2  # of sync_file_range: begin, and wait for nothing


def unlimited(chunk: int = 64 * KIB) -> FilePace:
    return FilePace(Guard(Recorder()), Meter(), None, chunk)


@contextmanager
def opened(tmp_path: Path) -> Generator[tuple[int, int]]:
    (tmp_path / "source").write_bytes(DATA)
    source = os.open(tmp_path / "source", os.O_RDONLY)
    target = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    try:
        yield source, target
    finally:
        os.close(source)
        os.close(target)


def assert_copied(tmp_path: Path) -> None:
    assert (tmp_path / "target").read_bytes()[START:] == DATA[START:END]


@pytest.mark.parametrize("advice", [mmap.MADV_HUGEPAGE, 9999])
def test_many_bytes_pass_through_one_huge_page_where_the_kernel_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, advice: int
) -> None:
    monkeypatch.setattr(spans, "_MANY_BYTES", 1)
    monkeypatch.setattr(mmap, "MADV_HUGEPAGE", advice)
    with opened(tmp_path) as (source, target):
        copied = copy_range(source, target, START, END, unlimited(1 << 20), hashed=True)
        assert copied.digest == xxhash.xxh3_128(DATA[START:END]).digest()
        assert spans.digest_range(target, START, END, unlimited()) == copied.digest
    assert_copied(tmp_path)


def test_what_was_copied_is_read_back_in_the_same_pass(tmp_path: Path) -> None:
    pace = unlimited()
    with opened(tmp_path) as (source, target):
        copied = copy_and_reread(source, target, START, END, pace)
    assert copied.size == pace.moved == END - START
    assert copied.digest == copied.reread == xxhash.xxh3_128(DATA[START:END]).digest()
    assert_copied(tmp_path)


@pytest.mark.parametrize("lost", [0, 1])
def test_what_is_read_back_is_what_the_copy_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    """One bit is another one, or a byte is missing."""
    write = spans.write_at

    def spoil(target: int, data: memoryview, place: int) -> None:
        spoiled = bytes(data[:-1]) + bytes([data[-1] ^ 1])
        write(target, memoryview(spoiled[: len(data) - lost]), place)

    monkeypatch.setattr(spans, "write_at", spoil)
    with opened(tmp_path) as (source, target):
        copied = copy_and_reread(source, target, START, END, unlimited())
    assert copied.digest == xxhash.xxh3_128(DATA[START:END]).digest()
    assert copied.reread != copied.digest


def test_a_file_in_memory_is_told_from_others(tmp_path: Path) -> None:
    for place in (str(tmp_path), "/dev/shm", "/proc"):
        if not os.path.exists(place):
            continue
        command = ["stat", "--file-system", "--format=%T", place]
        kind = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        fd = os.open(place, os.O_RDONLY)
        try:
            assert is_memory(fd) == (kind == "tmpfs"), place
        finally:
            os.close(fd)


class Library:
    """Stands in for the C library: notes what is to be written out."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int, int, int]] = []

    def sync_file_range(self, *call: Any) -> int:
        self.calls.append(call)
        return -1  # an error has no say: who waits for it later hears of it


@pytest.mark.parametrize("hashed", [False, True])
def test_a_copy_is_written_out_while_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hashed: bool
) -> None:
    library, step = Library(), 256 * KIB
    monkeypatch.setattr(spans, "_libc", library)
    monkeypatch.setattr(spans, "_WRITE_OUT_BYTES", step)
    pace = unlimited()
    with opened(tmp_path) as (source, target):
        early = EarlyPace(pace, target, START)
        copy_range(source, target, START, END, early, hashed=hashed)
        wanted = [
            (target, START + number * step, step, WRITE_ALONE)
            for number in range((END - START) // step)
        ]
    assert library.calls == wanted
    assert pace.moved == END - START
    assert_copied(tmp_path)


class Refusing:
    """A C library whose write-out of a range fails."""

    def __init__(self, code: int) -> None:
        self._code = code

    def sync_file_range(self, *_: int) -> int:
        ctypes.set_errno(self._code)
        return -1


def test_what_could_not_be_written_out_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells it once: `fdatasync` would find nothing wrong any more."""
    monkeypatch.setattr(spans, "_libc", Refusing(errno.ENOSPC))
    with opened(tmp_path) as (source, _), pytest.raises(OSError, match="No space left"):
        spans.write_back(source, 0, len(DATA), unlimited(), drop=False)


def test_where_ranges_cannot_be_written_out_the_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(spans, "_libc", Refusing(errno.ENOSYS))
    monkeypatch.setattr(os, "fdatasync", synced.append)
    with opened(tmp_path) as (source, _):
        spans.write_back(source, 0, len(DATA), unlimited(), drop=False)
        assert synced == [source]


def test_who_writes_out_early_keeps_to_the_pace() -> None:
    class Stop(Exception):
        pass

    def check(_: int) -> None:
        raise Stop

    pace = FilePace(Guard(Recorder(check)), Meter(), None, 7)
    early = EarlyPace(pace, 0, 0)
    assert early.chunk == 7
    for call in (early.check, lambda: early.before(1)):
        with pytest.raises(Stop):
            call()
