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
        ("/services/sync/users/alice/tasks?a=%FF", 422, "invalid-request"),
        ("/services/sync/users/alice/tasks?=x", 422, "invalid-request"),
        ("/services/sync/users/alice/tasks?" + _many(101), 422, "invalid-request"),
        ("/services/sync/users/alice/tasks?" + _many(5000), 414, "query-too-long"),
    ],
)  # fmt: skip
async def test_bad_names_and_queries_are_refused(
    quiet: Frontend, path: str, status: int, slug: str
) -> None:
    is_problem(await quiet.client.post(API + path), status, slug)


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
