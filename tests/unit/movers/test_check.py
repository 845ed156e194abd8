"""The native `check`: what differs is found and named, and nothing is changed."""

from __future__ import annotations

import json
import os
import resource
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from app.tasks import PermanentFailure, RetryLater
from dms_scheduler.movers import (
    Action,
    Cancelled,
    CheckResult,
    Compare,
    NativeMover,
    PartialFailure,
    Preserve,
    Refused,
    Symlinks,
)
from dms_scheduler.movers.locks import Locks
from dms_scheduler.movers.native import matching
from dms_scheduler.movers.paths import PATH_FLAGS, root_identities
from tests.unit.movers.forest import TREES, Folder
from tests.unit.movers.support import Place, Recorder, as_nobody, look
from tests.unit.movers.tasks import TaskRecorder, handle

ATTRIBUTES = frozenset({Preserve.MODE, Preserve.MTIME, Preserve.OWNER})


def check(place: Place, control: Recorder | None = None, **options: Any) -> CheckResult:
    options = {"compare": Compare.CHECKSUM, "preserve": frozenset[Preserve](), **options}
    return NativeMover().check(place.request(**options), control or Recorder())


def found(place: Place, **options: Any) -> Counter[tuple[str, str, str | None]]:
    """Return each line of the report: action, path, reason."""
    control = Recorder()
    with suppress(PartialFailure):
        check(place, control, **options)
    return Counter((each.action.value, each.path, each.reason) for each in control.entries)


def twins(place: Place) -> None:
    """Make both sides the same, with some of everything."""
    when = 1_600_000_000_123_456_789
    for side in ("src", "dst"):
        place.write(f"{side}/a", "hello", mtime=when)
        place.write(f"{side}/d/한글", b"\0" * 5000, mtime=when)
        place.write(f"{side}/d/e/empty", "", mtime=when)
        (place.root / side / "d/link").symlink_to("nowhere")
        os.utime(place.root / side / "d/link", ns=(when, when), follow_symlinks=False)
        for folder in ("d/e", "d"):
            os.utime(place.root / side / folder, ns=(when, when))


def test_twins_are_the_same(place: Place) -> None:
    twins(place)
    before = look(place.root)
    control = Recorder()
    result = check(place, control, preserve=ATTRIBUTES)
    assert result.same
    assert (result.totals.same, result.totals.bytes) == (6, 2 * 5005)
    assert control.entries == []
    assert look(place.root) == before
    assert json.loads(json.dumps(result.to_dict()))["same"] is True


@pytest.mark.parametrize("compare", Compare)
def test_a_byte_of_the_same_size_and_time(place: Place, compare: Compare) -> None:
    twins(place)
    place.write("dst/d/한글", b"\0" * 4999 + b"\1", mtime=1_600_000_000_123_456_789)
    lines = found(place, compare=compare)
    expected = {("differs", "d/한글", "content"): 1} if compare is Compare.CHECKSUM else {}
    assert lines == expected


@pytest.mark.parametrize("compare", Compare)
def test_sizes_and_times(place: Place, compare: Compare) -> None:
    twins(place)
    place.write("dst/a", "hello!", mtime=1_600_000_000_123_456_789)
    os.utime(place.dst / "d/한글", ns=(0, 1))
    lines = found(place, compare=compare)
    expected = {
        Compare.EXISTS: {},
        Compare.SIZE: {("differs", "a", "size"): 1},
        Compare.SIZE_MTIME: {("differs", "a", "size"): 1, ("differs", "d/한글", "mtime"): 1},
        Compare.CHECKSUM: {("differs", "a", "size"): 1},
    }
    assert lines == expected[compare]


def test_every_kind_of_difference(place: Place) -> None:
    twins(place)
    place.write("src/only/x/y", "1234")
    place.write("dst/extra/z", "12")
    (place.src / "kind").mkdir()
    place.write("src/kind/below")
    place.write("dst/kind")
    place.write("src/other")
    place.write("dst/other/below")
    (place.src / "turned").symlink_to("a")
    (place.dst / "turned").symlink_to("b")
    (place.src / "was-file").write_text("a")
    (place.dst / "was-file").symlink_to("a")
    os.mkfifo(place.src / "fifo")
    lines = found(place)
    assert lines == {
        ("missing_dst", "only", None): 1,
        ("missing_dst", "only/x", None): 1,
        ("missing_dst", "only/x/y", None): 1,
        ("missing_src", "extra", None): 1,
        ("missing_src", "extra/z", None): 1,
        ("differs", "kind", "kind"): 1,
        ("missing_dst", "kind/below", None): 1,
        ("differs", "other", "kind"): 1,
        ("missing_src", "other/below", None): 1,
        ("differs", "turned", "target"): 1,
        ("differs", "was-file", "kind"): 1,
        ("special", "fifo", None): 1,
    }
    totals = check(place).totals
    assert (totals.differs, totals.missing_src, totals.missing_dst) == (4, 3, 4)
    assert (totals.special, totals.same) == (1, 6)


