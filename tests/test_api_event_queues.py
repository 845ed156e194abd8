"""The operator's routes to the event broker: queues, dead letters, replay, discard, groups."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import asdict
from typing import Any

import pytest

from app.client import EventQueue
from app.event_system.infrastructure import RedisBroker
from app.services import event_queues
from tests.support.client_faces import FACES, FaceName, face_of
from tests.support.events import (
    Numbered,
    eventually,
    numbered,
    numbers_of,
    publish,
    queue_of,
    take,
    take_acked,
)
from tests.support.frontend import (
    API,
    OPERATOR,
    REDIS_NOWHERE,
    TOKEN,
    Frontend,
    is_problem,
    make_settings,
    running_frontend,
    served_frontend,
)

QUEUES = f"{API}/admin/queues"
LETTERS = f"{API}/admin/dead-letters"


@pytest.fixture
async def broker(dms_redis_url: str) -> AsyncGenerator[RedisBroker]:
    async with RedisBroker(dms_redis_url, timeout=60) as opened:
        yield opened


async def bury(
    broker: RedisBroker, *numbers: int, pattern: str = "numbers.*", group: str = "team"
) -> None:
    """Let these events die in a group."""
    topic = pattern.replace("*", "all")
    consumer = broker.consumer()
    subscription = await consumer.subscribe(pattern, Numbered, group=group, max_deliveries=1)
    await publish(broker.publisher(), *numbers, topic=topic)
    for _ in numbers:
        delivery = await take(subscription)
        delivery.nack(f"{delivery.event.number}번은 안 됩니다")
    await subscription.flush()
    await subscription.close()


async def get(quiet: Frontend, url: str, **params: Any) -> dict[str, Any]:
    answer = await quiet.client.get(url, params=params, headers=OPERATOR)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def settle(quiet: Frontend, how: str, **body: Any) -> dict[str, Any]:
    answer = await quiet.client.post(f"{LETTERS}/{how}", json=body, headers=OPERATOR)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def ids(quiet: Frontend) -> list[str]:
    return [letter["id"] for letter in (await get(quiet, LETTERS))["dead_letters"]]


async def test_queues_are_listed_and_groups_dropped(quiet: Frontend, broker: RedisBroker) -> None:
    assert (await get(quiet, QUEUES)) == {"queues": []}
    await bury(broker, 1)
    lone = await broker.consumer().subscribe("logs.**")
    await publish(broker.publisher(), 2, 3)
    first, second = (await get(quiet, QUEUES))["queues"]
    assert first["pattern"] == "logs.**"
    assert (first["group"], first["members"]) == (None, 1)
    assert second == {
        "pattern": "numbers.*",
        "group": "team",
        "members": 0,
        "waiting": 2,
        "unsettled": 0,
        "dropped": 0,
        "dead": 1,
    }
    named = {"pattern": "numbers.*", "group": "team"}
    gone = await quiet.client.delete(QUEUES, params=named, headers=OPERATOR)
    assert (gone.status_code, gone.json()) == (200, named)
    again = await quiet.client.delete(QUEUES, params=named, headers=OPERATOR)
    assert "numbers.*" in is_problem(again, 404, "group-not-found")["detail"]
    await lone.close()
    assert (await get(quiet, QUEUES)) == {"queues": []}


async def test_letters_are_listed_page_by_page(quiet: Frontend, broker: RedisBroker) -> None:
    await bury(broker, 1, 2, 3)
    first = await get(quiet, LETTERS, limit=2)
    letter = first["dead_letters"][0]
    assert letter["reason"] == "1번은 안 됩니다"
    assert (letter["pattern"], letter["group"], letter["topic"]) == (
        "numbers.*",
        "team",
        "numbers.all",
    )
    assert Numbered.model_validate_json(letter["payload"]).number == 1
    assert (letter["type"], letter["deliveries"]) == (Numbered.type_name, 1)
    rest = await get(quiet, LETTERS, limit=2, cursor=first["next_cursor"])
    assert [each["reason"][0] for each in rest["dead_letters"]] == ["3"]
    assert rest["next_cursor"] is None


async def test_large_letters_make_short_pages(quiet: Frontend, broker: RedisBroker) -> None:
    subscription = await broker.consumer().subscribe("big.*", group="team", max_deliveries=1)
    publisher = broker.publisher()
    for number in range(30):
        await publisher.publish("big.one", numbered(number, "big.one", "x" * 100_000))
        (await take(subscription)).nack("no")
    await subscription.flush()
    page = await get(quiet, LETTERS, limit=200)
    assert len(page["dead_letters"]) == 20
    rest = await get(quiet, LETTERS, limit=200, cursor=page["next_cursor"])
    assert (len(rest["dead_letters"]), rest["next_cursor"]) == (10, None)


async def test_letters_are_replayed_and_discarded_by_id(
    quiet: Frontend, broker: RedisBroker
) -> None:
    await bury(broker, 1, 2, 3)
    one, two, three = await ids(quiet)
    assert await settle(quiet, "replay", ids=[one, one, "1-1"]) == {"count": 1, "left": None}
    assert await settle(quiet, "discard", ids=[two, one]) == {"count": 1, "left": None}
    assert await ids(quiet) == [three]
    subscription = await broker.consumer().subscribe("numbers.*", Numbered, group="team")
    assert numbers_of(await take_acked(subscription, 1)) == [1]


async def test_all_of_a_pattern_or_a_group(quiet: Frontend, broker: RedisBroker) -> None:
    await bury(broker, 1, 2)
    await bury(broker, 3, group="other")
    await bury(broker, 4, pattern="primes.*")
    assert (await settle(quiet, "replay", all=True, pattern="numbers.*", group="team"))[
        "count"
    ] == 2
    assert (await queue_of(broker, "numbers.*", "team")).waiting >= 2
    assert len(await ids(quiet)) == 2
    assert await settle(quiet, "discard", all=True, group="team") == {"count": 1, "left": None}
    assert await settle(quiet, "discard", all=True) == {"count": 1, "left": None}
    assert await ids(quiet) == []


async def test_letters_of_a_group_that_is_gone_stay(quiet: Frontend, broker: RedisBroker) -> None:
    await bury(broker, 1)
    await broker.drop_group("numbers.*", "team")
    assert await settle(quiet, "replay", all=True) == {"count": 0, "left": None}
    assert len(await ids(quiet)) == 1


@pytest.mark.parametrize("name", FACES)
async def test_the_client_goes_on_until_all_are_done(
    name: FaceName,
    dms_redis_url: str,
    broker: RedisBroker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each request settles one step here, and what dies again meanwhile is not settled anew."""
    monkeypatch.setattr(event_queues, "_SWEEP_SECONDS", 0.0)
    monkeypatch.setattr(event_queues, "_STEP", 2)
    await bury(broker, *range(7))
    async with served_frontend(make_settings(dms_redis_url)) as frontend:
        base = str(frontend.client.base_url).rstrip("/") + API
        async with face_of(name, base, token=TOKEN) as face:
            assert len((await face.call("dead_letters")).letters) == 7
            assert await face.call("event_queues") == [await _as_shown(broker, "numbers.*", "team")]
            poison = asyncio.create_task(_refuse_all(broker))
            try:
                assert await face.call("replay_dead_letters", everything=True) == 7
                await eventually(lambda: _buried(broker, 7))
            finally:
                poison.cancel()
                await asyncio.gather(poison, return_exceptions=True)
            page = await face.call("dead_letters", limit=1)
            assert page.next_cursor == page.letters[0].letter_id
            chosen = [page.letters[0].letter_id]
            assert await face.call("discard_dead_letters", chosen) == 1
            assert await face.call("discard_dead_letters", pattern="numbers.*") == 6
            await face.call("drop_event_group", "numbers.*", "team")
            assert await face.call("event_queues") == []


