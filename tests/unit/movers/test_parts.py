"""Big files in parts: all executors share one, a later attempt goes on, nothing is mixed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dms_scheduler.movers import (
    Action,
    Cancelled,
    DestinationBusy,
    Fsync,
    LeaseLost,
    PartialFailure,
    Preserve,
    Verify,
)
from dms_scheduler.movers.native import journal, parts, plan, spans
from dms_scheduler.movers.native import leftovers as native_leftovers
from dms_scheduler.movers.native import mover as native
from dms_scheduler.movers.native.batches import Folder
from dms_scheduler.movers.native.bigfiles import BigFiles, Step
from dms_scheduler.movers.native.journal import SourceId
from dms_scheduler.movers.native.records import FilePlan
from dms_scheduler.movers.patterns import is_reserved, journal_name, part_name
from tests.unit.movers.support import Place, Recorder, look

MIB = 1 << 20
PART = MIB
SIZE = 10 * PART + 12_345
ROOT = Path(__file__).resolve().parents[3]
MOVE = f"""
import sys
from pathlib import Path
from dms_scheduler.movers.native import parts, plan
from dms_scheduler.movers.native import mover as native
from dms_scheduler.movers import Verify
from tests.unit.movers.support import Place
for module in (parts, plan):
    module.BIG_BYTES = {PART}
parts._PART_BYTES = {PART}
native._OWN_BYTES = 0
place = object.__new__(Place)
place.root = Path(sys.argv[1])
place.src, place.dst = place.root / "src", place.root / "dst"
place.run(bandwidth=3_000_000, task_id="big", epoch=1, verify=Verify(sys.argv[2]), transfers=2)
"""


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (parts, plan):
        monkeypatch.setattr(module, "BIG_BYTES", PART)
    monkeypatch.setattr(parts, "_PART_BYTES", PART)
    monkeypatch.setattr(spans, "_MANY_BYTES", PART)
    monkeypatch.setattr(native, "_OWN_BYTES", 0)


@pytest.fixture(params=[True, False], ids=["in memory", "on a disk"])
def in_memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether copies are taken for such on a tmpfs, wherever this test runs."""
    answer: bool = request.param

    def is_memory(_: int) -> bool:
        return answer

    monkeypatch.setattr(parts, "is_memory", is_memory)
    return answer


def leftovers(place: Place) -> list[str]:
    return [name for _, _, names in os.walk(place.root) for name in names if ".dms-" in name]


def big(place: Place, **options: Any) -> int:
    """Run the second attempt, once the first one is dead; return the bytes that it copied."""
    end = time.monotonic() + 60
    while True:
        try:
            return place.run(task_id="big", epoch=2, **options).totals.bytes
        except DestinationBusy:
            assert time.monotonic() < end, "never: the first attempt's locks are gone"
            time.sleep(0.01)


@pytest.mark.parametrize("transfers", [1, 4])
@pytest.mark.parametrize("verify", [Verify.NONE, Verify.TRANSFERRED])
@pytest.mark.parametrize("fsync", [Fsync.NONE, Fsync.EACH])
def test_a_big_file_arrives_whole(
    place: Place, transfers: int, verify: Verify, fsync: Fsync
) -> None:
    place.write("src/sub/big", os.urandom(SIZE), mtime=123_456_789)
    place.write("src/sub/other", os.urandom(SIZE))
    recorder = Recorder()
    result = place.run(recorder, transfers=transfers, verify=verify, fsync=fsync)
    assert look(place.dst) == look(place.src)
    assert (result.totals.files, result.totals.bytes) == (2, 2 * SIZE)
    assert not leftovers(place)
    last = recorder.reports[-1]
    assert last.bytes == last.total_bytes == 2 * SIZE
    copied = [(entry.path, entry.size) for entry in recorder.entries if entry.action is Action.COPY]
    assert sorted(copied) == [("sub/big", SIZE), ("sub/other", SIZE)]


@pytest.mark.parametrize("verify", [Verify.NONE, Verify.TRANSFERRED])
@pytest.mark.parametrize("sparse", [False, True])
def test_it_waits_for_the_disk_only_where_there_is_one(
    place: Place, monkeypatch: pytest.MonkeyPatch, in_memory: bool, verify: Verify, sparse: bool
) -> None:
    """What is copied is on the disk before the journal says so; verified, it is read from there."""
    log = place.root / "log"

    def note(_: int, start: int, end: int, __: object, *, drop: bool) -> None:
        with log.open("a") as file:  # from the executors
            file.write(f"{start} {end} {drop}\n")

    monkeypatch.setattr(parts, "write_back", note)
    file = place.write("src/big", os.urandom(SIZE))
    if sparse:
        os.truncate(file, SIZE + PART)
    place.run(verify=verify, preserve=frozenset(Preserve))
    assert look(place.dst) == look(place.src)
    size = file.stat().st_size
    drop = verify is Verify.TRANSFERRED
    wanted = {f"{at} {min(at + PART, size)} {drop}" for at in range(0, size, PART)}
    found = log.read_text().splitlines() if log.exists() else []
    assert sorted(found) == ([] if in_memory else sorted(wanted))


