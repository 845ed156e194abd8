"""Stopping a mover: cancel, a lost lease, a kill, and what is left behind."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from dms_scheduler.movers import Cancelled, LeaseLost, MoverError, MoveResult, Progress
from dms_scheduler.movers.durable import Devices
from dms_scheduler.movers.guard import Guard, Stopped
from tests.unit.movers.support import Place, Recorder, look, temporaries

MIB = 1 << 20
ROOT = Path(__file__).resolve().parents[3]
MOVE = """
import sys
from pathlib import Path
from tests.unit.movers.support import Place, Recorder
place = object.__new__(Place)
place.root = Path(sys.argv[1])
place.src, place.dst = place.root / "src", place.root / "dst"
place.run(bandwidth=1000, task_id="killed", epoch=1)  # minutes for a file
"""


def stop_in_mid_copy(place: Place, error: MoverError) -> Recorder:
    """Return a control that stops as soon as some bytes of a file are at the destination."""

    def check(_: int) -> None:
        if not place.dst.exists():
            return
        for name in os.listdir(place.dst):
            with suppress(FileNotFoundError):
                if ".dms-tmp." in name and (place.dst / name).stat().st_size:
                    raise error

    return Recorder(check)


@pytest.mark.parametrize("error", [Cancelled, LeaseLost])
@pytest.mark.parametrize(("size", "bandwidth"), [(3 * MIB, None), (100_000, 400_000)])
def test_a_stop_in_mid_copy_leaves_whole_files_only(
    place: Place, error: type[MoverError], size: int, bandwidth: int | None
) -> None:
    for number in range(20):
        place.write(f"src/{number}", os.urandom(size))
    with pytest.raises(error) as caught:
        place.run(stop_in_mid_copy(place, error("stop")), bandwidth=bandwidth)
    assert isinstance(caught.value.result, MoveResult)
    assert caught.value.result.totals.files < 20
    assert not temporaries(place.root)
    source = look(place.src)
    assert all(entry == source[path] for path, entry in look(place.dst).items())


class Leased(Recorder):
    """A control whose lease ends at the first call of a given system function."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        super().__init__()
        self._lost = False
        function: Callable[..., object] = getattr(os, name)

        def lose(*args: object, **names: object) -> object:
            self._lost = True
            return function(*args, **names)

        monkeypatch.setattr(os, name, lose)

    def check(self) -> None:
        super().check()
        if self._lost:
            raise LeaseLost("another attempt may run")


@pytest.mark.parametrize("last_step", ["chmod", "symlink"])
def test_nothing_is_renamed_after_the_lease_is_lost(
    place: Place, monkeypatch: pytest.MonkeyPatch, last_step: str
) -> None:
    """The lease ends when a copy is complete but for its name."""
    place.write("src/file")
    (place.src / "link").symlink_to("file")
    old = place.write("dst/file" if last_step == "chmod" else "dst/link", "old")
    os.utime(old, ns=(5, 5))
    with monkeypatch.context() as patch, pytest.raises(LeaseLost):
        place.run(Leased(patch, last_step), transfers=1)
    assert old.read_text() == "old"
    assert not temporaries(place.root)


@pytest.mark.parametrize(("backup", "step"), [(True, "rename"), (False, "unlink")])
def test_nothing_more_is_deleted_after_the_lease_is_lost(
    place: Place, monkeypatch: pytest.MonkeyPatch, backup: bool, step: str
) -> None:
    place.write("src/same", mtime=5)
    place.write("dst/same", mtime=5)
    extras = [place.write(f"dst/{number}") for number in range(5)]
    with monkeypatch.context() as patch, pytest.raises(LeaseLost):
        place.run(Leased(patch, step), delete=True, backup_deleted=backup)
    assert sum(extra.exists() for extra in extras) == 4


def test_an_error_of_the_runner_comes_back_as_it_is(place: Place) -> None:
    class RunnersOwn(Exception):
        pass

    place.write("src/a")

    def raise_it(count: int) -> None:
        if count == 3:
            raise RunnersOwn

    with pytest.raises(RunnersOwn):
        place.run(Recorder(raise_it))
    assert not temporaries(place.root)


def test_a_control_that_takes_no_progress_ends_the_run(place: Place) -> None:
    place.write("src/big", os.urandom(4 * MIB))

    class Deaf(Recorder):
        def progress(self, progress: Progress) -> None:
            if self.reports:
                raise BrokenPipeError(errno.EPIPE, "nobody listens")
            super().progress(progress)

    with pytest.raises(MoverError, match="cannot be reached") as caught:
        place.run(Deaf(), bandwidth=MIB // 10)
    assert (caught.value.error_class, caught.value.retryable) == ("runner_lost", True)
    assert not temporaries(place.root)


def wait_until(true: Callable[[], object], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.01)


def test_after_a_kill_the_next_attempt_cleans_up_and_completes(place: Place) -> None:
    for number in range(6):
        place.write(f"src/sub/{number}", os.urandom(300_000))
    command = [sys.executable, "-c", MOVE, str(place.root)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            wait_until(
                lambda: (
                    (place.dst.exists() and temporaries(place.dst)) or process.poll() is not None
                ),
                "a temporary file",
            )
        finally:
            process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert temporaries(place.dst)
    other = place.write("dst/sub/.dms-tmp.other-task.1.1")
    newer = place.write("dst/sub/.dms-tmp.killed.3.1")
    place.run(task_id="killed", epoch=2)
    assert other.exists()
    assert newer.exists()
    other.unlink()
    newer.unlink()
    os.utime(place.dst / "sub", ns=(0, (place.src / "sub").stat().st_mtime_ns))
    assert look(place.dst) == look(place.src)


def test_a_cancel_does_not_wait_for_the_storage(tmp_path: Path) -> None:
    release, begun = threading.Event(), threading.Event()

    def slow(_: int) -> None:
        begun.set()
        release.wait(60)

    def cancel(_: int) -> None:
        if begun.is_set():
            raise Cancelled("stop")

    devices = Devices()
    fd = os.open(tmp_path, os.O_RDONLY)
    devices.add(fd)
    os.close(fd)
    try:
        with pytest.raises(Cancelled):
            devices.flush(Guard(Recorder(cancel)), slow)
        assert not release.is_set()
    finally:
        release.set()
        devices.close()


def test_the_first_reason_to_stop_is_the_one_that_counts() -> None:
    guard = Guard(Recorder())
    guard.check()
    first = Cancelled("first")
    guard.stop(first)
    guard.stop(LeaseLost("second"))
    assert guard.cause is first
    with pytest.raises(Stopped):
        guard.check()
