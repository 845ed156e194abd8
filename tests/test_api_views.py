"""What the API shows, and to whom: tasks, lists, logs, help, health, behind a proxy or not."""

import re
from typing import Any

import pytest

from task_state.repository import RedisTaskRepository
from tests.support.frontend import (
    ALICE,
    API,
    Frontend,
    is_problem,
    make_settings,
    running_frontend,
    task_url,
)

# ------------------------------------------------------------------------- looking, listing, logs


async def test_another_users_task_looks_like_a_missing_one(quiet: Frontend) -> None:
    task_id = await quiet.submit()
    missing = str(int(task_id) + 1)
    for method, tail in (
        ("GET", ""), ("DELETE", ""), ("GET", "/logs"), ("POST", "/cancel"), ("POST", "/retry"),
        ("GET", "/logs?follow=true"), ("GET", "/report"), ("GET", "/throughput"),
    ):  # fmt: skip
        answers: list[dict[str, Any]] = []
        for wanted, user, service in (
            (task_id, "bob", "sync"), (task_id, "alice", "copy"), (missing, "alice", "sync"),
        ):  # fmt: skip
            url = f"{API}/services/{service}/tasks/{wanted}{tail}"
            response = await quiet.client.request(method, url, params={"user_id": user})
            body = is_problem(response, 404, "task-not-found")
            body["detail"] = body["detail"].replace(wanted, "ID")
            answers.append({k: v for k, v in body.items() if k not in {"request_id", "instance"}})
        assert answers[0] == answers[1] == answers[2]
    assert (await quiet.task(task_id))["status"] == "PENDING"


async def test_listing_pages_filters_and_users(quiet: Frontend) -> None:
    ids = [await quiet.submit(n=str(n)) for n in range(5)]
    await quiet.submit(user="bob")
    await quiet.client.post(f"{task_url(ids[0])}/cancel?user_id=alice")
    first = (await quiet.client.get(f"{ALICE}?limit=2")).json()
    assert [task["task_id"] for task in first["tasks"]] == [ids[4], ids[3]]
    assert first["total"] == 5
    second = (await quiet.client.get(f"{ALICE}?limit=3&cursor={first['next_cursor']}")).json()
    assert [task["task_id"] for task in second["tasks"]] == [ids[2], ids[1], ids[0]]
    assert second["next_cursor"] is None
    cancelled = (await quiet.client.get(f"{ALICE}?status=cancelled")).json()
    assert [task["task_id"] for task in cancelled["tasks"]] == [ids[0]]
    users = await quiet.client.get(f"{API}/services/sync/users")
    assert users.json() == {"users": ["alice", "bob"]}


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=1e9", "cursor=%00", "cursor=junk", "status=GONE",
              "sort=user_id", "created_after=yesterday", "offset=99999999999", "q="],
)  # fmt: skip
async def test_bad_listings_are_refused(quiet: Frontend, query: str) -> None:
    is_problem(await quiet.client.get(f"{ALICE}?{query}"), 422, "invalid-request")


async def test_log_pages(quiet: Frontend, dms_repository: RedisTaskRepository) -> None:
    task_id = await quiet.submit()
    for n in range(5):
        await dms_repository.append_log(task_id, f"line {n}")
    url = f"{task_url(task_id)}/logs?user_id=alice"
    page = (await quiet.client.get(f"{url}&offset=1&limit=2")).json()
    assert [line.partition(",")[2] for line in page["lines"]] == ["line 1", "line 2"]
    assert (page["offset"], page["total"]) == (1, 5)
    tail = (await quiet.client.get(f"{url}&offset=-1")).json()
    assert [line.partition(",")[2] for line in tail["lines"]] == ["line 4"]


async def test_output_is_whole_on_its_own_route_and_its_end_stands_in_the_task(
    quiet: Frontend, dms_repository: RedisTaskRepository
) -> None:
    task_id = await quiet.submit()
    url = f"{task_url(task_id)}/output?user_id=alice"
    empty = await quiet.client.get(url)
    assert (empty.status_code, empty.text) == (200, "")
    text = "<b>출력</b>\n" + "x" * 2**20
    await dms_repository.update_result(task_id, launcher_output=text)
    answer = await quiet.client.get(url)
    assert answer.text == text
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    task = (await quiet.client.get(f"{task_url(task_id)}?user_id=alice")).json()["task"]
    shown = task["result"]["launcher_output"]
    assert shown == "[earlier output is left out here]\n" + "x" * 2**20
    is_problem(await quiet.client.get(url.replace("alice", "bob")), 404, "task-not-found")


async def test_the_page_of_the_api_needs_no_other_host(quiet: Frontend) -> None:
    page = (await quiet.client.get("/docs")).text
    assert "://" not in page
    sources: list[str] = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(sources) == 3
    for path in sources:
        assert (await quiet.client.get(path)).status_code == 200


# ------------------------------------------------------------------------------ a trusted proxy


