"""Keeps planned records in the order in which they came, however many, in bounded memory."""

from __future__ import annotations

# What is read was written by this very process.
import marshal  # nosec B403
import struct
from collections.abc import Iterator
from tempfile import SpooledTemporaryFile, gettempdir

from dms_scheduler.movers.errors import MoverError
from dms_scheduler.movers.native.records import FileFields, Identity

_IN_MEMORY_BYTES = 1 << 20
_FRAME_RECORDS = 512
_LENGTH = struct.Struct("<I")

Field = str | int | bool | Identity | list[FileFields] | None
Record = tuple[Field, ...]


class Spool:
    """Up to 1 MiB in memory, beyond that in a temporary file that has no name.

    Records are plain tuples (no subclasses) of text, numbers, pairs of numbers and lists of files.
    """

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 - see `close`
        self._waiting: list[Record] = []
        self._count = self._weight = 0

    def __len__(self) -> int:
        """Return how many records were written."""
        return self._count

    def write(self, record: Record, weight: int = 1) -> None:
        """Add a record that is as large as `weight` usual ones.

        Raises:
            MoverError: there is no room for temporary files.

        """
        self._waiting.append(record)
        self._count += 1
        self._weight += weight
        if self._weight >= _FRAME_RECORDS:
            self._write_frame()

    def read(self) -> Iterator[Record]:
        """Yield all records from the first one on; write no more meanwhile."""
        self._write_frame()
        self._file.seek(0)
        while head := self._file.read(_LENGTH.size):
            records: list[Record] = marshal.loads(  # noqa: S302 # nosec B302
                self._file.read(*_LENGTH.unpack(head))
            )
            yield from records

    def close(self) -> None:
        """Forget all."""
        self._file.close()

    def _write_frame(self) -> None:
        if not self._waiting:
            return
        frame = marshal.dumps(self._waiting)
        self._waiting = []
        self._weight = 0
        try:
            self._file.write(_LENGTH.pack(len(frame)))
            self._file.write(frame)
        except OSError as error:
            message = (
                f"the plan cannot be kept in {gettempdir()}: {error.strerror}. Make space there, "
                "or start the worker with TMPDIR on a larger disk"
            )
            raise MoverError(message, error_class="no_temporary_space", retryable=True) from error
