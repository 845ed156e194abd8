"""The rclone engine when things go wrong: refused, cancelled, killed, cut off, full of tricks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from dms_scheduler.movers import (
    Cancelled,
    DestinationBusy,
    LeaseLost,
    MoverError,
    MoveResult,
    Overwrite,
    PartialFailure,
    Phase,
    Refused,
)
from dms_scheduler.movers.rclone import RcloneMover, RcloneSettings
from tests.contract.rclone_place import KINDS, Scene, contents, lines
from tests.support.processes import command_of
from tests.support.remotes import KEY_ID, PASSWORD, SECRET_KEY, Remotes, free_port, remotes, section
from tests.unit.movers.support import Recorder
from tests.unit.movers.swaps import exchanging

MIB = 1 << 20
SLOW = 200_000  # bytes a second
REPOSITORY = Path(__file__).resolve().parents[2]


def own_rclones() -> list[psutil.Process]:
    """Return the processes of movers that run under this one."""
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if "rcd" in command_of(process)
    ]


class Moving(Recorder):
    """A control that does something once bytes of a file are on their way."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__()
        self.acted = False
        self._act = act

    def check(self) -> None:
        super().check()
        under_way = self.reports and self.reports[-1].active and self.reports[-1].bytes
        if under_way and not self.acted:
            self.acted = True
            self._act()