async def test_a_trusted_proxy_names_the_user(dms_redis_url: str) -> None:
    settings = make_settings(dms_redis_url, user_header="X-Auth-User")
    async with running_frontend(settings, dispatching=False) as frontend:
        alice, bob = {"X-Auth-User": "alice"}, {"X-Auth-User": "bob"}
        client = frontend.client
        is_problem(await client.post(ALICE), 401, "not-authenticated")
        is_problem(await client.post(ALICE, headers=bob), 403, "forbidden")
        is_problem(await client.get(ALICE, headers=bob), 403, "forbidden")
        twice = [("X-Auth-User", "alice"), ("X-Auth-User", "bob")]
        is_problem(await client.get(ALICE, headers=twice), 401, "not-authenticated")
        made = await client.post(ALICE, headers=alice)
        assert made.status_code == 202
        url = f"{task_url(made.json()['task_id'])}?user_id=alice"
        assert (await client.get(url, headers=alice)).status_code == 200
        is_problem(await client.get(url, headers=bob), 404, "task-not-found")
        is_problem(await client.delete(url, headers=bob), 404, "task-not-found")
        users = f"{API}/services/sync/users"
        assert (await client.get(users, headers=alice)).json() == {"users": ["alice"]}
        assert (await client.get(users, headers=bob)).json() == {"users": []}


# --------------------------------------------------------------------------------- help and health


async def test_help_lists_the_documents_routes(quiet: Frontend) -> None:
    body = (await quiet.client.get(f"{API}/help")).json()
    listed = {(e["method"], e["path"]): e["auth"] for e in body["endpoints"]}
    operator = "X-Operator-Token header"
    documented = {
        ("GET", "/help"): None,
        ("GET", "/services/{service}/users"): None,
        ("GET", "/services/{service}/users/{user_id}/tasks"): None,
        ("POST", "/services/{service}/users/{user_id}/tasks"): None,
        ("GET", "/services/{service}/tasks/{task_id}?user_id="): None,
        ("POST", "/services/{service}/tasks/{task_id}/cancel?user_id="): None,
        ("DELETE", "/services/{service}/tasks/{task_id}?user_id="): None,
        ("GET", "/admin/tasks"): operator,
        ("GET", "/admin/services/{service}/tasks"): operator,
        ("POST", "/admin/tasks/{task_id}/cancel"): operator,
        ("DELETE", "/admin/tasks/{task_id}"): operator,
        ("GET", "/services/{service}/users/{user_id}/counts"): None,
        ("GET", "/admin/counts"): operator,
        ("GET", "/admin/services"): operator,
        ("GET", "/admin/services/{service}"): operator,
        ("POST", "/admin/services/{service}/pause"): operator,
        ("POST", "/admin/services/{service}/drain"): operator,
        ("POST", "/admin/services/{service}/resume"): operator,
    }
    for (method, path), auth in documented.items():
        assert listed[method, API + path] == auth
    assert all(entry["description"] for entry in body["endpoints"])
    assert body["name"] == "dms-frontend"


async def test_health_and_metrics(quiet: Frontend) -> None:
    assert (await quiet.client.get("/healthz")).json()["status"] == "ok"
    ready = await quiet.client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json() == {"status": "ready", "reads": "ok", "writes": "ok", "scheduler": "ok"}
    await quiet.submit()
    metrics = (await quiet.client.get("/metrics")).text
    assert 'route="/services/{service}/users/{user_id}/tasks",status="202"} 1.0' in metrics
    assert "alice" not in metrics


async def test_unknown_routes_and_methods_are_problems(quiet: Frontend) -> None:
    is_problem(await quiet.client.get("/nope"), 404, "not-found")
    for method, path, allowed in (
        ("PUT", ALICE, "GET, HEAD, POST"),
        ("POST", f"{API}/admin/tasks", "GET, HEAD"),
        ("PUT", f"{API}/services/sync/tasks/1", "DELETE, GET, HEAD, PATCH"),
        ("GET", f"{API}/admin/tasks/1/cancel", "POST"),
        ("POST", "/docs", "GET"),
    ):
        response = await quiet.client.request(method, path)
        told = response.headers["allow"]
        assert sorted(told.split(", ")) == allowed.split(", ")
        assert told in is_problem(response, 405, "method-not-allowed")["detail"]


async def test_the_documentation_page_and_schema(quiet: Frontend) -> None:
    assert (await quiet.client.get("/docs")).status_code == 200
    schema = (await quiet.client.get("/openapi.json")).json()
    assert f"{API}/admin/tasks" in schema["paths"]


async def test_the_schema_says_in_which_form_answers_come(quiet: Frontend) -> None:
    paths = (await quiet.client.get("/openapi.json")).json()["paths"]
    operations = [each for path in paths.values() for each in path.values()]
    for status in ("4XX", "503"):
        for operation in operations:
            assert list(operation["responses"][status]["content"]) == ["application/problem+json"]
    for path in ("/metrics", f"{API}/services/{{service}}/tasks/{{task_id}}/output"):
        assert list(paths[path]["get"]["responses"]["200"]["content"]) == ["text/plain"]


async def test_another_prefix(dms_redis_url: str) -> None:
    settings = make_settings(dms_redis_url, api_prefix="dms/")
    async with running_frontend(settings, dispatching=False) as frontend:
        response = await frontend.client.post("/dms/services/sync/users/alice/tasks")
        assert response.status_code == 202
        assert (await frontend.client.get(response.headers["location"])).status_code == 200
