"""What may stand for a remote path, and every trick that may not."""

from __future__ import annotations

import pytest

from dms_scheduler.movers import Refused
from dms_scheduler.movers.rclone import is_remote, parse_address

TRICKS = [
    ":local:/etc",
    ":webdav,bearer_token_command='touch /tmp/x':",
    ":alias,remote=/:",
    ":s3:bucket",
    "s3,endpoint=http://evil:bucket",
    "s3,env_auth:bucket",
    "s3:bucket/../other",
    "s3:..",
    "s3:/a/../../b",
    "-s3:x",
    "--config=/x:y",
    "s3:a\0b",
    "s3:a\nb",
    "s3:a\x1b[31m",
    "s3:\x85",
    "s3:" + "x" * 5000,
    "s3:a\udcff",
    "\udcff:a",
    "a b,c:d",
    "a'b:c",
    "a$b:c",
    " s3:x",
    "s3 :x",
    "a=b:c",
    "noremote",
    "",
]


@pytest.mark.parametrize("text", TRICKS, ids=range(len(TRICKS)))
def test_tricks_are_refused(text: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_address(text)
    assert caught.value.error_class == "path_refused"
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("text", "fs", "parts"),
    [
        ("s3:bucket/a", "s3:bucket/a", ("bucket", "a")),
        ("s3:bucket//a/./b/", "s3:bucket/a/b", ("bucket", "a", "b")),
        ("sftp:/srv/data", "sftp:/srv/data", ("srv", "data")),
        ("한글:폴더/이름 하나", "한글:폴더/이름 하나", ("폴더", "이름 하나")),
        ("my remote:x:y,z=1", "my remote:x:y,z=1", ("x:y,z=1",)),
        ("r.1+2@h-3:...", "r.1+2@h-3:...", ("...",)),
    ],
)
def test_a_remote_path_is_taken_as_it_is(text: str, fs: str, parts: tuple[str, ...]) -> None:
    address = parse_address(text)
    assert (address.fs, address.parts) == (fs, parts)


@pytest.mark.parametrize("text", ["s3:", "s3:/", "s3:.", "s3://", "s3:/.", "s3:./", "s3:/./."])
def test_the_top_of_a_remote_in_every_spelling(text: str) -> None:
    assert parse_address(text).is_top


def test_parents_and_children() -> None:
    address = parse_address("sftp:/a/b")
    assert address.parent == "sftp:/a"
    assert address.child("c", "d").fs == "sftp:/a/b/c/d"


@pytest.mark.parametrize(
    ("text", "remote"),
    [("s3:x", True), (":local:/", True), ("/a:b", False), ("relative", False), ("-x:y", True)],
)
def test_only_what_begins_with_a_slash_is_local(text: str, remote: bool) -> None:
    assert is_remote(text) is remote