def test_one_way_ignores_what_the_destination_has_beyond(place: Place) -> None:
    twins(place)
    place.write("dst/extra/z")
    assert not check(place).same
    assert check(place, one_way=True).same
    place.write("src/only")
    assert found(place, one_way=True) == {("missing_dst", "only", None): 1}


def test_attributes_count_only_if_asked_for(place: Place) -> None:
    twins(place)
    (place.dst / "a").chmod(0o600)
    (place.dst / "d").chmod(0o700)
    os.utime(place.dst / "d/한글", ns=(0, 1))
    os.utime(place.dst / "d/link", ns=(0, 1), follow_symlinks=False)
    assert check(place).same
    assert found(place, preserve=ATTRIBUTES) == {
        ("differs", "a", "mode"): 1,
        ("differs", "d", "mode"): 1,
        ("differs", "d/한글", "mtime"): 1,
        ("differs", "d/link", "mtime"): 1,
    }
    (place.dst / "a").write_text("HELLO")
    reasons = [line for line in found(place, preserve=ATTRIBUTES) if line[1] == "a"]
    assert reasons == [("differs", "a", "content, mode, mtime")]


def test_owners_are_compared_if_asked_for(place: Place) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    twins(place)
    os.chown(place.dst / "a", 1, 1)
    assert check(place).same
    assert found(place, preserve=ATTRIBUTES) == {("differs", "a", "owner"): 1}


def test_links_can_be_left_out(place: Place) -> None:
    twins(place)
    (place.dst / "d/link").unlink()
    (place.dst / "new-link").symlink_to("x")
    assert check(place).totals.missing_dst == 1
    assert check(place, symlinks=Symlinks.SKIP).same


def test_patterns_leave_out_both_sides(place: Place) -> None:
    twins(place)
    place.write("src/x.tmp")
    place.write("dst/cache/y")
    assert check(place, exclude=("*.tmp", "cache/")).same
    assert found(place, include=("*.tmp",)) == {("missing_dst", "x.tmp", None): 1}


def test_what_dms_makes_itself_is_on_neither_side(place: Place) -> None:
    twins(place)
    place.write("dst/.dms-deleted/t.1/old")
    place.write("dst/d/.dms-tmp.t.1.1")
    place.write("src/d/.dms-tmp.t.1.2")
    assert check(place).same


def test_a_large_file_is_compared_in_parts(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "PART_BYTES", 1000)
    data = bytes(range(256)) * 40
    place.write("src/big", data)
    place.write("dst/big", data)
    result = check(place)
    assert result.same
    assert result.totals.bytes == 2 * len(data)
    for index in (0, 999, 1000, len(data) - 1):
        wrong = bytearray(data)
        wrong[index] ^= 1
        place.write("dst/big", bytes(wrong))
        assert found(place) == {("differs", "big", "content"): 1}


def test_single_files_are_compared(place: Place) -> None:
    place.write("src/a", "hello")
    place.write("dst/a", "hello")
    assert check(place, src=place.src / "a", dst=place.dst / "a").same
    assert check(place, src=place.src / "a", dst=f"{place.dst}/").same
    place.write("dst/b", "HELLO")
    assert not check(place, src=place.src / "a", dst=place.dst / "b").same
    gone = check(place, src=place.src / "a", dst=place.dst / "c")
    assert gone.totals.missing_dst == 1


@pytest.mark.parametrize("side", ["src", "dst"])
def test_a_side_that_is_not_there_is_no_difference(place: Place, side: str) -> None:
    place.write("src/a")
    place.write("dst/a")
    with pytest.raises(Refused, match="does not exist") as caught:
        check(place, None, **{side: place.root / "missing"})
    assert caught.value.error_class == "not_found"


def test_what_cannot_be_read_is_a_failure(open_place: Place) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a file that this user cannot read")
    twins(open_place)
    open_place.write("src/secret", "1").chmod(0o600)
    open_place.write("dst/secret", "1").chmod(0o644)
    open_place.write("dst/a", "other")
    control = Recorder()
    with as_nobody(), pytest.raises(PartialFailure, match="secret") as caught:
        check(open_place, control)
    result = caught.value.result
    assert isinstance(result, CheckResult)
    assert (result.failed_count, result.totals.differs) == (1, 1)
    assert result.failed[0].error_class == "permission_denied"
    assert Action.FAILED in {each.action for each in control.entries}


