"""The parameters of the built-in tasks: what they read, and how they refuse."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import ValidationError

from app.core.errors import BadInputError
from app.services.definitions import Definitions
from app.services.scheduler import SchedulerClient
from app.tasks import get_definition
from dms_scheduler.definitions import describe_all, load_definitions
from dms_scheduler.movers import Compare, Fsync, MoveOptions, Overwrite, Preserve, Verify
from dms_scheduler.services.parameters import (
    CheckParameters,
    CopyParameters,
    HotcoldParameters,
    Parameters,
    RmParameters,
    SyncParameters,
)

MODELS: dict[str, type[Parameters]] = {
    "sync": SyncParameters,
    "copy": CopyParameters,
    "check": CheckParameters,
    "rm": RmParameters,
    "hotcold": HotcoldParameters,
}
TWO = {"src": "/data/a", "dst": "/data/b"}
ONE = {"path": "/data/a"}
NEEDED = {"sync": TWO, "copy": TWO, "check": TWO, "rm": ONE, "hotcold": ONE}


def parse(**values: Any) -> SyncParameters:
    return SyncParameters.model_validate({**TWO, **values})


def refusals(service: str, **values: Any) -> list[tuple[str, str]]:
    """Return the name and the words of each problem."""
    with pytest.raises(ValidationError) as caught:
        MODELS[service].model_validate({**NEEDED[service], **values})
    problems = caught.value.errors(include_url=False)
    return [(".".join(str(part) for part in each["loc"]), each["msg"]) for each in problems]


def test_defaults_are_those_of_the_movers() -> None:
    assert parse().move_options() == MoveOptions()
    assert CopyParameters.model_validate(TWO).move_options() == MoveOptions()
    checked = CheckParameters.model_validate(TWO).move_options()
    assert checked == MoveOptions(compare=Compare.CHECKSUM, preserve=frozenset())


def test_everything_may_come_as_text() -> None:
    options = parse(
        compare="checksum",
        verify="none",
        delete="true",
        max_delete="5",
        allow_empty_src="1",
        backup_deleted="false",
        dry_run="yes",
        overwrite="never",
        symlinks="skip",
        preserve="mtime",
        fsync="each",
        include="*.txt",
        exclude=["a", "b"],
        bandwidth="10M",
        transfers="32",
        retries="0",
        label="nightly",
    ).move_options()
    assert (options.compare, options.verify) == (Compare.CHECKSUM, Verify.NONE)
    assert (options.delete, options.max_delete, options.allow_empty_src) == (True, 5, True)
    assert (options.backup_deleted, options.dry_run) == (False, True)
    assert (options.overwrite, options.fsync) == (Overwrite.NEVER, Fsync.EACH)
    assert options.preserve == {Preserve.MTIME}
    assert (options.include, options.exclude) == (("*.txt",), ("a", "b"))
    assert (options.bandwidth, options.transfers, options.retries) == (10 * 1024**2, 32, 0)


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1), ("512K", 512 * 1024), ("1GiB", 1024**3), ("2 MB", 2 * 1024**2)]
)
def test_bandwidth_has_units(text: str, value: int) -> None:
    assert parse(bandwidth=text).bandwidth == value


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("mode,mtime", {Preserve.MODE, Preserve.MTIME}),
        (["mode", "mtime"], {Preserve.MODE, Preserve.MTIME}),
        ("mode, owner", {Preserve.MODE, Preserve.OWNER}),
        ("all", set(Preserve)),
        ("", set[Preserve]()),
        ("none", set[Preserve]()),
    ],
)
def test_preserve_is_a_list_in_any_form(value: object, kept: set[Preserve]) -> None:
    assert parse(preserve=value).preserve == kept


@pytest.mark.parametrize("place", ["s3:", "s3:bucket/a b", "sftp:/home/김", "/data/a:b"])
def test_a_place_may_be_at_a_remote(place: str) -> None:
    assert parse(src=place).src == place
    assert RmParameters.model_validate({"path": place}).path == place


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("input", "value", "there is no such parameter; there are src, dst"),
        ("exlude", "a", "did you mean exclude?"),
        ("src", "relative", "not absolute"),
        ("src", ":local:/etc", "options"),
        ("src", "s3,env_auth=true:x", "options"),
        ("dst", "-x", "'-'"),
        ("dst", "/a/../b", "'..'"),
        ("dst", "s3:a/../b", "'..'"),
        ("dst", "/a\0b", "NUL"),
        ("dst", ["/a", "/b"], "give the parameter once"),
        ("compare", "date", "choices: exists, size, size_mtime or checksum"),
        ("verify", "some", "choices: none, transferred or all"),
        ("symlinks", "follow", "choices: keep or skip"),
        ("fsync", "yes", "choices: none, end or each"),
        ("delete", "perhaps", "give true or false"),
        ("max_delete", "-1", "too small: at least 0"),
        ("max_delete", True, "whole number"),
        ("transfers", "0", "too small: at least 1"),
        ("transfers", "33", "too large: at most 32"),
        ("transfers", "four", "whole number"),
        ("transfers", 2.5, "whole number"),
        ("bandwidth", "0", "too small: at least 1"),
        ("bandwidth", "9" * 400, "bytes a second"),
        ("bandwidth", "99999T", "too large"),
        ("bandwidth", "fast", "bytes a second"),
        ("bandwidth", "-5M", "bytes a second"),
        ("preserve", "colour", "colour cannot be preserved; choose of mtime, mode, owner"),
        ("preserve", 7, "separated by commas"),
        ("include", "[z-a]", "cannot be read"),
        ("include", ["a"] * 101, "too many values: at most 100"),
        ("exclude", "/", "name something"),
        ("deadline", "soon", "give a duration such as 90s"),
        ("deadline", True, "give a duration such as 90s"),
        ("deadline", "0", "more than nothing"),
        ("deadline", "2030-01-01T00:00:00", "time zone"),
        ("label", "x" * 201, "at most 200 characters"),
    ],
)
def test_a_value_without_sense_is_refused_in_plain_words(
    name: str, value: object, words: str
) -> None:
    ((where, said),) = refusals("sync", **{name: value})
    assert where == name
    assert words in said
    assert "Input should" not in said
    assert "pydantic" not in said


def test_a_parameter_that_is_missing_is_named() -> None:
    with pytest.raises(ValidationError, match="is missing; it is required"):
        SyncParameters.model_validate({"src": "/a"})
    with pytest.raises(ValidationError, match="as a JSON object"):
        SyncParameters.model_validate(["/a", "/b"])


def test_values_stay_out_of_the_words() -> None:
    said = refusals("sync", geheim="hunter2", compare="hunter2", max_delete="hunter2")
    assert len(said) == 3
    assert "hunter2" not in str(said)


def test_a_name_cannot_break_out_of_a_line() -> None:
    ((name, _),) = refusals("sync", **{"a\n\x1b[31mb" + "c" * 500: "1"})
    assert "\n" not in name
    assert len(name) <= 64


@pytest.mark.parametrize("name", ["delete", "max_delete", "allow_empty_src", "backup_deleted"])
def test_copy_sends_who_wants_to_delete_to_sync(name: str) -> None:
    ((where, said),) = refusals("copy", **{name: "true"})
    assert where == name
    assert "use the service sync" in said


@pytest.mark.parametrize("name", ["delete", "dry_run", "overwrite"])
def test_check_changes_nothing(name: str) -> None:
    assert "changes nothing" in refusals("check", **{name: "true"})[0][1]


def test_check_compares_few_attributes() -> None:
    kept = CheckParameters.model_validate({**TWO, "preserve": "mode,mtime,owner"}).preserve
    assert kept == {Preserve.MODE, Preserve.MTIME, Preserve.OWNER}
    assert "sparse cannot be compared" in refusals("check", preserve="mode,sparse")[0][1]


def test_ages_are_of_local_files() -> None:
    assert "no times of access" in refusals("hotcold", path="s3:bucket")[0][1]


def test_hot_comes_before_cold() -> None:
    ((name, said),) = refusals("hotcold", hot_days="10", cold_days="5")
    assert name == "hot_days"
    assert "cold_days" in said


def test_a_deadline_is_a_duration_or_a_time() -> None:
    assert parse().seconds_left() is None
    assert parse(deadline="90").seconds_left() == 90
    assert parse(deadline="1.5h").seconds_left() == 5400
    assert parse(deadline=30).deadline == timedelta(seconds=30)
    past = parse(deadline=datetime(2020, 1, 1, tzinfo=UTC).isoformat()).seconds_left()
    assert past is not None
    assert past < 0
    assert parse(deadline="2030-01-31T12:00:00Z").deadline == datetime(2030, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "given",
    [
        {"bandwidth": "10M"},
        {"bandwidth": " 1 MiB/s "},
        {"bandwidth": 1000},
        {"preserve": "mtime,owner"},
        {"preserve": "mode, mtime"},
        {"preserve": "all"},
        {"preserve": ""},
        {"preserve": ["mode", "none"]},
        {"include": "*.txt"},
        {"deadline": "90s"},
        {"deadline": 90},
        {"deadline": "2030-01-01T00:00:00Z"},
        {"transfers": "4", "delete": "yes", "options": "-c"},
    ],
)
def test_a_strict_check_takes_what_the_worker_takes(given: dict[str, Any]) -> None:
    checked = Definitions(cast("SchedulerClient", _Scheduler()))
    parse(**given)
    asyncio.run(checked.validate("sync", {**TWO, **given}))


@pytest.mark.parametrize(
    "given",
    [
        {"bandwidth": "fast"},
        {"bandwidth": 0},
        {"preserve": "colour"},
        {"preserve": "mode mtime"},
        {"deadline": ""},
        {"transfers": "99"},
        {"exlude": "a"},
    ],
)
def test_a_strict_check_refuses_what_the_worker_refuses(given: dict[str, Any]) -> None:
    checked = Definitions(cast("SchedulerClient", _Scheduler()))
    assert refusals("sync", **given)
    with pytest.raises(BadInputError):
        asyncio.run(checked.validate("sync", {**TWO, **given}))


class _Scheduler:
    """Answers with the definitions as the scheduler service describes them."""

    async def definitions(self) -> list[dict[str, Any]]:
        load_definitions(())
        return describe_all({})


def test_definitions_name_the_remotes(tmp_path: Path) -> None:
    config = tmp_path / "rclone.conf"
    config.write_text("[store]\ntype = s3\nsecret_access_key = hunter2\n")
    config.chmod(0o600)
    load_definitions(())
    described = {each["id"]: each for each in describe_all({"DMS_RCLONE_CONFIG": str(config)})}
    for service in ("sync", "copy", "check", "rm"):
        assert described[service]["remotes"] == ["store"]
    assert "remotes" not in described["hotcold"]
    assert "hunter2" not in str(described)


def test_a_config_that_cannot_be_used_names_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load_definitions(())
    with caplog.at_level(logging.WARNING):
        described = describe_all({"DMS_RCLONE_CONFIG": str(tmp_path / "missing")})
    assert all(each.get("remotes", []) == [] for each in described)
    assert "Remotes cannot be listed" in caplog.text


@pytest.mark.parametrize("service", MODELS)
def test_the_definition_describes_its_parameters(service: str) -> None:
    load_definitions(())
    definition = get_definition(service)
    assert definition is not None
    assert (definition.isolation, definition.max_attempts) == ("process", 3)
    assert definition.options.payload is MODELS[service]
    schema = MODELS[service].model_json_schema()
    assert set(schema["required"]) == set(NEEDED[service])
    assert schema["additionalProperties"] is False
    assert all("description" in field for field in schema["properties"].values())
