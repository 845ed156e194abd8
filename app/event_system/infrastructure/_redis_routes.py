"""The queues of a Redis broker, as a publisher knows them: which get the events of a topic."""

import json
from dataclasses import asdict, dataclass
from typing import Final, Literal

from app.event_system.domain.errors import SubscribeError
from app.event_system.domain.ports import Overflow, SubscribeOptions
from app.event_system.domain.topics import TopicTrie
from app.event_system.infrastructure._redis_link import Link

DEFAULT_LIMIT: Final = 1_000_000
_Policy = Literal["drop_oldest", "drop_newest", "error"]


@dataclass(frozen=True, slots=True)
class Route:
    """A queue: the pattern of its topics, and what happens when it is full."""

    pattern: str
    group: str | None
    limit: int
    overflow: _Policy

    def to_json(self) -> str:
        """As it is stored."""
        return json.dumps(asdict(self), sort_keys=True)


def route_of(options: SubscribeOptions) -> Route:
    """The queue that these options ask for; raises SubscribeError."""
    overflow = options.overflow or Overflow.DROP_OLDEST
    if overflow is Overflow.WAIT:
        raise SubscribeError(
            "overflow is `wait`, which only a broker in memory can do: here a publisher cannot "
            "know when there is room; use drop_oldest, drop_newest or error"
        )
    policy: _Policy = overflow.value  # pyright: ignore[reportAssignmentType]
    return Route(options.pattern, options.group, options.limit or DEFAULT_LIMIT, policy)


def group_queue(pattern: str, group: str) -> str:
    """The id of a group's queue."""
    return f"{pattern}:{group}"


class Routes:
    """The routes that were read last. The version tells the server whether they still hold."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.version = ""  # none: must be read
        self.known: dict[str, Route] = {}
        self.trie: TopicTrie[str] = TopicTrie()

    async def reload(self) -> None:
        """Read them all; raises BrokerUnavailableError."""
        version, flat = await self._link.run("routes")
        found = {
            queue_id.decode(): Route(**json.loads(route))
            for queue_id, route in zip(flat[::2], flat[1::2], strict=True)
        }
        for queue_id in self.known.keys() - found.keys():
            self.trie.remove(self.known[queue_id].pattern, queue_id)
        for queue_id in found.keys() - self.known.keys():
            self.trie.add(found[queue_id].pattern, queue_id)
        self.known, self.version = found, version.decode()
