"""The call that copies, as rclone takes it: its name, its settings, its parameters."""

from __future__ import annotations

from collections.abc import Mapping

from dms_scheduler.movers.contract import Compare, MoveOptions, Overwrite, Preserve, Verify
from dms_scheduler.movers.rclone.places import Place


def name_of(source: Place, *, mirror: bool) -> str:
    """Return the name of the call; with `mirror` it also deletes what the source does not have."""
    if source.file is not None:
        return "operations/copyfile"
    return "sync/sync" if mirror else "sync/copy"


def settings_of(options: MoveOptions, source: Place, target: Place) -> dict[str, object]:
    """Return rclone's settings for how files are compared and replaced."""
    config: dict[str, object] = {}
    if options.compare is Compare.EXISTS or options.overwrite is Overwrite.NEVER:
        config["IgnoreExisting"] = True
    if options.overwrite is Overwrite.NEWER:
        config["UpdateOlder"] = True
    if options.compare is Compare.SIZE:
        config["SizeOnly"] = True
    elif options.compare is Compare.CHECKSUM:
        config["CheckSum"] = True
    elif not (source.known.times and target.known.times):
        common = source.known.hashes & target.known.hashes
        config["CheckSum" if common else "SizeOnly"] = True
    if Preserve.MTIME not in options.preserve:
        config |= {"NoUpdateModTime": True, "NoUpdateDirModTime": True}
    if options.verify is Verify.NONE:
        config["IgnoreChecksum"] = True
    return config


def parameters_of(
    options: MoveOptions,
    source: Place,
    target: Place,
    chosen: Mapping[str, object],
    config: Mapping[str, object],
) -> dict[str, object]:
    """Return the parameters; of a folder what the filter `chosen` lets pass is copied."""
    if source.file is not None:
        both = {"srcFs": source.fs, "srcRemote": source.file}
        return {**both, "dstFs": target.fs, "dstRemote": target.file, "_config": config}
    return {
        "srcFs": source.fs,
        "dstFs": target.fs,
        # With `include` a directory is only made where a file needs it.
        "createEmptySrcDirs": target.known.empty_folders and not options.include,
        "_config": config,
        "_filter": chosen,
    }
