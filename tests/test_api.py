"""The frontend's API: submission, cancellation, operator authentication, on a real store."""

import asyncio

import pytest

from task_state import TaskRecord, TaskStatus
from task_state.managed import ManagedTasks
from task_state.repository import RedisTaskRepository
from tests.support.frontend import (
    ALICE,
    API,
    OPERATOR,
    TOKEN,
    Frontend,
    eventually,
    is_problem,
    make_settings,
    running_frontend,
    task_url,
)
from tests.support.scheduler_stub import SchedulerStub

# ------------------------------------------------------------------------------------ submission


async def test_query_parameters_become_the_tasks_parameters(quiet: Frontend) -> None:
    response = await quiet.client.post(
        f"{ALICE}?input=value&tag=a&tag=b&empty=&name=%ED%95%9C%EA%B8%80"
    )
    assert response.status_code == 202
    created = response.json()
    assert created == {"task_id": created["task_id"], "status": "PENDING"}
    assert response.headers["location"] == f"{task_url(created['task_id'])}?user_id=alice"
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
    is_problem(other, 422, "idempotency-mismatch")
    bob = await quiet.client.post(f"{API}/services/sync/users/bob/tasks?a=2", headers=headers)
    assert bob.status_code == 202
    assert bob.json()["task_id"] != first.json()["task_id"]


async def test_a_waiting_task_knows_its_place(quiet: Frontend) -> None:
    first = await quiet.submit()
    await quiet.submit(service="copy")
    second = await quiet.submit(user="bob")
    assert (await quiet.task(first))["queue_position"] == 1
    assert (await quiet.task(second, user="bob"))["queue_position"] == 2


# ---------------------------------------------------------------------------- cancel, delete, retry


async def test_cancelling_a_waiting_task_is_at_once_and_repeatable(quiet: Frontend) -> None:
    task_id = await quiet.submit()
    for _ in range(2):
        response = await quiet.client.post(f"{task_url(task_id)}/cancel?user_id=alice")
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
    response = await quiet.client.post(f"{task_url(task_id)}/cancel?user_id=alice")
    assert response.status_code == 202
    assert response.json() == {"task_id": task_id, "status": "CANCEL_REQUESTED"}
    assert (await dms_managed.heartbeat(task_id, 1)).status is TaskStatus.CANCEL_REQUESTED


async def test_cancelling_what_has_ended_is_409(quiet: Frontend, dms_managed: ManagedTasks) -> None:
    task_id = await quiet.submit()
    await dms_managed.begin(task_id, 1, worker="w")
    await dms_managed.finish(task_id, 1, TaskStatus.COMPLETED)
    response = await quiet.client.post(f"{task_url(task_id)}/cancel?user_id=alice")
    is_problem(response, 409, "illegal-transition")


async def test_deleting_a_waiting_task_removes_it(quiet: Frontend) -> None:
    task_id = await quiet.submit()
    response = await quiet.client.delete(f"{task_url(task_id)}?user_id=alice")
    assert (response.status_code, response.json()) == (200, {"task_id": task_id, "deleted": True})
    is_problem(await quiet.client.get(f"{task_url(task_id)}?user_id=alice"), 404, "task-not-found")
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
    response = await quiet.client.delete(f"{task_url(task_id)}?user_id=alice")
    await working
    assert (response.status_code, response.json()) == (200, {"task_id": task_id, "deleted": True})


async def _asked_to_stop(managed: ManagedTasks, task_id: str) -> bool:
    return (await managed.heartbeat(task_id, 1)).status is TaskStatus.CANCEL_REQUESTED


async def test_deleting_what_does_not_stop_soon_is_202(
    quiet: Frontend, dms_managed: ManagedTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.tasks.DELETE_WAIT_SECONDS", 0.2)
    task_id = await quiet.submit()
    await dms_managed.begin(task_id, 1, worker="w")
    response = await quiet.client.delete(f"{task_url(task_id)}?user_id=alice")
    assert response.status_code == 202
    assert response.json() == {"task_id": task_id, "deleted": False, "status": "CANCEL_REQUESTED"}
    await dms_managed.finish(task_id, 1, TaskStatus.CANCELLED)
    is_problem(await quiet.client.get(f"{task_url(task_id)}?user_id=alice"), 404, "task-not-found")


async def test_retry_is_a_new_task_of_an_ended_one(quiet: Frontend) -> None:
    task_id = await quiet.submit(input="value")
    too_soon = await quiet.client.post(f"{task_url(task_id)}/retry?user_id=alice")
    is_problem(too_soon, 409, "not-retryable")
    await quiet.client.post(f"{task_url(task_id)}/cancel?user_id=alice")
    response = await quiet.client.post(f"{task_url(task_id)}/retry?user_id=alice")
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
    response = await quiet.client.post(f"{task_url('external-1')}/retry?user_id=alice")
    is_problem(response, 409, "not-retryable")


# -------------------------------------------------------------------------------------- operator

ADMIN_ROUTES = [
    ("GET", "/admin/tasks"),
    ("GET", "/admin/services/sync/tasks"),
    ("GET", "/admin/counts"),
    ("GET", "/admin/services"),
    ("GET", "/admin/services/sync"),
    ("POST", "/admin/services/sync/pause"),
    ("POST", "/admin/services/sync/drain"),
    ("POST", "/admin/services/sync/resume"),
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
    is_problem(response, 401, "not-authenticated")
    assert TOKEN not in response.text


async def test_the_operator_sees_and_ends_everytask_url(quiet: Frontend) -> None:
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
    is_problem(missing, 404, "task-not-found")


async def test_wrong_tokens_lock_an_address_out(quiet: Frontend) -> None:
    url = f"{API}/admin/tasks"
    for _ in range(10):
        wrong = await quiet.client.get(url, headers={"X-Operator-Token": "guess"})
        is_problem(wrong, 401, "not-authenticated")
    locked = await quiet.client.get(url, headers=OPERATOR)
    is_problem(locked, 429, "too-many-attempts")
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
            assert "DMS_OPERATOR_TOKEN" in is_problem(response, 403, "forbidden")["detail"]


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
        await frontend.client.post(f"{task_url(task_id)}/cancel?user_id=alice")
        (cancel,) = await eventually(lambda: stub.to("/cancel", task_id))
        assert cancel.body == {"task_id": task_id, "service": "sync", "user_id": "alice"}
