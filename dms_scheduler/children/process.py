"""The worker's side of one child process: start it, give it jobs, stop it, be sure it is gone."""

import asyncio
import contextlib
import logging
import os
import select
import signal
import socket
import sys
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import dms_scheduler
from dms_scheduler.children import keeper, protocol
from dms_scheduler.children.output import OutputPipe
from dms_scheduler.children.tree import hold
from dms_scheduler.handler import Outcome, TaskView
from dms_scheduler.report import Block

logger = logging.getLogger(__name__)

_PACKAGE_ROOT = str(Path(dms_scheduler.__file__).resolve().parent.parent)
_POLL_SECONDS = 0.02
_STUBBORN_SECONDS = 5.0


class ChildError(Exception):
    """Base of what goes wrong between a worker and its child processes."""


class ChildDied(ChildError):
    """The child's process ended before its job did; the message says how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSettings:
    """What every child of a pool is started with. `memory_bytes` is RLIMIT_DATA."""

    modules: tuple[str, ...] = ()
    entry_points: bool | Sequence[str] = False
    data_roots: tuple[str, ...] = ()
    memory_bytes: int = 2 * 1024**3
    start_seconds: float = 60.0
    jobs_per_child: int = 100


class JobEvents(Protocol):
    """Where a running job's words go; nothing here waits but `room`."""

    def log(self, message: str) -> None:
        """A line for the task's log."""
        ...

    def progress(self, values: dict[str, Any] | None, *, advanced: bool) -> None:
        """New progress, fit to be stored; None leaves what there is."""
        ...

    def checkpoint(self, value: Any) -> None:
        """A checkpoint, of at most 64 KiB of JSON, to be stored at once."""
        ...

    def report(self, block: Block) -> None:
        """Lines for the task's report."""
        ...

    def output(self, data: bytes) -> None:
        """A piece of the child's stdout and stderr."""
        ...

    async def room(self) -> None:
        """Return when more lines and blocks can be taken; the child waits meanwhile."""
        ...


