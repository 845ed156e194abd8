"""The doctor's look at the server of the task store, and at who reads its outbox."""

from collections.abc import Iterable
from typing import Final

from app.core.config import Settings
from app.core.events import DISPATCH_GROUP, TASK_EVENTS_GROUP
from cli.doctor.report import Result, bad, good, warn
from task_state import keys
from task_state.admission import EVERY_SERVICE, ServiceMode, ServiceState
from task_state.redis import RedisRepositoryProvider
from task_state.server_facts import GroupFacts, ServerFacts, StoreServer

_OLDEST: Final = {"redis": (6, 2), "valkey": (7, 2)}
_CLOCK_SECONDS: Final = 2.0
_FULL: Final = 0.9
_FAR_BEHIND: Final = 10_000
_QUIET_SECONDS: Final = 60.0
_ABANDONED_SECONDS: Final = 3600.0
_RESCUE_SECONDS: Final = 60.0


async def check_server(provider: RedisRepositoryProvider, settings: Settings) -> list[Result]:
    """Everything about the servers; raises StoreUnavailableError when one does not answer."""
    server = await provider.get_server()
    writer, reader = await server.writer(), await server.reader()
    return [
        _version(writer),
        _eviction(writer),
        _durability(writer),
        _replicas(writer, settings.redis_wait_replicas),
        _memory(writer),
        _reader(writer, reader),
        _clock(writer),
        await _schema(server),
        *await _outbox(server),
        *await _attendance(server),
        _paused(await (await provider.get_admission()).states()),
    ]


def _version(facts: ServerFacts) -> Result:
    shown = f"{facts.name} {facts.version}"
    number = tuple(int(part) for part in facts.version.split(".")[:2] if part.isdecimal())
    oldest = _OLDEST[facts.name]
    if number >= oldest:
        return good("version", shown)
    return bad(
        "version", f"{shown} is too old", f"use {facts.name} {oldest[0]}.{oldest[1]} or newer"
    )


def _eviction(facts: ServerFacts) -> Result:
    if facts.eviction == "noeviction":
        return good("eviction", "noeviction")
    if facts.eviction is None:
        return warn(
            "eviction", "the server does not say", "see that maxmemory-policy is noeviction"
        )
    return bad(
        "eviction",
        f"maxmemory-policy is {facts.eviction}: the server may throw tasks away",
        "CONFIG SET maxmemory-policy noeviction, and the same in its configuration file",
    )


def _durability(facts: ServerFacts) -> Result:
    if not facts.last_write_ok:
        return bad(
            "durability",
            "the last write of the append-only file failed",
            "free its disk, see its log",
        )
    if facts.append_only:
        if facts.fsync == "no":
            return warn(
                "durability",
                "appendfsync is no: a power cut may lose half a minute",
                "CONFIG SET appendfsync everysec, or always",
            )
        return good("durability", f"append-only file, fsync {facts.fsync or 'unknown'}")
    if facts.replicas:
        return warn(
            "durability",
            f"no append-only file; {facts.replicas} replicas have the data in memory",
            "CONFIG SET appendonly yes",
        )
    return bad(
        "durability",
        "no append-only file and no replica: a restart loses every task",
        "CONFIG SET appendonly yes, and the same in its configuration file",
    )


def _replicas(facts: ServerFacts, wanted: int) -> Result:
    if facts.replicas >= wanted:
        return good("replicas", f"{facts.replicas} connected, {wanted} must confirm a write")
    return bad(
        "replicas",
        f"DMS_REDIS_WAIT_REPLICAS={wanted}, and {facts.replicas} are connected: writes fail",
        "connect the replicas, or lower the setting",
    )


def _memory(facts: ServerFacts) -> Result:
    used = f"{facts.used_bytes / 2**20:.0f} MiB used"
    if not facts.most_bytes:
        return good("memory", f"{used}, no limit of its own")
    limit = f"{used} of {facts.most_bytes / 2**20:.0f}"
    if facts.used_bytes < _FULL * facts.most_bytes:
        return good("memory", limit)
    return warn(
        "memory",
        f"{limit}: when it is full, nothing is accepted any more",
        "raise maxmemory, or remove finished tasks: dms-frontend tasks prune",
    )


