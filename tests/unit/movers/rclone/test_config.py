"""The operator's config file: what it may be, which remotes it offers, what it never tells."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dms_scheduler.movers import Refused
from dms_scheduler.movers.rclone import RcloneConfigError, remote_names
from dms_scheduler.movers.rclone.config import RcloneConfig, keep_tokens, load_config
from tests.unit.movers.support import as_nobody

CANARY = "canary-of-this-file"
TEXT = f"""
# a comment
; another
[s3]
type = s3
secret_access_key = {CANARY}

[crypted]
type = crypt
remote = s3:bucket/below
password = {CANARY}-2

[both]
type = union
upstreams = crypted:a s3:bucket:ro
[parts]
type = combine
upstreams = "x=s3:bucket/one two" y=both:
[drive]
type = drive
token = {{"access_token":"{CANARY}-3","expiry":"2026"}}
[disk]
type = local
[alias-of-disk]
type = alias
remote = disk:/etc
[alias-of-path]
type = alias
remote = /etc
[on-the-fly]
type = alias
remote = :local:/etc
[union-of-disk]
type = union
upstreams = s3:x /etc
[combined-disk]
type = combine
upstreams = a=s3:x b=/etc
[crypt-of-alias]
type = crypt
remote = alias-of-path:x
[runs]
type = webdav
bearer_token_command = touch x
[shell]
type = sftp
ssh = ssh -o ProxyCommand=x
[typeless]
host = x
[missing]
type = alias
remote = nobody:x
[options]
type = alias
remote = s3,endpoint=x:bucket
[circle]
type = alias
remote = circle:x
"""
USABLE = ("both", "circle", "crypted", "drive", "parts", "s3")


def written(folder: Path, text: str, mode: int = 0o600) -> str:
    path = folder / "rclone.conf"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def loaded(folder: Path) -> RcloneConfig:
    return load_config(written(folder, TEXT))


def test_remotes_that_lead_to_local_files_or_programs_are_not_offered(tmp_path: Path) -> None:
    config = loaded(tmp_path)
    assert config.names == USABLE
    assert remote_names({"DMS_RCLONE_CONFIG": f" {config.path} "}) == USABLE
    assert remote_names({}) == ()
    for name in set(config.sections) - set(USABLE):
        with pytest.raises(Refused) as caught:
            config.chain(name)
        assert caught.value.error_class == "remote_refused"
        assert name in str(caught.value)
        assert "/etc" not in str(caught.value)
    with pytest.raises(Refused, match="not configured") as caught:
        config.chain("nobody")
    assert caught.value.error_class == "unknown_remote"


def test_a_task_gets_only_the_sections_that_it_needs(tmp_path: Path) -> None:
    config = loaded(tmp_path)
    assert config.chain("parts") == ("parts", "s3", "both", "crypted")
    text = config.text_of(config.chain("crypted"))
    assert [line for line in text.splitlines() if line.startswith("[")] == ["[crypted]", "[s3]"]
    assert load_config(written(tmp_path, text)).chain("crypted") == ("crypted", "s3")


def test_secrets_are_known_also_those_inside_tokens(tmp_path: Path) -> None:
    config = loaded(tmp_path)
    assert config.secrets_of(("s3", "crypted")) == {CANARY, f"{CANARY}-2"}
    assert f"{CANARY}-3" in config.secrets_of(("drive",))


def test_files_that_remotes_name_may_be_read(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.touch()
    text = f"[a]\ntype = sftp\nkey_file = {key}\nknown_hosts_file = /no/such/file\n"
    config = load_config(written(tmp_path, text))
    assert list(config.files_of(("a",))) == [str(key)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"[a]\ntype = s3\n{CANARY}\n", "line 3"),
        (f"secret = {CANARY}\n[a]\n", "line 1"),
        ("[a]\n = x\n", "line 2"),
        (f"# Encrypted rclone configuration File\n\nRCLONE_ENCRYPT_V0:\n{CANARY}", "encrypted"),
        ("x" * (5 << 20), "larger"),
    ],
    ids=["no-value", "no-section", "no-key", "encrypted", "huge"],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(RcloneConfigError, match=words) as caught:
        load_config(written(tmp_path, text))
    assert CANARY not in str(caught.value)
    assert "DMS_RCLONE_CONFIG" in str(caught.value)


def test_a_file_that_is_missing_binary_or_a_directory(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"[a]\nx = \xff\xfe\n")
    for path in (tmp_path / "none", tmp_path, binary):
        with pytest.raises(RcloneConfigError):
            load_config(str(path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_file_of_another_user(open_place: object, tmp_path: Path) -> None:
    del open_place
    path = written(tmp_path, TEXT)
    with as_nobody(), pytest.raises(RcloneConfigError, match="Permission denied"):
        load_config(path)


def test_a_file_that_everybody_can_read_is_noticed(tmp_path: Path) -> None:
    assert not load_config(written(tmp_path, TEXT)).exposed
    assert not load_config(written(tmp_path, TEXT, 0o640)).exposed
    assert load_config(written(tmp_path, TEXT, 0o644)).exposed


def test_a_renewed_token_goes_back_into_the_operators_file(tmp_path: Path) -> None:
    config = loaded(tmp_path)
    Path(config.path).chmod(0o640)
    copy = tmp_path / "copy"
    copy.write_text(config.text_of(("drive",)).replace(f"{CANARY}-3", "renewed"))
    assert keep_tokens(config, str(copy), ("drive",))
    assert Path(config.path).read_text() == TEXT.replace(f"{CANARY}-3", "renewed")
    assert Path(config.path).stat().st_mode & 0o777 == 0o640
    assert sorted(each.name for each in tmp_path.iterdir()) == ["copy", "rclone.conf"]


def test_nothing_is_written_when_no_token_changed(tmp_path: Path) -> None:
    config = loaded(tmp_path)
    before = Path(config.path).stat()
    copy = tmp_path / "copy"
    copy.write_text(config.text_of(("drive", "s3")))
    assert keep_tokens(config, str(copy), ("drive", "s3"))
    assert keep_tokens(config, str(tmp_path / "none"), ("drive",))
    assert Path(config.path).stat().st_ino == before.st_ino


def test_a_token_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    config = loaded(tmp_path)
    copy = tmp_path / "copy"
    copy.write_text(config.text_of(("drive",)).replace(f"{CANARY}-3", "renewed"))
    (tmp_path / "rclone.conf.dms-new").mkdir()
    assert not keep_tokens(config, str(copy), ("drive",))
    assert Path(config.path).read_text() == TEXT