class Child:
    """One warm child process with its keeper, which is what the worker itself has started.

    `start` makes it; it runs one job at a time; `end` or `kill` ends it, with all that its jobs
    left running.
    """

    def __init__(self, settings: ChildSettings) -> None:
        self._settings = settings
        self._ours, self._theirs = socket.socketpair()
        self._pipe = OutputPipe()
        self._keeper: asyncio.subprocess.Process | None = None
        self._pid = 0
        self._held: int | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._told_to_stop = False
        self._running = False
        self._gone = False
        self._jobs = 0

    @classmethod
    async def start(cls, settings: ChildSettings) -> "Child":
        """A child that has imported the task modules; raises ChildError, and leaves no process."""
        child = cls(settings)
        try:
            async with asyncio.timeout(settings.start_seconds):
                await child._spawn()
                await child._set_up()
        except TimeoutError as error:
            await child.kill()
            raise ChildError(
                f"a child process was not ready within {settings.start_seconds:g} s"
            ) from error
        except BaseException:
            await child.kill()
            raise
        return child

    @property
    def pid(self) -> int:
        """The process id that handlers see; 0 before the start."""
        return self._pid

    @property
    def usable(self) -> bool:
        """Whether it may run another job."""
        alive = self._keeper is not None and self._keeper.returncode is None
        heard = self._reader is not None and not self._reader.at_eof()
        fresh = self._jobs < self._settings.jobs_per_child
        return alive and heard and fresh and not self._told_to_stop

    def run(
        self, view: TaskView, deadline: float, events: JobEvents
    ) -> Coroutine[Any, Any, Outcome]:
        """Start one job at once, so that what it is told next arrives after it; await its end.

        Awaiting raises ChildDied; every word of the child has reached `events` by then.
        """
        self._jobs += 1
        self._running = True
        self._pipe.sink = events.output
        self._send({"kind": "run", "task": view.model_dump(mode="json"), "deadline": deadline})
        return self._run(events)

    async def _run(self, events: JobEvents) -> Outcome:
        ending = asyncio.create_task(self._end_words())
        try:
            return await self._until_end(events)
        finally:
            ending.cancel()
            self._pipe.drain()
            self._pipe.sink = None
            self._running = False
            if self._gone:
                self._close()

    def deadline(self, at: float) -> None:
        """Tell the job until when the lease holds (time.monotonic seconds)."""
        self._send({"kind": "deadline", "at": at})

    def adjust(self, values: dict[str, Any]) -> None:
        """Tell the job what somebody changed about its task: all that holds now."""
        self._send({"kind": "adjust", "values": values})

    def stop(self, reason: str, *, ends_task: bool = True) -> None:
        """Ask the job to end: a message to the handler, SIGTERM to every process of it."""
        self._told_to_stop = True
        self._send({"kind": "cancel", "reason": reason, "ends_task": ends_task})
        self._order(keeper.STOP)

    async def end(self) -> None:
        """The job is over, and the child goes: what the job left running gets SIGTERM, and SIGKILL
        two seconds later. Returns when no process is left."""
        await self._until_gone(keeper.END)

    async def kill(self) -> None:
        """SIGKILL every process, and return when none is left. What they said before is still
        heard by a `run` that listens, which closes the channel then."""
        await self._until_gone(keeper.KILL)

    async def _until_gone(self, order: signal.Signals) -> None:
        self._told_to_stop = True
        if self._keeper is not None:
            self._order(order)
            await self._keeper_gone(self._keeper)
            await self._child_gone()
        self._gone = True
        if not self._running:
            self._close()

    async def _end_words(self) -> None:
        """When all processes have ended, let their words end too: after what is in the channel
        comes the end, even if somebody out of the keeper's reach holds the other side."""
        if self._keeper is not None:
            await self._keeper.wait()
            with contextlib.suppress(OSError):
                self._ours.shutdown(socket.SHUT_RD)

    async def _spawn(self) -> None:
        arguments = ["-P", "-m", "dms_scheduler.children.child", str(self._theirs.fileno())]
        self._keeper = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            str(os.getpid()),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=self._pipe.write_end,
            stderr=self._pipe.write_end,
            pass_fds=(self._theirs.fileno(),),
            start_new_session=True,
            env=self._environment(),
        )
        self._theirs.close()
        self._pipe.start()
        self._reader, self._writer = await asyncio.open_connection(sock=self._ours)

    def _environment(self) -> dict[str, str]:
        """The worker's own, less the token that no handler needs."""
        environment = {k: v for k, v in os.environ.items() if k != "DMS_OPERATOR_TOKEN"}
        paths = [_PACKAGE_ROOT, environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        environment["DMS_DATA_ROOTS"] = os.pathsep.join(self._settings.data_roots)
        return environment

    async def _set_up(self) -> None:
        self._send(
            {
                "kind": "setup",
                "modules": self._settings.modules,
                "entry_points": self._settings.entry_points,
                "sys_path": list(sys.path),
                "memory_bytes": self._settings.memory_bytes,
            }
        )
        message = await self._receive()
        if isinstance(message, protocol.Broken):
            raise ChildError(message.error)
        if not isinstance(message, protocol.Ready):
            raise ChildError(f"{await self._cause()}; it wrote: {self._pipe.tail()}")
        self._pid = message.pid
        with contextlib.suppress(ProcessLookupError):  # it has died: the first job will find out
            self._held = hold(self._pid)

    async def _until_end(self, events: JobEvents) -> Outcome:
        while (message := await self._receive()) is not None:
            match message:
                case protocol.End():
                    return message.outcome
                case protocol.Log():
                    events.log(message.message)
                    await events.room()
                case protocol.Progress():
                    events.progress(message.values, advanced=message.advanced)
                case protocol.Reported():
                    events.report(message.block)
                    await events.room()
                case protocol.Saved():
                    events.checkpoint(message.value)
                case _:
                    raise self._nonsense(f"{message!r:.100} in the middle of a task")
        raise ChildDied(await self._cause())

    async def _receive(self) -> protocol.Said | None:
        if self._reader is None:
            return None
        try:
            return await protocol.read(self._reader)
        except ValueError as error:
            raise self._nonsense(str(error)) from error

    def _nonsense(self, what: str) -> ChildDied:
        """What it says after that cannot be told from nonsense either, so it goes."""
        self._told_to_stop = True
        self._order(keeper.KILL)
        return ChildDied(f"the child's words make no sense: {what}")

    async def _cause(self) -> str:
        """How the process ended; one that only closed its channel is ended now."""
        process = self._keeper
        if process is None:
            return "the child process was never started"
        try:
            async with asyncio.timeout(keeper.LEFTOVER_SECONDS + _STUBBORN_SECONDS):
                await process.wait()
        except TimeoutError:
            return "the child process closed its channel to the worker"
        code = process.returncode
        if code == protocol.CHANNEL_LOST:
            return (
                "the handler closed its process's channel to the worker: let it close only "
                "descriptors that it has opened"
            )
        if code is not None and code < 0:
            guess = " (out of memory?)" if -code == signal.SIGKILL else ""
            return f"the child process was killed by signal {-code} {_name(-code)}{guess}"
        return f"the child process left with exit code {code} in the middle of the task"

    def _send(self, message: dict[str, Any]) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(protocol.encode(message))

    def _order(self, order: signal.Signals) -> None:
        """Tell the keeper, even if somebody has stopped it."""
        if self._keeper is not None:
            with contextlib.suppress(ProcessLookupError):
                self._keeper.send_signal(order)
                self._keeper.send_signal(signal.SIGCONT)

    async def _keeper_gone(self, process: asyncio.subprocess.Process) -> None:
        """The keeper goes when all that it keeps has gone."""
        while True:
            try:
                async with asyncio.timeout(keeper.LEFTOVER_SECONDS + _STUBBORN_SECONDS):
                    await process.wait()
                return
            except TimeoutError:
                extra = {"action": "child.stuck", "pid": self._pid, "keeper": process.pid}
                logger.warning("A killed process does not end", extra=extra)

    async def _child_gone(self) -> None:
        """The child may outlive a keeper that somebody has killed, but only for a moment."""
        if self._held is None:
            return
        poll = select.poll()
        poll.register(self._held, select.POLLIN)
        while not poll.poll(0):  # noqa: ASYNC110 - nothing in this process tells of its end
            await asyncio.sleep(_POLL_SECONDS)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._ours.close()
        self._theirs.close()
        self._pipe.close()
        if self._held is not None:
            os.close(self._held)
            self._held = None


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return ""
