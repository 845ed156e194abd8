"""The built-in tasks, one file each. Not `app.services`, which is the frontend's use cases."""

__all__: list[str] = []
