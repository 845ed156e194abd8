"""The file of webhooks: what it may say; faults are told with their place, without secrets."""

import base64
from pathlib import Path

import pytest

from app.core.errors import ConfigurationError
from app.services.webhook_file import Webhook, load_webhooks, readable_by_others
from tests.support.webhooks import GITHUB_SECRET, by_github, by_token, webhooks_file

CANARY = "canary-canary-canary-77"


def load(folder: Path, text: str, **environment: str) -> dict[str, Webhook]:
    """The webhooks of a file with this text."""
    return load_webhooks(webhooks_file(folder, text), environment)


def test_a_whole_file(tmp_path: Path) -> None:
    found = load_webhooks(webhooks_file(tmp_path))
    assert sorted(found) == ["bodies", "deploys", "orders", "plain", "simple"]
    deploys = found["deploys"]
    assert (deploys.kind, deploys.topic, deploys.once) == ("github", "ci.deploys", "delivery")
    assert deploys.events == {"push", "release"}
    assert "x-extra" in deploys.headers
    assert deploys.task is not None
    assert (deploys.task.service, deploys.task.user_id) == ("sync", "alice")
    assert found["plain"].topic == "webhooks.plain"
    assert (found["plain"].task, found["plain"].events) == (None, None)


@pytest.mark.parametrize("text", ["", "# nothing\n", "[webhooks]\n"])
def test_a_file_may_be_empty(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text) == {}


