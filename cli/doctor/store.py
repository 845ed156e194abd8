"""The doctor's look at the records, at all that is made of them, and at the engine's calls."""

from collections.abc import Callable
from typing import Final

from app.core.events import DISPATCH_GROUP
from cli.doctor.report import Result, Verdict, good, warn
from dms_scheduler.engine import EngineClient
from task_state.audit import Audit, Finding
from task_state.managed import Waiting
from task_state.redis import RedisRepositoryProvider

_REPAIR: Final = "dms-frontend doctor --repair"
_SHOWN_EVERY: Final = 100_000
_FORGOTTEN_SECONDS: Final = 3600.0

# What each check of the audit is about, and what to do where a repair cannot.
_CHECKS: Final = {
    "indexes": ("records stand in all the lists that they belong to", _REPAIR),
    "members": ("lists hold no task that is gone, or is in another state", _REPAIR),
    "counts": ("the counts of services and users are right", _REPAIR),
    "expiry": ("finished tasks expire, active ones do not", _REPAIR),
    "loose": ("logs and outputs belong to a record", f"{_REPAIR} lets them expire"),
    "log-lines": ("records know how many log lines they have", _REPAIR),
    "leases": ("leases belong to tasks that run", _REPAIR),
    "waiting": ("tasks that wait stand in one queue, and are counted", _REPAIR),
    "slots": ("tasks that run hold a slot, and no others do", _REPAIR),
    "dispatch": ("every task that waits is going to be dispatched", _REPAIR),
    "schedules": ("schedules are listed, and know their active tasks", _REPAIR),
    "stuck": (
        "tasks that run make progress",
        "look whether scheduler and workers run; end one by: dms-frontend tasks cancel --task-id",
    ),
}


async def check_records(
    provider: RedisRepositoryProvider, *, mend: bool, say: Callable[[str], None]
) -> list[Result]:
    """Walk over the whole store; says on the way how far it is."""
    results = {
        name: Result(name, what, remedy, _severity(name))
        for name, (what, remedy) in _CHECKS.items()
    }
    audit = await provider.get_audit(DISPATCH_GROUP, mend=mend)
    told = 0
    async for finding in audit.walk():
        results[finding.check].add(_example(finding), repaired=finding.mended)
        if audit.records - told >= _SHOWN_EVERY:
            told = audit.records
            say(f"{told} records looked at")
    return [good("records", f"{audit.records} looked at"), *_explained(results, audit)]


def _explained(results: dict[str, Result], audit: Audit) -> list[Result]:
    if not audit.counted:
        results["counts"] = warn(
            "counts", "not compared: the lists that they follow are to be mended first", _REPAIR
        )
    if not audit.dispatch_checked:
        results["dispatch"] = warn(
            "dispatch",
            "not looked at: too much is put off, as the scheduler did not answer for long",
            "look at the scheduler, then call the doctor again",
        )
    uncounted = sorted(audit.uncounted)
    told = [
        warn(
            "recount",
            f"counts were not compared with {', '.join(uncounted)}: too many for one step",
            "call the doctor again when there are fewer",
        )
    ]
    return [*results.values(), *(told if uncounted else ())]


def _severity(name: str) -> Verdict:
    return Verdict.WARNING if name in {"stuck", "loose"} else Verdict.PROBLEM


def _example(finding: Finding) -> str:
    subject = finding.task_id or "/".join(filter(None, (finding.service, finding.user_id)))
    return f"{subject or 'the store'}: {finding.what}"


async def check_engine(
    provider: RedisRepositoryProvider, engine: EngineClient, *, mend: bool
) -> list[Result]:
    """Calls that would do nothing, and workers that the engine still remembers."""
    return [
        await _check_calls(provider, engine, mend=mend),
        await _check_consumers(engine, mend=mend),
    ]


async def _check_calls(
    provider: RedisRepositoryProvider, engine: EngineClient, *, mend: bool
) -> Result:
    result = Result(
        "jobs", "the engine holds no call of a task that has ended", _REPAIR, Verdict.WARNING
    )
    audit = await provider.get_audit(DISPATCH_GROUP)
    cursor, more = 0, True
    while more:
        cursor, calls = await engine.queued(cursor)
        more = cursor != 0
        attempts = [Waiting(call.task_id, call.epoch) for call in calls]
        past = {(each.task_id, each.epoch) for each in await audit.past(attempts)}
        suspects = [call for call in calls if (call.task_id, call.epoch) in past]
        # A worker may have begun one meanwhile: only what still waits is an orphan.
        for call in await engine.not_begun(suspects):
            if mend:
                await engine.cancel(call.task_id, call.epoch)
            result.add(f"{call.task_id}: attempt {call.epoch}", repaired=mend)
    return result


async def _check_consumers(engine: EngineClient, *, mend: bool) -> Result:
    result = Result(
        "consumers", "the engine remembers no worker that is long gone", _REPAIR, Verdict.WARNING
    )
    for consumer in await engine.consumers():
        if consumer.alive or consumer.idle_seconds < _FORGOTTEN_SECONDS:
            continue
        empty = consumer.pending == 0
        if mend and empty:
            await engine.drop_consumer(consumer.name)
        hours = consumer.idle_seconds / 3600
        held = "" if empty else f", holds {consumer.pending} calls"
        result.add(f"{consumer.name}: silent for {hours:.0f} h{held}", repaired=mend and empty)
    return result
