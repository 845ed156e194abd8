"""The frontend's composition root: the one place that names adapters and ties lifetimes."""

import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from app.api.dependencies import Api
from app.api.security import OperatorGate, UserGate
from app.core.config import DEFAULT_OPERATOR_TOKEN, Settings
from app.core.logging import configure_logging
from app.core.metrics import Metrics
from app.event_system.infrastructure import RedisBroker
from app.services.definitions import Definitions
from app.services.dispatch import Dispatcher
from app.services.event_processor import TaskEventProcessor
from app.services.event_queues import EventQueues
from app.services.health import Health
from app.services.live import LiveHub
from app.services.repository import build_provider
from app.services.retention import RetentionService
from app.services.scheduler import SchedulerClient
from app.services.schedules import ScheduleService
from app.services.service_modes import ServiceModes
from app.services.tasks import TaskService
from app.services.webhooks import WebhookService

log = logging.getLogger(__name__)


class ServiceContainer:
    """The parts of one frontend process, built from its settings; nothing connects yet."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.provider = build_provider(settings)
        self.scheduler = SchedulerClient(settings)
        timeout = settings.redis_timeout_seconds
        self.broker = RedisBroker(settings.redis_write_url, timeout=timeout)
        self.live = LiveHub(self.provider, self.metrics, timeout_seconds=timeout)
        dispatcher = Dispatcher(
            self.provider, self.scheduler, deadline_seconds=settings.dispatch_deadline_seconds
        )
        self.processor = TaskEventProcessor(
            self.provider,
            dispatcher,
            self.metrics,
            worker_count=settings.event_worker_count,
            request_timeout=settings.request_timeout_seconds,
        )
        definitions = Definitions(self.scheduler)
        tasks = TaskService(self.provider, timeout_seconds=timeout)
        self.webhooks = WebhookService(
            settings.webhooks_file, tasks, self.broker, self.metrics, timeout_seconds=timeout
        )
        self.api = Api(
            settings=settings,
            tasks=tasks,
            definitions=definitions,
            services=ServiceModes(self.provider, definitions, timeout_seconds=timeout),
            retention=RetentionService(self.provider, timeout_seconds=timeout),
            schedules=ScheduleService(
                self.provider, timeout_seconds=timeout, default_timezone=settings.timezone
            ),
            webhooks=self.webhooks,
            event_queues=EventQueues(self.broker, timeout_seconds=timeout),
            live=self.live,
            health=Health(self.provider, self.processor, timeout_seconds=timeout),
            metrics=self.metrics,
            operator=OperatorGate(settings),
            users=UserGate(settings),
        )

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Start the loops; at the end stop them and close every connection, last opened first.

        Redis and the scheduler may be away: requests answer 503 until they are back.
        """
        configure_logging(self.settings)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.provider.close)
            stack.push_async_callback(self.scheduler.close)
            stack.push_async_callback(self.broker.close)
            await self.webhooks.start()
            stack.push_async_callback(self.webhooks.stop)
            self.processor.start()
            stack.push_async_callback(self.processor.stop)
            self.live.start()
            stack.push_async_callback(self.live.stop)
            self._announce()
            yield
        log.info("Frontend stopped", extra={"action": "frontend.stop"})

    def _announce(self) -> None:
        log.info(
            "Frontend started",
            extra={"action": "frontend.start", "app": self.settings.app_name},
        )
        if self.settings.operator_token.get_secret_value() == DEFAULT_OPERATOR_TOKEN:
            log.warning(
                "The operator token is the default, which works from this machine alone: set "
                "DMS_OPERATOR_TOKEN",
                extra={"action": "frontend.default_token"},
            )
