"""What one call of a webhook says: who it is from, which delivery, what the event and the task are
made of. Pure."""

import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Any, Final

from app.core.errors import BadInputError, PayloadTooLargeError
from app.event_system import MAX_EVENT_BYTES, EventBase, EventEncodeError
from app.event_system.domain.events import encode_event
from app.services.webhook_file import Kind, Webhook, WebhookTask
from app.services.webhook_signatures import Headers, single

PING: Final = "ping"
MAX_ID_CHARACTERS: Final = 255

_HEADER_CHARACTERS: Final = 1000
_TASK_ID_BYTES: Final = 200  # more than a task's id takes in an event
_ID_HEADERS: Final[dict[Kind, str]] = {
    "github": "X-GitHub-Delivery",
    "standard": "webhook-id",
    "token": "Idempotency-Key",
}


class WebhookReceived(EventBase, type_name="dms.WebhookReceived"):
    """A webhook was called by whom it trusts. `event_id` is the same for each repeat."""

    webhook: str
    delivery: str
    """The sender's id of the delivery, or one made of its body, or a random one."""
    event: str | None
    """What the sender calls the event: `X-GitHub-Event`, or the `type` of a Standard Webhook."""
    payload: dict[str, Any]
    task_id: str | None = None
    """The task that was submitted, if the webhook submits any."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request whose sender is known, and of which nothing else was looked at."""

    webhook: Webhook
    headers: Headers = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What was delivered. The headers are those that an event may carry."""

    webhook: Webhook
    delivery_id: str
    event: str | None
    headers: dict[str, str]
    payload: dict[str, Any]
    task_id: str | None = None

    @property
    def key(self) -> str:
        """The idempotency key of its task. The arrow is not ASCII, which the API wants of its own
        clients' keys: none of them can take the place of a delivery that it guessed."""
        return f"webhook→{self.webhook.name}→{self.delivery_id}"

    @property
    def event_id(self) -> str:
        """The same for each repeat, and another for another task: when the task's key is forgotten
        after its 24 hours, a repeat is a new delivery, of which the event tells too."""
        told = "\0".join((self.key, self.task_id or ""))
        return f"webhook-{hashlib.sha256(told.encode()).hexdigest()[:40]}"

    def parameters(self, task: WebhookTask) -> dict[str, Any]:
        """Those of the task; raises BadInputError when the payload has not what they need."""
        return task.parameters.fill(
            {
                "payload": self.payload,
                "webhook": self.webhook.name,
                "delivery": self.delivery_id,
                "event": self.event or "",
            }
        )

    def ignored(self) -> str | None:
        """Why it shall have no effect, for the sender; None for one that counts."""
        if self.webhook.kind == "github" and self.event == PING:
            return "pong"
        if self.webhook.events is not None and self.event not in self.webhook.events:
            return "ignored: this webhook does not take the event"
        return None


def identify(call: Call, payload: dict[str, Any]) -> Delivery:
    """The delivery of a call; raises BadInputError when the sender left out what names it, and
    PayloadTooLargeError when no event can carry it."""
    delivery = Delivery(
        webhook=call.webhook,
        delivery_id=_delivery_id(call),
        event=_event(call, payload),
        headers=_kept_headers(call),
        payload=payload,
    )
    try:
        encode_event(event_of(delivery), limit=MAX_EVENT_BYTES - _TASK_ID_BYTES)
    except EventEncodeError as error:
        raise PayloadTooLargeError(
            "the payload is too large for an event: send where the data is, not the data"
        ) from error
    return delivery


def event_of(delivery: Delivery) -> WebhookReceived:
    """The event that is published."""
    return WebhookReceived(
        topic=delivery.webhook.topic,
        event_id=delivery.event_id,
        headers=delivery.headers,
        webhook=delivery.webhook.name,
        delivery=delivery.delivery_id,
        event=delivery.event,
        payload=delivery.payload,
        task_id=delivery.task_id,
    )


def _delivery_id(call: Call) -> str:
    if call.webhook.once == "body":
        return f"sha256-{hashlib.sha256(call.body).hexdigest()}"
    name = _ID_HEADERS[call.webhook.kind]
    if call.webhook.kind == "token" and not _stands_there(call, name):
        return secrets.token_hex(16)
    return _text(call, name)


def _event(call: Call, payload: dict[str, Any]) -> str | None:
    if call.webhook.kind == "github":
        return _text(call, "X-GitHub-Event")
    kind = payload.get("type") if call.webhook.kind == "standard" else None
    return kind if isinstance(kind, str) else None


def _stands_there(call: Call, name: str) -> bool:
    return any(each == name.lower().encode() for each, _ in call.headers)


def _text(call: Call, name: str) -> str:
    value = single(call.headers, name.lower().encode())
    text = value.decode("latin-1")
    if not 1 <= len(text) <= MAX_ID_CHARACTERS or not text.isascii() or not text.isprintable():
        raise BadInputError(
            f"{name}: send it once, as 1 to {MAX_ID_CHARACTERS} printable ASCII characters"
        )
    return text


def _kept_headers(call: Call) -> dict[str, str]:
    found = {name: single(call.headers, name.encode()) for name in call.webhook.headers}
    return {
        name: value.decode("utf-8", "replace")[:_HEADER_CHARACTERS]
        for name, value in found.items()
        if value
    }
