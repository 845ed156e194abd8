"""rclone's words for what went wrong, as it says them, and the classes that they become."""

from __future__ import annotations

import pytest

from dms_scheduler.movers import NoSpace
from dms_scheduler.movers.rclone.events import Event, Kind, read_line
from dms_scheduler.movers.rclone.faults import as_mover_error, classify
from dms_scheduler.movers.rclone.names import plain, spelled

SAID = [
    ("api error SignatureDoesNotMatch: The request signature", "bad_credentials", False),
    (
        "https response error StatusCode: 403, api error InvalidAccessKeyId",
        "bad_credentials",
        False,
    ),
    ("ssh: unable to authenticate, attempted methods [none password]", "bad_credentials", False),
    ("couldn't list files: 401 Unauthorized", "bad_credentials", False),
    ("couldn't fetch token: invalid_grant: maybe token expired?", "bad_credentials", False),
    ("ssh: handshake failed: knownhosts: key mismatch", "host_key_refused", False),
    ("tls: failed to verify certificate: x509: certificate signed by unknown", "tls_failed", False),
    ("dial tcp 127.0.0.1:9: connect: connection refused", "connection_refused", True),
    ("dial tcp: lookup nowhere.invalid on 10.0.0.1:53: no such host", "unknown_host", True),
    ("dial tcp 10.9.9.9:22: connect: no route to host", "unreachable", True),
    ("dial tcp 10.9.9.9:22: i/o timeout", "timeout", True),
    ("read tcp 127.0.0.1:1->127.0.0.1:2: read: connection reset by peer", "connection_lost", True),
    ("unexpected EOF", "connection_lost", True),
    ("api error SlowDown: Please reduce your request rate", "rate_limited", True),
    ("HTTP error 429 (429 Too Many Requests)", "rate_limited", True),
    ("503 Service Unavailable", "connection_lost", True),
    ("api error NoSuchBucket: The specified bucket does not exist", "not_found", False),
    ("api error AccessDenied: Access Denied", "permission_denied", False),
    ("403 Forbidden", "permission_denied", False),
    ("open /proc/self/fd/7/a: permission denied", "permission_denied", False),
    ("507 Insufficient Storage", "no_space", False),
    ("write: no space left on device", "no_space", False),
    ("disk quota exceeded", "quota_exceeded", False),
    ('sftp: "Read only file system" (SSH_FX_FAILURE)', "read_only", False),
    ("file name too long", "name_too_long", False),
    ("corrupted on transfer: md5 hashes differ", "verify_mismatch", True),
    ("can't copy - source file is being updated (size changed", "changed_during_copy", True),
    ("object not found", "changed_during_copy", True),
    ("read: input/output error", "io_error", True),
    ("something nobody has ever heard", "rclone_error", True),
]


@pytest.mark.parametrize(
    ("message", "word", "retryable"), SAID, ids=[each[0][:40] for each in SAID]
)
def test_what_rclone_says_has_a_class(message: str, word: str, retryable: bool) -> None:
    fault = classify(message)
    assert (fault.error_class, fault.retryable) == (word, retryable)
    error = as_mover_error(message, "s3:x")
    assert (error.error_class, error.retryable) == (word, retryable)
    assert str(error).startswith("s3:x: ")
    assert isinstance(error, NoSpace) == (word in {"no_space", "quota_exceeded"})


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (
            b'{"level":"info","msg":"Copied (new)","size":3,"object":"a"}',
            Event(Kind.COPIED, "a", "Copied (new)", 3),
        ),
        (
            b'{"level":"notice","msg":"Skipped delete as it is","skipped":"delete","object":"k"}',
            Event(Kind.DELETED, "k", "Skipped delete as it is"),
        ),
        (
            b'{"level":"error","msg":"no","object":"S3 bucket x","objectType":"*s3.Fs"}',
            Event(Kind.FAILED, "", "no"),
        ),
        (b'{"level":"info","msg":"Copied (new)"}', Event(Kind.NOTE, "", "Copied (new)")),
        (b'{"level":"info","msg":"?","skipped":"dance","object":"x"}', Event(Kind.NOTE, "x", "?")),
        (b"[1]", None),
        (b"2026/01/01 CRITICAL: words", None),
        (b"\xff\xfe", None),
    ],
    ids=["copied", "planned", "of-a-side", "no-path", "unknown", "list", "words", "bytes"],
)
def test_a_line_of_the_log(line: bytes, event: Event | None) -> None:
    assert read_line(line) == event


def test_names_are_told_as_they_are_on_disk() -> None:
    assert plain("a␊b␡c‛␊d‛‛한글") == "a\nb\x7fc␊d‛한글"
    assert "".join(spelled(character) for character in "a\n\x7f한") == "a␊␡한"
