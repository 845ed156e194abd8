"""Attacks on a mover (RELIABILITY, security 3 and 4): refused or harmless, canaries untouched."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import subprocess
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import xxhash

from dms_scheduler.movers import (
    Compare,
    MoverError,
    NoSpace,
    PartialFailure,
    Preserve,
    Progress,
    Refused,
    RemoveRequest,
    Verify,
    attributes,
    copying,
    journal,
    native,
    parts,
    plan,
)
from dms_scheduler.movers.patterns import journal_name, part_name
from dms_scheduler.movers.removing import remove
from tests.unit.movers.support import NOBODY, Place, Recorder, look, temporaries
from tests.unit.movers.swaps import SECRET, Canary, assert_not_copied

MIB = 1 << 20
Bind = Callable[[Path, Path], None]
NAMES = [
    b"new\nline",
    b"\x1b[2Jescape\x07",
    "right\u202eto-left".encode(),
    b"n" * 255,
    b"\xff\xfe not utf-8",
    b"-rf",
    b"--config=x",
    b"*",
    b"~",
    b"~root",
    b" ",
    b"a:b",
    b":local:",
    b"$(touch x)",
    b"`touch x`",
    b"%2e%2e",
    b"..\\..\\etc",
    b"...",
    b"\xe2\x80\xa5",  # two dots in one character
    b"\xef\xbc\x8e\xef\xbc\x8e",  # two wide dots
    b"\xe2\x88\x95etc",  # looks like a slash
    "한글".encode(),
    b"\\",
]


@pytest.fixture
def canary(place: Place) -> Canary:
    return Canary.made(place.root.parent / f"{place.root.name}-outside")


@pytest.fixture
def mount() -> Generator[Callable[..., None]]:
    """Mount something with mount(8), for as long as the test lasts."""
    with ExitStack() as stack:

        def act(*arguments: str, where: Path) -> None:
            where.mkdir(parents=True, exist_ok=True)
            done = subprocess.run(
                ["mount", *arguments, str(where)], capture_output=True, check=False
            )
            if done.returncode:
                pytest.skip(f"nothing can be mounted here: {done.stderr.decode().strip()}")
            stack.callback(subprocess.run, ["umount", "-l", str(where)], check=True)

        yield act


def removal(place: Place, path: object, **changes: object) -> RemoveRequest:
    values: dict[str, object] = {"recursive": True, "max_delete": 10_000, **changes}
    roots = values.pop("roots", (str(place.root),))
    return RemoveRequest(task_id="t-1", epoch=1, path=str(path), roots=roots, **values)  # type: ignore[arg-type]


def classes_of_failures(run: Callable[[], object]) -> set[str]:
    """Why paths failed, if any did."""
    try:
        run()
    except PartialFailure as error:
        return {failed.error_class for failed in error.result.failed} if error.result else {"?"}
    return set()


def ways_to_spell(root: Path) -> list[str]:
    """A root spelled seven ways, and more."""
    path = str(root)
    return [
        path,
        f"{path}/",
        f"{path}//",
        f"{path}/.",
        f"{path}/./",
        f"/{path}",
        f"/.{path}",
        f"//.//{path}//.//",
        path.replace("/", "//"),
    ]


# --------------------------------------------------------------------------------- roots and paths
def test_a_root_in_any_spelling_is_never_removed_or_deleted_from(place: Place) -> None:
    place.write("src/a")
    root = place.root / "root"
    for name in ("keep", "folder/keep"):
        place.write(f"root/{name}")
    alias = place.root / "alias"
    alias.symlink_to(root)
    before = look(root)
    for roots in ((str(root), str(place.src)), (str(alias), str(place.src))):
        for spelled in (*ways_to_spell(root), *ways_to_spell(alias)):
            if str(alias) in spelled.replace("//", "/") and str(alias) not in roots:
                continue
            with pytest.raises(Refused) as caught:
                remove(removal(place, spelled, roots=roots), Recorder())
            assert caught.value.error_class == "root_refused", spelled
            with pytest.raises(Refused) as caught:
                place.run(dst=spelled, delete=True, roots=roots)
            assert caught.value.error_class == "root_refused", spelled
            assert look(root) == before


@pytest.mark.root
def test_a_root_behind_a_bind_mount_is_still_a_root(
    place: Place, mount: Callable[..., None]
) -> None:
    place.write("src/a")
    root = place.root / "root"
    place.write("root/folder/keep")
    alias = place.root / "alias"
    mount("--bind", str(root), where=alias)
    roots = (str(root), str(place.root))
    before = look(root)
    for spelled in ways_to_spell(alias):
        with pytest.raises(MoverError):
            remove(removal(place, spelled, roots=roots), Recorder())
        with pytest.raises(Refused) as caught:
            place.run(dst=spelled, delete=True, roots=roots)
        assert caught.value.error_class == "root_refused"
        assert look(root) == before


@pytest.mark.root
def test_what_holds_a_root_or_a_mount_is_not_removed(
    place: Place, mount: Callable[..., None], canary: Canary
) -> None:
    place.write("top/holds/root/keep")
    place.write("top/file")
    mounted = place.root / "top" / "mounted"
    mount("--bind", str(canary.folder), where=mounted)
    roots = (str(place.root), str(place.root / "top" / "holds" / "root"))
    for path in ("top", "top/holds", "top/mounted", "top/holds/root"):
        with suppress(MoverError):
            remove(removal(place, place.root / path, roots=roots), Recorder())
        assert (place.root / "top/holds/root/keep").exists()
        canary.assert_untouched()


@pytest.mark.parametrize(
    "text",
    [
        ":webdav,bearer_token_command='touch /tmp/x':x",
        ":local:/etc",
        ":alias,remote=/:",
        ":sftp,host=h:",
        "--config=/x",
        "-x",
        "name,opt=v:p",
        "s3,env_auth=true:bucket",
        "{root}/\0",
        "{root}/../outside",
        "{root}/src/../../outside",
        "{root}/..",
        "../x",
        "..",
        "/..",
        "{root}/src/..",
        "~/x",
        "file:///etc",
        "C:\\x",
        "\\\\server\\share",
        "",
        " ",
        "{root}/\udcff\ud800",
    ],
)
def test_an_injection_is_refused_at_either_end(place: Place, text: str) -> None:
    place.write("src/a")
    before = look(place.root)
    path = text.replace("{root}", str(place.root))
    for src, dst in ((path, place.dst), (place.src, path)):
        with pytest.raises(Refused) as caught:
            place.run(src=src, dst=dst)
        assert caught.value.error_class in {"path_refused", "outside_roots"}, caught.value
    with pytest.raises(Refused) as caught:
        remove(removal(place, path), Recorder())
    assert caught.value.error_class in {"path_refused", "outside_roots"}
    assert look(place.root) == before


@pytest.mark.parametrize(
    "name", ["%2e%2e", "..\\..", "‥", "．．", "...", ".. ", "∕etc", "%00", "~"]
)
def test_what_only_looks_like_a_way_out_is_a_plain_name(
    place: Place, canary: Canary, name: str
) -> None:
    place.write(f"src/{name}/a", "data")
    place.run(src=place.src / name, dst=place.dst / name)
    assert (place.dst / name / "a").read_text() == "data"
    assert os.listdir(place.dst) == [name]
    remove(removal(place, place.dst / name), Recorder())
    assert os.listdir(place.dst) == []
    canary.assert_untouched()


def test_a_link_at_any_place_of_a_path_is_refused(place: Place, canary: Canary) -> None:
    place.write("src/file")
    (place.src / "folder").mkdir()
    (place.root / "plain").mkdir()
    for target in (canary.folder, "../" + canary.folder.name, "/", ".", "link"):
        link = place.root / "plain" / "link"
        link.symlink_to(target)
        for path in (link, link / "inner", link / "new", link / "inner" / "new"):
            for src, dst in ((place.src, path), (place.src, f"{path}/"), (path, place.dst)):
                with pytest.raises(MoverError) as caught:
                    place.run(delete=True, src=src, dst=dst)
                assert caught.value.error_class in {"symlink_refused", "bad_source"}
            if path != link:
                with pytest.raises(MoverError):
                    remove(removal(place, path), Recorder())
        with suppress(MoverError):
            remove(removal(place, link), Recorder())
        canary.assert_untouched()
        with suppress(FileNotFoundError):
            link.unlink()


# ------------------------------------------------------------------------------ what is in a source
def test_links_of_the_source_are_kept_as_they_are(place: Place, canary: Canary) -> None:
    targets = {
        "absolute": "/etc",
        "up": "..",
        "far-up": "../../../../../../../etc/passwd",
        "self": "self",
        "loop-a": "loop-b",
        "loop-b": "loop-a",
        "dangling": "nowhere",
        "canary": str(canary.folder),
        "secret": str(canary.folder / "secret"),
        "long": "x" * 4000,
    }
    for name, target in targets.items():
        (place.src / name).symlink_to(target)
    place.write("src/file")
    for delete in (False, True):
        place.run(delete=delete, preserve=frozenset(Preserve) - {Preserve.OWNER})
        assert {name: os.readlink(place.dst / name) for name in targets} == targets
    assert_not_copied(place.dst)
    canary.assert_untouched()


def test_a_mode_is_never_set_through_a_name(place: Place, canary: Canary) -> None:
    """What was a link when it was planned is a folder when it is copied: its mode is no link's."""
    link = place.dst / "link"
    place.dst.mkdir()
    link.symlink_to(canary.folder)
    held = os.open(place.dst, os.O_RDONLY)
    try:
        for preserve in (frozenset(Preserve), frozenset({Preserve.MODE})):
            with suppress(OSError):
                attributes.carry(
                    preserve,
                    attributes.opened(held),
                    os.stat(place.src),
                    attributes.entry(held, "link"),
                )
    finally:
        os.close(held)
    canary.assert_untouched()


