"""What may lie in a source or a destination: links, special files, odd names, mounts."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Callable
from contextlib import suppress

import pytest

from dms_scheduler.movers import Compare, MoverError, PartialFailure, Preserve, Refused
from dms_scheduler.movers.native import attributes
from tests.unit.movers.support import Place, Recorder, look
from tests.unit.movers.swaps import SECRET, Canary, assert_not_copied

NAMES = [
    b"new\nline",
    b"\x1b[2Jescape\x07",
    "right\u202eto-left".encode(),
    b"n" * 255,
    b"\xff\xfe not utf-8",
    b"-rf",
    b"--config=x",
    b"*",
    b"~",
    b"~root",
    b" ",
    b"a:b",
    b":local:",
    b"$(touch x)",
    b"`touch x`",
    b"%2e%2e",
    b"..\\..\\etc",
    b"...",
    b"\xe2\x80\xa5",  # two dots in one character
    b"\xef\xbc\x8e\xef\xbc\x8e",  # two wide dots
    b"\xe2\x88\x95etc",  # looks like a slash
    "한글".encode(),
    b"\\",
]


def test_links_of_the_source_are_kept_as_they_are(place: Place, canary: Canary) -> None:
    targets = {
        "absolute": "/etc",
        "up": "..",
        "far-up": "../../../../../../../etc/passwd",
        "self": "self",
        "loop-a": "loop-b",
        "loop-b": "loop-a",
        "dangling": "nowhere",
        "canary": str(canary.folder),
        "secret": str(canary.folder / "secret"),
        "long": "x" * 4000,
    }
    for name, target in targets.items():
        (place.src / name).symlink_to(target)
    place.write("src/file")
    for delete in (False, True):
        place.run(delete=delete, preserve=frozenset(Preserve) - {Preserve.OWNER})
        assert {name: os.readlink(place.dst / name) for name in targets} == targets
    assert_not_copied(place.dst)
    canary.assert_untouched()


def test_a_mode_is_never_set_through_a_name(place: Place, canary: Canary) -> None:
    """What was a link when it was planned is a folder when it is copied: its mode is no link's."""
    link = place.dst / "link"
    place.dst.mkdir()
    link.symlink_to(canary.folder)
    held = os.open(place.dst, os.O_RDONLY)
    try:
        for preserve in (frozenset(Preserve), frozenset({Preserve.MODE})):
            with suppress(OSError):
                attributes.carry(
                    preserve,
                    attributes.opened(held),
                    os.stat(place.src),
                    attributes.entry(held, "link"),
                )
    finally:
        os.close(held)
    canary.assert_untouched()


def test_a_hard_link_to_a_file_outside_is_data_and_stays_whole(
    place: Place, canary: Canary
) -> None:
    os.link(canary.folder / "secret", place.src / "hard")
    before = (canary.folder / "secret").stat()
    place.run()
    copy = (place.dst / "hard").stat()
    assert copy.st_ino != before.st_ino
    assert (place.dst / "hard").read_text() == SECRET
    assert (canary.folder / "secret").stat().st_nlink == 2


def test_a_hard_link_in_the_destination_is_not_written_through(
    place: Place, canary: Canary
) -> None:
    """The name is replaced; the file that it was shared with stays as it is."""
    place.write("src/hard", "new content").chmod(0o777)
    place.dst.mkdir()
    os.link(canary.folder / "victim", place.dst / "hard")
    place.run()
    assert (place.dst / "hard").read_text() == "new content"
    canary.assert_untouched()


@pytest.mark.root
def test_special_files_are_not_opened(place: Place) -> None:
    """Opening a FIFO would hang, a device could do anything, a socket cannot be opened."""
    os.mkfifo(place.src / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        folder = os.open(place.src, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{folder}/socket")
        os.close(folder)
        try:
            os.mknod(place.src / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
            os.mknod(place.src / "disk", stat.S_IFBLK | 0o600, os.makedev(7, 250))
        except PermissionError:
            pytest.skip("devices can be made by root alone")
        place.write("src/file")
        for name in ("fifo", "zero", "disk", "socket"):
            with pytest.raises(Refused):
                place.run(src=place.src / name, dst=place.root / "one")
        result = place.run(compare=Compare.CHECKSUM)
    assert (result.totals.special, result.totals.files) == (4, 1)
    assert os.listdir(place.dst) == ["file"]


def test_special_files_at_the_destination_are_not_opened(place: Place) -> None:
    """A file of that name is replaced, or told as a conflict; the FIFO is not written to."""
    place.write("src/a", "data")
    place.dst.mkdir()
    os.mkfifo(place.dst / "a")
    with suppress(MoverError):
        place.run(compare=Compare.CHECKSUM)
    status = (place.dst / "a").lstat()
    assert stat.S_ISFIFO(status.st_mode) or (place.dst / "a").read_text() == "data"


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_odd_names_arrive_and_go(place: Place, name: bytes) -> None:
    source = os.fsencode(place.src)
    os.mkdir(os.path.join(source, b"d"))
    for path in (name, b"d/" + name):
        with open(os.path.join(source, path), "wb") as file:
            file.write(b"data")
    control = Recorder()
    place.run(control)
    assert look(place.dst) == look(place.src)
    for text in (*control.lines, *(str(entry.to_dict()) for entry in control.entries)):
        assert "\x1b" not in text
        assert "\n" not in text
        assert "\u202e" not in text
    assert not (place.root / "x").exists()
    shutil.rmtree(place.src)
    place.src.mkdir()
    place.run(delete=True, allow_empty_src=True, backup_deleted=False)
    assert os.listdir(place.dst) == []


@pytest.mark.root
def test_set_id_bits_are_stripped(place: Place) -> None:
    place.write("src/tool").chmod(0o6755)
    (place.src / "folder").mkdir()
    (place.src / "folder").chmod(0o7777)
    place.run(preserve=frozenset(Preserve))
    assert (place.dst / "tool").stat().st_mode & 0o7777 == 0o755
    assert (place.dst / "folder").stat().st_mode & 0o6000 == 0
    place.run(preserve=frozenset(Preserve))
    assert (place.dst / "tool").stat().st_mode & 0o7777 == 0o755


@pytest.mark.root
def test_what_is_mounted_in_the_source_and_the_destination(
    place: Place, mount: Callable[..., None], canary: Canary
) -> None:
    """A mount in the source is copied, as data that the operator put there; one in the destination
    is never deleted from."""
    place.write("src/file")
    place.write("dst/extra")
    mount("--bind", str(canary.folder), where=place.src / "mounted")
    mount("--bind", str(canary.folder), where=place.dst / "kept")
    for backup in (True, False):
        with suppress(PartialFailure):
            place.run(delete=True, backup_deleted=backup)
        canary.assert_untouched()
    assert (place.dst / "mounted" / "secret").read_text() == SECRET


@pytest.mark.root
def test_files_without_end_or_without_size_do_not_hang(
    place: Place, mount: Callable[..., None]
) -> None:
    """A file system such as /proc says nothing true of its files' sizes."""
    mount("-t", "proc", "proc", where=place.src / "proc")
    result = place.run(src=place.src / "proc" / "sys" / "kernel" / "random", retries=0)
    assert result.totals.files >= 1