async def _as_shown(broker: RedisBroker, pattern: str, group: str) -> Any:
    return EventQueue(**asdict(await queue_of(broker, pattern, group)))


async def _refuse_all(broker: RedisBroker) -> None:
    subscription = await broker.consumer().subscribe(
        "numbers.*", Numbered, group="team", max_deliveries=1
    )
    async for delivery in subscription:
        delivery.nack("again")


async def _buried(broker: RedisBroker, count: int) -> bool:
    return await broker.dead_count() == count


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"ids": []},
        {"ids": ["x"]},
        {"ids": ["99999999999999999999-0"]},
        {"ids": ["1-1"], "all": True},
        {"ids": ["1-1"], "pattern": "a"},
        {"all": False, "pattern": "a"},
        {"all": True, "part": {"after": "nonsense", "remaining": 5}},
        {"all": True, "part": {"after": "", "remaining": -1}},
        {"all": True, "colour": "red"},
        {"ids": "1-1"},
        {"ids": ["1-1"] * 201},
    ],
)
async def test_a_body_that_means_nothing_is_refused(quiet: Frontend, body: Any) -> None:
    for how in ("replay", "discard"):
        answer = await quiet.client.post(f"{LETTERS}/{how}", json=body, headers=OPERATOR)
        is_problem(answer, 422, "invalid-request")


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("GET", f"{LETTERS}?limit=0"),
        ("GET", f"{LETTERS}?limit=201"),
        ("GET", f"{LETTERS}?cursor=x"),
        ("GET", f"{QUEUES}?pattern=a"),
        ("DELETE", QUEUES),
        ("DELETE", f"{QUEUES}?pattern=a"),
        ("DELETE", f"{QUEUES}?pattern=a..b&group=team"),
        ("DELETE", f"{QUEUES}?pattern=a&group=~lone"),
        ("DELETE", f"{QUEUES}?pattern=a:b&group=team"),
    ],
)
async def test_options_that_mean_nothing_are_refused(
    quiet: Frontend, method: str, url: str
) -> None:
    answer = await quiet.client.request(method, url, headers=OPERATOR)
    is_problem(answer, 422, "invalid-request")


async def test_operators_alone_may(quiet: Frontend) -> None:
    for method, url in (
        ("GET", QUEUES),
        ("DELETE", f"{QUEUES}?pattern=a&group=b"),
        ("GET", LETTERS),
        ("POST", f"{LETTERS}/replay"),
        ("POST", f"{LETTERS}/discard"),
    ):
        answer = await quiet.client.request(method, url)
        is_problem(answer, 401, "not-authenticated")


async def test_without_redis_the_answer_is_503() -> None:
    settings = make_settings(REDIS_NOWHERE)
    async with running_frontend(settings, dispatching=False) as frontend:
        for url in (QUEUES, LETTERS):
            answer = await frontend.client.get(url, headers=OPERATOR)
            is_problem(answer, 503, "broker-unavailable")
        body = {"all": True}
        answer = await frontend.client.post(f"{LETTERS}/replay", json=body, headers=OPERATOR)
        is_problem(answer, 503, "broker-unavailable")