def test_other_files_are_begun_before_one_has_all_executors(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writers of one inode wait for each other in the kernel."""
    start, take, calls = BigFiles.start, BigFiles.take, list[str]()

    def started(files: BigFiles, folder: Folder, file: FilePlan) -> None:
        calls.append("start")
        start(files, folder, file)

    def taken(files: BigFiles, step: Step, answer: list[Any]) -> None:
        calls.append(step.kind)
        take(files, step, answer)

    monkeypatch.setattr(BigFiles, "start", started)
    monkeypatch.setattr(BigFiles, "take", taken)
    for name in "abc":
        place.write(f"src/{name}", os.urandom(SIZE))
    place.run(transfers=3)
    assert calls[:3] == ["start"] * 3
    assert look(place.dst) == look(place.src)


def test_no_more_files_are_under_way_than_can_be_of_use(place: Place) -> None:
    for number in range(12):
        place.write(f"src/{number}", os.urandom(PART + 1))
    most: list[int] = []

    def check(_: int) -> None:
        names = os.listdir(place.dst) if place.dst.exists() else []
        most.append(sum(name.endswith(".journal") for name in names))

    place.run(Recorder(check), transfers=1)
    assert look(place.dst) == look(place.src)
    assert 0 < max(most) <= 2


def kill_in_mid_copy(place: Place, verify: Verify) -> None:
    """Run the first attempt in a process, and kill all of it once three parts are complete."""
    command = [sys.executable, "-c", MOVE, str(place.root), verify.value]
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True) as process:
        try:
            end = time.monotonic() + 60
            file = place.dst / journal_name("big", "big")
            while not (file.exists() and file.read_bytes().count(b"\n") >= 4):
                assert time.monotonic() < end, "never: three parts"
                assert process.poll() is None, "it ended before"
                time.sleep(0.01)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert part_name("big", "big") in os.listdir(place.dst)
    assert "big" not in os.listdir(place.dst)


@pytest.mark.parametrize("verify", [Verify.NONE, Verify.TRANSFERRED])
def test_after_a_kill_the_next_attempt_goes_on(place: Place, verify: Verify) -> None:
    place.write("src/big", os.urandom(SIZE))
    kill_in_mid_copy(place, verify)
    recorder = Recorder()
    copied = big(place, verify=verify, control=recorder)
    assert 0 < copied <= SIZE - 3 * PART
    assert recorder.reports[-1].bytes == recorder.reports[-1].total_bytes == copied
    assert look(place.dst) == look(place.src)
    assert not leftovers(place)


def test_a_source_that_changed_since_is_copied_anew(place: Place) -> None:
    file = place.write("src/big", os.urandom(SIZE))
    status = file.stat()
    kill_in_mid_copy(place, Verify.NONE)
    file.write_bytes(os.urandom(SIZE))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # only the inode's own time tells
    assert big(place, verify=Verify.NONE) == SIZE
    assert look(place.dst) == look(place.src)
    assert not leftovers(place)


def test_a_part_that_was_spoiled_since_is_copied_again(place: Place) -> None:
    place.write("src/big", os.urandom(SIZE))
    kill_in_mid_copy(place, Verify.TRANSFERRED)
    with (place.dst / part_name("big", "big")).open("r+b") as copy:
        copy.seek(PART // 2)
        byte = copy.read(1)
        copy.seek(PART // 2)
        copy.write(bytes([byte[0] ^ 1]))
    big(place)
    assert look(place.dst) == look(place.src)


@pytest.mark.parametrize("damage", [b"", b"dms-part-1 0 0 0 0 0 0 0 synced\n0 -\n", b"\xff\n\n"])
def test_a_journal_that_does_not_fit_is_of_no_use(place: Place, damage: bytes) -> None:
    place.write("src/big", os.urandom(SIZE))
    place.write(f"dst/{part_name('big', 'big')}", bytes(SIZE))
    place.write(f"dst/{journal_name('big', 'big')}", damage)
    assert big(place) == SIZE
    assert look(place.dst) == look(place.src)
    assert not leftovers(place)


def test_what_lies_in_the_place_of_a_copy_is_not_followed(place: Place) -> None:
    place.write("src/big", os.urandom(SIZE))
    canary = place.write("canary", "untouched")
    place.dst.mkdir()
    (place.dst / part_name("big", "big")).symlink_to(canary)
    (place.dst / journal_name("big", "big")).symlink_to(canary)
    big(place)
    assert canary.read_text() == "untouched"
    assert look(place.dst) == look(place.src)


def test_copies_that_nobody_wants_any_more_are_removed(place: Place) -> None:
    place.write("src/small/a")
    for folder in ("dst", "dst/small", "dst/only here"):
        place.write(f"{folder}/{part_name('big', 'gone')}", "old")
        place.write(f"{folder}/{journal_name('big', 'gone')}", "old")
    # What counts is when it was last touched: a copy has its source's time before it is named.
    foreign = place.write(f"dst/{part_name('other', 'gone')}", "somebody's", mtime=5)
    big(place)
    assert foreign.exists()
    assert leftovers(place) == [foreign.name]


def test_copies_that_are_forgotten_are_removed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_leftovers, "FORGOTTEN_SECONDS", -60)
    place.write(f"dst/{part_name('other', 'gone')}", "nobody's")
    (place.dst / ".dms-tmp.other.1.1").symlink_to("nowhere")
    place.write("src/a")
    place.run()
    assert look(place.dst) == look(place.src)


def test_after_a_cancel_nothing_is_left_and_after_a_lost_lease_it_goes_on(place: Place) -> None:
    place.write("src/big", os.urandom(SIZE))

    def stopped_by(error: type[Exception]) -> None:
        def check(_: int) -> None:
            file = place.dst / journal_name("big", "big")
            if file.exists() and file.read_bytes().count(b"\n") >= 3:
                raise error("stop")

        with pytest.raises(error):
            place.run(Recorder(check), task_id="big", bandwidth=6_000_000)

    stopped_by(Cancelled)
    assert not leftovers(place)
    stopped_by(LeaseLost)
    assert len(leftovers(place)) == 2
    assert big(place) <= SIZE - 2 * PART
    assert not leftovers(place)


def test_a_source_that_changes_meanwhile_is_begun_anew(place: Place) -> None:
    file = place.write("src/big", os.urandom(SIZE))
    changed: list[bool] = []

    def check(_: int) -> None:
        if not changed and (place.dst / journal_name("big", "big")).exists():
            changed.append(True)
            with file.open("r+b") as source:
                source.write(os.urandom(PART))
            recorder.bandwidth = 0

    recorder = Recorder(check)
    place.run(recorder, task_id="big", bandwidth=1000)
    assert changed
    assert look(place.dst) == look(place.src)
    assert recorder.reports[-1].bytes == recorder.reports[-1].total_bytes
    assert not leftovers(place)


@pytest.mark.usefixtures("in_memory")
def test_storage_that_writes_something_else_is_caught(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write("src/big", os.urandom(SIZE))
    write = spans.write_at

    def spoil(target: int, data: memoryview, at: int) -> None:
        write(target, memoryview(bytes(data[:-1]) + bytes([data[-1] ^ 1])), at)

    monkeypatch.setattr(spans, "write_at", spoil)
    with pytest.raises(PartialFailure) as caught:
        place.run(retries=1)
    assert caught.value.result
    assert [item.error_class for item in caught.value.result.failed] == ["verify_mismatch"]
    assert os.listdir(place.dst) == []


def test_holes_stay_holes(place: Place) -> None:
    file = place.write("src/big", "x")
    with file.open("r+b") as source:
        source.seek(64 * MIB)
        source.write(b"the end")
    place.run(preserve=frozenset(Preserve))
    assert look(place.dst) == look(place.src)
    assert (place.dst / "big").stat().st_blocks <= file.stat().st_blocks


def test_the_names_of_parts_are_reserved_and_short() -> None:
    for name in (part_name("t" * 128, "x" * 255), journal_name("t" * 128, "x" * 255)):
        assert len(name) < 255
        assert is_reserved("", name)
        assert is_reserved("deep/down", name)
    assert not is_reserved("", ".dms-part.t.short")


def test_a_journal_counts_whole_lines_alone(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    first = journal.header(SourceId.of(os.fstat(fd)), 64, hashed=True, synced=True)
    try:
        journal.begin(fd, "j", first)
        journal.add(fd, "j", 3, "abc")
        with (tmp_path / "j").open("ab") as file:
            file.write(b"4 de")  # torn by a kill
        assert journal.read(fd, "j", first) == {3: "abc"}
        assert journal.read(fd, "j", f"{first}0") == {}
        assert journal.read(fd, "none", first) == {}
    finally:
        os.close(fd)
