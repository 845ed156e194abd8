"""What rclone is told of how files are compared and replaced."""

from typing import Any

import pytest

from dms_scheduler.movers import Compare, MoveOptions, Overwrite, Preserve, Verify
from dms_scheduler.movers.rclone.copy_call import name_of, parameters_of, settings_of
from dms_scheduler.movers.rclone.places import Features, Place

Settings = dict[str, object]


def side(*hashes: str, times: bool = True, file: str | None = None) -> Place:
    features = Features(
        hashes=frozenset(hashes), times=times, empty_folders=True, buckets=False, moves=True
    )
    return Place(text="r:a", fs="r:a", file=file, features=features)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {}),
        ({"compare": Compare.EXISTS}, {"IgnoreExisting": True}),
        ({"overwrite": Overwrite.NEVER}, {"IgnoreExisting": True}),
        ({"overwrite": Overwrite.NEWER}, {"UpdateOlder": True}),
        ({"compare": Compare.SIZE}, {"SizeOnly": True}),
        ({"compare": Compare.CHECKSUM}, {"CheckSum": True}),
        ({"verify": Verify.NONE}, {"IgnoreChecksum": True}),
        (
            {"preserve": frozenset({Preserve.MODE})},
            {"NoUpdateModTime": True, "NoUpdateDirModTime": True},
        ),
    ],
)
def test_each_option_is_told_to_rclone(options: dict[str, Any], expected: Settings) -> None:
    assert settings_of(MoveOptions(**options), side("md5"), side("md5")) == expected


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (side("md5", times=False), {"CheckSum": True}),
        (side("sha1", times=False), {"SizeOnly": True}),
    ],
)
def test_without_times_checksums_decide_or_else_sizes(target: Place, expected: Settings) -> None:
    assert settings_of(MoveOptions(), side("md5"), target) == expected


def test_a_folder_is_mirrored_by_the_filter_and_a_file_by_its_name() -> None:
    chosen: Settings = {"FilterRule": ["- *"]}
    folder = parameters_of(MoveOptions(), side(), side(), chosen, {})
    assert (folder["_filter"], folder["createEmptySrcDirs"]) == (chosen, True)
    some = parameters_of(MoveOptions(include=("*.txt",)), side(), side(), chosen, {})
    assert some["createEmptySrcDirs"] is False
    file = parameters_of(MoveOptions(), side(file="x"), side(file="y"), chosen, {})
    assert (file["srcRemote"], file["dstRemote"], file.get("_filter")) == ("x", "y", None)


def test_only_a_mirror_of_a_folder_deletes() -> None:
    assert name_of(side(), mirror=True) == "sync/sync"
    assert name_of(side(), mirror=False) == "sync/copy"
    assert name_of(side(file="x"), mirror=True) == "operations/copyfile"
