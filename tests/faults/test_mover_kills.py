"""kill -9 of a mover, or of a part of it, at random moments: the next attempt puts it all right.

DMS_TEST_KILLS is the number of random kills; each takes about two seconds.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from dms_scheduler.movers import (
    Compare,
    DestinationBusy,
    MoveOptions,
    MoveRequest,
    MoveResult,
    NativeMover,
    Preserve,
    Verify,
)
from tests.stateful.tree_model import foretell
from tests.support.mover_process import MoverProcess, until
from tests.support.trees import (
    SIZES,
    TIMES,
    Entry,
    build_tree,
    content_of,
    differences,
    joined,
    read_tree,
)
from tests.unit.movers.support import Recorder

KILLS = int(os.environ.get("DMS_TEST_KILLS", "6"))
MIB = 1 << 20
ODD = ("한글", "a\nb", "\udcff\udcfe", "-rf", "plain")


def random_trees(seed: int) -> tuple[dict[bytes, Entry], dict[bytes, Entry]]:
    """A source large enough for executors; a destination with some of it, older ones, others."""
    chance = random.Random(seed)
    source = {b"": Entry("dir", 0o755, 7)}
    for number in range(6):
        above = chance.choice([path for path in source if source[path].kind == "dir"])
        name = os.fsencode(f"{chance.choice(ODD)}-{number}")
        source[joined(above, name)] = Entry("dir", chance.choice([0o755, 0o700, 0o555]), 9)
    folders = sorted(source)
    for number in range(120):
        content = content_of(chance.choice(SIZES), seed + number)
        path = joined(chance.choice(folders), os.fsencode(f"{chance.choice(ODD)}.{number}"))
        source[path] = Entry("file", 0o640, chance.choice(TIMES), content)
    source[b"link"] = Entry("link", 0o777, 5, b"nowhere")
    target = dict(source)
    for path, entry in source.items():
        if entry.kind == "file" and chance.random() < 0.8:
            del target[path]
        elif entry.kind == "file" and chance.random() < 0.5:
            target[path] = Entry("file", 0o600, 11, b"old")
    for number in range(10):
        path = joined(chance.choice(folders), b"extra.%d" % number)
        target[path] = Entry("file", 0o644, 3, b"extra")
    return source, target


def random_request(seed: int, root: Path) -> MoveRequest:
    chance = random.Random(seed)
    options = MoveOptions(
        compare=chance.choice([Compare.SIZE_MTIME, Compare.CHECKSUM]),
        verify=chance.choice(list(Verify)),
        delete=chance.random() < 0.7,
        backup_deleted=chance.random() < 0.5,
        transfers=chance.choice([1, 2, 4]),
        bandwidth=chance.choice([2, 4, 8]) * MIB,
    )
    return request_of(root, options)


def request_of(root: Path, options: MoveOptions, epoch: int = 1) -> MoveRequest:
    return MoveRequest(
        task_id="killed",
        epoch=epoch,
        src=str(root / "src"),
        dst=str(root / "dst"),
        roots=(str(root),),
        options=options,
    )


def is_reserved(path: bytes) -> bool:
    """Whether it is a file that a mover makes for its own use."""
    name = os.path.basename(path)
    return name.startswith(b".dms-") and name != b".dms-deleted"


def wait_for_moment(mover: MoverProcess, root: Path, chance: random.Random) -> None:
    """Wait until a random number of files has come to the destination, and one is on its way."""
    wanted = len(names_below(root / "dst")) + chance.randrange(70)

    def come() -> bool:
        names = names_below(root / "dst")
        return mover.ended or (any(map(is_reserved, names)) and len(names) > wanted)

    until(come, "the mover is in the middle")


def names_below(top: Path) -> list[bytes]:
    return [name for _, _, found in os.walk(os.fsencode(top)) for name in found]


def rerun(root: Path, options: MoveOptions, recorder: Recorder | None = None) -> MoveResult:
    """Run the next attempt, as soon as what may be left of the one before lets go."""
    results: list[MoveResult] = []

    def done() -> bool:
        try:
            request = request_of(root, options, epoch=2)
            results.append(NativeMover().run(request, recorder or Recorder()))
        except DestinationBusy:
            return False
        return True

    until(done, "the destination is free")
    return results[0]


@pytest.mark.parametrize("seed", range(KILLS))
def test_after_a_kill_at_any_moment_the_next_attempt_completes(tmp_path: Path, seed: int) -> None:
    chance = random.Random(f"kill {seed}")
    source, before = random_trees(seed)
    build_tree(source, tmp_path / "src")
    build_tree(before, tmp_path / "dst")
    request = random_request(seed, tmp_path)
    wanted = foretell(source, before, request.options, backup="killed.1")
    with MoverProcess(request) as mover:
        wait_for_moment(mover, tmp_path, chance)
        if seed % 2:
            mover.kill_group()
        else:
            mover.kill_main()
            until(lambda: not mover.group(), "its executors follow it")
    left = {p: e for p, e in read_tree(tmp_path / "dst").items() if not is_reserved(p)}
    for path, entry in left.items():  # each file is the old one or the new one, whole
        known = [tree[path].content for tree in (before, wanted.tree) if path in tree]
        assert entry.kind == "dir" or entry.content in known, path
    options = request.options
    told = foretell(source, left, options, backup="killed.2")
    assert not told.refused
    rerun(tmp_path, options)
    assert not differences(told.tree, read_tree(tmp_path / "dst"))
    assert not differences(source, read_tree(tmp_path / "src"))


# --------------------------------------------------------------------------------------- big files
BIG = 160 * MIB
JOURNAL = ".dms-part*journal"


def write_big(path: Path, seed: int, size: int = BIG) -> None:
    path.parent.mkdir(exist_ok=True)
    block = bytearray(content_of(MIB, seed))
    with path.open("wb") as file:
        for number in range(size // MIB):
            block[:8] = number.to_bytes(8, "big")
            file.write(block)


def same_file(one: Path, other: Path) -> bool:
    with one.open("rb") as first, other.open("rb") as second:
        while chunk := first.read(MIB):
            if second.read(MIB) != chunk:
                return False
        return not second.read(1)


def journals(root: Path) -> list[Path]:
    return list((root / "dst").glob(JOURNAL))


def kill_in_big_file(root: Path, options: MoveOptions) -> None:
    """Copy until a part of the file is done and written down, and kill all of it then."""

    def part_done() -> bool:
        if mover.ended:
            raise AssertionError(mover.outcome())
        return any(each.read_bytes().count(b"\n") >= 2 for each in journals(root))

    hold = str(root / "dst" / JOURNAL)
    with MoverProcess(request_of(root, options), hold=hold) as mover:
        until(part_done, "a part is done")
        mover.kill_group()
    assert journals(root), "the file was finished before the kill"


def slow(verify: Verify = Verify.TRANSFERRED) -> MoveOptions:
    return MoveOptions(verify=verify, bandwidth=48 * MIB, transfers=2)


@pytest.mark.parametrize("verify", [Verify.NONE, Verify.TRANSFERRED])
def test_a_big_file_goes_on_where_the_kill_met_it(tmp_path: Path, verify: Verify) -> None:
    write_big(tmp_path / "src/big", 1)
    kill_in_big_file(tmp_path, slow(verify))
    recorder = Recorder()
    rerun(tmp_path, MoveOptions(verify=verify), recorder)
    assert same_file(tmp_path / "src/big", tmp_path / "dst/big")
    assert recorder.reports[-1].bytes <= BIG - 32 * MIB, "parts that were done are copied again"
    assert os.listdir(tmp_path / "dst") == ["big"]


def rewritten(path: Path) -> None:
    """Other content, same size, a later time."""
    write_big(path, 2)


def rewritten_unnoticed(path: Path) -> None:
    """Other content of one part in place, same size, same time."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(5 * MIB)
        file.write(content_of(MIB, 3))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [rewritten, rewritten_unnoticed])
