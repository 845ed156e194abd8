"""Live views over a real socket: followed logs, changes, limits, and an end that does not hang."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from app.services.live import EVERYTHING, QUEUE_SIZE, Subscription
from task_state import TaskStatus
from task_state.changes import Change
from task_state.managed import ManagedTasks
from task_state.repository import RedisTaskRepository
from tests.support.frontend import (
    API,
    OPERATOR,
    Frontend,
    eventually,
    make_settings,
    served_frontend,
)


@pytest.fixture
async def served(dms_redis_url: str) -> AsyncGenerator[Frontend]:
    async with served_frontend(make_settings(dms_redis_url)) as frontend:
        yield frontend


class Events:
    """The events of one stream, one after another."""

    def __init__(self, response: httpx2.Response) -> None:
        self._lines: AsyncIterator[str] = response.aiter_lines()

    async def next(self) -> dict[str, str]:
        """The next event that is not a comment alone; empty at the end of the stream."""
        event: dict[str, str] = {}
        async with asyncio.timeout(20):
            async for line in self._lines:
                if not line and "event" in event:
                    return event
                name, _, value = line.partition(": ")
                if line and name:
                    event[name] = value
        return {}


@asynccontextmanager
async def following(frontend: Frontend, url: str, **options: Any) -> AsyncGenerator[Events]:
    async with frontend.client.stream("GET", API + url, **options) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield Events(response)


def _logs(task_id: str) -> str:
    return f"/services/sync/tasks/{task_id}/logs?user_id=alice"


async def test_a_log_is_followed_to_its_end(
    served: Frontend, dms_repository: RedisTaskRepository, dms_managed: ManagedTasks
) -> None:
    task_id = await served.submit()
    await eventually(lambda: _has_lines(served, task_id))  # the dispatcher's
    await dms_managed.begin(task_id, 1, worker="w", log_entry="begun")
    before = (await served.task(task_id))["logs_total"]
    headers = {"Accept": "text/event-stream"}
    async with following(served, _logs(task_id), headers=headers) as events:
        for number in range(1, before + 1):
            assert (await events.next())["id"] == str(number)
        for n in range(3):
            await dms_repository.append_log(task_id, f"line {n}")
            event = await events.next()
            assert event["event"] == "log"
            assert json.loads(event["data"])["line"].endswith(f",line {n}")
            assert json.loads(event["data"])["n"] == before + n + 1 == int(event["id"])
        await dms_managed.finish(task_id, 1, TaskStatus.COMPLETED, log_entry="done")
        assert json.loads((await events.next())["data"])["line"].endswith(",done")
        end = await events.next()
        assert (end["event"], json.loads(end["data"])) == ("end", {"status": "COMPLETED"})
        assert await events.next() == {}


async def test_following_goes_on_after_the_last_line_seen(
    served: Frontend, dms_repository: RedisTaskRepository
) -> None:
    task_id = await served.submit()
    await eventually(lambda: _has_lines(served, task_id))
    await served.client.post(f"{API}/services/sync/tasks/{task_id}/cancel?user_id=alice")
    for n in range(1200):
        await dms_repository.append_log(task_id, f"line {n}")
    total = (await served.task(task_id))["logs_total"]
    url = _logs(task_id) + "&follow=true"
    async with following(served, url, headers={"Last-Event-ID": "2"}) as events:
        for number in range(3, total + 1):
            assert (await events.next())["id"] == str(number)
        assert (await events.next())["event"] == "end"


async def _has_lines(frontend: Frontend, task_id: str) -> bool:
    return (await frontend.task(task_id))["logs_total"] >= 2


async def test_a_followed_task_that_is_deleted_ends(served: Frontend) -> None:
    task_id = await served.submit()
    async with following(served, _logs(task_id) + "&follow=true") as events:
        await served.client.delete(f"{API}/services/sync/tasks/{task_id}?user_id=alice")
        while (event := await events.next())["event"] == "log":
            pass
    assert event["event"] == "end"


async def test_a_user_follows_own_changes_only(served: Frontend) -> None:
    async with following(served, "/events?service=sync&user_id=alice") as events:
        await served.submit(user="bob")
        await served.submit(service="copy")
        mine = await served.submit()
        event = await events.next()
        assert event["event"] == "task.created"
        data = json.loads(event["data"])
        assert data == {
            "kind": "created",
            "task_id": mine,
            "service": "sync",
            "user_id": "alice",
            "status": "PENDING",
        }


async def test_the_operator_follows_all_and_resumes(served: Frontend) -> None:
    async with following(served, "/events", headers=OPERATOR) as events:
        first = await served.submit(user="bob")
        event = await _created(events)
        assert json.loads(event["data"])["task_id"] == first
    missed = [await served.submit(user=f"user-{n}") for n in range(5)]
    headers = OPERATOR | {"Last-Event-ID": event["id"]}
    async with following(served, "/events", headers=headers) as events:
        for task_id in missed:
            assert json.loads((await _created(events))["data"])["task_id"] == task_id
        new = await served.submit(user="late")
        assert json.loads((await _created(events))["data"])["task_id"] == new


async def _created(events: Events) -> dict[str, str]:
    while (event := await events.next())["event"] != "task.created":
        pass
    return event


@pytest.mark.parametrize(
    ("url", "headers", "status"),
    [
        ("/events", {}, 422),
        ("/events?service=sync", {}, 422),
        ("/events?user_id=alice", OPERATOR, 422),
        ("/events", {"X-Operator-Token": "wrong"}, 401),
        ("/events?service=sync&user_id=alice", {"Last-Event-ID": "x"}, 422),
        ("/events?service=sync&user_id=a b", {}, 422),
        ("/services/sync/tasks/1/logs?user_id=alice&follow=true", {}, 404),
    ],
)
async def test_bad_followers_are_refused(
    served: Frontend, url: str, headers: dict[str, str], status: int
) -> None:
    response = await served.client.get(API + url, headers=headers)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"


async def test_streams_are_limited_and_their_places_given_back(served: Frontend) -> None:
    live = served.container.live
    live._max = 1  # pyright: ignore[reportPrivateUsage]
    url = "/events?service=sync&user_id=alice"
    async with following(served, url):
        refused = await served.client.get(API + url)
        assert refused.status_code == 503
        assert refused.json()["type"].endswith("too-many-streams")
    await eventually(lambda: live._count == 0)  # pyright: ignore[reportPrivateUsage]
    async with following(served, url):
        pass


async def test_stopping_ends_open_streams(dms_redis_url: str) -> None:
    async with served_frontend(make_settings(dms_redis_url)) as frontend:
        async with following(frontend, "/events", headers=OPERATOR) as events:
            frontend.container.live.close_streams()
            assert await events.next() == {}
        refused = await frontend.client.get(API + "/events", headers=OPERATOR)
        assert refused.status_code == 503


async def test_a_slow_subscriber_loses_and_learns_of_it() -> None:
    subscription = Subscription(EVERYTHING, "0-0")
    for n in range(QUEUE_SIZE + 2):
        subscription.push(Change(f"{n}-0", "log", "1", "sync", "alice", TaskStatus.RUNNING))
    assert subscription.lost
    assert [change.change_id for change in await subscription.take(1)] == [
        f"{QUEUE_SIZE}-0",
        f"{QUEUE_SIZE + 1}-0",
    ]
    assert await subscription.take(0.01) == []
    subscription.close()
    assert await subscription.take(60) == []
