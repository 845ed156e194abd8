"""Files of whole lines that a crash or a full disk must not spoil: exports are written so."""

import os
from pathlib import Path

_TAIL_BYTES = 65536


def write_all(descriptor: int, data: bytes | bytearray) -> None:
    """Write all of it; raises OSError when the disk is full."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def cut_partial_line(descriptor: int) -> None:
    """Take away what a crash left after the last line break."""
    end = size = os.fstat(descriptor).st_size
    while end:
        start = max(end - _TAIL_BYTES, 0)
        at = os.pread(descriptor, end - start, start).rfind(b"\n")
        if at >= 0:
            end = start + at + 1
            break
        end = start
    if end < size:
        os.ftruncate(descriptor, end)


def sync_folder(folder: Path) -> None:
    """Have the names of new files in it on disk: a file of no name would be lost with its data."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
