"""The document's API examples, run with curl and bash against `uvicorn app.main:app`."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import pytest

from tests.support.frontend import TOKEN, eventually
from tests.support.frontend_process import FrontendProcess, frontend_process

# Every command of the document's "Usage examples" that speaks HTTP, as it stands there. The first
# line and the placeholder of the task's id are the two that a reader fills in.
PREAMBLE = 'set -euo pipefail\ncurl() { command curl --silent --show-error "$@"; echo; }\n'
SUBMIT = 'curl -X POST "${api_prefix}/services/sync/users/alice/tasks?input=value"'
SUBMIT_MANY = """
curl -X POST "${api_prefix}/services/sync/users/alice/tasks" \\
  --data "" --get \\
  --data-urlencode "input=value" \\
  --data-urlencode "mode=fast"
"""
STATUS = 'curl "${api_prefix}/services/sync/tasks/${task_id}?user_id=alice"'
USERS = 'curl "${api_prefix}/services/sync/users"'
LIST = 'curl "${api_prefix}/services/sync/users/alice/tasks"'
CANCEL = """
curl -X POST "${api_prefix}/services/sync/tasks/${task_id}/cancel" \\
  --data "" --get --data-urlencode "user_id=alice"
"""
DELETE = 'curl -X DELETE "${api_prefix}/services/sync/tasks/${task_id}?user_id=alice"'
TOKEN_LINE = 'token="$(printenv DMS_OPERATOR_TOKEN)"\n'
ADMIN_LIST = TOKEN_LINE + 'curl "${api_prefix}/admin/tasks" -H "X-Operator-Token: ${token}"'
ADMIN_CANCEL = (
    TOKEN_LINE + 'curl -X POST "${api_prefix}/admin/tasks/${task_id}/cancel" '
    '-H "X-Operator-Token: ${token}"'
)
ADMIN_DELETE = (
    TOKEN_LINE + 'curl -X DELETE "${api_prefix}/admin/tasks/${task_id}" '
    '-H "X-Operator-Token: ${token}"'
)


async def bash(server: FrontendProcess, command: str, task_id: str = "") -> Any:
    """What a command of the document prints, read as JSON."""
    head = f'{PREAMBLE}api_prefix="{server.api_prefix}"\ntask_id="{task_id}"\n'
    running = await asyncio.create_subprocess_exec(
        "bash", "-c", head + command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"DMS_OPERATOR_TOKEN": TOKEN, "no_proxy": "localhost"},
    )  # fmt: skip
    out, err = await running.communicate()
    assert running.returncode == 0, err.decode()
    return json.loads(out)


@pytest.fixture
async def server(dms_redis_url: str) -> AsyncGenerator[FrontendProcess]:
    async with frontend_process(dms_redis_url) as running:
        yield running


async def test_every_curl_of_the_document(server: FrontendProcess) -> None:
    first = await bash(server, SUBMIT)
    assert first["status"] == "PENDING"
    many = await bash(server, SUBMIT_MANY)
    task = (await bash(server, STATUS, many["task_id"]))["task"]
    assert task["parameters"] == {"input": "value", "mode": "fast"}
    assert task["user_id"] == "alice"
    assert await bash(server, USERS) == {"users": ["alice"]}
    listed = await bash(server, LIST)
    assert [t["task_id"] for t in listed["tasks"]] == [many["task_id"], first["task_id"]]
    cancelled = await bash(server, CANCEL, first["task_id"])
    assert cancelled == {"task_id": first["task_id"], "status": "CANCELLED"}
    deleted = await bash(server, DELETE, first["task_id"])
    assert deleted == {"task_id": first["task_id"], "deleted": True}
    everything = await bash(server, ADMIN_LIST)
    assert [t["task_id"] for t in everything["tasks"]] == [many["task_id"]]
    ended = await bash(server, ADMIN_CANCEL, many["task_id"])
    assert ended["status"] == "CANCELLED"
    cleaned = await bash(server, ADMIN_DELETE, many["task_id"])
    assert cleaned["deleted"] is True
    gone = await bash(server, STATUS, many["task_id"])
    assert (gone["status"], gone["type"]) == (404, "urn:dms:problem:task-not-found")


async def test_log_entries_look_as_the_document_says(server: FrontendProcess) -> None:
    """`2025-11-17T10:00:16.515926+09:00,Dispatching to scheduler`: Seoul, unless told otherwise."""
    made = await bash(server, SUBMIT)
    task = await eventually(lambda: _dispatching(server, made["task_id"]))
    stamp, _, message = task["logs"][0].partition(",")
    assert message == "Dispatching to scheduler"
    assert stamp.endswith("+09:00")
    assert len(stamp) == len("2025-11-17T10:00:16.515926+09:00")


async def _dispatching(server: FrontendProcess, task_id: str) -> Any:
    task = (await bash(server, STATUS, task_id))["task"]
    return task if task["logs"] else None


async def test_the_server_logs_json_and_ends_with_a_stream_open(dms_redis_url: str) -> None:
    async with frontend_process(dms_redis_url) as server:
        made = await bash(server, SUBMIT)
        await bash(server, DELETE, made["task_id"])
        url = f"{server.api_prefix}/events"
        headers = {"X-Operator-Token": TOKEN}
        async with (
            httpx2.AsyncClient(trust_env=False, timeout=60) as client,
            client.stream("GET", url, headers=headers) as stream,
        ):
            assert stream.status_code == 200
            server.process.send_signal(signal.SIGTERM)
            async for _ in stream.aiter_bytes():
                pass
        status = await asyncio.wait_for(server.end(), 30)
    assert status in {0, -signal.SIGTERM}
    lines = [json.loads(line) for line in server.output.splitlines() if line.startswith("{")]
    actions = {line.get("action") for line in lines}
    assert {"frontend.start", "http.request", "frontend.stop"} <= actions
    assert TOKEN not in server.output


async def test_bytes_that_could_be_read_in_two_ways_are_refused(server: FrontendProcess) -> None:
    """Content-Length beside Transfer-Encoding: what a proxy may have let through (smuggling)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        b"POST /api/v1/services/sync/users/alice/tasks HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
    )
    await writer.drain()
    answer = await asyncio.wait_for(reader.readline(), 20)
    writer.close()
    assert answer.split(b" ")[1] == b"400"
