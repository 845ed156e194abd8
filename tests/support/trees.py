"""File trees for tests of movers: read from a file system, built in one, and drawn at random.

A tree is flat, a dict from path (bytes, relative to the top, the top itself being b"") to `Entry`.
"""

from __future__ import annotations

import os
import random
import stat
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from hypothesis import strategies as st
from hypothesis.vendor.pretty import RepresentationPrinter

Kind = Literal["file", "dir", "link", "fifo", "other"]
_KINDS: dict[int, Kind] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
}


@dataclass(frozen=True)
class Entry:
    """One entry; `content` is a file's bytes or a link's target. None: whatever it may be."""

    kind: Kind
    mode: int | None = 0o644
    mtime: int | None = 0
    content: bytes = b""

    def __repr__(self) -> str:
        """Name long contents by length and checksum: a failure shows whole trees."""
        shown = self.content
        text = repr(shown) if len(shown) < 32 else f"<{len(shown)}#{zlib.crc32(shown):08x}>"
        mode = None if self.mode is None else f"0o{self.mode:o}"
        return f"{self.kind}({mode}, {self.mtime}, {text})"

    def _repr_pretty_(self, printer: RepresentationPrinter, cycle: bool) -> None:
        """Tell hypothesis to show it in the same way."""
        printer.text(repr(self))

    def fits(self, other: Entry) -> bool:
        """Say whether `other` is what this entry foresees."""
        return self == replace(
            other,
            mode=None if self.mode is None else other.mode,
            mtime=None if self.mtime is None else other.mtime,
        )


Tree = Mapping[bytes, Entry]


def read_tree(top: str | os.PathLike[str]) -> dict[bytes, Entry]:
    """Return all that is at `top`, with itself as b""; {} if nothing is there."""
    base = os.fsencode(top)
    if not os.path.lexists(base):
        return {}
    tree = {b"": _read(base)}
    for folder, directories, files in os.walk(base, onerror=_raise):
        for name in (*directories, *files):
            path = os.path.join(folder, name)
            tree[os.path.relpath(path, base)] = _read(path)
    return tree


def _raise(error: OSError) -> None:
    raise error


def _read(path: bytes) -> Entry:
    status = os.lstat(path)
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "other")
    content = b""
    if kind == "file":
        with open(path, "rb") as file:
            content = file.read()
    elif kind == "link":
        content = os.readlink(path)
    return Entry(kind, stat.S_IMODE(status.st_mode), status.st_mtime_ns, content)


def build_tree(tree: Tree, top: str | os.PathLike[str]) -> None:
    """Make the tree at `top`, where nothing may be; nothing at all if it is empty."""
    base = os.fsencode(top)
    for path in sorted(tree):
        make_entry(tree[path], os.path.join(base, path) if path else base)
    for path in sorted(tree, reverse=True):  # what is made in a directory changes its time
        if tree[path].kind == "dir":
            set_attributes(tree[path], os.path.join(base, path) if path else base)


def make_entry(entry: Entry, path: bytes) -> None:
    """Make one entry with its attributes."""
    if entry.kind == "dir":
        os.mkdir(path)
    elif entry.kind == "link":
        os.symlink(entry.content, path)
    elif entry.kind == "fifo":
        os.mkfifo(path)
    else:
        with open(path, "xb") as file:
            file.write(entry.content)
    set_attributes(entry, path)


def set_attributes(entry: Entry, path: bytes) -> None:
    """Give what is at `path` the mode and time of `entry`."""
    if entry.kind != "link" and entry.mode is not None:
        os.chmod(path, entry.mode)
    if entry.mtime is not None:
        os.utime(path, ns=(entry.mtime, entry.mtime), follow_symlinks=False)


def differences(expected: Tree, actual: Tree) -> list[str]:
    """Return what is not as it should be, in words; nothing if all of it is."""
    told: list[str] = []
    for path in sorted({*expected, *actual}):
        want, have = expected.get(path), actual.get(path)
        if want is None or have is None or not want.fits(have):
            told.append(f"{path!r}: should be {want}, is {have}")
    return told


# ----------------------------------------------------------------------------------------- random
SIZES = (0, 1, 100, 4095, 4096, 4097, 65535, 65536, 65537, 131072, 200 * 1024)
"""Around pages and chunks. Few, so that both sides often have one size and other contents."""

