"""Child processes that run blocking handlers, so that they can be stopped, limited and killed."""

from dms_scheduler.children.pool import ChildPool
from dms_scheduler.children.process import Child, ChildDied, ChildError, ChildSettings

__all__ = ["Child", "ChildDied", "ChildError", "ChildPool", "ChildSettings"]
