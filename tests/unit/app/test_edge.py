"""The edge's rules alone: hosts, origins, heads, tokens, parameters."""

from typing import Any
from urllib.parse import quote

import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st

from app.api.middleware import HostRule, check_head, check_origin, host_name
from app.api.parameters import parse_query, wants_strict
from app.api.security import MAX_FAILURES, Lockout, is_local
from app.core.errors import (
    DmsError,
    ForbiddenError,
    MalformedRequestError,
    PayloadTooLargeError,
    TooManyAttemptsError,
    UnknownHostError,
)


@pytest.mark.parametrize(
    "host",
    [
        b"localhost", b"LOCALHOST:8000", b"dms.localhost", b"127.0.0.1:80", b"[::1]:8000",
        b"10.0.0.7", b"dms.example.com", b"dms.example.com:443", b"DMS.Example.Com.",
        b"a.b.internal",
    ],
)  # fmt: skip
def test_our_own_names_are_known(host: bytes) -> None:
    HostRule(["dms.example.com", "*.internal"]).check(host)


@pytest.mark.parametrize(
    "host",
    [
        b"evil.example.org", b"", None, b"localhost.evil.org", b"xinternal", b"internal",
        b"evil.org:localhost", b"127.0.0.1.evil.org", b"\xff", b"dms.example.com.evil.org",
    ],
)  # fmt: skip
def test_other_names_are_refused(host: bytes | None) -> None:
    with pytest.raises(UnknownHostError, match="DMS_ALLOWED_HOSTS"):
        HostRule(["dms.example.com", "*.internal"]).check(host)


@given(st.binary(max_size=80))
def test_any_bytes_have_a_host_name_or_none(host: bytes) -> None:
    assert isinstance(host_name(host), str)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"sec-fetch-site": b"same-origin"},
        {b"sec-fetch-site": b"none"},
        {b"origin": b"http://localhost:8000", b"host": b"localhost:8000"},
        {b"origin": b"https://dms.example.com", b"host": b"dms.example.com:443"},
    ],
)
def test_own_pages_and_programs_may_write(headers: dict[bytes, bytes]) -> None:
    check_origin(headers)


@pytest.mark.parametrize(
    "headers",
    [
        {b"sec-fetch-site": b"cross-site"},
        {b"sec-fetch-site": b"same-site"},
        {b"sec-fetch-site": b""},
        {b"origin": b"null", b"host": b"localhost"},
        {b"origin": b"", b"host": b""},
        {b"origin": b"http://evil.org", b"host": b"localhost"},
        {b"origin": b"http://localhost:3000", b"host": b"localhost:8000"},
        {b"origin": b"http://localhost", b"sec-fetch-site": b"cross-site", b"host": b"localhost"},
    ],
)  # fmt: skip
def test_pages_of_other_sites_may_not(headers: dict[bytes, bytes]) -> None:
    with pytest.raises(ForbiddenError):
        check_origin(headers)


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        ([(b"content-length", b"5"), (b"transfer-encoding", b"chunked")], MalformedRequestError),
        ([(b"content-length", b"5"), (b"content-length", b"6")], MalformedRequestError),
        ([(b"host", b"a"), (b"host", b"b")], MalformedRequestError),
        ([(b"content-length", b"-5")], MalformedRequestError),
        ([(b"content-length", b"+5")], MalformedRequestError),
        ([(b"content-length", b"5, 6")], MalformedRequestError),
        ([(b"content-length", b"1048577")], PayloadTooLargeError),
        ([(b"content-length", b"9" * 5000)], PayloadTooLargeError),
    ],
)
def test_heads_that_mean_two_things_are_refused(
    raw: list[tuple[bytes, bytes]], error: type[DmsError]
) -> None:
    with pytest.raises(error):
        check_head(dict(raw), raw)


def test_a_sound_head_passes() -> None:
    raw = [(b"host", b"a"), (b"content-length", b"1048576"), (b"accept", b"a"), (b"accept", b"b")]
    check_head(dict(raw), raw)


def test_lockout_ends_and_forgets() -> None:
    now = 1000.0
    lockout = Lockout(lambda: now)
    for _ in range(MAX_FAILURES):
        lockout.check("a")
        lockout.failed("a")
    with pytest.raises(TooManyAttemptsError) as locked:
        lockout.check("a")
    assert locked.value.retry_after == 61
    lockout.check("b")
    now += 60.0
    lockout.check("a")
    lockout.failed("a")
    lockout.check("a")


def test_success_forgets_failures() -> None:
    lockout = Lockout(lambda: 0.0)
    for _ in range(MAX_FAILURES * 3):
        lockout.failed("a")
        lockout.succeeded("a")
    lockout.check("a")


def test_lockout_remembers_a_bounded_number() -> None:
    lockout = Lockout(lambda: 0.0)
    for _ in range(MAX_FAILURES):
        lockout.failed("first")
    for number in range(10_000):
        lockout.failed(str(number))
    lockout.check("first")
    assert len(lockout._failures) == 10_000  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(
    ("client", "local"),
    [(("127.0.0.1", 1), True), (("127.9.9.9", 1), True), (("::1", 1), True),
     (("::ffff:127.0.0.1", 1), True), (("::ffff:10.0.0.1", 1), False), (("192.168.0.2", 1), False),
     (("testclient", 1), False), (None, False)],
)  # fmt: skip
def test_who_is_local(client: tuple[str, int] | None, local: bool) -> None:
    scope: dict[str, Any] = {"type": "http", "client": client, "headers": []}
    assert is_local(Request(scope)) is local


@pytest.mark.parametrize(
    ("headers", "strict"),
    [
        ([], False),
        (["handling=strict"], True),
        (["respond-async, handling=strict; x=1"], True),
        (["respond-async", 'Handling = "strict"'], True),
        (["handling=lenient"], False),
        (["x=handling=strict"], False),
    ],
)
def test_prefer_is_read_as_rfc_7240_says(headers: list[str], strict: bool) -> None:
    assert wants_strict(headers) is strict


@given(st.dictionaries(st.text(min_size=1), st.lists(st.text(), min_size=1, max_size=3)))
def test_any_text_survives_a_query(values: dict[str, list[str]]) -> None:
    def quoted(text: str) -> str:
        return quote(text.encode("utf-8", "replace"), safe="")

    query = "&".join(f"{quoted(k)}={quoted(v)}" for k, vs in values.items() for v in vs)
    expected: dict[str, object] = {}
    for name, texts in values.items():
        sent = [text.encode("utf-8", "replace").decode() for text in texts]
        key = name.encode("utf-8", "replace").decode()
        expected[key] = sent[0] if len(sent) == 1 else sent
    if len(expected) == len(values):
        assert parse_query(query.encode()) == expected


@given(st.binary(max_size=200))
def test_any_bytes_as_a_query_are_read_or_refused(query: bytes) -> None:
    try:
        parsed = parse_query(query)
    except DmsError:
        return
    assert all(isinstance(value, str | list) for value in parsed.values())
