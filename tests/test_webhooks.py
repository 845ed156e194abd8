"""Webhooks over HTTP: what a delivery does, and that it does it once."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.core.errors import ConfigurationError
from app.event_system import Subscription
from app.services.webhook_delivery import identify
from app.services.webhooks import WebhookReceived
from tests.support.frontend import (
    ALICE,
    API,
    OPERATOR,
    Frontend,
    is_problem,
    make_settings,
    running_frontend,
)
from tests.support.webhook_calls import accepted, counted, published, send, tasks
from tests.support.webhooks import (
    PAYLOAD,
    TOKEN_SECRET,
    Sent,
    as_json,
    by_github,
    by_standard,
    by_token,
    webhooks_file,
)

# ------------------------------------------------------------------------------------ taking effect


async def test_a_delivery_of_github_is_an_event_and_a_task(
    hooks: Frontend, hook_events: Subscription[WebhookReceived]
) -> None:
    sent = by_github(delivery="72d3162e-cc78-11e3-81ab-4c9367dc0958").with_headers(x_extra="예")
    body = await accepted(hooks, "deploys", sent)
    task = await hooks.task(body["task_id"])
    assert task["parameters"] == {"src": "/data/octocat/Hello-World", "delete": True}
    assert "Submitted by webhook deploys, delivery 72d3162e-cc78" in task["logs"][0]
    (event,) = await published(hooks, hook_events)
    assert event.topic == "ci.deploys"
    assert event.event_id == body["event_id"]
    assert (event.webhook, event.event, event.task_id) == ("deploys", "push", body["task_id"])
    assert event.delivery == "72d3162e-cc78-11e3-81ab-4c9367dc0958"
    assert event.payload == PAYLOAD
    assert event.headers == {
        "content-type": "application/json",
        "x-github-delivery": event.delivery,
        "x-github-event": "push",
        "x-extra": "예",
    }
    assert counted(hooks, "deploys", "accepted") == 1


async def test_an_event_alone(hooks: Frontend, hook_events: Subscription[WebhookReceived]) -> None:
    body = await accepted(hooks, "plain", by_github())
    assert body["task_id"] is None
    (event,) = await published(hooks, hook_events)
    assert (event.topic, event.task_id) == ("webhooks.plain", None)
    assert await tasks(hooks) == []


async def test_a_standard_webhook(
    hooks: Frontend, hook_events: Subscription[WebhookReceived]
) -> None:
    body = await accepted(hooks, "orders", by_standard(delivery="msg_1"))
    (event,) = await published(hooks, hook_events)
    assert (event.event, event.delivery, event.task_id) == ("order.paid", "msg_1", body["task_id"])
    assert "webhook-signature" not in event.headers
    assert [task["task_id"] for task in await tasks(hooks)] == [body["task_id"]]


async def test_a_program_with_a_token_may_send_nothing_but_it(
    hooks: Frontend, hook_events: Subscription[WebhookReceived]
) -> None:
    url = f"{API}/webhooks/simple/trigger"
    bearer = {"Authorization": f"bearer  {TOKEN_SECRET}"}
    first = await hooks.client.post(url, headers=bearer)
    second = await hooks.client.post(url, headers=bearer)
    assert first.status_code == second.status_code == 202
    assert [event.payload for event in await published(hooks, hook_events)] == [{}, {}]
    assert first.json()["event_id"] != second.json()["event_id"]


async def test_a_form_of_github(
    hooks: Frontend, hook_events: Subscription[WebhookReceived]
) -> None:
    """The content type that GitHub proposes: the JSON is a field of a form."""
    form = str(httpx2.QueryParams({"payload": as_json().decode()})).encode()
    sent = by_github(form).with_headers(Content_Type="application/x-www-form-urlencoded")
    await accepted(hooks, "plain", sent)
    assert [event.payload for event in await published(hooks, hook_events)] == [PAYLOAD]


async def test_numbers_and_texts_survive(
    hooks: Frontend, hook_events: Subscription[WebhookReceived]
) -> None:
    payload: dict[str, Any] = {
        "big": 10**40,
        "half": 0.1,
        "none": None,
        "텍스트": "한글 \x00 \U0001f600",
        "l": [[]],
    }
    await accepted(hooks, "plain", by_github(as_json(payload)))
    (event,) = await published(hooks, hook_events)
    assert event.payload == payload


@pytest.mark.parametrize("event", ["ping", "issues"])
async def test_what_is_not_wanted_has_no_effect(
    hooks: Frontend, hook_events: Subscription[WebhookReceived], event: str
) -> None:
    answer = await send(hooks, "deploys", by_github(event=event))
    assert answer.status_code == 200
    assert answer.json()["event_id"] is answer.json()["task_id"] is None
    assert ("pong" in answer.json()["message"]) == (event == "ping")
    assert await published(hooks, hook_events) == []
    assert await tasks(hooks) == []
    assert counted(hooks, "deploys", "ignored") == 1


# --------------------------------------------------------------------------------------------- once


SIGNED: dict[str, Callable[[], Sent]] = {  # when it is sent, for a signature may grow old
    "deploys": lambda: by_github(delivery="d-1"),
    "orders": lambda: by_standard(delivery="msg_1"),
    "simple": lambda: by_token(delivery="run 17"),
    "plain": lambda: by_github(delivery="d-1"),
    "bodies": by_github,
}


@pytest.mark.parametrize("name", SIGNED)
async def test_fifty_repeats_at_once_do_it_once(
    hooks: Frontend, hook_events: Subscription[WebhookReceived], name: str
) -> None:
    sent = SIGNED[name]()
    answers = await asyncio.gather(*(accepted(hooks, name, sent) for _ in range(50)))
    assert [answer for answer in answers if answer != answers[0]] == []
    assert len(await published(hooks, hook_events)) == 1
    made = [] if answers[0]["task_id"] is None else [answers[0]["task_id"]]
    assert [task["task_id"] for task in await tasks(hooks)] == made
    assert counted(hooks, name, "accepted") == 1
    assert counted(hooks, name, "duplicate") == 49
    status = await hooks.client.get(f"{API}/webhooks/{name}/status", headers=OPERATOR)
    assert status.json() == {"running": True, "trigger_count": 1}


async def test_deliveries_of_other_ids_and_of_other_webhooks_are_others(
    hooks: Frontend, hook_events: Subscription[WebhookReceived]
) -> None:
    sent = by_github(delivery="d-1")
    await accepted(hooks, "deploys", sent)
    await accepted(hooks, "deploys", by_github(delivery="d-2"))
    await accepted(hooks, "plain", sent)
    assert len(await published(hooks, hook_events)) == 3
    assert len(await tasks(hooks)) == 2


async def test_a_captured_delivery_under_a_new_id_is_a_repeat_where_bodies_count(
    hooks: Frontend,
) -> None:
    """GitHub does not sign the delivery's id."""
    first = await accepted(hooks, "bodies", by_github(delivery="d-1"))
    assert await accepted(hooks, "bodies", by_github(delivery="d-2")) == first
    assert len(await tasks(hooks)) == 1


