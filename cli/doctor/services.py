"""The doctor's look at settings, folders and the scheduler service."""

import os
import shutil
from pathlib import Path
from typing import Final

from app.core.config import DEFAULT_OPERATOR_TOKEN, Settings, mask_url
from app.core.errors import ConfigurationError, SchedulerError
from app.services.scheduler import SchedulerClient
from app.services.webhook_file import load_webhooks, readable_by_others
from cli.doctor.report import Result, bad, good, warn
from task_state.redis import RedisRepositoryProvider

_LOW_BYTES: Final = 2**30
_LOW_SHARE: Final = 0.05


def check_settings(settings: Settings) -> list[Result]:
    """What can be seen without asking anybody."""
    return [
        _token(settings),
        _lease(settings),
        _roots(settings),
        *_archive(settings),
        *_webhooks(settings),
        *_witness(settings),
    ]


def _token(settings: Settings) -> Result:
    if settings.operator_token.get_secret_value() == DEFAULT_OPERATOR_TOKEN:
        return warn(
            "token",
            "the operator token is the default, which works from this machine alone",
            "set DMS_OPERATOR_TOKEN to a secret of your own",
        )
    return good("token", "set")


def _lease(settings: Settings) -> Result:
    lease, beat = settings.lease_seconds, settings.heartbeat_seconds
    if beat * 3 > lease:
        return warn(
            "lease",
            f"a lease of {lease:g} s bears one lost heartbeat of {beat:g} s",
            "make DMS_LEASE_SECONDS three times DMS_HEARTBEAT_SECONDS, or more",
        )
    return good("lease", f"{lease:g} s, heartbeat {beat:g} s")


def _roots(settings: Settings) -> Result:
    if not settings.data_roots:
        return warn(
            "roots", "DMS_DATA_ROOTS is empty here: workers like this may touch nothing", "set it"
        )
    missing = [str(root) for root in settings.data_roots if not root.is_dir()]
    if missing:
        return bad(
            "roots",
            f"not a folder here: {', '.join(missing)}",
            "mount it, or correct DMS_DATA_ROOTS",
        )
    return good("roots", f"{len(settings.data_roots)} folders")


def _archive(settings: Settings) -> list[Result]:
    folder = settings.archive_dir
    if folder is None:
        return []
    if not os.access(folder, os.W_OK | os.X_OK):
        return [
            bad(
                "archive",
                f"{folder} cannot be written here: on the scheduler, retention would wait",
                "make the folder, and give it to the scheduler's user",
            )
        ]
    return [check_disk("archive", folder)]


def _webhooks(settings: Settings) -> list[Result]:
    file = settings.webhooks_file
    if file is None:
        return []
    try:
        webhooks = load_webhooks(file)
    except ConfigurationError as error:
        return [bad("webhooks", str(error), "mend the file: a frontend does not start with it")]
    if readable_by_others(file):
        return [
            warn(
                "webhooks",
                f"{file} can be read by other users of this machine",
                f"keep its secrets: chmod 600 {file}",
            )
        ]
    return [good("webhooks", f"{len(webhooks)} in {file}")]


def _witness(settings: Settings) -> list[Result]:
    file = settings.witness_file
    if file is None:
        return []
    if os.access(file.parent, os.W_OK | os.X_OK) and (
        not file.exists() or os.access(file, os.R_OK)
    ):
        return [good("witness", f"{file} remembers how new the store was")]
    return [
        bad(
            "witness",
            f"{file} cannot be read and written here: a restored store may go unnoticed",
            "make its folder, and give it to the user of scheduler and workers",
        )
    ]


def check_disk(name: str, folder: Path) -> Result:
    """Whether there is room where the data is."""
    room = shutil.disk_usage(folder)
    shown = f"{room.free / 2**30:.1f} GiB free in {folder}"
    if room.free < _LOW_BYTES or room.free < _LOW_SHARE * room.total:
        return warn(name, shown, "free space: when none is left, nothing is accepted any more")
    return good(name, shown)


async def check_scheduler(settings: Settings, provider: RedisRepositoryProvider) -> list[Result]:
    """Whether the scheduler answers, and has definitions for what waits."""
    client = SchedulerClient(settings)
    try:
        found = await client.definitions()
    except SchedulerError as error:
        remedy = "start it: dms-frontend scheduler; its address: DMS_SCHEDULER_BASE_URL"
        return [bad("scheduler", str(error), remedy)]
    finally:
        await client.close()
    defined = {str(each["id"]) for each in found}
    states = await (await provider.get_admission()).states()
    undefined = sorted(
        state.service for state in states if state.waiting and state.service not in defined
    )
    where = mask_url(settings.scheduler_base_url)
    result = good("scheduler", f"answers at {where}, with {len(defined)} definitions")
    if not undefined:
        return [result]
    return [
        result,
        warn(
            "definitions",
            f"tasks wait, and nothing defines how to run them: {', '.join(undefined)}",
            "name their modules in DMS_TASK_MODULES, the same for scheduler and workers",
        ),
    ]
