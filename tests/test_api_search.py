"""Searching and counting tasks over HTTP: every option, what contradicts itself, whose tasks."""

from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest

from task_state import TaskRecord, TaskStatus
from task_state.repository import RedisTaskRepository
from task_state.timezone import now
from tests.support.frontend import (
    ALICE,
    API,
    OPERATOR,
    Frontend,
    is_problem,
    is_pydantics,
    make_settings,
    running_frontend,
    task_url,
)

ALL = f"{API}/admin/tasks"
COPIES = f"{API}/admin/services/copy/tasks"
STATUSES = [status.value for status in TaskStatus]
NONE = dict.fromkeys(STATUSES, 0)


async def found(frontend: Frontend, query: str, path: str = ALL) -> list[str]:
    """The ids that a search answers, in their order."""
    answer = await frontend.client.get(f"{path}?{query}", headers=OPERATOR)
    assert answer.status_code == 200, answer.text
    return [task["task_id"] for task in answer.json()["tasks"]]


async def refused(frontend: Frontend, query: str, path: str = ALL) -> str:
    """What the refusal of a query says."""
    answer = await frontend.client.get(f"{path}?{query}", headers=OPERATOR)
    return is_problem(answer, 422, "invalid-request")["detail"]


# ----------------------------------------------------------------------------------- the options


async def test_each_option_narrows_the_search(quiet: Frontend) -> None:
    a = await quiet.submit(src="/pvs/One")
    b = await quiet.submit(service="copy", user="bob", name="한글 이름")
    c = await quiet.submit(service="copy")
    cancelled = await quiet.client.post(f"{task_url(a)}/cancel?user_id=alice")
    assert cancelled.status_code == 200
    shown = await quiet.task(a)
    created, updated = quote(shown["created_at"]), quote(shown["updated_at"])
    for query, wanted in (
        ("", [c, b, a]),
        (f"id={b}", [b]),
        ("id=nobody", []),
        ("type=copy", [c, b]),
        ("service=copy", [c, b]),
        ("type=copy&service=copy", [c, b]),
        ("user_id=alice", [c, a]),
        ("service=copy&user_id=alice", [c]),
        ("status=cancelled", [a]),
        ("status=PENDING&status=Cancelled", [c, b, a]),
        ("status=pending,%20CANCELLED", [c, b, a]),
        ("status=FAILED", []),
        ("q=PVS/one", [a]),
        ("q=" + quote("한글"), [b]),
        ("q=" + quote("없다"), []),
        (f"created_after={created}", [c, b, a]),
        (f"created_before={created}", []),
        (f"created_after={created}&status=PENDING", [c, b]),
        (f"updated_before={updated}", [c, b]),
        (f"updated_after={updated}", [a]),
        ("sort=created_at&order=asc", [a, b, c]),
        ("sort=createdAt", [c, b, a]),
        ("sort=updated_at", [a, c, b]),
        ("sort=updatedAt&order=ASC", [b, c, a]),
        ("sort=UPDATED_AT&order=Desc", [a, c, b]),
        ("sort=UpdatedAt", [a, c, b]),
        ("sort=ID&order=aSc", [a, b, c]),
        ("sort=id&order=asc", [a, b, c]),
        ("sort=id", [c, b, a]),
        ("offset=1", [b, a]),
        ("offset=1&limit=1", [b]),
        ("offset=1000000", []),
    ):  # fmt: skip
        assert await found(quiet, query) == wanted, query


async def test_a_path_narrows_it_too_and_agrees_with_the_options(quiet: Frontend) -> None:
    mine = await quiet.submit()
    copy = await quiet.submit(service="copy")
    other = await quiet.submit(service="copy", user="bob")
    assert await found(quiet, "", COPIES) == [other, copy]
    assert await found(quiet, "service=copy&user_id=bob", COPIES) == [other]
    assert await found(quiet, "type=sync&user_id=alice", ALICE) == [mine]
    assert await found(quiet, f"id={other}", ALICE) == []
    for path, query, names in (
        (ALL, "type=sync&service=copy", ("type", "'sync'", "service", "'copy'")),
        (COPIES, "type=sync", ("path", "'copy'", "type", "'sync'")),
        (COPIES, "service=sync", ("path", "'copy'", "service", "'sync'")),
        (ALICE, "type=copy", ("path", "'sync'", "type", "'copy'")),
        (ALICE, "user_id=bob", ("path", "'alice'", "user_id", "'bob'")),
    ):
        detail = await refused(quiet, query, path)
        assert all(name in detail for name in names), detail


