"""A source that changes between the plan and the act, and processes that end in mid-batch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

from dms_scheduler.movers import Compare, MoverError, PartialFailure, Preserve
from dms_scheduler.movers.native import executor, mover
from dms_scheduler.movers.native.executors import Lost
from dms_scheduler.movers.native.filecopy import Ends, FileCopier
from dms_scheduler.movers.native.handling import FileHandler
from dms_scheduler.movers.native.records import FilePlan, Outcome
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
    handle, write_whole = FileHandler.handle, executor.write_whole

    def breaks(self: FileHandler, ends: Ends, plan: FilePlan) -> Outcome | None:
        if len(os.listdir(ends.target_fd)) >= 5:
            raise OverflowError
        return handle(self, ends, plan)

    def slow(fd: int, data: bytes) -> None:
        if b"crash" in data:
            time.sleep(0.3)  # in the other process, which is late to say why it ends
        write_whole(fd, data)

    monkeypatch.setattr(FileHandler, "handle", breaks)
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
