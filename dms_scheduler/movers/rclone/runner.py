"""Runs the steps of one task in its rclone process, and listens to the task's control meanwhile."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence

from dms_scheduler.movers.contract import Control
from dms_scheduler.movers.errors import LeaseLost, MoverError, RunnerLost
from dms_scheduler.movers.faults import Fault
from dms_scheduler.movers.guard import Guard
from dms_scheduler.movers.rclone.answers import fields, items
from dms_scheduler.movers.rclone.daemon import CallError, Daemon
from dms_scheduler.movers.rclone.events import Event, Kind
from dms_scheduler.movers.rclone.faults import as_mover_error, classify
from dms_scheduler.movers.rclone.names import plain
from dms_scheduler.movers.rclone.tally import Tally
from dms_scheduler.movers.results import Action, ReportEntry, readable

_PROGRESS_SECONDS = 0.5
_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.05
_STOP_SECONDS = 0.7
_MOST_KEPT_FAILURES = 10_000
_HIDDEN = "***"
_UNFINISHED = re.compile(r"\.[0-9a-f]{8}\.dms-part\.[0-9a-f]{6}\Z")


class JobFailed(Exception):
    """A step failed as a whole; the words are rclone's own, without secrets."""


class Runner:
    """The steps of one task: each a job of rclone, watched until it ends."""

    def __init__(self, control: Control, bandwidth: int | None, secrets: frozenset[str]) -> None:
        """`bandwidth` is the task's own limit in bytes a second."""
        self._control = control
        self.guard = Guard(control)
        self.tally = Tally()
        self.daemon: Daemon | None = None
        self.expects_differences = False
        self.above = ""
        """The folder that paths are told from, beneath which rclone's own begin; "" is the same."""
        self.on_event: Callable[[Event], None] = lambda _: None
        self.clean_up: Callable[[Sequence[str], float], None] = lambda _paths, _end: None
        """Removes what is left of these paths by a monotonic time, after a step was stopped."""
        self._own_bandwidth = bandwidth
        self._bandwidth: int | None = None
        self._secrets = sorted(secrets, key=len, reverse=True)
        self._failures: dict[str, tuple[str, Fault]] = {}
        self._fatal: MoverError | None = None
        self._group = 0
        self._told_at = 0.0

    def shown(self, text: str) -> str:
        """Return `text` without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return text

    def told(self, path: str) -> str:
        """Return how a path is told to people."""
        if path == ".":
            return self.above or path
        return f"{self.above}/{path}" if self.above else path

    def log(self, message: str) -> None:
        """Write a line to the task's log."""
        try:
            self._control.log(readable(self.shown(message)))
        except OSError as error:
            raise RunnerLost(error) from error

    def tell(self, entry: ReportEntry) -> None:
        """Write a line of the task's report; the first ones are named in the answer too."""
        self.tally.keep(entry)
        self.report(entry)

    def report(self, entry: ReportEntry) -> None:
        """Write a line of the task's report."""
        try:
            self._control.report(entry)
        except OSError as error:
            raise RunnerLost(error) from error

    def take(self, event: Event) -> None:
        """Take a line of rclone's log; called by the thread that reads it."""
        if event.kind is not Kind.FAILED or self.expects_differences:
            self.on_event(event)
            return
        fault = classify(event.message)
        if event.path:
            # A file that is on its way has a name of its own, until it is whole.
            path = _UNFINISHED.sub("", event.path)
            self._note_failure(path, self.shown(event.message), fault)
            if fault.fatal and self._fatal is None:
                self._fatal = as_mover_error(self.shown(event.message), path)

    def _note_failure(self, path: str, reason: str, fault: Fault) -> None:
        if len(self._failures) >= _MOST_KEPT_FAILURES:
            self._record(path, reason, fault)
        elif path not in self._failures:
            self._failures[path] = (reason, fault)

    def note_failure(self, path: str, message: str) -> None:
        """Take a failure of one path that a step answered with."""
        self._note_failure(path, self.shown(message), classify(message))

    @property
    def may_pass(self) -> bool:
        """Whether some of the failures may pass, if the step is done again."""
        kept = len(self._failures) < _MOST_KEPT_FAILURES
        return kept and any(fault.retryable for _, fault in self._failures.values())

    @property
    def has_failures(self) -> bool:
        """Whether paths failed in the steps so far."""
        return bool(self._failures or self.tally.failed_count)

    def failed(self, path: str) -> bool:
        """Say whether that path failed in the step that was just done."""
        return path in self._failures

    def forget_failures(self) -> None:
        """Forget the failures of a step that is done again, or was a rehearsal."""
        self._failures.clear()

    def settle_failures(self) -> None:
        """Record the failures of the step that was just done for good."""
        for path, (reason, fault) in self._failures.items():
            self._record(path, reason, fault)
        self._failures.clear()

    def _record(self, path: str, reason: str, fault: Fault) -> None:
        path = plain(self.told(path))
        word, retryable = fault.error_class, fault.retryable
        if self.tally.fail(path, reason, word, retryable=retryable):
            self.log(f"failed: {path}: {reason}")
        self.report(ReportEntry(action=Action.FAILED, path=path, error_class=word, reason=reason))

    def job(self, path: str, parameters: Mapping[str, object]) -> dict[str, object]:
        """Run one step and return its answer.

        Raises:
            JobFailed: rclone could not do it, or not all of it.
            MoverError: the run has to end; and whatever `control.check` raises.

        """
        daemon = self._running()
        self._group += 1
        group = f"dms-{self._group}"
        started = daemon.call(path, {**parameters, "_async": True, "_group": group})
        number = started["jobid"]
        try:
            status = self._watch(daemon, number, group)
        except BaseException as error:
            self._stop(daemon, number, group, at_once=isinstance(error, LeaseLost))
            raise
        finally:
            self.tally.job_ended()
        if not status.get("success"):
            raise JobFailed(self.shown(str(status.get("error", "no reason given"))))
        return fields(status.get("output"))

    def stats(self) -> dict[str, object]:
        """Return rclone's numbers of the step that was just done."""
        return self._running().call("core/stats", {"group": f"dms-{self._group}"})

    def _watch(self, daemon: Daemon, number: object, group: str) -> dict[str, object]:
        pause = _FIRST_PAUSE
        while True:
            self._check(daemon)
            status = daemon.call("job/status", {"jobid": number})
            if status.get("finished"):
                daemon.drain()
                self._tell(daemon, group)
                return status
            if time.monotonic() - self._told_at >= _PROGRESS_SECONDS:
                self._tell(daemon, group)
            self.guard.pause(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    def _check(self, daemon: Daemon) -> None:
        self.guard.check()
        daemon.drain()
        if self._fatal is not None:
            self.settle_failures()
            raise self._fatal

    def _tell(self, daemon: Daemon, group: str) -> None:
        self._told_at = time.monotonic()
        self._set_bandwidth()
        stats = daemon.call("core/stats", {"group": group})
        try:
            self._control.progress(self.tally.progress(stats))
        except OSError as error:
            raise RunnerLost(error) from error

    def begin(self) -> None:
        """Give a process that was just started what it has to know."""
        self._bandwidth = None
        self._set_bandwidth()

    def _set_bandwidth(self) -> None:
        """Give rclone the limit that holds now, if it is another than before."""
        live = self._control.bandwidth
        wanted = (self._own_bandwidth or 0) if live is None else live
        if wanted != (self._bandwidth or 0):
            rate = f"{wanted}B" if wanted else "off"
            self._running().call("core/bwlimit", {"rate": rate})
            self._bandwidth = wanted

    def _stop(self, daemon: Daemon, number: object, group: str, *, at_once: bool) -> None:
        """Have what is unfinished removed, for as long as a cancel may take; else end rclone."""
        try:
            if not at_once and self._stopped(daemon, number, group):
                daemon.drain()
                return
        except (MoverError, CallError):
            pass  # the process is ended below, which is what matters
        daemon.kill()

    def _stopped(self, daemon: Daemon, number: object, group: str) -> bool:
        stats = daemon.call("core/stats", {"group": group})
        paths = [
            str(each.get("name", "")) for each in map(fields, items(stats.get("transferring")))
        ]
        end = time.monotonic() + _STOP_SECONDS
        while time.monotonic() < end:
            daemon.call("job/stop", {"jobid": number})
            if daemon.call("job/status", {"jobid": number}).get("finished"):
                self.clean_up(paths, time.monotonic() + _STOP_SECONDS)
                return True
            time.sleep(_LONGEST_PAUSE)
        return False

    def _running(self) -> Daemon:
        if self.daemon is None:
            message = "rclone was not started"
            raise RuntimeError(message)
        return self.daemon
