"""The worker's side of one child process: start it, give it jobs, stop it, be sure it is gone."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import dms_scheduler
from dms_scheduler.children import protocol
from dms_scheduler.children.groups import group_exists, group_lives
from dms_scheduler.children.output import OutputPipe
from dms_scheduler.handler import Outcome, TaskView

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

    def progress(self, values: dict[str, Any], *, advanced: bool) -> None:
        """New progress."""
        ...

    def checkpoint(self, value: Any) -> None:
        """A checkpoint, of at most 64 KiB of JSON, to be stored at once."""
        ...

    def output(self, data: bytes) -> None:
        """A piece of the child's stdout and stderr."""
        ...

    async def room(self) -> None:
        """Return when more lines can be taken; the child waits meanwhile."""
        ...


class Child:
    """One warm child process. `start` makes it; it runs one job at a time; `kill` ends it."""

    def __init__(self, settings: ChildSettings) -> None:
        self._settings = settings
        self._ours, self._theirs = socket.socketpair()
        self._pipe = OutputPipe()
        self._process: asyncio.subprocess.Process | None = None
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
        """Its process id, which is its process group's too; 0 before the start."""
        return 0 if self._process is None else self._process.pid

    @property
    def usable(self) -> bool:
        """Whether it may run another job."""
        alive = self._process is not None and self._process.returncode is None
        return alive and not self._told_to_stop and self._jobs < self._settings.jobs_per_child

    async def run(self, view: TaskView, deadline: float, events: JobEvents) -> Outcome:
        """Run one job. Raises ChildDied; every word of the child has reached `events` by then."""
        self._jobs += 1
        self._running = True
        self._pipe.sink = events.output
        ending = asyncio.create_task(self._end_words())
        try:
            self._send({"kind": "run", "task": view.model_dump(mode="json"), "deadline": deadline})
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

    def stop(self, reason: str) -> None:
        """Ask the job to end: a message to the handler, SIGTERM to the whole process group."""
        self._told_to_stop = True
        self._send({"kind": "cancel", "reason": reason})
        self._signal(signal.SIGTERM)

    async def kill(self) -> None:
        """SIGKILL the process group, and return when every process of it is gone. What it said
        before is still heard by a `run` that listens, which closes the channel then."""
        self._told_to_stop = True
        if self._process is not None:
            self._signal(signal.SIGKILL)
            await self._process.wait()
            await self._group_gone()
        self._gone = True
        if not self._running:
            self._close()

    async def _end_words(self) -> None:
        """When the process has ended, let its words end too: after what is in the channel comes
        the end, even if a process that escaped from the group still holds the other side."""
        if self._process is not None:
            await self._process.wait()
            with contextlib.suppress(OSError):
                self._ours.shutdown(socket.SHUT_RD)

    async def _spawn(self) -> None:
        arguments = ["-P", "-m", "dms_scheduler.children.child", str(self._theirs.fileno())]
        self._process = await asyncio.create_subprocess_exec(
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
        if message is None:
            raise ChildError(f"{await self._cause()}; it wrote: {self._pipe.tail()}")
        if message["kind"] != "ready":
            raise ChildError(str(message.get("error", message)))

    async def _until_end(self, events: JobEvents) -> Outcome:
        while (message := await self._receive()) is not None:
            if message["kind"] == "end":
                return Outcome(**message["outcome"])
            if message["kind"] == "log":
                events.log(message["message"])
                await events.room()
            elif message["kind"] == "progress":
                events.progress(message["values"], advanced=message["advanced"])
            elif message["kind"] == "checkpoint":
                events.checkpoint(message["value"])
        raise ChildDied(await self._cause())

    async def _receive(self) -> dict[str, Any] | None:
        if self._reader is None:
            return None
        try:
            return await protocol.read(self._reader)
        except (ValueError, json.JSONDecodeError) as error:
            self._signal(signal.SIGKILL)
            raise ChildDied(f"the child's words make no sense: {error}") from error

    async def _cause(self) -> str:
        """How the process ended; one that only closed its channel is ended now."""
        process = self._process
        if process is None:
            return "the child process was never started"
        try:
            async with asyncio.timeout(_STUBBORN_SECONDS):
                await process.wait()
        except TimeoutError:
            return "the child process closed its channel to the worker"
        code = process.returncode
        if code is not None and code < 0:
            guess = " (out of memory?)" if -code == signal.SIGKILL else ""
            return f"the child process was killed by signal {-code} {_name(-code)}{guess}"
        return f"the child process left with exit code {code} in the middle of the task"

    def _send(self, message: dict[str, Any]) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(protocol.encode(message))

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    async def _group_gone(self) -> None:
        """The group outlives its leader as long as a grandchild of ours lives."""
        waited = 0.0
        while group_exists(self.pid) and await asyncio.to_thread(group_lives, self.pid):
            await asyncio.sleep(_POLL_SECONDS)
            waited += _POLL_SECONDS
            if waited > _STUBBORN_SECONDS:
                logger.warning(
                    "A killed process does not end",
                    extra={"action": "child.stuck", "process_group": self.pid},
                )
                waited = 0.0
            self._signal(signal.SIGKILL)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._ours.close()
        self._theirs.close()
        self._pipe.close()


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return ""
