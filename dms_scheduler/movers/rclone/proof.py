"""Compares what was moved with its source: by checksums of both sides, or by reading both."""

from __future__ import annotations

from collections.abc import Sequence

from dms_scheduler.movers.contract import Verify
from dms_scheduler.movers.rclone.answers import texts
from dms_scheduler.movers.rclone.places import Place
from dms_scheduler.movers.rclone.runner import JobFailed
from dms_scheduler.movers.rclone.session import Session

_MISMATCH = "corrupted on transfer: source and destination differ"


def prove(session: Session, source: Place, target: Place, copied: Sequence[str]) -> None:
    """Verify as the options say; what differs becomes a failure of the run.

    While it copies rclone compares checksums, where both sides have a kind in common: what was
    copied needs no more then. Where they have none, and for `all`, both sides are read here: a
    checksum that a server keeps may be as old as the file, and says nothing of its bytes today.
    """
    runner = session.runner
    everything = session.options.verify is Verify.ALL
    common = sorted(source.known.hashes & target.known.hashes)
    if not everything and (common or not copied):
        if copied:
            runner.log(f"verified: {len(copied)} files by {common[0]}, as they were copied")
        return
    runner.on_event = lambda _: None
    chosen = session.chosen if everything else session.only(copied)
    if source.file is not None:
        chosen = session.only([source.file])
    if source.file != target.file:
        runner.log("not verified: the file has another name at its destination")
        return
    _compare(session, source, target, chosen)
    what = "all files" if everything else f"{len(copied)} files"
    runner.log(f"verified: {what} by reading both sides")


def _compare(session: Session, source: Place, target: Place, chosen: dict[str, object]) -> None:
    note = session.runner.note_failure
    try:
        answer = session.compare(source, target, chosen, one_way=True, download=True)
    except JobFailed as failed:
        note(".", str(failed))
        return
    for key in ("differ", "missingOnDst", "error"):
        for path in texts(answer.get(key)):
            note(path, _MISMATCH)
