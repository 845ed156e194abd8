"""The edge in place: hosts, other sites' pages, request ids, defects, a store that is away."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import psutil
import pytest

from tests.support.frontend import (
    ALICE,
    API,
    REDIS_NOWHERE,
    TOKEN,
    Frontend,
    eventually,
    make_settings,
    running_frontend,
    served_frontend,
)
from tests.support.servers import quiet_port, valkey


@pytest.fixture
async def quiet(dms_redis_url: str) -> AsyncGenerator[Frontend]:
    async with running_frontend(make_settings(dms_redis_url), dispatching=False) as frontend:
        yield frontend


async def test_a_strange_host_is_refused_with_the_remedy(quiet: Frontend) -> None:
    response = await quiet.client.get("/healthz", headers={"Host": "evil.example.org"})
    assert response.status_code == 421
    assert "DMS_ALLOWED_HOSTS" in response.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", ALICE),
        ("POST", f"{API}/services/sync/tasks/1/cancel?user_id=alice"),
        ("POST", f"{API}/services/sync/tasks/1/retry?user_id=alice"),
        ("DELETE", f"{API}/services/sync/tasks/1?user_id=alice"),
        ("POST", f"{API}/admin/tasks/1/cancel"),
        ("POST", f"{API}/admin/services/sync/pause"),
        ("DELETE", f"{API}/admin/tasks/1"),
    ],
)
@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.org"}, {"Sec-Fetch-Site": "cross-site"}]
)
async def test_pages_of_other_sites_cannot_write(
    quiet: Frontend, method: str, path: str, headers: dict[str, str]
) -> None:
    headers = headers | {"X-Operator-Token": TOKEN}
    response = await quiet.client.request(method, path, headers=headers)
    assert response.status_code == 403
    assert (await quiet.client.get(ALICE)).json()["total"] == 0


async def test_own_pages_can_write_and_others_can_read_no_more_than_curl(quiet: Frontend) -> None:
    own = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    assert (await quiet.client.post(ALICE, headers=own)).status_code == 202
    read = await quiet.client.get(ALICE, headers={"Origin": "https://evil.org"})
    assert "access-control-allow-origin" not in read.headers


async def test_request_ids_are_kept_when_sane(quiet: Frontend) -> None:
    sane = await quiet.client.get("/healthz", headers={"X-Request-ID": "trace-0123.abc"})
    assert sane.headers["x-request-id"] == "trace-0123.abc"
    for odd in ("x", "a" * 200, "with space!", '"quoted"'):
        made = await quiet.client.get("/healthz", headers={"X-Request-ID": odd})
        assert made.headers["x-request-id"] != odd
    assert sane.headers["x-content-type-options"] == "nosniff"


async def test_a_defect_is_a_problem_without_its_details(
    quiet: Frontend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("canary-77")

    monkeypatch.setattr(type(quiet.container.api.tasks), "users", broken)
    response = await quiet.client.get(f"{API}/services/sync/users")
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert "canary-77" not in response.text
    assert response.json()["request_id"] == response.headers["x-request-id"]


async def test_every_store_route_is_503_without_a_store() -> None:
    settings = make_settings(REDIS_NOWHERE, redis_timeout_seconds=0.5)
    async with running_frontend(settings) as frontend:
        client = frontend.client
        headers = {"X-Operator-Token": TOKEN}
        task = f"{API}/services/sync/tasks/1"
        for method, path in (
            ("GET", ALICE),
            ("POST", ALICE),
            ("GET", f"{API}/services/sync/users"),
            ("GET", f"{task}?user_id=alice"),
            ("GET", f"{task}/logs?user_id=alice"),
            ("GET", f"{task}/logs?user_id=alice&follow=true"),
            ("POST", f"{task}/cancel?user_id=alice"),
            ("POST", f"{task}/retry?user_id=alice"),
            ("DELETE", f"{task}?user_id=alice"),
            ("GET", f"{API}/events?service=sync&user_id=alice"),
            ("GET", f"{API}/admin/tasks"),
            ("GET", f"{API}/admin/services/sync/tasks"),
            ("GET", f"{API}/services/sync/users/alice/counts"),
            ("GET", f"{API}/admin/counts"),
            ("GET", f"{API}/admin/services"),
            ("GET", f"{API}/admin/services/sync"),
            ("POST", f"{API}/admin/services/sync/pause"),
            ("POST", f"{API}/admin/services/sync/drain"),
            ("POST", f"{API}/admin/services/sync/resume"),
            ("POST", f"{API}/admin/tasks/1/cancel"),
            ("DELETE", f"{API}/admin/tasks/1"),
        ):
            response = await client.request(method, path, headers=headers)
            assert response.status_code == 503, (method, path, response.text)
            assert response.json()["type"] == "urn:dms:problem:store-unavailable"
            assert response.headers["retry-after"] == "2"
        assert (await client.get(f"{API}/help")).status_code == 200


@pytest.mark.parametrize("warm", [True, False])
async def test_a_silent_store_costs_each_request_its_time_out_and_no_more(
    tmp_path: Path, warm: bool
) -> None:
    """A stopped server takes connections and answers nothing; 40 requests at once must not queue
    behind each other for 40 time-outs (80 s). Then it goes on, and so do we."""
    port = quiet_port()
    with valkey(tmp_path, port) as url:
        pid = _server_pid(port)
        settings = make_settings(url)
        async with running_frontend(settings, dispatching=False) as frontend:
            if warm:
                await frontend.submit()
            os.kill(pid, signal.SIGSTOP)
            try:
                begun = time.monotonic()
                posts = (frontend.client.post(f"{ALICE}?n={n}") for n in range(40))
                answers = await asyncio.gather(*posts)
                took = time.monotonic() - begun
            finally:
                os.kill(pid, signal.SIGCONT)
            assert {answer.status_code for answer in answers} == {503}
            assert took < 30

            async def accepted() -> bool:
                return (await frontend.client.post(ALICE)).status_code == 202

            # The attempt to connect that all of them shared may be the last to be given up.
            await eventually(accepted)


def _server_pid(port: int) -> int:
    for connection in psutil.net_connections("tcp4"):
        listens = connection.status == "LISTEN" and connection.laddr
        if listens and listens.port == port and connection.pid:
            return connection.pid
    raise AssertionError(f"nobody listens on {port}")


async def test_a_large_body_is_answered_over_a_real_socket(dms_redis_url: str) -> None:
    """The client is still sending when the answer is known: it must see it, not a reset."""

    async def parts() -> AsyncGenerator[bytes]:
        for _ in range(64):
            yield b"x" * 65536

    json_type = {"Content-Type": "application/json"}
    async with served_frontend(make_settings(dms_redis_url)) as frontend:
        for _ in range(5):
            sized = await frontend.client.post(ALICE, content=b"x" * 4_194_304, headers=json_type)
            assert sized.status_code == 413
            chunked = await frontend.client.post(ALICE, content=parts(), headers=json_type)
            assert chunked.status_code == 413


async def test_a_client_that_goes_away_while_sending_is_no_defect(
    dms_redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with served_frontend(make_settings(dms_redis_url)) as frontend:
        _, writer = await asyncio.open_connection("127.0.0.1", frontend.client.base_url.port)
        head = f"POST {ALICE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(head.encode() + b"Content-Length: 1000\r\n\r\n{")
        await writer.drain()
        writer.close()
        await eventually(lambda: "Request served" in caplog.messages)
    assert "A request met a defect" not in caplog.messages


async def test_a_follower_that_takes_nothing_is_let_go(
    dms_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place among the streams is another's; what it has not taken fills no memory."""
    monkeypatch.setattr("app.api.responses._SEND_SECONDS", 0.5)
    async with served_frontend(make_settings(dms_redis_url)) as frontend:
        repository = await frontend.container.provider.get_repository()
        task_id = await frontend.submit()
        line = "2025-11-17T10:00:16+09:00," + "x" * 60_000
        for _ in range(30):
            await repository.append_logs(task_id, [line] * 20)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", frontend.client.base_url.port, limit=1024
        )
        url = f"{API}/services/sync/tasks/{task_id}/logs?user_id=alice&follow=true"
        writer.write(f"GET {url} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        try:
            assert b" 200 " in await reader.readline()  # it follows, and takes no more
            gauge = frontend.container.metrics.registry.get_sample_value
            await eventually(lambda: gauge("dms_live_streams") == 0)
        finally:
            writer.close()
