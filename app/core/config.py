"""The settings of every DMS process: environment variables with the prefix `DMS_`."""

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.core.errors import ConfigurationError
from task_state.errors import ConfigurationError as StateConfigurationError
from task_state.retention_policy import RetentionPolicy
from task_state.timezone import DEFAULT_TIMEZONE

DEFAULT_OPERATOR_TOKEN = "changeme"  # noqa: S105  (the documented default; works from loopback only)
_CLUSTER_REDIS = "redis://haproxy-redis.dms-redis.svc.cluster.local"
_MEBIBYTE = 1024 * 1024
# To the last @: a password that should have been percent-encoded is a secret all the same.
_URL_PASSWORD = re.compile(r"(://[^/?#:@]*):.*@")
_QUERY_PASSWORD = re.compile(r"(?i)([?&][^=&#]*password[^=&#]*)=[^&#]*")


def _split(separator: str) -> BeforeValidator:
    def split(value: object) -> object:
        return _pieces(value, separator) if isinstance(value, str) else value

    return BeforeValidator(split)


def _pieces(value: str, separator: str) -> list[str]:
    return [part for piece in value.split(separator) if (part := piece.strip())]


def _entry_points(value: object) -> object:
    """A yes or no, or a list of names, which are never those words."""
    if not isinstance(value, str):
        return value
    if value.strip().lower() in {"true", "1", "yes", "on"}:
        return True
    if value.strip().lower() in {"false", "0", "no", "off"}:
        return False
    return _pieces(value, ",")


def _redis_url(value: str) -> str:
    if urlsplit(value).scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("use a URL that starts with redis://, rediss:// or unix://")
    return value


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("use a URL such as http://dms-scheduler")
    return value.rstrip("/")


def _endpoint(value: str) -> str:
    return "/" + value.strip("/")


def _prefix(value: str) -> str:
    return _endpoint(value) if value.strip("/") else ""


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("not a known time zone: use a name such as Asia/Seoul or UTC") from error
    return value


def _absolute(value: list[Path]) -> list[Path]:
    for path in value:
        if not path.is_absolute():
            raise ValueError(f"{path} is relative: name every root by its absolute path")
    return value


def _absolute_folder(value: Path) -> Path:
    if not value.is_absolute():
        raise ValueError("it is relative: name the folder by its absolute path")
    return value


def _absolute_file(value: Path) -> Path:
    if not value.is_absolute():
        raise ValueError("it is relative: name the file by its absolute path")
    return value


def _retention_rules(value: list[str]) -> list[str]:
    try:
        RetentionPolicy.parse(value)
    except StateConfigurationError as error:
        raise ValueError(str(error)) from None
    return value


def _header_value(value: SecretStr) -> SecretStr:
    token = value.get_secret_value()
    if not token.isprintable() or token != token.strip():
        raise ValueError(
            "no client could ever send it: it has blanks around it, or control characters (a "
            "secret made of a file often ends with a line break)"
        )
    return value


