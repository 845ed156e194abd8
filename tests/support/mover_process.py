"""A mover in a real process of its own group, to be killed.

`python -m tests.support.mover_process REQUEST [HOLD]`: a MoveRequest as JSON; HOLD is a pattern of
files: as soon as one of two lines or more is there, the bandwidth is a byte a second. What the
control is told comes as lines of JSON on standard output, last of all the outcome.
"""

from __future__ import annotations

import contextlib
import glob
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from dms_scheduler.movers import (
    Compare,
    Fsync,
    MoveOptions,
    MoveRequest,
    MoverError,
    NativeMover,
    Overwrite,
    Preserve,
    Progress,
    ReportEntry,
    Symlinks,
    Verify,
)
from tests.support.processes import is_alive, living_group

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0
_RUN = [sys.executable, "-m", "tests.support.mover_process"]


class MoverProcess:
    """`with MoverProcess(request) as mover:` runs it; leaving kills the group if it still lives."""

    def __init__(self, request: MoveRequest, *, hold: str | None = None) -> None:
        self._lines = tempfile.TemporaryFile("w+b")  # noqa: SIM115 - closed in __exit__
        self.process = subprocess.Popen(
            [*_RUN, json.dumps(as_data(request)), *([hold] if hold else [])],
            cwd=ROOT,
            stdout=self._lines,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill_group()
        self._lines.close()

    @property
    def ended(self) -> bool:
        """Whether the main process is gone."""
        return self.process.poll() is not None

    def executors(self) -> list[int]:
        """The process ids of its living children."""
        with contextlib.suppress(psutil.NoSuchProcess):
            below = psutil.Process(self.process.pid).children(recursive=True)
            return [each.pid for each in below if is_alive(each.pid)]
        return []

    def kill_main(self) -> None:
        """SIGKILL the main process alone; its children must follow by themselves."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)

    def kill_group(self) -> None:
        """SIGKILL all of them, and wait until none lives."""
        if self.group():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        until(lambda: not self.group(), "the group is gone")

    def group(self) -> list[int]:
        """The living processes of its group."""
        return living_group(self.process.pid)

    def told(self) -> list[dict[str, Any]]:
        """Everything that the control was told so far."""
        with open(f"/proc/self/fd/{self._lines.fileno()}", "rb") as lines:
            whole = [line for line in lines if line.endswith(b"\n")]
        return [json.loads(line) for line in whole]

    def outcome(self) -> dict[str, Any]:
        """Wait for the end; what `run` returned or raised."""
        self.process.wait(PATIENCE)
        return self.told()[-1]


def until(true: Callable[[], object], what: str) -> None:
    """Wait until it is true; AssertionError after a minute."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.002)


def as_data(request: MoveRequest) -> dict[str, Any]:
    """Return the request as JSON-safe data."""
    data = asdict(request)
    data["options"]["preserve"] = sorted(request.options.preserve)
    return data


def from_data(data: dict[str, Any]) -> MoveRequest:
    """Return the request that `as_data` was given."""
    given: dict[str, Any] = data.pop("options")
    options = MoveOptions(
        compare=Compare(given.pop("compare")),
        verify=Verify(given.pop("verify")),
        overwrite=Overwrite(given.pop("overwrite")),
        symlinks=Symlinks(given.pop("symlinks")),
        fsync=Fsync(given.pop("fsync")),
        preserve=frozenset(Preserve(each) for each in given.pop("preserve")),
        include=tuple(given.pop("include")),
        exclude=tuple(given.pop("exclude")),
        **given,
    )
    return MoveRequest(roots=tuple(data.pop("roots")), options=options, **data)


class _Teller:
    """A control that writes what it is told to standard output."""

    deadline = math.inf

    def __init__(self, hold: str | None) -> None:
        self._hold = hold

    @property
    def bandwidth(self) -> int | None:
        return 1 if self._hold and _is_there(self._hold) else None

    def check(self) -> None:
        return

    def progress(self, progress: Progress) -> None:
        _tell(progress=progress.to_dict())

    def log(self, message: str) -> None:
        _tell(log=message)

    def report(self, entry: ReportEntry) -> None:
        _tell(report=entry.to_dict())


def _is_there(pattern: str) -> bool:
    found = (Path(name) for name in glob.glob(pattern, include_hidden=True))
    return any(path.read_bytes().count(b"\n") >= 2 for path in found)


def _tell(**what: object) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def main() -> None:
    """Run what the command line describes."""
    request = from_data(json.loads(sys.argv[1]))
    teller = _Teller(sys.argv[2] if len(sys.argv) > 2 else None)
    try:
        _tell(result=NativeMover().run(request, teller).to_dict())
    except MoverError as error:
        result = error.result.to_dict() if error.result else None
        _tell(error={"retryable": error.retryable, "result": result})


if __name__ == "__main__":
    main()
