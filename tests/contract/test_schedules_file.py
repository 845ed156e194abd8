"""The operator's file of schedules: what it says comes about, once, whoever else tries."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from app.core.errors import ConfigurationError, ScheduleFromFileError
from app.services import schedules_file
from app.services.schedules import ScheduleService
from app.services.schedules_file import SchedulesFile, load_schedules
from app.services.schedules_views import ScheduleView
from task_state import keys
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from task_state.schedules import ScheduleSpec

ZONE = "Asia/Seoul"
GOOD = "[schedules.a]\ncron = '@daily'\nservice = 's'\nuser_id = 'u'\n"
TWO = """
[schedules.nightly]
cron = "0 3 * * *"
service = "sync"
user_id = "ops"
parameters = { dst = "/백업/{{ slot:%Y-%m-%d }}", deep = { list = [1, 2] } }
start_at = 2026-11-01T00:00:00+09:00

[schedules.weekly]
cron = "0 4 * * SUN"
service = "check"
user_id = "ops"
timezone = "UTC"
overlap = "buffer_one"
"""


def specs(folder: Path, text: str) -> dict[str, ScheduleSpec]:
    """What a file with that text says."""
    path = folder / "schedules.toml"
    path.write_text(text, "utf-8")
    return load_schedules(path, ZONE)


@pytest.fixture
async def service(dms_redis_url: str) -> AsyncGenerator[ScheduleService]:
    """The service, on a store of its own."""
    provider = RedisRepositoryProvider(RedisRepositorySettings(write_url=dms_redis_url))
    yield ScheduleService(provider, timeout_seconds=5, default_timezone=ZONE)
    await provider.close()


async def names(service: ScheduleService) -> dict[str, str]:
    """The stored schedules and where they are from."""
    return {v.record.schedule_id: v.record.source for v in (await service.list()).views}


async def test_the_file_creates_changes_and_removes_what_is_its_own(
    service: ScheduleService, tmp_path: Path
) -> None:
    two = specs(tmp_path, TWO)
    await service.create("by-hand", two["weekly"])
    await SchedulesFile(service, two).run()
    assert await names(service) == {"by-hand": "api", "nightly": "file", "weekly": "file"}
    nightly = (await service.get("nightly")).record
    assert nightly.spec.timezone == ZONE
    assert nightly.spec.parameters == {
        "dst": "/백업/{{ slot:%Y-%m-%d }}",
        "deep": {"list": [1, 2]},
    }

    await service.pause("nightly", "점검")
    revision = (await service.get("nightly")).record.revision
    await SchedulesFile(service, two).run()  # a restart changes nothing, the pause least of all
    nightly = (await service.get("nightly")).record
    assert (nightly.revision, nightly.paused) == (revision, True)

    later = specs(tmp_path, TWO.split("[schedules.weekly]", maxsplit=1)[0].replace("0 3", "30 3"))
    await SchedulesFile(service, later).run()
    assert await names(service) == {"by-hand": "api", "nightly": "file"}
    nightly = (await service.get("nightly")).record
    assert (nightly.spec.cron, nightly.paused) == ("30 3 * * *", True)


async def test_true_in_the_place_of_1_is_a_change(service: ScheduleService, tmp_path: Path) -> None:
    await SchedulesFile(service, specs(tmp_path, TWO)).run()
    await SchedulesFile(service, specs(tmp_path, TWO.replace("[1, 2]", "[true, 2]"))).run()
    parameters = (await service.get("nightly")).record.spec.parameters
    assert json.dumps(parameters["deep"]) == '{"list": [true, 2]}'


async def test_replicas_do_it_at_the_same_time(service: ScheduleService, tmp_path: Path) -> None:
    await SchedulesFile(service, specs(tmp_path, TWO.replace("weekly", "old"))).run()
    two = specs(tmp_path, TWO.replace("0 3", "15 3"))
    await asyncio.gather(*(SchedulesFile(service, two).run() for _ in range(5)))
    assert await names(service) == {"nightly": "file", "weekly": "file"}
    assert (await service.get("nightly")).record.spec.cron == "15 3 * * *"


async def test_what_a_newer_version_stored_stays_and_holds_up_no_other(
    service: ScheduleService, dms_redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    two = specs(tmp_path, TWO)
    await service.create("nightly", two["nightly"], source="file")
    async with Redis.from_url(dms_redis_url) as client:
        await client.hset(keys.schedule("nightly"), "spec", '{"of": "7"}')
    with caplog.at_level(logging.ERROR):
        await SchedulesFile(service, two).run()
    assert "a newer version" in caplog.text
    assert (await service.get("weekly")).record.spec == two["weekly"]
    assert (await service.list()).unreadable == ["nightly"]


async def test_a_defect_is_told_and_does_not_end_it(
    service: ScheduleService,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    create, calls = service.create, 0

    async def first_fails(*given: Any, **named: Any) -> ScheduleView:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ZeroDivisionError
        return await create(*given, **named)

    monkeypatch.setattr(service, "create", first_fails)
    monkeypatch.setattr(schedules_file, "_AGAIN_SECONDS", 0.01)
    two = specs(tmp_path, TWO)
    await SchedulesFile(service, two).run()
    assert "ZeroDivisionError" in caplog.text
    assert await names(service) == {"nightly": "file", "weekly": "file"}


async def test_what_the_api_made_stays_and_is_told(
    service: ScheduleService, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    two = specs(tmp_path, TWO)
    await service.create("nightly", two["weekly"])
    with caplog.at_level(logging.ERROR):
        await SchedulesFile(service, two).run()
    assert "made by the API" in caplog.text
    assert (await service.get("nightly")).record.spec == two["weekly"]


async def test_what_the_file_made_is_not_changed_elsewhere(
    service: ScheduleService, tmp_path: Path
) -> None:
    await SchedulesFile(service, specs(tmp_path, TWO)).run()
    with pytest.raises(ScheduleFromFileError, match="DMS_SCHEDULES_FILE"):
        await service.changed("nightly", {"cron": "@daily"})
    with pytest.raises(ScheduleFromFileError):
        await service.delete("nightly")


async def test_the_store_may_be_away_at_first(
    service: ScheduleService, tmp_path: Path, unused_tcp_port: int
) -> None:
    away = RedisRepositoryProvider(
        RedisRepositorySettings(write_url=f"redis://127.0.0.1:{unused_tcp_port}/0")
    )
    waiting = SchedulesFile(
        ScheduleService(away, timeout_seconds=1, default_timezone=ZONE), specs(tmp_path, TWO)
    )
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await waiting.run()
    await away.close()
    assert await names(service) == {}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[schedules.a", ["end of document"]),
        ("[schedule.a]\ncron = '@daily'", ["'schedule'", "[schedules.<name>]"]),
        ("[schedules]\na = 1", ["[schedules.a]"]),
        ("[schedules.'a b']\ncron = '@daily'", ["[schedules.a b]", "name"]),
        ("[schedules.a]\ncron = '@daily'", ["[schedules.a]", "service", "user_id"]),
        ("[schedules.a]\ncron = '0 25 * * *'\nservice = 's'\nuser_id = 'u'", ["cron", "25"]),
        (GOOD + "paramters = {}", ["[schedules.a]", "paramters"]),
        (GOOD + "parameters.day = 2026-01-01", ["[schedules.a]", "parameters"]),
    ],
)
def test_a_fault_is_told_with_file_table_and_field(
    tmp_path: Path, text: str, named: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        specs(tmp_path, text)
    message = str(caught.value)
    assert all(word in message for word in [*named, "DMS_SCHEDULES_FILE", "schedules.toml"]), (
        message
    )


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_schedules(tmp_path / "none.toml", ZONE)
