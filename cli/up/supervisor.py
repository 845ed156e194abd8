"""The supervisor of `dms-frontend up`: starts the parts in order, restarts them, stops them."""

import os
import queue
import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

from app.core.config import Settings
from cli.errors import CliError, ExitCode, UpError
from cli.output import clean
from cli.up.locks import hold_server
from cli.up.part import Part, describe_exit
from cli.up.plan import FRONTEND, SCHEDULER, SERVER, Plan
from cli.up.ready import probe
from cli.up.witness import why_paused, witness_file

_STOPS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
_START_SECONDS = 60.0
# An earlier `up` that was killed leaves a server that waits for its workers to give back.
_HANDOVER_SECONDS = 60.0
_BACKOFF_FIRST, _BACKOFF_LAST = 0.5, 30.0
_STEADY_SECONDS = 60.0
_LOOK_SECONDS = 0.2
_STOP_SECONDS = 10.0
_HURRY_SECONDS = 2.0
_SERVER_STOP_SECONDS = 60.0


class Stopped(Exception):
    """A signal asked for the end while something was being waited for."""


class _Slot:
    """A part's place: the process that runs there, and when the next one may be started."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.part: Part | None = None
        self.due = 0.0
        self.backoff = _BACKOFF_FIRST


class Supervisor:
    """Runs a plan until it is told to stop. It belongs to the main thread, for signals' sake."""

    def __init__(
        self,
        plan: Plan,
        settings: Settings,
        say: Callable[[str], None],
        look: Callable[[], None] = lambda: None,
    ) -> None:
        self._plan = plan
        self._say = say
        self._look = look
        self._worker_seconds = settings.drain_seconds + settings.term_seconds + _STOP_SECONDS
        self._slots = {
            name: _Slot(name) for name in (SERVER, SCHEDULER, FRONTEND, *plan.worker_names)
        }
        # put() of a SimpleQueue is reentrant: the one queue that a signal handler may use.
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._stopping = 0
        self._lifeline = os.pipe()

    def run(self, started: Callable[[dict[str, int]], None]) -> int:
        """Start all, call `started` with the parts' process ids, watch, stop; the exit code."""
        code = ExitCode.OK
        with self._handlers():
            try:
                self._start_all()
                started({name: slot.part.pid for name, slot in self._slots.items() if slot.part})
                self._watch()
            except Stopped:
                self._say("stopping; what runs is given back, a second Ctrl-C hurries")
            except CliError as error:
                # Said before the parts are stopped, which takes its time.
                self._say(f"error: {error.cause}\n  {error.remedy}".rstrip())
                code = error.code
            finally:
                self._stop_all()
                self._close_lifeline()
        return code

    # -------------------------------------------------------------------------------------- signals
    @contextmanager
    def _handlers(self) -> Generator[None]:
        numbers = (*_STOPS, signal.SIGCHLD)
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals.put(number)

    def _pause(self, seconds: float) -> None:
        """Wait for so long at most; a part's end ends it early, and a stop raises Stopped."""
        self._take_signals(seconds)
        if self._stopping:
            raise Stopped

    def _take_signals(self, seconds: float) -> None:
        """Wait for the first signal, then take all that came."""
        try:
            number = self._signals.get(timeout=seconds)
            while True:
                if number in _STOPS:
                    self._stopping += 1
                number = self._signals.get_nowait()
        except queue.Empty:
            self._look()

    # --------------------------------------------------------------------------------------- starts
    def _start_all(self) -> None:
        plan = self._plan
        self._start_stage([SERVER])
        paused = why_paused(plan.server.url, witness_file(plan.data_dir))
        self._start_stage([SCHEDULER, FRONTEND, *plan.worker_names])
        self._say_if_truncated()
        if paused is not None:
            self._say(f"everything is paused: {clean(paused)}")

    def _start_stage(self, names: list[str]) -> None:
        slots = [self._slots[name] for name in names]
        for slot in slots:
            self._start(slot)
        for slot in slots:
            self._wait_ready(slot)

    def _say_if_truncated(self) -> None:
        part = self._slots[SERVER].part
        warning = self._plan.server.warning(part.log_text()) if part else ""
        if warning:
            self._say(warning)

    def _start(self, slot: _Slot) -> None:
        if slot.name != SERVER:
            slot.part = Part(self._plan.part(slot.name, self._lifeline[1]))
            return
        lock = hold_server(self._plan.data_dir, _HANDOVER_SECONDS, self._wait_for_old_server)
        try:
            slot.part = Part(self._plan.server_part(self._lifeline[0], lock))
        finally:
            os.close(lock)

    def _wait_for_old_server(self, seconds: float) -> None:
        self._pause(seconds)

    def _wait_ready(self, slot: _Slot) -> None:
        """Wait until the part can work; raises UpError when it cannot even start."""
        ready = probe(self._plan, slot.name)
        deadline = time.monotonic() + _START_SECONDS
        while not ready():
            part = slot.part
            code = part.poll() if part else None
            if part is not None and code is not None:
                raise self._did_not_start(part, code)
            if time.monotonic() > deadline:
                raise UpError(
                    f"{slot.name} was not ready within {_START_SECONDS:g} s",
                    f"its log says why: {self._plan.log_dir / slot.name}.log",
                )
            self._pause(0.05)

    def _did_not_start(self, part: Part, code: int) -> UpError:
        if part.name == SERVER:
            repair = f"dms-frontend up --repair --data-dir {self._plan.data_dir}"
            return self._plan.server.failure(part.log_text(), repair)
        return UpError(
            f"{part.name} ended at its start ({describe_exit(code)}): {part.last_words()}",
            f"more in its log: {part.spec.log}",
        )

    # --------------------------------------------------------------------------------------- watch
    def _watch(self) -> None:
        while True:
            for slot in self._slots.values():
                self._look_after(slot)
            self._pause(_LOOK_SECONDS)

    def _look_after(self, slot: _Slot) -> None:
        now = time.monotonic()
        if slot.part is None:
            if now >= slot.due:
                self._restart(slot)
            return
        code = slot.part.poll()
        if code is None:
            return
        if now - slot.part.started >= _STEADY_SECONDS:
            slot.backoff = _BACKOFF_FIRST
        self._give_up_on_damage(slot.part)
        self._say(
            f"{slot.name} (process {slot.part.pid}) ended, {describe_exit(code)}: "
            f"starting it again in {slot.backoff:g} s"
        )
        slot.part.kill_group()  # what it left behind must not work on beside its successor
        slot.part, slot.due = None, now + slot.backoff
        slot.backoff = min(slot.backoff * 2, _BACKOFF_LAST)

    def _give_up_on_damage(self, part: Part) -> None:
        """A server that cannot read its file again will not be helped by another start."""
        if part.name == SERVER and self._plan.server.is_damaged(part.log_text()):
            raise self._did_not_start(part, part.poll() or 0)

    def _restart(self, slot: _Slot) -> None:
        self._start(slot)
        if slot.part is not None:
            self._say(f"{slot.name} runs again: process {slot.part.pid}")

    # ---------------------------------------------------------------------------------------- stops
    def _stop_all(self) -> None:
        """Frontend, scheduler, workers, and the server last; a second signal hurries."""
        self._stopping = max(self._stopping, 1)
        for name in (FRONTEND, SCHEDULER):
            self._stop([name], _STOP_SECONDS)
        self._stop(self._plan.worker_names, self._worker_seconds)
        self._stop([SERVER], _SERVER_STOP_SECONDS)
        self._say("stopped")

    def _stop(self, names: list[str], seconds: float) -> None:
        parts = [part for name in names if (part := self._slots[name].part)]
        for part in parts:
            part.send(signal.SIGTERM)
        hurried = self._stopping > 1
        if hurried:
            seconds = _HURRY_SECONDS
        deadline = time.monotonic() + seconds
        while any(part.poll() is None for part in parts) and time.monotonic() < deadline:
            self._take_signals(0.1)
            if self._stopping > 1 and not hurried:
                hurried = True
                deadline = min(deadline, time.monotonic() + _HURRY_SECONDS)
                for part in parts:
                    part.send(signal.SIGTERM)  # the second one: a worker gives back at once
        for part in parts:
            part.kill_group()

    def _close_lifeline(self) -> None:
        for end in self._lifeline:
            os.close(end)
