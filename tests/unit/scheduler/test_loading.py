"""Where definitions come from, modules and entry points, and how they are described."""

import importlib
import logging
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from app.tasks import Task, TaskLoadError, define_task, definitions
from app.tasks.core import task as core
from dms_scheduler.definitions import (
    Loaded,
    UnknownServiceError,
    describe,
    load_definitions,
    log_loaded,
    require_definition,
)


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a registry of its own."""
    monkeypatch.setattr(core, "_registry", {})


@pytest.fixture(autouse=True)
def clean_modules() -> Generator[None]:
    """What a test imports is forgotten again, so that it registers anew elsewhere."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def handler(task: Task[dict[str, Any]]) -> None:
    """Does nothing."""


# ----------------------------------------------------------------------------------------- modules
def test_a_module_registers_by_being_imported() -> None:
    load_definitions(["examples.reports"])
    assert require_definition("generateUserReport").isolation == "inline"
    assert require_definition("countWords").isolation == "process"


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("import no_such_module_of_ours", "no_such_module_of_ours"),
        ("def broken(", "SyntaxError"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
    ],
)
def test_a_module_that_fails_is_named_with_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, cause: str
) -> None:
    (tmp_path / "failing_tasks.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(TaskLoadError, match="'failing_tasks'") as caught:
        load_definitions(["failing_tasks"])
    assert cause in str(caught.value)


def test_an_unknown_service_says_what_is_known() -> None:
    define_task("known", handler)
    with pytest.raises(UnknownServiceError, match="known are: known"):
        require_definition("unknown")


# ------------------------------------------------------------------------------------ entry points
MODULE = """
from app.tasks import Task, define_task

def first(task: Task) -> None: ...
def second(task: Task) -> None: ...
"""


class Installed:
    """Distributions in a folder on sys.path, as pip would leave them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, name: str, source: str, **entry_points: str) -> None:
        """A distribution with the module `<name>_tasks` and these entry points."""
        (self.folder / f"{name}_tasks.py").write_text(MODULE + source)
        info = self.folder / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{point} = {value}" for point, value in entry_points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[dms.tasks]", *lines, ""]))
        importlib.invalidate_caches()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    monkeypatch.syspath_prepend(str(tmp_path))
    return Installed(tmp_path)


def test_entry_points_register_by_import_or_by_call(installed: Installed) -> None:
    installed.install("alpha", "define_task('a', first)", reports="alpha_tasks")
    source = "def register(): define_task('b', second)"
    installed.install("beta", source, words="beta_tasks:register")
    loaded = load_definitions([], wanted_entry_points=True)
    assert [each for each in loaded if each.ids and "entry point" in each.source] == [
        Loaded("entry point 'reports' (alpha_tasks) of alpha", ["a"]),
        Loaded("entry point 'words' (beta_tasks:register) of beta", ["b"]),
    ]
    assert {"a", "b"} <= definitions().keys()


def test_only_the_wanted_entry_points_are_loaded(installed: Installed) -> None:
    installed.install("alpha", "define_task('a', first)", reports="alpha_tasks")
    installed.install("beta", "raise RuntimeError('not wanted')", words="beta_tasks")
    load_definitions([], wanted_entry_points=["reports"])
    assert "a" in definitions()
    load_definitions([], wanted_entry_points=False)
    load_definitions([], wanted_entry_points=[])


def test_a_wanted_entry_point_that_nobody_has_is_named(installed: Installed) -> None:
    installed.install("alpha", "", reports="alpha_tasks")
    with pytest.raises(TaskLoadError, match=r"entry point rapports .*there are: reports") as caught:
        load_definitions([], wanted_entry_points=["rapports"])
    assert "DMS_TASK_ENTRY_POINTS" in str(caught.value)


@pytest.mark.parametrize(
    ("source", "value", "cause"),
    [
        ("raise RuntimeError('no licence')", "gamma_tasks", "RuntimeError: no licence"),
        ("", "gamma_tasks:missing", "AttributeError"),
        ("", "no_such_module_of_ours", "ModuleNotFoundError"),
        ("register = 5", "gamma_tasks:register", "not callable"),
        ("def register(): define_task('no id', first)", "gamma_tasks:register", "no id"),
    ],
)
def test_an_entry_point_that_fails_is_named_with_distribution_and_cause(
    installed: Installed, source: str, value: str, cause: str
) -> None:
    installed.install("gamma", source, broken=value)
    with pytest.raises(TaskLoadError) as caught:
        load_definitions([], wanted_entry_points=True)
    message = str(caught.value)
    assert f"entry point 'broken' ({value}) of gamma" in message
    assert cause in message


def test_one_id_from_two_sources_is_an_error(installed: Installed) -> None:
    installed.install("alpha", "define_task('same', first)", a="alpha_tasks")
    installed.install("beta", "define_task('same', first)", b="beta_tasks")
    with pytest.raises(TaskLoadError, match=r"beta_tasks.*'same' is taken by alpha_tasks\.first"):
        load_definitions([], wanted_entry_points=True)


def test_a_module_that_is_also_an_entry_point_is_no_conflict(installed: Installed) -> None:
    source = "def register(): define_task('a', first)\nregister()"
    installed.install("alpha", source, a="alpha_tasks:register")
    loaded = load_definitions(["alpha_tasks"], wanted_entry_points=True)
    by_source = {each.source: list(each.ids) for each in loaded}
    assert by_source["module 'alpha_tasks'"] == ["a"]
    assert by_source["entry point 'a' (alpha_tasks:register) of alpha"] == []


def test_what_was_loaded_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        log_loaded([Loaded("module 'mine'", ["a", "b"])])
    (record,) = caplog.records
    assert vars(record)["source"] == "module 'mine'"
    assert vars(record)["tasks"] == ["a", "b"]


# ------------------------------------------------------------------------------------- description
class Answer(BaseModel):
    rows: int = Field(serialization_alias="rowCount")


def test_a_definition_is_described_with_its_schemas() -> None:
    load_definitions(["examples.reports"])
    described = describe(require_definition("generateUserReport"))
    assert described["description"] == "Generates a user's report in the background"
    assert described["parameters"]["required"] == ["userId", "reportType"]
    assert set(described["result"]["properties"]) == {"reportUrl", "generatedAt"}
    options: dict[str, Any] = {"result": list[Answer], "priority": 5, "per_user_limit": 2}
    define_task("typed", handler, options)
    described = describe(require_definition("typed"))
    assert described["result"]["items"] == {"$ref": "#/$defs/Answer"}
    assert described["result"]["$defs"]["Answer"]["required"] == ["rowCount"], "as it is written"


def test_every_option_is_described() -> None:
    define_task("plain", handler)
    assert describe(require_definition("plain")) == {
        "id": "plain",
        "description": None,
        "isolation": "process",
        "max_attempts": 3,
        "timeout_seconds": None,
        "retry": "exponential",
        "retry_delay_seconds": 1.0,
        "retry_max_delay_seconds": 60.0,
        "jitter": 0.25,
        "concurrency_limit": None,
        "per_user_limit": None,
        "priority": 0,
        "parameters": None,
        "result": None,
    }
