"""What the tests of remotes share: servers of one module, and a tree for each test."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dms_scheduler.movers import (
    CheckResult,
    MoveOptions,
    MovePlan,
    MoveRequest,
    MoveResult,
    RemoveRequest,
)
from dms_scheduler.movers.rclone import RcloneMover, RcloneSettings
from tests.support.remotes import Remotes
from tests.unit.movers.support import Recorder, look

KINDS = ("s3", "sftp", "webdav")
Lines = set[tuple[str, str, int | None]]


@dataclass
class Scene:
    """A local tree, a place of its own at each server, and the mover."""

    remotes: Remotes
    root: Path
    name: str

    @property
    def src(self) -> Path:
        """The local source."""
        return self.root / "src"

    @property
    def mover(self) -> RcloneMover:
        """A mover that knows the servers."""
        return RcloneMover(RcloneSettings(self.remotes.config))

    def remote(self, kind: str, *below: str) -> str:
        """Return a remote path of this test alone."""
        return f"{kind}:{'/'.join(('bucket', self.name, *below))}"

    def store(self, kind: str, *below: str) -> Path:
        """Return where the server keeps that path."""
        return self.remotes.servers[kind].top.joinpath("bucket", self.name, *below)

    def request(self, src: object, dst: object, *, epoch: int = 1, **options: Any) -> MoveRequest:
        return MoveRequest(
            task_id="t-1",
            epoch=epoch,
            src=str(src),
            dst=str(dst),
            roots=(str(self.root),),
            options=MoveOptions(**options),
        )

    def run(
        self, src: object, dst: object, control: Recorder | None = None, **o: Any
    ) -> MoveResult:
        return self.mover.run(self.request(src, dst, **o), control or Recorder())

    def plan(self, src: object, dst: object, control: Recorder | None = None, **o: Any) -> MovePlan:
        return self.mover.plan(self.request(src, dst, dry_run=True, **o), control or Recorder())

    def check(
        self, src: object, dst: object, control: Recorder | None = None, **o: Any
    ) -> CheckResult:
        return self.mover.check(self.request(src, dst, **o), control or Recorder())

    def remove(
        self, path: str, control: Recorder | None = None, **options: Any
    ) -> MoveResult | MovePlan:
        request = RemoveRequest(
            task_id="t-1", epoch=options.pop("epoch", 1), path=path, roots=(), **options
        )
        return self.mover.remove(request, control or Recorder())

    def write(self, path: str, content: bytes | str = b"data", *, mtime: int = 10**18) -> Path:
        """Write a file of the source; `mtime` in ns."""
        file = self.src / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        os.utime(file, ns=(mtime, mtime))
        return file

    def fill(self) -> None:
        """Make a source with odd names, empty files and folders, a link and many files."""
        for number in range(55):
            self.write(f"many/{number:02}", f"content {number}")
        for name in ("한글 이름.txt", "a b", "e'\"`$(x)", "per%20cent", "#hash?", "-rf", "x.tmp"):
            self.write(f"odd/{name}", name)
        self.write("empty", b"")
        self.write("big", os.urandom(3 << 20))
        (self.src / "link").symlink_to("many/00")
        (self.src / "dangling").symlink_to("/no/such/file")


def lines(control: Recorder) -> Lines:
    """Return the lines of a report, which come in any order."""
    return {(entry.action.value, entry.path, entry.size) for entry in control.entries}


def contents(top: Path) -> dict[bytes, object]:
    """Return the files and links below `top` with what is in them, without folders."""
    seen = look(top, times=False)
    return {path: entry[-1] for path, entry in seen.items() if entry[-1] is not None}
