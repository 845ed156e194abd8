"""The HTTP side of the command line: one small client of the API, its failures made readable."""

import contextlib
import ipaddress
import re
import ssl
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import quote, urlsplit

import httpx2

from cli.errors import CliError, ExitCode

_TIMEOUT = httpx2.Timeout(30.0, connect=5.0)
# A live stream says something at least every 15 s (a comment, if nothing else).
_STREAM_TIMEOUT = httpx2.Timeout(30.0, read=60.0)
_CREATE_DELAYS = (0.2, 0.5, 1.0, 2.0)
_MAX_RETRY_AFTER = 5.0
_UNAVAILABLE = frozenset({502, 503, 504})
_PASSWORD = re.compile(r"(://[^/?#:@]*):.*@")
_NO_ROUTE = "urn:dms:problem:not-found"


class UnreachableError(CliError):
    """No answer, or the answer that DMS cannot answer now: the same request may work later."""

    def __init__(self, cause: str, remedy: str, retry_after: float = 0.0) -> None:
        super().__init__(cause, remedy, ExitCode.UNREACHABLE)
        self.retry_after = retry_after


class OutcomeUnknownError(UnreachableError):
    """The request may have been carried out although no answer says so."""


class Api:
    """Calls below one API base. Every failure is a CliError with its exit code."""

    def __init__(
        self, base: str, token: str | None = None, pause: Callable[[float], None] = time.sleep
    ) -> None:
        host = _host_of(base)
        self._root = base.rstrip("/")
        self.base = _shown(self._root)
        self._pause = pause
        self._headers = _token_header(token)
        # A proxy of the environment cannot reach this machine's own loopback.
        outside = not _is_loopback(host)
        self._http = httpx2.Client(
            timeout=_TIMEOUT,
            trust_env=outside,
            verify=_no_authorities() if base.startswith("http:") and not outside else True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """One request and its JSON answer; `path` is made by `route`."""
        query = {name: value for name, value in (params or {}).items() if value is not None}
        with self._transport_errors():
            answer = self._http.request(
                method,
                self._root + path,
                params=query,
                json=body,
                headers={**self._headers, **(headers or {})},
            )
        _check(answer, self.base)
        return _json_object(answer, self.base)

    def create(
        self,
        path: str,
        *,
        key: str,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """A POST that makes a task, repeated with the same key while its outcome is unknown."""
        if not _fits_header(key):
            raise CliError(
                f"the idempotency key {key!r} cannot be sent",
                "use ASCII characters without spaces around them, such as a random UUID",
                ExitCode.USAGE,
            )
        sent = {**(headers or {}), "Idempotency-Key": key}
        for delay in _CREATE_DELAYS:
            try:
                return self.call("POST", path, params=params, body=body, headers=sent)
            except OutcomeUnknownError as error:
                self._pause(max(delay, min(error.retry_after, _MAX_RETRY_AFTER)))
        try:
            return self.call("POST", path, params=params, body=body, headers=sent)
        except OutcomeUnknownError as error:
            raise OutcomeUnknownError(
                f"{error.cause}; whether the task was accepted is unknown",
                f"repeat the command with --idempotency-key {key}: it is accepted only once",
            ) from None

    def events(
        self, path: str, *, params: Mapping[str, Any], last: str | None
    ) -> Iterator[httpx2.ServerSentEvent]:
        """A live stream's events, those after the event `last`, until the stream ends."""
        headers = {**self._headers, "Accept": "text/event-stream"}
        if last is not None:
            headers["Last-Event-ID"] = last
        with (
            self._transport_errors(),
            self._http.stream(
                "GET", self._root + path, params=params, headers=headers, timeout=_STREAM_TIMEOUT
            ) as answer,
        ):
            if answer.status_code >= 400:
                answer.read()
            _check(answer, self.base)
            yield from httpx2.EventSource(answer)

    @contextlib.contextmanager
    def _transport_errors(self) -> Generator[None]:
        try:
            yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise UnreachableError(
                f"cannot reach {self.base}: {error}",
                "is DMS running? `dms-frontend up` starts one here; "
                "another's address: --api-base or DMS_API_BASE",
            ) from error
        except httpx2.TransportError as error:
            raise OutcomeUnknownError(
                f"no whole answer from {self.base}: {str(error) or type(error).__name__}",
                "try again; if it persists, look at the frontend's log",
            ) from error
        except httpx2.InvalidURL as error:
            raise CliError(str(error), "see --api-base", ExitCode.USAGE) from error


def route(*segments: str) -> str:
    """A path below the API base; user data in it is quoted. CliError for what is no single name."""
    for segment in segments:
        if segment in {"", ".", ".."} or "/" in segment:
            raise CliError(
                f"{segment!r} is not a name",
                "services, users and task ids have letters, digits and . _ @ -",
                ExitCode.USAGE,
            )
    return "".join(f"/{quote(segment, safe='')}" for segment in segments)


def _host_of(base: str) -> str:
    """The host of an API's address; CliError for what is no such address."""
    try:
        parts = urlsplit(base)
    except ValueError:  # a bracket without its other half
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise CliError(
            f"{_shown(base)!r} is not the address of an API",
            "use one such as http://127.0.0.1:8000/api/v1: --api-base or DMS_API_BASE",
            ExitCode.USAGE,
        )
    return parts.hostname


def _shown(base: str) -> str:
    """The address without a password that stands in it."""
    return _PASSWORD.sub(r"\1:***@", base)


def _fits_header(text: str) -> bool:
    return text.isascii() and text.isprintable() and text == text.strip()


def _token_header(token: str | None) -> dict[str, str]:
    if not token:
        return {}
    if not _fits_header(token):
        raise CliError(
            "the operator token has characters that no header can carry",
            "use the value of the service's DMS_OPERATOR_TOKEN",
            ExitCode.USAGE,
        )
    return {"X-Operator-Token": token}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _no_authorities() -> ssl.SSLContext:
    """For plain HTTP without a proxy: to load all authorities of the world takes a fifth of a short
    command's time. This one trusts nobody."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _check(answer: httpx2.Response, base: str) -> None:
    if answer.status_code < 400:
        return
    cause, known = _problem(answer)
    status = answer.status_code
    if status in _UNAVAILABLE:
        raise OutcomeUnknownError(cause, "try again in a moment", _retry_after(answer))
    if status == 404 and not known:
        raise CliError(
            f"{answer.url.path} is not there: {base} is not the root of a DMS API",
            "the root ends with its prefix, usually /api/v1: --api-base or DMS_API_BASE",
            ExitCode.NOT_FOUND,
        )
    if status in {401, 403}:
        raise CliError(
            cause,
            "operators name their token: --operator-token or DMS_OPERATOR_TOKEN",
            ExitCode.AUTH,
        )
    code = ExitCode.NOT_FOUND if status == 404 else ExitCode.ERROR
    raise CliError(cause, "", code)


def _problem(answer: httpx2.Response) -> tuple[str, bool]:
    """What went wrong in the server's words, and whether a route of DMS says so."""
    try:
        found = answer.json()
    except ValueError:
        found = None
    if isinstance(found, dict):
        words = cast("dict[str, Any]", found)
        text = words.get("detail") or words.get("title")
        if isinstance(text, str):
            known = "problem+json" in answer.headers.get("content-type", "")
            return text, known and words.get("type") != _NO_ROUTE
    return f"HTTP {answer.status_code} {answer.reason_phrase} from {answer.url.host}", False


def _retry_after(answer: httpx2.Response) -> float:
    try:
        return max(0.0, float(answer.headers.get("retry-after", "0")))
    except ValueError:
        return 0.0


def _json_object(answer: httpx2.Response, base: str) -> dict[str, Any]:
    if answer.status_code == 204:
        return {}
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CliError(
            f"{base} answered something that is not DMS's",
            "is this the API's root? --api-base or DMS_API_BASE",
        )
    return cast("dict[str, Any]", found)
