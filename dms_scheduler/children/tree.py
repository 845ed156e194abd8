"""The tree of processes: who a process's children are, and signals that reach only them."""

import contextlib
import errno
import os
import signal
from pathlib import Path

_PROC = Path("/proc")


def children_of(pid: int) -> set[int]:
    """Its children, zombies included; one that comes or goes just now may be missing."""
    if (_PROC / "self/task" / str(os.getpid()) / "children").exists():
        return _listed(pid)
    found = (int(each.name) for each in _PROC.iterdir() if each.name.isdigit())
    return {each for each in found if parent_of(each) == pid}  # a kernel without those lists


def _listed(pid: int) -> set[int]:
    """By the kernel's lists, one for each thread that started processes."""
    found: set[int] = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in (_PROC / str(pid) / "task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found.update(map(int, (thread / "children").read_text().split()))
    return found


def descendants_of(pid: int) -> list[tuple[int, int]]:
    """Each process below it with its parent, parents first."""
    found = [(child, pid) for child in children_of(pid)]
    for parent, _ in found:  # it grows while it is read
        found.extend((child, parent) for child in children_of(parent))
    return found


def parent_of(pid: int) -> int | None:
    """Its parent; None when there is no such process, or only a zombie of it."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        state, parent, *_ = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        return None if state in {b"Z", b"X"} else int(parent)
    return None


def hold(pid: int) -> int | None:
    """A pidfd, which stays with this very process when its number is given to another; None from
    kernels that have none (before 5.3). Raises ProcessLookupError."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in {errno.ENOSYS, errno.EPERM, errno.EINVAL}:
            return None
        raise


def signal_child(parent: int, pid: int, number: signal.Signals) -> None:
    """Signal `pid` if it is a child of `parent`: looked up while it is held, so that the signal
    cannot reach a stranger who was given its number meanwhile."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        held = hold(pid)
        try:
            if parent_of(pid) != parent:
                return
            if held is None:
                os.kill(pid, number)
            else:
                signal.pidfd_send_signal(held, number)
        finally:
            if held is not None:
                os.close(held)
