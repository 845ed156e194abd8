"""Requests and answers as values: how one is built and read. Nothing here does any I/O.

Named tuples, here and in the flows: they load four times as fast as dataclasses, and every short
command loads them.
"""

import ipaddress
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple, cast
from urllib.parse import quote, urlencode, urlsplit

from app.client.errors import (
    AddressError,
    AuthError,
    ClientError,
    ConflictError,
    NotFoundError,
    OutcomeUnknownError,
    RefusedError,
    UnavailableError,
    UnexpectedAnswerError,
    UsageError,
)

DEFAULT_BASE_URL: Final = "http://127.0.0.1:8000/api/v1"
_UNAVAILABLE: Final = frozenset({502, 503, 504})
_PASSWORD: Final = re.compile(r"(://[^/?#:@]*):.*@")
_NO_ROUTE: Final = "not-found"
_KIND_PREFIX: Final = "urn:dms:problem:"
# 503s that come before anything is stored.
_NOTHING_DONE: Final = frozenset({"scheduler-unavailable"})
_AGAIN: Final = "try again in a moment"
_NONE: Final[Mapping[str, str]] = MappingProxyType({})


class Request(NamedTuple):
    """One request, relative to the API's base (or, `at_origin`, to the root of its server).

    `operator` says that the operator's token goes with it: nobody else is told the token.
    `timeout` bounds each wait for the network in seconds; None leaves the client's own.
    `accepts` are statuses of 400 and more that are answers all the same.
    """

    method: str
    path: str
    query: str = ""
    body: bytes | None = None
    headers: Mapping[str, str] = _NONE
    operator: bool = False
    at_origin: bool = False
    timeout: float | None = None
    accepts: frozenset[int] = frozenset()

    @property
    def changes_something(self) -> bool:
        """Whether it may have had an effect when no answer came."""
        return self.method != "GET"


class Answer(NamedTuple):
    """One whole answer of the server at `where`; names of headers are lower case."""

    where: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    reason: str = ""


def request(
    method: str,
    path: str,
    *,
    params: Mapping[str, Any] | None = None,
    body: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    operator: bool = False,
) -> Request:
    """A request from plain values; parameters of None are left out, a list is repeated.

    `path` is made by `route`. Raises UsageError for what JSON or a URL cannot carry.
    """
    sent = dict(headers or {})
    if body is not None:
        sent["Content-Type"] = "application/json"
    return Request(
        method,
        path,
        query=_query(params or {}),
        body=None if body is None else _json_bytes(body),
        headers=sent,
        operator=operator,
    )


def route(*segments: str) -> str:
    """A path below the API's base; user data in it is quoted. UsageError for what is no name."""
    for segment in segments:
        if segment in {"", ".", ".."} or "/" in segment:
            raise UsageError(
                f"{segment!r} is not a name",
                "services, users and task ids have letters, digits and . _ @ -",
            )
    try:
        return "".join(f"/{quote(segment, safe='')}" for segment in segments)
    except UnicodeEncodeError:
        raise _not_text("a name", segments) from None


def _query(params: Mapping[str, Any]) -> str:
    pairs = [
        (name, _plain(item))
        for name, value in params.items()
        if value is not None
        for item in _items(value)
    ]
    try:
        return urlencode(pairs)
    except UnicodeEncodeError:
        raise _not_text("an option", [text for _, text in pairs]) from None


def _items(value: Any) -> Sequence[Any]:
    return cast("Sequence[Any]", value) if isinstance(value, (list, tuple)) else (value,)


def _plain(value: Any) -> str:
    return ("false", "true")[value] if isinstance(value, bool) else str(value)


def _json_bytes(body: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return text.encode()
    except UnicodeEncodeError:
        raise _not_text("a parameter", ()) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"the parameters are not JSON: {error}",
            "use texts, finite numbers, true, false, None, lists and mappings of those",
        ) from error


def _not_text(what: str, texts: Iterable[str]) -> UsageError:
    """Bytes that a shell passed on, such as a file's name in an encoding of the past."""
    wrong = next((f" ({text!r})" for text in texts if _is_no_text(text)), "")
    return UsageError(
        f"{what}{wrong} is not valid UTF-8, so neither JSON nor a URL can carry it",
        "name something that is, such as a folder above it",
    )


def _is_no_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


# ------------------------------------------------------------------------------------- the address
class Address(NamedTuple):
    """Where the API is. `shown` is the address without a password that stands in it."""

    root: str
    origin: str
    shown: str
    loopback: bool
    encrypted: bool

    def url(self, request: Request) -> str:
        """The whole URL of a request."""
        base = self.origin if request.at_origin else self.root
        return f"{base}{request.path}?{request.query}" if request.query else base + request.path


