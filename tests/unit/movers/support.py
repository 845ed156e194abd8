"""What the mover tests share: a control that records, a naive view of a tree, another user."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dms_scheduler.movers import MoveOptions, MovePlan, MoveRequest, MoveResult, NativeMover
from dms_scheduler.movers.results import Progress, ReportEntry

NOBODY = 65534
Look = tuple[object, ...]


class Recorder:
    """A control that keeps what it is told; `on_check` may raise, and sees how many came before."""

    def __init__(self, on_check: Callable[[int], None] = lambda _: None) -> None:
        self.checks = 0
        self.reports: list[Progress] = []
        self.lines: list[str] = []
        self.entries: list[ReportEntry] = []
        self.deadline = math.inf
        self.bandwidth: int | None = None
        self._on_check = on_check

    def check(self) -> None:
        self.checks += 1
        self._on_check(self.checks)

    def progress(self, progress: Progress) -> None:
        self.reports.append(progress)

    def log(self, message: str) -> None:
        self.lines.append(message)

    def report(self, entry: ReportEntry) -> None:
        self.entries.append(entry)


class Place:
    """A root with a source in it and a place for the destination."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.src = root / "src"
        self.dst = root / "dst"
        self.src.mkdir()

    def request(self, *, task_id: str = "t-1", epoch: int = 1, **changes: Any) -> MoveRequest:
        src, dst = changes.pop("src", self.src), changes.pop("dst", self.dst)
        return MoveRequest(
            task_id=task_id,
            epoch=epoch,
            src=str(src),
            dst=str(dst),
            roots=changes.pop("roots", (str(self.root),)),
            options=MoveOptions(**changes),
        )

    def run(self, control: Recorder | None = None, **changes: Any) -> MoveResult:
        return NativeMover().run(self.request(**changes), control or Recorder())

    def plan(self, **changes: Any) -> MovePlan:
        return NativeMover().plan(self.request(dry_run=True, **changes), Recorder())

    def write(self, path: str, content: bytes | str = b"data", *, mtime: int | None = None) -> Path:
        """Write a file of the root, with its directories; `mtime` in ns."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        if mtime is not None:
            os.utime(file, ns=(mtime, mtime))
        return file


def look(top: Path, *, times: bool = True) -> dict[bytes, Look]:
    """Return every entry below `top` with its type, mode, time in ns, and content or target."""
    seen: dict[bytes, Look] = {}
    base = os.fsencode(top)
    for folder, directories, files in os.walk(base):
        for name in (*directories, *files):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            entry = (stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode))
            when = (status.st_mtime_ns,) if times else ()
            seen[os.path.relpath(path, base)] = (*entry, *when, _content(path, status))
    return seen


def _content(path: bytes, status: os.stat_result) -> bytes | None:
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(path)
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            return file.read()
    return None


def temporaries(top: Path) -> list[bytes]:
    """Return the temporary files of movers below `top`."""
    return [path for path in look(top) if b".dms-tmp." in os.path.basename(path)]


@contextmanager
def as_nobody() -> Generator[None]:
    """Become a user without rights, if this is root; files are opened as that user then."""
    if os.geteuid() != 0:
        yield
        return
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
