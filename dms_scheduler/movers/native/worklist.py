"""What a plan says is to be done, in order: folders, what is in the way, and files in groups."""

from __future__ import annotations

from collections.abc import Iterator

from dms_scheduler.movers.native.records import (
    FileFields,
    FolderPlan,
    GroupPlan,
    Kind,
    RemovalPlan,
)
from dms_scheduler.movers.native.spool import Record, Spool

MOST_BYTES = 8 << 20
"""How much a group of files weighs at most, but for its last file."""

_FILE_WEIGHT = 64 << 10  # a file takes as long as that many bytes, however small it is
_FOLDER, _GROUP, _BIG, _REMOVE = (kind.value for kind in Kind)


class Worklist:
    """Written once, then read. Files are kept in groups of one folder, so that a million of them
    costs little to write down and to hand on."""

    def __init__(self) -> None:
        self._spool = Spool()
        self._files: list[FileFields] = []
        self._weight = 0

    def add_folder(self, plan: FolderPlan) -> None:
        """Begin a folder: the files that follow lie in it. Raises MoverError, as all of this."""
        self._write((_FOLDER, *plan))

    def add_file(self, file: FileFields) -> None:
        """Add a file of the folder."""
        self._files.append(file)
        self._weight += _FILE_WEIGHT + file[3]
        if self._weight >= MOST_BYTES:
            self._end_group()

    def add_big(self, file: FileFields) -> None:
        """Add a file of the folder that is copied in parts."""
        self._write((_BIG, *file))

    def add_removal(self, plan: RemovalPlan) -> None:
        """Add an entry that is in the way of a file that follows."""
        self._write((_REMOVE, *plan))

    def read(self) -> Iterator[Record]:
        """Yield all records; write no more meanwhile."""
        self._end_group()
        return self._spool.read()

    def close(self) -> None:
        """Forget all."""
        self._spool.close()

    def _write(self, record: Record) -> None:
        self._end_group()
        self._spool.write(record)

    def _end_group(self) -> None:
        if self._files:
            group = GroupPlan(self._weight, self._files)
            self._spool.write((_GROUP, *group), len(self._files))
            self._files = []
            self._weight = 0
