"""Settings: the documents' table, secrets that stay hidden, errors that name the remedy."""

import os

import pytest

from app.core.config import Settings, get_settings, load_settings, mask_url
from app.core.errors import ConfigurationError

DOCUMENTED = {
    "DMS_APP_NAME": "dms-frontend",
    "DMS_API_PREFIX": "/api/v1",
    "DMS_REDIS_WRITE_URL": "redis://haproxy-redis.dms-redis.svc.cluster.local:6379/0",
    "DMS_REDIS_READ_URL": "redis://haproxy-redis.dms-redis.svc.cluster.local:6380/0",
    "DMS_REDIS_TASK_TTL_SECONDS": 7776000,
    "DMS_SCHEDULER_BASE_URL": "http://dms-scheduler",
    "DMS_SCHEDULER_TASK_ENDPOINT": "/task",
    "DMS_SCHEDULER_CANCEL_ENDPOINT": "/cancel",
    "DMS_EVENT_WORKER_COUNT": 4,
    "DMS_REQUEST_TIMEOUT_SECONDS": 10.0,
    "DMS_LOG_LEVEL": "INFO",
    "DMS_LOG_JSON": True,
    "DMS_CLI_DEFAULT_HOST": "0.0.0.0",
    "DMS_CLI_DEFAULT_PORT": 8000,
    "DMS_CLI_RELOAD": False,
    "DMS_TIMEZONE": "Asia/Seoul",
}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("DMS_"):
            monkeypatch.delenv(name)


def test_the_defaults_are_the_documents() -> None:
    settings = load_settings()
    masked = settings.masked()
    assert {name: masked[name] for name in DOCUMENTED} == DOCUMENTED
    assert settings.operator_token.get_secret_value() == "changeme"


def test_every_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "DMS_TASK_MODULES": " mine.tasks, ,other ",
        "DMS_DATA_ROOTS": "/data:/한글",
        "DMS_ALLOWED_HOSTS": "dms.example.com,*.internal",
        "DMS_API_PREFIX": "api/",
        "DMS_LOG_LEVEL": "debug",
        "DMS_LOG_JSON": "false",
        "DMS_DISPATCH_DEADLINE_SECONDS": "",
        "DMS_SCHEDULER_BASE_URL": "http://s:1/base/",
        "DMS_SCHEDULER_TASK_ENDPOINT": "v2/task",
    }.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.task_modules == ["mine.tasks", "other"]
    assert [str(root) for root in settings.data_roots] == ["/data", "/한글"]
    assert settings.allowed_hosts == ["dms.example.com", "*.internal"]
    assert settings.api_prefix == "/api"
    assert settings.log_level == "DEBUG"
    assert settings.log_json is False
    assert settings.dispatch_deadline_seconds is None
    assert settings.scheduler_base_url == "http://s:1/base"
    assert settings.scheduler_task_endpoint == "/v2/task"


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (None, True),
        ("true", True),
        ("ON", True),
        (" false ", False),
        ("0", False),
        ("reports", ["reports"]),
        ("reports, ,words", ["reports", "words"]),
    ],
)
def test_entry_points_are_all_none_or_named(
    monkeypatch: pytest.MonkeyPatch, value: str | None, wanted: bool | list[str]
) -> None:
    if value is not None:
        monkeypatch.setenv("DMS_TASK_ENTRY_POINTS", value)
    assert load_settings().task_entry_points == wanted


def test_a_writer_alone_is_read_from_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMS_REDIS_WRITE_URL", "redis://one:6379/0")
    assert load_settings().redis_read_url == "redis://one:6379/0"
    monkeypatch.setenv("DMS_REDIS_READ_URL", "redis://two:6379/0")
    assert load_settings().redis_read_url == "redis://two:6379/0"


def test_secrets_are_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    canary = "canary-5f2a"
    monkeypatch.setenv("DMS_REDIS_WRITE_URL", f"rediss://user:{canary}@host:1/0")
    monkeypatch.setenv("DMS_REDIS_READ_URL", f"unix:///run/s?password={canary}&db=1")
    monkeypatch.setenv("DMS_OPERATOR_TOKEN", canary)
    monkeypatch.setenv("DMS_SCHEDULER_BASE_URL", f"http://u:{canary}@scheduler")
    settings = load_settings()
    masked = settings.masked()
    assert canary not in str(masked)
    assert canary not in repr(settings)
    assert masked["DMS_REDIS_WRITE_URL"] == "rediss://user:***@host:1/0"
    assert masked["DMS_REDIS_READ_URL"] == "unix:///run/s?password=***&db=1"
    assert masked["DMS_OPERATOR_TOKEN"] == "***"
    monkeypatch.setenv("DMS_REDIS_WRITE_URL", f"http://user:{canary}@host")
    with pytest.raises(ConfigurationError) as wrong:
        load_settings()
    assert canary not in str(wrong.value)
    assert "DMS_REDIS_WRITE_URL" in str(wrong.value)


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("DMS_EVENT_WORKER_COUNT", "many", "valid integer"),
        ("DMS_EVENT_WORKER_COUNT", "0", "greater than or equal to 1"),
        ("DMS_REQUEST_TIMEOUT_SECONDS", "nan", "finite"),
        ("DMS_REQUEST_TIMEOUT_SECONDS", "-1", "greater than 0"),
        ("DMS_SCHEDULER_BASE_URL", "dms-scheduler", "http://"),
        ("DMS_TIMEZONE", "Mars/Olympus", "Asia/Seoul"),
        ("DMS_TIMEZONE", "../../etc/passwd", "Asia/Seoul"),
        ("DMS_LOG_LEVEL", "LOUD", "'INFO'"),
        ("DMS_DATA_ROOTS", "data", "absolute"),
        ("DMS_CLI_DEFAULT_PORT", "70000", "65535"),
        ("DMS_LEASE_SECONDS", "20", "DMS_HEARTBEAT_SECONDS"),
        ("DMS_OPERATOR_TOKEN", "secret\n", "line break"),
        ("DMS_OPERATOR_TOKEN", " secret", "blanks"),
    ],
)
def test_a_wrong_variable_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, remedy: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as wrong:
        load_settings()
    assert name in str(wrong.value)
    assert remedy in str(wrong.value)


def test_settings_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    get_settings.cache_clear()
    try:
        first = get_settings()
        monkeypatch.setenv("DMS_APP_NAME", "other")
        assert get_settings() is first
    finally:
        get_settings.cache_clear()


def test_urls_without_secrets_stay_as_they_are() -> None:
    for url in ("redis://host:6379/0", "redis://user@host/0", "unix:///run/valkey.sock"):
        assert mask_url(url) == url


def test_a_password_that_should_have_been_encoded_is_hidden_too() -> None:
    assert mask_url("redis://:can/a?r#y@host:1/0") == "redis://:***@host:1/0"


def test_settings_can_be_passed_as_values() -> None:
    assert Settings(event_worker_count=2).event_worker_count == 2
