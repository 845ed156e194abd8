"""Topics and patterns: a plain recursive matcher and regular expressions as oracles."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.event_system import TopicError, TopicTrie, check_pattern, check_topic, matches

SEGMENTS = st.sampled_from(["a", "b", "log", "Z-9_"])
TOPICS = st.lists(SEGMENTS, min_size=1, max_size=7).map(".".join)
PARTS = st.one_of(SEGMENTS, st.sampled_from(["*", "**"]))
PATTERNS = st.lists(PARTS, min_size=1, max_size=7).map(".".join)


def plainly(parts: list[str], segments: list[str]) -> bool:
    """The rule, as one would say it."""
    if not parts:
        return not segments
    if parts[0] == "**":
        return plainly(parts[1:], segments) or (bool(segments) and plainly(parts, segments[1:]))
    return bool(segments) and parts[0] in {"*", segments[0]} and plainly(parts[1:], segments[1:])


def expression(pattern: str) -> re.Pattern[str]:
    """The same as a regular expression, on a topic with a dot at its end."""
    pieces = {"*": r"[^.]+\.", "**": r"(?:[^.]+\.)*"}
    parts = pattern.split(".")
    return re.compile("".join(pieces.get(part, re.escape(part) + r"\.") for part in parts))


@given(PATTERNS, TOPICS)
def test_matches_is_what_the_oracles_say(pattern: str, topic: str) -> None:
    expected = plainly(pattern.split("."), topic.split("."))
    assert matches(pattern, topic) == expected
    assert bool(expression(pattern).fullmatch(topic + ".")) == expected


@given(st.lists(PATTERNS, max_size=30), st.lists(TOPICS, min_size=1, max_size=10))
def test_the_trie_finds_what_matches(patterns: list[str], topics: list[str]) -> None:
    trie: TopicTrie[int] = TopicTrie()
    for number, pattern in enumerate(patterns):
        assert trie.add(pattern, number)
    for topic in topics:
        found = trie.match(topic)
        assert len(set(found)) == len(found)
        assert set(found) == {n for n, each in enumerate(patterns) if matches(each, topic)}


@pytest.mark.parametrize(
    ("pattern", "topic", "expected"),
    [
        ("logs.**", "logs", True),
        ("logs.**", "logs.a.b", True),
        ("**.logs", "logs", True),
        ("a.**.z", "a.z", True),
        ("a.**.z", "a.b.c.z", True),
        ("a.**.z", "a.b.c", False),
        ("*", "a.b", False),
        ("**.**", "a", True),
        ("*.**", "a", True),
        ("**.*", "a", True),
        ("a*", "ab", None),
        ("logs", "Logs", False),
    ],
)
def test_known_cases(pattern: str, topic: str, expected: bool | None) -> None:
    if expected is None:
        with pytest.raises(TopicError):
            matches(pattern, topic)
    else:
        assert matches(pattern, topic) is expected


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "a b",
        "a/b",
        "한글",
        "a\n",
        "x" * 65,
        ".".join("a" * 17),
        "a.***",
    ],
)
def test_what_is_no_topic(wrong: str) -> None:
    with pytest.raises(TopicError, match="is no topic"):
        check_topic(wrong)
    with pytest.raises(TopicError, match="is no pattern"):
        check_pattern(wrong)


def test_wildcards_are_for_patterns_alone() -> None:
    assert check_pattern("a.*.**") == "a.*.**"
    for wrong in ("*", "a.**"):
        with pytest.raises(TopicError):
            check_topic(wrong)
        with pytest.raises(TopicError):
            TopicTrie[int]().match(wrong)


def test_the_largest_topic() -> None:
    topic = ".".join(["x" * 64] * 16)
    assert check_topic(topic) == check_pattern(topic) == topic
    with pytest.raises(TopicError) as caught:
        check_topic(topic + ".y")
    assert len(str(caught.value)) < 400


def test_many_wildcards_cost_no_more_than_their_number() -> None:
    """A matcher that tries every way would not live to see the end of these."""
    topic = ".".join(["a"] * 16)
    pattern = ".".join(["**", "a"] * 7 + ["**", "b"])
    assert not matches(pattern, topic)
    trie: TopicTrie[int] = TopicTrie()
    trie.add(pattern, 1)
    trie.add(".".join(["**"] * 16), 2)
    assert trie.match(topic) == (2,)


def test_values_come_and_go() -> None:
    trie: TopicTrie[str] = TopicTrie()
    assert trie.add("a.*", "one")
    assert not trie.add("a.*", "one")
    assert trie.add("a.*", "two")
    assert trie.match("a.b") == ("one", "two")
    assert not trie.remove("a.*", "three")
    assert not trie.remove("a.**", "one")
    assert trie.remove("a.*", "one")
    assert trie.match("a.b") == ("two",)
    assert len(trie) == 1
    assert trie.remove("a.*", "two")
    assert trie.match("a.b") == ()
    assert len(trie) == 0


def test_the_cache_is_bounded() -> None:
    trie: TopicTrie[int] = TopicTrie(cache_size=3)
    trie.add("t.*", 1)
    for number in range(100):
        assert trie.match(f"t.{number}") == (1,)
        assert trie.match(f"t.{number}") == (1,)
    assert len(trie._cache) == 3


def test_removing_leaves_nothing_behind() -> None:
    trie: TopicTrie[int] = TopicTrie()
    patterns = ["a.b.c", "a.*.c", "a.**", "**", "*"]
    for pattern in patterns:
        trie.add(pattern, 1)
    for pattern in patterns:
        trie.remove(pattern, 1)
    assert trie._root.bare()
