"""Thousands of races: folders, files and temporaries become links while a mover is at work."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from dms_scheduler.movers import (
    DEFAULT_PRESERVE,
    Action,
    Compare,
    MoverError,
    NativeMover,
    Preserve,
    RemoveRequest,
    Verify,
)
from dms_scheduler.movers.native.ageing import AgeRequest, age
from tests.unit.movers.support import Place, Recorder
from tests.unit.movers.swaps import (
    Attacker,
    Canary,
    assert_not_copied,
    exchanging,
    replacing_temporaries,
)

EXPECTED = {
    "done",
    "partial_failure",
    "symlink_refused",
    "type_conflict",
    "not_found",
    "bad_source",
    "bad_destination",
}
FOLDERS = 50
RACES = 1000
SWAPS = 1000


def links(place: Place, canary: Canary, count: int, name: str = "") -> list[Path]:
    """Links that lead out, to be exchanged."""
    folder = place.root / "links"
    folder.mkdir()
    made = [folder / str(number) for number in range(count)]
    for number, link in enumerate(made):
        # Relative ones and absolute ones: both are links.
        target = canary.folder / name
        link.symlink_to(os.path.relpath(target, place.root / "src") if number % 2 else target)
    return made


def fill(folder: Path, content: str) -> list[Path]:
    """Folders with a few files each, and a folder in each."""
    made: list[Path] = []
    for number in range(FOLDERS):
        inner = folder / f"d{number}" / "inner"
        inner.mkdir(parents=True, exist_ok=True)
        for name in ("file", "inner/file", "other"):
            (folder / f"d{number}" / name).write_text(f"{content} {name}")
        made.append(folder / f"d{number}")
    return made


def race(attacker: Attacker, act: Callable[[int], None], each: int) -> Counter[str]:
    """Act until there were enough races (`each` a call), with enough strikes between them.

    Returns how often it ended how; an end that no swap can be the reason of fails the test.
    """
    ends: Counter[str] = Counter()
    with attacker:
        attacker.wait_for(1)
        while ends.total() * each < RACES or attacker.count < SWAPS:
            try:
                act(ends.total())
                ends["done"] += 1
            except MoverError as error:
                ends[error.error_class] += 1
    assert set(ends) <= EXPECTED, ends
    return ends


@pytest.mark.parametrize("preserve", [DEFAULT_PRESERVE, frozenset(Preserve)], ids=["few", "all"])
def test_folders_of_the_source_become_links(
    place: Place, canary: Canary, preserve: frozenset[Preserve]
) -> None:
    folders = fill(place.src, "inside")
    pairs = zip(folders, links(place, canary, FOLDERS), strict=True)

    def act(_: int) -> None:
        shutil.rmtree(place.dst, ignore_errors=True)
        place.run(retries=0, preserve=preserve, verify=Verify.ALL)
        assert_not_copied(place.dst)

    race(exchanging([*pairs]), act, FOLDERS)
    assert_not_copied(place.dst)
    canary.assert_untouched()


@pytest.mark.parametrize("backup", [True, False])
def test_folders_of_the_destination_become_links(
    place: Place, canary: Canary, backup: bool
) -> None:
    """What the source does not have is in the destination, and outside by the same name."""
    fill(place.src, "new")
    folders = fill(place.dst, "old")
    for folder in folders:
        (folder / "victim").write_text("old")
    pairs = zip(folders, links(place, canary, FOLDERS), strict=True)

    def act(count: int) -> None:
        for folder in folders:
            with suppress(OSError):  # through a link it would go to the canary: never follow one
                fd = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
                os.close(os.open("victim", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
                os.close(fd)
        (place.src / f"d{count % FOLDERS}" / "other").write_text(str(count))
        place.run(
            retries=0,
            delete=True,
            backup_deleted=backup,
            max_delete=10_000,
            compare=Compare.CHECKSUM,
            preserve=frozenset(Preserve) if backup else DEFAULT_PRESERVE,
        )

    race(exchanging([*pairs]), act, FOLDERS)
    canary.assert_untouched()


def test_files_of_the_source_become_links(place: Place, canary: Canary) -> None:
    files = [place.write(f"src/f{number}", "inside") for number in range(FOLDERS)]
    pairs = zip(files, links(place, canary, FOLDERS, "secret"), strict=True)

    def act(_: int) -> None:
        shutil.rmtree(place.dst, ignore_errors=True)
        place.run(retries=0)
        assert_not_copied(place.dst)

    race(exchanging([*pairs]), act, FOLDERS)
    assert_not_copied(place.dst)
    canary.assert_untouched()


def test_files_of_the_destination_become_links(place: Place, canary: Canary) -> None:
    """Read to compare, replaced, and given attributes."""
    files = [place.write(f"dst/f{number}", "old") for number in range(FOLDERS)]
    for number in range(FOLDERS):
        place.write(f"src/f{number}", "new").chmod(0o604)
    pairs = zip(files, links(place, canary, FOLDERS, "secret"), strict=True)

    def act(count: int) -> None:
        for number in range(FOLDERS):
            os.utime(place.src / f"f{number}", ns=(count, count))
        preserve = frozenset(Preserve) if count % 2 else DEFAULT_PRESERVE
        place.run(retries=0, compare=Compare.CHECKSUM, preserve=preserve)

    race(exchanging([*pairs]), act, FOLDERS)
    canary.assert_untouched()


@pytest.mark.parametrize("end", ["src", "dst"])
def test_the_folder_above_an_end_becomes_a_link(place: Place, canary: Canary, end: str) -> None:
    """The whole way to the source or the destination leads out for a moment."""
    for name in ("file", "inner/file"):
        place.write(f"above/inner/{name}", "inside")
        place.write(f"src/{name}", "inside")
    ends = {"src": place.src, "dst": place.dst, end: place.root / "above" / "inner"}
    pairs = zip([place.root / "above"], links(place, canary, 1), strict=True)

    def act(count: int) -> None:
        if end == "dst":
            (place.src / "file").write_text(str(count))
        else:
            shutil.rmtree(place.dst, ignore_errors=True)
        place.run(retries=0, src=ends["src"], dst=ends["dst"], delete=True, allow_empty_src=True)
        assert_not_copied(place.dst)

    race(exchanging([*pairs]), act, 4)
    assert_not_copied(place.dst)
    canary.assert_untouched()


@pytest.mark.parametrize("backup", [True, False])
def test_what_is_removed_becomes_a_link(place: Place, canary: Canary, backup: bool) -> None:
    top = place.root / "old"
    pairs = [*zip(fill(top, "inside"), links(place, canary, FOLDERS), strict=True)]

    def act(count: int) -> None:
        for folder, link in pairs:
            with suppress(OSError):  # what is exchanged meanwhile is filled the next time
                refill(folder, link, canary.folder)
        NativeMover().remove(
            RemoveRequest(
                task_id="rm",
                epoch=count,
                path=str(top),
                roots=(str(place.root),),
                recursive=True,
                max_delete=10_000,
                backup=backup,
            ),
            Recorder(),
        )

    ends = race(exchanging(pairs), act, FOLDERS)
    canary.assert_untouched()
    assert ends["done"] or ends["partial_failure"]


def refill(folder: Path, link: Path, outside: Path) -> None:
    """Make a folder and a link again where they were removed; raises OSError."""
    folder.parent.mkdir(exist_ok=True)
    if not (folder.is_symlink() or link.is_symlink()):
        spare = link.with_name(f"{link.name}-spare")
        spare.symlink_to(outside)
        shutil.rmtree(link, ignore_errors=True)
        spare.rename(link)
    if not os.path.lexists(folder):
        folder.mkdir()
    for path in (folder, link):
        if not path.is_symlink():
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
            try:
                os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
                with suppress(FileExistsError):
                    os.mkdir("inner", dir_fd=fd)
            finally:
                os.close(fd)


def test_what_is_checked_becomes_a_link(place: Place, canary: Canary) -> None:
    """Both sides are the same, only what lies outside is not: it is never what is compared."""
    folders = [fill(place.src, "inside"), fill(place.dst, "inside")]
    ways = links(place, canary, 2 * FOLDERS)
    pairs = zip([*folders[0], *folders[1]], ways, strict=True)

    def act(_: int) -> None:
        control = Recorder()
        request = place.request(compare=Compare.CHECKSUM, retries=0)
        with suppress(MoverError):
            NativeMover().check(request, control)
        assert not [
            entry
            for entry in control.entries
            if entry.action is Action.DIFFERS and entry.reason == "content"
        ]

    race(exchanging([*pairs]), act, 2 * FOLDERS)
    canary.assert_untouched()


def test_what_is_aged_becomes_a_link(place: Place, canary: Canary) -> None:
    """All that lies inside is new, all that lies outside is from 1970."""
    folders = fill(place.src, "inside")
    pairs = zip(folders, links(place, canary, FOLDERS), strict=True)

    def act(_: int) -> None:
        control = Recorder()
        try:
            age(AgeRequest(path=str(place.src), roots=(str(place.root),)), control)
        finally:
            assert not [entry for entry in control.entries if entry.action is Action.AGED]

    race(exchanging([*pairs]), act, FOLDERS)
    canary.assert_untouched()


def test_temporaries_become_links(place: Place, canary: Canary) -> None:
    """Whoever may write to the destination puts a link where the mover is writing."""
    for number in range(FOLDERS):
        place.write(f"src/f{number}", os.urandom(20_000)).chmod(0o604)
    place.dst.mkdir()
    with replacing_temporaries(place.dst, canary.folder / "secret") as attacker:
        for _ in range(1000 // FOLDERS):
            for path in place.dst.iterdir():
                with suppress(FileNotFoundError):
                    path.unlink()
            with suppress(MoverError):
                place.run(retries=0)
            if attacker.count > SWAPS:
                break
        assert attacker.count, "it never met a temporary file"
    canary.assert_untouched()
