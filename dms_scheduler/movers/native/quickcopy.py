"""The quick way for small files: as few system calls as a safe copy can do with.

What is not as usual (an error, a file in motion, a rare option) is left to `filecopy`, which does
it once more and knows what to say.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from stat import S_ISREG

from dms_scheduler.movers.contract import Fsync, MoveRequest, Overwrite, Preserve, Verify
from dms_scheduler.movers.errors import FileProblem
from dms_scheduler.movers.guard import Brake
from dms_scheduler.movers.native import content
from dms_scheduler.movers.native.compare import MODE_BITS, Verdict, mode_of
from dms_scheduler.movers.native.filecopy import (
    NEW_FILE,
    READ_FILE,
    Ends,
    TemporaryNames,
    changed,
    just_changed,
    mismatch,
)
from dms_scheduler.movers.native.meter import Ledger, Tally
from dms_scheduler.movers.native.records import Done, FileFields, child
from dms_scheduler.movers.native.throttle import TokenBucket

_MOST_BYTES = 64 << 10
_COPY = Verdict.COPY.value
_TELL_SECONDS = 0.02
_DEFAULT_ACL = "system.posix_acl_default"
_FILES, _BYTES = Tally.FILES, Tally.BYTES


class QuickCopier:
    """Copies small files; its counts reach the ledger fifty times a second, and by `tell`."""

    def __init__(
        self,
        request: MoveRequest,
        brake: Brake,
        ledger: Ledger,
        bucket: TokenBucket,
        names: TemporaryNames,
        *,
        exact_modes: bool,
    ) -> None:
        """`exact_modes` says that this process takes no mode bits away from new files."""
        options = request.options
        self._usable = (
            options.preserve <= {Preserve.MTIME, Preserve.MODE}
            and options.overwrite is Overwrite.ALWAYS
            and options.fsync is not Fsync.EACH
        )
        self._mode = Preserve.MODE in options.preserve
        self._mtime = Preserve.MTIME in options.preserve
        self._verify = options.verify is Verify.TRANSFERRED
        self._exact_modes = exact_modes and self._mode
        self._check = brake.check
        self._ledger = ledger
        self._bucket = bucket
        self._names = names
        self._files = self._bytes = 0
        self._told = 0.0
        self._ends: Ends | None = None
        self._exact = False  # there
        self._new_mode = 0o600 if self._mode else 0o666
        # One for all: it is free again once a file has its name.
        self._temporary: tuple[int, str] = names.next()

    def copy(self, ends: Ends, files: Iterator[FileFields], done: Done) -> FileFields | None:
        """Copy files and count them as handled, up to one that is to be copied in the usual way;
        return that one, None at the end. Raises what stops."""
        if not self._usable or self._bucket.rate:
            return next(files, None)
        if ends is not self._ends:
            self._ends = ends
            self._exact = self._exact_modes and _gives_exact_modes(ends.target_fd)
        self._ledger.hold(self._temporary[0])  # who kills this process removes what is there
        try:
            for file in files:
                name, target, verdict, size = file
                if verdict != _COPY or size > _MOST_BYTES:
                    return file
                now = time.monotonic()
                if now - self._told > _TELL_SECONDS:
                    if self._bucket.rate:
                        return file
                    self._told = now
                    self.tell()
                    self._ledger.begin(child(ends.path, name), size)
                if not self._copy(ends, name, target, size):
                    return file
                self._files += 1
                self._bytes += size
                done.handled += 1
        finally:
            self._ledger.hold(0)
        return None

    def _copy(self, ends: Ends, name: str, target: str, size: int) -> bool:
        try:
            source = os.open(name, READ_FILE, dir_fd=ends.source_fd)
            try:
                status = os.fstat(source)
                if status.st_size != size or not S_ISREG(status.st_mode) or just_changed(status):
                    return False
                data = os.read(source, size)
                if len(data) != size or changed(status, os.fstat(source)):
                    return False
            finally:
                os.close(source)
        except OSError:
            return False
        return self._put(ends.target_fd, target, data, status)

    def tell(self) -> None:
        """Hand the counts to the ledger."""
        if self._files:
            self._ledger.end()
            self._ledger.moved(self._bytes)
            self._ledger.add(_FILES, self._files)
            self._ledger.add(_BYTES, self._bytes)
            self._files = self._bytes = 0

    def _put(self, target_fd: int, target: str, data: bytes, status: os.stat_result) -> bool:
        temporary, exact = self._temporary[1], self._exact
        mode = status.st_mode & MODE_BITS if exact else self._new_mode
        try:
            fd = os.open(temporary, NEW_FILE, mode, dir_fd=target_fd)
        except OSError:
            self._temporary = self._names.next()  # it may be somebody else's
            return False
        try:
            try:
                if data:
                    content.write_all(fd, data)
                if self._verify and os.pread(fd, len(data) + 1, 0) != data:
                    raise mismatch()
                if self._mode and not exact:
                    os.chmod(fd, mode_of(status))
                if self._mtime:
                    os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))
            finally:
                os.close(fd)
            self._check()
            os.rename(temporary, target, src_dir_fd=target_fd, dst_dir_fd=target_fd)
        except BaseException as error:
            with suppress(OSError):  # what stays is removed by the next attempt
                os.unlink(temporary, dir_fd=target_fd)
            if not isinstance(error, (OSError, FileProblem)):
                raise
            # Moved in vain, so it is moved once more.
            self._ledger.moved(len(data))
            self._ledger.expect_more(len(data))
            return False
        return True


def _gives_exact_modes(folder: int) -> bool:
    """Say whether a new file in that directory gets the very mode that it is made with."""
    try:
        os.getxattr(folder, _DEFAULT_ACL)
    except OSError:
        return True
    return False
