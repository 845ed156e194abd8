"""Signatures of webhooks: published vectors, the reference library, and anything but them."""

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook as Oracle

from app.services.webhook_signatures import (
    MAX_SIGNATURES,
    GitHubVerifier,
    Headers,
    StandardVerifier,
    TokenVerifier,
    Verifier,
    single,
    standard_secret,
)
from tests.support.webhooks import (
    GITHUB_SECRET,
    STANDARD_SECRET,
    TOKEN_SECRET,
    Sent,
    by_github,
    by_standard,
    by_token,
    oracle_signature,
)

NOW = 1_700_000_000.0
KEY = standard_secret(STANDARD_SECRET)
GITHUB = GitHubVerifier([GITHUB_SECRET.encode()])
STANDARD = StandardVerifier([KEY])
TOKEN = TokenVerifier([TOKEN_SECRET.encode()])
# GitHub's page "Validating webhook deliveries" has this one.
GITHUB_VECTOR = Sent(
    b"Hello, World!",
    {
        "X-Hub-Signature-256": "sha256="
        "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    },
)
# That of the reference libraries of Standard Webhooks.
STANDARD_VECTOR = Sent(
    b'{"test": 2432232314}',
    {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    },
)


def ok(verifier: Verifier, sent: Sent, now: float = NOW) -> bool:
    """Whether it is the sender."""
    return verifier.refusal(sent.lines, sent.body, now) == ""


def test_published_vectors() -> None:
    assert ok(GITHUB, GITHUB_VECTOR)
    assert ok(STANDARD, STANDARD_VECTOR, 1614265330)


def signed_by(kind: str, body: bytes, *secrets: str) -> Sent:
    """A request of that kind; a Standard Webhook has a signature for each secret."""
    if kind == "github":
        return by_github(body, secret=secrets[0], delivery="d")
    if kind == "token":
        return by_token(body, token=secrets[0], delivery="d")
    stamp = str(int(NOW))
    signed = f"d.{stamp}.".encode() + body
    macs = [hmac.new(standard_secret(one), signed, hashlib.sha256).digest() for one in secrets]
    pieces = ["v1," + base64.b64encode(mac).decode() for mac in macs]
    headers = {"webhook-id": "d", "webhook-timestamp": stamp}
    return Sent(body, {**headers, "webhook-signature": " ".join(pieces)})


KINDS: dict[str, tuple[Verifier, str]] = {
    "github": (GITHUB, GITHUB_SECRET),
    "standard": (STANDARD, STANDARD_SECRET),
    "token": (TOKEN, TOKEN_SECRET),
}
kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
@given(body=st.binary(max_size=300))
def test_the_right_secret_opens_with_any_bytes(kind: str, body: bytes) -> None:
    verifier, secret = KINDS[kind]
    assert ok(verifier, signed_by(kind, body, secret))


@given(body=st.text(max_size=300), at=st.integers(int(NOW) - 299, int(NOW) + 299))
def test_the_reference_library_agrees(body: str, at: int) -> None:
    assert ok(STANDARD, by_standard(body.encode(), delivery="msg_1", at=at))


@given(body=st.text(max_size=300))
def test_the_reference_library_takes_what_the_tests_sign(body: str) -> None:
    sent = signed_by("standard", body.encode(), STANDARD_SECRET)
    made = oracle_signature(STANDARD_SECRET, "d", int(NOW), body.encode())
    assert sent.headers["webhook-signature"] == made
    assert Oracle(STANDARD_SECRET).sign  # the oracle is the library, not a helper of ours


PROOFS = {
    "github": [b"x-hub-signature-256"],
    "standard": [b"webhook-id", b"webhook-timestamp", b"webhook-signature"],
    "token": [b"authorization"],
}


@kinds
@given(data=st.data(), body=st.binary(min_size=1, max_size=80))
def test_any_flipped_bit_is_refused(kind: str, data: st.DataObject, body: bytes) -> None:
    """Of the body, where it is signed, and of every header that proves something."""
    verifier, secret = KINDS[kind]
    sent = signed_by(kind, body, secret)
    fields = PROOFS[kind] + ([] if kind == "token" else [b""])
    chosen = data.draw(st.sampled_from(fields))
    original = dict(sent.lines).get(chosen, body)
    bit = data.draw(st.integers(0, len(original) * 8 - 1))
    flipped = bytearray(original)
    flipped[bit // 8] ^= 1 << bit % 8
    changed = bytes(flipped)
    if kind == "token" and changed.lower() == original.lower() and bit // 8 < len("Bearer"):
        return  # the scheme's name is not case-sensitive (RFC 9110)
    headers = [(name, changed if name == chosen else value) for name, value in sent.lines]
    now_body = changed if chosen == b"" else body
    assert verifier.refusal(headers, now_body, NOW) != ""


@kinds
@given(value=st.binary(max_size=120), body=st.binary(max_size=20))
def test_no_header_breaks_it(kind: str, value: bytes, body: bytes) -> None:
    verifier, secret = KINDS[kind]
    sent = signed_by(kind, body, secret)
    for name in PROOFS[kind]:
        headers = [(each, value if each == name else old) for each, old in sent.lines]
        if value != dict(sent.lines)[name]:
            assert verifier.refusal(headers, body, NOW) != ""
        assert verifier.refusal([(name, value)], body, NOW) != "" or kind == "token"


@kinds
def test_a_header_that_stands_there_twice_proves_nothing(kind: str) -> None:
    verifier, secret = KINDS[kind]
    sent = signed_by(kind, b"{}", secret)
    for name in PROOFS[kind]:
        again = [pair for pair in sent.lines if pair[0] == name]
        assert verifier.refusal([*sent.lines, *again], b"{}", NOW) != ""
        assert verifier.refusal([*sent.lines, (name, b"x")], b"{}", NOW) != ""


@kinds
def test_each_of_several_secrets_opens_and_no_other(kind: str) -> None:
    old = "whsec_" + base64.b64encode(b"an old secret of some length").decode()
    new = "whsec_" + base64.b64encode(b"the new secret, which is longer").decode()
    keys = [standard_secret(one) if kind == "standard" else one.encode() for one in (new, old)]
    verifier = type(KINDS[kind][0])(keys)  # pyright: ignore[reportCallIssue]
    assert ok(verifier, signed_by(kind, b"{}", old))
    assert ok(verifier, signed_by(kind, b"{}", new))
    assert not ok(verifier, signed_by(kind, b"{}", KINDS[kind][1]))


def test_one_of_several_signatures_is_enough_and_other_versions_do_not_count() -> None:
    """Senders rotate too: they sign with the old secret and with the new one."""
    other = "whsec_" + base64.b64encode(b"a secret of somebody else").decode()
    both = signed_by("standard", b"{}", other, STANDARD_SECRET)
    assert ok(STANDARD, both)
    right = both.headers["webhook-signature"].split(" ")[1]
    for value in (f"v1a,zzz {right}", f"{right} v2,zzz", f"  {right}", f"{right} {right}"):
        assert ok(STANDARD, Sent(b"{}", {**both.headers, "webhook-signature": value}))
    encoded = right.partition(",")[2]
    for value in (
        encoded,
        f"v1a,{encoded}",
        f"v1, {encoded}",
        right.replace("=", ""),
        f"v1,{right}",
    ):
        assert not ok(STANDARD, Sent(b"{}", {**both.headers, "webhook-signature": value}))


def test_only_so_many_signatures_are_looked_at() -> None:
    sent = signed_by("standard", b"{}", STANDARD_SECRET)
    right = sent.headers["webhook-signature"]
    for before, found in ((MAX_SIGNATURES - 1, True), (MAX_SIGNATURES, False), (60_000, False)):
        value = " " * before + right
        assert ok(STANDARD, Sent(b"{}", {**sent.headers, "webhook-signature": value})) is found


@pytest.mark.parametrize(
    ("late", "welcome"),
    [(0, True), (300, True), (-300, True), (300.5, False), (-300.5, False), (1e9, False)],
)
def test_the_timestamp_may_be_five_minutes_off(late: float, welcome: bool) -> None:
    sent = signed_by("standard", b"{}", STANDARD_SECRET)
    assert ok(STANDARD, sent, NOW + late) is welcome


@pytest.mark.parametrize(
    "stamp", ["", "1e9", "1700000000.5", "-1", "+1700000000", "0x65", "9" * 13]
)
def test_a_signed_timestamp_must_be_a_number_of_seconds(stamp: str) -> None:
    mac = hmac.new(KEY, f"d.{stamp}.{{}}".encode(), hashlib.sha256).digest()
    signature = "v1," + base64.b64encode(mac).decode()
    headers = {"webhook-id": "d", "webhook-timestamp": stamp, "webhook-signature": signature}
    assert not ok(STANDARD, Sent(b"{}", headers))


def test_a_signed_delivery_needs_an_id() -> None:
    mac = hmac.new(KEY, f".{int(NOW)}.{{}}".encode(), hashlib.sha256).digest()
    signature = "v1," + base64.b64encode(mac).decode()
    headers = {"webhook-timestamp": str(int(NOW)), "webhook-signature": signature}
    assert not ok(STANDARD, Sent(b"{}", headers))


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", "Basic {}", "{}", "Bearer {} x", "Token {}"]
)
def test_only_a_bearer_is_one(value: str) -> None:
    assert not ok(TOKEN, Sent(b"", {"Authorization": value.format(TOKEN_SECRET)}))


def test_secrets_are_read_with_and_without_their_prefix() -> None:
    assert standard_secret(STANDARD_SECRET.removeprefix("whsec_")) == KEY
    assert standard_secret("whsec_YWI") == b"ab"
    for text in ("whsec_!!!!", "whsec_a", "whsec_한글"):
        with pytest.raises(ValueError, match=r"."):
            standard_secret(text)


def test_single_is_strict() -> None:
    headers: Headers = [(b"a", b"1"), (b"b", b"2"), (b"b", b"2")]
    assert [single(headers, name) for name in (b"a", b"b", b"c")] == [b"1", b"", b""]


@kinds
def test_secrets_are_not_shown(kind: str) -> None:
    verifier, secret = KINDS[kind]
    assert secret not in repr(verifier)
    assert "secret" not in repr(verifier).lower()
