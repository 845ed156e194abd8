"""Attributes: what is carried over, in the right order, and what never is."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import pytest

from dms_scheduler.movers import PartialFailure, Preserve
from dms_scheduler.movers.errors import FileProblem
from dms_scheduler.movers.native.attributes import carry, entry, opened, place, xattrs_differ
from dms_scheduler.movers.native.filecopy import Ends, FileCopier
from tests.unit.movers.support import NOBODY, Place, as_nobody

ALL = frozenset(Preserve)
XATTRS = frozenset({Preserve.XATTRS})
CAPABILITY = "security.capability"
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users: needs root")


def acl(user: int, mask: int) -> bytes:
    """Return an ACL in the kernel's own form: one named user beside the usual three."""
    nobody_in_particular = 0xFFFFFFFF
    entries = [(1, 6), (2, 4), (4, 4), (0x10, mask), (0x20, 0)]
    packed = [
        struct.pack("<HHI", tag, rights, user if tag == 2 else nobody_in_particular)
        for tag, rights in entries
    ]
    return struct.pack("<I", 2) + b"".join(packed)


def set_or_skip(path: Path, name: str, value: bytes) -> None:
    try:
        os.setxattr(path, name, value)
    except OSError as error:
        pytest.skip(f"this file system keeps no {name} here: {error.strerror}")


class Pair:
    """A file and its copy, open."""

    def __init__(self, folder: Path) -> None:
        self.source, self.target = folder / "source", folder / "target"
        for file in (self.source, self.target):
            file.write_text("data")
        self._fds = [os.open(file, os.O_RDONLY) for file in (self.source, self.target)]

    def carry(self, preserve: frozenset[Preserve], *, was_there: bool = False) -> None:
        source, target = self._fds
        had = os.fstat(target) if was_there else None
        carry(preserve, opened(source), os.fstat(source), opened(target), had)

    def differ(self, preserve: frozenset[Preserve] = XATTRS) -> bool:
        return xattrs_differ(preserve, opened(self._fds[0]), opened(self._fds[1]))

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)


@pytest.fixture
def pair(tmp_path: Path) -> Generator[Pair]:
    """Two files of the same content."""
    both = Pair(tmp_path)
    yield both
    both.close()


def test_extended_attributes_become_the_same_and_no_more(pair: Pair) -> None:
    value = bytes(range(256))
    set_or_skip(pair.source, "user.name", value)
    os.setxattr(pair.source, "user.한글", "값".encode())
    os.setxattr(pair.source, "user.empty", b"")
    os.setxattr(pair.target, "user.name", b"old")
    os.setxattr(pair.target, "user.extra", b"gone afterwards")
    assert pair.differ()
    pair.carry(XATTRS)
    have = {name: os.getxattr(pair.target, name) for name in os.listxattr(pair.target)}
    assert have == {"user.name": value, "user.한글": "값".encode(), "user.empty": b""}
    assert not pair.differ()


@pytest.mark.parametrize("name", ["user.extra", CAPABILITY])
def test_an_attribute_too_many_is_a_difference(pair: Pair, name: str) -> None:
    capability = struct.pack("<IIIII", 0x02000000, 1 << 10, 0, 0, 0)
    set_or_skip(pair.target, name, capability)
    assert pair.differ()
    pair.carry(XATTRS)
    assert os.listxattr(pair.target) == []
    assert not pair.differ()


@as_root
def test_capabilities_and_labels_are_not_carried_over(pair: Pair) -> None:
    set_or_skip(pair.source, CAPABILITY, struct.pack("<IIIII", 0x02000000, 1 << 10, 0, 0, 0))
    set_or_skip(pair.source, "trusted.note", b"kept")
    before = os.stat(pair.target).st_ctime_ns
    pair.carry(XATTRS)
    assert os.listxattr(pair.target) == ["trusted.note"]
    assert not pair.differ()
    assert os.stat(pair.target).st_ctime_ns >= before


@pytest.mark.parametrize("was_there", [False, True])
def test_an_acl_comes_with_the_mode_that_it_makes(pair: Pair, *, was_there: bool) -> None:
    set_or_skip(pair.source, ACCESS, acl(1000, 6))
    wanted = pair.source.stat().st_mode
    preserve = frozenset({Preserve.MODE, Preserve.XATTRS})
    pair.target.chmod(0o604)
    assert pair.differ(preserve)
    pair.carry(preserve, was_there=was_there)
    assert os.getxattr(pair.target, ACCESS) == os.getxattr(pair.source, ACCESS)
    assert pair.target.stat().st_mode == wanted
    assert not pair.differ(preserve)


