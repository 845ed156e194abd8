"""A source that changes between the plan and the act, and processes that end in mid-batch."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable
from typing import ClassVar

import pytest

from dms_scheduler.movers import Cancelled, Compare, MoverError, PartialFailure, Preserve
from dms_scheduler.movers.native import executor, mover
from dms_scheduler.movers.native.executors import Lost
from dms_scheduler.movers.native.filecopy import FileCopier, just_changed, open_with_status
from dms_scheduler.movers.native.meter import Meter
from dms_scheduler.movers.results import Action, ActiveFile, ReportEntry
from tests.unit.movers.support import Place, Recorder, look, temporaries


class AfterPlan(Recorder):
    """Does something once, when the plan is made."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__()
        self._act = act

    def log(self, message: str) -> None:
        super().log(message)
        if message.startswith("plan: "):
            self._act()


def test_a_new_content_is_not_hidden_by_its_time(place: Place) -> None:
    """Only the mode differs in the plan; then the source gets another content of the same size."""
    place.write("src/a", b"old")
    place.run()
    (place.src / "a").chmod(0o640)

    def rewrite() -> None:
        place.write("src/a", b"new")
        os.utime(place.src / "a", ns=(1, 10**18 + 1))

    with pytest.raises(PartialFailure) as caught:
        place.run(control=AfterPlan(rewrite))
    assert caught.value.retryable
    place.run()
    assert (place.dst / "a").read_bytes() == b"new"


