"""The processes of a mover in a stack: found by what they hold open, frozen and thawed as one."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

from tests.support.processes import living_group
from tests.support.stack import Stack, eventually


class MoverGroup:
    """One mover: the child that its worker gave the task to, which leads a process group, and the
    executors that it forked."""

    def __init__(self, worker: str, leader: int) -> None:
        self.worker = worker
        self.leader = leader

    @classmethod
    def at(cls, stack: Stack, src: Path) -> Self:
        """Wait for the mover that has this source open, as each has from its plan to its end."""
        top = os.path.realpath(src)

        def found() -> Self | None:
            for worker in stack.plan.worker_names:
                for pid in _below(stack.pid(worker)):
                    if any(link == top or link.startswith(f"{top}/") for link in _open(pid)):
                        with suppress(ProcessLookupError):
                            return cls(worker, os.getpgid(pid))
            return None

        mover = eventually(found, what=f"a mover of {src}")
        assert mover is not None
        return mover

    def living(self) -> list[int]:
        """Its processes that have not ended; zombies have."""
        return living_group(self.leader)

    def freeze(self) -> list[int]:
        """Stop all of it at once; returns its processes when each of their threads stands still."""
        os.killpg(self.leader, signal.SIGSTOP)
        eventually(lambda: all(map(_stands_still, self.living())), what="the mover stands still")
        return self.living()

    def thaw(self) -> None:
        """Let all of it go on."""
        os.killpg(self.leader, signal.SIGCONT)

    def has_locked(self, folder: Path) -> bool:
        """Whether it keeps other tasks out of a directory: a lock there is in its hands."""
        inode = str(folder.stat().st_ino)
        return any(inode in _locked(pid) for pid in self.living())


def _below(pid: int) -> list[int]:
    with suppress(psutil.NoSuchProcess):
        return [each.pid for each in psutil.Process(pid).children(recursive=True)]
    return []


def _each_descriptor(folder: Path, read: Callable[[Path], str]) -> Iterator[str]:
    """What there is to read of each descriptor; those that close meanwhile are left out."""
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(OSError):
                yield read(path)


def _open(pid: int) -> Iterator[str]:
    """The paths that a process has open."""
    return _each_descriptor(Path(f"/proc/{pid}/fd"), lambda path: str(path.readlink()))


def _locked(pid: int) -> set[str]:
    """The inodes of what a process has locked; a forked process shares its parent's locks."""
    told = _each_descriptor(Path(f"/proc/{pid}/fdinfo"), Path.read_text)
    lines = [line.split() for text in told for line in text.splitlines()]
    # lock: 1: OFDLCK ADVISORY READ -1 08:01:1234 0 0
    return {line[6].rpartition(":")[2] for line in lines if line[:1] == ["lock:"]}


def _stands_still(pid: int) -> bool:
    """Whether each thread of a process is stopped, or the process is gone."""
    states = _each_descriptor(Path(f"/proc/{pid}/task"), lambda task: (task / "stat").read_text())
    return all(state.rpartition(")")[2].split()[0] in {"T", "Z", "X"} for state in states)
