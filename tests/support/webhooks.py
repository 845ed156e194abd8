"""Senders of webhooks for tests: what GitHub, a Standard Webhooks sender, or a program sends."""

import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from standardwebhooks import Webhook as Oracle

GITHUB_SECRET = "It's a Secret to Everybody"
STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TOKEN_SECRET = "a-token-for-programs-0123"
PAYLOAD: dict[str, Any] = {"repository": {"full_name": "octocat/Hello-World"}, "이름": "값"}

FILE = f"""
[webhooks.plain]
verify = "github"
secret = "{GITHUB_SECRET}"

[webhooks.deploys]
verify = "github"
secret = "{GITHUB_SECRET}"
events = ["push", "release"]
topic = "ci.deploys"
headers = ["X-Extra"]
task.service = "sync"
task.user_id = "alice"
task.parameters = {{ src = "/data/{{{{ payload.repository.full_name }}}}", delete = true }}

[webhooks.orders]
verify = "standard"
secret = "{STANDARD_SECRET}"
task = {{ service = "sync", user_id = "alice" }}

[webhooks.simple]
verify = "token"
secrets = ["{TOKEN_SECRET}", "another-token-of-old-days"]

[webhooks.bodies]
verify = "github"
secret = "{GITHUB_SECRET}"
once = "body"
task = {{ service = "sync", user_id = "alice" }}
"""


def webhooks_file(folder: Path, text: str = FILE) -> Path:
    """A file of webhooks that its owner alone can read."""
    path = folder / "webhooks.toml"
    path.write_text(text, "utf-8")
    path.chmod(0o600)
    return path


@dataclass(frozen=True)
class Sent:
    """A request as a sender makes it."""

    body: bytes
    headers: Mapping[str, str]

    def without(self, name: str) -> "Sent":
        """The same without a header."""
        return Sent(self.body, {key: value for key, value in self.headers.items() if key != name})

    def with_headers(self, **headers: str) -> "Sent":
        """The same with others, whose `_` stand for `-`."""
        changed = {name.replace("_", "-"): value for name, value in headers.items()}
        return Sent(self.body, {**self.headers, **changed})

    @property
    def lines(self) -> list[tuple[bytes, bytes]]:
        """The headers as ASGI has them: any bytes."""
        return [(key.lower().encode(), value.encode()) for key, value in self.headers.items()]


def as_json(payload: Any = PAYLOAD) -> bytes:
    """A payload as it travels."""
    return json.dumps(payload, ensure_ascii=False).encode()


def by_github(
    body: bytes | None = None,
    *,
    secret: str = GITHUB_SECRET,
    delivery: str | None = None,
    event: str = "push",
) -> Sent:
    """A delivery of GitHub's."""
    body = as_json() if body is None else body
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {
        "Content-Type": "application/json",
        "X-GitHub-Delivery": delivery or str(uuid.uuid4()),
        "X-GitHub-Event": event,
        "X-Hub-Signature-256": f"sha256={signature}",
    }
    return Sent(body, headers)


def by_standard(
    body: bytes | None = None,
    *,
    secret: str = STANDARD_SECRET,
    delivery: str | None = None,
    at: float | None = None,
) -> Sent:
    """A delivery that the reference library signs."""
    body = as_json({"type": "order.paid"}) if body is None else body
    delivery = delivery or f"msg_{uuid.uuid4().hex}"
    stamp = int(time.time() if at is None else at)
    headers = {
        "Content-Type": "application/json",
        "webhook-id": delivery,
        "webhook-timestamp": str(stamp),
        "webhook-signature": oracle_signature(secret, delivery, stamp, body),
    }
    return Sent(body, headers)


def oracle_signature(secret: str, delivery: str, stamp: int, body: bytes) -> str:
    """What the reference library signs; it takes texts alone."""
    from datetime import UTC, datetime

    at = datetime.fromtimestamp(stamp, UTC)
    return Oracle(secret).sign(msg_id=delivery, timestamp=at, data=body.decode())


def by_token(
    body: bytes | None = None, *, token: str = TOKEN_SECRET, delivery: str | None = None
) -> Sent:
    """A call of a simple program."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    if delivery is not None:
        headers["Idempotency-Key"] = delivery
    return Sent(as_json() if body is None else body, headers)