def test_a_content_that_came_after_its_hash_is_not_hidden(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write("src/a", b"old")
    place.run()
    (place.src / "a").chmod(0o640)
    equal = FileCopier.equal

    def rewritten(self: FileCopier, source_fd: int, name: str, target_fd: int, target: str) -> bool:
        same = equal(self, source_fd, name, target_fd, target)
        place.write("src/a", b"new")
        os.utime(place.src / "a", ns=(1, 10**18 + 1))
        return same

    with monkeypatch.context() as patch:
        patch.setattr(FileCopier, "equal", rewritten)
        with pytest.raises(PartialFailure):
            place.run(compare=Compare.CHECKSUM)
    place.run()
    assert (place.dst / "a").read_bytes() == b"new"


def test_a_name_that_is_another_file_by_now_gets_no_hard_link(place: Place) -> None:
    place.write("src/a", b"old")
    os.link(place.src / "a", place.src / "b")
    preserve = frozenset({Preserve.MTIME, Preserve.HARDLINKS})

    def replace() -> None:
        for name in ("a", "b"):
            (place.src / f"{name}.new").write_bytes(name.encode() * 3)
            os.replace(place.src / f"{name}.new", place.src / name)

    with pytest.raises(PartialFailure) as caught:
        place.run(control=AfterPlan(replace), preserve=preserve)
    assert caught.value.retryable
    place.run(preserve=preserve)
    assert look(place.dst) == look(place.src)


def test_a_process_that_ends_in_its_last_batch_is_no_success(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mover, "_OWN_FILES", 0)
    for number in range(10):
        place.write(f"src/{number}", b"data")
    rename, write_whole = os.rename, executor.write_whole

    def breaks(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        if len(os.listdir(dst_dir_fd)) > 5:
            raise OverflowError
        rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    def slow(fd: int, data: bytes) -> None:
        if b"crash" in data:
            time.sleep(0.3)  # in the other process, which is late to say why it ends
        write_whole(fd, data)

    monkeypatch.setattr(os, "rename", breaks)
    monkeypatch.setattr(executor, "write_whole", slow)
    with pytest.raises(MoverError) as caught:
        place.run()
    assert isinstance(caught.value, Lost)


def test_storage_that_refuses_at_the_close_leaves_what_was_there(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As NFS tells of a quota: the copy must not have its name by then."""
    place.write("src/a", b"new" * 50_000)
    place.write("dst/a", b"old")
    close = os.close

    def refused(fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        mine = "/dst/" in path and os.path.isfile(path)
        close(fd)
        if mine:
            raise OSError(122, "Disk quota exceeded")

    monkeypatch.setattr("dms_scheduler.movers.native.filecopy.os.close", refused)
    with pytest.raises(MoverError):
        place.run(retries=0)
    monkeypatch.undo()
    assert (place.dst / "a").read_bytes() == b"old"
    assert not temporaries(place.dst)


def test_a_file_that_changed_just_now_is_looked_at_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock that ticks slowly, one more change could have the time of the last one."""
    file = place.write("src/a", b"torn")

    def meanwhile(_: float) -> None:
        with file.open("ab") as more:
            more.write(b"+")

    monkeypatch.setattr("dms_scheduler.movers.native.filecopy.time.sleep", meanwhile)
    monkeypatch.setattr(
        "dms_scheduler.movers.native.filecopy.time.time_ns", lambda: file.stat().st_ctime_ns
    )
    fd, status = open_with_status(open_folder := os.open(place.src, os.O_RDONLY), "a")
    os.close(fd)
    os.close(open_folder)
    assert status.st_size == file.stat().st_size > 4


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_file_at_rest_is_not_waited_for(
    place: Place, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """Nor is one whose file system has a clock of its own."""
    file = place.write("src/a")
    now = file.stat().st_ctime_ns + hours * 3600 * 10**9
    monkeypatch.setattr("dms_scheduler.movers.native.filecopy.time.time_ns", lambda: now)
    assert not just_changed(file.stat())


def test_a_stop_right_at_the_start_of_the_processes_leaks_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mover, "_OWN_FILES", 0)
    for number in range(3):
        place.write(f"src/{number}")

    class Stopping(Recorder):
        stopping = False

        def log(self, message: str) -> None:
            self.stopping = self.stopping or message.startswith("plan: ")

        def check(self) -> None:
            if self.stopping:
                message = "now"
                raise Cancelled(message)

    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(Cancelled):
        place.run(control=Stopping())
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_process_that_cannot_be_started_is_worth_another_attempt(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mover, "_OWN_FILES", 0)
    place.write("src/a")

    def refused() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", refused)
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(MoverError) as caught:
        place.run()
    assert (caught.value.error_class, caught.value.retryable) == ("no_processes", True)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_copy_that_another_task_is_about_to_name_stays(place: Place) -> None:
    """It has the time of its source already, which may be years ago."""
    place.write("src/a")
    temporary = place.write("dst/.dms-tmp.t-2.1.1", mtime=5)
    place.run(src=place.src / "a")
    assert temporary.exists()


def test_the_files_of_processes_are_let_go_of_between_two_looks() -> None:
    """Else a report could ask memory that was given back."""
    meter, asked, go_on = Meter(), threading.Event(), threading.Event()
    gone: list[bool] = []

    def elsewhere() -> tuple[ActiveFile, ...]:
        asked.set()
        go_on.wait(0.2)
        gone.append(done)
        return ()

    done = False
    meter.watch(elsewhere)
    thread = threading.Thread(target=meter.snapshot)
    thread.start()
    assert asked.wait(60)
    meter.watch()
    done = True
    go_on.set()
    thread.join()
    assert gone == [False]


def test_a_directory_that_vanishes_before_its_copy_is_finished_is_told_of(place: Place) -> None:
    """Its copy is there, but has neither its mode nor its time."""
    place.write("src/d/a")
    place.write("src/e/a")

    class Vanishing(Recorder):
        copied: ClassVar[list[str]] = []

        def report(self, entry: ReportEntry) -> None:
            super().report(entry)
            if entry.action is Action.COPY:
                self.copied.append(os.path.dirname(entry.path))
                if len(self.copied) == 2:
                    shutil.rmtree(place.src / self.copied[0])

    control = Vanishing()
    with pytest.raises(PartialFailure) as caught:
        place.run(control=control)
    assert caught.value.retryable
    assert caught.value.result is not None
    assert [failed.path for failed in caught.value.result.failed] == control.copied[:1]