def raising(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [Cancelled, LeaseLost])
def test_a_stop_in_mid_transfer(scene: Scene, kind: str, error: type[MoverError]) -> None:
    """The process is killed: to wait for it takes longer than the test's own time-out allows."""
    scene.write("big", os.urandom(8 * MIB))
    control = Moving(raising(error("stop")))
    with pytest.raises(error) as caught:
        scene.run(scene.src, scene.remote(kind), control, bandwidth=SLOW // 10)
    assert isinstance(caught.value.result, MoveResult)
    assert caught.value.result.totals.files == 0
    assert not own_rclones()
    assert not scene.store(kind, "big").exists() or kind == "webdav"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("again", range(2))
def test_a_cancelled_upload_leaves_no_part_of_a_file(scene: Scene, kind: str, again: int) -> None:
    for name in ("a/1", "a/2", "b/3", f"{again}"):
        scene.write(name, os.urandom(4 * MIB))
    with pytest.raises(Cancelled):
        scene.run(scene.src, scene.remote(kind), Moving(raising(Cancelled("stop"))), bandwidth=SLOW)
    top = scene.store(kind, "")
    found = [str(path) for path in top.rglob("*") if ".dms-part" in path.name]
    assert not found


def test_a_cancelled_download_leaves_nothing_behind(scene: Scene) -> None:
    scene.write("big", os.urandom(8 * MIB))
    scene.run(scene.src, scene.remote("sftp"))
    dst = scene.root / "dst"
    with pytest.raises(Cancelled):
        scene.run(scene.remote("sftp"), dst, Moving(raising(Cancelled("stop"))), bandwidth=SLOW)
    assert not os.listdir(dst)
    scene.run(scene.remote("sftp"), dst)
    assert contents(dst) == contents(scene.src)


def test_nothing_goes_on_after_the_deadline_of_the_lease(scene: Scene) -> None:
    scene.write("big", os.urandom(8 * MIB))

    def end() -> None:
        control.deadline = 0.0

    control = Moving(end)
    with pytest.raises(LeaseLost):
        scene.run(scene.src, scene.remote("sftp"), control, bandwidth=SLOW)
    assert not own_rclones()


MOVE = """
import sys
from pathlib import Path
from tests.contract.rclone_place import Scene
from tests.support.remotes import Remotes
scene = Scene(Remotes(Path(sys.argv[1])), Path(sys.argv[2]), "")
scene.run(sys.argv[3], sys.argv[4], bandwidth=200_000)
"""


def test_after_a_kill_the_next_attempt_cleans_up_and_completes(scene: Scene) -> None:
    scene.write("big", os.urandom(4 * MIB))
    scene.write("small")
    scene.run(scene.src, scene.remote("sftp"))
    dst = scene.root / "dst"
    command = [sys.executable, "-c", MOVE, str(scene.remotes.folder), str(scene.root)]
    with subprocess.Popen([*command, scene.remote("sftp"), str(dst)], cwd=REPOSITORY) as process:
        try:
            wait_until(lambda: unfinished(dst) or process.poll() is not None, "a part of a file")
        finally:
            rclones = psutil.Process(process.pid).children(recursive=True)
            process.kill()
    _, alive = psutil.wait_procs(rclones, timeout=60)
    assert not alive, "rclone dies with the mover"
    other = dst / "file.01234567.dms-part.ffffff"
    other.write_text("of another task")
    assert unfinished(dst)
    result = scene.run(scene.remote("sftp"), dst, epoch=2)
    assert result.totals.deleted == 0
    other.unlink()
    assert contents(dst) == contents(scene.src)


def unfinished(folder: Path) -> list[str]:
    names = os.listdir(folder) if folder.exists() else []
    return [name for name in names if ".dms-part." in name]


def wait_until(true: Callable[[], object], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.01)


def test_the_bandwidth_can_be_changed_while_it_runs(scene: Scene) -> None:
    """At the first limit this would take minutes, which the test's own time-out does not allow."""
    scene.write("big", os.urandom(8 * MIB))

    def widen() -> None:
        control.bandwidth = 0

    control = Moving(widen)
    scene.run(scene.src, scene.remote("sftp"), control, bandwidth=20_000)
    assert control.acted
    assert contents(scene.store("sftp")) == contents(scene.src)


@pytest.fixture
def own(tmp_path: Path) -> Generator[Remotes]:
    """Servers of one test, which may end them."""
    with remotes(tmp_path) as found:
        yield found


@pytest.fixture
def fragile(own: Remotes, tmp_path: Path) -> Scene:
    """A scene with servers of its own."""
    (tmp_path / "src").mkdir()
    return Scene(own, tmp_path, "t")


def test_a_server_that_dies_in_mid_transfer(fragile: Scene) -> None:
    kind = "s3"
    (fragile.remotes.start(kind).top / "bucket").mkdir()
    for number in range(3):
        fragile.write(str(number), os.urandom(4 * MIB))
    control = Moving(fragile.remotes.servers[kind].kill)
    with pytest.raises(MoverError) as caught:
        fragile.run(fragile.src, fragile.remote(kind), control, bandwidth=SLOW, retries=0)
    error = caught.value
    assert error.error_class in {"connection_refused", "connection_lost", "partial_failure"}
    assert error.retryable
    assert isinstance(error.result, MoveResult)
    assert error.result.totals.files < 3
    assert error.result.failed_count


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_credentials_a_closed_port_and_their_secrets(scene: Scene, kind: str) -> None:
    scene.write("a")
    wrong = {"secret": "canary-wrong-secret", "password": "canary-wrong-password"}
    scene.remotes.add("wrong", **section(kind, scene.remotes.servers[kind].port, **wrong))
    control = Recorder()
    with pytest.raises(MoverError) as caught:
        scene.run(scene.src, "wrong:bucket/x", control)
    assert (caught.value.error_class, caught.value.retryable) == ("bad_credentials", False)
    shown = f"{caught.value} {caught.value.result} {control.lines} {control.entries}"
    for secret in ("canary", KEY_ID, SECRET_KEY, PASSWORD):
        assert secret not in shown


def test_a_closed_port(scene: Scene) -> None:
    scene.remotes.add("closed", **section("sftp", free_port()))
    with pytest.raises(MoverError) as caught:
        scene.run("closed:bucket/x", scene.root / "dst")
    assert (caught.value.error_class, caught.value.retryable) == ("connection_refused", True)
    assert not (scene.root / "dst").exists()


def test_an_unknown_host(scene: Scene) -> None:
    scene.remotes.add("nowhere", **{**section("sftp", 1), "host": "no-such-host.invalid"})
    with pytest.raises(MoverError) as caught:
        scene.run("nowhere:x", scene.root / "dst")
    assert (caught.value.error_class, caught.value.retryable) == ("unknown_host", True)


def test_a_server_that_takes_no_writes(fragile: Scene) -> None:
    fragile.remotes.start("sftp", "--read-only")
    fragile.write("a")
    with pytest.raises(MoverError) as caught:
        fragile.run(fragile.src, "sftp:x")
    assert (caught.value.error_class, caught.value.retryable) == ("read_only", False)
    assert not os.listdir(fragile.remotes.servers["sftp"].top)


def test_a_bucket_that_is_not_there_is_not_made(scene: Scene) -> None:
    scene.write("a")
    with pytest.raises(MoverError) as caught:
        scene.run(scene.src, "s3:mistyped/x", retries=0)
    assert (caught.value.error_class, caught.value.retryable) == ("not_found", False)
    assert not (scene.remotes.servers["s3"].top / "mistyped").exists()


def test_a_file_that_cannot_be_written_fails_the_task(scene: Scene) -> None:
    for name in ("a", "b", "c"):
        scene.write(name, name)
    scene.run(scene.src, scene.remote("sftp"))
    dst = scene.root / "dst"
    (dst / "a").mkdir(parents=True)  # a directory is in the way of a file
    (dst / "a" / "x").touch()
    control = Recorder()
    with pytest.raises(PartialFailure, match="1 path failed") as caught:
        scene.run(scene.remote("sftp"), dst, control, retries=0, delete=True)
    result = caught.value.result
    assert isinstance(result, MoveResult)
    assert [each.path for each in result.failed] == ["a"]
    assert (result.failed_count, result.totals.files, result.totals.deleted) == (1, 2, 0)
    assert [entry.path for entry in control.entries if entry.action.value == "failed"] == ["a"]
    assert (dst / "c").read_text() == "c"
    assert (dst / "a" / "x").exists(), "nothing is deleted when something failed"
    assert "nothing was deleted, because some paths failed" in control.lines


def test_remotes_have_to_be_configured(scene: Scene) -> None:
    scene.write("a")
    request = scene.request(scene.src, "s3:bucket/x")
    with pytest.raises(Refused, match="DMS_RCLONE_CONFIG") as caught:
        RcloneMover(RcloneSettings()).run(request, Recorder())
    assert caught.value.error_class == "no_remotes"
    with pytest.raises(Refused) as caught:
        scene.run(scene.src, "other:bucket/x")
    assert caught.value.error_class == "unknown_remote"


def test_local_paths_keep_to_the_roots(
    scene: Scene, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "canary").write_text("canary")
    (scene.root / "link").symlink_to(outside)
    for path in (outside, "/etc", f"{scene.root}/../x", scene.root / "link", "relative"):
        for pair in ((path, scene.remote("s3")), (scene.remote("s3"), path)):
            with pytest.raises(Refused):
                scene.run(*pair)
    assert os.listdir(outside) == ["canary"]


def test_two_tasks_on_one_remote_folder(scene: Scene) -> None:
    scene.write("big", os.urandom(4 * MIB))
    seen: list[str] = []

    def second() -> None:
        for there in (scene.remote("sftp"), scene.remote("sftp", "below"), "sftp:bucket"):
            with pytest.raises(DestinationBusy) as caught:
                scene.run(scene.src, there)
            seen.append(caught.value.error_class)
        scene.run(scene.src / "big", f"sftp:bucket/{scene.name}-beside/")
        control.bandwidth = 0

    control = Moving(second)
    scene.run(scene.src, scene.remote("sftp"), control, bandwidth=SLOW)
    assert seen == ["destination_busy"] * 3
    assert contents(scene.store("sftp")) == contents(scene.src)


def test_a_remote_full_of_tricks_reaches_nothing_outside(
    scene: Scene, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Links that come from a remote are made, but what lies behind them is out of reach."""
    outside = tmp_path_factory.mktemp("outside")
    canary = outside / "canary"
    canary.write_text("canary")
    stored = scene.store("sftp")
    stored.mkdir(parents=True)
    (stored / "trap.rclonelink").write_text(str(outside))
    (stored / "plain").write_text("plain")
    dst = scene.root / "dst"
    scene.run(scene.remote("sftp"), dst)
    assert os.readlink(dst / "trap") == str(outside)
    (stored / "trap.rclonelink").unlink()
    (stored / "trap").mkdir()
    (stored / "trap" / "canary").write_text("stolen")
    (stored / "trap" / "new").write_text("new")
    with pytest.raises(MoverError):
        scene.run(scene.remote("sftp"), dst, retries=0, overwrite=Overwrite.ALWAYS)
    with pytest.raises(MoverError):
        scene.run(scene.remote("sftp"), dst, retries=0, delete=True, backup_deleted=False)
    assert os.listdir(outside) == ["canary"]
    assert canary.read_text() == "canary"


def _write_unless_link(folder: Path, name: str) -> None:
    """Make a file in a folder that may be exchanged for a link at any moment, never through it."""
    try:
        within = os.open(folder, os.O_DIRECTORY | os.O_NOFOLLOW)
    except (NotADirectoryError, FileNotFoundError):
        return
    try:
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=within))
    finally:
        os.close(within)


def test_folders_that_are_swapped_for_links_lead_nowhere(
    scene: Scene, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """An attacker exchanges a folder of the destination and a link out of the root all the time."""
    outside = tmp_path_factory.mktemp("outside")
    for name in ("0", "kept"):
        (outside / name).write_text("canary")
    for number in range(40):
        scene.write(f"folder/{number}", os.urandom(2000))
    scene.run(scene.src, scene.remote("sftp"))
    dst, link = scene.root / "dst", scene.root / "link"
    (dst / "folder").mkdir(parents=True)
    link.symlink_to(outside)
    with exchanging([(dst / "folder", link)]) as attacker:
        for number in range(8):
            before = attacker.count
            for folder in (dst / "folder", link):
                _write_unless_link(folder, f"extra-{number}")
            with suppress(MoverError):  # what it meets may fail it, as long as nothing leaks out
                scene.run(scene.remote("sftp"), dst, retries=0, delete=True, backup_deleted=False)
            attacker.wait_for(before + 100)
        assert attacker.count > 1000
    assert {file.name: file.read_text() for file in outside.iterdir()} == {
        "0": "canary",
        "kept": "canary",
    }


def test_names_that_are_no_utf8_come_back_as_they_were(scene: Scene) -> None:
    name = b"bad\xff\xfename"
    with open(os.fsencode(scene.src) + b"/" + name, "wb") as file:
        file.write(b"data")
    scene.write("new\nline", "data")
    control = Recorder()
    scene.run(scene.src, scene.remote("s3"), control)
    assert "new\nline" in {entry.path for entry in control.entries}
    scene.run(scene.remote("s3"), scene.root / "back")
    assert contents(scene.root / "back") == contents(scene.src)
    scene.write("data.rclonelink", "a file, not a link")
    with pytest.raises(PartialFailure) as caught:
        scene.run(scene.src, scene.remote("s3"))
    assert isinstance(caught.value.result, MoveResult)
    (failed,) = caught.value.result.failed
    assert (failed.path, failed.error_class) == ("data.rclonelink", "name_not_allowed")
    (scene.src / "data.rclonelink").unlink()
    (scene.src / "new\nline").unlink()
    scene.run(scene.src, scene.remote("s3"), delete=True)
    assert len(contents(scene.store("s3", ".dms-deleted"))) == 1


def test_the_private_folder_is_gone_and_no_secret_is_in_the_arguments(scene: Scene) -> None:
    scene.write("big", os.urandom(4 * MIB))
    seen: list[str] = []

    def look() -> None:
        for process in own_rclones():
            seen.append(" ".join(process.cmdline()))
            seen.append(str(process.environ()))
            folder = Path(process.cwd())
            assert folder.stat().st_mode & 0o077 == 0
            config = (folder / "rclone.conf").read_text()
            assert "[sftp]" in config
            assert "[s3]" not in config
            folders.append(folder)
        control.bandwidth = 0

    folders: list[Path] = []
    control = Moving(look)
    scene.run(scene.src, scene.remote("sftp"), control, bandwidth=SLOW)
    assert folders
    assert not [folder for folder in folders if folder.exists()]
    assert not [text for text in seen if SECRET_KEY in text or PASSWORD in text or "DMS_" in text]


def test_progress_comes_at_least_once_a_second_of_its_own_steps(scene: Scene) -> None:
    """Told by order, not by the clock: the phases come in order and the last one is complete."""
    scene.fill()
    control = Recorder()
    scene.run(scene.src, scene.remote("s3"), control)
    phases = [each.phase for each in control.reports]
    assert phases == sorted(phases, key=list(Phase).index)
    assert control.reports[-1].files == 64
    assert len(lines(control)) == 66
