"""The task of examples/pipeline.py that DMS does not have: name this module in DMS_TASK_MODULES."""

from pydantic import BaseModel, ConfigDict

from app.tasks import Task, define_task


class Note(BaseModel):
    """How a task ended."""

    model_config = ConfigDict(extra="forbid")

    after: str
    text: str


@define_task("notify", options={"payload": Note, "description": "Tells somebody"})
async def notify(task: Task[Note, dict[str, str]]) -> dict[str, str]:
    """What stands in the result, a real one would send as a mail or into a chat."""
    return {"told": task.payload.text}
