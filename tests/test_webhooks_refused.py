"""Webhooks over HTTP: who does not get in, and what is not read."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.event_system import Subscription
from app.services.webhooks import WebhookReceived
from tests.support.frontend import (
    API,
    Frontend,
    is_problem,
    make_settings,
    served_frontend,
)
from tests.support.webhook_calls import accepted, counted, published, send, tasks
from tests.support.webhooks import (
    GITHUB_SECRET,
    STANDARD_SECRET,
    TOKEN_SECRET,
    Sent,
    as_json,
    by_github,
    by_standard,
    by_token,
    webhooks_file,
)

# ----------------------------------------------------------------------------------------- refusing


def _refusable(name: str) -> Sent:
    return {"deploys": by_github, "orders": by_standard, "simple": by_token}[name]()


def _wrong(name: str) -> dict[str, Sent]:
    good = _refusable(name)
    proof = {
        "deploys": "X-Hub-Signature-256",
        "orders": "webhook-signature",
        "simple": "Authorization",
    }[name]
    value = good.headers[proof]
    others = {
        "missing": good.without(proof),
        "empty": Sent(good.body, {**good.headers, proof: ""}),
        "cut": Sent(good.body, {**good.headers, proof: value[:-1]}),
        "longer": Sent(good.body, {**good.headers, proof: value + "0"}),
        "upper": Sent(good.body, {**good.headers, proof: value.upper()}),
        "not ASCII": Sent(good.body, {**good.headers, proof: value + "한"}),
        "word": Sent(good.body, {**good.headers, proof: "sha256"}),
        "commas": Sent(good.body, {**good.headers, proof: "v1,,,v1, v1"}),
    }
    if name != "simple":
        others["tampered"] = Sent(good.body + b" ", good.headers)
        others["no body"] = Sent(b"", good.headers)
    return others


@pytest.mark.parametrize("name", ["deploys", "orders", "simple"])
async def test_the_wrong_sender_is_refused_like_a_webhook_that_there_is_not(
    hooks: Frontend, hook_events: Subscription[WebhookReceived], name: str
) -> None:
    unknown = await send(hooks, "nobody-has-it", _refusable(name))
    shown = _told(unknown)
    assert "nobody" not in shown["detail"]
    assert unknown.headers["www-authenticate"] == "Webhook"
    for what, sent in _wrong(name).items():
        answer = await send(hooks, name, sent)
        is_problem(answer, 401, "not-authenticated")
        assert _told(answer) == shown, what
        assert _heads(answer) == _heads(unknown), what
    assert await published(hooks, hook_events) == []
    assert await tasks(hooks) == []
    assert counted(hooks, name, "refused") == len(_wrong(name))
    assert counted(hooks, "(unknown)", "refused") == 1


def _told(answer: httpx2.Response) -> dict[str, Any]:
    told = is_problem(answer, 401, "not-authenticated")
    return {key: value for key, value in told.items() if key not in {"request_id", "instance"}}


def _heads(answer: httpx2.Response) -> dict[str, str]:
    ours = {"x-request-id", "content-length", "date"}
    return {key: value for key, value in answer.headers.items() if key not in ours}


@pytest.mark.parametrize("name", ["%00", "한글", "a b", "..", "x" * 5000, "simple%0a", "Simple"])
async def test_odd_names_are_unknown(hooks: Frontend, name: str) -> None:
    answer = await send(hooks, name, by_token())
    assert answer.status_code in ({404} if name == ".." else {401})


async def test_two_lines_of_a_header_are_refused(hooks: Frontend) -> None:
    sent = by_github()
    headers = [*sent.headers.items(), ("x-hub-signature-256", "sha256=" + "0" * 64)]
    url = f"{API}/webhooks/deploys/trigger"
    answer = await hooks.client.post(url, content=sent.body, headers=headers)
    is_problem(answer, 401, "not-authenticated")


@pytest.mark.parametrize("late", [-400, -301.5, 390, 4000])
async def test_an_old_or_early_timestamp_is_refused(hooks: Frontend, late: float) -> None:
    answer = await send(hooks, "orders", by_standard(at=time.time() + late))
    is_problem(answer, 401, "not-authenticated")


@pytest.mark.parametrize("late", [-200, 200])
async def test_clocks_may_differ_a_little(hooks: Frontend, late: float) -> None:
    await accepted(hooks, "orders", by_standard(at=time.time() + late))


async def test_a_secret_of_before_the_rotation_still_opens(hooks: Frontend) -> None:
    await accepted(hooks, "simple", by_token(token="another-token-of-old-days"))
    wrong = await send(hooks, "simple", by_token(token="another-token-of-all-days"))
    is_problem(wrong, 401, "not-authenticated")


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.org"}, {"Sec-Fetch-Site": "cross-site"}]
)
async def test_a_web_page_gets_nowhere_and_a_server_that_names_an_origin_does(
    hooks: Frontend, headers: dict[str, str]
) -> None:
    sent = by_github()
    page = Sent(sent.body, {"Content-Type": "text/plain", **headers})
    is_problem(await send(hooks, "plain", page), 401, "not-authenticated")
    await accepted(hooks, "plain", Sent(sent.body, {**sent.headers, **headers}))
    other = await hooks.client.post(f"{API}/webhooks/plain/trigger/", headers=headers)
    assert other.status_code == 403


async def test_the_host_must_be_ours(hooks: Frontend) -> None:
    sent = by_github().with_headers(Host="evil.example.org")
    assert (await send(hooks, "plain", sent)).status_code == 421


# ------------------------------------------------------------------------- right sender, wrong body


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{", "application/json", 422),
        (b"[]", "application/json", 422),
        (b"null", "application/json", 422),
        (b'{"a": NaN}', "application/json", 422),
        (b'{"a": "\\ud800"}', "application/json", 422),
        (b'{"a": 1, "a": 2}', "application/json", 422),
        (b"\xff\xfe{}", "application/json", 422),
        ("{}".encode("utf-16"), "application/json", 422),
        (b'{"a":' * 200_000, "application/json", 422),
        (b"[" * 40 + b"]" * 40, "application/json", 422),
        (b"{}", "text/plain", 415),
        (b"{}", "application/x-www-form-urlencoded", 422),
        (b"payload=%ff", "application/x-www-form-urlencoded", 422),
        (b"payload={}&payload={}", "application/x-www-form-urlencoded", 422),
    ],
)
async def test_a_body_that_means_nothing_is_told_to_the_right_sender_alone(
    hooks: Frontend, body: bytes, content_type: str, status: int
) -> None:
    sent = by_github(body).with_headers(Content_Type=content_type)
    answer = await send(hooks, "deploys", sent)
    assert answer.status_code == status, answer.text
    stranger = by_github(body, secret="x" * 20).with_headers(Content_Type=content_type)
    is_problem(await send(hooks, "deploys", stranger), 401, "not-authenticated")
    assert counted(hooks, "deploys", "invalid") == 1
    assert await tasks(hooks) == []


async def test_a_payload_without_what_the_task_needs(
    hooks: Frontend, hook_events: Subscription[WebhookReceived]
) -> None:
    answer = await send(hooks, "deploys", by_github(as_json({"repository": None})))
    detail = is_problem(answer, 422, "invalid-request")["detail"]
    assert "task.parameters.src" in detail
    assert "payload.repository.full_name" in detail
    assert await published(hooks, hook_events) == []


@pytest.mark.parametrize("name", ["X-GitHub-Delivery", "X-GitHub-Event"])
async def test_a_delivery_that_says_not_which(hooks: Frontend, name: str) -> None:
    for sent in (by_github().without(name), by_github().with_headers(**{name: "x" * 300})):
        assert (
            name in is_problem(await send(hooks, "plain", sent), 422, "invalid-request")["detail"]
        )


async def test_a_payload_that_no_event_can_carry_does_nothing_at_all(
    hooks: Frontend, hook_events: Subscription[WebhookReceived]
) -> None:
    body = as_json({"repository": {"full_name": "a"}, "x": "x" * (2**20 - 300)})
    assert len(body) < 2**20
    is_problem(await send(hooks, "deploys", by_github(body)), 413, "body-too-large")
    assert await published(hooks, hook_events) == []
    assert await tasks(hooks) == []


async def test_secrets_are_nowhere(
    hooks: Frontend,
    hook_events: Subscription[WebhookReceived],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level("DEBUG")
    shown = ""
    for name in ("deploys", "orders", "simple"):
        for sent in (_refusable(name), *_wrong(name).values(), Sent(b"{", by_github(b"{").headers)):
            shown += (await send(hooks, name, sent)).text
    shown += (await hooks.client.get("/metrics")).text
    shown += json.dumps(hooks.container.settings.masked())
    shown += "".join(event.model_dump_json() for event in await published(hooks, hook_events))
    shown += repr(vars(hooks.container.webhooks))
    captured = capsys.readouterr()
    shown += caplog.text + captured.out + captured.err
    assert "webhook.refused" in shown or "was refused" in shown
    for secret in (GITHUB_SECRET, STANDARD_SECRET.removeprefix("whsec_"), TOKEN_SECRET):
        assert secret not in shown


# ------------------------------------------------------------------------------------- real sockets


async def _raw(hooks: Frontend, head: str, body: bytes) -> bytes:
    """What a server on a socket answers to these bytes."""
    port = hooks.client.base_url.port
    with socket.create_connection(("127.0.0.1", port or 0), timeout=60) as connection:
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(connection, head.replace("\n", "\r\n").encode("latin-1") + body)
        async with asyncio.timeout(60):
            return await loop.sock_recv(connection, 65536)


async def test_on_a_real_socket(dms_redis_url: str, tmp_path: Path) -> None:
    """Bodies in pieces, too large ones, and heads that two readers read in two ways."""
    settings = make_settings(
        dms_redis_url, webhooks_file=webhooks_file(tmp_path), redis_timeout_seconds=30
    )

    async def pieces(body: bytes) -> AsyncGenerator[bytes]:
        for start in range(0, len(body), 7):
            yield body[start : start + 7]

    async def endless() -> AsyncGenerator[bytes]:
        for _ in range(64):
            yield b"x" * 65536

    async with served_frontend(settings) as hooks:
        url = f"{API}/webhooks/deploys/trigger"
        sent = by_github(delivery="d-1")
        headers = dict(sent.headers)
        whole = await accepted(hooks, "deploys", sent)
        chunked = await hooks.client.post(url, content=pieces(sent.body), headers=headers)
        assert chunked.json() == whole
        for content in (b"x" * 4_194_304, endless()):
            large = await hooks.client.post(url, content=content, headers=headers)
            is_problem(large, 413, "body-too-large")
        lines = "".join(f"{key}: {value}\n" for key, value in headers.items())
        head = f"POST {url} HTTP/1.1\nHost: localhost\n{lines}"
        size = f"Content-Length: {len(sent.body)}\n"
        both = head + size + "Transfer-Encoding: chunked\n\n"
        assert (await _raw(hooks, both, b"0\r\n\r\n")).startswith(b"HTTP/1.1 400")
        twice = head + size + size.replace("Length: ", "Length: 1") + "\n"
        assert (await _raw(hooks, twice, sent.body)).startswith(b"HTTP/1.1 400")
        odd = head.replace("sha256=", "sha256=\xe9\xff") + size + "\n"
        assert (await _raw(hooks, odd, sent.body)).startswith(b"HTTP/1.1 401")
        assert (await _raw(hooks, head + size + "\n", sent.body)).startswith(b"HTTP/1.1 202")
        assert len(await tasks(hooks)) == 1
