"""The doctor's round: part after part, where one that cannot be looked at hides no other."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from app.core.config import Settings
from app.services.repository import build_provider
from cli.doctor.report import Result, bad
from cli.doctor.server import check_server
from cli.doctor.services import check_disk, check_scheduler, check_settings
from cli.doctor.store import check_engine, check_records
from dms_scheduler.engine import EngineClient, quiet_engine_logs
from task_state import StoreUnavailableError, TaskStateError
from task_state.redis import RedisRepositoryProvider

# A step of the doctor may have to wait for others: what is slow is not away.
_PATIENCE_SECONDS: Final = 10.0
Part = Callable[[], Awaitable[list[Result]]]


async def examine(
    settings: Settings, data_dir: Path | None, *, mend: bool, say: Callable[[str], None]
) -> list[Result]:
    """All checks; `data_dir` is that of an `up`, which looks after its parts itself."""
    quiet_engine_logs()
    patience = max(settings.redis_timeout_seconds, _PATIENCE_SECONDS)
    settings = settings.model_copy(update={"redis_timeout_seconds": patience})
    results = [] if data_dir else check_settings(settings)
    async with AsyncExitStack() as stack:
        provider = build_provider(settings)
        stack.push_async_callback(provider.close)
        try:
            await provider.ping()
        except TaskStateError as error:
            return [*results, _away(error)]
        engine = EngineClient(settings.redis_write_url, timeout_seconds=patience)
        await engine.start()
        stack.push_async_callback(engine.close)
        parts: list[tuple[str, Part]] = [
            ("server", lambda: check_server(provider, settings)),
            ("services", lambda: _services(settings, provider, data_dir)),
            ("records", lambda: check_records(provider, mend=mend, say=say)),
            ("engine", lambda: check_engine(provider, engine, mend=mend)),
        ]
        for name, part in parts:
            results += await _looked_at(name, part)
    return results


async def _services(
    settings: Settings, provider: RedisRepositoryProvider, data_dir: Path | None
) -> list[Result]:
    if data_dir is not None:
        return [check_disk("disk", data_dir)]
    return await check_scheduler(settings, provider)


async def _looked_at(name: str, part: Part) -> list[Result]:
    try:
        return await part()
    except StoreUnavailableError as error:
        remedy = "if it says NOPERM: call the doctor with a user of Redis who may do that"
        return [bad(name, f"cannot be looked at: {error}", remedy)]


def _away(error: TaskStateError) -> Result:
    remedy = "start the server, or name it: DMS_REDIS_WRITE_URL; --data-dir for that of `up`"
    return bad("store", str(error), remedy)
