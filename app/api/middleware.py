"""The edge: what every request passes before a route sees it. Pure ASGI, for streams and speed."""

import asyncio
import contextlib
import ipaddress
import logging
import re
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import problem_for
from app.core.errors import (
    DmsError,
    ForbiddenError,
    MalformedRequestError,
    PayloadTooLargeError,
    QueryTooLongError,
    UnknownHostError,
)
from app.core.logging import request_id_var
from app.core.metrics import Metrics

log = logging.getLogger(__name__)

MAX_BODY_BYTES: Final = 1024 * 1024
MAX_QUERY_BYTES: Final = 16 * 1024
_DRAIN_BYTES: Final = 16 * 1024 * 1024
_DRAIN_SECONDS: Final = 2.0
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_METHODS: Final = _READING | {"POST", "PUT", "PATCH", "DELETE"}
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,128}")
_SECURITY_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
)
_SINGLE: Final = (b"host", b"content-length", b"transfer-encoding", b"origin", b"content-type")
Headers = Mapping[bytes, bytes]


class HostRule:
    """Which Host headers name this service: loopback names, IP addresses, this machine's name, and
    the operator's own (`dms.example.com`, `*.example.com`). A web page that has its own name point
    to us (DNS rebinding) carries that name, and is refused."""

    def __init__(self, allowed: Sequence[str]) -> None:
        names = [name.lower().strip(".") for name in allowed if not name.startswith("*.")]
        self._names = {"localhost", socket.gethostname().lower(), *names}
        self._suffixes = tuple(name[1:].lower() for name in allowed if name.startswith("*."))

    def check(self, host: bytes | None) -> None:
        """Raise UnknownHostError for a name that is not ours."""
        name = host_name(host or b"")
        if name in self._names or name.endswith((".localhost", *self._suffixes)):
            return
        try:
            ipaddress.ip_address(name)
        except ValueError:
            raise UnknownHostError(
                f"{name!r} is not a name of this service: add it to DMS_ALLOWED_HOSTS (a comma "
                "list; *.example.com allows all below it), or call the service by its address"
            ) from None


def host_name(host: bytes) -> str:
    """The name in a Host header, in lower case, without its port."""
    text = host.decode("latin-1").strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.rpartition(":")[0] if text.count(":") == 1 else text.rstrip(".")


class EdgeMiddleware:
    """Request ids, limits, Host and cross-site rules, metrics, and an answer to any defect.

    The order matters: nothing of a request is believed, or read, before its head is sound.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        allowed_hosts: Sequence[str],
        metrics: Metrics,
        signed: re.Pattern[str] | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._app = app
        # Nothing there is done in a visitor's name: each request proves its sender by itself.
        self._signed = signed
        self._max_body = max_body_bytes
        self._hosts = HostRule(allowed_hosts)
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; what is not HTTP (lifespan) passes untouched."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = (_HeadExchange if scope["method"] == "HEAD" else _Exchange)(
            scope, receive, send, self._max_body
        )
        token = request_id_var.set(exchange.request_id)
        try:
            await self._serve(exchange)
        finally:
            request_id_var.reset(token)
            self._record(exchange)

    async def _serve(self, exchange: "_Exchange") -> None:
        scope = exchange.scope
        try:
            self._check(exchange)
            await self._app(scope, exchange.receive, exchange.send)
        except DmsError as error:
            await exchange.answer(error)
        except ClientDisconnect:
            return  # while it was sending: there is nobody to answer
        except Exception as error:  # the edge: nothing of ours may reach the server as it is
            log.exception(
                "A request met a defect",
                extra={"action": "http.defect", "method": scope["method"], "path": scope["path"]},
            )
            await exchange.answer(error)

    def _check(self, exchange: "_Exchange") -> None:
        scope, headers = exchange.scope, exchange.headers
        check_head(headers, scope["headers"], self._max_body)
        self._hosts.check(headers.get(b"host"))
        if len(scope["query_string"]) > MAX_QUERY_BYTES:
            raise QueryTooLongError(
                f"the query has {len(scope['query_string'])} bytes, {MAX_QUERY_BYTES} are allowed: "
                'send the parameters as a JSON body {"parameters": {...}} instead'
            )
        signed = self._signed is not None and self._signed.fullmatch(scope["path"])
        if scope["method"] not in _READING and not signed:
            check_origin(headers)

    def _record(self, exchange: "_Exchange") -> None:
        scope = exchange.scope
        method = exchange.method if exchange.method in _METHODS else "other"
        route = getattr(scope.get("route"), "path", "none")
        self._metrics.count_request(method, route, exchange.status, exchange.seconds)
        # Writes are told at INFO, but not a submission: its task is the record of it, and a line
        # for each would cost a fifth of the rate at which they are accepted.
        told = method not in _READING and (method, exchange.status) != ("POST", 202)
        level = logging.INFO if told else logging.DEBUG
        if log.isEnabledFor(level):
            log.log(
                level,
                "Request served",
                extra={
                    "action": "http.request",
                    "request_id": exchange.request_id,
                    "method": method,
                    "path": scope["path"],
                    "status": exchange.status,
                    "ms": round(exchange.seconds * 1000, 2),
                },
            )


class _Exchange:
    """One request and its response, as the edge sees them."""

    __slots__ = (
        "_max_body", "_receive", "_received", "_send", "_started", "headers", "method",
        "request_id", "scope", "seconds", "status",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, send: Send, max_body: int) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self._max_body = max_body
        self.headers: Headers = dict(scope["headers"])
        self.request_id = _request_id(self.headers)
        self.status = 0  # stays 0 when the client went away before an answer
        self.seconds = 0.0
        self._receive = receive
        self._send = send
        self._received = 0
        self._started = time.perf_counter()

    async def receive(self) -> Message:
        """The next message of the client; raises PayloadTooLargeError past the limit."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            if self._received > self._max_body:
                await self._drain()
                raise too_large(self._max_body)
        return message

    async def send(self, message: Message) -> None:
        """Pass a message to the client; the head gets the headers that every response has."""
        if message["type"] == "http.response.start":
            self.seconds = time.perf_counter() - self._started
            self.status = message["status"]
            extra = ((b"x-request-id", self.request_id.encode()), *_SECURITY_HEADERS)
            message["headers"] = [*message.get("headers", ()), *extra]
        await self._send(message)

    async def answer(self, error: Exception) -> None:
        """Answer with the error, unless an answer has begun: then the connection just ends."""
        if not self.status:
            if isinstance(error, PayloadTooLargeError):
                await self._drain()
            response = problem_for(error, self.scope["path"])
            await response(self.scope, self._receive, self.send)

    async def _drain(self) -> None:
        """Read on for a moment: a client that is still sending would never see the answer, since
        closing on unread bytes resets the connection."""
        left = _DRAIN_BYTES
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while left > 0:
                    message = await self._receive()
                    if not message.get("more_body", False):
                        return
                    left -= len(message["body"])