def test_a_hard_link_to_a_file_outside_is_data_and_stays_whole(
    place: Place, canary: Canary
) -> None:
    os.link(canary.folder / "secret", place.src / "hard")
    before = (canary.folder / "secret").stat()
    place.run()
    copy = (place.dst / "hard").stat()
    assert copy.st_ino != before.st_ino
    assert (place.dst / "hard").read_text() == SECRET
    assert (canary.folder / "secret").stat().st_nlink == 2


def test_a_hard_link_in_the_destination_is_not_written_through(
    place: Place, canary: Canary
) -> None:
    """The name is replaced; the file that it was shared with stays as it is."""
    place.write("src/hard", "new content").chmod(0o777)
    place.dst.mkdir()
    os.link(canary.folder / "victim", place.dst / "hard")
    place.run()
    assert (place.dst / "hard").read_text() == "new content"
    canary.assert_untouched()


@pytest.mark.root
def test_special_files_are_not_opened(place: Place) -> None:
    """Opening a FIFO would hang, a device could do anything, a socket cannot be opened."""
    os.mkfifo(place.src / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        folder = os.open(place.src, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{folder}/socket")
        os.close(folder)
        try:
            os.mknod(place.src / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
            os.mknod(place.src / "disk", stat.S_IFBLK | 0o600, os.makedev(7, 250))
        except PermissionError:
            pytest.skip("devices can be made by root alone")
        place.write("src/file")
        for name in ("fifo", "zero", "disk", "socket"):
            with pytest.raises(Refused):
                place.run(src=place.src / name, dst=place.root / "one")
        result = place.run(compare=Compare.CHECKSUM)
    assert (result.totals.special, result.totals.files) == (4, 1)
    assert os.listdir(place.dst) == ["file"]


def test_special_files_at_the_destination_are_not_opened(place: Place) -> None:
    """A file of that name is replaced, or told as a conflict; the FIFO is not written to."""
    place.write("src/a", "data")
    place.dst.mkdir()
    os.mkfifo(place.dst / "a")
    with suppress(MoverError):
        place.run(compare=Compare.CHECKSUM)
    status = (place.dst / "a").lstat()
    assert stat.S_ISFIFO(status.st_mode) or (place.dst / "a").read_text() == "data"


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_odd_names_arrive_and_go(place: Place, name: bytes) -> None:
    source = os.fsencode(place.src)
    os.mkdir(os.path.join(source, b"d"))
    for path in (name, b"d/" + name):
        with open(os.path.join(source, path), "wb") as file:
            file.write(b"data")
    control = Recorder()
    place.run(control)
    assert look(place.dst) == look(place.src)
    for text in (*control.lines, *(str(entry.to_dict()) for entry in control.entries)):
        assert "\x1b" not in text
        assert "\n" not in text
        assert "\u202e" not in text
    assert not (place.root / "x").exists()
    shutil.rmtree(place.src)
    place.src.mkdir()
    place.run(delete=True, allow_empty_src=True, backup_deleted=False)
    assert os.listdir(place.dst) == []


@pytest.mark.root
def test_set_id_bits_are_stripped(place: Place) -> None:
    place.write("src/tool").chmod(0o6755)
    (place.src / "folder").mkdir()
    (place.src / "folder").chmod(0o7777)
    place.run(preserve=frozenset(Preserve))
    assert (place.dst / "tool").stat().st_mode & 0o7777 == 0o755
    assert (place.dst / "folder").stat().st_mode & 0o6000 == 0
    place.run(preserve=frozenset(Preserve))
    assert (place.dst / "tool").stat().st_mode & 0o7777 == 0o755


@pytest.mark.root
def test_what_is_mounted_in_the_source_and_the_destination(
    place: Place, mount: Callable[..., None], canary: Canary
) -> None:
    """A mount in the source is copied, as data that the operator put there; one in the destination
    is never deleted from."""
    place.write("src/file")
    place.write("dst/extra")
    mount("--bind", str(canary.folder), where=place.src / "mounted")
    mount("--bind", str(canary.folder), where=place.dst / "kept")
    for backup in (True, False):
        with suppress(PartialFailure):
            place.run(delete=True, backup_deleted=backup)
        canary.assert_untouched()
    assert (place.dst / "mounted" / "secret").read_text() == SECRET


@pytest.mark.root
def test_files_without_end_or_without_size_do_not_hang(
    place: Place, mount: Callable[..., None]
) -> None:
    """A file system such as /proc says nothing true of its files' sizes."""
    mount("-t", "proc", "proc", where=place.src / "proc")
    result = place.run(src=place.src / "proc" / "sys" / "kernel" / "random", retries=0)
    assert result.totals.files >= 1


# ---------------------------------------------------------------------------------- the own names
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
    for module in (copying, plan):
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


# -------------------------------------------------------------------------------- sources that move
def test_a_source_that_is_emptied_after_the_plan(place: Place) -> None:
    """Only what was an extra when the plan was made may go."""
    for number in range(30):
        place.write(f"src/{number}", "data")
        place.write(f"dst/{number}", "data", mtime=number)
    place.write("dst/extra")

    class Emptied(Recorder):
        def log(self, message: str) -> None:
            super().log(message)
            if message.startswith("plan"):
                shutil.rmtree(place.src)
                place.src.mkdir()

    control = Emptied()
    with suppress(MoverError):
        place.run(control, delete=True, backup_deleted=False, transfers=1)
    assert any(line.startswith("plan") for line in control.lines)
    assert set(os.listdir(place.dst)) >= {str(number) for number in range(30)}


def test_an_empty_source_of_any_kind_deletes_nothing(place: Place) -> None:
    place.write("dst/precious")
    place.write("dst/deep/precious")
    before = look(place.dst)
    (place.src / "folder").mkdir()
    os.mkfifo(place.src / "folder" / "fifo")
    place.write("src/filtered")
    with pytest.raises(Refused) as caught:
        place.run(delete=True, exclude=("filtered",), max_delete=10_000)
    assert caught.value.error_class == "empty_source"
    assert look(place.dst) == before


@pytest.mark.parametrize("change", ["grows", "shrinks", "is truncated and written anew"])
def test_a_file_in_motion_is_whole_or_told(place: Place, change: str) -> None:
    file = place.write("src/moving", b"a" * MIB)
    stop = threading.Event()
    ready = threading.Event()
    seen: set[str] = set()

    def move() -> None:
        with file.open("r+b", buffering=0) as out:
            size, content = MIB, b"b"
            while not stop.is_set():
                if change == "grows":
                    os.pwrite(out.fileno(), b"x" * 4096, size)
                    size = min(size + 4096, 4 * MIB)
                elif change == "shrinks":
                    size = max(size - 4096, 0)
                    out.truncate(size)
                else:
                    out.truncate(0)
                    os.pwrite(out.fileno(), content * MIB, 0)
                    content = bytes([98 + content[0] % 20])
                ready.set()

    mover = threading.Thread(target=move)
    mover.start()
    try:
        ready.wait(60)
        for _ in range(5):
            seen |= classes_of_failures(lambda: place.run(retries=1, compare=Compare.CHECKSUM))
    finally:
        stop.set()
        mover.join()
    assert seen <= {"changed_during_copy", "verify_mismatch"}
    assert not temporaries(place.root)
    place.run(compare=Compare.CHECKSUM)
    assert (place.dst / "moving").read_bytes() == file.read_bytes()


@pytest.mark.root
@pytest.mark.parametrize("sparse", [True, False])
def test_a_huge_sparse_file_meets_a_small_disk(
    place: Place, small_disk: Path, sparse: bool
) -> None:
    """A file of a terabyte without any data: copied as such, or refused by the disk."""
    with (place.src / "huge").open("wb") as file:
        file.truncate(1 << 40 if sparse else 1 << 30)
        file.write(b"start")
    place.write("src/small", "data")
    preserve = frozenset({Preserve.MTIME, Preserve.SPARSE} if sparse else {Preserve.MTIME})
    with suppress(NoSpace, PartialFailure):
        place.run(dst=small_disk / "dst", preserve=preserve, verify=Verify.NONE, retries=0)
    assert not [name for _, _, names in os.walk(small_disk) for name in names if ".dms-" in name]
    if sparse and (small_disk / "dst" / "huge").exists():
        assert (small_disk / "dst" / "huge").stat().st_size == 1 << 40


def test_a_tree_that_is_very_deep(place: Place) -> None:
    """Deeper than descriptors and paths last: told, never half of it silently, and it can go."""
    fd = os.open(place.src, os.O_RDONLY)
    for _ in range(400):
        os.mkdir("d" * 40, dir_fd=fd)
        below = os.open("d" * 40, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    assert classes_of_failures(place.run) <= {"name_too_long"}


def test_who_is_told_of_progress_may_not_be_led_astray_by_names(place: Place) -> None:
    """`current` and `active` are names too."""
    for name in ("\x1b]0;title\x07", "line\nbreak"):
        place.write(f"src/{name}", os.urandom(100_000))
    seen: list[Progress] = []

    class Watching(Recorder):
        def progress(self, progress: Progress) -> None:
            seen.append(progress)

    place.run(Watching(), bandwidth=MIB)
    assert seen
    for progress in seen:
        assert "\x1b" not in str(progress.to_dict())
        assert "\n" not in str(progress.to_dict())


def test_a_destination_that_runs_full_keeps_what_it_had(place: Place, small_disk: Path) -> None:
    place.write("src/big", os.urandom(2 * MIB))
    dst = small_disk / "dst"
    dst.mkdir()
    (dst / "big").write_text("old")
    (dst / "extra").write_text("kept, for a run that fails deletes nothing")
    with pytest.raises(NoSpace) as caught:
        place.run(dst=dst, delete=True)
    assert caught.value.error_class == "no_space"
    assert (dst / "big").read_text() == "old"
    assert (dst / "extra").exists()
    assert not temporaries(small_disk)
    assert os.strerror(errno.ENOSPC) in str(caught.value)