def _reader(writer: ServerFacts, reader: ServerFacts) -> Result:
    if reader.data_id != writer.data_id:
        return bad(
            "reader",
            "reader and writer hold different data: lists do not show what was accepted",
            "have DMS_REDIS_READ_URL name a replica of DMS_REDIS_WRITE_URL, or unset it",
        )
    if not reader.link_up:
        return warn(
            "reader", "the reader is cut off from its writer: lists are stale", "mend its link"
        )
    return good("reader", f"holds the writer's data ({reader.role})")


def _clock(facts: ServerFacts) -> Result:
    side = "ahead" if facts.clock_ahead > 0 else "behind"
    shown = f"the server is {abs(facts.clock_ahead):.1f} s {side}"
    if abs(facts.clock_ahead) <= _CLOCK_SECONDS:
        return good("clock", "the server's agrees with this machine's")
    return warn(
        "clock",
        f"{shown} of this machine: times in logs and records do not fit",
        "synchronize the clocks (NTP)",
    )


async def _schema(server: StoreServer) -> Result:
    found, ours = await server.schema(), str(keys.SCHEMA_VERSION)
    if found in {None, ours}:
        return good("schema", f"layout {ours}")
    return bad("schema", f"layout {found}, this version has {ours}", "run the version that matches")


# ------------------------------------------------------------------------------------------ readers
async def _outbox(server: StoreServer) -> list[Result]:
    groups = await server.groups()
    if not any(group.name == DISPATCH_GROUP for group in groups):
        return [warn("outbox", "no frontend has ever dispatched from here", "start one")]
    # One look may fall between two of a frontend's questions; it asks every few seconds.
    return [await _group(server, group) for group in groups]


async def _group(server: StoreServer, group: GroupFacts) -> Result:
    name = f"outbox {group.name}"
    waiting = (group.unread or 0) + group.pending + group.put_off
    quiet = group.quiet_seconds
    silent = quiet is None or quiet > _QUIET_SECONDS
    if silent and waiting and group.name == DISPATCH_GROUP:
        return bad(
            name, f"{waiting} events wait, and no frontend takes them", "start a frontend: serve"
        )
    if silent and waiting and group.name == TASK_EVENTS_GROUP:
        return warn(
            name,
            f"{waiting} events wait, and no scheduler publishes them: the outbox cannot be trimmed",
            "start the scheduler service, which tells of the ends of tasks",
        )
    if waiting and (quiet is None or quiet > _ABANDONED_SECONDS):
        return warn(
            name,
            f"{waiting} events wait for a group that nobody reads: the outbox cannot be trimmed",
            f"if it is not needed: XGROUP DESTROY '{keys.OUTBOX}' {group.name}",
        )
    if waiting > _FAR_BEHIND:
        return warn(name, f"{waiting} events behind", "look at the scheduler; add frontends")
    return good(name, f"{waiting} events wait")


async def _attendance(server: StoreServer) -> Iterable[Result]:
    rescue = await server.rescue()
    believed = [each for each in await server.workers() if each.believed_seconds > 0]
    return [
        _rescuers(rescue.last_seconds),
        _workers(sum(each.slots for each in believed), len(believed)),
    ]


def _rescuers(last: float | None) -> Result:
    if last is not None and last < _RESCUE_SECONDS:
        return good("rescuers", f"looked after lost tasks {max(last, 0):.0f} s ago")
    since = "never" if last is None else f"{last / 60:.0f} min ago"
    return warn(
        "rescuers",
        f"last looked after lost tasks {since}",
        "start the scheduler service and workers",
    )


def _workers(slots: int, workers: int) -> Result:
    if workers:
        return good("workers", f"{workers} attend, with {slots} slots")
    return warn("workers", "no worker attends: nothing runs", "start one: dms-frontend worker")


def _paused(states: Iterable[ServiceState]) -> Result:
    """What was said of all services; one that is paused by its name is its operator's affair."""
    for state in states:
        if state.service == EVERY_SERVICE and state.mode is not ServiceMode.ACTIVE:
            what = "nothing starts" if state.mode is ServiceMode.PAUSED else "no task is accepted"
            return warn(
                "paused",
                f"{what}: all services are {state.mode.lower()} ({state.reason or 'no reason'})",
                "when the cause is gone: dms-frontend services resume --all",
            )
    return good("paused", "work goes on; no pause or drain of all services")
