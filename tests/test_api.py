"""The frontend's API: submission, cancellation, operator authentication, on a real store."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import pytest

from task_state import TaskRecord, TaskStatus
from task_state.managed import ManagedTasks
from task_state.repository import RedisTaskRepository
from tests.support.frontend import TOKEN, Frontend, eventually, make_settings, running_frontend
from tests.support.scheduler_stub import SchedulerStub, scheduler_stub

API = "/api/v1"
ALICE = f"{API}/services/sync/users/alice/tasks"
OPERATOR = {"X-Operator-Token": TOKEN}


@pytest.fixture
async def quiet(dms_redis_url: str) -> AsyncGenerator[Frontend]:
    """A frontend that dispatches nothing: what is submitted stays PENDING."""
    async with running_frontend(make_settings(dms_redis_url), dispatching=False) as frontend:
        yield frontend


@pytest.fixture
async def stub() -> AsyncGenerator[SchedulerStub]:
    async with scheduler_stub() as server:
        yield server


def _task(task_id: str) -> str:
    return f"{API}/services/sync/tasks/{task_id}"


def _is_problem(response: httpx2.Response, status: int, slug: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["type"] == f"urn:dms:problem:{slug}"
    assert body["status"] == status
    assert body["request_id"] == response.headers["x-request-id"]
    assert body["title"]
    assert body["detail"]
    assert body["instance"].startswith("/")
    return body


# ------------------------------------------------------------------------------------ submission


async def test_query_parameters_become_the_tasks_parameters(quiet: Frontend) -> None:
    response = await quiet.client.post(f"{ALICE}?input=value&tag=a&tag=b&empty=&name=%ED%95%9C%EA%B8%80")
    assert response.status_code == 202
    created = response.json()
    assert created == {"task_id": created["task_id"], "status": "PENDING"}
    assert response.headers["location"] == f"{_task(created['task_id'])}?user_id=alice"
    shown = await quiet.client.get(response.headers["location"])
    task = shown.json()["task"]
    assert task["parameters"] == {"input": "value", "tag": ["a", "b"], "empty": "", "name": "한글"}
    assert task["status"] == "PENDING"
    assert task["managed"] is True
    assert (task["service"], task["user_id"]) == ("sync", "alice")


async def test_a_json_body_is_taken_as_it_is(quiet: Frontend) -> None:
    parameters = {"n": 2**70, "f": 1.5, "deep": [{"한": [None, True]}], "text": "\x1b[31m<b>"}
    response = await quiet.client.post(f"{ALICE}?extra=1", json={"parameters": parameters})
    assert response.status_code == 202
    task = await quiet.task(response.json()["task_id"])
    assert task["parameters"] == parameters | {"extra": "1"}


async def test_a_form_post_without_content_is_a_submission(quiet: Frontend) -> None:
    """`curl -X POST --data "" ...` as in the document."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    response = await quiet.client.post(f"{ALICE}?input=value", content=b"", headers=headers)
    assert response.status_code == 202


async def test_a_status_parameter_is_only_a_parameter(quiet: Frontend) -> None:
    response = await quiet.client.post(f"{ALICE}?status=COMPLETED&managed=false&task_id=mine")
    task = await quiet.task(response.json()["task_id"])
    assert task["status"] == "PENDING"
    assert task["managed"] is True
    assert task["parameters"]["status"] == "COMPLETED"


async def test_the_same_key_answers_the_first_task_again(quiet: Frontend) -> None:
    headers = {"Idempotency-Key": "k-1"}
    first = await quiet.client.post(f"{ALICE}?a=1", headers=headers)
    again = await quiet.client.post(f"{ALICE}?a=1", headers=headers)
    assert again.status_code == 202
    assert again.json() == first.json()
    other = await quiet.client.post(f"{ALICE}?a=2", headers=headers)
    _is_problem(other, 422, "idempotency-mismatch")
    bob = await quiet.client.post(f"{API}/services/sync/users/bob/tasks?a=2", headers=headers)
    assert bob.status_code == 202
    assert bob.json()["task_id"] != first.json()["task_id"]


