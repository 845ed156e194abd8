"""A process that consumes numbered events: `python -m tests.support.event_consumer JSON`.

It prints a line for each event that it gets, then acknowledges it, unless it is to hold them; the
event of the number `poison` kills it.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from app.event_system.infrastructure import RedisBroker
from tests.support.events import Numbered

ROOT = Path(__file__).resolve().parents[2]


async def _consume(options: dict[str, Any]) -> None:
    async with RedisBroker(options["url"], lease_seconds=options["lease"], timeout=60) as broker:
        subscription = await broker.consumer().subscribe(
            "numbers.**", Numbered, group=options["group"], max_deliveries=options["most"]
        )
        print("ready", flush=True)
        async for delivery in subscription:
            print(delivery.event.number, flush=True)
            if delivery.event.number == options["poison"]:
                os.kill(os.getpid(), signal.SIGKILL)
            if not options["hold"]:
                delivery.ack()


class EventConsumer:
    """`with EventConsumer(url) as consumer:` runs one; leaving kills it if it still lives."""

    def __init__(
        self,
        url: str,
        *,
        group: str | None = "team",
        lease: float = 1.0,
        hold: bool = False,
        poison: int = -1,
        most: int = 5,
    ) -> None:
        options = {"url": url, "group": group, "lease": lease, "hold": hold}
        text = json.dumps(options | {"poison": poison, "most": most})
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.event_consumer", text],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()

    async def line(self) -> str:
        """The next line that it prints; empty when it has ended."""
        assert self.process.stdout
        return (await asyncio.to_thread(self.process.stdout.readline)).strip()

    async def ready(self) -> None:
        """Wait until it has subscribed."""
        assert await self.line() == "ready"

    async def ended(self) -> int:
        """Wait for its end; its exit code."""
        return await asyncio.to_thread(self.process.wait)


if __name__ == "__main__":
    asyncio.run(_consume(json.loads(sys.argv[1])))
