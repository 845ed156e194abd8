"""A forked process that copies batches of files; what it is not: a worker of DMS.

It was forked from a process with threads, so it uses system calls alone: no logging, no standard
streams, nothing that another thread may have locked. It dies with its parent.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from dms_scheduler.movers.contract import MoveRequest, Preserve
from dms_scheduler.movers.guard import Stopped
from dms_scheduler.movers.native.batches import Batch, BatchRunner
from dms_scheduler.movers.native.bigfiles import StepRunner
from dms_scheduler.movers.native.board import Board, SharedBrake
from dms_scheduler.movers.native.chain import Chain
from dms_scheduler.movers.native.channel import Message, Unpacker, packed, read_some, write_whole
from dms_scheduler.movers.native.filecopy import TemporaryNames
from dms_scheduler.movers.native.handling import make_handler
from dms_scheduler.movers.native.parts import PartCopier
from dms_scheduler.movers.native.records import Done, Failure, Outcome

_PR_SET_PDEATHSIG = 1
_FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Setup:
    """What all executors of a move share."""

    request: MoveRequest
    source_fd: int
    target_fd: int
    board: Board
    libc: ctypes.CDLL


def executor_main(setup: Setup, slot: int, orders: int, answers: int, parent: int) -> NoReturn:
    """Work until the orders end, in a process that was just forked; never returns."""
    code = 1
    try:
        _settle_in(setup, parent)
        _Executor(setup, slot, answers).serve(orders)
        code = 0
    except Stopped:
        code = 0
    except BaseException as error:  # noqa: BLE001 - told to the parent, which raises it
        with suppress(OSError):
            write_whole(answers, packed(("crash", repr(error))))
    finally:
        os._exit(code)


def _settle_in(setup: Setup, parent: int) -> None:
    setup.libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the parent hears them, and stops this one in order
    if Preserve.MODE in setup.request.options.preserve:
        os.umask(0)  # a new file gets the very mode that it is made with
    gc.disable()  # it would touch, and so copy, all memory that is shared with the parent


class _Executor:
    def __init__(self, setup: Setup, slot: int, answers: int) -> None:
        ledger, board = setup.board.slots[slot], setup.board
        names = TemporaryNames(setup.request, slot + 1, len(board.slots) + 1)
        brake = SharedBrake(board)
        handler, copier = make_handler(
            setup.request, brake, ledger, board.bucket, names, exact_modes=True
        )
        self._answers = answers
        tops = (Chain(setup.source_fd), Chain(setup.target_fd))
        self._batches = BatchRunner(handler, *tops)
        self._steps = StepRunner(PartCopier(setup.request, copier, brake, ledger), *tops)

    def serve(self, orders: int) -> None:
        unpacker = Unpacker()
        while data := read_some(orders):
            for message in unpacker.feed(data):
                self._run(message)

    def _run(self, message: Message) -> None:
        kind, number, job = message
        if kind == "step":
            write_whole(self._answers, packed(("step", number, self._steps.run(job))))
            return
        batch, done = Batch.read(job), Done()
        try:
            self._batches.run(batch, done)
        finally:
            unusual = [_told(place, result) for place, result in done.unusual]
            write_whole(self._answers, packed(("batch", number, done.handled, unusual)))


def _told(place: int, result: Outcome | Failure) -> Message:
    if isinstance(result, Failure):
        return (place, _FAILED, *result)
    return (place, *result)


def read_done(handled: int, unusual: list[Message]) -> Done:
    """Return what an executor told of a batch."""
    return Done(handled, [_result(*told) for told in unusual])


def _result(place: int, action: str, *rest: Any) -> tuple[int, Outcome | Failure]:
    if action == _FAILED:
        return place, Failure(*rest)
    return place, Outcome(action, *rest)
