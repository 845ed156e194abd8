"""Schedules over HTTP: created, shown, changed, run, made up for, and what is refused."""

from typing import Any

import pytest

from tests.support.frontend import (
    API,
    OPERATOR,
    Frontend,
    is_problem,
    is_pydantics,
    make_settings,
    running_frontend,
)
from tests.support.scheduler_stub import SchedulerStub

SCHEDULES = f"{API}/admin/schedules"
NIGHTLY: dict[str, Any] = {
    "schedule_id": "nightly",
    "cron": "0 3 * * *",
    "timezone": "Asia/Seoul",
    "service": "sync",
    "user_id": "ops",
    "parameters": {"dst": "/백업/{{ slot:%Y-%m-%d }}", "size": 2**80},
}


async def call(
    frontend: Frontend, method: str, path: str = "", body: Any = None, **more: Any
) -> dict[str, Any]:
    """A call's answer, which must be a success."""
    headers = OPERATOR | more.pop("headers", {})
    answer = await frontend.client.request(
        method, SCHEDULES + path, json=body, headers=headers, **more
    )
    assert answer.is_success, answer.text
    return answer.json()


async def refused(
    frontend: Frontend, method: str, path: str, body: Any, status: int, slug: str
) -> str:
    """What a refused call says; never in pydantic's words."""
    answer = await frontend.client.request(method, SCHEDULES + path, json=body, headers=OPERATOR)
    detail = is_problem(answer, status, slug)["detail"]
    assert not is_pydantics(detail), detail
    return detail


async def test_a_schedule_is_created_shown_listed_and_deleted(dms_redis_url: str) -> None:
    async with running_frontend(make_settings(dms_redis_url)) as frontend:
        answer = await frontend.client.post(SCHEDULES, json=NIGHTLY, headers=OPERATOR)
        assert answer.status_code == 201
        assert answer.headers["location"] == f"{SCHEDULES}/nightly"
        made = answer.json()["schedule"]
        assert {name: made[name] for name in NIGHTLY} == NIGHTLY
        assert made["source"] == "api"
        assert made["paused"] is False
        assert made["words"]
        assert len(made["next_fires"]) == 5
        assert all("T03:00:00+09:00" in at for at in made["next_fires"])
        assert (await call(frontend, "GET", "/nightly"))["schedule"] == made
        listed = await call(frontend, "GET")
        assert listed == {"schedules": [made], "unreadable": [], "next_cursor": None}
        assert await call(frontend, "DELETE", "/nightly") == {
            "schedule_id": "nightly",
            "deleted": True,
        }
        await refused(frontend, "GET", "/nightly", None, 404, "schedule-not-found")
        await refused(frontend, "DELETE", "/nightly", None, 404, "schedule-not-found")


async def test_the_list_has_pages(dms_redis_url: str) -> None:
    async with running_frontend(make_settings(dms_redis_url)) as frontend:
        names = [f"s{number}" for number in range(5)]
        for name in names:
            await call(frontend, "POST", "", NIGHTLY | {"schedule_id": name})
        seen: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            page = await call(frontend, "GET", params={"limit": "2", **cursor})
            seen += [schedule["schedule_id"] for schedule in page["schedules"]]
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
        assert seen == names


async def test_a_change_names_only_what_changes(dms_redis_url: str) -> None:
    async with running_frontend(make_settings(dms_redis_url)) as frontend:
        made = (await call(frontend, "POST", "", NIGHTLY))["schedule"]
        changed = (
            await call(frontend, "PATCH", "/nightly", {"cron": "@hourly", "overlap": "allow"})
        )["schedule"]
        assert changed["cron"] == "@hourly"
        assert changed["overlap"] == "allow"
        assert changed["parameters"] == NIGHTLY["parameters"]
        assert changed["revision"] > made["revision"]
        back = (await call(frontend, "PATCH", "/nightly", {"overlap": None}))["schedule"]
        assert back["overlap"] == "skip"
        old = {"revision": made["revision"], "cron": "@daily"}
        await refused(frontend, "PATCH", "/nightly", old, 409, "conflict")
        now = {"revision": back["revision"], "cron": "@daily"}
        assert (await call(frontend, "PATCH", "/nightly", now))["schedule"]["cron"] == "@daily"
        await refused(frontend, "PATCH", "/gone", {"cron": "@daily"}, 404, "schedule-not-found")
        detail = await refused(
            frontend, "PATCH", "/nightly", {"cron": None}, 422, "invalid-request"
        )
        assert "cron" in detail


