"""Files with holes: copied without them, hashed without them, whatever happens meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dms_scheduler.movers.native.sparse import (
    GRAIN,
    SparseDigest,
    copy_sparse,
    has_holes,
    next_data,
    pieces_of,
    sparse_digest,
)

TERABYTE = 1 << 40


class Pace:
    """Counts, and may do something after each piece."""

    def __init__(self, chunk: int = 1 << 20, then: Callable[[], None] = lambda: None) -> None:
        self.chunk = chunk
        self.asked = 0
        self.moved = 0
        self._then = then

    def check(self) -> None:
        pass

    def before(self, size: int) -> None:
        self.asked += size

    def after(self, size: int) -> None:
        assert size >= 0
        self.moved += size
        self._then()


@contextmanager
def both(folder: Path, size: int) -> Generator[tuple[int, int]]:
    """Open an empty source and a target of their size, both full of hole."""
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
    source, target = (os.open(folder / name, flags) for name in ("source", "target"))
    try:
        for fd in (source, target):
            os.ftruncate(fd, size)
        yield source, target
    finally:
        os.close(source)
        os.close(target)


def needs_holes(fd: int) -> None:
    if not has_holes(os.fstat(fd)):
        pytest.skip("this file system stores holes")


PIECES = st.lists(
    st.tuples(
        st.integers(0, 40 * GRAIN),
        st.one_of(
            st.binary(min_size=1, max_size=64),
            st.sampled_from([bytes(GRAIN), b"x" * GRAIN, b"y" * (3 * GRAIN + 5), bytes(7)]),
        ),
    ),
    max_size=6,
)


@given(pieces=PIECES, tail=st.integers(0, 3 * GRAIN), chunk=st.sampled_from([1, 5000, 1 << 20]))
@settings(max_examples=150)
@pytest.mark.parametrize("hashed", [False, True])
def test_a_copy_reads_the_same_and_has_the_same_hash_wherever_its_holes_are(
    tmp_path_factory: pytest.TempPathFactory,
    pieces: list[tuple[int, bytes]],
    tail: int,
    chunk: int,
    *,
    hashed: bool,
) -> None:
    size = max([start + len(data) for start, data in pieces], default=0) + tail
    with both(tmp_path_factory.getbasetemp(), size) as (source, target):
        for start, data in pieces:
            os.pwrite(source, data, start)
        pace = Pace(chunk)
        copied = copy_sparse(source, target, 0, size, pace, hashed=hashed)
        content = os.pread(source, size + 1, 0)
        assert os.pread(target, size + 1, 0) == content
        assert (copied.size, pace.moved) == (size, size)
        digests = {sparse_digest(fd, 0, size, Pace()) for fd in (source, target)}
        dense = SparseDigest()
        for start in range(0, size, 7 * GRAIN):
            dense.add(start, content[start : start + 7 * GRAIN])
        assert digests == {dense.digest()}
        assert copied.digest == (digests.pop() if hashed else None)


@given(place=st.integers(0, 5 * GRAIN - 1), bit=st.integers(0, 7))
def test_every_bit_counts(tmp_path_factory: pytest.TempPathFactory, place: int, bit: int) -> None:
    with both(tmp_path_factory.getbasetemp(), 5 * GRAIN) as (source, target):
        for fd in (source, target):
            os.pwrite(fd, b"some data", GRAIN + 100)
        byte = os.pread(target, 1, place)[0]
        os.pwrite(target, bytes([byte ^ (1 << bit)]), place)
        assert sparse_digest(source, 0, 5 * GRAIN, Pace()) != sparse_digest(
            target, 0, 5 * GRAIN, Pace()
        )


def test_the_same_data_at_another_place_is_another_content() -> None:
    digests: set[bytes] = set()
    for place in (0, GRAIN, 2 * GRAIN):
        digest = SparseDigest()
        digest.add(place, b"x" * GRAIN)
        digests.add(digest.digest())
    assert len(digests) == 3


@pytest.mark.parametrize("hashed", [False, True])
def test_a_terabyte_of_hole_is_not_read(tmp_path: Path, *, hashed: bool) -> None:
    with both(tmp_path, TERABYTE) as (source, target):
        needs_holes(source)
        os.pwrite(source, b"island", TERABYTE // 2 + 17)
        pace = Pace()
        copied = copy_sparse(source, target, 0, TERABYTE, pace, hashed=hashed)
        assert (copied.size, pace.moved) == (TERABYTE, TERABYTE)
        assert pace.asked <= 1 << 20  # what a limit has to wait for
        assert os.pread(target, 6, TERABYTE // 2 + 17) == b"island"
        assert os.fstat(target).st_blocks * 512 <= 1 << 20
        same = sparse_digest(target, 0, TERABYTE, pace)
        assert same == sparse_digest(source, 0, TERABYTE, pace)
        assert copied.digest == (same if hashed else None)


def test_holes_stay_holes(tmp_path: Path) -> None:
    size = 64 * GRAIN
    with both(tmp_path, size) as (source, target):
        needs_holes(source)
        for place in (0, 20 * GRAIN, 40 * GRAIN):
            os.pwrite(source, b"z" * GRAIN, place)
        copy_sparse(source, target, 0, size, Pace(), hashed=True)
        assert os.fstat(target).st_blocks == os.fstat(source).st_blocks
        assert list(pieces_of(target, 0, size)) == list(pieces_of(source, 0, size))


@pytest.mark.parametrize("hashed", [False, True])
def test_parts_make_the_whole(tmp_path: Path, *, hashed: bool) -> None:
    size, part = 100 * GRAIN + 77, 16 * GRAIN
    with both(tmp_path, size) as (source, target):
        for place in range(0, size - 10, 5 * GRAIN + 3):
            os.pwrite(source, b"0123456789", place)
        for start in reversed(range(0, size, part)):
            end = min(size, start + part)
            copied = copy_sparse(source, target, start, end, Pace(), hashed=hashed)
            assert copied.size == end - start
            if hashed:
                assert copied.digest == sparse_digest(target, start, end, Pace())
        assert os.pread(target, size, 0) == os.pread(source, size, 0)


@pytest.mark.parametrize("hashed", [False, True])
def test_a_file_that_shrinks_meanwhile_is_seen(tmp_path: Path, *, hashed: bool) -> None:
    size = 8 * GRAIN
    with both(tmp_path, size) as (source, target):
        os.pwrite(source, b"x" * size, 0)
        pace = Pace(GRAIN, lambda: os.ftruncate(source, 2 * GRAIN + 5))
        copied = copy_sparse(source, target, 0, size, pace, hashed=hashed)
        assert copied.size == 2 * GRAIN + 5


def test_what_is_hole_in_both_can_be_skipped(tmp_path: Path) -> None:
    with both(tmp_path, TERABYTE) as (source, target):
        needs_holes(source)
        os.pwrite(source, b"x", 1000 * GRAIN)
        os.pwrite(target, b"x", 500 * GRAIN)
        found = [next_data((source, target), start, TERABYTE) for start in (0, 700 * GRAIN)]
        assert [place // GRAIN for place in found] == [500, 1000]
        assert next_data((source, target), 2000 * GRAIN, TERABYTE) == TERABYTE
        assert next_data((source, target), 0, GRAIN) == GRAIN


def test_where_holes_are_not_known_all_is_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> int:
        raise OSError(22, "Invalid argument")

    with both(tmp_path, 10 * GRAIN) as (source, target):
        os.pwrite(source, b"island", 5 * GRAIN)
        wanted = sparse_digest(source, 0, 10 * GRAIN, Pace())
        monkeypatch.setattr(os, "lseek", refused)
        assert list(pieces_of(source, 0, 10 * GRAIN)) == [(0, 10 * GRAIN)]
        copied = copy_sparse(source, target, 0, 10 * GRAIN, Pace(), hashed=True)
        assert copied.digest == wanted
        assert os.pread(target, 6, 5 * GRAIN) == b"island"