CommaList = Annotated[list[str], NoDecode, _split(",")]
EntryPoints = Annotated[bool | list[str], NoDecode, BeforeValidator(_entry_points)]
RootList = Annotated[list[Path], NoDecode, _split(os.pathsep), AfterValidator(_absolute)]
Folder = Annotated[Path, AfterValidator(_absolute_folder)]
File = Annotated[Path, AfterValidator(_absolute_file)]
RuleList = Annotated[list[str], NoDecode, _split(","), AfterValidator(_retention_rules)]
RedisUrl = Annotated[str, AfterValidator(_redis_url)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseSettings):
    """Every variable, its default and what it means; `docs/settings.md` is the table for people.

    Read it by `get_settings()` in a process's entry; below `app.core` settings are passed on as
    arguments. Raises pydantic's ValidationError, which `get_settings` turns into a message.
    """

    model_config = SettingsConfigDict(
        env_prefix="DMS_", env_ignore_empty=True, extra="ignore", hide_input_in_errors=True
    )

    # The frontend.
    app_name: str = "dms-frontend"
    api_prefix: Annotated[str, AfterValidator(_prefix)] = "/api/v1"
    operator_token: Annotated[SecretStr, AfterValidator(_header_value)] = SecretStr(
        DEFAULT_OPERATOR_TOKEN
    )
    user_header: str | None = None
    allowed_hosts: CommaList = []
    event_worker_count: Annotated[int, Field(ge=1, le=256)] = 4
    dispatch_deadline_seconds: Seconds | None = None
    webhooks_file: File | None = None
    cli_default_host: str = "0.0.0.0"  # noqa: S104  (the documented default: a container's address)
    cli_default_port: Port = 8000
    cli_reload: bool = False

    # The store.
    redis_write_url: RedisUrl = Field(default=f"{_CLUSTER_REDIS}:6379/0", repr=False)
    redis_read_url: RedisUrl = Field(default=f"{_CLUSTER_REDIS}:6380/0", repr=False)
    redis_task_ttl_seconds: Annotated[int, Field(ge=1)] = 7_776_000
    redis_wait_replicas: Annotated[int, Field(ge=0, le=16)] = 0
    redis_timeout_seconds: Seconds = 2.0
    witness_file: File | None = None

    # How long finished tasks stay; the time to live above bounds it.
    retention: RuleList = []
    archive_dir: Folder | None = None

    # The frontend's way to the scheduler.
    scheduler_base_url: Annotated[str, AfterValidator(_http_url)] = Field(
        default="http://dms-scheduler", repr=False
    )
    scheduler_task_endpoint: Annotated[str, AfterValidator(_endpoint)] = "/task"
    scheduler_cancel_endpoint: Annotated[str, AfterValidator(_endpoint)] = "/cancel"
    request_timeout_seconds: Seconds = 10.0

    # The scheduler service and its workers.
    scheduler_host: str = "0.0.0.0"  # noqa: S104  (a container's address; `up` uses loopback)
    scheduler_port: Port = 8001
    schedules_file: File | None = None
    task_modules: CommaList = []
    task_entry_points: EntryPoints = True
    data_roots: RootList = []
    rclone_config: File | None = None
    rclone_unconfined: bool = False
    worker_concurrency: Annotated[int, Field(ge=1, le=1024)] = 8
    worker_name: str | None = None
    lease_seconds: Seconds = 60.0
    heartbeat_seconds: Seconds = 15.0
    drain_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 10.0
    term_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5.0
    cancel_grace_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 10.0
    output_bytes: Annotated[int, Field(ge=1024, le=16 * _MEBIBYTE - 4096)] = 16 * _MEBIBYTE - 4096
    child_memory_bytes: Annotated[int, Field(ge=64 * _MEBIBYTE)] = 2048 * _MEBIBYTE
    child_pool_size: Annotated[int, Field(ge=1, le=1024)] = 2

    # Every process.
    timezone: Annotated[str, AfterValidator(_zone)] = DEFAULT_TIMEZONE
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
        BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value),
    ] = "INFO"
    log_json: bool = True

    @model_validator(mode="after")
    def _reader_follows_writer(self) -> Self:
        """Whoever names only a writer means it for reading too, not the cluster's reader."""
        named = self.model_fields_set
        if "redis_write_url" in named and "redis_read_url" not in named:
            self.redis_read_url = self.redis_write_url
        return self

    @model_validator(mode="after")
    def _heartbeat_fits_lease(self) -> Self:
        if self.heartbeat_seconds * 2 > self.lease_seconds:
            raise ValueError(
                "DMS_HEARTBEAT_SECONDS must be at most half of DMS_LEASE_SECONDS, or one lost "
                "heartbeat ends an attempt"
            )
        return self

    def masked(self) -> dict[str, Any]:
        """All variables by name, JSON-able; the operator token and URLs' passwords are hidden."""
        values: dict[str, Any] = {}
        for field in type(self).model_fields:
            value = getattr(self, field)
            if isinstance(value, SecretStr):
                value = _masked_token(value)
            elif field.endswith("_url"):
                value = mask_url(value)
            elif isinstance(value, Path):
                value = str(value)
            elif field == "data_roots":
                value = [str(root) for root in self.data_roots]
            values[variable(field)] = value
        return values


def variable(field: str) -> str:
    """The environment variable that sets a field."""
    return f"DMS_{field.upper()}"


def mask_url(url: str) -> str:
    """A URL that may be shown: its password, and any in its query, replaced by `***`."""
    without = _URL_PASSWORD.sub(r"\1:***@", url)
    return _QUERY_PASSWORD.sub(r"\1=***", without)


def _masked_token(token: SecretStr) -> str:
    is_default = token.get_secret_value() == DEFAULT_OPERATOR_TOKEN
    return "*** (the default: loopback clients only)" if is_default else "***"


_SECRET_FIELDS = frozenset(
    {"operator_token", "redis_write_url", "redis_read_url", "scheduler_base_url"}
)


def _explain(error: ValidationError) -> str:
    """One line a wrong variable: its name, its value unless that is a secret, and the remedy."""
    lines: list[str] = []
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        reason = problem["msg"].removeprefix("Value error, ")
        if not problem["loc"]:
            lines.append(reason)
            continue
        field = str(problem["loc"][0]).lower().removeprefix("dms_")
        value = os.environ.get(variable(field), "")
        shown = "" if field in _SECRET_FIELDS else f"={value!r}"
        lines.append(f"{variable(field)}{shown}: {reason}")
    return "; ".join(lines) + ". Correct or unset the variable; docs/settings.md lists them all"


def load_settings() -> Settings:
    """The settings as the environment has them now; raises ConfigurationError."""
    try:
        return Settings()
    except ValidationError as error:
        raise ConfigurationError(_explain(error)) from None


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The process's settings, read once; raises ConfigurationError with the remedy."""
    return load_settings()
