"""The operator's services over HTTP: their state, pause, drain and resume; HEAD on every route."""

import json
from typing import Any
from urllib.parse import quote

import pytest

from task_state.managed import ManagedTasks
from tests.support.frontend import (
    ALICE,
    API,
    NOWHERE,
    OPERATOR,
    Frontend,
    eventually,
    is_problem,
    make_settings,
    running_frontend,
    served_frontend,
    task_url,
)
from tests.support.scheduler_stub import SchedulerStub

SERVICES = f"{API}/admin/services"
JSON = {"Content-Type": "application/json"}


async def change(frontend: Frontend, path: str, body: Any = None) -> dict[str, Any]:
    """What a change of a service's mode answers."""
    content = None if body is None else json.dumps(body).encode()
    headers = OPERATOR | ({} if body is None else JSON)
    answer = await frontend.client.post(f"{SERVICES}/{path}", content=content, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def state(frontend: Frontend, service: str) -> dict[str, Any]:
    """A service's state."""
    answer = await frontend.client.get(f"{SERVICES}/{service}", headers=OPERATOR)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def states(frontend: Frontend) -> dict[str, dict[str, Any]]:
    """All of them by name."""
    answer = await frontend.client.get(SERVICES, headers=OPERATOR)
    assert answer.status_code == 200, answer.text
    listed = answer.json()["services"]
    assert [each["service"] for each in listed] == sorted(each["service"] for each in listed)
    return {each["service"]: each for each in listed}


def unused(service: str, *, defined: bool | None) -> dict[str, Any]:
    """The state of a service that has no tasks."""
    return {
        "service": service,
        "mode": "ACTIVE",
        "since": None,
        "reason": None,
        "waiting": 0,
        "delayed": 0,
        "running": 0,
        "defined": defined,
    }


# --------------------------------------------------------------------------------------- showing


async def test_services_are_those_with_definitions_tasks_or_a_mode(
    dms_redis_url: str, stub: SchedulerStub
) -> None:
    stub.definitions = [{"id": "sync"}, {"id": "report"}]
    settings = make_settings(dms_redis_url, scheduler_base_url=stub.url)
    async with running_frontend(settings, dispatching=False) as frontend:
        assert await states(frontend) == {
            "report": unused("report", defined=True),
            "sync": unused("sync", defined=True),
        }
        await frontend.submit(service="copy")
        await change(frontend, "later/pause")
        found = await states(frontend)
        assert set(found) == {"copy", "later", "report", "sync"}
        assert {name: each["defined"] for name, each in found.items()} == {
            "copy": False,
            "later": False,
            "report": True,
            "sync": True,
        }
        assert await state(frontend, "sync") == unused("sync", defined=True)
        assert await state(frontend, "never.heard@of") == unused("never.heard@of", defined=False)


async def test_an_absent_scheduler_costs_nothing_but_its_word(quiet: Frontend) -> None:
    assert quiet.container.settings.scheduler_base_url == NOWHERE
    await quiet.submit()
    assert set(await states(quiet)) == {"sync"}
    assert await state(quiet, "copy") == unused("copy", defined=None)


async def test_a_scheduler_that_hangs_leaves_what_it_said_before(
    dms_redis_url: str, stub: SchedulerStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.definitions.FRESH_SECONDS", 0.0)
    monkeypatch.setattr("app.services.service_modes._DEFINITION_SECONDS", 0.3)
    stub.definitions = [{"id": "sync"}]
    settings = make_settings(dms_redis_url, scheduler_base_url=stub.url)
    async with running_frontend(settings, dispatching=False) as frontend:
        await eventually(lambda: _knows_sync(frontend))  # a busy machine may need two looks
        stub.held_path = "/definitions"
        assert await state(frontend, "sync") == unused("sync", defined=True)
        assert set(await states(frontend)) == {"sync"}


async def _knows_sync(frontend: Frontend) -> bool:
    return (await state(frontend, "sync"))["defined"] is True


async def test_a_state_counts_what_waits_and_what_runs(
    quiet: Frontend, dms_managed: ManagedTasks
) -> None:
    running, _ = await quiet.submit(), await quiet.submit()
    for task_id in (running, _):
        await dms_managed.accept(task_id)
    await dms_managed.begin(running, 1, worker="w")
    found = await state(quiet, "sync")
    assert (found["waiting"], found["delayed"], found["running"]) == (1, 0, 1)


# ---------------------------------------------------------------------- pause, drain and resume


async def test_pause_says_why_and_since_when_and_resume_ends_it(quiet: Frontend) -> None:
    paused = await change(quiet, "sync/pause", {"reason": "디스크 교체"})
    assert (paused["mode"], paused["reason"]) == ("PAUSED", "디스크 교체")
    assert paused["since"]
    again = await change(quiet, "sync/pause", {"reason": "other"})
    assert (again["since"], again["reason"]) == (paused["since"], "other")
    assert await state(quiet, "sync") == again
    await quiet.submit()  # it is accepted, and waits
    resumed = await change(quiet, "sync/resume")
    assert (resumed["mode"], resumed["since"], resumed["reason"]) == ("ACTIVE", None, None)
    assert (await change(quiet, "sync/resume", {}))["mode"] == "ACTIVE"


async def test_a_draining_service_refuses_submissions_and_retries(quiet: Frontend) -> None:
    ended = await quiet.submit()
    await quiet.client.post(f"{task_url(ended)}/cancel?user_id=alice")
    assert (await change(quiet, "sync/drain", {"reason": None}))["mode"] == "DRAINING"
    key = {"Idempotency-Key": "k-1"}
    for response in (
        await quiet.client.post(f"{ALICE}?a=1", headers=key),
        await quiet.client.post(f"{task_url(ended)}/retry?user_id=alice", headers=key),
    ):
        assert "sync" in is_problem(response, 409, "service-draining")["detail"]
    counted = await quiet.client.get(f"{API}/admin/counts", headers=OPERATOR)
    assert counted.json()["total"] == 1
    await quiet.submit(service="copy")
    await change(quiet, "sync/resume")
    # The refused key was not used up.
    assert (await quiet.client.post(f"{ALICE}?a=1", headers=key)).status_code == 202


async def test_draining_does_not_hide_the_answer_to_a_repeated_submission(
    quiet: Frontend,
) -> None:
    key = {"Idempotency-Key": "k-1"}
    first = await quiet.client.post(f"{ALICE}?a=1", headers=key)
    await change(quiet, "sync/drain")
    again = await quiet.client.post(f"{ALICE}?a=1", headers=key)
    assert (again.status_code, again.json()) == (202, first.json())


async def test_a_star_means_every_service(quiet: Frontend) -> None:
    await quiet.submit()
    everything = await change(quiet, "*/pause", {"reason": "restored from a backup"})
    assert (everything["service"], everything["mode"]) == ("*", "PAUSED")
    assert everything["defined"] is None
    found = await states(quiet)
    assert {name: each["mode"] for name, each in found.items()} == {"*": "PAUSED", "sync": "PAUSED"}
    unheard = await state(quiet, "unheard")
    assert (unheard["mode"], unheard["reason"]) == ("PAUSED", "restored from a backup")
    await change(quiet, "*/drain")
    is_problem(await quiet.client.post(ALICE), 409, "service-draining")
    assert (await state(quiet, "*"))["mode"] == "DRAINING"
    await change(quiet, "%2A/resume")
    assert {each["mode"] for each in (await states(quiet)).values()} == {"ACTIVE"}
    await quiet.submit()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"[]", "not an object"),
        (b"{", "not JSON"),
        (b'{"reason": 1}', "not a text"),
        (b'{"reason": ["x"]}', "not a text"),
        (b'{"reasons": "x"}', "'reasons'"),
        (b'{"reason": "\\ud800"}', "surrogate"),
        (b'{"reason": "\xff"}', "UTF-8"),
        (b'{"reason": "' + b"x" * 501 + b'"}', "501"),
        (b'{"reason": ' + b"[" * 5000 + b"]" * 5000 + b"}", "nested"),
    ],
)
@pytest.mark.parametrize("verb", ["pause", "drain", "resume"])
async def test_a_bad_reason_changes_nothing(
    quiet: Frontend, verb: str, content: bytes, why: str
) -> None:
    url = f"{SERVICES}/sync/{verb}"
    answer = await quiet.client.post(url, content=content, headers=OPERATOR | JSON)
    assert why in is_problem(answer, 422, "invalid-request")["detail"]
    assert (await state(quiet, "sync"))["mode"] == "ACTIVE"


