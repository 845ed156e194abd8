"""The child process itself, which a worker starts: `-m dms_scheduler.children.child FD PARENT`.

It forks at once: the first process stays as the keeper, which ends what tasks leave running. The
second one imports the task modules once, then runs one handler at a time in its main thread. It
dies with its keeper, and thus with its worker, keeps to its memory limit, and tells a handler when
to stop: by a message, by SIGTERM, or because its worker was not heard of before the lease's
deadline.
"""

import base64
import contextlib
import logging
import os
import queue
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from app.tasks import UNSET, LeaseLost, TaskCancelled, TaskLoadError, get_definition
from dms_scheduler.checkpoint import SavedCheckpoint
from dms_scheduler.children import protocol
from dms_scheduler.children.keeper import fork_child
from dms_scheduler.children.tree import children_of, parent_of
from dms_scheduler.definitions import load_definitions
from dms_scheduler.handler import MOST_LINE_CHARACTERS, Outcome, TaskView, call_blocking
from dms_scheduler.report import Block, Reporter
from dms_scheduler.shown import ShownProgress

_PROGRESS_SECONDS = 0.2
_TOLD_SECONDS = 0.5


class Control:
    """One job's TaskControl, on the child's side of the channel."""

    def __init__(self, link: "Link", deadline: float, view: TaskView) -> None:
        self._link = link
        self._checkpoint = SavedCheckpoint(view.checkpoint)
        self._adjusted: Mapping[str, Any] = view.adjusted
        self._reporter = Reporter(self._send_block, attempt=view.attempts, epoch=view.epoch)
        self._saving = threading.Lock()
        self._shown = ShownProgress(self.log)
        self._reason: str | None = None
        self._cancelled = False
        self._ends_task = False
        self._told = threading.Event()
        self._watchers: list[Callable[[], object]] = []
        self._lock = threading.Lock()
        self.deadline_monotonic = deadline

    @property
    def cancelled(self) -> bool:
        """Whether the worker asked for the end."""
        return self._cancelled

    def check(self) -> None:
        """Raise TaskCancelled or LeaseLost when the handler must stop."""
        if self._cancelled:
            # SIGTERM may overtake the message that says why.
            if not self._told.wait(_TOLD_SECONDS):
                self._told.set()
            reason = self._reason or "the task was told to stop"
            raise TaskCancelled(reason, ends_task=self._ends_task)
        if time.monotonic() >= self.deadline_monotonic:
            raise LeaseLost(
                "this worker could not renew the task's lease in time, so another one may run the "
                "task: this attempt changes nothing more"
            )

    def progress(self, values: dict[str, Any], /, *, advanced: bool = False) -> None:
        """Keep the newest values; a thread sends them a few times a second. Raises TasksError for
        what is no JSON object."""
        self._link.progress(self._shown.take(values), advanced=advanced)

    def log(self, message: str) -> None:
        """Send one line; waits when the worker cannot keep up, for lines are not dropped."""
        most = MOST_LINE_CHARACTERS + 1  # one more than fits, so that the journal marks the cut
        self._link.send({"kind": "log", "message": str(message)[:most]})

    def checkpoint(self, value: Any = UNSET, /) -> Any:
        """Send what is to be saved at once: the worker has it even if this process dies now."""
        if value is not UNSET:
            with self._saving:  # threads: what is sent last is what is read here
                saved = self._checkpoint.save(value)
                self._link.send({"kind": "checkpoint", "value": saved})
        return self._checkpoint.read()

    def report(self, line: Mapping[str, Any], /) -> None:
        """Keep one line; a thread compresses and sends them. Waits when the worker cannot keep up.
        Raises TasksError for what is no JSON object."""
        self._reporter.add(line)

    @property
    def adjusted(self) -> Mapping[str, Any]:
        """What somebody changed about the task."""
        return self._adjusted

    def adjust(self, values: dict[str, Any]) -> None:
        """Take what somebody changed, all of it."""
        self._adjusted = values

    def flush(self) -> None:
        """Send the rest of the report, at the handler's end."""
        self._reporter.close()

    def forked(self) -> None:
        """Report nothing, in a fork that the handler made."""
        self._reporter.forked()

    def _send_block(self, block: Block) -> None:
        data = base64.b64encode(block.data).decode("ascii")
        self._link.send(
            {"kind": "report", "data": data, "lines": block.lines, "failed": block.failed}
        )

    def on_cancel(self, call: Callable[[], object]) -> None:
        """Call `call` when the worker asks for the end, or now."""
        with self._lock:
            if not self._cancelled:
                self._watchers.append(call)
                return
        call()

    def flag(self) -> None:
        """What a signal handler may do: set the flag, take no lock."""
        self._cancelled = True

    def cancel(self, reason: str | None, *, ends_task: bool) -> None:
        """Set the flag and wake whoever waits for it."""
        self._reason, self._ends_task = reason, ends_task
        self._told.set()
        with self._lock:
            self._cancelled = True
            watchers, self._watchers = self._watchers, []
        for call in watchers:
            with contextlib.suppress(RuntimeError):  # its event loop may have closed just now
                call()


