"""The executors of a move, as the process that started them sees them: forked, fed, stopped."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import time
import warnings
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from dms_scheduler.movers.contract import Control, MoveRequest
from dms_scheduler.movers.errors import FileProblem, MoverError
from dms_scheduler.movers.guard import Guard
from dms_scheduler.movers.native.batches import Batch, Folder
from dms_scheduler.movers.native.bigfiles import BigFile, BigFiles, Step
from dms_scheduler.movers.native.board import Board
from dms_scheduler.movers.native.chain import Chain
from dms_scheduler.movers.native.channel import Message, Unpacker, packed, read_some
from dms_scheduler.movers.native.executor import Setup, executor_main, read_done
from dms_scheduler.movers.native.meter import Meter
from dms_scheduler.movers.native.parts import discard
from dms_scheduler.movers.native.records import Done, Failure, FilePlan, Outcome
from dms_scheduler.movers.oserrors import reason_of
from dms_scheduler.movers.patterns import temporary_name
from dms_scheduler.movers.results import ActiveFile

_TURN_SECONDS = 0.03
_MORE_SECONDS = 0.5  # a move that is over by then starts no more processes than can run at once
_QUEUED = 2  # jobs an executor has at most, so that it never waits for the next one
_STOP_SECONDS = 1.0
_KILL_SECONDS = 2.0
_DIED = "a process of this move died; run the task again, it goes on from here"

Job = Batch | Step
Take = Callable[[Batch, Done], None]
TakeBig = Callable[[BigFile, Outcome | Failure], None]


class Lost(MoverError):
    """A process of this move died."""

    error_class = "executor_lost"
    retryable = True


class _Process:
    """One executor: its pipes, and the jobs that it has."""

    def __init__(self, slot: int, pid: int, orders: int, answers: int) -> None:
        self.slot = slot
        self.pid = pid
        self.orders = orders
        self.answers = answers
        self.outbox = bytearray()
        self.unpacker = Unpacker()
        self.jobs: dict[int, Job] = {}
        self.ended = False

    def send(self) -> None:
        """Write as much of the outbox as the pipe takes."""
        with suppress(BlockingIOError, BrokenPipeError):
            while self.outbox:
                del self.outbox[: os.write(self.orders, self.outbox)]

    def close(self) -> None:
        for fd in (self.orders, self.answers):
            os.close(fd)


class Executors:
    """Up to `limit` processes; used by one thread. Leave it by `stop`, after `finish` if all went
    well."""

    def __init__(
        self,
        request: MoveRequest,
        tops: tuple[int, int],
        control: Control,
        guard: Guard,
        meter: Meter,
        take: Take,
        take_big: TakeBig,
    ) -> None:
        """`tops` are the descriptors of source and destination; `take` gets what became of each
        batch, `take_big` of each big file."""
        self._limit = request.options.transfers
        self._bandwidth = request.options.bandwidth
        self._control = control
        self._guard = guard
        self._meter = meter
        self._take = take
        self._waiting: deque[Job] = deque()
        self._big = BigFiles(
            request.options.retries,
            self._limit + 1,
            self._waiting.append,
            take_big,
            self._discard,
        )
        self._board = Board(self._limit)
        self._setup = Setup(request, *tops, self._board, ctypes.CDLL(None, use_errno=True))
        self._processes: list[_Process] = []
        self._poll = select.poll()
        self._number = 0
        self._begun = time.monotonic()
        try:
            self._pump()
        except BaseException:
            self._board.close()
            raise
        meter.watch(self._active)

    def _active(self) -> tuple[ActiveFile, ...]:
        return tuple(self._board.active())

    def submit(self, batch: Batch) -> None:
        """Hand a batch over, waiting for an executor that has room."""
        self._waiting.append(batch)
        self._feed()
        self.turn(0)
        while self._waiting:
            self.turn(_TURN_SECONDS)

    def submit_big(self, folder: Folder, plan: FilePlan) -> None:
        """Begin a big file, waiting for an executor that has room."""
        while self._big.full:
            self.turn(_TURN_SECONDS)
        self._big.start(folder, plan)
        self._feed()
        while self._waiting:
            self.turn(_TURN_SECONDS)

    def _feed(self) -> None:
        while self._waiting and (process := self._with_room(self._waiting[0])):
            job = self._waiting.popleft()
            self._number += 1
            kind = "batch" if isinstance(job, Batch) else "step"
            process.jobs[self._number] = job
            process.outbox += packed((kind, self._number, job.message()))
            process.send()

    def finish(self) -> None:
        """Wait until everything that was submitted is done."""
        while self._waiting or any(process.jobs for process in self._processes):
            self.turn(_TURN_SECONDS)
        self._pump()

    def turn(self, seconds: float) -> None:
        """Take what executors have to say, waiting at most that long for the first.

        Raises:
            Lost: one of them died; and whatever stops the run.

        """
        self._pump()
        self._feed()
        for process, events in self._events(seconds):
            if events & select.POLLOUT:
                process.send()
            if events & (select.POLLIN | select.POLLHUP):
                self._hear(process)

    def _events(self, seconds: float) -> list[tuple[_Process, int]]:
        by_fd: dict[int, _Process] = {}
        for process in self._processes:
            by_fd[process.answers] = by_fd[process.orders] = process
            wanted = select.POLLOUT if process.outbox else 0
            self._poll.register(process.orders, wanted)
        events = self._poll.poll(seconds * 1000)
        return [
            (by_fd[fd], event & (select.POLLOUT if fd == by_fd[fd].orders else ~select.POLLOUT))
            for fd, event in events
        ]

    def _hear(self, process: _Process) -> None:
        data = read_some(process.answers)
        if not data:
            raise Lost(_DIED)
        for message in process.unpacker.feed(data):
            self._answer(process, message)

    def _answer(self, process: _Process, message: Message) -> None:
        if message[0] == "crash":
            text = f"a process of this move failed: {message[1]}"
            raise Lost(text)
        job = process.jobs.pop(message[1])
        if not isinstance(job, Batch):
            self._big.take(job, message[2])
            return
        done = read_done(message[2], message[3])
        self._take(job, done)
        if done.handled < job.count:  # it ends, and says why next or not at all
            raise Lost(_DIED)

    def _pump(self) -> None:
        """Hand orders down and counts up."""
        self._guard.check()
        self._board.allow_until(self._control.deadline)
        wanted = self._control.bandwidth
        rate = (self._bandwidth if wanted is None else wanted) or 0
        if rate != self._board.bucket.rate:
            self._board.bucket.limit_to(rate)
        self._board.count_into(self._meter)

    def _with_room(self, job: Job) -> _Process | None:
        idle = [process for process in self._processes if not process.jobs]
        if idle:
            return idle[0]
        if len(self._processes) < self._most_for(job):
            return self._fork()
        least = min(self._processes, key=lambda process: len(process.jobs))
        return least if len(least.jobs) < _QUEUED else None

    def _most_for(self, job: Job) -> int:
        """Return how many processes there may be by now: more than processors pay where they
        wait for storage, but of small files only once that has been longer than they take to
        start."""
        if not isinstance(job, Batch) or time.monotonic() >= self._begun + _MORE_SECONDS:
            return self._limit
        return min(self._limit, len(os.sched_getaffinity(0)))

    def _fork(self) -> _Process:
        orders_read, orders_write = os.pipe()
        answers_read, answers_write = os.pipe()
        parent, slot = os.getpid(), len(self._processes)
        try:
            pid = _fork()
        except OSError as error:
            for fd in (orders_read, orders_write, answers_read, answers_write):
                os.close(fd)
            message = f"no process could be started: {reason_of(error)}; lower transfers"
            raise MoverError(message, error_class="no_processes", retryable=True) from error
        if pid == 0:
            for process in self._processes:
                process.close()
            os.close(orders_write)
            os.close(answers_read)
            executor_main(self._setup, slot, orders_read, answers_write, parent)
        os.close(orders_read)
        os.close(answers_write)
        os.set_blocking(orders_write, False)
        process = _Process(slot, pid, orders_write, answers_read)
        self._processes.append(process)
        self._poll.register(process.answers, select.POLLIN)
        return process

    def stop(self) -> None:
        """Let all executors end, and kill those that do not; returns when they are gone.

        One that hangs in the kernel is left behind, killed: it changes nothing any more.
        """
        self._board.stop()
        for process in self._processes:
            os.close(process.orders)
        end = time.monotonic() + _STOP_SECONDS
        for process in self._processes:
            self._hear_last(process, end)
        for process in self._processes:
            os.close(process.answers)
            self._end(process, end)
        self._board.count_into(self._meter)
        if not _comes_again(self._guard.cause):
            self._big.abandon()
        self._meter.watch()
        self._board.close()

    def _hear_last(self, process: _Process, end: float) -> None:
        """Take what it had done before it stopped."""
        poll = select.poll()
        poll.register(process.answers, select.POLLIN)
        while poll.poll(max(0.0, end - time.monotonic()) * 1000):
            data = read_some(process.answers)
            if not data:
                return
            for message in process.unpacker.feed(data):
                with suppress(MoverError):  # the first reason to end is the one to hear of
                    self._answer(process, message)

    def _end(self, process: _Process, end: float) -> None:
        if not _gone(process.pid, end):
            os.kill(process.pid, signal.SIGKILL)
            _gone(process.pid, end + _KILL_SECONDS)
        number = self._board.slots[process.slot].held
        if number:
            self._remove(process, number)

    def _discard(self, folder: Folder, target: str) -> None:
        """Remove the copy in parts of a big file."""
        with Chain(self._setup.target_fd) as chain, suppress(OSError, FileProblem):
            fd = chain.open_known(folder.path, folder.target)
            discard(fd, self._setup.request.task_id, target)

    def _remove(self, process: _Process, number: int) -> None:
        """Remove the temporary file of a process that was killed."""
        request = self._setup.request
        name = temporary_name(request.task_id, request.epoch, number)
        with Chain(self._setup.target_fd) as chain:
            batches = [job for job in process.jobs.values() if isinstance(job, Batch)]
            for batch in batches:
                for folder, _ in batch.groups:
                    with suppress(OSError, FileProblem):  # not in this one
                        os.unlink(name, dir_fd=chain.open_known(folder.path, folder.target))


def _comes_again(cause: BaseException | None) -> bool:
    """Say whether another attempt will want what is there of big files."""
    return isinstance(cause, MoverError) and cause.retryable


def _gone(pid: int, end: float) -> bool:
    """Reap a process; say if it has ended by the time `end`."""
    while True:
        try:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return True
        except ChildProcessError:  # reaped by a handler of the process that we run in
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(0.005)


def _fork() -> int:
    with warnings.catch_warnings():
        # Of threads in the parent: an executor uses none of what they may hold, see there.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()
