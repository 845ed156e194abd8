"""The operator's file of schedules (DMS_SCHEDULES_FILE, TOML): read at start, then brought about.

What the file has is created or changed, and what it had once and has no more is deleted. Pauses are
not its business: they outlive a restart. Any number of replicas may do it at the same time.
"""

import asyncio
import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, cast

from app.core.errors import ConfigurationError, InvalidScheduleError, ScheduleOwesError
from app.core.toml_tables import check_json, read_tables
from app.services.schedules import ScheduleService, check_schedule
from app.services.schedules_views import read_spec
from task_state.errors import (
    InvalidRequestError,
    ScheduleConflictError,
    ScheduleExistsError,
    ScheduleNotFoundError,
    ScheduleUnreadableError,
    StoreUnavailableError,
)
from task_state.schedules import MAX_SCHEDULES, SCHEDULE_PATTERN, ScheduleSpec

log = logging.getLogger(__name__)

VARIABLE: Final = "DMS_SCHEDULES_FILE"
_AGAIN_SECONDS: Final = 2.0


def load_schedules(path: Path, default_timezone: str) -> dict[str, ScheduleSpec]:
    """The specs of the file by name; raises ConfigurationError with file, table and field."""
    tables = read_tables(path, variable=VARIABLE, kind="schedules", document="docs/schedules.md")
    found: dict[str, ScheduleSpec] = {}
    for name, table in tables.items():
        try:
            if not isinstance(table, dict):
                raise ConfigurationError("is no table: write its fields below it")
            if not re.fullmatch(SCHEDULE_PATTERN, name):
                raise ConfigurationError(
                    "is no name of a schedule: 1 to 64 letters of A-Z a-z 0-9 . _ - make one, and "
                    "the first is no dot"
                )
            found[name] = read_spec(cast("Mapping[str, Any]", table), default_timezone)
            _check_parameters(found[name])
            check_schedule(name, found[name])
        except (ConfigurationError, InvalidScheduleError, InvalidRequestError) as error:
            raise ConfigurationError(f"{VARIABLE}: {path}: [schedules.{name}] {error}") from None
    return found


def _check_parameters(spec: ScheduleSpec) -> None:
    try:
        check_json(spec.parameters)
    except ConfigurationError as error:
        raise ConfigurationError(f"parameters: {error}") from None


class SchedulesFile:
    """Brings about what the file says, once."""

    def __init__(self, service: ScheduleService, specs: Mapping[str, ScheduleSpec]) -> None:
        self._service = service
        self._specs = specs

    async def run(self) -> None:
        """Until all of it is done: the store may be away, and a service that is being drained may
        hold up the change of a schedule."""
        told = False
        while True:
            try:
                if await self._bring_about():
                    log.info(
                        "The schedules of the file are in place",
                        extra={"action": "schedules.file", "count": len(self._specs)},
                    )
                    return
            except StoreUnavailableError as error:
                if not told:
                    log.warning(
                        "The file's schedules wait for the store",
                        extra={"action": "schedules.file", "error": str(error)},
                    )
                told = True
            except Exception:  # nobody waits for this loop: it must neither end nor be silent
                log.exception(
                    "The file's schedules could not be put in place, and are tried again",
                    extra={"action": "schedules.file"},
                )
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _bring_about(self) -> bool:
        """One go at all of it; whether nothing is left to do."""
        known = await self._of_a_file()
        for name in known - self._specs.keys():
            with suppress(ScheduleNotFoundError):  # another replica was faster
                await self._service.delete(name, source="file")
        done = [await self._put(name, spec) for name, spec in self._specs.items()]
        return all(done)

    async def _of_a_file(self) -> set[str]:
        """The names of stored schedules that a file made."""
        found: set[str] = set()
        after: str | None = None
        while True:
            page = await self._service.list(after=after, limit=MAX_SCHEDULES)
            found |= {v.record.schedule_id for v in page.views if v.record.source == "file"}
            if (after := page.next_after) is None:
                return found

    async def _put(self, name: str, spec: ScheduleSpec) -> bool:
        try:
            await self._service.create(name, spec, source="file")
        except ScheduleExistsError:
            return await self._change(name, spec)
        return True

    async def _change(self, name: str, spec: ScheduleSpec) -> bool:
        try:
            record = (await self._service.get(name)).record
            if record.source != "file":
                log.error(
                    "A schedule of the file has the name of one that was made by the API, which "
                    "stays as it is: delete that one, or rename this one",
                    extra={"action": "schedules.file", "schedule_id": name},
                )
            # As texts: 1 and true are equal in Python, and are not for a task.
            elif record.spec.model_dump_json() != spec.model_dump_json():
                await self._service.replace(name, spec, revision=record.revision)
        except ScheduleUnreadableError as error:
            log.error(
                "A schedule of the file stays as a newer version of DMS has stored it",
                extra={"action": "schedules.file", "schedule_id": name, "reason": str(error)},
            )
        except (ScheduleConflictError, ScheduleNotFoundError, ScheduleOwesError) as error:
            log.warning(
                "A schedule of the file is not in place yet",
                extra={"action": "schedules.file", "schedule_id": name, "reason": str(error)},
            )
            return False
        return True
