"""The mover for remotes: everything where at least one side is `name:path`."""

from __future__ import annotations

from dms_scheduler.movers.contract import Control, MoveRequest, RemoveRequest
from dms_scheduler.movers.rclone.binary import find_binary, version_of
from dms_scheduler.movers.rclone.checking import Checking
from dms_scheduler.movers.rclone.moving import Moving
from dms_scheduler.movers.rclone.removing import Removing
from dms_scheduler.movers.rclone.session import ENGINE
from dms_scheduler.movers.rclone.settings import RcloneSettings
from dms_scheduler.movers.results import CheckResult, MovePlan, MoveResult


class RcloneMover:
    """Moves to, from and between the remotes of the operator's config file; it has no state."""

    def __init__(self, settings: RcloneSettings) -> None:
        self._settings = settings

    @property
    def engine(self) -> str:
        """Name of the engine."""
        return ENGINE

    @property
    def version(self) -> str:
        """Version of rclone. Raises Refused if it is not installed."""
        return version_of(find_binary())

    def plan(self, request: MoveRequest, control: Control) -> MovePlan:
        """Say what `run` would do; raises MoverError."""
        return Moving(self._settings, request, control).plan()

    def run(self, request: MoveRequest, control: Control) -> MoveResult:
        """Do it.

        Raises:
            MoverError: with `result`; and whatever `control.check` raises, as it is.

        """
        return Moving(self._settings, request, control).run()

    def check(self, request: MoveRequest, control: Control) -> CheckResult:
        """Compare both sides; raises MoverError."""
        return Checking(self._settings, request, control).check()

    def remove(self, request: RemoveRequest, control: Control) -> MoveResult | MovePlan:
        """Remove what the request names; a plan of it with `dry_run`. Raises MoverError."""
        return Removing(self._settings, request, control).remove()
