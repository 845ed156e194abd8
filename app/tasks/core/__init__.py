"""The core of task definitions; import from `app.tasks`."""

__all__: list[str] = []