async def test_pause_and_resume(dms_redis_url: str) -> None:
    async with running_frontend(make_settings(dms_redis_url)) as frontend:
        await call(frontend, "POST", "", NIGHTLY)
        paused = (await call(frontend, "POST", "/nightly/pause", {"reason": "점검"}))["schedule"]
        assert (paused["paused"], paused["reason"], paused["next_fires"]) == (True, "점검", [])
        assert paused["paused_at"]
        resumed = (await call(frontend, "POST", "/nightly/resume"))["schedule"]
        assert (resumed["paused"], resumed["reason"]) == (False, None)
        assert len(resumed["next_fires"]) == 5


async def test_one_may_be_created_paused(dms_redis_url: str) -> None:
    async with running_frontend(make_settings(dms_redis_url)) as frontend:
        body = NIGHTLY | {"paused": True, "reason": "not yet"}
        made = (await call(frontend, "POST", "", body))["schedule"]
        assert (made["paused"], made["reason"]) == (True, "not yet")


async def test_a_run_by_hand_is_one_task_for_one_key(dms_redis_url: str) -> None:
    async with running_frontend(make_settings(dms_redis_url)) as frontend:
        await call(frontend, "POST", "", NIGHTLY)
        key = {"headers": {"Idempotency-Key": "once"}}
        first = (await call(frontend, "POST", "/nightly/run", **key))["fire"]
        again = (await call(frontend, "POST", "/nightly/run", **key))["fire"]
        other = (await call(frontend, "POST", "/nightly/run"))["fire"]
        assert first["outcome"] == "fired"
        assert (again["outcome"], again["task_id"]) == ("existing", first["task_id"])
        assert other["task_id"] != first["task_id"]
        task = await frontend.client.get(
            f"{API}/admin/tasks", params={"id": first["task_id"]}, headers=OPERATOR
        )
        (found,) = task.json()["tasks"]
        assert (found["service"], found["user_id"]) == ("sync", "ops")
        assert found["schedule_id"] == "nightly"
        assert found["parameters"]["dst"].startswith("/백업/20")
        assert found["parameters"]["size"] == 2**80
        fires = await call(frontend, "GET", "/nightly/fires", params={"limit": "1"})
        assert [fire["task_id"] for fire in fires["fires"]] == [other["task_id"]]
        more = await call(
            frontend, "GET", "/nightly/fires", params={"cursor": str(fires["next_cursor"])}
        )
        assert [fire["task_id"] for fire in more["fires"]] == [first["task_id"]]
        assert more["next_cursor"] is None
        await refused(frontend, "GET", "/gone/fires", None, 404, "schedule-not-found")


async def test_a_backfill_makes_up_each_slot_once(dms_redis_url: str) -> None:
    async with running_frontend(make_settings(dms_redis_url)) as frontend:
        await call(frontend, "POST", "", NIGHTLY)
        wanted = {"start": "2026-11-01T00:00:00", "end": "2026-11-04T00:00:00"}
        dry = await call(frontend, "POST", "/nightly/backfill", wanted | {"dry_run": True})
        assert dry["dry_run"] is True
        assert [fire["outcome"] for fire in dry["fires"]] == ["fired"] * 3
        tasks = await frontend.client.get(f"{API}/admin/tasks", headers=OPERATOR)
        assert tasks.json()["total"] == 0
        done = await call(frontend, "POST", "/nightly/backfill", wanted | {"overlap": "allow"})
        assert [fire["outcome"] for fire in done["fires"]] == ["fired"] * 3
        assert [fire["slot"] for fire in done["fires"]] == [
            f"2026-11-0{day}T03:00:00+09:00" for day in (1, 2, 3)
        ]
        again = await call(frontend, "POST", "/nightly/backfill", wanted | {"overlap": "allow"})
        assert [fire["outcome"] for fire in again["fires"]] == ["existing"] * 3
        tasks = await frontend.client.get(f"{API}/admin/tasks", headers=OPERATOR)
        assert tasks.json()["total"] == 3


