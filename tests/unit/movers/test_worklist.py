"""What a plan writes down: files in groups of their folder, everything in its order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from dms_scheduler.movers.native.records import (
    FileFields,
    FolderPlan,
    GroupPlan,
    Kind,
    RemovalPlan,
)
from dms_scheduler.movers.native.worklist import MOST_BYTES, Worklist

FOLDER = FolderPlan("a", (1, 2), None)
BIG: FileFields = ("big", "big", 1, 1 << 40)
REMOVAL = RemovalPlan("a", "old", is_directory=True, lacked=None)


def file(number: int, size: int = 0) -> FileFields:
    return (f"file-{number}", f"file-{number}", 1, size)


def groups(work: Worklist) -> Iterator[GroupPlan]:
    return (GroupPlan._make(fields) for kind, *fields in work.read() if kind == Kind.GROUP)


def test_everything_comes_in_the_order_in_which_it_was_added() -> None:
    with closing(Worklist()) as work:
        work.add_folder(FOLDER)
        work.add_file(file(1))
        work.add_big(BIG)
        work.add_file(file(2))
        work.add_removal(REMOVAL)
        work.add_file(file(3))
        work.add_file(file(4))
        work.add_folder(FOLDER)
        work.add_file(file(5))
        read = list(work.read())
    assert [Kind(record[0]) for record in read] == [
        Kind.FOLDER,
        Kind.GROUP,
        Kind.BIG,
        Kind.GROUP,
        Kind.REMOVE,
        Kind.GROUP,
        Kind.FOLDER,
        Kind.GROUP,
    ]
    assert FolderPlan._make(read[0][1:]) == FOLDER
    assert read[2][1:] == BIG
    assert RemovalPlan._make(read[4][1:]) == REMOVAL
    assert GroupPlan._make(read[5][1:]).files == [file(3), file(4)]


def test_a_group_has_at_most_so_many_files_and_bytes() -> None:
    with closing(Worklist()) as work:
        work.add_folder(FOLDER)
        for number in range(1000):
            work.add_file(file(number))
        work.add_file(file(1000, MOST_BYTES))
        work.add_file(file(1001, MOST_BYTES - 1))
        work.add_file(file(1002))
        read = list(groups(work))
    assert [each for group in read for each in group.files][:1000] == [*map(file, range(1000))]
    assert [len(group.files) for group in read] == [128] * 7 + [105, 1, 1]
    assert all(group.weight - group.files[-1][3] <= MOST_BYTES for group in read)
