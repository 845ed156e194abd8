"""Who sent a webhook: GitHub's HMAC, Standard Webhooks, or a plain token. Pure; the clock is given.

All compare exact bytes in constant time, and all with every secret, so that a refusal takes as long
whatever was wrong. The library `standardwebhooks` is the oracle of the tests, not used here: it
knows neither raw bytes that are not UTF-8 nor several secrets, takes its own clock, and raises what
it happens to raise on headers that mean nothing.
"""

import base64
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

TOLERANCE_SECONDS: Final = 300
"""How old, or how far ahead, the timestamp of a Standard Webhook may be."""
MIN_SECRET_BYTES: Final = 16
MAX_SIGNATURES: Final = 32
"""How many signatures of a request are looked at: comparing costs time, and anybody can send."""
STANDARD_PREFIX: Final = "whsec_"

Headers = Sequence[tuple[bytes, bytes]]
"""As ASGI has them: names in lower case, each line by itself."""


class Verifier(Protocol):
    """Tells one sender from all others."""

    def refusal(self, headers: Headers, body: bytes, now: float) -> str:
        """Why it is not the sender, for the operator's log; empty when it is. `now`: seconds."""
        ...


def single(headers: Headers, name: bytes) -> bytes:
    """The value of a header that stands there once; empty otherwise: two could mean either."""
    values = [value for each, value in headers if each == name]
    return values[0] if len(values) == 1 else b""


@dataclass(frozen=True, slots=True)
class GitHubVerifier:
    """`X-Hub-Signature-256: sha256=<hex>` over the body."""

    secrets: Sequence[bytes] = field(repr=False)

    def refusal(self, headers: Headers, body: bytes, now: float) -> str:
        sent = single(headers, b"x-hub-signature-256")
        right = [b"sha256=" + _mac(secret, body).hex().encode() for secret in self.secrets]
        if _any_equal(right, [sent]):
            return ""
        return "X-Hub-Signature-256 is not that of the body" if sent else "no X-Hub-Signature-256"


@dataclass(frozen=True, slots=True)
class StandardVerifier:
    """`webhook-id`, `webhook-timestamp`, and `webhook-signature: v1,<base64> ...` over the two and
    the body."""

    secrets: Sequence[bytes] = field(repr=False)

    def refusal(self, headers: Headers, body: bytes, now: float) -> str:
        names = (b"webhook-id", b"webhook-timestamp", b"webhook-signature")
        known, stamp, sent = (single(headers, name) for name in names)
        signed = b".".join((known, stamp, body))
        right = [b"v1," + base64.b64encode(_mac(secret, signed)) for secret in self.secrets]
        if not _any_equal(right, sent.split(b" ", MAX_SIGNATURES)[:MAX_SIGNATURES]):
            return "webhook-signature is missing or not that of id, timestamp and body"
        if not known:
            return "no webhook-id"
        if not stamp.isdigit() or len(stamp) > 12:
            return "webhook-timestamp is no number of seconds"
        if abs(now - int(stamp)) > TOLERANCE_SECONDS:
            return (
                f"webhook-timestamp is {now - int(stamp):.0f} s before now: sent again, or clocks"
            )
        return ""


@dataclass(frozen=True, slots=True)
class TokenVerifier:
    """`Authorization: Bearer <token>`."""

    secrets: Sequence[bytes] = field(repr=False)

    def refusal(self, headers: Headers, body: bytes, now: float) -> str:
        scheme, _, token = single(headers, b"authorization").partition(b" ")
        # As much work as a signature: the time shall not tell which kind a name has, if any.
        for secret in self.secrets:
            _mac(secret, body)
        if _any_equal(self.secrets, [token.strip(b" ")]) and scheme.lower() == b"bearer":
            return ""
        return "the bearer token is wrong" if token else "no bearer token"


def standard_secret(text: str) -> bytes:
    """The bytes of a secret of Standard Webhooks, with or without `whsec_`; raises ValueError."""
    encoded = text.removeprefix(STANDARD_PREFIX)
    return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)


def _mac(secret: bytes, signed: bytes) -> bytes:
    return hmac.digest(secret, signed, "sha256")


def _any_equal(right: Sequence[bytes], sent: Sequence[bytes]) -> bool:
    # All of them, so that the time does not tell which one was right.
    return sum(hmac.compare_digest(one, other) for one in right for other in sent) > 0
