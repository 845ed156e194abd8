"""Topics and patterns of events, and the trie that finds the patterns of a topic.

A topic is 1 to 16 segments of `[A-Za-z0-9_-]{1,64}`, joined by dots. In a pattern a segment may
also be `*` (any one segment) or `**` (any number of segments, none included).
"""

import re
from functools import lru_cache
from typing import Final, Generic, TypeVar

from app.event_system.domain.errors import TopicError

MAX_SEGMENTS: Final = 16
ONE: Final = "*"
MANY: Final = "**"

_SEGMENT: Final = r"[A-Za-z0-9_-]{1,64}"
_TOPIC: Final = re.compile(rf"{_SEGMENT}(?:\.{_SEGMENT}){{0,{MAX_SEGMENTS - 1}}}")
_PART: Final = rf"(?:{_SEGMENT}|\*\*?)"
_PATTERN: Final = re.compile(rf"{_PART}(?:\.{_PART}){{0,{MAX_SEGMENTS - 1}}}")
_ALLOWED: Final = (
    f"1 to {MAX_SEGMENTS} segments joined by dots, each of 1 to 64 letters, digits, `_` or `-`"
)

V = TypeVar("V")


@lru_cache(maxsize=8192)
def check_topic(topic: str) -> str:
    """The topic itself; raises TopicError when it is none."""
    if not _TOPIC.fullmatch(topic):
        raise TopicError(f"{_shown(topic)} is no topic: use {_ALLOWED}")
    return topic


def check_pattern(pattern: str) -> str:
    """The pattern itself; raises TopicError when it is none."""
    if not _PATTERN.fullmatch(pattern):
        raise TopicError(
            f"{_shown(pattern)} is no pattern of topics: use {_ALLOWED}, or `*` for any one "
            "segment, or `**` for any number of segments"
        )
    return pattern


def _shown(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:100]}...")


def matches(pattern: str, topic: str) -> bool:
    """Whether the topic is one of the pattern's; raises TopicError when either means nothing."""
    parts, segments = check_pattern(pattern).split("."), check_topic(topic).split(".")
    at = step = 0
    retry: tuple[int, int] | None = None  # behind the last `**`, and where it ended then
    while at < len(segments):
        if step < len(parts) and parts[step] == MANY:
            step += 1
            retry = (step, at)
        elif step < len(parts) and parts[step] in {ONE, segments[at]}:
            step, at = step + 1, at + 1
        elif retry:  # the last `**` takes one segment more; an earlier one never needs to
            step, at = retry[0], retry[1] + 1
            retry = (step, at)
        else:
            return False
    return all(part == MANY for part in parts[step:])


class _Node(Generic[V]):
    """One place in the trie: the patterns that end here, and where their next segments lead."""

    __slots__ = ("exact", "loops", "many", "one", "values")

    def __init__(self, *, loops: bool = False) -> None:
        self.loops = loops  # behind a `**`: any segment leads here again
        self.exact: dict[str, _Node[V]] = {}
        self.one: _Node[V] | None = None
        self.many: _Node[V] | None = None
        self.values: dict[V, None] = {}  # a set that keeps the order

    def child(self, part: str) -> "_Node[V] | None":
        if part == ONE:
            return self.one
        return self.many if part == MANY else self.exact.get(part)

    def grown(self, part: str) -> "_Node[V]":
        child = self.child(part)
        if child is None:
            child = _Node[V](loops=part == MANY)
            self._put(part, child)
        return child

    def cut(self, part: str) -> None:
        if part in {ONE, MANY}:
            self._put(part, None)
        else:
            del self.exact[part]

    def bare(self) -> bool:
        return not (self.values or self.exact or self.one or self.many)

    def _put(self, part: str, child: "_Node[V] | None") -> None:
        if part == ONE:
            self.one = child
        elif part == MANY:
            self.many = child
        elif child is not None:
            self.exact[part] = child


class TopicTrie(Generic[V]):
    """Values under patterns; finds those whose pattern has a topic, in a time that does not grow
    with the number of patterns. Answers are remembered until a change, the latest `cache_size`."""

    def __init__(self, *, cache_size: int = 4096) -> None:
        self._root = _Node[V]()
        self._size = 0
        self._cache: dict[str, tuple[V, ...]] = {}
        self._cache_size = cache_size

    def __len__(self) -> int:
        return self._size

    def add(self, pattern: str, value: V) -> bool:
        """Put the value under the pattern; False when it is there already. Raises TopicError."""
        node = self._root
        for part in check_pattern(pattern).split("."):
            node = node.grown(part)
        if value in node.values:
            return False
        node.values[value] = None
        self._changed(+1)
        return True

    def remove(self, pattern: str, value: V) -> bool:
        """Take the value from under the pattern; False when it is not there."""
        path = [self._root]
        parts = check_pattern(pattern).split(".")
        for part in parts:
            child = path[-1].child(part)
            if child is None:
                return False
            path.append(child)
        if value not in path[-1].values:
            return False
        del path[-1].values[value]
        for part, parent, child in zip(
            reversed(parts), reversed(path[:-1]), reversed(path), strict=False
        ):
            if child.bare():
                parent.cut(part)
        self._changed(-1)
        return True

    def match(self, topic: str) -> tuple[V, ...]:
        """The values of all patterns that have the topic, each once; raises TopicError."""
        found = self._cache.get(topic)
        if found is None:
            found = self._search(check_topic(topic))
            if len(self._cache) >= self._cache_size:
                del self._cache[next(iter(self._cache))]
            self._cache[topic] = found
        return found

    def _changed(self, by: int) -> None:
        self._size += by
        self._cache.clear()

    def _search(self, topic: str) -> tuple[V, ...]:
        nodes = _with_many([self._root])
        for segment in topic.split("."):
            nodes = _with_many(_after(nodes, segment))
        found: dict[V, None] = {}
        for node in nodes:
            found.update(node.values)
        return tuple(found)


def _after(nodes: list[_Node[V]], segment: str) -> list[_Node[V]]:
    """Where one more segment leads."""
    following: list[_Node[V]] = []
    for node in nodes:
        if node.loops:
            following.append(node)
        if (exact := node.exact.get(segment)) is not None:
            following.append(exact)
        if node.one is not None:
            following.append(node.one)
    return following


def _with_many(nodes: list[_Node[V]]) -> list[_Node[V]]:
    """These nodes, and those that a `**` of no segments leads to; each once, so that many `**` in
    a row cost no more than their number."""
    there = {id(node) for node in nodes if node.loops}
    for node in nodes:  # grows meanwhile: a `**` may follow a `**`
        many = node.many
        if many is not None and id(many) not in there:
            there.add(id(many))
            nodes.append(many)
    return nodes
