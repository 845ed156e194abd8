"""The steps of `tasks prune` and `tasks export`: page by page, each whole before the next one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from app.client import retention
from cli.export_file import ExportFile

if TYPE_CHECKING:
    from app.client import Client

Options = Mapping[str, Any]
PAGE = 100


@dataclass
class Tally:
    """What a run has met: tasks by service and status with the oldest and the newest end, those
    that were skipped by the reason, and how many lines were exported."""

    groups: dict[tuple[str, str], "Group"] = field(default_factory=dict[tuple[str, str], "Group"])
    skipped: dict[str, int] = field(default_factory=dict[str, int])
    exported: int = 0

    @property
    def tasks(self) -> int:
        """How many were removed, or would be."""
        return sum(group.tasks for group in self.groups.values())

    def count(self, task: Mapping[str, Any]) -> None:
        """One more task that was removed, or would be."""
        group = self.groups.setdefault((task["service"], task["status"]), Group())
        group.count(task.get("completed_at") or "")

    def skip(self, reason: str) -> None:
        """One more that stays."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1


@dataclass
class Group:
    """Tasks of one service in one state: their number, and when the first and the last ended."""

    tasks: int = 0
    oldest: str = ""
    newest: str = ""

    def count(self, ended: str) -> None:
        """One more, which ended then; times are ISO in UTC, so texts are in the order of time."""
        self.tasks += 1
        self.oldest = min(self.oldest or ended, ended)
        self.newest = max(self.newest, ended)


def prune(
    api: "Client",
    options: Options,
    *,
    file: ExportFile | None = None,
    form: str = "jsonl",
    dry_run: bool = False,
) -> Iterator[Tally]:
    """Remove what the options find, and give the same tally after each step.

    With a file, what is removed is in it before. A task that changed since it was found stays.
    """
    tally, cursor = Tally(), None
    while True:
        # Oldest first: a run that is broken off has removed what was due the longest.
        asked = {**options, "order": "asc", "limit": PAGE, "cursor": cursor}
        page = api.run(retention.brief_page(asked))
        found = {str(task["task_id"]): task for task in page.tasks}
        wanted = set(found)
        if file is not None and found:
            wanted = _export(api, asked, file, form) & wanted
            tally.exported += len(wanted)
        _remove(api, [found[each] for each in sorted(wanted)], tally, dry_run=dry_run)
        yield tally
        cursor = page.next_cursor
        if cursor is None:
            return


def export(api: "Client", options: Options, file: ExportFile, form: str) -> Iterator[int]:
    """Write what the options find, and say after each page how many tasks are written."""
    written, cursor = 0, None
    while True:
        asked = {**options, "limit": PAGE, "cursor": cursor}
        with api.download(retention.export_request(form, asked)) as answer:
            written += len(file.add(answer.pieces))
            cursor = answer.headers.get(retention.NEXT_CURSOR)
        yield written
        if cursor is None:
            return


def _export(api: "Client", asked: Options, file: ExportFile, form: str) -> set[str]:
    with api.download(retention.export_request(form, asked)) as answer:
        return file.add(answer.pieces)


def _remove(api: "Client", tasks: list[dict[str, Any]], tally: Tally, *, dry_run: bool) -> None:
    if not tasks:
        return
    answer = api.run(retention.prune(tasks, dry_run=dry_run))
    removed = set(answer["removed"])
    for task in tasks:
        if task["task_id"] in removed:
            tally.count(task)
    for skipped in answer["skipped"]:
        tally.skip(str(skipped["reason"]))
