"""What copies carry over: builds one of everything, copies it by DMS, cp and rsync, and looks.

`python -m tests.unit.movers.fidelity` (as root) writes the table of docs/fidelity.md anew.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from dms_scheduler.movers import MoveOptions, MoveRequest, NativeMover, PartialFailure, Preserve
from tests.unit.movers.support import Recorder

DOCUMENT = Path(__file__).parents[3] / "docs" / "fidelity.md"
BEGIN, END = "<!-- the table: generated -->", "<!-- end of the table -->"
KEPT, LOST, LEFT_OUT, STRIPPED = "kept", "lost", "left out", "stripped"
_GET_FLAGS, _SET_FLAGS, _IMMUTABLE = 0x80086601, 0x40086602, 0x10

Build = Callable[[bytes], object]
Look = Callable[[bytes], object]


class Row(NamedTuple):
    """One kind of thing: `build` makes it in a directory, `look` returns what has to be the same.

    `lost` is the word for a copy in which it is not.
    """

    title: str
    build: Build
    look: Look
    lost: str = LOST


def _at(folder: bytes, name: str = "x") -> bytes:
    return os.path.join(folder, os.fsencode(name))


def _write(folder: bytes, name: str = "x", content: bytes = b"data") -> bytes:
    path = _at(folder, name)
    with open(path, "wb") as file:
        file.write(content)
    return path


def _mode(folder: bytes) -> int:
    return stat.S_IMODE(os.lstat(_at(folder)).st_mode)


def _set_mode(mode: int, *, directory: bool = False) -> Build:
    def build(folder: bytes) -> None:
        if directory:
            os.mkdir(_at(folder))
        else:
            _write(folder)
        os.chmod(_at(folder), mode)

    return build


def _owner(folder: bytes) -> tuple[int, int]:
    status = os.lstat(_at(folder))
    return (status.st_uid, status.st_gid)


def _set_owner(folder: bytes) -> None:
    os.chown(_write(folder), 1234, 4321)


def _mtime(folder: bytes) -> int:
    return os.lstat(_at(folder)).st_mtime_ns


def _atime(folder: bytes) -> int:
    return os.lstat(_at(folder)).st_atime_ns


def _set_times(mtime: int, atime: int = 1_000_000_000) -> Build:
    return lambda folder: os.utime(_write(folder), ns=(atime, mtime))


def _dated_directory(folder: bytes) -> None:
    os.mkdir(_at(folder))
    _write(_at(folder))
    os.utime(_at(folder), ns=(1_000_000_000, 987_654_321_123_456_789))


def _link(folder: bytes) -> None:
    os.symlink(b"../\xff some/where", _at(folder))
    os.chown(_at(folder), 1234, 4321, follow_symlinks=False)
    os.utime(_at(folder), ns=(5, 123_456_789_987_654_321), follow_symlinks=False)


def _points_to(folder: bytes) -> bytes:
    return os.readlink(_at(folder))


def _kind(folder: bytes) -> tuple[int, int]:
    status = os.lstat(_at(folder))
    return (stat.S_IFMT(status.st_mode), status.st_rdev)


def _socket(folder: bytes) -> None:
    # By a short name: an address has room for a hundred bytes.
    here = os.open(folder, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(f"/proc/self/fd/{here}/x")
    os.close(here)


def _fifo(folder: bytes) -> None:
    os.mkfifo(_at(folder))


def _device(folder: bytes) -> None:
    os.mknod(_at(folder), stat.S_IFCHR | 0o600, os.makedev(1, 3))


def _empty_file(folder: bytes) -> None:
    _write(folder, content=b"")


def _empty_directory(folder: bytes) -> None:
    os.mkdir(_at(folder))


def _xattr(name: str, value: bytes, *, directory: bool = False) -> Build:
    def build(folder: bytes) -> None:
        if directory:
            os.mkdir(_at(folder))
        else:
            _write(folder)
        os.setxattr(_at(folder), name, value)

    return build


def _value(name: str) -> Look:
    return lambda folder: os.getxattr(_at(folder), name)


def _acl() -> bytes:
    entries = [(1, 6, -1), (2, 4, 1234), (4, 4, -1), (0x10, 6, -1), (0x20, 0, -1)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *each) for each in entries)


def _hardlinks(folder: bytes) -> None:
    os.link(_write(folder), _at(folder, "y"))


def _linked_links(folder: bytes) -> None:
    os.symlink("nowhere", _at(folder))
    os.link(_at(folder), _at(folder, "y"), follow_symlinks=False)


def _one_inode(folder: bytes) -> bool:
    return os.lstat(_at(folder)).st_ino == os.lstat(_at(folder, "y")).st_ino


def _sparse(folder: bytes) -> None:
    with open(_at(folder), "wb") as file:
        file.truncate(4 << 20)
        file.seek(2 << 20)
        file.write(b"island")


def _is_sparse(folder: bytes) -> tuple[bool, int]:
    status = os.lstat(_at(folder))
    return (status.st_blocks * 512 <= 1 << 20, status.st_size)


def _named(name: bytes) -> Build:
    def build(folder: bytes) -> None:
        with open(os.path.join(folder, name), "wb") as file:
            file.write(b"data")

    return build


def _contents(folder: bytes) -> list[tuple[bytes, bytes]]:
    seen: list[tuple[bytes, bytes]] = []
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as file:
            seen.append((name, file.read()))
    return seen


_DEPTH, _LONG = 20, "d" * 250


def _deep(folder: bytes) -> None:
    with _lowest(folder, make=True) as lowest:
        fd = os.open("x", os.O_WRONLY | os.O_CREAT, dir_fd=lowest)
        os.write(fd, b"deep down")
        os.close(fd)


def _deep_content(folder: bytes) -> bytes:
    with _lowest(folder) as lowest:
        fd = os.open("x", os.O_RDONLY, dir_fd=lowest)
        content = os.read(fd, 100)
        os.close(fd)
        return content


@contextmanager
def _lowest(folder: bytes, *, make: bool = False) -> Generator[int]:
    fd = os.open(folder, os.O_RDONLY)
    try:
        for _ in range(_DEPTH):
            if make:
                os.mkdir(_LONG, dir_fd=fd)
            below = os.open(_LONG, os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


def _immutable(folder: bytes) -> None:
    _set_flags(_write(folder), _IMMUTABLE)


def _set_flags(path: bytes, flags: int) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.ioctl(fd, _SET_FLAGS, struct.pack("l", flags))
    finally:
        os.close(fd)


def _flags(folder: bytes) -> int:
    fd = os.open(_at(folder), os.O_RDONLY)
    try:
        return struct.unpack("l", fcntl.ioctl(fd, _GET_FLAGS, bytes(8)))[0] & _IMMUTABLE
    finally:
        os.close(fd)


_CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)

ROWS = (
    Row("content", _write, _contents),
    Row("permissions of a file", _set_mode(0o741), _mode),
    Row("a file without any permission", _set_mode(0), _mode),
    Row("setuid and setgid [1]", _set_mode(0o6755), _mode, STRIPPED),
    Row("setgid of a directory [1]", _set_mode(0o2775, directory=True), _mode, STRIPPED),
    Row("sticky bit", _set_mode(0o1777, directory=True), _mode),
    Row("owner and group", _set_owner, _owner),
    Row("time of change, to the nanosecond", _set_times(987_654_321_123_456_789), _mtime),
    Row("time of change before 1970", _set_times(-86_400_000_000_001), _mtime),
    Row("time of change after 2038", _set_times(4_102_444_800_123_456_789), _mtime),
    Row("time of access", _set_times(5, 987_654_321_123_456_789), _atime),
    Row("time of change of a directory", _dated_directory, _mtime),
    Row("symbolic link, its target any bytes", _link, _points_to),
    Row("owner of a symbolic link", _link, _owner),
    Row("time of change of a symbolic link", _link, _mtime),
    Row("hard links", _hardlinks, _one_inode),
    Row("hard links to a symbolic link", _linked_links, _one_inode),
    Row("holes of a sparse file", _sparse, _is_sparse),
    Row("extended attribute `user.*` of a file", _xattr("user.x", b"\0\xff"), _value("user.x")),
    Row(
        "extended attribute `user.*` of a directory",
        _xattr("user.x", b"value", directory=True),
        _value("user.x"),
    ),
    Row("extended attribute `trusted.*`", _xattr("trusted.x", b"value"), _value("trusted.x")),
    Row(
        "POSIX ACL",
        _xattr("system.posix_acl_access", _acl()),
        _value("system.posix_acl_access"),
    ),
    Row(
        "default ACL of a directory",
        _xattr("system.posix_acl_default", _acl(), directory=True),
        _value("system.posix_acl_default"),
    ),
    Row(
        "file capabilities [1]",
        _xattr("security.capability", _CAPABILITY),
        _value("security.capability"),
        STRIPPED,
    ),
    Row("immutable flag of `chattr` [2]", _immutable, _flags),
    Row("FIFO [3]", _fifo, _kind),
    Row("socket [3]", _socket, _kind),
    Row("device [3]", _device, _kind),
    Row("empty file", _empty_file, _contents),
    Row("empty directory", _empty_directory, _kind),
    Row("name that is not UTF-8", _named(b"\xff\xfe \x80"), _contents),
    Row("name with a newline", _named(b"two\nlines\n"), _contents),
    Row("name that looks like an option", _named(b"--delete"), _contents),
    Row("name of 255 bytes [4]", _named(b"n" * 255), _contents),
    Row("path longer than 4096 bytes [5]", _deep, _deep_content),
)


def _dms(preserve: frozenset[Preserve] | None) -> Callable[[Path, Path], None]:
    options = MoveOptions() if preserve is None else MoveOptions(preserve=preserve)

    def copy(source: Path, target: Path) -> None:
        root = (str(source.parent),)
        request = MoveRequest(
            task_id="fidelity", epoch=1, src=str(source), dst=str(target), roots=root,
            options=options,
        )  # fmt: skip
        with suppress(PartialFailure):  # what is not there counts as left out
            NativeMover().run(request, Recorder())

    return copy


def _command(*words: str, slash: str = "") -> Callable[[Path, Path], None]:
    def copy(source: Path, target: Path) -> None:
        command = [*words, f"{source}{slash}", f"{target}{slash}"]
        subprocess.run(command, capture_output=True, check=False)

    return copy


COLUMNS = {
    "DMS": _dms(None),
    "DMS, all of `preserve`": _dms(frozenset(Preserve)),
    "`cp -a`": _command("cp", "-a"),
    "`rsync -aHAXS`": _command("rsync", "-aHAXS", slash="/"),
}


def missing(column: str) -> bool:
    """Say whether the program of a column is not installed."""
    return column.startswith("`") and shutil.which(column.strip("`").split()[0]) is None


def fill(column: str, folder: Path) -> dict[str, str]:
    """Return the cells of a column by title, without the rows that cannot be built here."""
    source, target = folder / "source", folder / "target"
    source.mkdir()
    try:
        wanted = _build(os.fsencode(source))
        COLUMNS[column](source, target)
        return {
            row.title: _cell(row, os.fsencode(target / str(number)), wanted[number])
            for number, row in enumerate(ROWS)
            if number in wanted
        }
    finally:
        _clear(os.fsencode(source))
        _clear(os.fsencode(target))


def _build(source: bytes) -> dict[int, object]:
    """Make all rows; return what each looks like, before anybody has read it."""
    wanted: dict[int, object] = {}
    for number, row in enumerate(ROWS):
        folder = _at(source, str(number))
        os.mkdir(folder)
        try:
            row.build(folder)
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL}:
                raise
            continue
        wanted[number] = row.look(folder)
    return wanted


def _cell(row: Row, folder: bytes, wanted: object) -> str:
    try:
        return KEPT if row.look(folder) == wanted else row.lost
    except FileNotFoundError:
        return LEFT_OUT
    except OSError as error:
        if error.errno == errno.ENODATA:
            return row.lost
        raise


def _clear(top: bytes) -> None:
    for number in range(len(ROWS)):
        with suppress(OSError):
            _set_flags(_at(_at(top, str(number))), 0)
    # rmtree knows paths no longer than the system's limit.
    subprocess.run(["rm", "-rf", "--", top], check=True)


def render(columns: dict[str, dict[str, str]]) -> str:
    """Return the table as Markdown."""
    head = ["", *columns]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    lines += [
        "| " + " | ".join([row.title, *(cells[row.title] for cells in columns.values())]) + " |"
        for row in ROWS
    ]
    return "\n".join(lines)


def documented() -> dict[str, dict[str, str]]:
    """Return the table of the document, by column and title."""
    table = DOCUMENT.read_text().split(BEGIN)[1].split(END)[0].strip().splitlines()
    head, _, *lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {
        column: {line[0]: line[number] for line in lines}
        for number, column in enumerate(head)
        if column
    }


def main() -> None:
    """Write the table into the document."""
    with tempfile.TemporaryDirectory(prefix="dms-fidelity-") as folder:
        columns: dict[str, dict[str, str]] = {}
        for number, column in enumerate(COLUMNS):
            place = Path(folder) / str(number)
            place.mkdir()
            columns[column] = fill(column, place)
    before, rest = DOCUMENT.read_text().split(BEGIN)
    after = rest.split(END)[1]
    DOCUMENT.write_text(f"{before}{BEGIN}\n{render(columns)}\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
