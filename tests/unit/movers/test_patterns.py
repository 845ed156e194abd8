"""Include and exclude patterns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dms_scheduler.movers import Refused
from dms_scheduler.movers.patterns import (
    Filters,
    compile_pattern,
    is_leftover,
    is_reserved,
    temporary_name,
)


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.txt", "a.txt", True),
        ("*.txt", "deep/er/a.txt", True),
        ("*.txt", "a.txt.gz", False),
        ("a*b*c", "aXbYc", True),
        ("a*b*c", "abbcc", True),
        ("a*bc", "abcbc", True),
        ("a*b", "a", False),
        ("*", "anything", True),
        ("/a", "a", True),
        ("/a", "x/a", False),
        ("a/b", "a/b", True),
        ("a/b", "x/a/b", True),
        ("a/b", "a/x/b", False),
        ("/a/*/c", "a/b/c", True),
        ("/a/*/c", "a/b/b/c", False),
        ("/a/**/c", "a/c", True),
        ("/a/**/c", "a/b/b/c", True),
        ("a/**", "a/b/c", True),
        ("?", "한", True),
        ("?", "ab", False),
        ("[a-c]x", "bx", True),
        ("[a-c]x", "dx", False),
        ("[!a-c]x", "dx", True),
        ("[]]", "]", True),
        ("[", "[", True),
        (r"\*", "*", True),
        (r"\*", "a", False),
        ("a.c", "abc", False),
        ("x\ny", "x\ny", True),
        ("한글*", "한글 이름.txt", True),
        ("\udcff*", "\udcff\udcfe", True),
    ],
)
def test_a_pattern_matches(pattern: str, path: str, matches: bool) -> None:
    compiled = compile_pattern(pattern)
    assert compiled.matches(path.split("/"), is_directory=False) == matches


def test_a_trailing_slash_means_directories() -> None:
    compiled = compile_pattern("tmp/")
    assert compiled.matches(["a", "tmp"], is_directory=True)
    assert not compiled.matches(["a", "tmp"], is_directory=False)


@pytest.mark.parametrize("pattern", ["", "/", "//", "x" * 1025, "a\0b", "[z-a]"])
def test_a_bad_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(Refused) as caught:
        compile_pattern(pattern)
    assert caught.value.error_class == "bad_pattern"


def wild(pattern: str, name: str) -> bool:
    """The obvious, exponential matcher for `*` and `?` within one name."""
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(wild(pattern[1:], name[start:]) for start in range(len(name) + 1))
    return bool(name) and pattern[0] in {"?", name[0]} and wild(pattern[1:], name[1:])


@given(st.text("ab*?", min_size=1, max_size=7), st.text("ab", min_size=1, max_size=8))
def test_stars_match_like_the_obvious_matcher(pattern: str, name: str) -> None:
    if pattern != "**":  # a component of its own, which spans directories
        assert compile_pattern(pattern).matches([name], is_directory=False) == wild(pattern, name)


def test_hostile_patterns_do_not_blow_up() -> None:
    """With backtracking each of these would take longer than the universe has existed."""
    stars = compile_pattern("*a" * 100 + "b")
    assert not stars.matches(["a" * 255], is_directory=False)
    deep = compile_pattern("/".join(["**", "a"] * 100))
    assert not deep.matches(["a"] * 99 + ["b"], is_directory=False)


def test_exclusion_wins_and_directories_are_walked() -> None:
    filters = Filters.compiled(["*.txt", "docs/"], ["secret*"])
    assert filters.wants("", "a.txt", is_directory=False)
    assert not filters.wants("", "a.bin", is_directory=False)
    assert not filters.wants("", "secret.txt", is_directory=False)
    assert filters.wants("", "any", is_directory=True)
    assert not filters.selects("any")
    assert filters.wants("x/docs/deep", "a.bin", is_directory=False)
    assert filters.selects("x/docs")


def test_names_of_our_own_are_neither_data_nor_waste() -> None:
    assert is_reserved("", ".dms-deleted")
    assert not is_reserved("sub", ".dms-deleted")
    assert is_reserved("sub", temporary_name("a.b-c", 12, 3))
    assert not is_reserved("", ".dms-tmp.notes")
    assert not is_reserved("", ".dms-other")
    assert not Filters().wants("", ".dms-deleted", is_directory=True)


def test_a_leftover_is_of_this_task_and_not_of_a_later_epoch() -> None:
    assert is_leftover(temporary_name("t.1", 2, 9), "t.1", 2)
    assert is_leftover(temporary_name("t.1", 1, 9), "t.1", 2)
    assert not is_leftover(temporary_name("t.1", 3, 9), "t.1", 2)
    assert not is_leftover(temporary_name("t", 1, 9), "t.1", 2)
    assert not is_leftover("t.1", "t.1", 2)


def test_a_temporary_name_fits_every_file_system() -> None:
    assert len(temporary_name("x" * 128, 10**18, 10**12)) <= 255
