"""The frontend under test: in this process with a client, or behind a real uvicorn."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import httpx2
import uvicorn

from app.core.config import Settings
from app.main import create_app
from app.services_container import ServiceContainer

TOKEN = "a-token-of-the-operators-own"
# Nothing listens there: port 1 needs privileges and belongs to a service that nobody runs.
NOWHERE = "http://127.0.0.1:1"
REDIS_NOWHERE = "redis://127.0.0.1:1/0"


def make_settings(redis_url: str, **others: Any) -> Settings:
    """Settings for a test: its own store, its own token, no scheduler unless it names one."""
    values: dict[str, Any] = {
        "redis_write_url": redis_url,
        "redis_read_url": redis_url,
        "scheduler_base_url": NOWHERE,
        "operator_token": TOKEN,
        "request_timeout_seconds": 5.0,
    }
    return Settings(**(values | others))


API = "/api/v1"
ALICE = f"{API}/services/sync/users/alice/tasks"
OPERATOR = {"X-Operator-Token": TOKEN}


def task_url(task_id: str) -> str:
    """The path of a task of the service `sync`."""
    return f"{API}/services/sync/tasks/{task_id}"


def is_problem(response: httpx2.Response, status: int, slug: str) -> dict[str, Any]:
    """Check that an answer is a whole problem of that kind, and return its body."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["type"] == f"urn:dms:problem:{slug}"
    assert body["status"] == status
    assert body["request_id"] == response.headers["x-request-id"]
    assert body["title"]
    assert body["detail"]
    assert body["instance"].startswith("/")
    return body


def is_pydantics(text: str) -> bool:
    """Whether a message has pydantic's own wording, which says no remedy."""
    words = ("should ", "Field required", "Extra inputs", "valid ", "unable to", "Value error")
    return any(word in text for word in words)


class Frontend:
    """A running frontend, its parts, and a client that talks to it."""

    def __init__(self, container: ServiceContainer, client: httpx2.AsyncClient) -> None:
        self.container = container
        self.client = client

    async def submit(self, service: str = "sync", user: str = "alice", **parameters: str) -> str:
        """Submit a task and return its id."""
        response = await self.client.post(
            f"/api/v1/services/{service}/users/{user}/tasks", params=parameters
        )
        assert response.status_code == 202, response.text
        return response.json()["task_id"]

    async def task(
        self, task_id: str, service: str = "sync", user: str = "alice"
    ) -> dict[str, Any]:
        """The task as the API shows it."""
        response = await self.client.get(
            f"/api/v1/services/{service}/tasks/{task_id}", params={"user_id": user}
        )
        assert response.status_code == 200, response.text
        return response.json()["task"]


@contextmanager
def logging_restored() -> Generator[None]:
    """A frontend takes over the process's logs; the next test shall not inherit that."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


@asynccontextmanager
async def running_frontend(
    settings: Settings, *, dispatching: bool = True, client_host: str = "127.0.0.1"
) -> AsyncGenerator[Frontend]:
    """The application with its lifespan, called in this process without a socket.

    Without `dispatching` submitted tasks stay PENDING: the lifespan does not run.
    """
    container = ServiceContainer(settings)
    app = create_app(container=container)
    transport = httpx2.ASGITransport(app=app, client=(client_host, 50000))
    async with AsyncExitStack() as stack:
        stack.enter_context(logging_restored())
        client = httpx2.AsyncClient(transport=transport, base_url="http://localhost")
        await stack.enter_async_context(client)
        if dispatching:
            await stack.enter_async_context(app.router.lifespan_context(app))
        else:
            stack.push_async_callback(container.provider.close)
            stack.push_async_callback(container.scheduler.close)
            stack.push_async_callback(container.broker.close)
        yield Frontend(container, client)


class _Server(uvicorn.Server):
    """uvicorn in the test's own loop, which leaves the process's signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@asynccontextmanager
async def served_frontend(settings: Settings) -> AsyncGenerator[Frontend]:
    """The application behind a real uvicorn on a free loopback port, for what needs a socket."""
    container = ServiceContainer(settings)
    config = uvicorn.Config(
        create_app(container=container), log_config=None, timeout_graceful_shutdown=5
    )
    server = _Server(config)
    with socket.socket() as listener, logging_restored():
        listener.bind(("127.0.0.1", 0))
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            async with httpx2.AsyncClient(base_url=base, timeout=20, trust_env=False) as client:
                await eventually(lambda: server.started)
                yield Frontend(container, client)
        finally:
            container.live.close_streams()
            server.should_exit = True
            await serving


async def eventually(condition: Any, *, timeout: float = 30.0) -> Any:
    """The first true value of a condition (a function, async or not); fails after `timeout` s."""
    async with asyncio.timeout(timeout):
        while True:
            value = condition()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return value
            await asyncio.sleep(0.02)
