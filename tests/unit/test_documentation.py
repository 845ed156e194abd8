"""What the pages in docs/ say is compared with the code, so that neither goes its own way."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from typer.main import get_command

from app.core.config import Settings, variable
from cli.main import app as command_line
from task_state import keys
from task_state.models import TRANSITIONS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").glob("*/README.md"),
    ]
)


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _blocks(language: str) -> Iterator[tuple[str, str]]:
    for page in PAGES:
        pattern = rf"^```{language}\n(.*?)^```"
        for match in re.finditer(pattern, page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
            yield page.relative_to(ROOT).as_posix(), match[1]


def test_every_link_leads_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text("utf-8"))
        if not (page.parent / target).exists()
    ]
    assert PAGES
    assert not broken, "links that lead nowhere:\n" + "\n".join(broken)


def test_every_page_is_in_the_index() -> None:
    index = _read("docs/index.md")
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")]
    missing = [
        page
        for page in pages
        if page != "index.md" and not page.startswith("decisions/") and f"({page})" not in index
    ]
    assert not missing


def test_every_decision_is_listed() -> None:
    listed = _read("docs/decisions/README.md")
    pages = sorted((ROOT / "docs/decisions").glob("0*.md"))
    assert pages
    assert [page.name for page in pages if f"({page.name})" not in listed] == []


def _setting_rows() -> dict[str, str]:
    pattern = r"^\| `(DMS_\w+)` \| (.*?) \|"
    processes = _read("docs/settings.md").split("## The command line")[0]
    return dict(re.findall(pattern, processes, re.MULTILINE))


def test_every_setting_is_documented() -> None:
    documented = _setting_rows().keys()
    assert documented == {variable(name) for name in Settings.model_fields}


def test_documented_defaults_are_the_real_ones() -> None:
    rows, defaults = _setting_rows(), Settings.model_construct()
    literals = {
        name: row[1:-1]
        for name in Settings.model_fields
        if (row := rows[variable(name)]).startswith("`")  # others are explained in words
    }
    wrong = {
        variable(name): text
        for name, text in literals.items()
        if getattr(Settings.model_validate({name: text}), name) != getattr(defaults, name)
    }
    assert len(literals) > 20
    assert wrong == {}


def test_every_key_and_script_is_documented() -> None:
    page = _read("docs/services/repository.md")
    names = {
        value.removeprefix(keys.PREFIX)
        for name, value in vars(keys).items()
        if name.isupper() and isinstance(value, str) and value != keys.PREFIX
    }
    scripts = {path.stem for path in (ROOT / "task_state/scripts").glob("*.lua")}
    assert names
    assert scripts
    described = set(re.findall(r"`([\w:<>-]+)`", page))
    # `prelude` and `create` are parts that others include.
    assert (
        names | scripts - {"prelude", "record_prelude", "schedule_prelude", "create"} <= described
    )


def test_every_transition_is_documented() -> None:
    page = _read("docs/task-life.md")
    for state, targets in TRANSITIONS.items():
        if not targets:
            continue
        row = re.search(rf"^\| {state} \| (.*?) \|$", page, re.MULTILINE)
        assert row, f"docs/task-life.md has no row for {state}"
        documented = set(re.findall(r"\b[A-Z][A-Z_]{4,}\b", row[1].split(";")[0]))
        assert documented == {str(target) for target in targets}


def test_python_blocks_compile() -> None:
    blocks = list(_blocks("python"))
    assert blocks
    for page, code in blocks:
        compile(code, page, "exec")


def _documented_commands() -> Iterator[tuple[str, list[str]]]:
    for page, block in _blocks("bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                del words[0]
            if words and words[0] in {"dms", "dms-frontend"}:
                yield page, words[1:]


def _unknown_part(words: list[str]) -> str | None:
    """The first word of a documented command that the command line does not know."""
    command = get_command(command_line)
    while words and (commands := getattr(command, "commands", None)):
        if words[0] not in commands:
            return words[0]
        command, words = commands[words[0]], words[1:]
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    return next((word for word in words if word.startswith("-") and word not in known), None)


def test_documented_commands_exist() -> None:
    commands = list(_documented_commands())
    assert len(commands) > 5
    wrong = {f"{page}: {' '.join(words)}": _unknown_part(words) for page, words in commands}
    assert {command: part for command, part in wrong.items() if part} == {}


def test_an_unknown_command_would_be_found() -> None:
    assert _unknown_part(["tasks", "vanish"]) == "vanish"
    assert _unknown_part(["tasks", "list", "--colour", "red"]) == "--colour"
