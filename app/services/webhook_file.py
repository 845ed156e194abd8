"""The operator's file of webhooks (DMS_WEBHOOKS_FILE, TOML): read at start, every fault named.

No message, and no `repr` of what is made here, holds a secret.
"""

import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)

from app.core.errors import ConfigurationError
from app.core.toml_tables import check_json, read_tables
from app.event_system import TopicError, check_topic
from app.services.webhook_signatures import (
    MIN_SECRET_BYTES,
    GitHubVerifier,
    StandardVerifier,
    TokenVerifier,
    Verifier,
    standard_secret,
)
from app.services.webhook_templates import Template
from task_state.naming import NAME_WORDS, is_name

Kind = Literal["github", "standard", "token"]
VARIABLE: Final = "DMS_WEBHOOKS_FILE"
MAX_PARAMETERS: Final = 100
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HEADER: Final = re.compile(r"[a-z0-9-]{1,64}")
# What proves who somebody is has no place in an event, which many may read.
_SECRET_HEADERS: Final = frozenset(
    {"authorization", "proxy-authorization", "cookie", "x-operator-token", "x-hub-signature",
     "x-hub-signature-256", "webhook-signature"}
)  # fmt: skip
_OWN_HEADERS: Final[Mapping[Kind, tuple[str, ...]]] = {
    "github": ("content-type", "x-github-delivery", "x-github-event", "x-github-hook-id"),
    "standard": ("content-type", "webhook-id", "webhook-timestamp"),
    "token": ("content-type", "idempotency-key"),
}
_VERIFIERS: Final[Mapping[Kind, Callable[[Sequence[bytes]], Verifier]]] = {
    "github": GitHubVerifier,
    "standard": StandardVerifier,
    "token": TokenVerifier,
}


@dataclass(frozen=True, slots=True)
class WebhookTask:
    """The task that each delivery becomes."""

    service: str
    user_id: str
    parameters: Template


@dataclass(frozen=True, slots=True)
class Webhook:
    """A way in for one sender, and what its deliveries do."""

    name: str
    kind: Kind
    verifier: Verifier
    topic: str
    events: frozenset[str] | None
    """Of which events deliveries count; None: of all."""
    headers: Sequence[str]
    """The headers that the event carries, in lower case."""
    once: Literal["delivery", "body"]
    """By what a repeated delivery is known."""
    task: WebhookTask | None


def load_webhooks(path: Path, environment: Mapping[str, str] = os.environ) -> dict[str, Webhook]:
    """All webhooks of the file by name; raises ConfigurationError with file, table, key, remedy."""
    tables = read_tables(path, variable=VARIABLE, kind="webhooks", document="docs/webhooks.md")
    found: dict[str, Webhook] = {}
    for name, table in tables.items():
        if not _NAME.fullmatch(name):
            raise _wrong(path, f"[webhooks.{name!r}]", "a name is 1 to 64 letters, digits, _ or -")
        place = f"[webhooks.{name}]"
        try:
            found[name] = _webhook(name, _Table.model_validate(table), path.parent, environment)
        except ValidationError as error:
            raise _wrong(path, place, _explain(error)) from None
        except (ConfigurationError, TopicError) as error:
            raise _wrong(path, place, str(error)) from None
    return found


def readable_by_others(path: Path) -> bool:
    """Whether other users of this machine can read the file."""
    return bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))