class Link:
    """The child's end of the channel: a reader thread, a sender of progress, and plain sends."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._sending = threading.Lock()
        self._progress: tuple[dict[str, Any] | None, bool] | None = None
        self._progress_lock, self._flushing = threading.Lock(), threading.Lock()
        self._fresh = threading.Event()
        self.jobs: queue.SimpleQueue[tuple[TaskView, Control] | None] = queue.SimpleQueue()
        self.control: Control | None = None

    def start(self) -> None:
        """Start both threads; they end with the process."""
        os.register_at_fork(after_in_child=self._renew_locks)
        for run in (self._read, self._send_progress):
            threading.Thread(target=run, name=f"dms{run.__name__}", daemon=True).start()

    def _renew_locks(self) -> None:
        """A fork that the handler makes may log too, but not wait for threads it does not have."""
        self._sending, self._progress_lock = threading.Lock(), threading.Lock()
        self._flushing = threading.Lock()
        if self.control is not None:
            self.control.forked()

    def send(self, message: dict[str, Any]) -> None:
        """Send one message; a worker that is gone makes it a no-op, for its end is ours too."""
        frame = protocol.encode(message)
        with self._sending, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._channel.sendall(frame)

    def progress(self, values: dict[str, Any] | None, *, advanced: bool) -> None:
        """Replace what waits to be sent; "advanced" sticks until it is sent."""
        with self._progress_lock:
            waiting, before = self._progress or (None, False)
            self._progress = (waiting if values is None else values, advanced or before)
        self._fresh.set()

    def flush_progress(self) -> None:
        """Send what waits. On return nothing is under way either: what came after a task's end
        would be taken for the next task's."""
        with self._flushing:
            with self._progress_lock:
                waiting, self._progress = self._progress, None
                self._fresh.clear()
            if waiting is not None:
                self.send({"kind": "progress", "values": waiting[0], "advanced": waiting[1]})

    def _send_progress(self) -> None:
        while True:
            self._fresh.wait()
            self.flush_progress()
            time.sleep(_PROGRESS_SECONDS)

    def _read(self) -> None:
        message = self._next()
        while message is not None:
            self._handle(message)
            message = self._next()
        if self.control is not None:
            self.control.deadline_monotonic = 0.0  # no worker, no lease
        with contextlib.suppress(OSError):  # the keeper ends us; somebody may have stopped it
            os.kill(os.getppid(), signal.SIGCONT)
        self.jobs.put(None)

    def _next(self) -> dict[str, Any] | None:
        try:
            return protocol.receive(self._channel)
        except (OSError, ValueError):
            return None

    def _handle(self, message: dict[str, Any]) -> None:
        control = self.control
        if message["kind"] == "run":
            view = TaskView.model_validate(message["task"])
            self.control = Control(self, float(message["deadline"]), view)
            self.jobs.put((view, self.control))
        elif message["kind"] == "deadline" and control is not None:
            control.deadline_monotonic = float(message["at"])
        elif message["kind"] == "adjust" and control is not None:
            control.adjust(message["values"])
        elif message["kind"] == "cancel" and control is not None:
            control.cancel(message["reason"], ends_task=message["ends_task"])


def main(arguments: list[str]) -> int:
    """Live until the worker closes the channel; returns the exit code."""
    descriptor, worker = int(arguments[0]), int(arguments[1])
    keeper = fork_child(worker, descriptor)
    channel = socket.socket(fileno=descriptor)
    channel.set_inheritable(False)
    setup = protocol.receive(channel)
    if setup is None:
        return 0
    link = Link(channel)
    if not _warm_up(link, setup):
        return 1
    link.start()
    link.send({"kind": "ready", "pid": os.getpid()})
    clean = _traces(keeper)
    while (job := link.jobs.get()) is not None:
        outcome = _run(*job)
        if _traces(keeper) != clean:
            outcome = replace(outcome, worn=True)
        try:
            link.flush_progress()
            link.send({"kind": "end", "outcome": outcome.to_json()})
        except OSError:  # the handler has closed it, or put something else in its place
            return protocol.CHANNEL_LOST
    return 0


def _warm_up(link: Link, setup: dict[str, Any]) -> bool:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's to handle
    _prepare_output(sys.stdout, sys.stderr)
    sys.path[:] = setup["sys_path"]
    try:
        load_definitions(setup["modules"], setup["entry_points"])
    except TaskLoadError as error:
        link.send({"kind": "broken", "error": str(error)})
        return False
    _limit_memory(int(setup["memory_bytes"]))
    return True


def _prepare_output(*streams: TextIO) -> None:
    for stream in streams:
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace", line_buffering=True)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(levelname)s:%(name)s:%(message)s"
    )


def _limit_memory(limit: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _run(view: TaskView, control: Control) -> Outcome:
    def on_term(_number: int, _frame: FrameType | None) -> None:
        control.flag()

    signal.signal(signal.SIGTERM, on_term)
    process = os.getpid()
    definition = get_definition(view.service)
    if definition is None:
        return Outcome(kind="failure", error=f"the child process has no task {view.service!r}")
    outcome = call_blocking(definition, view, control)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # the handler may have closed it
            stream.flush()
    control.flush()
    if os.getpid() != process:  # a fork that the handler made: only the process itself answers
        os._exit(0)
    return outcome


def _traces(keeper: int) -> tuple[int, set[int], set[int], str]:
    """What a handler may leave behind: threads, processes, daemons (which the keeper inherits),
    another working directory."""
    own = children_of(os.getpid())  # before the keeper's: what ends meanwhile is found there
    daemons = {pid for pid in children_of(keeper) if parent_of(pid) is not None}
    return threading.active_count(), own, daemons, _directory()


def _directory() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
