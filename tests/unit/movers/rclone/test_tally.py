"""The progress of a run of rclone: what is only planned is not told as done."""

from dms_scheduler.movers.rclone.tally import Tally
from dms_scheduler.movers.results import Phase


def test_what_is_planned_is_not_done() -> None:
    tally = Tally()
    tally.counts.update(files=304, bytes=1000, deleted=5)
    planned = tally.progress({})
    assert (planned.files, planned.total_files) == (0, 304)
    assert (planned.bytes, planned.total_bytes, planned.deletes) == (0, 1000, 0)
    tally.planned = tally.totals
    tally.counts.clear()
    tally.phase = Phase.COPY
    tally.counts.update(files=1)
    copying = tally.progress({"bytes": 10})
    assert (copying.files, copying.total_files, copying.bytes) == (1, 304, 10)
