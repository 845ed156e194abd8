"""The rescuer: finds tasks whose worker or whose queue entry is lost, and gets them going."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from dms_scheduler.engine import Call, EngineClient, Holding
from task_state import StoreUnavailableError
from task_state.redis import RedisRepositoryProvider

logger = logging.getLogger(__name__)

_PERIOD_SECONDS = 5.0
_GRACE_SECONDS = 10.0
_AWAY_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RescuerSettings:
    """`period` between rounds, `grace` after a lease's end, and the workers' heartbeat; seconds."""

    period_seconds: float = _PERIOD_SECONDS
    grace_seconds: float = _GRACE_SECONDS
    heartbeat_seconds: float = 15.0

    @classmethod
    def of(cls, heartbeat_seconds: float) -> "RescuerSettings":
        """What fits workers with that heartbeat; shorter ones are rescued sooner."""
        return cls(
            period_seconds=min(_PERIOD_SECONDS, heartbeat_seconds / 3),
            grace_seconds=min(_GRACE_SECONDS, heartbeat_seconds * 2 / 3),
            heartbeat_seconds=heartbeat_seconds,
        )


class Rescuer:
    """Runs in the scheduler service and in every worker; the store lets one a period do it.

    `wake` says that tasks were taken back, which wait for a slot again.
    """

    def __init__(
        self,
        provider: RedisRepositoryProvider,
        engine: EngineClient,
        settings: RescuerSettings,
        wake: Callable[[], None],
    ) -> None:
        self._provider = provider
        self._engine = engine
        self._settings = settings
        self._wake = wake

    async def run(self) -> None:
        """One round a period until cancelled; an outage of Redis is waited out."""
        away = False
        while True:
            try:
                await self.round()
                away = False
                await asyncio.sleep(self._settings.period_seconds)
            except StoreUnavailableError as error:
                if not away:
                    logger.warning(
                        "The rescuer waits for Redis",
                        extra={"action": "rescue", "error": str(error)},
                    )
                away = True
                await asyncio.sleep(min(_AWAY_SECONDS, self._settings.period_seconds))
            except Exception:
                # Without a rescuer lost tasks stay lost, so a defect must not end it.
                logger.exception("A round of the rescuer failed", extra={"action": "rescue"})
                await asyncio.sleep(self._settings.period_seconds)

    async def round(self) -> None:
        """Take tasks back from lost workers, then look after the queue entries that are due."""
        await self._rescue()
        await self._look_after_queue()

    async def _rescue(self) -> None:
        managed = await self._provider.get_managed()
        rescued = await managed.rescue(
            grace_seconds=self._settings.grace_seconds,
            period_seconds=self._settings.period_seconds,
            heartbeat_seconds=self._settings.heartbeat_seconds,
        )
        for task in rescued:
            logger.warning(
                "A task was taken back from a lost worker",
                extra={
                    "action": "rescue",
                    "task_id": task.task_id,
                    "epoch": task.epoch,
                    "status": task.status.value,
                },
            )
        if rescued:
            self._wake()

    async def _look_after_queue(self) -> None:
        managed = await self._provider.get_managed()
        calls = [Call(task.task_id, task.epoch) for task in await managed.unqueued()]
        found = await self._engine.look(calls)
        absent = [c for c, held in zip(calls, found, strict=True) if held is Holding.ABSENT]
        stranded = [c for c, held in zip(calls, found, strict=True) if held is Holding.STRANDED]
        await self._engine.enqueue_many(absent)
        await self._engine.enqueue_many(stranded, replace=True)
        for call in absent + stranded:
            logger.warning(
                "A waiting task's queue entry was lost and is made again",
                extra={"action": "rescue.queue", "task_id": call.task_id, "epoch": call.epoch},
            )