@pytest.mark.parametrize("was_there", [False, True])
def test_an_inherited_acl_goes_and_leaves_the_mode_of_the_source(
    pair: Pair, *, was_there: bool
) -> None:
    set_or_skip(pair.target, ACCESS, acl(1000, 7))
    pair.source.chmod(0o640)
    preserve = frozenset({Preserve.MODE, Preserve.XATTRS})
    assert pair.differ(preserve)
    pair.carry(preserve, was_there=was_there)
    assert ACCESS not in os.listxattr(pair.target)
    assert stat.S_IMODE(pair.target.stat().st_mode) == 0o640


def test_without_mode_an_acl_is_nobodys_business(pair: Pair) -> None:
    set_or_skip(pair.source, ACCESS, acl(1000, 6))
    assert not pair.differ(XATTRS)
    pair.carry(XATTRS)
    assert os.listxattr(pair.target) == []


def test_a_default_acl_of_a_directory(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    for folder in (source, target):
        folder.mkdir()
    set_or_skip(source, DEFAULT, acl(1000, 6))
    preserve = frozenset({Preserve.MODE, Preserve.XATTRS})
    fds = [os.open(folder, os.O_RDONLY | os.O_DIRECTORY) for folder in (source, target)]
    try:
        carry(preserve, opened(fds[0]), os.fstat(fds[0]), opened(fds[1]))
        assert os.getxattr(target, DEFAULT) == os.getxattr(source, DEFAULT)
    finally:
        for fd in fds:
            os.close(fd)


@as_root
def test_the_order_leaves_owner_mode_and_times_right(pair: Pair) -> None:
    set_or_skip(pair.source, "user.name", b"value")
    os.chown(pair.source, 1234, 4321)
    pair.source.chmod(0o6751)
    os.utime(pair.source, ns=(-1_500_000_001, 4_102_444_800_123_456_789))
    pair.carry(ALL)
    wanted, have = pair.source.stat(), pair.target.stat()
    assert (have.st_uid, have.st_gid) == (1234, 4321)
    assert stat.S_IMODE(have.st_mode) == 0o751  # neither setuid nor setgid
    assert (have.st_atime_ns, have.st_mtime_ns) == (wanted.st_atime_ns, wanted.st_mtime_ns)


@as_root
def test_what_is_right_already_is_left_alone(pair: Pair) -> None:
    for file in (pair.source, pair.target):
        os.chown(file, 1234, 4321)
        file.chmod(0o640)
    before = pair.target.stat().st_ctime_ns
    pair.carry(ALL - {Preserve.MTIME}, was_there=True)
    assert pair.target.stat().st_ctime_ns == before


def test_only_what_is_asked_for_is_carried(pair: Pair) -> None:
    pair.source.chmod(0o600)
    os.utime(pair.source, ns=(5, 5))
    before = pair.target.stat()
    pair.carry(frozenset())
    assert pair.target.stat() == before


@as_root
def test_an_owner_that_is_not_ours_to_give_is_told(open_place: Place) -> None:
    source = open_place.write("src/a")
    os.chown(source, 1234, 1234)
    source.chmod(0o644)
    with as_nobody():
        both = Pair(open_place.dst)
        fd = os.open(source, os.O_RDONLY)
        target = os.open(both.target, os.O_RDONLY)
        try:
            with pytest.raises(FileProblem, match="needs a worker that runs as root") as caught:
                carry(frozenset({Preserve.OWNER}), opened(fd), os.fstat(fd), opened(target))
        finally:
            os.close(fd)
            os.close(target)
            both.close()
    assert caught.value.error_class == "owner_not_permitted"
    assert not caught.value.retryable
    assert both.target.stat().st_uid == NOBODY


def test_a_read_only_file_of_ones_own_gets_its_attributes(open_place: Place) -> None:
    with as_nobody():
        both = Pair(open_place.dst)
        set_or_skip(both.source, "user.name", b"value")
        both.target.chmod(0o444)
        both.carry(XATTRS, was_there=True)
        both.close()
    assert os.getxattr(both.target, "user.name") == b"value"
    assert stat.S_IMODE(both.target.stat().st_mode) == 0o444


def test_a_symbolic_link_has_owner_and_times_of_its_own(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("mine")
    before = canary.stat()
    source, target = tmp_path / "source", tmp_path / "target"
    for link in (source, target):
        link.symlink_to("canary")
    owner = (1234, 4321) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(source, *owner, follow_symlinks=False)
    os.utime(source, ns=(5, 7), follow_symlinks=False)
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        status = source.lstat()
        carry(ALL, entry(folder, "source"), status, entry(folder, "target"))
    finally:
        os.close(folder)
    have = target.lstat()
    assert (have.st_uid, have.st_gid, have.st_mtime_ns) == (*owner, 7)
    assert canary.stat() == before


def test_a_held_place_is_enough(pair: Pair) -> None:
    set_or_skip(pair.source, "user.name", b"value")
    pair.source.chmod(0o000)
    fds = [os.open(file, os.O_PATH | os.O_NOFOLLOW) for file in (pair.source, pair.target)]
    try:
        # Only root may read the attributes of a file that nobody may read.
        preserve = ALL if os.geteuid() == 0 else ALL - {Preserve.XATTRS}
        carry(preserve, place(fds[0]), os.fstat(fds[0]), place(fds[1]))
    finally:
        for fd in fds:
            os.close(fd)
    assert stat.S_IMODE(pair.target.stat().st_mode) == 0


@pytest.fixture
def without_xattrs(tmp_path: Path) -> Generator[Path]:
    """A file system that keeps no extended attributes."""
    folder = tmp_path / "plain"
    folder.mkdir()
    mount = ["mount", "-t", "ramfs", "dms-test", str(folder)]
    done = subprocess.run(mount, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no ramfs can be mounted here: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def carry_xattrs(source: Path, target: Path) -> None:
    fds = [os.open(file, os.O_RDONLY) for file in (source, target)]
    try:
        carry(XATTRS, opened(fds[0]), os.fstat(fds[0]), opened(fds[1]))
    finally:
        for fd in fds:
            os.close(fd)


def test_a_file_system_without_attributes_is_told_only_where_it_matters(
    tmp_path: Path, without_xattrs: Path
) -> None:
    source, target = tmp_path / "a", without_xattrs / "b"
    source.touch()
    target.touch()
    carry_xattrs(source, target)
    set_or_skip(source, "user.name", b"value")
    with pytest.raises(FileProblem, match=r"keeps no attribute user\.name") as caught:
        carry_xattrs(source, target)
    assert (caught.value.error_class, caught.value.retryable) == ("xattrs_not_supported", False)
    carry_xattrs(target, target)


def test_an_attribute_that_does_not_fit_is_no_full_disk(tmp_path: Path, small_disk: Path) -> None:
    source, target = small_disk / "a", tmp_path / "b"
    source.touch()
    target.touch()
    set_or_skip(source, "user.large", b"x" * 40_000)
    with suppress(OSError):
        os.setxattr(target, "user.large", b"x" * 40_000)
        pytest.skip("this file system takes an attribute of 40,000 bytes")
    with pytest.raises(FileProblem, match="no room for the attribute") as caught:
        carry_xattrs(source, target)
    assert (caught.value.error_class, caught.value.retryable) == ("xattrs_too_large", False)


@as_root
@pytest.mark.parametrize("swap", ["file", "link with another name"])
def test_a_temporary_link_that_was_swapped_gets_no_owner(
    place: Place, monkeypatch: pytest.MonkeyPatch, swap: str
) -> None:
    """Who may write to the destination must not have the owner of another's file changed."""
    canary = place.write("canary", "not yours")
    source = place.src / "link"
    source.symlink_to("nowhere")
    os.chown(source, 1234, 1234, follow_symlinks=False)
    other = place.root / "other"
    other.symlink_to("nowhere")
    made = os.symlink

    def swapped(points_to: str, name: str, *, dir_fd: int) -> None:
        made(points_to, name, dir_fd=dir_fd)
        os.unlink(name, dir_fd=dir_fd)
        taken = canary if swap == "file" else other
        os.link(taken, name, dst_dir_fd=dir_fd, follow_symlinks=False)

    monkeypatch.setattr(os, "symlink", swapped)
    with pytest.raises(PartialFailure):
        place.run(preserve=ALL)
    assert canary.stat().st_uid == 0
    assert other.lstat().st_uid == 0


@as_root
def test_a_file_that_was_swapped_for_another_name_gets_no_attributes(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = place.write("canary", "not yours")
    canary.chmod(0o600)
    file = place.write("src/file")
    place.run(preserve=ALL)
    file.chmod(0o666)
    os.chown(file, 1234, 1234)
    update = FileCopier.update

    def swapped(
        copier: FileCopier, ends: Ends, name: str, target: str, compared: os.stat_result | None
    ) -> None:
        os.unlink(target, dir_fd=ends.target_fd)
        os.link(canary, target, dst_dir_fd=ends.target_fd, follow_symlinks=False)
        update(copier, ends, name, target, compared)

    monkeypatch.setattr(FileCopier, "update", swapped)
    with pytest.raises(PartialFailure):
        place.run(preserve=ALL)
    status = canary.stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o600)
