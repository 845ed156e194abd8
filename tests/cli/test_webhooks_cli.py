"""Webhooks and the command line: a fault in their file is told in words, before a server starts."""

from pathlib import Path

import pytest

from app.core.config import Settings
from cli.doctor import services
from cli.doctor.report import Result, Verdict
from cli.embedded import EmbeddedServer
from cli.up.plan import parts_environment, private_folder
from tests.support.cli import clean_environment, dms
from tests.support.webhooks import GITHUB_SECRET, STANDARD_SECRET, TOKEN_SECRET, webhooks_file

CANARY = "canary-canary-canary-77"
BROKEN = f'[webhooks.w]\nverify = "hub"\nsecret = "{CANARY}"\n'


def test_serve_names_the_fault_and_starts_nothing(tmp_path: Path) -> None:
    path = webhooks_file(tmp_path, BROKEN)
    done = dms("serve", "--port", "0", env=clean_environment(DMS_WEBHOOKS_FILE=str(path)))
    assert done.returncode != 0
    assert str(path) in "".join(done.stderr.split("\n"))
    assert "verify" in done.stderr
    assert "Traceback" not in done.stderr
    assert CANARY not in done.stderr + done.stdout


def test_a_relative_path_is_refused() -> None:
    done = dms("show-config", env=clean_environment(DMS_WEBHOOKS_FILE="webhooks.toml"))
    assert done.returncode != 0
    assert "DMS_WEBHOOKS_FILE" in done.stderr
    assert "absolute" in done.stderr


def test_the_settings_show_the_path_alone(tmp_path: Path) -> None:
    path = webhooks_file(tmp_path)
    done = dms("show-config", env=clean_environment(DMS_WEBHOOKS_FILE=str(path)))
    assert f"DMS_WEBHOOKS_FILE={path}" in done.stdout
    for secret in (GITHUB_SECRET, STANDARD_SECRET, TOKEN_SECRET):
        assert secret not in done.stdout


def examined(path: Path) -> Result:
    """What the doctor says of the file."""
    found = services.check_settings(Settings(webhooks_file=path))
    return next(result for result in found if result.name == "webhooks")


def test_the_doctor_looks_after_the_file(tmp_path: Path) -> None:
    path = webhooks_file(tmp_path)
    result = examined(path)
    assert (result.verdict, result.what) == (Verdict.OK, f"5 in {path}")
    path.chmod(0o644)
    result = examined(path)
    assert result.verdict is Verdict.WARNING
    assert "chmod 600" in result.remedy
    webhooks_file(tmp_path, BROKEN)
    result = examined(path)
    assert result.verdict is Verdict.PROBLEM
    assert "[webhooks.w] verify" in result.what
    assert CANARY not in repr(result)


def test_up_hands_it_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DMS_WEBHOOKS_FILE", raising=False)
    base = {"DMS_WEBHOOKS_FILE": "/x/webhooks.toml", "GITHUB_SECRET": "secret-of-the-operator"}
    environment = parts_environment(
        EmbeddedServer.of(private_folder(tmp_path / "dms")),
        port=1,
        scheduler_port=2,
        roots=[],
        token="t",
        base=base,
    )
    assert base.items() <= environment.items()