async def test_a_waiting_task_knows_its_place(quiet: Frontend) -> None:
    first = await quiet.submit()
    await quiet.submit(service="copy")
    second = await quiet.submit(user="bob")
    assert (await quiet.task(first))["queue_position"] == 1
    assert (await quiet.task(second, user="bob"))["queue_position"] == 2


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"{", "not JSON"),
        (b"[]", "not an object"),
        (b'{"parameters": []}', "not an object"),
        (b'{"parameters": {}, "status": "COMPLETED"}', "'status'"),
        (b'{"parameters": {"a": NaN}}', "NaN"),
        (b'{"parameters": {"a": -Infinity}}', "Infinity"),
        (b'{"parameters": {"a": 1e999}}', "too large"),
        (b'{"parameters": {"a": "\\ud800"}}', "surrogate"),
        (b'{"parameters": {"\\udc00": 1}}', "surrogate"),
        (b'{"parameters": {"a": "\xff"}}', "UTF-8"),
        (b'{"parameters": {"a": 1, "a": 2}}', "twice"),
        (b'{"parameters": {"": 1}}', "empty name"),
        (b'{"parameters": {"a": ' + b"[" * 40 + b"]" * 40 + b"}}", "nested deeper"),
        (b'{"parameters": {"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}}", "nested deeper"),
        (b'{"parameters": {"a": ' + b"9" * 5000 + b"}}", "not JSON"),
        (json.dumps({"parameters": {str(n): n for n in range(101)}}).encode(), "at most 100"),
    ],
)
async def test_bad_bodies_are_refused_with_the_reason(
    quiet: Frontend, content: bytes, why: str
) -> None:
    headers = {"Content-Type": "application/json"}
    response = await quiet.client.post(ALICE, content=content, headers=headers)
    assert why in _is_problem(response, 422, "invalid-request")["detail"]
    assert (await quiet.client.get(ALICE)).json()["total"] == 0


@pytest.mark.parametrize(
    ("path", "status", "slug"),
    [
        ("/services/a:b/users/alice/tasks", 422, "invalid-request"),
        ("/services/sync/users/a%20b/tasks", 422, "invalid-request"),
        (f"/services/{'s' * 65}/users/alice/tasks", 422, "invalid-request"),
        ("/services/sync%0A/users/alice/tasks", 422, "invalid-request"),
        ("/services/sync/users/alice/tasks?a=%FF", 422, "invalid-request"),
        ("/services/sync/users/alice/tasks?=x", 422, "invalid-request"),
        ("/services/sync/users/alice/tasks?" + "&".join(f"p{n}=" for n in range(101)), 422, "invalid-request"),
        ("/services/sync/users/alice/tasks?" + "&".join(f"p{n}=" for n in range(5000)), 414, "query-too-long"),
    ],
)  # fmt: skip
async def test_bad_names_and_queries_are_refused(
    quiet: Frontend, path: str, status: int, slug: str
) -> None:
    _is_problem(await quiet.client.post(API + path), status, slug)


async def test_a_parameter_may_not_stand_in_query_and_body(quiet: Frontend) -> None:
    response = await quiet.client.post(f"{ALICE}?a=1", json={"parameters": {"a": 1}})
    assert "a: given in the query and in the body" in _is_problem(response, 422, "invalid-request")["detail"]


async def test_other_bodies_are_refused(quiet: Frontend) -> None:
    response = await quiet.client.post(ALICE, data={"input": "value"})
    _is_problem(response, 415, "unsupported-body")


@pytest.mark.parametrize("chunked", [False, True])
async def test_two_mebibytes_are_too_much(quiet: Frontend, chunked: bool) -> None:
    async def parts() -> AsyncGenerator[bytes]:
        for _ in range(32):
            yield b"x" * 65536

    content = parts() if chunked else b"x" * 2 * 1024 * 1024
    response = await quiet.client.post(
        ALICE, content=content, headers={"Content-Type": "application/json"}
    )
    _is_problem(response, 413, "body-too-large")


@pytest.mark.parametrize("key", ["", "x" * 256, "ключ".encode("latin-1", "replace").decode() + "é"])
async def test_a_key_that_cannot_be_kept_is_refused(quiet: Frontend, key: str) -> None:
    headers = {b"Idempotency-Key": key.encode("latin-1")}
    _is_problem(await quiet.client.post(ALICE, headers=headers), 422, "invalid-request")


