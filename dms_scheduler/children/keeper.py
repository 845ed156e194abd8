"""The keeper: parent of one child process, who ends whatever the child's tasks leave running.

It forks the child before any task module is imported, and is the subreaper of all that comes out of
it: a process whose parent has ended, a daemon in a session of its own too, becomes a child of the
keeper. It ends only children of its own, whom nobody else buries: their numbers cannot have gone to
strangers. When the kernel says that it has no child left, nothing of the tasks runs any more; then
it ends as the child did, so that the worker reads its exit code as the child's.

The worker tells it what to do by signals: STOP, END, KILL. When the worker dies the kernel sends
KILL. Out of its reach are processes that it may not signal (setuid programs), whatever was started
by another service at a task's request, and everything once the keeper itself was sent SIGKILL.
"""

import contextlib
import ctypes
import gc
import os
import resource
import signal
import sys
import time
from typing import Final, NoReturn

from dms_scheduler.children.tree import children_of, descendants_of, signal_child

STOP: Final = signal.SIGTERM
"""Ask all processes to end: SIGTERM to each of them."""
END: Final = signal.SIGUSR1
"""Kill the child; the rest gets SIGTERM, LEFTOVER_SECONDS, SIGKILL."""
KILL: Final = signal.SIGUSR2
"""Kill everything now."""
LEFTOVER_SECONDS: Final = 2.0

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SIGNALS: Final = (STOP, END, KILL, signal.SIGCHLD)
_LOOK_AGAIN_SECONDS = 0.01


def fork_child(worker: int, channel: int) -> int:
    """Return in a new child, with its keeper's process id; this process stays behind as its keeper,
    without that descriptor, and ends here. Raises OSError."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    _die_with(worker, KILL)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    gc.freeze()  # what both share is not copied by looking for garbage
    keeper = os.getpid()
    child = os.fork()
    if child != 0:
        _keep(child, channel)
    gc.unfreeze()
    os.setsid()
    _die_with(keeper, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    return keeper


def _die_with(parent: int, number: signal.Signals) -> None:
    """Ask the kernel for a signal when the parent dies; leave at once if it has died already."""
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(0)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def _keep(child: int, channel: int) -> NoReturn:
    """Keep the child until it and all that it started are gone, then end as it did."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.close(channel)  # it is the child's alone: its end is the end of the child's words
        status = Keeper(child).run()
    except BaseException as error:  # noqa: BLE001 - it must not return into the child's code
        sys.excepthook(type(error), error, error.__traceback__)
        os._exit(1)  # the child dies with it
    _end_like(status)


class Keeper:
    """Buries the processes of one child, and ends them when it has to."""

    def __init__(self, child: int) -> None:
        self._child = child
        self._status = 0
        self._kill_at: float | None = None  # time.monotonic seconds
        self._told: set[int] = set()
        self._beyond: set[int] = set()

    def run(self) -> int:
        """Return the child's wait status when no process is left that may be signalled."""
        while self._bury():
            if self._kill_at is not None and not self._end_rest(self._kill_at):
                break
            self._obey()
        return self._status

    def _bury(self) -> bool:
        """Take note of all that have ended; whether there are others."""
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0] != 0:
                self._told.discard(ended[0])
                if ended[0] == self._child:
                    self._status = ended[1]
                    self._end_by(time.monotonic() + LEFTOVER_SECONDS)
        except ChildProcessError:
            return False
        return True

    def _end_by(self, moment: float) -> None:
        self._kill_at = moment if self._kill_at is None else min(moment, self._kill_at)

    def _end_rest(self, kill_at: float) -> bool:
        """One step of the end, which makes orphans of grandchildren, so that all come to be
        children. False when those that are left cannot be signalled."""
        overdue = time.monotonic() >= kill_at
        for pid in children_of(os.getpid()):
            if overdue or pid not in self._told:
                self._signal(pid, signal.SIGKILL if overdue else signal.SIGTERM)
        return not (overdue and self._beyond and children_of(os.getpid()) <= self._beyond)

    def _signal(self, pid: int, number: signal.Signals) -> None:
        """Signal a child and its process group, which can hold descendants of ours alone."""
        self._told.add(pid)
        try:
            os.kill(pid, number)
            group = os.getpgid(pid)
            if group != os.getpgrp():
                os.killpg(group, number)
        except ProcessLookupError:
            return
        except PermissionError:
            self._beyond.add(pid)

    def _obey(self) -> None:
        """Wait for the next order, the end of a process, or the time to go on with the end."""
        number = self._next_signal()
        if number == STOP:
            for pid, parent in descendants_of(os.getpid()):
                self._told.add(pid)
                signal_child(parent, pid, signal.SIGTERM)
        elif number == END and self._kill_at is None:  # else it is ending, or buried
            os.kill(self._child, signal.SIGKILL)
        elif number == KILL:
            self._end_by(0.0)

    def _next_signal(self) -> int | None:
        if self._kill_at is None:
            return signal.sigwaitinfo(_SIGNALS).si_signo
        left = self._kill_at - time.monotonic()
        found = signal.sigtimedwait(_SIGNALS, max(left, _LOOK_AGAIN_SECONDS))
        return None if found is None else found.si_signo


def _end_like(status: int) -> NoReturn:
    """End this process with that wait status."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the child has left one, if any
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
