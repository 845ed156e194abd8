"""What the operator decides about remotes: from the environment of the worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dms_scheduler.movers.rclone.config import CONFIG_VARIABLE

UNCONFINED_VARIABLE = "DMS_RCLONE_UNCONFINED"


@dataclass(frozen=True, slots=True)
class RcloneSettings:
    """`config` is the path of the config file, "" for none. `unconfined` allows rclone to work
    with local files on a kernel that cannot confine it (no Landlock, Linux before 5.13)."""

    config: str = ""
    unconfined: bool = False

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> RcloneSettings:
        """Read DMS_RCLONE_CONFIG and DMS_RCLONE_UNCONFINED."""
        unconfined = environ.get(UNCONFINED_VARIABLE, "").strip().lower() in {"1", "true", "yes"}
        return cls(environ.get(CONFIG_VARIABLE, "").strip(), unconfined)
