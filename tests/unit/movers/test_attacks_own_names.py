"""Whoever may write to a destination puts something where a mover will write."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

import pytest
import xxhash

from dms_scheduler.movers import MoverError, Preserve, Verify
from dms_scheduler.movers.native import journal, parts, plan
from dms_scheduler.movers.native import mover as native
from dms_scheduler.movers.patterns import journal_name, part_name
from tests.unit.movers.attacks import classes_of_failures
from tests.unit.movers.support import NOBODY, Place
from tests.unit.movers.swaps import Canary

MIB = 1 << 20


def test_names_of_temporaries_that_are_there_before(place: Place, canary: Canary) -> None:
    """Whoever knows the task's id may make links, folders and FIFOs of the names to come."""
    for number in range(8):
        place.write(f"src/{number}", os.urandom(3000))
    place.dst.mkdir()
    for number in range(200):
        name = place.dst / f".dms-tmp.t-1.1.{number}"
        if number % 4 == 0:
            name.symlink_to(canary.folder / "secret")
        elif number % 4 == 1:
            name.mkdir()
        elif number % 4 == 2:
            os.mkfifo(name)
        else:
            name.symlink_to(canary.folder / "made-through-a-link")
    with suppress(MoverError):
        place.run(retries=1)
    canary.assert_untouched()
    with suppress(MoverError):
        place.run(epoch=2, retries=1)
    canary.assert_untouched()
    names = {str(number) for number in range(8)}
    assert {name for name in os.listdir(place.dst) if name in names} <= names
    for name in names:
        if (place.dst / name).exists():
            assert (place.dst / name).read_bytes() == (place.src / name).read_bytes()


def test_backups_do_not_go_through_a_link(place: Place, canary: Canary) -> None:
    place.write("src/a")
    place.write("dst/extra", "precious")
    (place.dst / ".dms-deleted").symlink_to(canary.folder)
    with suppress(MoverError):
        place.run(delete=True)
    canary.assert_untouched()
    (place.dst / ".dms-deleted").unlink()
    (place.dst / ".dms-deleted").mkdir()
    (place.dst / ".dms-deleted" / "t-1.1").symlink_to(canary.folder)
    with suppress(MoverError):
        place.run(delete=True)
    canary.assert_untouched()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of two MiB are big, and copied in parts of one."""
    for module in (parts, plan):
        monkeypatch.setattr(module, "BIG_BYTES", 2 * MIB)
    monkeypatch.setattr(parts, "_PART_BYTES", MIB)
    monkeypatch.setattr(native, "_OWN_BYTES", MIB)  # what is more is for the executors


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("what", ["link", "dangling", "hard link", "fifo", "folder", "file"])
@pytest.mark.parametrize("which", [part_name, journal_name])
def test_names_of_parts_that_are_there_before(
    place: Place, canary: Canary, what: str, which: Callable[[str, str], str]
) -> None:
    place.write("src/big", os.urandom(5 * MIB))
    place.dst.mkdir()
    name = place.dst / which("t-1", "big")
    if what == "link":
        name.symlink_to(canary.folder / "secret")
    elif what == "dangling":
        name.symlink_to(canary.folder / "made-through-a-link")
    elif what == "hard link":
        os.link(canary.folder / "victim", name)
    elif what == "fifo":
        os.mkfifo(name)
    elif what == "folder":
        name.mkdir()
    else:
        name.write_bytes(b"x" * 5 * MIB)
    for epoch in (1, 2):
        classes_of_failures(lambda number=epoch: place.run(epoch=number, retries=0))
    if what == "folder":
        assert not (place.dst / "big").exists()  # told as a failure: there is no other name
    else:
        assert (place.dst / "big").read_bytes() == (place.src / "big").read_bytes()
    if what == "hard link":
        with suppress(FileNotFoundError):
            name.unlink()
    canary.assert_untouched()


@pytest.mark.root
@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("verify", [Verify.NONE, Verify.TRANSFERRED])
def test_parts_that_somebody_else_made_are_not_taken_over(place: Place, verify: Verify) -> None:
    """In a folder such as /tmp others may make files, but not replace ours: a copy that was theirs
    would stay theirs, with what they had put into it."""
    content, forged = os.urandom(4 * MIB), os.urandom(4 * MIB)
    file = place.write("src/big", content)
    place.dst.mkdir()
    place.dst.chmod(0o1777)
    part, log = (place.dst / which("t-1", "big") for which in (part_name, journal_name))
    part.write_bytes(forged)
    hashed = verify is not Verify.NONE
    first = journal.header(journal.SourceId.of(file.stat()), MIB, hashed=hashed, synced=True)
    digests = [
        xxhash.xxh3_128_hexdigest(forged[index * MIB : (index + 1) * MIB]) if hashed else "-"
        for index in range(4)
    ]
    lines = [first, *(f"{index} {digest}" for index, digest in enumerate(digests))]
    log.write_text("".join(f"{line}\n" for line in lines))
    for path in (part, log):
        os.chown(path, NOBODY, NOBODY)
    place.run(epoch=2, verify=verify, preserve=frozenset({Preserve.MTIME}))
    assert (place.dst / "big").read_bytes() == content
    assert (place.dst / "big").stat().st_uid == 0
