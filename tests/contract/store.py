"""What the tests know of the store's inside: its keys, and how to let time pass in it."""

import json
import time
from typing import Any, cast

from redis import Redis

from task_state import TaskRecord, TaskStatus, keys
from task_state._layout import FIELDS, LINE_BREAK, TEXTS

# Keys that stay when every task is gone: version, last id, streams, counters, turns.
LASTING = {
    keys.SCHEMA,
    keys.SEQUENCE,
    keys.OUTBOX,
    keys.CHANGES,
    keys.COUNTERS,
    keys.TURN,
    keys.TURNS,
    keys.WORKERS,
    keys.PREFIX + "rescue",
    keys.PREFIX + "rescue:turn",
    keys.PREFIX + "sweep:turn",
}


def record(task_id: str = "external-1", **values: Any) -> TaskRecord:
    """A record that was never saved."""
    request: dict[str, Any] = {"task_id": task_id, "service": "analytics", "user_id": "alice"}
    return TaskRecord(**{**request, **values})


class Keyspace:
    """Everything in a server, seen through a plain client."""

    def __init__(self, client: "Redis") -> None:
        self.client = client
        self._empty = set[str]()

    def names(self) -> set[str]:
        """The names of all keys."""
        found = cast("list[bytes]", self.client.keys("*"))
        return {name.decode() for name in found}

    def note_empty(self) -> None:
        """Remember what an unused store holds."""
        self._empty = self.names()

    def leaks(self) -> set[str]:
        """Keys that no task accounts for, once all tasks are gone."""
        return self.names() - self._empty - LASTING

    def dump(self) -> dict[str, bytes]:
        """The content of every key, to compare."""
        return {name: cast("bytes", self.client.dump(name)) for name in sorted(self.names())}

    def ids(self, index: str) -> list[str]:
        """The members of an index, such as `c:PENDING:sync:alice`, in its order."""
        found = cast("list[bytes]", self.client.zrange(keys.PREFIX + index, 0, -1))
        return [member.decode() for member in found]

    def indexes_of(self, task_id: str) -> set[str]:
        """The listing indexes that hold a task."""
        names = [name for name in self.names() if name.startswith((C_INDEX, U_INDEX))]
        return {
            name.removeprefix(keys.PREFIX)
            for name in names
            if self.client.zscore(name, task_id) is not None
        }

    def field(self, task_id: str, name: str) -> bytes | None:
        """A field of the record, as a hash holds it."""
        return self.fields(task_id).get(name)

    def fields(self, task_id: str) -> dict[str, bytes]:
        """All fields of the record, whichever of its two forms it has; cut values are in pieces in
        a hash, whole in a line."""
        key = keys.task(task_id)
        if self.client.type(key) != b"string":
            found = cast("dict[bytes, bytes]", self.client.hgetall(key))
            return {name.decode(): value for name, value in found.items()}
        line = cast("bytes", self.client.get(key)).decode().split(LINE_BREAK)
        values = {name: value for name, value in zip(FIELDS, line, strict=False) if value != "null"}
        return {
            name: (json.loads(value) if name in TEXTS else value).encode()
            for name, value in values.items()
        }

    def outbox(self) -> list[tuple[str, str, str]]:
        """All outbox entries as (kind, task id, status), oldest first."""
        return self._events(keys.OUTBOX)

    def changes(self) -> list[tuple[str, str, str]]:
        """All changes as (kind, task id, status), oldest first."""
        return self._events(keys.CHANGES)

    def _events(self, stream: str) -> list[tuple[str, str, str]]:
        entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", self.client.xrange(stream))
        parts = [fields[b"e"].decode().split(" ") for _, fields in entries]
        return [(kind, task_id, status) for kind, task_id, _, _, status in parts]

    def expire_lease(self, task_id: str, seconds_ago: float = 3600) -> None:
        """Let a lease have ended so long ago, as if the worker had been silent."""
        end = int((time.time() - seconds_ago) * 1000)
        self.client.hset(keys.task(task_id), "lease", str(end))
        self.client.zadd(keys.LEASES, {task_id: end})

    def let_rescue(self) -> None:
        """Let it be a period since the last rescue, all of it and an hour before with Redis up."""
        now = int(time.time() * 1000)
        self.client.delete(keys.PREFIX + "rescue:turn")
        rescue = {"last": str(now), "since": str(now - 3_600_000)}
        self.client.hset(keys.PREFIX + "rescue", mapping=cast("Any", rescue))

    def let_expire(self, record_: TaskRecord) -> None:
        """Let the record's time to live be over, for the sweeper."""
        member = f"{record_.task_id}:{record_.service}:{record_.user_id}"
        assert self.client.zscore(keys.EXPIRY, member) is not None, "no time to live was running"
        self.client.zadd(keys.EXPIRY, {member: 1})
        self.let_sweep()

    def let_sweep(self) -> None:
        """Let it be the next turn of the sweeper."""
        self.client.delete(keys.PREFIX + "sweep:turn")

    def let_queue_check(self, task_id: str) -> None:
        """Let it be time to look for the task's queue entry."""
        self.client.zadd(keys.QUEUED, {task_id: 1})


C_INDEX, U_INDEX = keys.PREFIX + "c:", keys.PREFIX + "u:"


def indexes(task: TaskRecord) -> set[str]:
    """The indexes that a listed task must be in, and no others."""
    return index_names(task.status, task.service, task.user_id)


def index_names(status: TaskStatus, service: str, user_id: str) -> set[str]:
    """The listing indexes of a state, a service and a user."""
    return {
        f"c:{status}",
        f"c:{status}:{service}",
        f"c:{status}:{service}:{user_id}",
        f"u:{status}",
        f"u:{status}:{service}",
    }
