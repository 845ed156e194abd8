"""Compares the store with what was seen of it, before any part of `up` uses it."""

import asyncio
from pathlib import Path

from cli.errors import UpError
from dms_scheduler.witness import Witness
from task_state import TaskStateError
from task_state.admission import EVERY_SERVICE, ServiceMode
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings

_SECONDS = 30.0


def witness_file(data_dir: Path) -> Path:
    """Beside the data directory: who puts a backup of that back leaves this as it is."""
    return data_dir.with_name(f"{data_dir.name}.witness")


def why_paused(url: str, witness: Path) -> str | None:
    """Have a store that was restored pause itself; why everything is paused there, if it is.

    Raises UpError when the store does not answer, or has a layout that this version cannot read.
    """
    try:
        return asyncio.run(_compare(url, witness))
    except TaskStateError as error:
        raise UpError(str(error)) from error


async def _compare(url: str, witness: Path) -> str | None:
    settings = RedisRepositorySettings(write_url=url, timeout_seconds=_SECONDS)
    provider = RedisRepositoryProvider(settings)
    try:
        admission = await provider.get_admission()
        admission.remember(Witness(witness).read())
        await admission.admit(limit=0)
        for state in await admission.states():
            if state.service == EVERY_SERVICE and state.mode is ServiceMode.PAUSED:
                return state.reason or "no reason was given"
        return None
    finally:
        await provider.close()
