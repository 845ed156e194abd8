"""The trie under random changes, asked all the while, is a dictionary with a slow search."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from app.event_system import TopicTrie, matches

PARTS = st.sampled_from(["a", "b", "*", "**"])
PATTERNS = st.lists(PARTS, min_size=1, max_size=4).map(".".join)
TOPICS = ["a", "b", "a.a", "a.b", "b.a", "a.b.a", "b.b.b.b", "a.a.b.b"]
VALUES = st.integers(0, 3)


class Tries(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.trie: TopicTrie[int] = TopicTrie(cache_size=4)
        self.plain: set[tuple[str, int]] = set()

    @rule(pattern=PATTERNS, value=VALUES)
    def add(self, pattern: str, value: int) -> None:
        assert self.trie.add(pattern, value) == ((pattern, value) not in self.plain)
        self.plain.add((pattern, value))

    @rule(pattern=PATTERNS, value=VALUES)
    def remove(self, pattern: str, value: int) -> None:
        assert self.trie.remove(pattern, value) == ((pattern, value) in self.plain)
        self.plain.discard((pattern, value))

    @rule(data=st.data())
    def remove_one_that_is_there(self, data: st.DataObject) -> None:
        if self.plain:
            pattern, value = data.draw(st.sampled_from(sorted(self.plain)))
            self.remove(pattern, value)

    @invariant()
    def finds_the_same(self) -> None:
        assert len(self.trie) == len(self.plain)
        for topic in TOPICS:
            expected = {value for pattern, value in self.plain if matches(pattern, topic)}
            assert set(self.trie.match(topic)) == expected

    @invariant()
    def leaves_nothing_behind(self) -> None:
        assert bool(self.plain) != self.trie._root.bare()


TestTries = Tries.TestCase