# ---------------------------------------------------------------------------------------- strict

DEFINITION: dict[str, Any] = {
    "id": "sync",
    "parameters": {
        "type": "object",
        "additionalProperties": False,
        "required": ["src"],
        "properties": {
            "src": {"type": "string"},
            "transfers": {"anyOf": [{"type": "integer", "maximum": 32}, {"type": "null"}]},
            "delete": {"type": "boolean"},
            "include": {"type": "array", "items": {"type": "string"}},
        },
    },
}
STRICT = {"Prefer": "respond-async, handling=strict"}


async def test_strict_handling_checks_parameters_at_once(
    dms_redis_url: str, stub: SchedulerStub
) -> None:
    stub.definitions = [DEFINITION]
    settings = make_settings(dms_redis_url, scheduler_base_url=stub.url)
    async with running_frontend(settings, dispatching=False) as frontend:
        post = frontend.client.post
        good = await post(f"{ALICE}?src=/a&transfers=4&delete=true&include=x", headers=STRICT)
        assert good.status_code == 202
        assert good.headers["preference-applied"] == "handling=strict"
        for query, why in (
            ("", "src"),
            ("?src=/a&transfers=many", "transfers"),
            ("?src=/a&transfers=64", "transfers"),
            ("?src=/a&delete=maybe", "delete"),
            ("?src=/a&input=value", "input"),
        ):
            bad = await post(ALICE + query, headers=STRICT)
            assert why in _is_problem(bad, 422, "invalid-request")["detail"]
        unknown = await post(f"{API}/services/nope/users/alice/tasks", headers=STRICT)
        assert "sync" in _is_problem(unknown, 422, "unknown-definition")["detail"]
        lenient = await post(f"{ALICE}?input=value")
        assert lenient.status_code == 202
        listed = await frontend.client.get(f"{API}/definitions")
        assert listed.json() == {"definitions": [DEFINITION]}


async def test_strict_handling_without_a_scheduler_is_503(quiet: Frontend) -> None:
    _is_problem(await quiet.client.post(ALICE, headers=STRICT), 503, "scheduler-unavailable")
    assert (await quiet.client.get(ALICE)).json()["total"] == 0


# ------------------------------------------------------------------------- looking, listing, logs


async def test_another_users_task_looks_like_a_missing_one(quiet: Frontend) -> None:
    task_id = await quiet.submit()
    missing = str(int(task_id) + 1)
    for method, tail in (
        ("GET", ""), ("DELETE", ""), ("GET", "/logs"), ("POST", "/cancel"), ("POST", "/retry"),
        ("GET", "/logs?follow=true"),
    ):  # fmt: skip
        answers: list[dict[str, Any]] = []
        for wanted, user, service in (
            (task_id, "bob", "sync"), (task_id, "alice", "copy"), (missing, "alice", "sync"),
        ):  # fmt: skip
            url = f"{API}/services/{service}/tasks/{wanted}{tail}"
            response = await quiet.client.request(method, url, params={"user_id": user})
            body = _is_problem(response, 404, "task-not-found")
            body["detail"] = body["detail"].replace(wanted, "ID")
            answers.append({k: v for k, v in body.items() if k not in {"request_id", "instance"}})
        assert answers[0] == answers[1] == answers[2]
    assert (await quiet.task(task_id))["status"] == "PENDING"


async def test_listing_pages_filters_and_users(quiet: Frontend) -> None:
    ids = [await quiet.submit(n=str(n)) for n in range(5)]
    await quiet.submit(user="bob")
    await quiet.client.post(f"{_task(ids[0])}/cancel?user_id=alice")
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
    _is_problem(await quiet.client.get(f"{ALICE}?{query}"), 422, "invalid-request")