def test_secrets_come_from_several_places_at_once(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("secret-in-a-file-of-old\r\n")
    text = """
    [webhooks.w]
    verify = "token"
    secret = "secret-in-the-file-itself"
    secrets = ["another-in-the-file-itself"]
    secret_env = ["A_SECRET", "B_SECRET"]
    secret_file = "old"
    """
    secrets = {"A_SECRET": "secret-of-variable-a", "B_SECRET": "secret-of-variable-b"}
    verifier = load(tmp_path, text, **secrets)["w"].verifier
    all_secrets = [
        *secrets.values(),
        "secret-in-a-file-of-old",
        "secret-in-the-file-itself",
        "another-in-the-file-itself",
    ]
    for secret in all_secrets:
        sent = by_token(token=secret)
        assert verifier.refusal(sent.lines, sent.body, 0) == ""
    assert verifier.refusal(by_token().lines, b"", 0) != ""


def test_a_standard_secret_is_decoded_and_a_github_secret_is_not(tmp_path: Path) -> None:
    key = base64.b64encode(b"0123456789abcdef").decode()
    text = f'[webhooks.w]\nverify = "github"\nsecret = "whsec_{key}"\n'
    sent = by_github(secret=f"whsec_{key}")
    assert load(tmp_path, text)["w"].verifier.refusal(sent.lines, sent.body, 0) == ""


HEAD = f'[webhooks.w]\nsecret = "{CANARY}"\n'
GITHUB = HEAD + 'verify = "github"\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[webhooks.w", r"not TOML in UTF-8 at end of document"),
        (f'[webhooks.w]\nverify = "github"\n"{CANARY}"', "not TOML in UTF-8 at end of document"),
        (f'[webhooks.w]\nsecret = "{CANARY}\n"', "not TOML in UTF-8 at line 2, column 34"),
        (f'webhooks = "{CANARY}"', "only tables"),
        (f'[webhook.w]\nsecret = "{CANARY}"', "'webhook': only tables"),
        (f"[webhooks]\nw = '{CANARY}'", r"\[webhooks.w\] .*"),
        ('[webhooks."a b"]', r"\[webhooks.'a b'\] a name is"),
        (HEAD, r"\[webhooks.w\] verify: "),
        (HEAD + 'verify = "hub"', "verify: .*github.*standard.*token"),
        (GITHUB + 'secrt = "x"', "secrt: "),
        (GITHUB + f"secrets = ['{CANARY}', 3]", r"secrets\.1: "),
        (GITHUB + 'topic = "a b"', "topic: .*no topic"),
        (GITHUB + 'topic = "a.*"', "topic: "),
        (GITHUB + "events = []", "events: "),
        (GITHUB + 'events = "push"', "events: "),
        (GITHUB + 'once = "day"', "once: "),
        (GITHUB + 'headers = ["X Y"]', r"headers\.0: "),
        (GITHUB + 'headers = ["Authorization"]', r"headers\.0: .*secret"),
        (GITHUB + 'headers = ["X-Hub-Signature-256"]', r"headers\.0: .*secret"),
        (GITHUB + 'task = {service = "sync"}', r"task\.user_id: "),
        (GITHUB + 'task = {service = "a/b", user_id = "u"}', r"task\.service: "),
        (GITHUB + 'task = {service = "s", user_id = ".."}', r"task\.user_id: "),
        (GITHUB + 'task = {service = "s", user_id = "u", max = 3}', r"task\.max: "),
        (
            GITHUB + 'task = {service = "s", user_id = "u", parameters = {a = {b = "{{ x }}"}}}',
            r"task\.parameters\.a\.b: .*not known",
        ),
        (
            GITHUB + 'task = {service = "s", user_id = "u", parameters = {d = 2026-01-01}}',
            r"task\.parameters: not JSON",
        ),
        (
            GITHUB + 'task = {service = "s", user_id = "u", parameters = {d = nan}}',
            r"task\.parameters: not JSON",
        ),
        ('[webhooks.w]\nverify = "github"', "no secret: give"),
        ('[webhooks.w]\nverify = "github"\nsecret = ""', "secret: a secret has 16 bytes"),
        ('[webhooks.w]\nverify = "github"\nsecret = "canary-canary"', "16 bytes or more"),
        (f'[webhooks.w]\nverify = "github"\nsecret = " {CANARY}"', "secret: it has blanks"),
        (f'[webhooks.w]\nverify = "github"\nsecret = "{CANARY}\\n"', "control characters"),
        ('[webhooks.w]\nverify = "standard"\nsecret = "whsec_canary-canary!"', "whsec_ and base64"),
        ('[webhooks.w]\nverify = "standard"\nsecret = "whsec_Y2FuYXJ5"', "16 bytes or more"),
        ('[webhooks.w]\nverify = "token"\nsecret_env = "GONE"', "the variable GONE is not set"),
        ('[webhooks.w]\nverify = "token"\nsecret_env = "SHORT"', "secret_env: SHORT: .*16 bytes"),
        ('[webhooks.w]\nverify = "token"\nsecret_file = "gone"', "secret_file: .*gone cannot be"),
        (
            f'[webhooks.w]\nverify="token"\nsecret="{CANARY}"\nevents=["a"]',
            "events: .*leave it out",
        ),
    ],
)
def test_faults_are_told_with_file_table_and_key_and_without_secrets(
    tmp_path: Path, text: str, told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told) as raised:
        load(tmp_path, text, SHORT="canary")
    message = str(raised.value)
    assert message.startswith(f"DMS_WEBHOOKS_FILE: {tmp_path / 'webhooks.toml'}")
    assert "canary" not in message
    assert "Y2FuYXJ5" not in message
    assert raised.value.__cause__ is None or "canary" not in str(raised.value.__cause__)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "gone", tmp_path):
        with pytest.raises(ConfigurationError, match="cannot be read"):
            load_webhooks(path)
    (tmp_path / "large").write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(ConfigurationError, match="larger than 1 MiB"):
        load_webhooks(tmp_path / "large")
    (tmp_path / "latin").write_bytes(b"# \xe9")
    with pytest.raises(ConfigurationError, match="not TOML in UTF-8"):
        load_webhooks(tmp_path / "latin")
    (tmp_path / "key").write_bytes(b"\xff" * 20)
    text = '[webhooks.w]\nverify = "token"\nsecret_file = "key"'
    with pytest.raises(ConfigurationError, match="key is not UTF-8"):
        load(tmp_path, text)


def test_who_can_read_it(tmp_path: Path) -> None:
    path = webhooks_file(tmp_path)
    assert not readable_by_others(path)
    path.chmod(0o640)
    assert readable_by_others(path)


def test_nothing_that_is_made_shows_a_secret(tmp_path: Path) -> None:
    assert GITHUB_SECRET not in repr(load_webhooks(webhooks_file(tmp_path)))