async def test_a_preview_stores_nothing(dms_redis_url: str) -> None:
    async with running_frontend(make_settings(dms_redis_url)) as frontend:
        body = {name: NIGHTLY[name] for name in NIGHTLY if name != "schedule_id"}
        shown = await call(
            frontend, "POST", "/preview", body | {"count": 2, "after": "2026-11-21T00:00:00+09:00"}
        )
        assert [fire["slot"] for fire in shown["fires"]] == [
            "2026-11-21T03:00:00+09:00",
            "2026-11-22T03:00:00+09:00",
        ]
        assert shown["fires"][0]["parameters"] == {"dst": "/백업/2026-11-21", "size": 2**80}
        assert (await call(frontend, "GET"))["schedules"] == []
        await call(frontend, "POST", "", NIGHTLY)
        stored = await call(
            frontend,
            "GET",
            "/nightly/preview",
            params={"count": "2", "after": "2026-11-21T00:00:00+09:00"},
        )
        assert stored == shown


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"cron": "0 25 * * *"}, ["cron", "25"]),
        ({"cron": "0 3 30 2 *"}, ["cron"]),
        ({"cron": None}, ["cron"]),
        ({"timezone": "Asia/Nowhere"}, ["timezone", "Asia/Nowhere"]),
        ({"parameters": {"dst": "{{ slto }}"}}, ["parameters.dst", "slot"]),
        ({"parameters": []}, ["parameters"]),
        ({"overlap": "never"}, ["overlap", "skip"]),
        ({"grace_seconds": -1}, ["grace_seconds"]),
        ({"max_catchup": 0}, ["max_catchup"]),
        ({"start_at": "2026-01-01T00:00:00"}, ["start_at"]),
        ({"start_at": "2027-01-01T00:00:00Z", "end_at": "2026-01-01T00:00:00Z"}, ["end_at"]),
        ({"dst_policy": "ignore"}, ["dst_policy"]),
        ({"service": ".."}, ["service"]),
        ({"paused": "yes"}, ["paused"]),
        ({"schedule_id": "a b"}, ["schedule_id"]),
        ({"crno": "@daily"}, ["crno"]),
    ],
)
async def test_what_means_nothing_is_refused_by_name(
    dms_redis_url: str, change: dict[str, Any], named: list[str]
) -> None:
    async with running_frontend(make_settings(dms_redis_url)) as frontend:
        detail = await refused(frontend, "POST", "", NIGHTLY | change, 422, "invalid-request")
        assert all(name in detail for name in named), detail
        assert (await call(frontend, "GET"))["schedules"] == []


async def test_a_taken_name_a_draining_service_and_a_bad_range_are_refused(
    dms_redis_url: str,
) -> None:
    async with running_frontend(make_settings(dms_redis_url)) as frontend:
        await call(frontend, "POST", "", NIGHTLY)
        await refused(frontend, "POST", "", NIGHTLY, 409, "schedule-exists")
        for start, end in (("2026-11-02", "2026-11-01"), ("2026-11-01", "2999-01-01")):
            body = {"start": f"{start}T00:00:00", "end": f"{end}T00:00:00"}
            await refused(frontend, "POST", "/nightly/backfill", body, 422, "invalid-request")
        detail = await refused(
            frontend, "POST", "/nightly/backfill", {"form": "x"}, 422, "invalid-request"
        )
        assert "form" in detail or "start" in detail
        detail = await refused(
            frontend, "POST", "/nightly/backfill", {"start": 2026}, 422, "invalid-request"
        )
        assert "2026 is no time" in detail
        drained = await frontend.client.post(f"{API}/admin/services/sync/drain", headers=OPERATOR)
        assert drained.is_success
        await refused(frontend, "POST", "/nightly/run", None, 409, "service-draining")


async def test_strict_handling_checks_the_task_of_the_next_fire(
    dms_redis_url: str, stub: SchedulerStub
) -> None:
    schema = {
        "type": "object",
        "properties": {"dst": {"type": "string", "pattern": "^/"}},
        "additionalProperties": False,
    }
    stub.definitions = [{"id": "sync", "parameters": schema}]
    strict = {"headers": {"Prefer": "handling=strict"}}
    settings = make_settings(dms_redis_url, scheduler_base_url=stub.url)
    async with running_frontend(settings, dispatching=False) as frontend:
        answer = await frontend.client.post(
            SCHEDULES, json=NIGHTLY, headers=OPERATOR | strict["headers"]
        )
        is_problem(answer, 422, "invalid-request")
        assert (await call(frontend, "GET"))["schedules"] == []
        good = NIGHTLY | {"parameters": {"dst": "/x/{{ slot:%Y }}"}}
        await call(frontend, "POST", "", good, **strict)


async def test_operators_alone(dms_redis_url: str) -> None:
    async with running_frontend(make_settings(dms_redis_url)) as frontend:
        for method, path in (
            ("GET", ""), ("POST", ""), ("POST", "/preview"), ("GET", "/a"), ("PATCH", "/a"),
            ("DELETE", "/a"), ("POST", "/a/pause"), ("POST", "/a/resume"), ("POST", "/a/run"),
            ("POST", "/a/backfill"), ("GET", "/a/preview"), ("GET", "/a/fires"),
        ):  # fmt: skip
            answer = await frontend.client.request(method, SCHEDULES + path)
            is_problem(answer, 401, "not-authenticated")