async def test_log_pages(quiet: Frontend, dms_repository: RedisTaskRepository) -> None:
    task_id = await quiet.submit()
    for n in range(5):
        await dms_repository.append_log(task_id, f"line {n}")
    url = f"{_task(task_id)}/logs?user_id=alice"
    page = (await quiet.client.get(f"{url}&offset=1&limit=2")).json()
    assert [line.partition(",")[2] for line in page["lines"]] == ["line 1", "line 2"]
    assert (page["offset"], page["total"]) == (1, 5)
    tail = (await quiet.client.get(f"{url}&offset=-1")).json()
    assert [line.partition(",")[2] for line in tail["lines"]] == ["line 4"]


# ---------------------------------------------------------------------------- cancel, delete, retry


async def test_cancelling_a_waiting_task_is_at_once_and_repeatable(quiet: Frontend) -> None:
    task_id = await quiet.submit()
    for _ in range(2):
        response = await quiet.client.post(f"{_task(task_id)}/cancel?user_id=alice")
        assert response.status_code == 200
        assert response.json() == {"task_id": task_id, "status": "CANCELLED"}
    task = await quiet.task(task_id)
    assert task["status"] == "CANCELLED"
    assert task["logs"][0].endswith(",Cancellation requested")


async def test_cancelling_a_running_task_asks_its_worker(
    quiet: Frontend, dms_managed: ManagedTasks
) -> None:
    task_id = await quiet.submit()
    assert await dms_managed.begin(task_id, 1, worker="w")
    response = await quiet.client.post(f"{_task(task_id)}/cancel?user_id=alice")
    assert response.status_code == 202
    assert response.json() == {"task_id": task_id, "status": "CANCEL_REQUESTED"}
    assert await dms_managed.heartbeat(task_id, 1) is TaskStatus.CANCEL_REQUESTED


async def test_cancelling_what_has_ended_is_409(quiet: Frontend, dms_managed: ManagedTasks) -> None:
    task_id = await quiet.submit()
    await dms_managed.begin(task_id, 1, worker="w")
    await dms_managed.finish(task_id, 1, TaskStatus.COMPLETED)
    response = await quiet.client.post(f"{_task(task_id)}/cancel?user_id=alice")
    _is_problem(response, 409, "illegal-transition")


async def test_deleting_a_waiting_task_removes_it(quiet: Frontend) -> None:
    task_id = await quiet.submit()
    response = await quiet.client.delete(f"{_task(task_id)}?user_id=alice")
    assert (response.status_code, response.json()) == (200, {"task_id": task_id, "deleted": True})
    _is_problem(await quiet.client.get(f"{_task(task_id)}?user_id=alice"), 404, "task-not-found")
    assert (await quiet.client.get(f"{API}/services/sync/users")).json() == {"users": []}


async def test_deleting_a_running_task_waits_for_its_worker(
    quiet: Frontend, dms_managed: ManagedTasks
) -> None:
    task_id = await quiet.submit()
    await dms_managed.begin(task_id, 1, worker="w")

    async def worker() -> None:
        await eventually(lambda: _asked_to_stop(dms_managed, task_id))
        await dms_managed.finish(task_id, 1, TaskStatus.CANCELLED)

    working = asyncio.create_task(worker())
    response = await quiet.client.delete(f"{_task(task_id)}?user_id=alice")
    await working
    assert (response.status_code, response.json()) == (200, {"task_id": task_id, "deleted": True})


async def _asked_to_stop(managed: ManagedTasks, task_id: str) -> bool:
    return await managed.heartbeat(task_id, 1) is TaskStatus.CANCEL_REQUESTED


