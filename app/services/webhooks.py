"""Webhooks: named API triggers that prove who sends, publish an event, and submit a task.

A delivery takes effect once. Its task is submitted under an idempotency key made of the delivery's
id, then its event is published once under an id made of the same, each in one step of the store:
whatever fails in between, the sender's repeat finds what is done and does what is left.
"""

import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from app.core.errors import (
    BadInputError,
    DmsError,
    MalformedRequestError,
    PayloadTooLargeError,
    UnknownWebhookError,
    UnsupportedBodyError,
    WebhookRefusedError,
    WebhookUnavailableError,
)
from app.core.metrics import Metrics
from app.event_system import EventBase, EventSystemError, PublisherPort
from app.event_system.infrastructure import RedisBroker, RedisPublisher
from app.scheduler import APITrigger, Scheduler, TriggerNotRunningError, create_api_trigger
from app.services.deadline import store_deadline
from app.services.tasks import Scope, TaskService
from app.services.webhook_delivery import Call, Delivery, WebhookReceived, event_of, identify
from app.services.webhook_file import Webhook, WebhookTask, load_webhooks
from app.services.webhook_signatures import GitHubVerifier, Headers
from task_state import TaskStateError
from task_state.errors import IdempotencyMismatchError, InvalidRequestError, ServiceDrainingError
from task_state.managed import IDEMPOTENCY_HOURS

__all__ = ["Answer", "WebhookReceived", "WebhookService", "WebhookStatus"]

log = logging.getLogger(__name__)

UNKNOWN: Final = "(unknown)"
"""The label of calls of webhooks that there are not: what a client chooses is no label."""

