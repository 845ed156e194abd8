"""Copying in forked processes: what they do, how they stop, and what is left of them."""

from __future__ import annotations

import math
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import suppress

import psutil
import pytest

from dms_scheduler.movers import (
    Action,
    Cancelled,
    Compare,
    Fsync,
    LeaseLost,
    MoverError,
    NoSpace,
    Overwrite,
    PartialFailure,
    Preserve,
    Verify,
)
from dms_scheduler.movers.native import executors
from dms_scheduler.movers.native import mover as native
from dms_scheduler.movers.native.executors import Lost
from tests.support.processes import command_of
from tests.unit.movers.support import Place, Recorder, look, temporaries

MIB = 1 << 20


@pytest.fixture(autouse=True)
def always_forked(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """However little there is to do, executors do it; none of them is left afterwards."""
    monkeypatch.setattr(native, "_OWN_FILES", 0)
    yield
    assert not children()


def children() -> list[psutil.Process]:
    """What this process has forked; the servers of other tests run programs of their own."""
    own = psutil.Process()
    return [child for child in own.children() if command_of(child) == own.cmdline()]


def fill(place: Place, files: int, size: int = 100) -> None:
    for number in range(files):
        place.write(f"src/{number % 5}/{number}", os.urandom(size))


class Acting(Recorder):
    """A control that does something once as soon as files are on their way, and then lifts the
    limit that kept them there."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__()
        self._act = act
        self._acted = False

    def check(self) -> None:
        super().check()
        if not self._acted and children():
            self._acted = True
            self._act()
            self.bandwidth = 0


def test_no_more_processes_are_started_than_there_is_work_for(place: Place) -> None:
    fill(place, 20)
    seen: set[int] = set()

    def count() -> None:
        seen.update(child.pid for child in children())

    class Counting(Recorder):
        def check(self) -> None:
            super().check()
            count()

    place.run(Counting(), transfers=8)
    assert len(seen) <= 1
    assert look(place.dst) == look(place.src)


@pytest.mark.parametrize(("seconds", "enough"), [(math.inf, 1), (0, 2)])
def test_only_a_move_that_lasts_starts_more_processes_than_can_run_at_once(
    place: Place, monkeypatch: pytest.MonkeyPatch, seconds: float, enough: int
) -> None:
    fill(place, 300)
    monkeypatch.setattr(executors, "_MORE_SECONDS", seconds)
    seen: set[int] = set()

    def one_processor(_: int) -> set[int]:
        return {0}

    monkeypatch.setattr(os, "sched_getaffinity", one_processor)

    class Counting(Recorder):
        def check(self) -> None:
            super().check()
            seen.update(child.pid for child in children())
            if len(seen) >= enough:
                self.bandwidth = 0  # which kept all of them busy

    place.run(Counting(), transfers=2, bandwidth=1000)
    assert len(seen) == enough
    assert look(place.dst) == look(place.src)


@pytest.mark.parametrize("transfers", [1, 3])
@pytest.mark.parametrize("verify", [Verify.NONE, Verify.TRANSFERRED])
def test_all_kinds_arrive(place: Place, transfers: int, verify: Verify) -> None:
    fill(place, 300, 3000)
    (place.src / "link").symlink_to("nowhere")
    place.write("src/large", os.urandom(3 * MIB))
    place.write("src/한글 \udcff".encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
    result = place.run(transfers=transfers, verify=verify, fsync=Fsync.EACH)
    assert look(place.dst) == look(place.src)
    assert (result.totals.files, result.totals.links) == (302, 1)
    assert place.run().totals.files == 0


def test_the_report_of_a_dry_run_is_that_of_the_run(place: Place) -> None:
    fill(place, 40)
    place.write("src/changed", "new")
    place.write("dst/changed", "older")
    place.write("dst/extra/deep/file")
    (place.src / "link").symlink_to("x")
    os.mkfifo(place.src / "pipe")
    planned, done = Recorder(), Recorder()
    native.NativeMover().plan(place.request(dry_run=True, delete=True), planned)
    place.run(done, delete=True)
    assert Counter(planned.entries) == Counter(done.entries)
    assert Counter(entry.action for entry in done.entries) == {
        Action.COPY: 41,
        Action.MKDIR: 5,
        Action.LINK: 1,
        Action.SPECIAL: 1,
        Action.DELETE: 3,
    }


def test_all_failures_are_reported_and_the_first_hundred_named(place: Place) -> None:
    for number in range(150):
        place.write(f"src/{number}")
        (place.dst / str(number) / "in the way").mkdir(parents=True)
    place.write("src/good")
    recorder = Recorder()
    with pytest.raises(PartialFailure) as caught:
        place.run(recorder)
    assert caught.value.result
    assert len(caught.value.result.failed) == 100
    failed = [entry for entry in recorder.entries if entry.action is Action.FAILED]
    assert len(failed) == 150
    assert {entry.error_class for entry in failed} == {"type_conflict"}
    assert (place.dst / "good").exists()


@pytest.mark.parametrize("error", [Cancelled, LeaseLost])
def test_a_stop_reaches_every_process(place: Place, error: type[MoverError]) -> None:
    fill(place, 12, MIB)

    def stop() -> None:
        raise error("stop")

    with pytest.raises(error):
        place.run(Acting(stop), bandwidth=1000)
    assert not temporaries(place.root)
    source = look(place.src)
    assert all(entry[3] == source[path][3] for path, entry in look(place.dst).items() if entry[3])


def test_a_deadline_stops_every_process_before_its_next_rename(place: Place) -> None:
    fill(place, 12, MIB)
    recorder = Recorder()

    def expire() -> None:
        recorder.deadline = time.monotonic()

    def check(_: int) -> None:
        if children():
            expire()

    recorder = Recorder(check)
    with pytest.raises(LeaseLost):
        place.run(recorder, bandwidth=1000)
    assert not temporaries(place.root)


def test_a_process_that_dies_ends_the_run_in_order(place: Place) -> None:
    fill(place, 30, MIB)

    def kill() -> None:
        children()[0].send_signal(signal.SIGKILL)

    with pytest.raises(Lost) as caught:
        place.run(Acting(kill), bandwidth=1000)
    assert (caught.value.error_class, caught.value.retryable) == ("executor_lost", True)
    assert not temporaries(place.root)
    place.run(epoch=2)
    assert look(place.dst) == look(place.src)


def test_a_process_that_hangs_is_killed(place: Place) -> None:
    fill(place, 30, MIB)

    def hang() -> None:
        children()[0].send_signal(signal.SIGSTOP)
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        place.run(Acting(hang), bandwidth=1000)
    assert not temporaries(place.root)


@pytest.mark.root
def test_a_full_disk_ends_all(place: Place, small_disk: os.PathLike[str]) -> None:
    fill(place, 30, 100_000)
    with pytest.raises(NoSpace):
        place.run(dst=f"{small_disk}/dst", transfers=3)
    left = [name for _, _, names in os.walk(small_disk) for name in names if ".dms-" in name]
    assert not left


def test_a_limit_can_be_lifted_while_it_holds(place: Place) -> None:
    """With a byte a second this would take weeks."""
    fill(place, 5, MIB)
    recorder = Recorder()

    def lift(_: int) -> None:
        if children():
            recorder.bandwidth = 0

    recorder = Recorder(lift)
    place.run(recorder, bandwidth=1)
    assert look(place.dst) == look(place.src)


def test_files_on_their_way_are_shown(place: Place) -> None:
    fill(place, 3, MIB)
    shown: set[str] = set()

    class Watching(Recorder):
        def check(self) -> None:
            super().check()
            if shown:
                self.bandwidth = 0

        def progress(self, progress: object) -> None:
            super().progress(progress)  # type: ignore[arg-type]
            shown.update(file.path for file in self.reports[-1].active)

    recorder = Watching()
    place.run(recorder, bandwidth=100_000)
    assert shown
    assert shown <= {os.fsdecode(path) for path in look(place.src)}
    assert max(len(report.active) for report in recorder.reports) <= 8
    last = recorder.reports[-1]
    assert (last.files, last.bytes, last.active) == (3, 3 * MIB, ())


def test_never_overwriting_leaves_what_came_since_the_plan(place: Place) -> None:
    fill(place, 5, MIB)
    mine = place.dst / "4/4"

    def come() -> None:
        mine.parent.mkdir(exist_ok=True)
        mine.write_text("mine")

    result = place.run(Acting(come), overwrite=Overwrite.NEVER, bandwidth=1000)
    assert mine.read_text() == "mine"
    assert (result.totals.files, result.totals.skipped) == (4, 1)
    assert not temporaries(place.root)


def test_newer_is_looked_at_again_before_the_rename(place: Place) -> None:
    fill(place, 5, MIB)
    mine = place.dst / "4/4"

    def come() -> None:
        mine.parent.mkdir(exist_ok=True)
        mine.write_text("mine")
        os.utime(mine, (4_000_000_000, 4_000_000_000))

    place.run(Acting(come), overwrite=Overwrite.NEWER, bandwidth=1000)
    assert mine.read_text() == "mine"
    assert not temporaries(place.root)


def test_what_turns_out_to_differ_is_copied(place: Place) -> None:
    fill(place, 10)
    place.run()
    file = place.dst / "0/0"
    status = file.stat()
    file.write_bytes(os.urandom(100))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    totals = place.run(compare=Compare.CHECKSUM).totals
    assert (totals.files, totals.skipped) == (1, 9)
    assert look(place.dst) == look(place.src)


def test_without_modes_the_mask_of_this_process_holds(place: Place) -> None:
    fill(place, 3)
    before = os.umask(0o027)
    try:
        place.run(preserve=frozenset({Preserve.MTIME}))
    finally:
        os.umask(before)
    assert {(place.dst / f"{n}/{n}").stat().st_mode & 0o777 for n in range(3)} == {0o640}


def test_a_directory_that_was_exchanged_is_not_written_to(place: Place) -> None:
    fill(place, 10, MIB)
    place.run()
    for number in range(10):
        place.write(f"src/{number % 5}/{number}", os.urandom(MIB))

    def exchange() -> None:
        for number in range(5):
            with suppress(OSError):
                (place.dst / str(number)).rename(place.dst / f"away-{number}")
                (place.dst / str(number)).mkdir()

    with pytest.raises(PartialFailure) as caught:
        place.run(Acting(exchange), bandwidth=1000, transfers=1, retries=0)
    assert caught.value.retryable
    assert caught.value.result
    assert {item.error_class for item in caught.value.result.failed} == {"changed_during_copy"}
    assert not any(os.listdir(place.dst / str(number)) for number in range(1, 5))