async def test_deleting_what_does_not_stop_soon_is_202(
    quiet: Frontend, dms_managed: ManagedTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.tasks.DELETE_WAIT_SECONDS", 0.2)
    task_id = await quiet.submit()
    await dms_managed.begin(task_id, 1, worker="w")
    response = await quiet.client.delete(f"{_task(task_id)}?user_id=alice")
    assert response.status_code == 202
    assert response.json() == {"task_id": task_id, "deleted": False, "status": "CANCEL_REQUESTED"}
    await dms_managed.finish(task_id, 1, TaskStatus.CANCELLED)
    _is_problem(await quiet.client.get(f"{_task(task_id)}?user_id=alice"), 404, "task-not-found")


async def test_retry_is_a_new_task_of_an_ended_one(quiet: Frontend) -> None:
    task_id = await quiet.submit(input="value")
    too_soon = await quiet.client.post(f"{_task(task_id)}/retry?user_id=alice")
    _is_problem(too_soon, 409, "not-retryable")
    await quiet.client.post(f"{_task(task_id)}/cancel?user_id=alice")
    response = await quiet.client.post(f"{_task(task_id)}/retry?user_id=alice")
    assert response.status_code == 202
    new = response.json()
    assert new == {"task_id": new["task_id"], "status": "PENDING", "retry_of": task_id}
    assert new["task_id"] != task_id
    task = (await quiet.client.get(response.headers["location"])).json()["task"]
    assert task["parameters"] == {"input": "value"}
    assert task["retry_of"] == task_id
    assert (await quiet.task(task_id))["status"] == "CANCELLED"


async def test_another_programs_task_is_not_retried(
    quiet: Frontend, dms_repository: RedisTaskRepository
) -> None:
    record = TaskRecord(
        task_id="external-1", service="sync", user_id="alice", status=TaskStatus.COMPLETED
    )
    await dms_repository.save(record)
    response = await quiet.client.post(f"{_task('external-1')}/retry?user_id=alice")
    _is_problem(response, 409, "not-retryable")


# -------------------------------------------------------------------------------------- operator

ADMIN_ROUTES = [
    ("GET", "/admin/tasks"),
    ("GET", "/admin/services/sync/tasks"),
    ("POST", "/admin/tasks/1/cancel"),
    ("DELETE", "/admin/tasks/1"),
]


@pytest.mark.parametrize(("method", "path"), ADMIN_ROUTES)
@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"X-Operator-Token", b"wrong")],
        [(b"X-Operator-Token", b"")],
        [(b"X-Operator-Token", b"\xff\xfe\xed\x95\x9c")],
        [(b"X-Operator-Token", TOKEN.encode()), (b"X-Operator-Token", b"wrong")],
        [(b"X-Operator-Token", TOKEN.encode() + b"x")],
    ],
    ids=["none", "wrong", "empty", "bytes", "twice", "longer"],
)
async def test_operators_routes_need_the_token(
    quiet: Frontend, method: str, path: str, headers: list[tuple[bytes, bytes]]
) -> None:
    response = await quiet.client.request(method, API + path, headers=headers)
    _is_problem(response, 401, "not-authenticated")
    assert TOKEN not in response.text


async def test_the_operator_sees_and_ends_every_task(quiet: Frontend) -> None:
    alices = await quiet.submit()
    bobs = await quiet.submit(service="copy", user="bob")
    get, post = quiet.client.get, quiet.client.post
    everything = (await get(f"{API}/admin/tasks", headers=OPERATOR)).json()
    assert [task["task_id"] for task in everything["tasks"]] == [bobs, alices]
    copies = (await get(f"{API}/admin/services/copy/tasks", headers=OPERATOR)).json()
    assert [task["task_id"] for task in copies["tasks"]] == [bobs]
    cancelled = await post(f"{API}/admin/tasks/{bobs}/cancel", headers=OPERATOR)
    assert cancelled.json() == {"task_id": bobs, "status": "CANCELLED"}
    deleted = await quiet.client.delete(f"{API}/admin/tasks/{alices}", headers=OPERATOR)
    assert deleted.json() == {"task_id": alices, "deleted": True}
    missing = await post(f"{API}/admin/tasks/{alices}/cancel", headers=OPERATOR)
    _is_problem(missing, 404, "task-not-found")


async def test_wrong_tokens_lock_an_address_out(quiet: Frontend) -> None:
    url = f"{API}/admin/tasks"
    for _ in range(10):
        wrong = await quiet.client.get(url, headers={"X-Operator-Token": "guess"})
        _is_problem(wrong, 401, "not-authenticated")
    locked = await quiet.client.get(url, headers=OPERATOR)
    _is_problem(locked, 429, "too-many-attempts")
    assert 0 < int(locked.headers["retry-after"]) <= 61


