"""What the API refuses, and why: bodies, queries, names, keys; and strict handling."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from tests.support.frontend import (
    ALICE,
    API,
    Frontend,
    is_problem,
    is_pydantics,
    make_settings,
    running_frontend,
)
from tests.support.scheduler_stub import SchedulerStub


def _many(count: int) -> str:
    """So many parameters, as a query."""
    return "&".join(f"p{n}=" for n in range(count))


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
    assert why in is_problem(response, 422, "invalid-request")["detail"]
    assert (await quiet.client.get(ALICE)).json()["total"] == 0


@pytest.mark.parametrize(
    ("path", "status", "slug"),
    [
        ("/services/a:b/users/alice/tasks", 422, "invalid-request"),
        ("/services/sync/users/a%20b/tasks", 422, "invalid-request"),
        (f"/services/{'s' * 65}/users/alice/tasks", 422, "invalid-request"),
        ("/services/sync%0A/users/alice/tasks", 422, "invalid-request"),
        ("/services/%2E%2E/users/alice/tasks", 422, "invalid-request"),
        ("/services/sync/users/%2E/tasks", 422, "invalid-request"),
        ("/services/sync/users/.../tasks", 422, "invalid-request"),
        ("/services/sync/users/alice/tasks?a=%FF", 422, "invalid-request"),
        ("/services/sync/users/alice/tasks?=x", 422, "invalid-request"),
        ("/services/sync/users/alice/tasks?" + _many(101), 422, "invalid-request"),
        ("/services/sync/users/alice/tasks?" + _many(5000), 414, "query-too-long"),
    ],
)  # fmt: skip
async def test_bad_names_and_queries_are_refused(
    quiet: Frontend, path: str, status: int, slug: str
) -> None:
    problem = is_problem(await quiet.client.post(API + path), status, slug)
    assert not is_pydantics(problem["detail"]), problem
    assert (await quiet.client.get(ALICE)).json()["total"] == 0


@pytest.mark.parametrize(
    ("method", "path", "told"),
    [
        ("GET", "/services/a:b/users", "service: 'a:b' is no name: 1 to 64 letters"),
        ("GET", f"/services/{'s' * 65}/users", "service: 'sss"),
        ("GET", "/services/sync/tasks/1", "user_id: is missing"),
        ("GET", "/services/sync/tasks/1?user_id=..", "user_id: '..' is no name"),
        ("GET", "/services/sync/tasks/..%20?user_id=a", "task_id: '.. ' is no task's id"),
        ("GET", "/services/sync/tasks/1?user=alice", "'user'='alice' is no option of this route"),
        ("GET", "/services/sync/tasks/1?userId=alice", "did you mean user_id?"),
        ("GET", "/services/sync/tasks/1?user_id=a&user_id=b", "user_id is given 2 times"),
        ("DELETE", "/services/sync/tasks/1?user_id=a&user_id=b", "user_id is given 2 times"),
        ("POST", "/services/sync/tasks/1/cancel?user_id=a&x=1", "'x'='1' is no option"),
        ("POST", "/services/sync/tasks/1/retry?user_id=a&x=1", "'x'='1' is no option"),
        ("GET", "/services/sync/tasks/1/output?user_id=a&x=1", "'x'='1' is no option"),
        ("GET", "/services/sync/tasks/1/logs?user_id=a&ofset=1", "did you mean offset?"),
        ("GET", "/services/sync/tasks/1/logs?user_id=a&offset=x", "offset: 'x' is no whole number"),
        ("GET", "/services/sync/tasks/1/logs?user_id=a&limit=0", "limit: '0' is too small: 1 is"),
        ("GET", "/services/sync/tasks/1/logs?user_id=a&follow=2", "follow: '2' is neither true"),
        ("GET", "/events?service=sync&userId=alice", "did you mean user_id?"),
        ("GET", "/events?service=..&user_id=alice", "service: '..' is no name"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_told_in_our_words(
    quiet: Frontend, method: str, path: str, told: str
) -> None:
    answer = await quiet.client.request(method, API + path)
    detail = is_problem(answer, 422, "invalid-request")["detail"]
    assert told in detail
    assert not is_pydantics(detail)


async def test_a_parameter_may_not_stand_in_query_and_body(quiet: Frontend) -> None:
    response = await quiet.client.post(f"{ALICE}?a=1", json={"parameters": {"a": 1}})
    assert (
        "a: given in the query and in the body"
        in is_problem(response, 422, "invalid-request")["detail"]
    )


async def test_other_bodies_are_refused(quiet: Frontend) -> None:
    response = await quiet.client.post(ALICE, data={"input": "value"})
    is_problem(response, 415, "unsupported-body")


@pytest.mark.parametrize("chunked", [False, True])
async def test_two_mebibytes_are_too_much(quiet: Frontend, chunked: bool) -> None:
    async def parts() -> AsyncGenerator[bytes]:
        for _ in range(32):
            yield b"x" * 65536

    content = parts() if chunked else b"x" * 2 * 1024 * 1024
    response = await quiet.client.post(
        ALICE, content=content, headers={"Content-Type": "application/json"}
    )
    is_problem(response, 413, "body-too-large")


@pytest.mark.parametrize("key", ["", "x" * 256, "ключ".encode("latin-1", "replace").decode() + "é"])
async def test_a_key_that_cannot_be_kept_is_refused(quiet: Frontend, key: str) -> None:
    headers = {b"Idempotency-Key": key.encode("latin-1")}
    is_problem(await quiet.client.post(ALICE, headers=headers), 422, "invalid-request")


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
            assert why in is_problem(bad, 422, "invalid-request")["detail"]
        unknown = await post(f"{API}/services/nope/users/alice/tasks", headers=STRICT)
        assert "sync" in is_problem(unknown, 422, "unknown-definition")["detail"]
        lenient = await post(f"{ALICE}?input=value")
        assert lenient.status_code == 202
        listed = await frontend.client.get(f"{API}/definitions")
        assert listed.json() == {"definitions": [DEFINITION]}


async def test_strict_handling_without_a_scheduler_is_503(quiet: Frontend) -> None:
    is_problem(await quiet.client.post(ALICE, headers=STRICT), 503, "scheduler-unavailable")
    assert (await quiet.client.get(ALICE)).json()["total"] == 0
