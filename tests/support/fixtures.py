"""Fixtures that several test files share; the root conftest registers them."""

from collections.abc import AsyncGenerator

import pytest

from tests.support.frontend import Frontend, make_settings, running_frontend
from tests.support.scheduler_stub import SchedulerStub, scheduler_stub


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
