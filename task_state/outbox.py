"""The outbox: events that were written in the same step as the record, for groups of consumers.

An event leaves the stream when every group is done with it, and is delivered at least once. What
has to wait (the scheduler is away) waits in a due set, and holds up nothing behind it.
"""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, cast

from pydantic_core import from_json
from redis.exceptions import ResponseError

from task_state import keys
from task_state._codec import encode_json
from task_state._store import Store
from task_state.errors import InvalidRequestError, StoreUnavailableError
from task_state.models import TaskStatus
from task_state.timezone import from_microseconds

EventKind = Literal["submitted", "cancel", "finished"]
_Entry = tuple[bytes, Mapping[bytes, bytes]]
MOST_UNREAD = 10_000
FORGET_SECONDS = 3600.0
_ERROR_BYTES = 2000


@dataclass(frozen=True, slots=True)
class OutboxEvent:
    """Something that happened to a task. `entry_id` is its place in the stream, and empty once it
    was put off; `tries` counts how often it was; `due_member` names it in the due set."""

    entry_id: str
    kind: EventKind
    task_id: str
    service: str
    user_id: str
    status: TaskStatus
    tries: int = 0
    due_member: str = ""


@dataclass(frozen=True, slots=True)
class OutboxDepth:
    """How far a group is behind: not yet read (10,000 at most), read and not done, put off; and the
    age in seconds of the oldest event that it is not done with, those put off left out."""

    unread: int
    pending: int
    due: int
    lag_seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a task ended, as far as its record tells; `error` is cut off at 2000 bytes."""

    status: TaskStatus
    completed_at: datetime | None
    attempts: int
    retry_of: str | None
    schedule_id: str | None
    error: str | None


class Outbox:
    """Reads the outbox for consumer groups."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._redis = store.writer

    async def ensure_group(self, group: str) -> None:
        """Create the group from the beginning of the stream, if it is not there."""
        try:
            await self._store.call(
                lambda: self._redis.xgroup_create(keys.OUTBOX, group, id="0", mkstream=True)
            )
        except StoreUnavailableError as error:
            if not isinstance(error.__cause__, ResponseError) or "BUSYGROUP" not in str(error):
                raise

    async def read(
        self, group: str, consumer: str, *, count: int, block_ms: int
    ) -> list[OutboxEvent]:
        """New events, waiting up to `block_ms` for the first one."""
        reply = await self._store.call(
            lambda: self._redis.xreadgroup(
                group, consumer, {keys.OUTBOX: ">"}, count=count, block=block_ms or None
            ),
            seconds=block_ms / 1000 + self._store.timeout,
        )
        return [_event(entry) for _, entries in reply or () for entry in entries]

    async def unfinished(
        self, group: str, consumer: str, *, after: str, count: int
    ) -> list[OutboxEvent]:
        """Events that this consumer read and never finished, from after that entry's id on ("0":
        all): what a process of its name left when it died, or what a lost reply had held."""
        reply = await self._store.call(
            lambda: self._redis.xreadgroup(group, consumer, {keys.OUTBOX: after}, count=count)
        )
        return [_event(entry) for _, entries in reply or () for entry in entries if entry[1]]

    async def claim(
        self, group: str, consumer: str, *, min_idle_ms: int, count: int
    ) -> list[OutboxEvent]:
        """Events that another consumer read at least `min_idle_ms` ago and never finished."""
        reply = await self._store.call(
            lambda: self._redis.xautoclaim(
                keys.OUTBOX, group, consumer, min_idle_time=min_idle_ms, count=count
            )
        )
        return [_event(entry) for entry in cast("Sequence[_Entry]", reply[1])]

    async def take_due(self, group: str, *, hide_ms: int, count: int) -> list[OutboxEvent]:
        """Events whose time has come. They hide for `hide_ms` and come again if nobody finishes."""
        members = await self._store.write("take_due", group, count, hide_ms)
        return [_due_event(member) for member in members]

    async def done(self, group: str, *events: OutboxEvent) -> None:
        """The group needs these events no more."""
        entries = [event.entry_id for event in events if event.entry_id]
        members = [event.due_member for event in events if not event.entry_id]
        if entries:
            await self._store.call(lambda: self._redis.xack(keys.OUTBOX, group, *entries))
        if members:
            await self._store.call(
                lambda: cast("Awaitable[Any]", self._redis.zrem(keys.due(group), *members))
            )

    async def defer(self, group: str, event: OutboxEvent, *, delay_seconds: float) -> None:
        """Put the event off, in one step; it comes again by take_due with one more of `tries`."""
        later = replace(event, tries=event.tries + 1)
        await self._store.write(
            "defer",
            group,
            event.entry_id,
            event.due_member,
            _member(later),
            int(delay_seconds * 1000),
        )

    async def trim(self, *, forget_seconds: float = FORGET_SECONDS) -> None:
        """Drop the events that every group is done with, and forget consumers that have been silent
        for `forget_seconds` and left nothing."""
        await self._store.write("trim", int(forget_seconds * 1000))

    async def depth(self, group: str) -> OutboxDepth:
        """How far the group is behind; raises InvalidRequestError when there is no such group."""
        found = await self._depths(group)
        if group not in found:
            raise InvalidRequestError(
                f"the outbox has no group {group!r}: call ensure_group({group!r}) first"
            )
        return found[group]

    async def depths(self) -> dict[str, OutboxDepth]:
        """How far each group is behind. Events stay until all of these are done with them."""
        return await self._depths("")

    async def endings(self, task_ids: Sequence[str]) -> list[Ending | None]:
        """How these tasks ended, as their records say now; None for a record that is gone, or that
        has not ended (any more)."""
        if not task_ids:
            return []
        found = await self._store.read("endings", _ERROR_BYTES, *task_ids, fresh=True)
        return [_ending(values) for values in found]

    async def _depths(self, group: str) -> dict[str, OutboxDepth]:
        found = await self._store.read("depth", group, MOST_UNREAD, fresh=True)
        return {
            name.decode(): OutboxDepth(unread, pending, due, age / 1000)
            for name, unread, pending, due, age in found
        }


def _event(entry: _Entry) -> OutboxEvent:
    entry_id, fields = entry
    kind, task_id, service, user_id, status = fields[b"e"].decode().split(" ")
    return OutboxEvent(
        entry_id.decode(), cast("EventKind", kind), task_id, service, user_id, TaskStatus(status)
    )


def _ending(values: Sequence[bytes]) -> Ending | None:
    status, completed, attempts, *texts = values or (b"", b"", b"", b"", b"", b"")
    if not status or not TaskStatus(status.decode()).is_terminal:
        return None
    # A character that was cut in two is left out; what is no text at all is shown as such.
    retry_of, schedule_id, error = (
        text.decode("utf-8", "replace").rstrip("\ufffd") for text in texts
    )
    return Ending(
        status=TaskStatus(status.decode()),
        completed_at=from_microseconds(completed) if completed else None,
        attempts=int(attempts or 0),
        retry_of=retry_of or None,
        schedule_id=schedule_id or None,
        error=error or None,
    )


def _member(event: OutboxEvent) -> str:
    values = [event.kind, event.task_id, event.service, event.user_id, event.status, event.tries]
    return encode_json(values, "the event")


def _due_event(member: bytes) -> OutboxEvent:
    kind, task_id, service, user_id, status, tries = from_json(member)
    return OutboxEvent(
        "", kind, task_id, service, user_id, TaskStatus(status), tries, member.decode()
    )
