"""Compares the records of the store with all that is made of them: both ways, live, in small steps.

What is compared within one step of Redis cannot change meanwhile, so a busy store gives no false
finding. Mending makes indexes, counts and times to live follow the records: it never removes a
record or what belongs to it. Each step looks at forty members at most; memory does not grow.
"""

from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from task_state import keys
from task_state._schedule_audit import named_for_comparison, schedules_with_active
from task_state._store import Store
from task_state.managed import Waiting
from task_state.models import TaskStatus
from task_state.timezone import now, to_microseconds

STEP = 40  # some milliseconds of Redis, in which nobody else is served
_KEYS_A_STEP = 500
_MOST_COUNTED = 20_000
_MOST_TOLD = 10_000
# A submission is on its way for a moment; only one that is older may be lost.
_ON_ITS_WAY_US = 60_000_000
_SETS = {"ids": "index", "expiry": "expiry", "leases": "leases", "delayed": "waiting",
         "queued": "waiting"}  # fmt: skip
_BESIDE = ("logs", "output", "report", "series")  # what a record may have beside it
_SET_FAMILIES = {
    "c": "index",
    "u": "index",
    "lane": "waiting",
    "arriving": "arriving",
    "busy": "slots",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as the records say: which check found it, of which task, service or
    user (empty where it is about none), and whether it was mended."""

    check: str
    task_id: str
    service: str
    user_id: str
    what: str
    mended: bool


def batched(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """The items in pieces of at most `size`."""
    for at in range(0, len(items), size):
        yield items[at : at + size]


class Audit:
    """One walk over the store; with `mend` it repairs what it finds.

    `records` counts those looked at. `counted` is False when counts were not compared, because
    indexes, which they follow, have to be mended first. `dispatch_checked` is False when too
    much was put off by the dispatcher to be looked through. `uncounted` says what there is too much
    of to be counted in one step, which alone would be exact: its counts were not compared.
    """

    def __init__(self, store: Store, *, group: str, mend: bool = False) -> None:
        self._store = store
        self._group = group
        self._mend = "1" if mend else ""
        self._told = set[Finding]()
        self._indexes_differ = False
        self.records = 0
        self.counted = True
        self.dispatch_checked = True
        self.uncounted = set[str]()

    async def walk(self) -> AsyncGenerator[Finding]:
        """Every difference. A record that is changed meanwhile is compared as it is then."""
        async for names in self._keys():
            for finding in await self._compare(names):
                self._indexes_differ |= finding.check in {"indexes", "members"}
                yield finding
        self.counted = not self._indexes_differ or bool(self._mend)
        async for names in self._keys():
            for finding in await self._count(names):
                if self._is_new(finding):
                    yield finding
        for finding in await self._lanes("", ()):
            yield finding
        if self._mend:  # what an older layout lacked is there now
            writer = self._store.writer
            await self._store.call(lambda: writer.delete(keys.OLDER))

    async def past(self, attempts: Sequence[Waiting]) -> list[Waiting]:
        """Those whose task is gone, has ended, or is past that epoch: to run them does nothing."""
        rows: list[Any] = []
        for part in batched([attempt.task_id for attempt in attempts], STEP):
            rows += await self._store.read("standings", *part, fresh=True)
        standings = cast("list[tuple[bytes, int]]", rows)
        return [
            attempt
            for attempt, (status, epoch) in zip(attempts, standings, strict=True)
            if not status or TaskStatus(status.decode()).is_terminal or epoch >= attempt.epoch
        ]

    async def _keys(self) -> AsyncGenerator[list[str]]:
        """The names of the store's keys without their prefix, some a step; some may come twice."""
        writer, cursor = self._store.writer, 0
        while True:
            at = cursor
            cursor, found = await self._store.call(
                lambda at=at: cast(
                    "Any", writer.scan(at, match=f"{keys.PREFIX}*", count=_KEYS_A_STEP)
                )
            )
            yield [cast("bytes", key).decode().removeprefix(keys.PREFIX) for key in found]
            if cursor == 0:
                return

    # ---------------------------------------------------------------------------- records, members
    async def _compare(self, names: Sequence[str]) -> list[Finding]:
        found: list[Finding] = []
        parts: dict[str, list[str]] = {"task": [], **{family: [] for family in _BESIDE}}
        for name in names:
            family, _, rest = name.partition(":")
            if family in parts and rest:
                parts[family].append(rest)
            elif what := _SETS.get(name) or (_SET_FAMILIES.get(family) if rest else None):
                found += await self._members(what, name)
        self.records += len(parts["task"])
        for ids in batched(parts["task"], STEP):
            found += await self._records(ids)
        for family in _BESIDE:
            for ids in batched(parts[family], STEP):
                found += await self._run("audit_members", "loose", family, *ids)
        return found + await self._schedules(names)

    async def _schedules(self, names: Sequence[str]) -> list[Finding]:
        found: list[Finding] = []
        for kind, named in named_for_comparison(names).items():
            for part in batched(named, STEP):
                found += await self._run("audit_schedules", kind, *part)
        for schedule in schedules_with_active(names):
            async for tasks in self._scan_set("zscan", keys.schedule_active(schedule)):
                for part in batched(tasks, STEP):
                    found += await self._run("audit_schedules", "active", schedule, *part)
        if keys.SCHEDULES.removeprefix(keys.PREFIX) in names:
            async for listed in self._scan_set("zscan", keys.SCHEDULES):
                for part in batched(listed, STEP):
                    found += await self._run("audit_schedules", "listed", *part)
        return found

    async def _records(self, ids: Sequence[str]) -> list[Finding]:
        rows = await self._rows("audit_records", *ids)
        waiting = [(row[1].decode(), int(row[4])) for row in rows if not row[0]]
        found = [_finding(row) for row in rows if row[0]]
        return found + await self._undispatched(waiting)

    async def _undispatched(self, waiting: Sequence[tuple[str, int]]) -> list[Finding]:
        """Which of the tasks that wait for their first attempt nobody will dispatch: looked for in
        the order in which their event moves, then looked at once more."""
        newest = to_microseconds(now()) - _ON_ITS_WAY_US
        old = [(task_id, created) for task_id, created in waiting if created < newest]
        if not old:
            return []
        arguments = [part for pair in old for part in pair]
        lost = await self._store.read("audit_unread", self._group, *arguments, fresh=True)
        ids = {cast("bytes", task_id).decode() for task_id in lost}
        put_off = await self._put_off() if ids else set[str]()
        if put_off is None:
            self.dispatch_checked = False
            return []
        lost_ids = sorted(ids - put_off)
        if not lost_ids:
            return []
        return await self._run("audit_undispatched", self._group, *lost_ids)

    async def _put_off(self) -> set[str] | None:
        """The tasks whose events the dispatcher put off; None where they are too many to look."""
        writer, key = self._store.writer, keys.due(self._group)
        if await self._store.call(lambda: cast("Any", writer.zcard(key))) > _MOST_COUNTED:
            return None
        found = set[str]()
        async for members in self._scan_set("zscan", key):
            found.update(member.split('"')[3] for member in members)
        return found

    async def _members(self, what: str, name: str) -> list[Finding]:
        found: list[Finding] = []
        command = {"slots": "hscan", "arriving": "sscan"}.get(what, "zscan")
        async for members in self._scan_set(command, keys.PREFIX + name):
            for part in batched(members, STEP):
                found += await self._run("audit_members", what, name, *part)
        return found

    async def _scan_set(self, command: str, key: str) -> AsyncGenerator[list[str]]:
        """The members of a set, sorted or not, or the fields of a hash, some a step."""
        scan, cursor = getattr(self._store.writer, command), 0
        while True:
            at = cursor
            cursor, found = await self._store.call(lambda at=at: scan(key, at, count=_KEYS_A_STEP))
            # Of a sorted set they come with their scores.
            yield [(each[0] if command == "zscan" else each).decode() for each in found]
            if cursor == 0:
                return

    # -------------------------------------------------------------------------------------- counts
    async def _count(self, names: Sequence[str]) -> list[Finding]:
        found: list[Finding] = []
        owners: dict[str, list[str]] = {}
        for name in names:
            match name.split(":"):
                case ["c", _, service, user]:  # by far the most: many users in one step
                    owners.setdefault(service, []).append(user)
                case _:
                    async for service, users, lanes in self._counted(name):
                        found += await (self._lanes if lanes else self._counts)(service, users)
        for service, users in owners.items():
            found += await self._counts(service, sorted(set(users)))
        return found

    async def _counted(self, name: str) -> AsyncGenerator[tuple[str, Sequence[str], bool]]:
        """What a key gives to count: a service (no users) or users of a service, in the indexes or
        (True) in the lanes."""
        match name.split(":"):
            case ["services" | "waiting"]:
                async for services in self._scan_set("hscan", keys.PREFIX + name):
                    for each in services:
                        yield each, (), name == "waiting"
            case ["users" | "ring" as family, service]:
                command = "hscan" if family == "users" else "zscan"
                async for users in self._scan_set(command, keys.PREFIX + name):
                    yield service, users, family == "ring"
                yield service, (), family == "ring"
            case ["c", _, service]:
                yield service, (), False
            case ["lane", service, user]:
                yield service, (user,), True
            case _:
                pass  # nothing that is counted

    async def _counts(self, service: str, users: Sequence[str]) -> list[Finding]:
        if not self.counted:
            return []
        found: list[Finding] = []
        for part in batched(users, STEP) if users else ((),):
            found += await self._run("audit_counts", service, *part)
        return found

    async def _lanes(self, service: str, users: Sequence[str]) -> list[Finding]:
        """Turns of users; or without users how many tasks wait in the lanes of the service."""
        found: list[Finding] = []
        for part in batched(users, STEP) if users else ((),):
            found += await self._run("audit_lanes", service, _MOST_COUNTED, *part)
        self.uncounted |= {each.what for each in found if each.check == "uncounted"}
        found = [each for each in found if each.check != "uncounted"]
        if users and any(finding.mended for finding in found):
            found += await self._lanes(service, ())
        return found

    # ------------------------------------------------------------------------------------- scripts
    async def _run(self, script: str, *arguments: str | int) -> list[Finding]:
        return [_finding(row) for row in await self._rows(script, *arguments)]

    async def _rows(self, script: str, *arguments: str | int) -> list[list[bytes]]:
        if self._mend:
            rows = await self._store.write(script, self._mend, *arguments)
        else:
            rows = await self._store.read(script, "", *arguments, fresh=True)
        return cast("list[list[bytes]]", rows)

    def _is_new(self, finding: Finding) -> bool:
        """Counts are met by several names; each is told once, as long as they are not too many."""
        if finding in self._told:
            return False
        if len(self._told) < _MOST_TOLD:
            self._told.add(finding)
        return True


def _finding(row: Sequence[bytes]) -> Finding:
    check, task_id, service, user, what, mended = (part.decode() for part in row)
    return Finding(check, task_id, service, user, what, mended == "1")