def address(base: str) -> Address:
    """The address that a base URL names; AddressError for what is none."""
    try:
        parts = urlsplit(base)
        host = parts.hostname
        parts.port  # noqa: B018  (raises for a port that is none)
    except ValueError:  # a bracket without its other half
        parts, host = urlsplit(""), None
    if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment:
        raise AddressError(
            f"{_without_password(base)!r} is not the address of an API",
            f"use one such as {DEFAULT_BASE_URL}: pass base_url, or set DMS_API_BASE",
        )
    root = base.rstrip("/")
    return Address(
        root=root,
        origin=f"{parts.scheme}://{parts.netloc}",
        shown=_without_password(root),
        loopback=_is_loopback(host),
        encrypted=parts.scheme == "https",
    )


def _without_password(base: str) -> str:
    return _PASSWORD.sub(r"\1:***@", base)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def fits_header(text: str) -> bool:
    """Whether a header can carry the text as it is."""
    return text.isascii() and text.isprintable() and text == text.strip()


def token_headers(token: str | None) -> dict[str, str]:
    """The operator's header, or none without a token; UsageError for one that cannot be sent."""
    if not token:
        return {}
    if not fits_header(token):
        raise UsageError(
            "the operator token has characters that no header can carry",
            "use the value of the service's DMS_OPERATOR_TOKEN",
        )
    return {"X-Operator-Token": token}


# ----------------------------------------------------------------------------------------- answers
def unreachable(where: Address, error: Exception) -> UnavailableError:
    """No connection was made."""
    return UnavailableError(
        f"cannot reach {where.shown}: {error}",
        "is DMS running? `dms-frontend up` starts one here; another's address: base_url or "
        "DMS_API_BASE",
        reached=False,
    )


def cut_off(where: Address, sent: Request, error: Exception) -> UnavailableError:
    """The connection broke, or the answer did not come in time."""
    kind = OutcomeUnknownError if sent.changes_something else UnavailableError
    return kind(
        f"no whole answer from {where.shown}: {str(error) or type(error).__name__}",
        "try again; if it persists, look at the frontend's log",
    )


def check(answer: Answer, sent: Request) -> None:
    """Raise the ClientError that an answer means; return if it is what was asked for."""
    status = answer.status
    if status < 300 or status in sent.accepts:
        return
    if status < 400:
        raise AddressError(
            f"{answer.where} answers with a redirect ({status}), which is never followed",
            "use the address that it redirects to",
            status=status,
        )
    raise _error(answer, sent)


def _error(answer: Answer, sent: Request) -> ClientError:
    problem = _problem(answer)
    status, cause = answer.status, problem.cause
    named: dict[str, Any] = {
        "status": status,
        "kind": problem.kind,
        "request_id": problem.request_id or answer.headers.get("x-request-id"),
    }
    if status in _UNAVAILABLE:
        unknown = sent.changes_something and problem.kind not in _NOTHING_DONE
        kind = OutcomeUnknownError if unknown else UnavailableError
        return kind(cause, _AGAIN, **named, retry_after=_retry_after(answer))
    if status == 404 and problem.kind in {None, _NO_ROUTE}:
        return AddressError(
            f"{sent.path} is not there: {answer.where} is not the root of a DMS API",
            "the root ends with its prefix, usually /api/v1: pass base_url, or set DMS_API_BASE",
            **named,
        )
    if status in {401, 403}:
        remedy = "operators name their token: pass token, or set DMS_OPERATOR_TOKEN"
        return AuthError(cause, remedy, **named)
    if status >= 500:
        return UnexpectedAnswerError(cause, "", **named)
    return {404: NotFoundError, 409: ConflictError}.get(status, RefusedError)(cause, "", **named)


class _Problem(NamedTuple):
    cause: str
    kind: str | None
    request_id: str | None


def _problem(answer: Answer) -> _Problem:
    """What went wrong in the server's words; its kind only if a DMS says so."""
    words = _object(answer.body) or {}
    text = words.get("detail") or words.get("title")
    if not isinstance(text, str):
        return _Problem(f"HTTP {answer.status} {answer.reason}".rstrip(), None, None)
    ours = "problem+json" in answer.headers.get("content-type", "")
    slug = str(words.get("type", "")).removeprefix(_KIND_PREFIX)
    request_id = words.get("request_id")
    return _Problem(
        text,
        slug if ours else None,
        request_id if isinstance(request_id, str) else None,
    )


def _retry_after(answer: Answer) -> float:
    try:
        return max(0.0, float(answer.headers.get("retry-after", "0")))
    except ValueError:  # a date
        return 0.0


def json_object(answer: Answer) -> dict[str, Any]:
    """The answer's JSON object; UnexpectedAnswerError if it is none."""
    if answer.status == 204:
        return {}
    found = _object(answer.body)
    if found is None:
        raise UnexpectedAnswerError(
            f"{answer.where} answered something that is not DMS's",
            "is this the API's root? pass base_url, or set DMS_API_BASE",
            status=answer.status,
        )
    return found


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None
