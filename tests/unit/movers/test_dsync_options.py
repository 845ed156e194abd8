"""Option strings of dsync, dcmp and drm: each option of their manuals has one fixed meaning."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dms_scheduler.movers import DEFAULT_PRESERVE, Compare, Preserve, Symlinks
from dms_scheduler.services.legacy import DCMP, DRM, DSYNC, read_legacy
from dms_scheduler.services.parameters import (
    CheckParameters,
    CopyParameters,
    RmParameters,
    SyncParameters,
)

TWO = {"src": "/data/a", "dst": "/data/b"}


def sync(options: str, **values: Any) -> SyncParameters:
    return SyncParameters.model_validate({**TWO, **values, "options": options})


def test_a_string_becomes_typed_parameters() -> None:
    parameters = sync("--delete --contents -N 4 --sparse -X all --dryrun -P")
    assert (parameters.delete, parameters.dry_run) == (True, True)
    assert parameters.compare is Compare.CHECKSUM
    assert parameters.transfers == 4
    assert parameters.preserve == DEFAULT_PRESERVE | {Preserve.SPARSE, Preserve.XATTRS}
    assert parameters.symlinks is Symlinks.KEEP
    assert parameters.notes() == ()


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("--dryrun", "dry_run", True),
        ("-c", "compare", Compare.CHECKSUM),
        ("--contents", "compare", Compare.CHECKSUM),
        ("-D", "delete", True),
        ("-cD", "delete", True),
        ("-Dv", "delete", True),
        ("-qcb10", "compare", Compare.CHECKSUM),
        ("--no-dereference", "symlinks", Symlinks.KEEP),
        ("-np 128", "transfers", 32),
        ("--np=2", "transfers", 2),
        ("-S", "preserve", frozenset({*DEFAULT_PRESERVE, Preserve.SPARSE})),
        ("-X non-lustre", "preserve", frozenset({*DEFAULT_PRESERVE, Preserve.XATTRS})),
        ("--xattrs=none", "preserve", DEFAULT_PRESERVE),
        ("", "delete", False),
    ],
)
def test_each_spelling_means_one_thing(text: str, name: str, value: object) -> None:
    assert getattr(sync(text), name) == value


@pytest.mark.parametrize(
    "text",
    [
        "-b 100",
        "-b100",
        "--batch-files=100",
        "--bufsize 8MB",
        "--chunksize=64MB",
        "--progress 10",
        "-v",
        "--verbose",
        "-q",
        "-s",
        "--direct",
        "--debug",
        "--open-noatime",
        "-X none",
    ],
)
def test_what_means_nothing_here_is_noted(text: str) -> None:
    parameters = sync(text)
    assert parameters == sync("").model_copy(update={"options": text})
    (note,) = parameters.notes()
    assert text[:2] in note
    assert "has no effect" in note


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("--frobnicate", "--frobnicate is no option of dsync that is known here"),
        ("-Z", "-Z is no option"),
        ("-cZ", "-Z is no option"),
        ("--del", "--del is no option"),
        ("-L", "never followed"),
        ("--dereference", "never followed"),
        ("--link-dest /data/old", "share no files"),
        ("-o EXIST=DIFFER:/tmp/list", "report"),
        ("--daos-api DFS", "DAOS"),
        ("--daos-prefix daos://x", "DAOS"),
        ("--help", "documentation"),
        ("-n 4", "dry_run=true for a trial"),
        ("--xattrs libattr", "all or none"),
        ("-N", "needs a value"),
        ("-N many", "number of processes"),
        ("-N 0", "1 or more"),
        ("--progress soon", "no whole number"),
        ("--bufsize large", "no size"),
        ("--delete=yes", "takes no value"),
        ("/data/a /data/b", "is no option; give paths"),
        ("--", "is no option"),
        ("-", "is no option"),
        ("--delete; rm -rf /", "is no option"),
        ("$(reboot)", "is no option"),
        ("'--delete", "quotes do not fit"),
    ],
)
def test_all_else_is_refused_by_name(text: str, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        sync(text)
    (problem,) = caught.value.errors()
    assert problem["loc"] == ("options",)
    assert words in problem["msg"]


def test_an_option_and_a_parameter_that_agree_go_together() -> None:
    assert sync("-D", delete="true").delete
    assert sync("-S", preserve="sparse").preserve == {Preserve.SPARSE}


@pytest.mark.parametrize(
    ("text", "given", "spelled"),
    [
        ("--delete", {"delete": "false"}, "--delete contradicts the parameter delete"),
        ("-c", {"compare": "size"}, "-c contradicts the parameter compare"),
        ("-N 2", {"transfers": "8"}, "-N contradicts the parameter transfers"),
        ("-P", {"symlinks": "skip"}, "-P contradicts the parameter symlinks"),
        ("-S", {"preserve": "mtime"}, "-S contradicts the parameter preserve"),
    ],
)
def test_contradictions_are_refused(text: str, given: dict[str, str], spelled: str) -> None:
    with pytest.raises(ValidationError, match=spelled):
        sync(text, **given)


def test_copy_takes_them_too_but_never_deletes() -> None:
    assert CopyParameters.model_validate({**TWO, "options": "-c"}).compare is Compare.CHECKSUM
    with pytest.raises(ValidationError, match=r"-D of dsync.*use the service sync"):
        CopyParameters.model_validate({**TWO, "options": "-D"})


def test_check_takes_those_of_dcmp() -> None:
    lite = CheckParameters.model_validate({**TWO, "options": "--lite -b --text"})
    assert lite.compare is Compare.SIZE_MTIME
    assert len(lite.notes()) == 2
    with pytest.raises(ValidationError, match="report"):
        CheckParameters.model_validate({**TWO, "options": "-o EXIST=DIFFER:list"})
    with pytest.raises(ValidationError, match="no option of dcmp"):
        CheckParameters.model_validate({**TWO, "options": "--delete"})


def test_rm_takes_those_of_drm() -> None:
    assert RmParameters.model_validate({"path": "/data/a", "options": "-d -l"}).dry_run
    for text, words in (("--match x", "regular expressions"), ("-i list", "one path a task")):
        with pytest.raises(ValidationError, match=words):
            RmParameters.model_validate({"path": "/data/a", "options": text})


def test_no_string_gives_more_than_the_tables_have() -> None:
    fields = {"dry_run", "preserve", "compare", "delete", "symlinks", "transfers"}

    @given(st.lists(st.sampled_from(_WORDS), max_size=6).map(" ".join) | st.text(max_size=40))
    def any_text(text: str) -> None:
        for tool in (DSYNC, DCMP, DRM):
            try:
                legacy = read_legacy(text, tool)
            except ValueError:
                continue
            assert legacy.wanted.keys() <= fields
            assert legacy.wanted.keys() == legacy.spelled.keys()

    any_text()


_WORDS = [
    spelling for tool in (DSYNC, DCMP, DRM) for each in tool.options for spelling in each.spellings
] + ["1", "all", "8MB", "/x", "--", "-"]
