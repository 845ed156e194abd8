"""Hard links: who leads, who follows, and that the memory for it is bounded."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dms_scheduler.movers import Compare, MoveOptions, Overwrite, Preserve, Symlinks
from dms_scheduler.movers.errors import Cancelled, FileProblem
from dms_scheduler.movers.native.compare import judge
from dms_scheduler.movers.native.hardlinks import Families, Joined, Leader, Leaders, Name, join

LARGE = (2**64 - 1, 2**64 - 2)


def options(**changes: object) -> MoveOptions:
    preserve = frozenset({Preserve.MTIME, Preserve.MODE, Preserve.HARDLINKS})
    return MoveOptions(preserve=preserve, **changes)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("in_memory", [0, 1, 100])
def test_a_leader_is_known_until_all_names_were_met(in_memory: int) -> None:
    leaders = Leaders(in_memory)
    files = {(1, 1): "a", (1, 2): "\udcff/\n", LARGE: "b/c"}
    for file, path in files.items():
        leaders.lead(file, Leader(path, file if path == "a" else None, 2))
    for left in (2, 1):
        for file, path in files.items():
            assert leaders.meet(file) == Leader(path, file if path == "a" else None, left)
    assert [leaders.meet(file) for file in files] == [None, None, None]
    leaders.close()
    assert leaders.meet((1, 1)) is None


@given(
    names=st.lists(st.integers(0, 6), max_size=40),
    in_memory=st.integers(0, 4),
    outside=st.integers(0, 2),
)
@settings(max_examples=60)
def test_every_name_has_the_first_of_its_file_as_leader(
    names: list[int], in_memory: int, outside: int
) -> None:
    leaders = Leaders(in_memory)
    first: dict[int, str] = {}
    for number, file in enumerate(names):
        found = leaders.meet((7, file))
        assert (found.path if found else None) == first.get(file)
        if found is None:
            first[file] = str(number)
            leaders.lead((7, file), Leader(str(number), None, names.count(file) - 1 + outside))
    leaders.close()


def test_memory_stays_bounded_however_many_names_are_still_to_be_met() -> None:
    leaders = Leaders(100)
    tracemalloc.start()
    try:
        for number in range(5_000):
            leaders.lead((1, number), Leader(f"some/where/{number}", (2, number), 1))
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert leaders.meet((1, 4_999)) == Leader("some/where/4999", (2, 4_999), 1)
    leaders.close()


class Ends:
    """A source and a destination, and what the planning pass would decide about their names."""

    def __init__(self, folder: Path) -> None:
        self.src, self.dst = folder / "src", folder / "dst"
        for side in (self.src, self.dst):
            side.mkdir()

    def family(self, *names: str) -> None:
        first, *others = names
        (self.src / first).write_text("data")
        os.utime(self.src / first, ns=(10, 10))
        for name in others:
            os.link(self.src / first, self.src / name)

    def copy(self, name: str, *others: str, content: str = "data", mtime: int = 10) -> None:
        (self.dst / name).write_text(content)
        (self.dst / name).chmod((self.src / name).stat().st_mode & 0o777)
        os.utime(self.dst / name, ns=(mtime, mtime))
        for other in others:
            os.link(self.dst / name, self.dst / other)

    def decide(self, chosen: MoveOptions) -> dict[str, str]:
        """Return the leader of each name that gets one, else its verdict."""
        families = Families(chosen)
        decided: dict[str, str] = {}
        for name in sorted(os.listdir(self.src)):
            source = (self.src / name).lstat()
            there = self.dst / name
            target = there.lstat() if os.path.lexists(there) else None
            verdict = judge(source, target, chosen)
            assert families.concerns(source)
            leader = families.leader_for(source, target, verdict, name)
            decided[name] = f"-> {leader}" if leader else verdict.name
        families.close()
        return decided


@pytest.fixture
def ends(tmp_path: Path) -> Ends:
    """Three names of one file at the source, and nothing at the destination."""
    both = Ends(tmp_path)
    both.family("a", "b", "c")
    return both


def test_the_first_is_copied_and_the_others_are_linked(ends: Ends) -> None:
    assert ends.decide(options()) == {"a": "COPY", "b": "-> a", "c": "-> a"}


def test_what_is_linked_already_is_skipped(ends: Ends) -> None:
    ends.copy("a", "b", "c")
    assert ends.decide(options()) == {"a": "SKIP", "b": "SKIP", "c": "SKIP"}


def test_a_copy_of_its_own_joins(ends: Ends) -> None:
    ends.copy("a", "b")
    ends.copy("c")
    assert ends.decide(options()) == {"a": "SKIP", "b": "SKIP", "c": "-> a"}


def test_all_follow_a_leader_that_is_replaced(ends: Ends) -> None:
    ends.copy("a", "b", content="old")
    assert ends.decide(options()) == {"a": "COPY", "b": "-> a", "c": "-> a"}


def test_never_overwriting_keeps_what_is_there(ends: Ends) -> None:
    ends.copy("a", content="another version")
    ends.copy("c", content="yet another")
    found = ends.decide(options(overwrite=Overwrite.NEVER))
    assert found == {"a": "SKIP", "b": "COPY", "c": "SKIP"}


def test_never_overwriting_links_new_names_to_a_leader_that_is_the_same(ends: Ends) -> None:
    ends.copy("a")
    ends.copy("c")
    found = ends.decide(options(overwrite=Overwrite.NEVER))
    assert found == {"a": "SKIP", "b": "-> a", "c": "SKIP"}


def test_a_newer_version_at_the_destination_leads_nobody(ends: Ends) -> None:
    ends.copy("a", content="newer", mtime=20)
    ends.copy("b", content="older", mtime=5)
    found = ends.decide(options(overwrite=Overwrite.NEWER))
    assert found == {"a": "SKIP", "b": "COPY", "c": "-> b"}


def test_what_counts_as_the_same_by_name_alone_is_not_touched(ends: Ends) -> None:
    ends.copy("a", content="whatever")
    ends.copy("b", content="else")
    found = ends.decide(options(compare=Compare.EXISTS))
    assert found == {"a": "SKIP", "b": "SKIP", "c": "-> a"}


def test_names_that_are_not_met_matter_to_nobody(ends: Ends) -> None:
    (ends.src / "a").rename(ends.src.parent / "outside")
    assert ends.decide(options()) == {"b": "COPY", "c": "-> b"}


def test_symbolic_links_have_families_too(tmp_path: Path) -> None:
    both = Ends(tmp_path)
    (both.src / "a").symlink_to("nowhere")
    os.link(both.src / "a", both.src / "b", follow_symlinks=False)
    assert both.decide(options()) == {"a": "LINK", "b": "-> a"}
    skipping = Families(options(symlinks=Symlinks.SKIP))
    assert not skipping.concerns((both.src / "a").lstat())


def test_single_names_and_other_wishes_are_no_concern(ends: Ends) -> None:
    alone = ends.src.parent / "alone"
    alone.touch()
    assert not Families(options()).concerns(alone.stat())
    assert not Families(options()).concerns(ends.src.stat())
    assert not Families(MoveOptions()).concerns((ends.src / "a").stat())


@pytest.fixture
def folder(tmp_path: Path) -> Generator[int]:
    """An open directory with a file `leader`."""
    (tmp_path / "leader").write_text("data")
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def joined(
    folder: int,
    name: str = "follower",
    overwrite: Overwrite = Overwrite.ALWAYS,
    check: Callable[[], None] = lambda: None,
) -> Joined:
    source = os.stat("leader", dir_fd=folder)
    return join(Name(folder, "leader"), Name(folder, name), ".temporary", source, overwrite, check)


def inode(folder: int, name: str) -> int:
    return os.stat(name, dir_fd=folder, follow_symlinks=False).st_ino


def test_a_missing_name_and_one_of_its_own_become_the_leaders(folder: int, tmp_path: Path) -> None:
    assert joined(folder) is Joined.MADE
    (tmp_path / "own").write_text("own")
    (tmp_path / "link").symlink_to("leader")
    assert joined(folder, "own") is Joined.MADE
    assert joined(folder, "link") is Joined.MADE
    assert len({inode(folder, name) for name in ("leader", "follower", "own", "link")}) == 1
    assert joined(folder) is Joined.THERE
    assert sorted(os.listdir(folder)) == ["follower", "leader", "link", "own"]


@pytest.mark.parametrize(
    ("overwrite", "age", "result"),
    [
        (Overwrite.NEVER, -5, Joined.THERE),
        (Overwrite.NEWER, 5, Joined.THERE),
        (Overwrite.NEWER, -5, Joined.MADE),
    ],
)
def test_what_appeared_meanwhile_is_kept_as_the_options_say(
    folder: int, tmp_path: Path, overwrite: Overwrite, age: int, result: Joined
) -> None:
    (tmp_path / "follower").write_text("own")
    when = (tmp_path / "leader").stat().st_mtime_ns + age
    os.utime(tmp_path / "follower", ns=(when, when))
    assert joined(folder, overwrite=overwrite) is result
    assert (inode(folder, "follower") == inode(folder, "leader")) == (result is Joined.MADE)


@pytest.mark.parametrize("content", [None, "another size"])
def test_a_leader_that_is_not_what_was_planned_gets_no_names(
    folder: int, tmp_path: Path, content: str | None
) -> None:
    source = os.stat("leader", dir_fd=folder)
    (tmp_path / "leader").unlink()
    if content:
        (tmp_path / "leader").write_text(content)
    with pytest.raises(FileProblem) as caught:
        join(
            Name(folder, "leader"),
            Name(folder, "follower"),
            ".temporary",
            source,
            Overwrite.ALWAYS,
            lambda: None,
        )
    assert caught.value.error_class == "changed_during_copy"
    assert "follower" not in os.listdir(folder)


def test_a_leader_that_is_a_link_by_now_is_not_followed(folder: int, tmp_path: Path) -> None:
    source = os.stat("leader", dir_fd=folder)
    (tmp_path / "canary").write_text("data")
    (tmp_path / "leader").unlink()
    (tmp_path / "leader").symlink_to("canary")
    with pytest.raises(FileProblem):
        join(
            Name(folder, "leader"),
            Name(folder, "follower"),
            ".temporary",
            source,
            Overwrite.ALWAYS,
            lambda: None,
        )
    assert (tmp_path / "canary").stat().st_nlink == 1


@pytest.mark.parametrize("at", [1, 2])
def test_stopped_before_either_change_it_leaves_no_temporary_name(
    folder: int, tmp_path: Path, at: int
) -> None:
    (tmp_path / "follower").write_text("own")
    asked = 0

    def check() -> None:
        nonlocal asked
        asked += 1
        if asked == at:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        joined(folder, check=check)
    assert (tmp_path / "follower").read_text() == "own"
    assert sorted(os.listdir(folder)) == ["follower", "leader"]


def test_another_file_system_is_for_copying(folder: int, small_disk: Path) -> None:
    other = os.open(small_disk, os.O_RDONLY | os.O_DIRECTORY)
    try:
        source = os.stat("leader", dir_fd=folder)
        result = join(
            Name(folder, "leader"),
            Name(other, "follower"),
            ".temporary",
            source,
            Overwrite.ALWAYS,
            lambda: None,
        )
    finally:
        os.close(other)
    assert result is Joined.IMPOSSIBLE
    assert os.listdir(small_disk) == []
