"""What the accept rate is compared with: one FastAPI route that does one SET, and nothing else."""

import os
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None]:
    app.state.redis = Redis.from_url(
        os.environ["DMS_REDIS_WRITE_URL"], retry=Retry(NoBackoff(), 0), max_connections=512
    )
    yield
    await app.state.redis.aclose()


app = FastAPI(lifespan=_lifespan)


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    """Says that the process serves."""
    return {"status": "ok"}


@app.post("/api/v1/services/{service}/users/{user_id}/tasks", status_code=202)
async def create(service: str, user_id: str) -> dict[str, str]:
    """One SET, as small as an accepted task can be."""
    task_id = uuid.uuid4().hex
    await app.state.redis.set(f"bare:{task_id}", f"{service} {user_id}")
    return {"task_id": task_id, "status": "PENDING"}
