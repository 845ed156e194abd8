"""One part of a machine's DMS: a process in a session of its own, its log file, its end."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_LAUNCH = Path(__file__).with_name("launch.py")
_MAX_LOG_BYTES = 16 * 1024 * 1024
_TAIL_BYTES = 16 * 1024
_ERROR = "error: "  # how `cli.main` begins what it says when a command cannot go on


@dataclass(frozen=True)
class PartSpec:
    """How a part is started.

    `lifeline` is the end of the pipe that this part is handed: the read end for the server (which
    ends after all holders of the write end), the write end for everyone else.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    cwd: Path
    lifeline: int
    is_server: bool = False
    inherited: Sequence[int] = field(default=())


class Part:
    """A started part. It must be started by the main thread: a part dies with its starter."""

    def __init__(self, spec: PartSpec) -> None:
        self.spec = spec
        self.name = spec.name
        self.started = time.monotonic()
        rotate(spec.log)
        with spec.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                _launcher(spec),
                env=dict(spec.environment),
                cwd=spec.cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A Ctrl-C reaches the supervisor alone, which stops the parts in their order.
                start_new_session=True,
                pass_fds=(spec.lifeline, *spec.inherited),
            )

    @property
    def pid(self) -> int:
        """The part's process id, which is its group's and session's too."""
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit code (minus the signal's number if one killed it), or None while it lives."""
        return self._process.poll()

    def send(self, number: int) -> None:
        """Send a signal to the part's own process, if it still lives."""
        if self.poll() is None:
            self._process.send_signal(number)

    def kill_group(self) -> None:
        """End the part and what it left in its group, by force."""
        self.send(signal.SIGCONT)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def wait(self, seconds: float) -> bool:
        """Whether it has ended within so many seconds."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def log_text(self) -> str:
        """What it has logged since this start, at most the last 16 KiB."""
        with contextlib.suppress(FileNotFoundError), self.spec.log.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, end - _TAIL_BYTES))
            return log.read().decode(errors="replace")
        return ""

    def last_words(self) -> str:
        """Its own error message, else the last line of its log that says something."""
        lines = [line.strip() for line in self.log_text().splitlines() if line.strip()]
        errors = [line.removeprefix(_ERROR) for line in lines if line.startswith(_ERROR)]
        return [*lines, *errors][-1] if lines else "nothing in its log"


def _launcher(spec: PartSpec) -> list[str]:
    tie = (
        ["--lifeline", str(spec.lifeline)]
        if spec.is_server
        else ["--signal", str(int(signal.SIGTERM))]
    )
    launcher = [sys.executable, "-I", "-S", str(_LAUNCH), "--parent", str(os.getpid())]
    return [*launcher, *tie, "--", *spec.command]


def rotate(log: Path) -> None:
    """Keep one older log when this one has grown large, so that logs stay bounded."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > _MAX_LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))


def describe_exit(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