def _texts(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _topic(value: str) -> str:
    return check_topic(value)


def _named(value: str) -> str:
    if not is_name(value):
        raise ValueError(NAME_WORDS)
    return value


def _header(value: str) -> str:
    if not _HEADER.fullmatch(value.lower()):
        raise ValueError("a header's name is letters, digits and -")
    if value.lower() in _SECRET_HEADERS:
        raise ValueError("this header is a secret: events do not carry it")
    return value.lower()


def _json(value: dict[str, Any]) -> dict[str, Any]:
    try:
        check_json(value)
    except ConfigurationError as error:
        raise ValueError(str(error)) from error
    return value


Texts = Annotated[list[str], BeforeValidator(_texts)]
Name = Annotated[str, AfterValidator(_named)]


class _TaskTable(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    service: Name
    user_id: Name
    parameters: Annotated[
        dict[str, Any], Field(max_length=MAX_PARAMETERS), AfterValidator(_json)
    ] = {}


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    verify: Kind
    secret: SecretStr | None = None
    secrets: list[SecretStr] = []
    secret_env: Texts = []
    secret_file: Texts = []
    topic: Annotated[str, AfterValidator(_topic)] | None = None
    events: Annotated[list[str], Field(min_length=1)] | None = None
    headers: list[Annotated[str, AfterValidator(_header)]] = []
    once: Literal["delivery", "body"] = "delivery"
    task: _TaskTable | None = None


def _webhook(name: str, table: _Table, folder: Path, environment: Mapping[str, str]) -> Webhook:
    if table.events is not None and table.verify == "token":
        raise ConfigurationError("events: a sender by token names no event: leave it out")
    keys = [_key(table.verify, where, text) for where, text in _secrets(table, folder, environment)]
    if not keys:
        raise ConfigurationError(
            "no secret: give secret_env, secret_file, secret, or several as secrets"
        )
    return Webhook(
        name=name,
        kind=table.verify,
        verifier=_VERIFIERS[table.verify](keys),
        topic=table.topic or f"webhooks.{name}",
        events=None if table.events is None else frozenset(table.events),
        headers=[*_OWN_HEADERS[table.verify], *table.headers],
        once=table.once,
        task=None if table.task is None else _task(table.task),
    )


def _task(table: _TaskTable) -> WebhookTask:
    return WebhookTask(table.service, table.user_id, Template(table.parameters, "task.parameters"))


def _secrets(table: _Table, folder: Path, environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """All secrets of a table, and the key that each comes from."""
    found = [("secret", table.secret.get_secret_value())] if table.secret is not None else []
    found += [("secrets", secret.get_secret_value()) for secret in table.secrets]
    for variable in table.secret_env:
        if variable not in environment:
            raise ConfigurationError(f"secret_env: the variable {variable} is not set: set it")
        found.append((f"secret_env: {variable}", environment[variable]))
    for path in table.secret_file:
        found.append((f"secret_file: {path}", _from_file(folder / path)))
    return found


def _from_file(path: Path) -> str:
    try:
        return path.read_text("utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigurationError(
            f"secret_file: {path} cannot be read ({error.strerror}): correct the path, or let this "
            "process's user read it"
        ) from error
    except UnicodeDecodeError:
        raise ConfigurationError(f"secret_file: {path} is not UTF-8") from None


def _key(kind: Kind, where: str, text: str) -> bytes:
    """The bytes that sign."""
    if text != text.strip() or not text.isprintable():
        raise ConfigurationError(f"{where}: it has blanks around it, or control characters")
    key = _decoded(where, text) if kind == "standard" else text.encode()
    if len(key) < MIN_SECRET_BYTES:
        raise ConfigurationError(
            f"{where}: a secret has {MIN_SECRET_BYTES} bytes or more: make one with "
            "`openssl rand -base64 32`"
        )
    return key


def _decoded(where: str, text: str) -> bytes:
    try:
        return standard_secret(text)
    except ValueError:
        raise ConfigurationError(
            f"{where}: a secret of Standard Webhooks is whsec_ and base64: make one with "
            "`echo whsec_$(openssl rand -base64 32)`"
        ) from None


def _explain(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(
        f"{'.'.join(map(str, one['loc']))}: {one['msg'].removeprefix('Value error, ')}"
        for one in problems[:5]
    )


def _wrong(path: Path, place: str, reason: str) -> ConfigurationError:
    return ConfigurationError(f"{VARIABLE}: {path}: {place} {reason}")
