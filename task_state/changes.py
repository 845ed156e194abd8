"""The stream of changes, for live views: it is trimmed, so nothing may depend on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

from task_state import keys
from task_state._store import Store
from task_state.models import TaskStatus

ChangeKind = Literal["created", "status", "log", "progress", "result", "deleted"]


@dataclass(frozen=True, slots=True)
class Change:
    """A task changed in that way; what it is now, its record says."""

    change_id: str
    kind: ChangeKind
    task_id: str
    service: str
    user_id: str
    status: TaskStatus


class Changes:
    """Reads the stream of changes from the reader."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._redis = store.reader

    async def last_id(self) -> str:
        """The id of the newest change, to read on from."""
        newest = await self._store.call(lambda: self._redis.xrevrange(keys.CHANGES, count=1))
        return newest[0][0].decode() if newest else "0-0"

    async def read(self, after: str, *, block_ms: int, count: int = 500) -> list[Change]:
        """Changes after that id, waiting up to `block_ms` for the first one."""
        reply = await self._store.call(
            lambda: self._redis.xread({keys.CHANGES: after}, count=count, block=block_ms or None),
            seconds=block_ms / 1000 + self._store.timeout,
        )
        return [_change(*entry) for _, entries in reply or () for entry in entries]


def _change(change_id: bytes, fields: Mapping[bytes, bytes]) -> Change:
    kind, task_id, service, user_id, status = fields[b"e"].decode().split(" ")
    return Change(
        change_id.decode(), cast("ChangeKind", kind), task_id, service, user_id, TaskStatus(status)
    )
