"""Tasks whose trees hold each other, by whatever name, never write at once; all others may."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from dms_scheduler.movers import DestinationBusy, MoverError, Refused, SourceBusy
from dms_scheduler.movers.above import ancestry
from dms_scheduler.movers.locks import Locks
from dms_scheduler.movers.paths import identity, root_identities
from tests.unit.movers.support import Place, Recorder, look

Bind = Callable[[Path, Path], None]
Act = Callable[[Locks, int], None]


def own(locks: Locks, fd: int) -> None:
    locks.write(fd)


def change(locks: Locks, fd: int) -> None:
    locks.write_in(fd)


def read(locks: Locks, fd: int) -> None:
    locks.read(fd)


def read_at_rest(locks: Locks, fd: int) -> None:
    locks.read(fd, at_rest=True)


@contextmanager
def other_task(root: Path, act: Act, path: Path) -> Generator[Locks]:
    """Another task that is at work with the directory `path`."""
    with ExitStack() as stack:
        locks = Locks(root_identities((str(root),)), lambda _: None)
        stack.callback(locks.close)
        fd = os.open(path, os.O_PATH)
        stack.callback(os.close, fd)
        act(locks, fd)
        yield locks


def may(root: Path, act: Act, path: Path) -> bool:
    """Whether a further task may do that now."""
    try:
        with other_task(root, act, path):
            return True
    except (DestinationBusy, SourceBusy):
        return False


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "a" / "x").mkdir()
    (tmp_path / "z").mkdir()
    return tmp_path


@pytest.fixture
def bind() -> Generator[Bind]:
    """Show a directory at another place too, as `mount --bind` does."""
    with ExitStack() as stack:

        def mount(what: Path, where: Path) -> None:
            where.mkdir(parents=True, exist_ok=True)
            command = ["mount", "--bind", str(what), str(where)]
            done = subprocess.run(command, capture_output=True, check=False)
            if done.returncode:
                pytest.skip(f"nothing can be mounted here: {done.stderr.decode().strip()}")
            stack.callback(subprocess.run, ["umount", "-l", str(where)], check=True)

        yield mount


@pytest.mark.parametrize(
    ("first", "at", "second", "then", "expected"),
    [
        (own, "a/b", own, "a/b", False),
        (own, "a/b", own, "a/b/c", False),
        (own, "a/b", own, "a", False),
        (own, "a/b", own, "a/x", True),
        (own, "a/b", own, "z", True),
        (own, "a/b", change, "a/b", False),
        (own, "a/b", change, "a/b/c", False),
        (own, "a/b", change, "a", True),
        (change, "a/b", own, "a/b", False),
        (change, "a/b", own, "a", False),
        (change, "a/b", own, "a/b/c", True),
        (change, "a/b", change, "a/b", True),
        (change, "a/b", change, "a", True),
        (own, "a/b", read, "a/b", False),
        (own, "a/b", read, "a/b/c", False),
        (own, "a/b", read, "a", True),
        (own, "a/b", read_at_rest, "a", False),
        (own, "a/b", read_at_rest, "a/x", True),
        (change, "a/b", read, "a/b", True),
        (change, "a/b", read_at_rest, "a/b", False),
        (change, "a/b", read_at_rest, "a/b/c", True),
        (read, "a/b", read, "a/b", True),
        (read, "a/b", read_at_rest, "a", True),
        (read_at_rest, "a/b", read, "a/b/c", True),
        (read, "a/b", own, "a/b", False),
        (read, "a/b", own, "a", False),
        (read, "a/b", own, "a/b/c", True),
        (read_at_rest, "a/b", own, "a/b/c", True),
        (read, "a/b", change, "a/b", True),
    ],
)
def test_who_may_work_beside_whom(
    tree: Path, first: Act, at: str, second: Act, then: str, expected: bool
) -> None:
    assert may(tree, second, tree / then)
    with other_task(tree, first, tree / at):
        assert may(tree, second, tree / then) is expected
    assert may(tree, second, tree / then)


def test_a_task_is_not_in_its_own_way(tree: Path) -> None:
    with other_task(tree, read_at_rest, tree / "a" / "x") as locks:
        for path, act in (("a/b", own), ("a", change), ("a/b/c", change), ("z", own)):
            fd = os.open(tree / path, os.O_PATH)
            act(locks, fd)
            os.close(fd)


def test_what_was_in_the_way_is_named(tree: Path) -> None:
    for act, at, words in (
        (own, "a", f"writes to {tree}/a;"),
        (own, "a/b/c", f"writes to something in {tree}/a/b;"),
        (read, "a/b", f"reads {tree}/a/b or something in it;"),
    ):
        with (
            other_task(tree, act, tree / at),
            pytest.raises(DestinationBusy, match=words) as caught,
            other_task(tree, own, tree / "a" / "b"),
        ):
            pass
        assert (caught.value.error_class, caught.value.retryable) == ("destination_busy", True)
    with (
        other_task(tree, own, tree / "a"),
        pytest.raises(SourceBusy) as busy,
        other_task(tree, read, tree / "a"),
    ):
        pass
    assert (busy.value.error_class, busy.value.retryable) == ("source_busy", True)


def test_who_was_refused_leaves_nothing_behind(tree: Path) -> None:
    with other_task(tree, own, tree / "a" / "b"):
        for _ in range(3):
            assert not may(tree, own, tree / "a")
        assert may(tree, own, tree / "a" / "x")
    assert may(tree, own, tree / "a")


def test_nothing_is_locked_above_the_roots(tree: Path) -> None:
    with other_task(tree / "a", own, tree / "a" / "b"):
        assert may(tree, own, tree)
    with other_task(tree, own, tree / "a" / "b"):
        assert not may(tree, own, tree)


def test_nested_roots_are_locked_from_the_highest(tree: Path) -> None:
    roots = root_identities((str(tree), str(tree / "a")))
    locks = Locks(roots, lambda _: None)
    fd = os.open(tree / "a" / "b", os.O_PATH)
    try:
        locks.write(fd)
        assert not may(tree, own, tree)
    finally:
        os.close(fd)
        locks.close()


def test_another_spelling_is_the_same_directory(tree: Path) -> None:
    (tree / "alias").symlink_to("a")
    with other_task(tree / "alias", own, tree / "alias" / "b"):
        assert not may(tree / "a", own, tree / "a")
        assert not may(tree, own, tree / "a" / "b" / ".." / "b" / "c")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a/b", "alias"),  # the same
        ("a/b/c", "alias"),  # below, seen from above the mount
        ("a", "alias"),  # above what is mounted
        ("a", "alias/c"),
        ("alias/c", "a"),
        ("alias/c", "a/b/c"),
        ("a/b/c", "far"),  # above the place where it is mounted
        ("far", "a/b/c"),
    ],
)
def test_a_bind_mount_hides_nothing(tree: Path, bind: Bind, first: str, second: str) -> None:
    alias = tree / "far" / "alias"
    bind(tree / "a" / "b", alias)
    where = {"alias": alias, "alias/c": alias / "c"}
    one, two = where.get(first, tree / first), where.get(second, tree / second)
    with other_task(tree, own, one):
        assert not may(tree, own, two)
        assert may(tree, own, tree / "z")
    assert may(tree, own, two)


def test_a_directory_that_is_mounted_below_itself_has_all_that_is_above(
    tree: Path, bind: Bind
) -> None:
    bind(tree / "a", tree / "a" / "b")
    fd = os.open(tree / "a" / "b" / "x", os.O_PATH)
    try:
        assert {identity(path.stat()) for path in (tree / "a", tree, Path("/"))} <= ancestry(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("end", ["src", "dst"])
def test_overlap_through_a_bind_mount_is_refused(place: Place, bind: Bind, end: str) -> None:
    """The alias shows a folder in the middle of the tree that the other end is."""
    place.write("tree/folder/inner/file", "data")
    alias = place.root / "alias"
    bind(place.root / "tree" / "folder", alias)
    before = look(place.root)
    ends = {"src": place.root / "tree", "dst": place.root / "tree", end: alias / "inner"}
    with pytest.raises(Refused) as caught:
        place.run(src=ends["src"], dst=ends["dst"], delete=True)
    assert caught.value.error_class == "overlap"
    assert look(place.root) == before


def test_locks_live_as_long_as_a_forked_process(tree: Path) -> None:
    reading, writing = os.pipe()
    with other_task(tree, own, tree / "a") as locks:
        pid = os.fork()
        if pid == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
        locks.close()
        assert not may(tree, own, tree / "a" / "b")
    os.close(writing)
    os.waitpid(pid, 0)
    os.close(reading)
    assert may(tree, own, tree / "a" / "b")


def test_an_executed_process_holds_what_it_is_given(tree: Path) -> None:
    with other_task(tree, own, tree / "a") as locks:
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=locks.fds)
    with child:
        assert not may(tree, own, tree / "a")
    assert may(tree, own, tree / "a")


def refuse(monkeypatch: pytest.MonkeyPatch, number: int, command: int = fcntl.F_OFD_SETLK) -> None:
    """Let record locks fail, as on a file system that has none."""
    fcntl_ = fcntl.fcntl

    def fail(fd: int, cmd: int, arg: bytes | int = 0) -> bytes | int:
        if cmd == command:
            raise OSError(number, os.strerror(number))
        return fcntl_(fd, cmd, arg)

    monkeypatch.setattr(fcntl, "fcntl", fail)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF])
def test_a_file_system_without_locks_is_told_once(
    place: Place, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    place.write("src/a")
    refuse(monkeypatch, number)
    control = Recorder()
    place.run(control)
    told = [line for line in control.lines if "takes no locks" in line]
    assert len(told) == 1
    assert "nothing keeps another task" in told[0]
    assert (place.dst / "a").exists()


def test_another_error_of_a_lock_ends_the_task(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write("src/a")
    refuse(monkeypatch, errno.EIO)
    with pytest.raises(MoverError) as caught:
        place.run()
    assert caught.value.error_class == "io_error"
    assert not place.dst.exists()


def test_a_destination_belongs_to_one_task_at_a_time(place: Place) -> None:
    place.write("src/a")
    place.dst.mkdir()
    with other_task(place.root, own, place.dst):
        for src in (place.src, place.src / "a"):
            with pytest.raises(DestinationBusy):
                place.run(src=src)
        assert not os.listdir(place.dst)
        place.run(dst=place.root / "beside")
    place.run()
    assert look(place.dst) == look(place.src)


def test_single_files_share_a_directory(place: Place) -> None:
    place.write("src/a")
    place.dst.mkdir()
    with other_task(place.root, change, place.dst):
        place.run(src=place.src / "a")
    assert (place.dst / "a").exists()


def test_nothing_is_made_in_a_tree_that_another_task_writes(place: Place) -> None:
    place.write("src/a")
    place.dst.mkdir()
    with other_task(place.root, own, place.dst), pytest.raises(DestinationBusy):
        place.run(dst=place.dst / "new" / "deep")
    assert not os.listdir(place.dst)


def test_a_source_that_is_written_is_not_read(place: Place) -> None:
    place.write("src/sub/a")
    with other_task(place.root, own, place.src), pytest.raises(SourceBusy):
        place.run()
    assert not place.dst.exists()
    with other_task(place.root, own, place.src / "sub"):
        with pytest.raises(SourceBusy, match="something in"):
            place.run(delete=True)
        place.run()
    place.run(delete=True)


def test_a_plan_needs_no_lock(place: Place) -> None:
    place.write("src/a")
    with other_task(place.root, own, place.root):
        assert place.plan().totals.files == 1


def test_who_reads_is_waited_for(place: Place) -> None:
    """The destination of one task is the source of another."""
    place.write("src/a")
    place.dst.mkdir()
    with other_task(place.root, read, place.dst), pytest.raises(DestinationBusy, match="reads"):
        place.run()
    assert not os.listdir(place.dst)


CONTEND = """
import mmap, os, random, sys
from dms_scheduler.movers.errors import DestinationBusy
from dms_scheduler.movers.locks import Locks
from dms_scheduler.movers.paths import root_identities
root, number, board = sys.argv[1], int(sys.argv[2]), mmap.mmap(int(sys.argv[3]), 64)
paths = ["a", "a/b", "a/b/c", "a/b/c/d", "a/x", "a/x/y"]
chance, roots, won = random.Random(number), root_identities((root,)), 0
for _ in range(200):
    mine = chance.randrange(len(paths))
    locks, fd = Locks(roots, print), os.open(os.path.join(root, paths[mine]), os.O_PATH)
    try:
        locks.write(fd)
        board[mine] = board[mine] + 1
        for other, path in enumerate(paths):
            here, there = paths[mine] + "/", path + "/"
            holds = there.startswith(here) or here.startswith(there)
            if holds and board[other] != (other == mine):
                sys.exit(f"{paths[mine]} beside {path}")
        os.sched_yield()
        board[mine] = board[mine] - 1
        won += 1
    except DestinationBusy:
        pass
    finally:
        locks.close()
        os.close(fd)
sys.exit(0 if won else "it never got a lock")
"""


def test_of_those_that_come_at_once_never_two_get_in(tree: Path) -> None:
    (tree / "a" / "b" / "c" / "d").mkdir()
    (tree / "a" / "x" / "y").mkdir()
    board = os.memfd_create("board")
    os.truncate(board, 64)
    try:
        contenders = [
            subprocess.Popen(
                [sys.executable, "-c", CONTEND, str(tree), str(number), str(board)],
                pass_fds=[board],
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(3)
        ]
        ends = [(each.communicate()[1], each.returncode) for each in contenders]
    finally:
        os.close(board)
    assert ends == [("", 0)] * 3
