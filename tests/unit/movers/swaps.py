"""An attacker for tests: a process that exchanges files for symbolic links all the time."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.unit.movers.support import Look, look

_EXCHANGE = """
import ctypes, json, mmap, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
pairs = [[os.fsencode(each) for each in pair] for pair in json.load(sys.stdin)]
counter = mmap.mmap(int(sys.argv[1]), 8)
parent, count = os.getppid(), 0
while os.getppid() == parent:
    for first, second in pairs:
        if libc.renameat2(-100, first, -100, second, 2) == 0:
            count += 1
    struct.pack_into("q", counter, 0, count)
"""
_REPLACE = """
import mmap, os, struct, sys
folder, target = sys.argv[2], sys.argv[3]
counter = mmap.mmap(int(sys.argv[1]), 8)
parent, count = os.getppid(), 0
while os.getppid() == parent:
    try:
        names = [name for name in os.listdir(folder) if name.startswith(".dms-")]
    except FileNotFoundError:
        continue
    for name in names:
        try:
            os.symlink(target, os.path.join(folder, "..", "attack"))
            os.replace(os.path.join(folder, "..", "attack"), os.path.join(folder, name))
            count += 1
        except OSError:
            pass
    struct.pack_into("q", counter, 0, count)
"""


SECRET = "what only the canary holds"


class Attacker:
    """`with` starts the process and ends it; it also ends with this one."""

    def __init__(self, code: str, *arguments: str, stdin: str = "") -> None:
        self._counter = os.memfd_create("counter")
        os.truncate(self._counter, 8)
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", code, str(self._counter), *arguments],
            stdin=subprocess.PIPE,
            pass_fds=[self._counter],
            text=True,
        )
        if self._process.stdin:
            self._process.stdin.write(stdin)
            self._process.stdin.close()

    @property
    def count(self) -> int:
        """How often it has struck."""
        return int.from_bytes(os.pread(self._counter, 8, 0), sys.byteorder)

    def wait_for(self, count: int, seconds: float = 60.0) -> None:
        """Return once it has struck so often."""
        end = time.monotonic() + seconds
        while self.count < count:
            assert time.monotonic() < end, f"only {self.count} strikes"
            assert self._process.poll() is None
            time.sleep(0.002)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._counter)


def exchanging(pairs: Sequence[tuple[Path, Path]]) -> Attacker:
    """Exchange both of each pair (renameat2(2), RENAME_EXCHANGE), over and over."""
    return Attacker(_EXCHANGE, stdin=json.dumps([[str(one), str(two)] for one, two in pairs]))


def replacing_temporaries(folder: Path, target: Path) -> Attacker:
    """Replace each temporary file of a mover that shows up in `folder` by a link."""
    return Attacker(_REPLACE, str(folder), str(target))


@dataclass(frozen=True)
class Canary:
    """A folder outside the roots that nothing may read, write, or leave anything in."""

    folder: Path
    before: dict[bytes, Look]
    own: os.stat_result

    @classmethod
    def made(cls, folder: Path) -> Canary:
        """Make it, with files of the names that the attacked trees have."""
        (folder / "inner").mkdir(parents=True)
        for name in ("file", "secret", "victim", "inner/file", "inner/victim"):
            (folder / name).write_text(SECRET)
            os.utime(folder / name, ns=(1_000_000_007, 2_000_000_009))
        folder.chmod(0o751)
        return cls(folder, look(folder), folder.stat())

    def assert_untouched(self) -> None:
        """Nothing was made, removed, written, and no attribute set."""
        assert look(self.folder) == self.before
        status = self.folder.stat()
        for name in ("st_mode", "st_uid", "st_gid", "st_mtime_ns", "st_nlink"):
            assert getattr(status, name) == getattr(self.own, name), (name, status, self.own)


def assert_not_copied(top: Path) -> None:
    """No regular file below `top` holds what only the canary does."""
    for folder, _, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
                    assert SECRET.encode() not in file.read(), path
