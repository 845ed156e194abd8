"""The tasks that examples/pipeline.py starts: name this module in DMS_TASK_MODULES."""

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from app.tasks import PermanentFailure, Task, current_control, define_task

_SHOWN = 20


class Trees(BaseModel):
    """The two trees, and the task that made the one of the other."""

    model_config = ConfigDict(extra="forbid")

    src: str
    dst: str
    after: str


@define_task("compareTrees", options={"payload": Trees, "description": "Compares two trees"})
def compare_trees(task: Task[Trees, dict[str, int]]) -> dict[str, int]:
    """Reads every file of both; what differs fails the task, and trying again would not help."""
    control = current_control()
    found: list[dict[str, str]] = []
    for root in (task.payload.src, task.payload.dst):
        sums: dict[str, str] = {}
        for path in sorted(Path(root).rglob("*")):
            control.check()
            if path.is_file():
                with path.open("rb") as file:
                    sums[str(path.relative_to(root))] = hashlib.file_digest(
                        file, "sha256"
                    ).hexdigest()
        found.append(sums)
        control.progress({"trees": len(found), "files": len(sums)}, advanced=True)
    different = sorted(dict(found[0].items() ^ found[1].items()))
    if different:
        raise PermanentFailure(f"{len(different)} files differ: {', '.join(different[:_SHOWN])}")
    return {"files": len(found[0])}


class Note(BaseModel):
    """How a task ended."""

    model_config = ConfigDict(extra="forbid")

    after: str
    text: str


@define_task("notify", options={"payload": Note, "description": "Tells somebody"})
async def notify(task: Task[Note, dict[str, str]]) -> dict[str, str]:
    """What stands in the result, a real one would send as a mail or into a chat."""
    return {"told": task.payload.text}