async def test_a_time_without_an_offset_is_in_the_configured_zone(
    quiet: Frontend, dms_repository: RedisTaskRepository
) -> None:
    noon = now().replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=2)
    await dms_repository.save(
        TaskRecord(task_id="noon", service="sync", user_id="alice", created_at=noon)
    )
    naive = noon.replace(tzinfo=None).isoformat()
    after = (noon + timedelta(seconds=1)).replace(tzinfo=None).isoformat()
    utc = (noon - (noon.utcoffset() or timedelta())).replace(tzinfo=None).isoformat()
    assert await found(quiet, f"created_after={naive}&created_before={after}") == ["noon"]
    assert await found(quiet, f"created_after={after}") == []
    assert await found(quiet, f"created_after={utc}Z&created_before={after}") == ["noon"]
    assert await found(quiet, f"created_after={noon.date()}") == ["noon"]


# ------------------------------------------------------------------------------------------ pages


@pytest.mark.parametrize("path", [ALL, COPIES, f"{API}/services/copy/users/alice/tasks"])
async def test_the_link_leads_from_page_to_page(quiet: Frontend, path: str) -> None:
    ids = [await quiet.submit(service="copy", n=str(n)) for n in range(5)]
    url: str | None = f"{path}?limit=2&status=PENDING&status=FAILED&order=asc&type=copy&offset=1"
    seen: list[str] = []
    while url:
        answer = await quiet.client.get(url, headers=OPERATOR)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert body["total"] == 5
        seen += [task["task_id"] for task in body["tasks"]]
        link = answer.headers.get("link")
        assert (link is None) == (body["next_cursor"] is None)
        if link is not None:
            assert link.startswith(f"<{path}?")
            assert link.endswith('>; rel="next"')
            assert "offset" not in link
        url = link[1 : link.index(">")] if link else None
    assert seen == ids[1:]


async def test_a_korean_search_goes_on_by_its_link(quiet: Frontend) -> None:
    ids = [await quiet.submit(name=f"한글 & {n}") for n in range(3)]
    await quiet.submit(name="other")
    first = await quiet.client.get(f"{ALICE}?limit=2&q={quote('한글 &')}")
    assert [task["task_id"] for task in first.json()["tasks"]] == [ids[2], ids[1]]
    link = first.headers["link"]
    second = await quiet.client.get(link[1 : link.index(">")])
    assert [task["task_id"] for task in second.json()["tasks"]] == [ids[0]]


async def test_a_cursor_serves_its_own_order_alone(quiet: Frontend) -> None:
    for _ in range(3):
        await quiet.submit()
    cursor = (await quiet.client.get(f"{ALICE}?limit=1")).json()["next_cursor"]
    assert await found(quiet, f"cursor={cursor}")
    for query in ("order=asc", "sort=id", "sort=updated_at"):
        assert "cursor" in await refused(quiet, f"cursor={cursor}&{query}")
    for wrong in (cursor[:-1], cursor[:-4], cursor[1:], cursor + "A", cursor + "%3D", cursor * 2):
        assert "cursor=" in await refused(quiet, f"cursor={wrong}"), wrong
    detail = await refused(quiet, f"cursor={cursor}&offset=1")
    assert "cursor" in detail
    assert "offset" in detail


async def test_a_page_leaves_out_what_is_long(
    quiet: Frontend, dms_repository: RedisTaskRepository
) -> None:
    long = "길다" * 2000
    body = {"parameters": {"list": [long], "n": 1}}
    made = (await quiet.client.post(ALICE, json=body)).json()["task_id"]
    await dms_repository.update_result(made, data={"value": long}, error="short")
    for path in (ALL, ALICE, f"{API}/admin/services/sync/tasks"):
        answer = await quiet.client.get(path, headers=OPERATOR)
        (task,) = answer.json()["tasks"]
        assert (task["parameters"], task["result"]["data"]) == ({}, None)
        assert sorted(task["omitted"]) == ["parameters", "result.data"]
        assert task["result"]["error"] == "short"
        assert len(answer.content) < 2000
    whole = await quiet.task(made)
    assert (whole["parameters"], whole["omitted"]) == (body["parameters"], [])
    assert whole["result"]["data"] == {"value": long}
    retried = await quiet.client.post(f"{task_url(made)}/cancel?user_id=alice")
    assert retried.status_code == 200
    again = await quiet.client.post(f"{task_url(made)}/retry?user_id=alice")
    assert (await quiet.task(again.json()["task_id"]))["parameters"] == body["parameters"]


