"""Fixtures that several test files share; the root conftest registers them."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from app.event_system import Subscription
from app.event_system.infrastructure import RedisBroker
from app.services.webhooks import WebhookReceived
from tests.support.frontend import Frontend, make_settings, running_frontend
from tests.support.scheduler_stub import SchedulerStub, scheduler_stub
from tests.support.webhooks import webhooks_file


@pytest.fixture
async def quiet(dms_redis_url: str) -> AsyncGenerator[Frontend]:
    """A frontend that dispatches nothing: what is submitted stays PENDING."""
    async with running_frontend(make_settings(dms_redis_url), dispatching=False) as frontend:
        yield frontend


@pytest.fixture
async def stub() -> AsyncGenerator[SchedulerStub]:
    """A scheduler that answers what the test tells it to."""
    async with scheduler_stub() as server:
        yield server


@pytest.fixture
async def hooks(dms_redis_url: str, tmp_path: Path) -> AsyncGenerator[Frontend]:
    """A frontend with the webhooks of `tests.support.webhooks`."""
    settings = make_settings(
        dms_redis_url, webhooks_file=webhooks_file(tmp_path), redis_timeout_seconds=30
    )
    async with running_frontend(settings) as running:
        yield running


@pytest.fixture
async def hook_events(dms_redis_url: str) -> AsyncGenerator[Subscription[WebhookReceived]]:
    """All events that webhooks publish."""
    async with RedisBroker(dms_redis_url, timeout=30) as broker:
        yield await broker.consumer().subscribe("**", WebhookReceived, group="test")