@pytest.mark.parametrize(
    ("client_host", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("::1", {}, 200),
        ("10.1.2.3", {}, 403),
        ("not-an-address", {}, 403),
        ("127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}, 403),
        ("127.0.0.1", {"Forwarded": "for=127.0.0.1"}, 403),
        ("127.0.0.1", {"X-Real-IP": "127.0.0.1"}, 403),
        ("127.0.0.1", {"Via": "1.1 proxy"}, 403),
    ],
)
async def test_the_default_token_works_from_this_machine_alone(
    dms_redis_url: str, client_host: str, headers: dict[str, str], status: int
) -> None:
    settings = make_settings(dms_redis_url, operator_token="changeme")
    async with running_frontend(settings, dispatching=False, client_host=client_host) as frontend:
        response = await frontend.client.get(
            f"{API}/admin/tasks", headers={"X-Operator-Token": "changeme", **headers}
        )
        assert response.status_code == status
        if status == 403:
            assert "DMS_OPERATOR_TOKEN" in _is_problem(response, 403, "forbidden")["detail"]


# ------------------------------------------------------------------------------ a trusted proxy


async def test_a_trusted_proxy_names_the_user(dms_redis_url: str) -> None:
    settings = make_settings(dms_redis_url, user_header="X-Auth-User")
    async with running_frontend(settings, dispatching=False) as frontend:
        alice, bob = {"X-Auth-User": "alice"}, {"X-Auth-User": "bob"}
        client = frontend.client
        _is_problem(await client.post(ALICE), 401, "not-authenticated")
        _is_problem(await client.post(ALICE, headers=bob), 403, "forbidden")
        _is_problem(await client.get(ALICE, headers=bob), 403, "forbidden")
        twice = [("X-Auth-User", "alice"), ("X-Auth-User", "bob")]
        _is_problem(await client.get(ALICE, headers=twice), 401, "not-authenticated")
        made = await client.post(ALICE, headers=alice)
        assert made.status_code == 202
        url = f"{_task(made.json()['task_id'])}?user_id=alice"
        assert (await client.get(url, headers=alice)).status_code == 200
        _is_problem(await client.get(url, headers=bob), 404, "task-not-found")
        _is_problem(await client.delete(url, headers=bob), 404, "task-not-found")
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
    _is_problem(await quiet.client.get("/nope"), 404, "not-found")
    response = await quiet.client.put(ALICE)
    _is_problem(response, 405, "method-not-allowed")
    assert response.headers["allow"]


async def test_the_documentation_page_and_schema(quiet: Frontend) -> None:
    assert (await quiet.client.get("/docs")).status_code == 200
    schema = (await quiet.client.get("/openapi.json")).json()
    assert f"{API}/admin/tasks" in schema["paths"]


async def test_another_prefix(dms_redis_url: str) -> None:
    settings = make_settings(dms_redis_url, api_prefix="dms/")
    async with running_frontend(settings, dispatching=False) as frontend:
        response = await frontend.client.post("/dms/services/sync/users/alice/tasks")
        assert response.status_code == 202
        assert (await frontend.client.get(response.headers["location"])).status_code == 200


# ------------------------------------------------------------------------------------- dispatching


async def test_a_task_goes_to_the_scheduler_and_its_cancellation_too(
    dms_redis_url: str, dms_managed: ManagedTasks, stub: SchedulerStub
) -> None:
    settings = make_settings(dms_redis_url, scheduler_base_url=stub.url)
    async with running_frontend(settings) as frontend:
        task_id = await frontend.submit(input="value")
        (call,) = await eventually(lambda: stub.to("/task", task_id))
        assert call.body == {
            "task_id": task_id,
            "service": "sync",
            "user_id": "alice",
            "parameters": {"input": "value"},
        }
        assert call.headers["idempotency-key"] == task_id
        task = await frontend.task(task_id)
        assert task["status"] == "DISPATCHING"
        assert task["logs"][0].partition(",")[2] == "Dispatching to scheduler"
        await dms_managed.begin(task_id, 1, worker="w")
        await frontend.client.post(f"{_task(task_id)}/cancel?user_id=alice")
        (cancel,) = await eventually(lambda: stub.to("/cancel", task_id))
        assert cancel.body == {"task_id": task_id, "service": "sync", "user_id": "alice"}
