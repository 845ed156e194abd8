"""The document on the scheduler system: its Python blocks, which the test beside it runs."""

from typing import Final

CRON: Final = """\
from app.scheduler import create_cron_trigger, Scheduler
from app.event_system.infrastructure import InMemoryBroker, InMemoryPublisher

# Setup
broker = InMemoryBroker()
publisher = InMemoryPublisher(broker)
scheduler = Scheduler(publisher)

# Create cron trigger - every 5 minutes
cron_trigger = create_cron_trigger(
    cron_expression="*/5 * * * *",
    event_factory=lambda: MyEvent(topic="scheduled.reports"),
)

# Register and start
await scheduler.register_trigger("daily_report", cron_trigger, "scheduled.reports")
await scheduler.start()
"""

EXPRESSIONS: Final = """\
"* * * * *"        # 매 분
"0 * * * *"        # 매 시간
"0 0 * * *"        # 매일 자정
"0 9 * * MON-FRI"  # 평일 오전 9시
"*/15 * * * *"     # 15분마다
"""

API_BY_HAND: Final = """\
from app.scheduler import create_api_trigger

# Create API trigger
api_trigger = create_api_trigger(
    event_factory=lambda payload: WebhookEvent(
        topic="webhooks.incoming",
        webhook_id=payload.get("webhook_id"),
        data=payload
    ),
)

await scheduler.register_trigger("webhook_handler", api_trigger, "webhooks.incoming")
await scheduler.start()

# Later, trigger from anywhere in your code
await api_trigger.trigger({
    "webhook_id": "wh_001",
    "user_id": 123,
    "action": "purchase"
})
"""

API_BY_HTTP: Final = """\
from fastapi import FastAPI
from app.scheduler.api import create_trigger_router

app = FastAPI()

# Create trigger
api_trigger = create_api_trigger(event_factory)
await scheduler.register_trigger("webhook", api_trigger, "webhooks.incoming")

# Add API routes automatically
router = create_trigger_router(api_trigger, prefix="/api/webhooks")
app.include_router(router)

# Now you have:
# POST /api/webhooks/trigger - Trigger events
# GET  /api/webhooks/status  - Check trigger status
"""

EVENT: Final = """\
from app.scheduler import create_event_trigger

# Create event trigger - auto-start processing when data arrives
event_trigger = create_event_trigger(
    consumer=consumer,
    source_topic="data.ingestion",
    event_factory=lambda source_event: ProcessingEvent(
        topic="data.processing",
        source_id=source_event.source_name
    ),
    filter_func=lambda event: event.rows_count > 1000  # Only trigger for large datasets
)

await scheduler.register_trigger("auto_processing", event_trigger, "data.processing")
await scheduler.start()
"""

FACTORY: Final = """\
from app.scheduler import TriggerFactory, TriggerType

trigger = TriggerFactory.create_trigger(
    TriggerType.CRON,
    cron_expression="0 0 * * *",
    event_factory=lambda: MyEvent(topic="daily")
)
"""

FACTORY_BY_NAME: Final = """\
trigger = TriggerFactory.create_trigger(
    "cron",  # 문자열도 가능
    cron_expression="0 0 * * *",
    event_factory=lambda: MyEvent(topic="daily")
)
"""

FUNCTIONS: Final = """\
from app.scheduler import create_cron_trigger, create_api_trigger, create_event_trigger

# 가장 간단하고 타입 안전한 방법
cron = create_cron_trigger("0 0 * * *", event_factory)
api = create_api_trigger(event_factory)
event = create_event_trigger(consumer, "source.topic", event_factory)
"""

MANAGEMENT: Final = """\
scheduler = Scheduler(publisher)

# 트리거 등록
await scheduler.register_trigger("trigger_1", cron_trigger, "topic.1")
await scheduler.register_trigger("trigger_2", api_trigger, "topic.2")

# 스케줄러 시작 (모든 트리거 동시 시작)
await scheduler.start()

# 특정 트리거 제거
await scheduler.unregister_trigger("trigger_1")

# 등록된 트리거 확인
triggers = scheduler.get_registered_triggers()
print(f"Active triggers: {list(triggers.keys())}")

# 스케줄러 종료 (모든 트리거 정리)
await scheduler.stop()
"""

DYNAMIC: Final = """\
# 스케줄러 실행 중에도 트리거 추가 가능
await scheduler.start()

# 나중에 새 트리거 추가
new_trigger = create_cron_trigger("0 12 * * *", lunch_event_factory)
await scheduler.register_trigger("lunch_reminder", new_trigger, "reminders.lunch")
# 자동으로 시작됨!
"""