async def test_a_long_and_an_odd_reason_survive(quiet: Frontend) -> None:
    for reason in ("가" * 500, "a\tb\n<b>\x1b[31m \x00 %s", " 두 칸 "):
        assert (await change(quiet, "sync/pause", {"reason": reason}))["reason"] == reason


@pytest.mark.parametrize("verb", ["pause", "drain", "resume"])
async def test_names_tokens_and_queries_are_checked(quiet: Frontend, verb: str) -> None:
    post = quiet.client.post
    for name in ("a:b", "**", "a%0A", "s" * 65, quote("한글"), "a%00"):
        answer = await post(f"{SERVICES}/{name}/{verb}", headers=OPERATOR)
        is_problem(answer, 422, "invalid-request")
    query = await post(f"{SERVICES}/sync/{verb}?reason=x", headers=OPERATOR)
    assert "'reason'" in is_problem(query, 422, "invalid-request")["detail"]
    form = await post(f"{SERVICES}/sync/{verb}", data={"reason": "x"}, headers=OPERATOR)
    is_problem(form, 415, "unsupported-body")
    is_problem(await post(f"{SERVICES}/sync/{verb}"), 401, "not-authenticated")
    cross = await post(f"{SERVICES}/sync/{verb}", headers=OPERATOR | {"Origin": "https://evil.org"})
    is_problem(cross, 403, "forbidden")
    assert await states(quiet) == {}


