"""Fixtures of the mover tests."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.unit.movers.support import Place
from tests.unit.movers.swaps import Canary


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A root in this test's own directory."""
    return Place(tmp_path)


@pytest.fixture
def open_place() -> Generator[Place]:
    """A root that every user of the machine can reach (pytest's own directories are private)."""
    folder = Path(tempfile.mkdtemp(prefix="dms-test-"))
    folder.chmod(0o777)
    place = Place(folder)
    place.src.chmod(0o777)
    place.dst.mkdir()
    place.dst.chmod(0o777)
    yield place
    shutil.rmtree(folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    """A file system of 1 MiB and a hundred files."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = [
        "mount",
        "-t",
        "tmpfs",
        "-o",
        "size=1m,nr_inodes=100,mode=777",
        "dms-test",
        str(folder),
    ]
    done = subprocess.run(mount, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def canary(place: Place) -> Canary:
    """A folder outside the root that nothing may touch."""
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