def test_parts_of_another_version_are_not_used(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    write_big(tmp_path / "src/big", 1)
    kill_in_big_file(tmp_path, slow(Verify.NONE))
    change(tmp_path / "src/big")
    rerun(tmp_path, MoveOptions(verify=Verify.NONE))
    assert same_file(tmp_path / "src/big", tmp_path / "dst/big")
    assert os.listdir(tmp_path / "dst") == ["big"]


def test_a_part_that_was_damaged_meanwhile_is_not_used(tmp_path: Path) -> None:
    write_big(tmp_path / "src/big", 1)
    kill_in_big_file(tmp_path, slow())
    (part,) = (each for each in (tmp_path / "dst").iterdir() if each not in journals(tmp_path))
    with part.open("r+b") as file:
        for offset in range(0, BIG, 16 * MIB):  # some of each part
            file.seek(offset + 12345)
            file.write(b"damaged!")
    rerun(tmp_path, MoveOptions())
    assert same_file(tmp_path / "src/big", tmp_path / "dst/big")


# --------------------------------------------------------------------------------------- executors
def test_an_executor_that_is_killed_ends_the_attempt_and_the_next_one_completes(
    tmp_path: Path,
) -> None:
    source = {b"": Entry("dir", 0o755, 7)}
    for number in range(100):
        content = content_of(200 * 1024, number)
        source[b"file.%d" % number] = Entry("file", 0o644, 5, content)
    build_tree(source, tmp_path / "src")
    options = MoveOptions(transfers=2, bandwidth=MIB // 2)
    with MoverProcess(request_of(tmp_path, options)) as mover:
        until(lambda: len(mover.executors()) > 1 or mover.ended, "executors")
        os.kill(mover.executors()[0], signal.SIGKILL)
        outcome = mover.outcome()
        assert not mover.group()
    assert outcome["error"]["retryable"]
    assert outcome["error"]["result"]["totals"]["files"] < 100
    rerun(tmp_path, MoveOptions(transfers=2, preserve=frozenset(Preserve)))
    assert not differences(source, read_tree(tmp_path / "dst"))
