"""The quick way for small files: as few system calls as a safe copy can do with.

What is not as usual (an error, a file in motion, a rare option) is left to `filecopy`, which does
it once more and knows what to say.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress

from dms_scheduler.movers.contract import Fsync, MoveRequest, Overwrite, Preserve, Verify
from dms_scheduler.movers.errors import FileProblem
from dms_scheduler.movers.guard import Brake
from dms_scheduler.movers.native import content
from dms_scheduler.movers.native.compare import mode_of
from dms_scheduler.movers.native.filecopy import (
    NEW_FILE,
    READ_FILE,
    Ends,
    TemporaryNames,
    changed,
    just_changed,
)
from dms_scheduler.movers.native.meter import Ledger, Tally
from dms_scheduler.movers.native.records import FilePlan, child
from dms_scheduler.movers.native.throttle import TokenBucket

SMALL_BYTES = 64 << 10
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
        self._exact_in: tuple[Ends, bool] | None = None

    def copy(self, ends: Ends, plan: FilePlan) -> bool:
        """Copy it; return False if that is to be done in the usual way; raises what stops."""
        if not self._usable or self._bucket.rate:
            return False
        now = time.monotonic()
        if now - self._told > _TELL_SECONDS:
            self._told = now
            self.tell()
            self._ledger.begin(child(ends.path, plan.name), plan.size)
        try:
            read = self._read(ends.source_fd, plan)
        except OSError:
            return False
        if read is None:
            return False
        data, status = read
        if not self._put(ends, plan.target, data, status):
            return False
        self._files += 1
        self._bytes += len(data)
        return True

    def tell(self) -> None:
        """Hand the counts to the ledger."""
        if self._files:
            self._ledger.end()
            self._ledger.moved(self._bytes)
            self._ledger.add(_FILES, self._files)
            self._ledger.add(_BYTES, self._bytes)
            self._files = self._bytes = 0

    def _read(self, fd: int, plan: FilePlan) -> tuple[bytes, os.stat_result] | None:
        """Return all of a file that did not change since it was planned; raises OSError."""
        source = os.open(plan.name, READ_FILE, dir_fd=fd)
        try:
            status = os.fstat(source)
            size = status.st_size
            if size != plan.size or not stat.S_ISREG(status.st_mode) or just_changed(status):
                return None
            data = os.read(source, size)
            if len(data) != size or changed(status, os.fstat(source)):
                return None
            return data, status
        finally:
            os.close(source)

    def _put(self, ends: Ends, target: str, data: bytes, status: os.stat_result) -> bool:
        target_fd = ends.target_fd
        number, temporary = self._names.next()
        exact = self._exact_modes and self._is_exact(ends)
        mode = mode_of(status) if exact else (0o600 if self._mode else 0o666)
        self._ledger.hold(number)  # before it is there: who kills this process removes it
        try:
            fd = os.open(temporary, NEW_FILE, mode, dir_fd=target_fd)
        except OSError:
            return False
        try:
            try:
                self._fill(fd, data, status, exact=exact)
            finally:
                os.close(fd)
            self._check()
            os.rename(temporary, target, src_dir_fd=target_fd, dst_dir_fd=target_fd)
        except BaseException as error:
            with suppress(OSError):  # what stays is removed by the next attempt
                os.unlink(temporary, dir_fd=target_fd)
            self._ledger.hold(0)
            if not isinstance(error, (OSError, FileProblem)):
                raise
            # Moved in vain, so it is moved once more.
            self._ledger.moved(len(data))
            self._ledger.expect_more(len(data))
            return False
        self._ledger.hold(0)
        return True

    def _fill(self, fd: int, data: bytes, status: os.stat_result, *, exact: bool) -> None:
        if data:
            content.write_all(fd, data)
        if self._verify and os.pread(fd, len(data) + 1, 0) != data:
            message = "the copy differs from what was read; the storage or its path is faulty"
            raise FileProblem(message, error_class="verify_mismatch")
        if self._mode and not exact:
            os.chmod(fd, mode_of(status))
        if self._mtime:
            os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _is_exact(self, ends: Ends) -> bool:
        """Say whether a new file in that directory gets the very mode that it is made with."""
        if self._exact_in is None or self._exact_in[0] is not ends:
            try:
                os.getxattr(ends.target_fd, _DEFAULT_ACL)
                exact = False
            except OSError:
                exact = True
            self._exact_in = (ends, exact)
        return self._exact_in[1]
