"""Who may act: the operator by a token, a user by the word of a trusted proxy."""

import hmac
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from fastapi import Request

from app.core.config import DEFAULT_OPERATOR_TOKEN, Settings
from app.core.errors import ForbiddenError, NotAuthenticatedError, TooManyAttemptsError

TOKEN_HEADER: Final = "X-Operator-Token"  # noqa: S105  (a header's name)
MAX_FAILURES: Final = 10
LOCK_SECONDS: Final = 60.0
_MAX_CLIENTS: Final = 10_000
_TOKEN_KEY: Final = TOKEN_HEADER.lower().encode()
# A request that bears one of these came through a proxy: its client is not on this machine.
_FORWARDING: Final = frozenset(
    {b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto",
     b"x-forwarded-port", b"x-forwarded-server", b"x-real-ip", b"x-client-ip", b"true-client-ip",
     b"cf-connecting-ip"}
)  # fmt: skip


class Lockout:
    """Counts failures by address; remembers 10,000 addresses, the oldest is forgotten first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def check(self, client: str) -> None:
        """Raise TooManyAttemptsError while the address is locked out."""
        count, since = self._failures.get(client, (0, 0.0))
        left = since + LOCK_SECONDS - self._clock()
        if left <= 0:
            self._failures.pop(client, None)
        elif count >= MAX_FAILURES:
            raise TooManyAttemptsError(int(left) + 1)

    def failed(self, client: str) -> None:
        """Count a failure; the time runs from the last one."""
        count = self._failures.pop(client, (0, 0.0))[0]
        self._failures[client] = (count + 1, self._clock())
        if len(self._failures) > _MAX_CLIENTS:
            self._failures.popitem(last=False)

    def succeeded(self, client: str) -> None:
        """Forget the address's failures."""
        self._failures.pop(client, None)


class OperatorGate:
    """Lets the bearer of DMS_OPERATOR_TOKEN in; the default token works on this machine alone."""

    def __init__(self, settings: Settings) -> None:
        token = settings.operator_token.get_secret_value()
        self._token = token.encode()
        self._is_default = token == DEFAULT_OPERATOR_TOKEN
        self._lockout = Lockout()

    def require(self, request: Request) -> None:
        """Raise ForbiddenError, NotAuthenticatedError or TooManyAttemptsError unless it may."""
        if self._is_default and not is_local(request):
            raise ForbiddenError(
                "the operator token is still the default, which works from this machine alone: set "
                "DMS_OPERATOR_TOKEN to a secret of your own and restart the service"
            )
        client = _client_key(request)
        self._lockout.check(client)
        sent = [value for name, value in request.headers.raw if name == _TOKEN_KEY]
        if len(sent) == 1 and hmac.compare_digest(sent[0], self._token):
            self._lockout.succeeded(client)
            return
        if sent:
            self._lockout.failed(client)
        raise NotAuthenticatedError(
            f"this needs the header {TOKEN_HEADER} with the value of DMS_OPERATOR_TOKEN"
        )


class UserGate:
    """With DMS_USER_HEADER, a user is who the trusted proxy says; without, who the request says."""

    def __init__(self, settings: Settings) -> None:
        self._header = settings.user_header

    def user(self, request: Request) -> str | None:
        """The user that the proxy names; None when no proxy is trusted with that."""
        if self._header is None:
            return None
        named = request.headers.getlist(self._header)
        if len(named) != 1 or not named[0]:
            raise NotAuthenticatedError(
                f"this needs the header {self._header} (DMS_USER_HEADER), once, as the proxy in "
                "front of the service sets it: call the service through that proxy"
            )
        return named[0]

    def is_other(self, request: Request, user_id: str) -> bool:
        """Whether the proxy says that the request comes from somebody other than `user_id`."""
        user = self.user(request)
        return user is not None and not hmac.compare_digest(user.encode(), user_id.encode())

    def require(self, request: Request, user_id: str) -> None:
        """Raise ForbiddenError for a request in another user's name."""
        if self.is_other(request, user_id):
            raise ForbiddenError(
                f"the proxy says that you are not {user_id!r}: name yourself as the user"
            )


def is_local(request: Request) -> bool:
    """Whether the client is on this machine, and nothing says that it only forwards."""
    if request.client is None or any(name in _FORWARDING for name, _ in request.headers.raw):
        return False
    try:
        address = ipaddress.ip_address(request.client.host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback


def _client_key(request: Request) -> str:
    """Whom a failure is counted against: an IPv4 address, or an IPv6 network of one customer."""
    host = request.client.host if request.client else "unknown"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return host
