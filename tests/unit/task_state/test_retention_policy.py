"""Retention rules: what they say, which one counts, and what a bad one is told."""

from datetime import timedelta

import pytest

from app.core.config import Settings, load_settings
from app.core.errors import ConfigurationError as AppConfigurationError
from task_state import ConfigurationError, TaskStatus
from task_state.retention_policy import RetentionPolicy, parse_age

COMPLETED, FAILED, CANCELLED = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("1.5h", timedelta(minutes=90)),
        ("30d", timedelta(days=30)),
        (" 4w ", timedelta(weeks=4)),
    ],
)
def test_an_age_is_a_number_and_a_unit(text: str, age: timedelta) -> None:
    assert parse_age(text) == age


@pytest.mark.parametrize(
    "text", ["", "30", "d", "-1d", "0d", "1y", "1 d", "9999999999999w", "200000d"]
)
def test_other_texts_are_no_age(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no age|out of range"):
        parse_age(text)


def test_the_most_specific_rule_counts() -> None:
    rules = ["*=40d", "COMPLETED=30d", "sync:*=20d", "sync:failed=10d"]
    for order in (rules, rules[::-1]):
        policy = RetentionPolicy.parse(order)
        ages = {
            (service, status): policy.age(service, status)
            for service in ("sync", "copy")
            for status in (COMPLETED, FAILED)
        }
        assert ages == {
            ("sync", COMPLETED): timedelta(days=20),
            ("sync", FAILED): timedelta(days=10),
            ("copy", COMPLETED): timedelta(days=30),
            ("copy", FAILED): timedelta(days=40),
        }


def test_what_no_rule_covers_is_kept() -> None:
    policy = RetentionPolicy.parse(["sync:COMPLETED=7d"])
    assert policy.age("sync", CANCELLED) is None
    assert policy.age("copy", COMPLETED) is None
    assert RetentionPolicy().age("sync", COMPLETED) is None


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("COMPLETED", "not of the form"),
        ("COMPLETED=", "not of the form"),
        ("a:b:COMPLETED=1d", "not of the form"),
        ("COMPLETED=1d=2d", "not of the form"),
        ("DONE=1d", "'DONE' is no status"),
        ("RUNNING=1d", "have not ended"),
        ("COMPLETED=soon", "'soon' is no age"),
        ("a b:COMPLETED=1d", "no service's name"),
    ],
)
def test_a_bad_rule_is_named_with_the_reason_and_an_example(
    rule: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RetentionPolicy.parse(["FAILED=1d", rule])
    for part in (repr(rule), why, "COMPLETED=30d"):
        assert part in str(caught.value)
    monkeypatch.setenv("DMS_RETENTION", f"FAILED=1d,{rule}")
    with pytest.raises(AppConfigurationError) as told:
        load_settings()
    for part in ("DMS_RETENTION", repr(rule), why):
        assert part in str(told.value)


def test_two_rules_of_one_service_and_state_contradict_each_other() -> None:
    with pytest.raises(ConfigurationError, match="already"):
        RetentionPolicy.parse(["COMPLETED=1d", "completed=2d"])


def test_the_settings_hold_the_rules_and_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().retention == []
    assert Settings().archive_dir is None
    monkeypatch.setenv("DMS_RETENTION", "COMPLETED=30d, sync:*=7d")
    monkeypatch.setenv("DMS_ARCHIVE_DIR", "/srv/archive")
    masked = load_settings().masked()
    assert masked["DMS_RETENTION"] == ["COMPLETED=30d", "sync:*=7d"]
    assert masked["DMS_ARCHIVE_DIR"] == "/srv/archive"
    monkeypatch.setenv("DMS_ARCHIVE_DIR", "archive")
    with pytest.raises(AppConfigurationError, match=r"DMS_ARCHIVE_DIR.*absolute"):
        load_settings()