def test_a_file_that_changes_all_the_time_is_told(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write("src/a", "1")
    place.write("dst/a", "1")
    pairs = matching.same_range

    def changing(*arguments: Any) -> tuple[bool, int]:
        with (place.src / "a").open("a") as file:
            file.write("x")
        return pairs(*arguments)

    monkeypatch.setattr(matching, "same_range", changing)
    with pytest.raises(PartialFailure, match="changed while it was read") as caught:
        check(place, retries=0)
    assert caught.value.retryable


@pytest.mark.parametrize("part_bytes", [1, 1 << 20])
def test_a_file_that_changes_once_is_read_again(
    place: Place, monkeypatch: pytest.MonkeyPatch, part_bytes: int
) -> None:
    monkeypatch.setattr(matching, "PART_BYTES", part_bytes)
    place.write("src/a", "12")
    place.write("dst/a", "12")
    pairs = matching.same_range
    calls: list[int] = []

    def changing(*arguments: Any) -> tuple[bool, int]:
        calls.append(1)
        if len(calls) == 1:
            place.write("src/a", "13")
            place.write("dst/a", "13")
            os.utime(place.src / "a", ns=(0, 1))
        return pairs(*arguments)

    monkeypatch.setattr(matching, "same_range", changing)
    assert check(place).same
    assert len(calls) > 1


def test_a_part_that_changes_behind_the_reader_is_read_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "PART_BYTES", 1)
    place.write("src/a", "12", mtime=1)
    place.write("dst/a", "12", mtime=1)
    pairs = matching.same_range
    calls: list[int] = []

    def changing(*arguments: Any) -> tuple[bool, int]:
        calls.append(1)
        answer = pairs(*arguments)
        if len(calls) == 2:
            place.write("src/a", "92", mtime=2)
        return answer

    monkeypatch.setattr(matching, "same_range", changing)
    assert check(place, transfers=1).totals.differs == 1


def test_a_cancel_ends_it(place: Place) -> None:
    twins(place)

    def cancel(checks: int) -> None:
        if checks > 5:
            raise Cancelled("stop")

    with pytest.raises(Cancelled) as caught:
        check(place, Recorder(cancel))
    assert isinstance(caught.value.result, CheckResult)


def test_progress_knows_how_much_there_is_to_read(place: Place) -> None:
    twins(place)
    control = Recorder()
    check(place, control)
    last = control.reports[-1]
    assert (last.bytes, last.total_bytes, last.files, last.total_files) == (10010, 10010, 3, 3)


def test_a_limit_set_meanwhile_counts(place: Place) -> None:
    place.write("src/a", b"x" * 2000)
    place.write("dst/a", b"x" * 2000)
    control = Recorder()
    control.bandwidth = 0
    assert check(place, control, bandwidth=1).same  # at 1 byte a second it would take an hour


def test_descriptors_stay_few(place: Place) -> None:
    for number in range(60):
        place.write(f"src/{number}/a/b/f", "1")
        place.write(f"dst/{number}/a/b/f", "1")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 400), hard))
    try:
        assert check(place, transfers=8).same
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_it_waits_while_another_task_writes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMS_DATA_ROOTS", str(place.root))
    twins(place)
    fd = os.open(place.dst, PATH_FLAGS)
    locks = Locks(root_identities((str(place.root),)), lambda _: None)
    try:
        locks.write(fd)
        with pytest.raises(RetryLater) as caught:
            handle("check", src=str(place.src), dst=str(place.dst))
        assert not caught.value.counted
    finally:
        locks.close()
        os.close(fd)


def test_differences_fail_the_task_with_clear_words(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMS_DATA_ROOTS", str(place.root))
    twins(place)
    src, dst = str(place.src), str(place.dst)
    assert handle("check", src=src, dst=dst)["same"] is True
    place.write("dst/a", "HELLO")
    place.write("src/b")
    place.write("dst/c")
    place.write("dst/d2/e")
    control = TaskRecorder()
    with pytest.raises(PermanentFailure) as caught:
        handle("check", control, src=src, dst=dst)
    assert str(caught.value) == (
        "1 entry differs, 1 is missing at the destination, 3 are missing at the source"
    )
    data = json.loads(json.dumps(caught.value.data))
    assert (data["error_class"], data["retryable"], data["same"]) == ("differences", False, False)
    assert len(data["sample"]) == len(control.entries) == 5


def naive(left: Path, right: Path) -> Counter[str]:
    """Compare two trees without any of the mover's code: kind, content, target."""
    first, second = look(left, times=False), look(right, times=False)
    kinds: Counter[str] = Counter()
    for name in first.keys() | second.keys():
        if name not in first:
            kinds["missing_src"] += 1
        elif name not in second:
            kinds["missing_dst"] += 1
        else:
            same = (first[name][0], first[name][2]) == (second[name][0], second[name][2])
            kinds["same" if same else "differs"] += 1
    return kinds


@settings(max_examples=30, deadline=None)
@given(TREES, TREES)
def test_any_two_trees_compare_as_a_naive_reader_says(
    tmp_path_factory: pytest.TempPathFactory, left: Folder, right: Folder
) -> None:
    root = tmp_path_factory.mktemp("trees")
    left.build(os.fsencode(root / "left"))
    right.build(os.fsencode(root / "right"))
    place = Place(root)
    totals = check(place, src=root / "left", dst=root / "right").totals
    expected = naive(root / "left", root / "right")
    for name in ("same", "differs", "missing_src", "missing_dst"):
        assert getattr(totals, name) == expected[name]
