"""Tells Redis which deliveries were settled: all that were meanwhile, in one round trip."""

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from typing import Final

from app.event_system.domain.errors import ClosedError
from app.event_system.infrastructure._redis_link import Argument, Link

log = logging.getLogger(__name__)

PAUSES: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds between tries while Redis is away; the last for ever."""
MOST_REASON: Final = 2000


@dataclass(slots=True)
class _Outcome:
    """How deliveries ended: entry ids, and for refusals the script's arguments."""

    acks: list[str] = field(default_factory=list[str])
    nacks: dict[str, tuple[Argument, ...]] = field(default_factory=dict[str, tuple[Argument, ...]])

    def __len__(self) -> int:
        return len(self.acks) + len(self.nacks)


class Settling:
    """Collects outcomes and sends them in the background, again and again while Redis is away."""

    def __init__(self, link: Link, queue_id: str) -> None:
        self._link = link
        self._queue_id = queue_id
        self._next = _Outcome()
        self._sent = _Outcome()
        self._task: asyncio.Task[None] | None = None

    def ack(self, key: str) -> None:
        """The entry is done."""
        self._next.acks.append(key)
        self._start()

    def nack(self, key: str, deliveries: int, reason: str, *, dead: bool) -> None:
        """The entry is to be delivered again, or is a dead letter."""
        plain = reason[:MOST_REASON].encode(errors="backslashreplace")
        self._next.nacks[key] = (key, int(dead), deliveries, plain)
        self._start()

    def unsent(self) -> set[str]:
        """The entries whose outcome Redis may not know yet."""
        outcomes = (self._next, self._sent)
        return {key for one in outcomes for key in (*one.acks, *one.nacks)}

    async def flush(self) -> None:
        """Wait until Redis knows all that was settled so far."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def close(self) -> None:
        """Try for as long as one call may take to tell what is left."""
        if self._task is None:
            return
        await asyncio.wait({self._task}, timeout=self._link.timeout)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def _start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._send_all(), name="events.settle")

    async def _send_all(self) -> None:
        tries = 0
        while self._next or self._sent:
            if not self._sent:
                self._sent, self._next = self._next, _Outcome()
            try:
                await self._send(self._sent)
            except ClosedError:
                return  # of the broker: a later member gets these again
            except Exception as error:
                if not tries:
                    extra = {"action": "events.settle.failed", "queue": self._queue_id}
                    log.warning(
                        "Settled events wait", extra=extra | {"reason": str(error)}, exc_info=error
                    )
                await asyncio.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
                tries += 1
            else:
                self._sent = _Outcome()
                tries = 0

    async def _send(self, outcome: _Outcome) -> None:
        nacks = [argument for one in outcome.nacks.values() for argument in one]
        arguments: list[Argument] = [len(outcome.acks), *outcome.acks, *nacks]
        await self._link.run("settle", self._queue_id, *arguments)
