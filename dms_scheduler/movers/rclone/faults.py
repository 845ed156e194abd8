"""Turns rclone's words for what went wrong into the movers' stable error classes."""

from __future__ import annotations

import re

from dms_scheduler.movers.errors import MoverError
from dms_scheduler.movers.faults import Fault, ending

_UNKNOWN = Fault("rclone_error", retryable=True)
# The first that fits counts, so the narrower ones come first.
_FAULTS: tuple[tuple[str, Fault], ...] = (
    # A plain file whose name is that of a link: it cannot be told from one at the remote.
    (r"failed to read link size", Fault("name_not_allowed")),
    (r"path escapes from parent", Fault("symlink_refused")),
    (
        r"no space left|insufficient ?storage|\b507\b|disk full|not enough (?:free )?space",
        Fault("no_space", fatal=True),
    ),
    (
        r"quota ?exceeded|disk quota|storagequota|over ?quota|insufficient_space",
        Fault("quota_exceeded", fatal=True),
    ),
    (r"read-only file ?system|read[- ]only", Fault("read_only", fatal=True)),
    (
        (
            r"signaturedoesnotmatch|invalidaccesskeyid|invalidtoken|expiredtoken|unauthorized"
            r"|unable to authenticate|authentication failed|invalid_grant|oauth2?: |\b401\b"
            r"|couldn't fetch token|login incorrect|\b530\b|(?:bad|invalid) credentials"
            r"|no auth(?:entication)? methods"
        ),
        Fault("bad_credentials", fatal=True),
    ),
    (r"knownhosts|host key", Fault("host_key_refused", fatal=True)),
    (r"x509|certificate|tls: |ssl ", Fault("tls_failed", fatal=True)),
    (
        r"no such host|name resolution|server misbehaving|lookup .* on ",
        Fault("unknown_host", retryable=True, fatal=True),
    ),
    (r"connection refused", Fault("connection_refused", retryable=True, fatal=True)),
    (
        r"no route to host|network is unreachable|host is down|host is unreachable",
        Fault("unreachable", retryable=True, fatal=True),
    ),
    (
        r"slowdown|slow down|too ?many ?requests|rate ?limit|\b429\b|throttl|request limit",
        Fault("rate_limited", retryable=True),
    ),
    (
        r"i/o timeout|deadline exceeded|timed? ?out|\b(?:408|504)\b",
        Fault("timeout", retryable=True),
    ),
    (
        (
            r"connection reset|broken pipe|unexpected eof|connection lost|use of closed|\beof\b"
            r"|connection closed|goaway|\b50[0-35]\b|serviceunavailable|internalerror"
        ),
        Fault("connection_lost", retryable=True),
    ),
    (r"nosuchbucket|bucket .*(?:not found|does not exist)", Fault("not_found", fatal=True)),
    (r"file ?name too long|name too long|keytoolong|\b414\b", Fault("name_too_long")),
    (r"invalid (?:file)?name|illegal byte|invalidobjectname", Fault("name_not_allowed")),
    (
        r"permission denied|access ?denied|forbidden|\b403\b|operation not permitted",
        Fault("permission_denied"),
    ),
    (
        r"corrupted on transfer|hashe?s? differ|sizes differ",
        Fault("verify_mismatch", retryable=True),
    ),
    (
        r"source file is being updated|can't copy - source|changed during|size changed",
        Fault("changed_during_copy", retryable=True),
    ),
    (r"is a directory|not a directory|is a file not", Fault("type_conflict")),
    (
        r"not found|no such file|nosuchkey|\b404\b|doesn't exist|does not exist",
        Fault("changed_during_copy", retryable=True),
    ),
    (r"input/output error", Fault("io_error", retryable=True)),
    (r"too many open files", Fault("too_many_open_files", retryable=True)),
)
_COMPILED = tuple((re.compile(words, re.IGNORECASE), fault) for words, fault in _FAULTS)

_REMEDIES = {
    "no_space": "Free some space or choose another destination, then retry the task.",
    "quota_exceeded": "Raise the quota or free some space, then retry the task.",
    "read_only": "Make the destination writable or choose another one.",
    "bad_credentials": "Let the operator correct the remote in the rclone config file.",
    "host_key_refused": "Let the operator compare the server's key with the known_hosts file.",
    "tls_failed": "Let the operator check the server's certificate and the remote's settings.",
    "unknown_host": "Check the host of the remote, and the name service of the worker.",
    "connection_refused": "Check that the remote's server runs.",
    "unreachable": "Check the network between the worker and the remote.",
    "permission_denied": "Let the remote's account read the source and write the destination.",
    "not_found": "Check the name of the bucket or folder.",
}


def classify(message: str) -> Fault:
    """Return what rclone's `message` means."""
    for words, fault in _COMPILED:
        if words.search(message):
            return fault
    return _UNKNOWN


def as_mover_error(message: str, what: str) -> MoverError:
    """Return the error that ends a run because of `message` about `what` (a remote, a path)."""
    return ending(what, message.rstrip(". "), classify(message), _REMEDIES)