TIMES = (0, 1_000_000_000_000_000_001, 1_000_000_000_000_000_002, 1_700_000_000_123_456_789)
MODES = (0o644, 0o600, 0o000, 0o755, 0o444, 0o777, 0o4755, 0o2755, 0o1777, 0o222)
NAMES = (
    *(b"a", b"b", b"c.txt", b"x.tmp", b"a b", b"-rf", b"x\ny", b".hidden", b"*", b"[a]"),
    *("한글 이름".encode(), "파일.tmp".encode(), b"\xff\xfe.txt", b"n" * 255, b"\\", b"\x1b[31m"),
)
TARGETS = (b"a", b"nowhere", b"/etc", b"..", b"../../..", b"\xff\xfe", b"a/b", b".")


@lru_cache(maxsize=256)
def content_of(size: int, seed: int) -> bytes:
    """Return bytes that are the same for the same numbers; those of seed 0 are mostly zeros."""
    if not seed:
        return (b"begin" + bytes(size) + b"end")[-size:] if size else b""
    return random.Random(seed * 1_000_003 + size).randbytes(size)


def _file(size: int, seed: int, mode: int, mtime: int) -> Entry:
    return Entry("file", mode, mtime, content_of(size, seed))


_MODES, _TIMES = st.sampled_from(MODES), st.sampled_from(TIMES)
FILES = st.builds(_file, st.sampled_from(SIZES), st.integers(0, 1), _MODES, _TIMES)
LINKS = st.builds(Entry, st.just("link"), st.just(0o777), _TIMES, st.sampled_from(TARGETS))
FIFOS = st.builds(Entry, st.just("fifo"), _MODES, _TIMES)
FOLDERS = st.builds(
    Entry, st.just("dir"), st.sampled_from((0o755, 0o700, 0o000, 0o500, 0o1777, 0o2775)), _TIMES
)
ENTRIES = st.one_of(FILES, FILES, FOLDERS, LINKS, FIFOS)


@st.composite
def trees(draw: st.DrawFn, *, most: int = 12) -> dict[bytes, Entry]:
    """Draw a tree of a directory with up to `most` entries below it, nested at random."""
    tree = {b"": draw(FOLDERS)}
    for _ in range(draw(st.integers(0, most))):
        place_in(tree, draw, draw(ENTRIES))
    return tree


def place_in(tree: dict[bytes, Entry], draw: st.DrawFn, entry: Entry) -> None:
    """Put `entry` at a random place of the tree, in place of what is there."""
    folders = sorted(path for path in tree if tree[path].kind == "dir")
    folder = draw(st.sampled_from(folders))
    name = draw(st.sampled_from(NAMES))
    put(tree, joined(folder, name), entry)


def put(tree: dict[bytes, Entry], path: bytes, entry: Entry | None) -> None:
    """Replace what is at `path`, with all below it, by `entry`, or by nothing."""
    for each in [each for each in tree if is_below(each, path)]:
        del tree[each]
    if entry is not None:
        tree[path] = entry


def joined(folder: bytes, name: bytes) -> bytes:
    """Return the path of `name` in `folder`."""
    return folder + b"/" + name if folder else name


def is_below(path: bytes, top: bytes) -> bool:
    """Say whether `path` is `top` or lies below it."""
    return path == top or not top or path.startswith(top + b"/")


_CHANGES = ("content", "content", "mode", "mode", "mtime", "mtime", "gone", "other")


@st.composite
def relatives(draw: st.DrawFn, tree: Tree, *, most: int = 6) -> dict[bytes, Entry]:
    """Draw a tree that has much in common with `tree`: what an earlier sync might have left."""
    other = dict(tree)
    for path in sorted(tree):
        if path and path in other:
            _vary(other, path, draw)
    for _ in range(draw(st.integers(0, most))):
        place_in(other, draw, draw(ENTRIES))
    other[b""] = draw(FOLDERS)
    return other


def _vary(tree: dict[bytes, Entry], path: bytes, draw: st.DrawFn) -> None:
    entry = tree[path]
    changes = draw(st.sets(st.sampled_from(_CHANGES), max_size=2))
    if "other" in changes:
        put(tree, path, draw(ENTRIES))
        return
    if "gone" in changes:
        put(tree, path, None)
        return
    if "content" in changes and entry.kind == "file":
        entry = replace(entry, content=content_of(len(entry.content), 2))
    if "mode" in changes and entry.kind != "link":
        entry = replace(entry, mode=draw(st.sampled_from((0o640, 0o711, 0o2755))))
    if "mtime" in changes:
        entry = replace(entry, mtime=draw(st.sampled_from(TIMES)))
    tree[path] = entry