# ------------------------------------------------------------------------------------------- HEAD


async def test_head_is_the_head_of_get_on_every_route(dms_redis_url: str) -> None:
    async with served_frontend(make_settings(dms_redis_url)) as frontend:
        task_id = await frontend.submit()
        paths = (await frontend.client.get("/openapi.json")).json()["paths"]
        spec = {"cron": "@daily", "service": "sync", "user_id": "alice"}
        await frontend.client.post(
            f"{API}/admin/schedules", json={"schedule_id": "daily", **spec}, headers=OPERATOR
        )
        names = {"service": "sync", "user_id": "alice", "task_id": task_id}
        names |= {"schedule_id": "daily", "name": "no-webhook"}
        routes = [path.format(**names) for path, operations in paths.items() if "get" in operations]
        assert len(routes) > 15
        for route in [*routes, "/docs", "/openapi.json"]:
            alone = {"user_id": "alice"} if f"/tasks/{task_id}" in route else {}
            follows = (
                {"service": "sync", "user_id": "alice"} if route.endswith("/events") else alone
            )
            head = await frontend.client.head(route, params=follows, headers=OPERATOR)
            assert head.content == b""
            expected = {"/definitions": 503, "no-webhook/status": 404}  # no scheduler, no webhook
            status = next((code for end, code in expected.items() if route.endswith(end)), 200)
            assert head.status_code == status, route
        listing = await frontend.client.head(ALICE)
        whole = await frontend.client.get(ALICE)
        assert listing.headers["content-length"] == str(len(whole.content))
        refused = await frontend.client.head(f"{ALICE}?nonsense=1")
        assert (refused.status_code, refused.content) == (422, b"")
        assert (await frontend.client.head(f"{task_url(task_id)}/cancel")).status_code == 405
        followed = await frontend.client.head(f"{task_url(task_id)}/logs?user_id=alice&follow=1")
        assert followed.headers["content-type"].startswith("text/event-stream")
        gauge = frontend.container.metrics.registry.get_sample_value
        assert gauge("dms_live_streams") == 0
