"""Random trees for the mover tests: hypothesis strategies, and how to build what they draw."""

from __future__ import annotations

import os
from dataclasses import dataclass

from hypothesis import strategies as st


@dataclass(frozen=True)
class File:
    content: bytes
    mode: int
    mtime: int

    def build(self, path: bytes) -> None:
        with open(path, "wb") as file:
            file.write(self.content)
        os.chmod(path, self.mode)
        os.utime(path, ns=(self.mtime, self.mtime))


@dataclass(frozen=True)
class Link:
    target: bytes
    mtime: int

    def build(self, path: bytes) -> None:
        os.symlink(self.target, path)
        os.utime(path, ns=(self.mtime, self.mtime), follow_symlinks=False)


@dataclass(frozen=True)
class Folder:
    entries: dict[bytes, Node]
    mode: int
    mtime: int

    def build(self, path: bytes) -> None:
        os.mkdir(path)
        for name, node in self.entries.items():
            node.build(os.path.join(path, name))
        os.chmod(path, self.mode)
        os.utime(path, ns=(self.mtime, self.mtime))


Node = File | Link | Folder

NAMES: st.SearchStrategy[bytes] = (
    st.one_of(
        st.sampled_from([b"a", b"b", b"c.txt", "한글 이름".encode(), b"\xff\xfe", b"-rf", b"x\ny"]),
        st.binary(min_size=1, max_size=24),
        st.text(min_size=1, max_size=8).map(lambda text: text.encode("utf-8", "replace")),
    )
    .map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"_")[:255])
    .filter(lambda name: name not in {b".", b".."} and not name.startswith(b".dms-"))
)
TIMES = st.integers(min_value=0, max_value=2_000_000_000_123_456_789)
FILES = st.builds(
    File, st.binary(max_size=300), st.sampled_from([0o644, 0o600, 0o751, 0o4755, 0o2755]), TIMES
)
LINKS = st.builds(
    Link, st.sampled_from([b"a", b"/etc", b"../../..", b"nowhere", b"\xff\xfe"]), TIMES
)


def folders(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Folder]:
    """Folders of up to five entries."""
    entries = st.dictionaries(NAMES, inner, max_size=5)
    return st.builds(Folder, entries, st.sampled_from([0o755, 0o700, 0o2775]), TIMES)


LEAVES: st.SearchStrategy[Node] = st.one_of(FILES, LINKS)
NODES: st.SearchStrategy[Node] = st.recursive(LEAVES, folders, max_leaves=12)
TREES = folders(NODES)
