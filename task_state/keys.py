"""Every Redis key of the task store: the one place where their names are made.

The hash tag `{0}` puts all keys into one slot, so that one script may touch them on a cluster too.
The scripts build the same names from PREFIX; docs/services/repository.md describes what each holds.
"""

PREFIX = "dms:{0}:"
SCHEMA = PREFIX + "schema"
OUTBOX = PREFIX + "outbox"
CHANGES = PREFIX + "changes"
SEQUENCE = PREFIX + "sequence"
COUNTERS = PREFIX + "counters"
SERVICES = PREFIX + "services"
LEASES = PREFIX + "leases"
QUEUED = PREFIX + "queued"
EXPIRY = PREFIX + "expiry"

SCHEMA_VERSION = 1


def task(task_id: str) -> str:
    """HASH: the record."""
    return f"{PREFIX}task:{task_id}"


def logs(task_id: str) -> str:
    """LIST: its log lines, oldest first."""
    return f"{PREFIX}logs:{task_id}"


def output(task_id: str) -> str:
    """STRING: its launcher output."""
    return f"{PREFIX}output:{task_id}"


def users(service: str) -> str:
    """HASH: user to the number of tasks that the user has in the service."""
    return f"{PREFIX}users:{service}"


def due(group: str) -> str:
    """ZSET: outbox events that a consumer group put off, scored by the ms at which they are due."""
    return f"{PREFIX}due:{group}"
