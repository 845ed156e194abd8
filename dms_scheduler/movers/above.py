"""The directories above a directory: its own way up, and those where a bind mount shows it too.

`..` leads up the way that a directory was opened by. Where a mount shows a part of the same file
system at another place, what lies above that place holds the directory as well, and so does what
lies above it in the file system itself. Without `/proc` only the first way is known.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from dms_scheduler.movers.paths import identity

PLACE = os.O_PATH | os.O_DIRECTORY
_OCTAL = re.compile(rb"\\([0-7]{3})")
_MOUNT_ID = re.compile(rb"^mnt_id:\s*(\d+)", re.MULTILINE)

Mark = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Line:
    """One way up to `/`: the marks (device, inode) of `fd`'s directory and of those above it."""

    fd: int
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class _Mount:
    device: bytes
    root: bytes
    point: bytes


@dataclass(slots=True)
class _Found:
    """What has been climbed: the lines, each directory by mount and mark, and the mounts."""

    lines: list[Line] = field(default_factory=list[Line])
    places: set[tuple[int, Mark]] = field(default_factory=set[tuple[int, Mark]])

    @property
    def marks(self) -> set[Mark]:
        return {mark for _, mark in self.places}

    @property
    def mounts(self) -> set[int]:
        return {mount for mount, _ in self.places}


def lines_above(fd: int, stack: ExitStack) -> list[Line]:
    """Return every way up from the directory `fd`, its own first; `stack` closes what is opened.

    Raises:
        OSError: a directory on its own way may not be passed.

    """
    found = _Found()
    _climb(fd, found)
    mounts = _mounts()
    while _climb_elsewhere(mounts, found, stack):
        pass
    return found.lines


def ancestry(fd: int) -> frozenset[Mark]:
    """Return the marks of the directory `fd` and of all that hold it. Raises OSError."""
    with ExitStack() as stack:
        return frozenset(mark for line in lines_above(fd, stack) for mark in line.marks)


def _climb(fd: int, found: _Found) -> None:
    marks: list[Mark] = []
    last: tuple[int, Mark] | None = None
    current = os.dup(fd)
    try:
        # Only the mount tells `/` from a directory that is mounted on one directly below itself.
        while (place := _place(current)) != last:
            marks.append(place[1])
            found.places.add(place)
            last = place
            above = os.open("..", PLACE, dir_fd=current)
            os.close(current)
            current = above
    finally:
        os.close(current)
    found.lines.append(Line(fd, tuple(marks)))


def _place(fd: int) -> tuple[int, Mark]:
    return mount_id(fd), identity(os.fstat(fd))


def mount_id(fd: int) -> int:
    """Return the number of the mount that `fd` was opened through; 0 without /proc."""
    with suppress(OSError), open(f"/proc/self/fdinfo/{fd}", "rb") as file:
        match = _MOUNT_ID.search(file.read())
        return int(match[1]) if match else 0
    return 0


def _climb_elsewhere(mounts: dict[int, _Mount], found: _Found, stack: ExitStack) -> bool:
    """Climb from each place where a mount shows one of the directories found, once."""
    before = len(found.lines)
    here = [mounts[number] for number in found.mounts if number in mounts]
    devices = {mount.device for mount in here}
    for mount in mounts.values():
        # Of another file system it shows none of them, and asking a dead server would hang.
        if mount.device in devices:
            for path in _shown_at(mount, here):
                _climb_from(path, found, stack)
    return len(found.lines) > before


def _shown_at(mount: _Mount, here: Iterable[_Mount]) -> set[bytes]:
    """Return where `mount` may show a directory found: at its top, or where another's top is."""
    top = mount.root.rstrip(b"/") + b"/"
    inside = {
        mount.point.rstrip(b"/") + b"/" + other.root[len(top) :]
        for other in here
        if other.device == mount.device and other.root.startswith(top)
    }
    return inside | {mount.point}


def _climb_from(path: bytes, found: _Found, stack: ExitStack) -> None:
    with suppress(OSError):
        fd = os.open(path, PLACE)
        stack.callback(os.close, fd)
        place = _place(fd)
        if place not in found.places and place[1] in found.marks:
            _climb(fd, found)


def _mounts() -> dict[int, _Mount]:
    """Return this process' mounts by their number (proc_pid_mountinfo(5)); none without /proc."""
    with suppress(OSError), open("/proc/self/mountinfo", "rb") as file:
        lines = [line.split(b" ") for line in file.read().splitlines()]
        return {
            int(words[0]): _Mount(words[2], _plain(words[3]), _plain(words[4])) for words in lines
        }
    return {}


def _plain(text: bytes) -> bytes:
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), text)
