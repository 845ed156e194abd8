"""`check` by rclone: compares two sides and changes neither."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from dms_scheduler.movers.contract import Compare, Control, MoveRequest
from dms_scheduler.movers.errors import Refused, not_found
from dms_scheduler.movers.rclone.answers import texts
from dms_scheduler.movers.rclone.events import Event, Kind
from dms_scheduler.movers.rclone.faults import as_mover_error
from dms_scheduler.movers.rclone.names import plain
from dms_scheduler.movers.rclone.opening import Opening
from dms_scheduler.movers.rclone.places import Place
from dms_scheduler.movers.rclone.runner import JobFailed
from dms_scheduler.movers.rclone.session import Session
from dms_scheduler.movers.rclone.settings import RcloneSettings
from dms_scheduler.movers.results import (
    Action,
    CheckResult,
    CheckTotals,
    Phase,
    ReportEntry,
)

_SIZES_DIFFER = "sizes differ"
_MATCHING = " matching files"


class Checking:
    """One call of check."""

    def __init__(self, settings: RcloneSettings, request: MoveRequest, control: Control) -> None:
        # Of the options of a move those that change something have no meaning here.
        options = replace(request.options, delete=False, compare=Compare.SIZE, preserve=frozenset())
        self._compare = request.options.compare
        self._one_way = request.options.one_way
        self._request = replace(request, options=options)
        self._session = Session(
            settings, control, (request.src, request.dst), request.roots, options, request.task_id
        )
        self._opening = Opening(self._session, self._request)
        self._runner = self._session.runner
        self._counts: Counter[str] = Counter()
        self._reasons: dict[str, str] = {}
        self._specials: set[str] = set()
        self._unknown = False
        self._told: set[str] = set()

    def check(self) -> CheckResult:
        """Compare. Raises MoverError."""
        with self._session.told(self._result):
            source, target = self._opening.open(change=False)
            if not target.exists:
                raise not_found(f"destination {target.text!r}")
            self._runner.tally.phase = Phase.VERIFY
            self._check(source, target)
            self._runner.settle_failures()
            self._session.refuse_partial("the others were compared")
            return self._result(None)

    def _check(self, source: Place, target: Place) -> None:
        if self._compare is not Compare.CHECKSUM:
            self._look(source, target, size_only=True, download=False)
        else:
            common = source.known.hashes & target.known.hashes
            self._look(source, target, size_only=False, download=not common)
        if self._compare is Compare.SIZE_MTIME:
            self._look_at_times(source, target)

    def _look(self, source: Place, target: Place, *, size_only: bool, download: bool) -> None:
        answer = self._ask(source, target, size_only=size_only, download=download)
        if self._unknown and not size_only and not download:
            self._reset()
            answer = self._ask(source, target, size_only=False, download=True)
        if self._compare is not Compare.EXISTS:
            for path in texts(answer.get("differ")):
                self._tell(Action.DIFFERS, path, self._reasons.get(path, "content"))
        for path in texts(answer.get("missingOnDst")):
            self._tell(Action.MISSING_DST, path, None)
        for path in texts(answer.get("missingOnSrc")):
            self._tell(Action.MISSING_SRC, path, None)
        for path in texts(answer.get("error")):
            self._runner.note_failure(path, self._reasons.get(path, "it could not be compared"))

    def _reset(self) -> None:
        self._counts = Counter(special=len(self._specials))  # those have been reported
        self._reasons.clear()

    def _ask(
        self, source: Place, target: Place, *, size_only: bool, download: bool
    ) -> dict[str, object]:
        self._runner.on_event = self._take
        try:
            return self._session.compare(
                source,
                target,
                self._chosen(source, target),
                one_way=self._one_way or source.file is not None,
                download=download,
                size_only=size_only,
            )
        except JobFailed as failed:
            raise as_mover_error(str(failed), source.text) from failed

    def _chosen(self, source: Place, target: Place) -> dict[str, object]:
        if source.file is None:
            return self._session.chosen
        if source.file != target.file:
            message = "check compares a single file with one of the same name; name its folder"
            raise Refused(message, error_class="bad_destination")
        return self._session.only([source.file])

    def _look_at_times(self, source: Place, target: Place) -> None:
        if not (source.known.times and target.known.times):
            self._runner.log("a side keeps no modification times: sizes alone were compared")
            return
        self._runner.on_event = self._take_time
        parameters = {
            "srcFs": source.fs,
            "dstFs": target.fs,
            "_config": {"DryRun": True},
            "_filter": self._chosen(source, target),
        }
        self._session.do("sync/copy", parameters, source.text)

    def _take_time(self, event: Event) -> None:
        differs = event.kind in {Kind.COPIED, Kind.UPDATED}
        if differs and event.path not in self._told:
            self._counts["same"] -= 1
            self._tell(Action.DIFFERS, event.path, "mtime")

    def _take(self, event: Event) -> None:
        if event.kind is Kind.FAILED and event.path:
            size = event.message.startswith(_SIZES_DIFFER)
            self._reasons[event.path] = "size" if size else event.message
        elif event.kind is Kind.SPECIAL and event.path not in self._specials:
            self._specials.add(event.path)
            self._counts["special"] += 1
            self._runner.report(ReportEntry(action=Action.SPECIAL, path=plain(event.path)))
        elif event.message.endswith(_MATCHING):
            self._counts["same"] += int(event.message.split()[0])
        elif "hashes could not be checked" in event.message:
            self._unknown = True

    def _tell(self, action: Action, path: str, reason: str | None) -> None:
        self._told.add(path)
        self._counts[action.value] += 1
        shown = None if reason is None else self._runner.shown(reason)
        if shown is not None and "differ" in shown:
            shown = "content"
        self._runner.tell(ReportEntry(action=action, path=plain(path), reason=shown))

    def _result(self, error_class: str | None) -> CheckResult:
        tally = self._runner.tally
        return CheckResult(
            engine=self._session.engine,
            version=self._session.version,
            totals=CheckTotals(**self._counts),
            seconds=tally.seconds,
            error_class=error_class,
            sample=tuple(tally.sample),
            failed=tuple(tally.failed),
            failed_count=tally.failed_count,
        )
