"""The rclone engine: moves to, from and between remotes that the operator configured."""

from dms_scheduler.movers.rclone.address import Address, is_remote, parse_address
from dms_scheduler.movers.rclone.config import CONFIG_VARIABLE, RcloneConfigError, remote_names
from dms_scheduler.movers.rclone.mover import RcloneMover
from dms_scheduler.movers.rclone.settings import UNCONFINED_VARIABLE, RcloneSettings

__all__ = [
    "CONFIG_VARIABLE",
    "UNCONFINED_VARIABLE",
    "Address",
    "RcloneConfigError",
    "RcloneMover",
    "RcloneSettings",
    "is_remote",
    "parse_address",
    "remote_names",
]
