"""What the tests of attacks share."""

from __future__ import annotations

from collections.abc import Callable

from dms_scheduler.movers import PartialFailure, RemoveRequest
from tests.unit.movers.support import Place


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