# ---------------------------------------------------------------------------- what is no search


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("statuss=FAILED", ("'statuss'", "'FAILED'", "status")),
        ("=x", ("''", "'x'")),
        ("limit=1&limit=2", ("limit", "2 times", "'1', '2'")),
        ("q=a&q=b", ("q", "2 times")),
        ("service=a&service=a", ("service", "2 times")),
        ("status=", ("status is empty",)),
        ("status=FAILED,", ("status: 'FAILED,' has a comma too many",)),
        ("status=,", ("status: ',' has a comma too many",)),
        ("createdAfter=2026-01-01", ("'createdAfter'", "did you mean created_after?")),
        ("create_after=2026-01-01", ("'create_after'", "did you mean created_after?")),
        ("user=alice", ("'user'", "did you mean user_id?")),
        ("foo=alice", ("'foo'='alice' is no option of this route: use id, type",)),
        ("id=..", ("id: '..' is no task's id", "not dots alone")),
        ("service=..", ("service: '..' is no name", "not dots alone")),
        ("user_id=.", ("user_id: '.' is no name", "not dots alone")),
        ("q=", ("q is empty",)),
        ("q=%20", ("q",)),
        ("q=%00", ("q",)),
        ("q=a%00b", ("q",)),
        ("q=" + "x" * 257, ("q", "256")),
        ("q=" + "x" * 10_000, ("q", "256")),
        ("q=%FF", ("UTF-8",)),
        ("q=%ED%A0%80", ("UTF-8",)),
        ("id=", ("id is empty",)),
        ("id=a%20b", ("id", "'a b'")),
        ("id=" + "x" * 129, ("id",)),
        ("id=a%0A", ("id",)),
        ("service=a:b", ("service", "'a:b'")),
        ("type=*", ("type", "'*'")),
        ("user_id=a/b", ("user_id", "'a/b'")),
        ("user_id=" + quote("철수"), ("user_id", "'철수'")),
        ("status=GONE", ("status", "'GONE'", "CANCEL_REQUESTED")),
        ("status=PENDING;FAILED", ("status", "'PENDING;FAILED'")),
        ("created_after=yesterday", ("created_after", "'yesterday'", "ISO 8601")),
        ("created_after=2026", ("created_after", "'2026'", "ISO 8601")),
        ("created_after=2026-02-30", ("created_after", "'2026-02-30'")),
        ("created_after=2026-11-21T09:00:00+09:00", ("created_after", "%2B")),
        ("updated_before=99999-01-01", ("updated_before",)),
        ("created_after=2026-02-02&created_before=2026-02-01", ("created_",)),
        ("created_after=2026-02-02&created_before=2026-02-02", ("created_",)),
        ("updated_after=2026-02-02&updated_before=2026-02-01", ("updated_",)),
        ("sort=user_id", ("sort", "'user_id'", "created_at")),
        ("sort=id&order=up", ("order", "'up'", "asc")),
        ("limit=0", ("limit: '0' is too small: 1 is the least",)),
        ("limit=201", ("limit: '201' is too large: 200 is the most",)),
        ("limit=1e9", ("limit: '1e9' is no whole number",)),
        ("limit=" + "9" * 5000, ("limit",)),
        ("offset=-1", ("offset", "'-1'", "0")),
        ("offset=1000001", ("offset", "'1000001'", "1000000")),
        ("offset=99999999999999999999", ("offset",)),
        ("offset=1&cursor=YQ", ("cursor",)),
        ("cursor=junk", ("cursor",)),
        ("cursor=%00", ("cursor",)),
        ("cursor=" + "a" * 513, ("cursor", "512")),
        ("cursor=" + quote("한글"), ("cursor",)),
    ],
)  # fmt: skip
async def test_an_option_that_makes_no_sense_is_named(
    quiet: Frontend, query: str, named: tuple[str, ...]
) -> None:
    for path in (ALL, ALICE):
        detail = await refused(quiet, query, path)
        assert all(name in detail for name in named), detail
        assert len(detail) < 500
        assert not is_pydantics(detail), detail


async def test_thousands_of_statuses_are_one_answer(quiet: Frontend) -> None:
    task_id = await quiet.submit()
    assert await found(quiet, "status=" + ",".join(["PENDING"] * 1500)) == [task_id]
    assert await found(quiet, "&".join(["status=failed"] * 1100)) == []
    too_long = await quiet.client.get(f"{ALICE}?status=" + ",".join(["FAILED"] * 8_000))
    is_problem(too_long, 414, "query-too-long")


# ----------------------------------------------------------------------------------------- counts


