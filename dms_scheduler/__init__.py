"""The downstream service: accepts tasks, and its workers run handlers and movers.

It is not the scheduler that says *when* something runs: that is `app.scheduler`.
"""

__all__: list[str] = []
