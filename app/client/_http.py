"""What both faces of the client tell httpx2, and what they make of its answers and errors."""

import contextlib
import os
import ssl
from collections.abc import Generator
from typing import Any, Final

import httpx2

from app.client._flow import Event
from app.client._request import (
    DEFAULT_BASE_URL,
    Answer,
    Request,
    address,
    check,
    cut_off,
    token_headers,
    unreachable,
)
from app.client.errors import UnexpectedAnswerError, UsageError

DEFAULT_TIMEOUT: Final = 30.0
_CONNECT_SECONDS: Final = 5.0
# A live stream says something at least every 15 s (a comment, if nothing else).
_QUIET_SECONDS: Final = 60.0


class Wiring:
    """Where requests go, and what goes with each of them."""

    def __init__(self, base_url: str | None, token: str | None, timeout: float) -> None:
        if base_url is None:
            base_url = os.environ.get("DMS_API_BASE") or DEFAULT_BASE_URL
        self.where = address(base_url)
        self._operator = token_headers(
            os.environ.get("DMS_OPERATOR_TOKEN") if token is None else token
        )
        self._timeout = timeout

    def client_options(self) -> dict[str, Any]:
        """The arguments of an httpx2 client."""
        # A proxy of the environment cannot reach this machine's own loopback.
        bare = self.where.loopback and not self.where.encrypted
        return {
            "timeout": self._limits(None),
            "trust_env": not self.where.loopback,
            "verify": _no_authorities() if bare else True,
            "follow_redirects": False,
        }

    def send_options(self, sent: Request) -> dict[str, Any]:
        """The arguments of httpx2's `request`, and of its `stream` too."""
        return {
            "method": sent.method,
            "url": self.where.url(sent),
            "content": sent.body,
            "headers": {**sent.headers, **(self._operator if sent.operator else {})},
        }

    def limits(self, sent: Request) -> httpx2.Timeout:
        """How long one answer may take to go on."""
        return self._limits(sent.timeout)

    def stream_limits(self) -> httpx2.Timeout:
        """How long a stream may be quiet."""
        return httpx2.Timeout(self._timeout, connect=_CONNECT_SECONDS, read=_QUIET_SECONDS)

    def _limits(self, seconds: float | None) -> httpx2.Timeout:
        most = self._timeout if seconds is None else min(self._timeout, seconds)
        return httpx2.Timeout(most, connect=min(most, _CONNECT_SECONDS))

    def read(self, sent: Request, response: httpx2.Response) -> Answer:
        """The whole answer; raises the ClientError that it means."""
        answer = Answer(
            where=self.where.shown,
            status=response.status_code,
            headers={name.lower(): value for name, value in response.headers.items()},
            body=response.content,
            reason=response.reason_phrase,
        )
        check(answer, sent)
        return answer

    @contextlib.contextmanager
    def errors(self, sent: Request) -> Generator[None]:
        """Errors of httpx2 as the client's own."""
        try:
            yield
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise UsageError(str(error), "see base_url and DMS_API_BASE") from error
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            raise unreachable(self.where, error) from error
        except httpx2.SSEError as error:
            raise UnexpectedAnswerError(
                f"{self.where.shown} streams something that is not DMS's: {error}"
            ) from error
        except httpx2.TransportError as error:
            raise cut_off(self.where, sent, error) from error
        except httpx2.DecodingError as error:
            raise UnexpectedAnswerError(f"{self.where.shown}: {error}") from error


def event_of(found: httpx2.ServerSentEvent) -> Event:
    """An event as flows know it."""
    return Event(found.event, found.data, found.id)


def _no_authorities() -> ssl.SSLContext:
    """For plain HTTP without a proxy: to load all authorities of the world takes a fifth of a short
    command's time. This one trusts nobody."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