_ONCE_SECONDS: Final = IDEMPOTENCY_HOURS * 3600
_MISFITS: Final = (
    BadInputError,
    IdempotencyMismatchError,
    InvalidRequestError,
    MalformedRequestError,
    PayloadTooLargeError,
    UnsupportedBodyError,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a delivery; without an `event_id` it was to have no effect."""

    message: str
    event_id: str | None = None
    task_id: str | None = None


@dataclass(frozen=True, slots=True)
class WebhookStatus:
    """How a webhook is: `trigger_count` deliveries took effect in this process since its start."""

    running: bool
    trigger_count: int


class WebhookService:
    """The webhooks of a file (DMS_WEBHOOKS_FILE). `clock` gives seconds since 1970."""

    def __init__(
        self,
        file: Path | None,
        tasks: TaskService,
        broker: RedisBroker,
        metrics: Metrics,
        *,
        timeout_seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._file = file
        self._tasks = tasks
        self._broker = broker
        self._metrics = metrics
        self._timeout = timeout_seconds
        self._clock = clock
        self._webhooks: Mapping[str, Webhook] = {}
        self._triggers: dict[str, APITrigger[WebhookReceived]] = {}
        self._accepted: Counter[str] = Counter()
        self._scheduler: Scheduler | None = None
        # Who calls a webhook that there is not waits as long as who signs wrongly.
        self._nobody = GitHubVerifier([secrets.token_bytes(32)])

    async def start(self) -> None:
        """Read the file, and take deliveries; raises ConfigurationError."""
        if self._file is None:
            return
        self._webhooks = load_webhooks(self._file)
        self._scheduler = Scheduler(_OncePublisher(self._broker.publisher(), self._count))
        for name, webhook in self._webhooks.items():
            trigger = self._triggers[name] = create_api_trigger(event_of)
            await self._scheduler.register_trigger(name, trigger, webhook.topic)
        await self._scheduler.start()
        log.info(
            "Webhooks are open",
            extra={"action": "webhook.start", "webhooks": sorted(self._webhooks)},
        )

    async def stop(self) -> None:
        """Take no more; those under way end."""
        if self._scheduler is not None:
            await self._scheduler.stop()

    def authenticate(self, name: str, headers: Headers, body: bytes) -> Call:
        """The call, when its sender is the right one. Else, and of a webhook that there is not,
        raises WebhookRefusedError."""
        webhook = self._webhooks.get(name)
        verifier = self._nobody if webhook is None else webhook.verifier
        refusal = verifier.refusal(headers, body, self._clock())
        if webhook is not None and not refusal:
            return Call(webhook, headers, body)
        self._count(UNKNOWN if webhook is None else name, "refused")
        log.warning(
            "A call of a webhook was refused",
            extra={
                "action": "webhook.refused",
                "webhook": name[:64],
                "reason": refusal if webhook else "there is no webhook of that name",
            },
        )
        raise WebhookRefusedError

    async def receive(self, call: Call, read: Callable[[], dict[str, Any]]) -> Answer:
        """Do what the webhook is for; `read` gives the payload of the call's body.

        Raises what `read` does; BadInputError when the delivery lacks what names it or what its
        task is made of; PayloadTooLargeError; IdempotencyMismatchError; and, when the same delivery
        is welcome later, WebhookUnavailableError, StoreUnavailableError, or the broker's errors.
        """
        try:
            delivery = identify(call, read())
            if (reason := delivery.ignored()) is not None:
                self._count(call.webhook.name, "ignored")
                return Answer(reason)
            return await self._take(delivery)
        except (DmsError, TaskStateError, EventSystemError) as error:
            outcome = "invalid" if isinstance(error, _MISFITS) else "unavailable"
            self._count(call.webhook.name, outcome)
            log.warning(
                "A delivery to a webhook took no effect, or half of it: its repeat does the rest",
                extra={
                    "action": f"webhook.{outcome}",
                    "webhook": call.webhook.name,
                    "reason": str(error),
                },
            )
            raise

    def status(self, name: str) -> WebhookStatus:
        """How a webhook is; raises UnknownWebhookError."""
        trigger = self._triggers.get(name)
        if trigger is None:
            raise UnknownWebhookError(name)
        return WebhookStatus(trigger.is_running(), self._accepted[name])

    async def _take(self, delivery: Delivery) -> Answer:
        async with store_deadline(self._timeout):
            if (task := delivery.webhook.task) is not None:
                delivery = replace(delivery, task_id=await self._submit(delivery, task))
            event = await self._publish(delivery)
        return Answer("Event triggered successfully", event.event_id, event.task_id)

    async def _submit(self, delivery: Delivery, task: WebhookTask) -> str:
        name = delivery.webhook.name
        try:
            made = await self._tasks.create(
                Scope(task.service, task.user_id),
                delivery.parameters(task),
                idempotency_key=delivery.key,
                log_entry=f"Submitted by webhook {name}, delivery {delivery.delivery_id}",
            )
        except ServiceDrainingError as error:
            # Senders repeat on a 503, and give up on a 409, which means nothing to them.
            raise WebhookUnavailableError(f"{error}; then repeat the delivery") from error
        return made.task_id

    async def _publish(self, delivery: Delivery) -> WebhookReceived:
        try:
            return await self._triggers[delivery.webhook.name].trigger(delivery)
        except TriggerNotRunningError as error:
            raise WebhookUnavailableError(
                "webhooks are being closed: repeat the delivery in a moment"
            ) from error

    def _count(self, webhook: str, outcome: str) -> None:
        self._metrics.webhook_calls.labels(webhook, outcome).inc()
        if outcome == "accepted":
            self._accepted[webhook] += 1


class _OncePublisher(PublisherPort):
    """Publishes each event once in 24 hours, and tells whether it was the first time."""

    def __init__(self, publisher: RedisPublisher, tell: Callable[[str, str], None]) -> None:
        self._publisher = publisher
        self._tell = tell

    async def publish(self, topic: str, event: EventBase) -> None:
        first = await self._publisher.publish_once(topic, event, seconds=_ONCE_SECONDS)
        if isinstance(event, WebhookReceived):
            self._tell(event.webhook, "accepted" if first else "duplicate")

    async def publish_many(self, events: Iterable[EventBase]) -> None:
        for event in events:
            await self.publish(event.topic, event)

    async def close(self) -> None:
        await self._publisher.close()