class _HeadExchange(_Exchange):
    """A HEAD request: served as the GET that it asks about, of which it gets the head alone."""

    __slots__ = ()

    def __init__(self, scope: Scope, receive: Receive, send: Send, max_body: int) -> None:
        super().__init__(scope, receive, send, max_body)
        self.scope = {**scope, "method": "GET"}

    async def send(self, message: Message) -> None:
        """Pass the head on, and end the answer with it, be it an endless stream."""
        if message["type"] == "http.response.start":
            await super().send(message)
            await super().send({"type": "http.response.body", "body": b"", "more_body": False})
        elif message.get("more_body", False):
            raise ClientDisconnect


def check_head(
    headers: Headers, raw: Sequence[tuple[bytes, bytes]], max_body: int = MAX_BODY_BYTES
) -> None:
    """Refuse a head that two readers could read in two ways, and a body that is too large."""
    names = [name for name, _ in raw]
    for name in _SINGLE:
        if names.count(name) > 1:
            raise MalformedRequestError(f"the header {name.decode()} stands there twice: send one")
    length = headers.get(b"content-length")
    if length is None:
        return
    if b"transfer-encoding" in headers:
        raise MalformedRequestError(
            "Content-Length and Transfer-Encoding contradict each other: send one of them"
        )
    if not length.isdigit():
        raise MalformedRequestError("Content-Length is not a number")
    if len(length) > 12 or int(length) > max_body:
        raise too_large(max_body)


def check_origin(headers: Headers) -> None:
    """Refuse a write that a web page of another site makes in a visitor's name."""
    site = headers.get(b"sec-fetch-site")
    if site is not None and site not in {b"same-origin", b"none"}:
        raise ForbiddenError(
            "a web page of another site sent this (Sec-Fetch-Site): writes come from this "
            "service's own pages, or from programs"
        )
    origin = headers.get(b"origin")
    if origin is None:
        return
    _, _, place = origin.partition(b"://")
    if _with_port(place) != _with_port(headers.get(b"host", b"")) or not place:
        raise ForbiddenError(
            "a web page of another site sent this (Origin differs from Host): writes come from "
            "this service's own pages, or from programs"
        )


def too_large(limit: int) -> PayloadTooLargeError:
    """The error for a body past the limit."""
    return PayloadTooLargeError(
        f"the body has more than {limit} bytes: send less, or name a file that the worker can read"
    )


def _with_port(place: bytes) -> bytes:
    """A host and port without the default ports, which one side may leave out."""
    return place.strip().lower().removesuffix(b":443").removesuffix(b":80")


def _request_id(headers: Headers) -> str:
    sent = headers.get(b"x-request-id", b"")
    return sent.decode() if _REQUEST_ID.fullmatch(sent) else secrets.token_hex(16)