PIPELINE: Final = """\
# 1. 매일 새벽 3시에 데이터 수집 시작
data_collection_trigger = create_cron_trigger(
    cron_expression="0 3 * * *",
    event_factory=lambda: DataCollectionEvent(
        topic="pipeline.collection",
        source="external_api"
    )
)

# 2. 데이터 수집 완료 시 자동으로 처리 시작
data_processing_trigger = create_event_trigger(
    consumer=consumer,
    source_topic="pipeline.collection.completed",
    event_factory=lambda source: DataProcessingEvent(
        topic="pipeline.processing",
        data_id=source.data_id
    )
)

# 3. 처리 완료 시 알림 발송
notification_trigger = create_event_trigger(
    consumer=consumer,
    source_topic="pipeline.processing.completed",
    event_factory=lambda source: NotificationEvent(
        topic="notifications.email",
        recipient="admin@example.com",
        message=f"Pipeline completed: {source.data_id}"
    )
)

# 모두 등록
await scheduler.register_trigger("daily_collection", data_collection_trigger, "pipeline.collection")
await scheduler.register_trigger("auto_processing", data_processing_trigger, "pipeline.processing")
await scheduler.register_trigger("completion_notify", notification_trigger, "notifications.email")

await scheduler.start()
"""

MONITORING: Final = """\
# 에러 발생 시 즉시 알림
error_alert_trigger = create_event_trigger(
    consumer=consumer,
    source_topic="logs.**",  # 모든 로그 토픽 감시
    event_factory=lambda log_event: AlertEvent(
        topic="alerts.critical",
        level="CRITICAL",
        message=f"Error in {log_event.service}: {log_event.error_message}"
    ),
    filter_func=lambda event: event.level == "ERROR"  # ERROR 레벨만 필터링
)

await scheduler.register_trigger("error_alerting", error_alert_trigger, "alerts.critical")
"""

WEBHOOK: Final = """\
# FastAPI endpoint example
from fastapi import FastAPI

app = FastAPI()

# API trigger 생성
webhook_trigger = create_api_trigger(
    event_factory=lambda payload: WebhookReceivedEvent(
        topic="webhooks.github",
        repository=payload.get("repository"),
        action=payload.get("action"),
        data=payload
    )
)

await scheduler.register_trigger("github_webhooks", webhook_trigger, "webhooks.github")
await scheduler.start()

@app.post("/webhooks/github")
async def handle_github_webhook(payload: dict):
    # API trigger 발동
    await webhook_trigger.trigger(payload)
    return {"status": "processed"}
"""

ZONE: Final = """\
cron_trigger = create_cron_trigger(
    cron_expression="0 9 * * MON-FRI",
    event_factory=event_factory,
    timezone="Asia/Seoul"  # 한국 시간 기준
)
"""

FILTER: Final = """\
# 여러 조건을 조합한 복잡한 필터
event_trigger = create_event_trigger(
    consumer=consumer,
    source_topic="data.events",
    event_factory=process_factory,
    filter_func=lambda event: (
        event.priority == "HIGH" and
        event.source in ["api", "batch"] and
        event.timestamp > datetime.now() - timedelta(hours=1)
    )
)
"""

STATUS: Final = """\
# API trigger 호출 횟수 확인
count = api_trigger.get_trigger_count()
print(f"Triggered {count} times")

# Event trigger 호출 횟수 확인
count = event_trigger.get_trigger_count()
print(f"Processed {count} events")

# 트리거 실행 상태 확인
if cron_trigger.is_running():
    print("Cron trigger is active")
"""

TRIGGER_PORT: Final = """\
async def start() -> None
async def stop() -> None
def emit() -> AsyncGenerator[E, None]
def is_running() -> bool
"""

SCHEDULER_PORT: Final = """\
async def register_trigger(trigger_id: str, trigger: TriggerPort[E], topic: str) -> None
async def unregister_trigger(trigger_id: str) -> None
async def start() -> None
async def stop() -> None
def get_registered_triggers() -> dict[str, tuple[TriggerPort[E], str]]
"""

HOW_TO_CALL: Final = """\
await api_trigger.trigger({"your": "data"})
"""

FASTAPI: Final = """\
from fastapi import FastAPI
from contextlib import asynccontextmanager

from app.scheduler import Scheduler, create_api_trigger
from app.scheduler.api import create_trigger_router


@asynccontextmanager
async def lifespan(app: FastAPI):
    # Startup
    global scheduler, api_trigger

    scheduler = Scheduler(publisher)
    api_trigger = create_api_trigger(event_factory)

    await scheduler.register_trigger("webhook", api_trigger, "webhooks")
    await scheduler.start()

    yield

    # Shutdown
    await scheduler.stop()


app = FastAPI(lifespan=lifespan)

# Add trigger routes
router = create_trigger_router(api_trigger, prefix="/api/webhooks")
app.include_router(router)
"""

CUSTOM_ENDPOINT: Final = """\
from fastapi import FastAPI

app = FastAPI()

# APITrigger 인스턴스를 직접 사용
@app.post("/webhooks/github")
async def github_webhook(payload: dict):
    # GitHub webhook 처리
    webhook_data = {
        "webhook_id": f"gh_{payload.get('hook_id')}",
        "action": payload.get("action"),
    }

    await api_trigger.trigger(webhook_data)

    return {"status": "processed"}
"""
