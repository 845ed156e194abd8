"""A naive `sync`: foretells the destination, the report and the failures of the real one.

Written from docs/services/sync.md alone, on flat dicts; slow, and simple enough to be believed.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from dms_scheduler.movers import Compare, MoveOptions, Overwrite, Preserve, Symlinks, Verify
from tests.support.trees import Entry, Tree, is_below, joined

SET_ID, SET_GID = 0o6000, 0o2000
BACKUP = b".dms-deleted"
Done = tuple[str, bytes]


@dataclass
class Foretold:
    """What a run should come to; with `refused` the destination stays as it was."""

    tree: dict[bytes, Entry]
    actions: Counter[Done] = field(default_factory=Counter[Done])
    failures: dict[bytes, str] = field(default_factory=dict[bytes, str])
    refused: set[str] = field(default_factory=set[str])


def foretell(
    source: Tree, target: Tree, options: MoveOptions, *, backup: str, umask: int = 0o022
) -> Foretold:
    """Say what a sync does; `backup` is the name of the folder in `.dms-deleted`."""
    naive = _Naive(source, target, options, os.fsencode(backup), umask)
    told = naive.sync()
    if told.refused:
        return Foretold(dict(target), refused=told.refused)
    return told


class _Naive:
    def __init__(
        self, source: Tree, target: Tree, options: MoveOptions, backup: bytes, umask: int
    ) -> None:
        self.source = source
        self.before = target
        self.options = options
        self.backup = joined(BACKUP, backup)
        self.umask = umask
        self.told = Foretold(dict(target))
        self.tree = self.told.tree
        self.made: set[bytes] = set()
        self.blocked: set[bytes] = set()
        self.deleted = 0

    def sync(self) -> Foretold:
        if b"" not in self.tree:
            self.tree[b""] = Entry("dir", 0o777 & ~self.umask, None)
        wanted = [path for path in sorted(self.source) if path and self.meant(self.source, path)]
        holds_data = False
        for path in wanted:
            if not any(is_below(path, blocked) for blocked in self.blocked):
                holds_data = holds_data or self.source[path].kind in {"file", "link"}
                self.handle(path)
        self.attributes(wanted)
        if self.options.delete and not holds_data and not self.options.allow_empty_src:
            self.told.refused.add("empty_source")
        if self.options.delete:
            kept = (dict(self.tree), Counter(self.told.actions))
            self.mirror()
            if self.told.failures:  # too many are refused all the same
                self.tree, self.told.actions = kept
                self.told.tree = self.tree
        if self.deleted > self.options.max_delete:
            self.told.refused.add("max_delete")
        if self.options.verify is Verify.ALL and not self.told.failures:
            self.verify(wanted)
        return self.told

    # ------------------------------------------------------------------------------------ patterns
    def meant(self, tree: Tree, path: bytes) -> bool:
        """Whether the patterns are about the entry and every directory above it."""
        parts = path.split(b"/")
        above = [b"/".join(parts[:depth]) for depth in range(1, len(parts))]
        if parts[0] == BACKUP:
            return False
        return all(self.wants(folder, True) for folder in above) and self.wants(
            path, tree[path].kind == "dir"
        )

    def wants(self, path: bytes, is_directory: bool) -> bool:
        parts = os.fsdecode(path).split("/")
        if any(matches(pattern, parts, is_directory) for pattern in self.options.exclude):
            return False
        return is_directory or self.included(parts, False)

    def included(self, parts: list[str], is_directory: bool) -> bool:
        return not self.options.include or any(
            matches(pattern, parts[:depth], is_directory or depth < len(parts))
            for pattern in self.options.include
            for depth in range(1, len(parts) + 1)
        )

    # ---------------------------------------------------------------------------------------- copy
    def handle(self, path: bytes) -> None:
        entry = self.source[path]
        if entry.kind == "dir":
            there = self.tree.get(path)
            blocked = there is not None and there.kind != "dir" and not self.make_place(path)
            if blocked:
                self.blocked.add(path)
            elif self.included(os.fsdecode(path).split("/"), True):
                self.ensure(path)
        elif entry.kind == "link":
            if self.options.symlinks is Symlinks.KEEP:
                self.link(path, entry)
        elif entry.kind == "file":
            self.file(path, entry)
        else:
            self.told.actions["special", path] += 1

    def ensure(self, path: bytes) -> None:
        """Make a directory and those above it."""
        if path in self.tree:
            return
        self.ensure(os.path.dirname(path))
        self.tree[path] = Entry("dir", self.new_mode(path), None)
        self.made.add(path)
        self.told.actions["mkdir", path] += 1

    def new_mode(self, path: bytes) -> int | None:
        """The mode of a new directory, unless the source's is set in the end."""
        above = self.tree[os.path.dirname(path)].mode
        if Preserve.MODE in self.options.preserve or above is None:
            return None
        return (0o777 & ~self.umask) | (above & SET_GID)  # the system hands setgid down

    def make_place(self, path: bytes) -> bool:
        """Delete what is in the way of another kind of entry, or report that it may not go."""
        below = [each for each in self.tree if is_below(each, path)]
        allowed = self.options.delete and self.options.overwrite is not Overwrite.NEVER
        if not allowed or not all(self.meant(self.tree, each) for each in below):
            self.told.failures[path] = "type_conflict"
            return False
        self.remove(path)
        return True

    def link(self, path: bytes, entry: Entry) -> None:
        there = self.tree.get(path)
        if there is not None and self.options.overwrite is Overwrite.NEVER:
            return
        if there is not None and there.kind != "dir" and not self.may_overwrite(entry, there):
            return
        if there is not None and there.kind == "link" and there.content == entry.content:
            if Preserve.MTIME in self.options.preserve and entry.mtime != there.mtime:
                self.tree[path] = entry
                self.told.actions["update", path] += 1
            return
        if self.replaceable(path, there):
            self.tree[path] = Entry("link", 0o777, self.time_of(entry), entry.content)
            self.told.actions["link", path] += 1

    def replaceable(self, path: bytes, there: Entry | None) -> bool:
        """Make the directories above; False if one is here that must stay."""
        self.ensure(os.path.dirname(path))
        return there is None or there.kind != "dir" or self.make_place(path)

    def may_overwrite(self, entry: Entry, there: Entry) -> bool:
        assert entry.mtime is not None
        assert there.mtime is not None
        newer = entry.mtime > there.mtime
        return self.options.overwrite is Overwrite.ALWAYS or newer

    def file(self, path: bytes, entry: Entry) -> None:
        there = self.tree.get(path)
        if there is not None and self.options.overwrite is Overwrite.NEVER:
            return
        if there is not None and there.kind == "file" and self.same(entry, there):
            self.settle(path, entry, there)
            return
        if there is not None and there.kind != "dir" and not self.may_overwrite(entry, there):
            return
        if self.replaceable(path, there):
            mode = 0o666 & ~self.umask
            if Preserve.MODE in self.options.preserve:
                mode = self.mode_of(entry)
            self.tree[path] = Entry("file", mode, self.time_of(entry), entry.content)
            self.told.actions["copy", path] += 1

    def same(self, entry: Entry, there: Entry) -> bool:
        """Whether the content counts as the same already."""
        same_size = len(entry.content) == len(there.content)
        match self.options.compare:
            case Compare.EXISTS:
                return True
            case Compare.SIZE:
                return same_size
            case Compare.SIZE_MTIME:
                return same_size and entry.mtime == there.mtime
            case Compare.CHECKSUM:
                return entry.content == there.content

    def settle(self, path: bytes, entry: Entry, there: Entry) -> None:
        """Mend the attributes of a file whose content stays."""
        compare, preserve = self.options.compare, self.options.preserve
        if compare is Compare.EXISTS:
            return
        mode, mtime = there.mode, there.mtime
        if compare is Compare.CHECKSUM:
            if not self.may_overwrite(entry, there):
                return
            if Preserve.MTIME in preserve:
                mtime = entry.mtime
        if Preserve.MODE in preserve:
            mode = self.mode_of(entry)
        if (mode, mtime) != (there.mode, there.mtime):
            self.tree[path] = Entry("file", mode, mtime, there.content)
            self.told.actions["update", path] += 1

    def mode_of(self, entry: Entry) -> int:
        assert entry.mode is not None
        return entry.mode & ~SET_ID

    def time_of(self, entry: Entry) -> int | None:
        return entry.mtime if Preserve.MTIME in self.options.preserve else None

    def attributes(self, wanted: list[bytes]) -> None:
        """Directories: those of the source, but with overwrite=never only for what was made."""
        for path in [b"", *wanted]:
            have = self.tree.get(path)
            if self.source[path].kind == "dir" and have is not None and have.kind == "dir":
                self.directory(path, have)

    def directory(self, path: bytes, have: Entry) -> None:
        entry = self.source[path]
        if self.options.overwrite is Overwrite.NEVER and path not in self.made:
            self.tree[path] = Entry("dir", None if not path else have.mode, None)
            return
        mode = self.mode_of(entry) if Preserve.MODE in self.options.preserve else have.mode
        self.tree[path] = Entry("dir", mode, self.time_of(entry))

    # -------------------------------------------------------------------------------------- delete
    def mirror(self) -> None:
        """Remove what the source lacks, deepest first; a directory only if all in it goes."""
        for path in sorted(self.before, reverse=True):
            if not path or path in self.source or path not in self.tree:
                continue
            if not self.meant(self.tree, path) or not self.known(path):
                continue
            if not any(is_below(each, path) and each != path for each in self.tree):
                self.remove(path)

    def known(self, path: bytes) -> bool:
        """Whether the entry belongs to a directory of both sides, or one that goes as a whole."""
        above = os.path.dirname(path)
        if not above:
            return True
        entry = self.source.get(above)
        return self.known(above) if entry is None else entry.kind == "dir"

    def remove(self, path: bytes) -> None:
        for each in sorted(self.tree, reverse=True):
            if is_below(each, path):
                self.keep(each, self.tree.pop(each))
                self.deleted += 1
                self.told.actions["delete", each] += 1
        above = os.path.dirname(path)
        have = self.tree[above]
        entry = self.source.get(above)
        mirrored = entry is not None and Preserve.MTIME in self.options.preserve
        never = self.options.overwrite is Overwrite.NEVER
        if not mirrored or never:
            self.tree[above] = Entry("dir", have.mode, None)

    def keep(self, path: bytes, entry: Entry) -> None:
        if not self.options.backup_deleted:
            return
        place = joined(self.backup, path)
        if entry.kind == "dir":  # one that holds what is kept may have been made anew
            entry = Entry("dir", None, None)
        self.tree[place] = entry
        while place := os.path.dirname(place):
            self.tree[place] = Entry("dir", None, None)

    # -------------------------------------------------------------------------------------- verify
    def verify(self, wanted: list[bytes]) -> None:
        for path in wanted:
            entry, there = self.source[path], self.tree.get(path)
            if entry.kind != "file" or there is None or there.kind != "file":
                continue
            alike = len(entry.content) == len(there.content) and entry.mtime == there.mtime
            must = self.options.overwrite is Overwrite.ALWAYS or alike
            if must and entry.content != there.content:
                self.told.failures[path] = "verify_mismatch"


def matches(pattern: str, parts: list[str], is_directory: bool) -> bool:
    """Whether the path made of `parts` itself matches."""
    if pattern.endswith("/") and not is_directory:
        return False
    components = pattern.strip("/").split("/")
    return _fits(components if pattern.startswith("/") else ["**", *components], parts)


def _fits(components: list[str], parts: list[str]) -> bool:
    if not components:
        return not parts
    first, *rest = components
    if first == "**":
        return any(_fits(rest, parts[count:]) for count in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], first) and _fits(rest, parts[1:])