async def test_counts_of_everything_a_service_and_a_user(quiet: Frontend) -> None:
    first = await quiet.submit()
    await quiet.submit(user="bob")
    await quiet.submit(service="copy")
    await quiet.client.post(f"{task_url(first)}/cancel?user_id=alice")

    async def counts(path: str) -> dict[str, Any]:
        answer = await quiet.client.get(f"{API}{path}", headers=OPERATOR)
        assert answer.status_code == 200, answer.text
        assert list(answer.json()["by_status"]) == STATUSES
        return answer.json()

    some = NONE | {"PENDING": 2, "CANCELLED": 1}
    assert await counts("/admin/counts") == {
        "total": 3,
        "by_status": some,
        "by_service": {"copy": 1, "sync": 2},
        "by_user": None,
    }
    assert await counts("/admin/counts?service=sync") == {
        "total": 2,
        "by_status": NONE | {"PENDING": 1, "CANCELLED": 1},
        "by_service": {"sync": 2},
        "by_user": {"alice": 1, "bob": 1},
    }
    assert await counts("/admin/counts?user_id=alice") == {
        "total": 2,
        "by_status": NONE | {"PENDING": 1, "CANCELLED": 1},
        "by_service": {"copy": 1, "sync": 1},
        "by_user": None,
    }
    alices = {
        "total": 1,
        "by_status": NONE | {"CANCELLED": 1},
        "by_service": {"sync": 1},
        "by_user": {"alice": 1},
    }
    assert await counts("/admin/counts?service=sync&user_id=alice") == alices
    assert await counts("/services/sync/users/alice/counts") == alices
    nothing = await counts("/services/none/users/nobody/counts")
    assert (nothing["total"], nothing["by_status"]) == (0, NONE)


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("service=", "service is empty"),
        ("service=a:b", "'a:b'"),
        ("user_id=a%00", "user_id"),
        ("user_id=a&user_id=b", "2 times"),
        ("status=FAILED", "'status'"),
    ],
)
async def test_counts_refuse_what_makes_no_sense(quiet: Frontend, query: str, named: str) -> None:
    assert named in await refused(quiet, query, f"{API}/admin/counts")
    for path in ("users/alice/counts", "users"):
        detail = await refused(quiet, "user_id=alice", f"{API}/services/sync/{path}")
        assert "'user_id'" in detail


# -------------------------------------------------------------------------------------- who asks


@pytest.mark.parametrize("path", ["/admin/tasks?q=x", "/admin/counts", "/admin/counts?bad=1"])
async def test_an_operators_search_needs_the_token_before_anything_else(
    quiet: Frontend, path: str
) -> None:
    is_problem(await quiet.client.get(API + path), 401, "not-authenticated")


async def test_another_users_id_is_found_like_a_missing_one(quiet: Frontend) -> None:
    bobs = await quiet.submit(user="bob", name="secret")
    await quiet.submit()
    nothing: dict[str, Any] = {"tasks": [], "next_cursor": None, "total": 0}
    for task_id in (bobs, "missing"):
        for query in ("", "&status=PENDING", "&q=secret", "&sort=id&offset=0"):
            answer = await quiet.client.get(f"{ALICE}?id={task_id}{query}")
            assert answer.json() == nothing, query
            assert "link" not in answer.headers


async def test_behind_a_proxy_nobody_counts_or_searches_anothers_tasks(dms_redis_url: str) -> None:
    settings = make_settings(dms_redis_url, user_header="X-Auth-User")
    async with running_frontend(settings, dispatching=False) as frontend:
        get = frontend.client.get
        counts = f"{API}/services/sync/users/alice/counts"
        await frontend.client.post(ALICE, headers={"X-Auth-User": "alice"})
        for path in (counts, ALICE):
            assert (await get(path, headers={"X-Auth-User": "alice"})).json()["total"] == 1
            is_problem(await get(path, headers={"X-Auth-User": "bob"}), 403, "forbidden")
            is_problem(await get(path), 401, "not-authenticated")


async def test_a_status_is_read_in_any_case_and_shown_in_the_schema(quiet: Frontend) -> None:
    paths = (await quiet.client.get("/openapi.json")).json()["paths"]
    options = {each["name"]: each for each in paths[ALL]["get"]["parameters"]}
    assert {"id", "type", "service", "user_id", "status", "q", "sort", "offset"} <= options.keys()
    assert not any(each["required"] for each in options.values())
    assert (
        paths[ALL]["get"]["parameters"]
        == paths[COPIES.replace("copy", "{service}")]["get"]["parameters"][1:]
    )
