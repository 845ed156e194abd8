"""The rules that rclone gets mean what the patterns of a task mean; asked of a real rclone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dms_scheduler.movers.errors import Refused
from dms_scheduler.movers.patterns import Filters
from dms_scheduler.movers.rclone import confine
from dms_scheduler.movers.rclone.answers import fields, items
from dms_scheduler.movers.rclone.binary import find_binary
from dms_scheduler.movers.rclone.daemon import Daemon, Folder
from dms_scheduler.movers.rclone.filters import leftovers, rules
from dms_scheduler.movers.rclone.names import plain

NAMES = (
    "a",
    "b",
    "ab",
    "x.tmp",
    "한글",
    "a{b}",
    "[c]",
    "a b",
    "(d)",
    "e$^",
    "p|q",
    "n\nl",
    "-",
    "*",
)
OWN = (
    ".dms-tmp.t.1.2",
    "a/.dms-tmp.t.1.2",
    ".dms-deleted/t.1/kept",
)
Listing = Callable[[list[str]], set[str]]


def trees() -> list[str]:
    """Paths that hold every name as a file and as a directory, at two depths."""
    paths = [f"{top}.d/{name}" for top in NAMES[:4] for name in NAMES]
    paths += [f"{name}/{inner}" for name in NAMES[:5] for inner in NAMES[5:9]]
    paths += [f"a/ab/{name}" for name in NAMES]
    paths += [f"{name}.top" for name in NAMES] + list(NAMES[5:]) + ["a/b", "a/x.tmp/b/a"]
    return [*paths, *OWN, ".dms-tmp.data", "b/.dms-deleted/data"]


@pytest.fixture(scope="module")
def listing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listing]:
    """A function that asks rclone for the files that rules leave."""
    top = tmp_path_factory.mktemp("filters") / "top"
    for path in trees():
        file = top / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            file.touch()
    (top / UNFINISHED).touch()
    (top / PART).touch()
    with closing(Folder()) as folder:
        daemon = Daemon(folder, lambda _: None)
        fd = os.open(top, os.O_PATH)
        with closing(daemon):
            options = [f"--config={folder.write('none', '')}", "--use-json-log"]
            daemon.start(find_binary(), options, {fd: confine.READ}, confined=True)

            def files(chosen: list[str]) -> set[str]:
                answer = daemon.call(
                    "operations/list",
                    {
                        "fs": str(top),
                        "remote": "",
                        "opt": {"recurse": True, "filesOnly": True},
                        "_filter": {"FilterRule": chosen},
                    },
                )
                return {plain(str(fields(item)["Path"])) for item in items(answer["list"])}

            yield files
        os.close(fd)


def expected(include: list[str], exclude: list[str]) -> set[str]:
    """Return the files that the native engine takes."""
    filters = Filters.compiled(include, exclude)
    return {path for path in set(trees()) if _is_file(path) and _wanted(filters, path)}


def _is_file(path: str) -> bool:
    return not any(other.startswith(f"{path}/") for other in trees())


def _wanted(filters: Filters, path: str) -> bool:
    parts = path.split("/")
    return all(
        filters.wants("/".join(parts[:depth]), part, is_directory=depth < len(parts) - 1)
        for depth, part in enumerate(parts)
    )


PIECES = st.sampled_from(
    ["a", "b", "*", "?", "[a-c]", "[!a]", "[^b]", "[]c]", "[", "]", "\\*", "\\[", "{", "}", "{{",
     "}}", ".", "$", "^", "(", "|", "한", "\n", " ", ".tmp", "+", "\\", "-", "[{}]", "[\\]"]
)  # fmt: skip
PART = "a/.dms-part.t.0123456789abcdef"  # the native engine's, of a big file
UNFINISHED = "a/file.0123abcd.dms-part.00aaff"  # rclone's own, of one task
PARTS = st.one_of(st.just("**"), st.lists(PIECES, min_size=1, max_size=4).map("".join))


def _pattern(start: str, parts: list[str], end: str) -> str:
    return start + "/".join(parts) + end


PATTERNS = st.builds(
    _pattern,
    st.sampled_from(["", "/"]),
    st.lists(PARTS, min_size=1, max_size=3),
    st.sampled_from(["", "/"]),
)


@settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(PATTERNS, max_size=2), st.lists(PATTERNS, max_size=2))
def test_rclone_and_the_native_engine_choose_the_same_files(
    listing: Listing, include: list[str], exclude: list[str]
) -> None:
    try:
        wanted = expected(include, exclude)
    except Refused:
        with pytest.raises(Refused):
            rules(include, exclude)
        return
    assert listing(rules(include, exclude)) == wanted


def test_own_names_are_left_out_and_nothing_else(listing: Listing) -> None:
    found = listing(rules([], []))
    assert not found & {*OWN, PART, UNFINISHED}
    assert {".dms-tmp.data", "b/.dms-deleted/data"} <= found
    assert "n\nl" in found


def test_only_the_unfinished_files_of_one_task_are_leftovers(listing: Listing) -> None:
    assert listing(leftovers(".dms-part.00aaff")) == {UNFINISHED}
    assert not listing(leftovers(".dms-part.00aafe"))
