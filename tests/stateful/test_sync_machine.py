"""Random trees and random options: after each sync the naive one in `tree_model` agrees.

DMS_TEST_TREES is the number of examples of each test; 2,000 take about ten minutes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import event, example, given, note, settings
from hypothesis import strategies as st

from dms_scheduler.movers import (
    Cancelled,
    Compare,
    Fsync,
    LeaseLost,
    MoveOptions,
    MoveRequest,
    MoverError,
    NativeMover,
    Overwrite,
    Preserve,
    Refused,
    Symlinks,
    Verify,
)
from dms_scheduler.movers.native import batches, parts, plan, worklist
from dms_scheduler.movers.native import mover as native
from dms_scheduler.movers.results import Action, MovePlan, MoveResult, Totals
from tests.stateful.tree_model import Done, Foretold, foretell
from tests.support.trees import (
    Entry,
    build_tree,
    differences,
    read_tree,
    relatives,
    trees,
)
from tests.unit.movers.support import Recorder

EXAMPLES = int(os.environ.get("DMS_TEST_TREES", "100"))
PATTERNS = ["*.tmp", "a", "/a", "a/", "a/b", "**/b", "한*", "?", "[ab]", "[!a]*", "/a/**", "*.txt"]
PRESERVED = [Preserve.MTIME, Preserve.MODE]
# Nothing in these trees has any of the others; asking for them must change nothing.
ALSO = st.sets(st.sampled_from(sorted(set(Preserve) - set(PRESERVED)))).map(frozenset)
OPTIONS: st.SearchStrategy[MoveOptions] = st.builds(
    MoveOptions,
    compare=st.sampled_from(Compare),
    verify=st.sampled_from(Verify),
    delete=st.booleans(),
    max_delete=st.sampled_from([1000, 1000, 1000, 2, 0]),
    allow_empty_src=st.booleans(),
    backup_deleted=st.booleans(),
    overwrite=st.sampled_from([Overwrite.ALWAYS, Overwrite.ALWAYS, *Overwrite]),
    symlinks=st.sampled_from(Symlinks),
    preserve=st.sampled_from([frozenset(PRESERVED)] * 3 + [frozenset[Preserve]()])
    | st.builds(
        frozenset[Preserve].union, st.sets(st.sampled_from(PRESERVED)).map(frozenset), ALSO
    ),
    fsync=st.sampled_from(Fsync),
    include=st.lists(st.sampled_from(PATTERNS), max_size=2).map(tuple) | st.just(()),
    exclude=st.lists(st.sampled_from(PATTERNS), max_size=2).map(tuple) | st.just(()),
    transfers=st.integers(1, 4),
)
TOLD = {
    Action.COPY: "files",
    Action.LINK: "links",
    Action.MKDIR: "dirs",
    Action.DELETE: "deleted",
    Action.SPECIAL: "special",
}


class Pair:
    """A source and a destination in a root of their own, synced and foretold."""

    def __init__(self, root: Path, source: dict[bytes, Entry], target: dict[bytes, Entry]) -> None:
        self.root = root
        build_tree(source, root / "src")
        build_tree(target, root / "dst")
        self.task, self.epoch = 0, 1

    def request(self, options: MoveOptions, *, dry: bool = False) -> MoveRequest:
        return MoveRequest(
            task_id=f"t-{self.task}",
            epoch=self.epoch,
            src=str(self.root / "src"),
            dst=str(self.root / "dst"),
            roots=(str(self.root),),
            options=replace(options, dry_run=dry),
        )

    def interrupt(self, options: MoveOptions, after: int, error: MoverError) -> None:
        """Run until the control was asked so often and raises; what is there then is whole."""
        self.task, self.epoch = self.task + 1, 1
        before = read_tree(self.root / "dst")
        told = self.foretell(before, options)

        def stop(count: int) -> None:
            if count >= after:
                raise error

        recorder = Recorder(stop)
        with suppress(MoverError):
            NativeMover().run(self.request(options), recorder)
        event(f"interrupted: {recorder.checks >= after}")
        have = read_tree(self.root / "dst")
        for path, entry in have.items():
            known = [tree[path] for tree in (before, told.tree) if path in tree]
            whole = any((each.kind, each.content) == (entry.kind, entry.content) for each in known)
            # A directory may be there that only the interrupted run had a use for.
            assert whole or entry.kind == "dir" or _may_be_left(path, error), path

    def again(self, options: MoveOptions) -> Foretold:
        """Run the next attempt of the same task."""
        self.epoch += 1
        return self._sync(options)

    def sync(self, options: MoveOptions) -> Foretold:
        """Run another task; plan it, and compare both with what was foretold."""
        self.task, self.epoch = self.task + 1, 1
        return self._sync(options)

    def foretell(self, target: dict[bytes, Entry], options: MoveOptions) -> Foretold:
        left = {path: entry for path, entry in target.items() if not _is_reserved(path)}
        source, backup = read_tree(self.root / "src"), f"t-{self.task}.{self.epoch}"
        told = foretell(source, left, options, backup=backup)
        note(f"{options}\nsource {source}\ntarget {target}\nforetold {told}")
        return told

    def _sync(self, options: MoveOptions) -> Foretold:
        source, target = read_tree(self.root / "src"), read_tree(self.root / "dst")
        told = self.foretell(target, options)
        planned, before = self._call(options, dry=True)
        assert not differences(source, read_tree(self.root / "src"))
        assert not differences(target, read_tree(self.root / "dst"))
        done, result = self._call(options, dry=False)
        assert not differences(source, read_tree(self.root / "src"))
        self._check_tree(told, read_tree(self.root / "dst"))
        if told.refused:
            event("refused")
            return told
        _check_report(told, done, result)
        if not told.failures:
            assert planned == done
            assert before is not None
            assert result is not None
            assert replace(before, checks=result.checks) == result  # a plan reads nothing to verify
        return told

    def _check_tree(self, told: Foretold, have: dict[bytes, Entry]) -> None:
        if told.refused and not told.tree:
            have = {path: entry for path, entry in have.items() if path}
        assert not differences(told.tree, have)

    def _call(self, options: MoveOptions, *, dry: bool) -> tuple[Counter[Line], Totals | None]:
        """Return the lines of the report and the totals, or raise nothing but what is foretold."""
        recorder, mover = Recorder(), NativeMover()
        request = self.request(options, dry=dry)
        outcome: object = None
        try:
            outcome = mover.plan(request, recorder) if dry else mover.run(request, recorder)
        except MoverError as error:
            outcome = error.result
            if isinstance(error, Refused):
                outcome = None
        lines = Counter(
            (entry.action, os.fsencode(entry.path), entry.size, entry.error_class)
            for entry in recorder.entries
        )
        totals = outcome.totals if isinstance(outcome, MovePlan | MoveResult) else None
        return lines, totals


def _is_reserved(path: bytes) -> bool:
    return os.path.basename(path).startswith((b".dms-tmp.", b".dms-part."))


def _may_be_left(path: bytes, error: MoverError) -> bool:
    """Parts of big files wait for the next attempt, if there will be one."""
    return isinstance(error, LeaseLost) and os.path.basename(path).startswith(b".dms-part.")


Line = tuple[Action, bytes, int | None, str | None]


def _check_report(told: Foretold, done: Counter[Line], totals: Totals | None) -> None:
    assert totals is not None
    have = Counter[Done]()
    failures: dict[bytes, str] = {}
    for (action, path, size, error_class), count in done.items():
        if action is Action.FAILED:
            failures[path] = error_class or ""
            continue
        have[action.value, path] += count
        if action is Action.COPY:
            assert size == len(told.tree[path].content)
    assert failures == told.failures
    assert have == told.actions
    counted = Counter(action for action, _ in told.actions.elements())
    for action, name in TOLD.items():
        assert getattr(totals, name) == counted[action.value], action


@contextmanager
def pair(source: dict[bytes, Entry], target: dict[bytes, Entry]) -> Generator[Pair]:
    """Build both trees in a fresh root."""
    root = Path(tempfile.mkdtemp(prefix="dms-test-"))
    try:
        yield Pair(root, source, target)
    finally:
        shutil.rmtree(os.fsencode(root))


@contextmanager
def work_for_executors(*, forks: bool) -> Generator[None]:
    """Hand files to other processes, a few at a time, as a mover does with a large tree."""
    with pytest.MonkeyPatch.context() as patch:
        if forks:
            patch.setattr(native, "_OWN_FILES", -1)
            for module in (batches, worklist):
                patch.setattr(module, "MOST_BYTES", 1 << 17)  # of two files or fewer
            patch.setattr(plan, "BIG_BYTES", 1 << 17)
            patch.setattr(parts, "_PART_BYTES", 1 << 16)
        yield


NOTHING: dict[bytes, Entry] = {}


@st.composite
def _pairs(draw: st.DrawFn) -> tuple[dict[bytes, Entry], dict[bytes, Entry]]:
    source = draw(trees())
    return source, draw(relatives(source) | relatives(source) | trees() | st.just(NOTHING))


_TOP, _OLD, _NEW = Entry("dir", 0o755, 5), Entry("file", 0o644, 7, b"y"), Entry("file", 0o755, 5)


@pytest.mark.timeout(600)  # a failure is made smaller for minutes; success takes seconds
@given(trees=_pairs(), options=OPTIONS, forks=st.booleans())
@example(  # the size is all that is known: the time must not say that the content is the same
    trees=({b"": _TOP, b"a": replace(_NEW, content=b"x")}, {b"": _TOP, b"a": _OLD}),
    options=MoveOptions(compare=Compare.SIZE),
    forks=False,
)
@example(  # what the patterns leave out is in the way
    trees=({b"": _TOP, b"a": _NEW}, {b"": _TOP, b"a": _TOP, b"a/b": _OLD}),
    options=MoveOptions(delete=True, exclude=("a/",)),
    forks=True,
)
@example(
    trees=({b"": _TOP, b"a": _TOP, b"a/b.txt": _NEW}, {b"": _TOP, b"a": _OLD}),
    options=MoveOptions(delete=True, include=("*.txt",)),
    forks=False,
)
@settings(max_examples=EXAMPLES)
def test_a_sync_does_what_the_naive_one_does(
    trees: tuple[dict[bytes, Entry], dict[bytes, Entry]], options: MoveOptions, forks: bool
) -> None:
    with pair(*trees) as place, work_for_executors(forks=forks):
        told = place.sync(options)
        again = place.sync(options)
        times_kept = Preserve.MTIME in options.preserve or options.compare is not Compare.SIZE_MTIME
        if times_kept and not told.failures and not told.refused:
            event("a no-op follows")
            assert {action for action, _ in again.actions} <= {"special"}


@pytest.mark.timeout(600)
@given(
    trees=_pairs(),
    options=OPTIONS,
    forks=st.booleans(),
    after=st.integers(1, 80),
    error=st.sampled_from([Cancelled, LeaseLost]),
)
@settings(max_examples=EXAMPLES)
def test_what_was_interrupted_is_whole_and_the_next_attempt_completes_it(
    trees: tuple[dict[bytes, Entry], dict[bytes, Entry]],
    options: MoveOptions,
    forks: bool,
    after: int,
    error: type[MoverError],
) -> None:
    with pair(*trees) as place, work_for_executors(forks=forks):
        place.interrupt(options, after, error("stop"))
        place.again(options)