async def test_another_body_under_a_known_id_makes_no_second_task(
    hooks: Frontend, hook_events: Subscription[WebhookReceived]
) -> None:
    await accepted(hooks, "deploys", by_github(delivery="d-1"))
    other = by_github(as_json({"repository": {"full_name": "x/y"}}), delivery="d-1")
    is_problem(await send(hooks, "deploys", other), 422, "idempotency-mismatch")
    assert len(await tasks(hooks)) == 1
    assert len(await published(hooks, hook_events)) == 1


async def test_a_client_cannot_take_the_place_of_a_delivery(
    hooks: Frontend, hook_events: Subscription[WebhookReceived]
) -> None:
    """Whoever submits tasks chooses keys; none of them is a delivery's."""
    sent = by_standard(delivery="order-17")
    call = hooks.container.webhooks.authenticate("orders", sent.lines, sent.body)
    key = identify(call, {}).key
    stolen = await hooks.client.post(ALICE, headers=[(b"idempotency-key", key.encode())])
    is_problem(stolen, 422, "invalid-request")
    spelled = key.replace("→", ":")
    other = await hooks.client.post(ALICE, headers={"Idempotency-Key": spelled})
    body = await accepted(hooks, "orders", sent)
    assert body["task_id"] != other.json()["task_id"]
    assert len(await published(hooks, hook_events)) == 1


async def test_two_frontends_are_one(
    hooks: Frontend, hook_events: Subscription[WebhookReceived]
) -> None:
    settings = hooks.container.settings
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(running_frontend(settings))
        sent = by_github(delivery="d-1")
        both = [accepted(each, "deploys", sent) for each in (hooks, other) * 10]
        answers = await asyncio.gather(*both)
        assert len({answer["task_id"] for answer in answers}) == 1
        total = counted(hooks, "deploys", "accepted") + counted(other, "deploys", "accepted")
        assert total == 1
    assert len(await published(hooks, hook_events)) == 1


async def test_a_draining_service_asks_for_a_repeat_which_then_works(
    hooks: Frontend, hook_events: Subscription[WebhookReceived]
) -> None:
    drain = f"{API}/admin/services/sync/drain"
    assert (await hooks.client.post(drain, headers=OPERATOR)).status_code == 200
    sent = by_github()
    answer = await send(hooks, "deploys", sent)
    is_problem(answer, 503, "webhook-unavailable")
    assert answer.headers["retry-after"]
    assert await published(hooks, hook_events) == []
    resume = f"{API}/admin/services/sync/resume"
    assert (await hooks.client.post(resume, headers=OPERATOR)).status_code == 200
    await accepted(hooks, "deploys", sent)
    assert len(await published(hooks, hook_events)) == 1


# ------------------------------------------------------------------------------------------- around


async def test_the_status_is_for_operators(hooks: Frontend) -> None:
    url = f"{API}/webhooks/plain/status"
    is_problem(await hooks.client.get(url), 401, "not-authenticated")
    shown = await hooks.client.get(url, headers=OPERATOR)
    assert shown.json() == {"running": True, "trigger_count": 0}
    unknown = await hooks.client.get(f"{API}/webhooks/none/status", headers=OPERATOR)
    assert "DMS_WEBHOOKS_FILE" in is_problem(unknown, 404, "webhook-not-found")["detail"]


async def test_help_lists_the_routes(hooks: Frontend) -> None:
    listed = (await hooks.client.get(f"{API}/help")).json()["endpoints"]
    auth = {each["path"]: each["auth"] for each in listed}
    assert auth[f"{API}/webhooks/{{name}}/trigger"] == "the webhook's signature or token"
    assert auth[f"{API}/webhooks/{{name}}/status"] == "X-Operator-Token header"


async def test_a_broken_file_stops_the_start(dms_redis_url: str, tmp_path: Path) -> None:
    broken = webhooks_file(tmp_path, "[webhooks.w]")
    with pytest.raises(ConfigurationError, match=r"\[webhooks\.w\] verify"):
        async with running_frontend(make_settings(dms_redis_url, webhooks_file=broken)):
            pytest.fail("it started")


async def test_without_a_file_every_webhook_is_unknown(dms_redis_url: str) -> None:
    async with running_frontend(make_settings(dms_redis_url)) as hooks:
        is_problem(await send(hooks, "plain", by_github()), 401, "not-authenticated")
