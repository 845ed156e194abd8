"""`uvicorn app.main:app` as a process of its own, to be killed, stopped and started again."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx2

from tests.support.frontend import NOWHERE, TOKEN, eventually
from tests.support.servers import quiet_port


class FrontendProcess:
    """A frontend process; `output` is what it wrote, once it has ended."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port
        self.api_prefix = f"http://localhost:{port}/api/v1"
        self.output = ""

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal unless it has ended, wait for the end, and return the exit status."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        out, _ = await self.process.communicate()
        self.output += out.decode()
        assert self.process.returncode is not None
        return self.process.returncode

    async def answers(self) -> bool:
        """Whether it is ready; fails when the process has ended."""
        assert self.process.returncode is None, "the frontend ended"
        async with httpx2.AsyncClient(trust_env=False) as client:
            try:
                ready = await client.get(f"http://127.0.0.1:{self.port}/readyz")
            except httpx2.TransportError:
                return False
        return ready.status_code == 200


def _environment(redis_url: str, settings: dict[str, str]) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("DMS_")}
    return own | {
        "DMS_REDIS_WRITE_URL": redis_url,
        "DMS_SCHEDULER_BASE_URL": NOWHERE,
        "DMS_OPERATOR_TOKEN": TOKEN,
        **settings,
    }


@asynccontextmanager
async def frontend_process(redis_url: str, **settings: str) -> AsyncGenerator[FrontendProcess]:
    """A frontend that is ready, with further `DMS_` variables; ended at the end of the block."""
    port = quiet_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "uvicorn", "app.main:app", "--host", "0.0.0.0", "--port", str(port),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=_environment(redis_url, settings),
    )  # fmt: skip
    frontend = FrontendProcess(process, port)
    try:
        await eventually(frontend.answers, timeout=60)
        yield frontend
    finally:
        if process.returncode is None:
            await frontend.end()
