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
QUEUED = PREFIX + "queued"  # ZSET: admitted, not begun; scored by the ms of the next look at it
DELAYED = PREFIX + "delayed"  # ZSET: waiting, but put off; scored by the ms they are due
DELAYS = PREFIX + "delays"  # HASH: service to how many of them it has
WAITING = PREFIX + "waiting"  # HASH: service to how many tasks are in its lanes
TURN = PREFIX + "turn"  # the number of the last turn that a user had
TURNS = PREFIX + "turns"  # ZSET: users by their last turn, the latest 10,000
WORKERS = PREFIX + "workers"  # HASH: worker to its slots, and the ms until which it is believed
HELD = PREFIX + "held"  # HASH: worker to the number of its leases
MODES = PREFIX + "modes"  # HASH: service (or `*`) to its mode, since when, and why
EXPIRY = PREFIX + "expiry"
IDS = PREFIX + "ids"  # ZSET: every task id, scored 0, hence in the order of its bytes
OLDER = PREFIX + "older"  # there may be records of an older layout

# 3: long values are cut up (prelude.lua), `log_lines`, `ids`. The version that wrote layout 1
# cannot read that, and refuses a store of 3; one of 2 it would have shared, so there was none.
SCHEMA_VERSION = 3
OLDEST_SCHEMA = 1


def task(task_id: str) -> str:
    """HASH: the record."""
    return f"{PREFIX}task:{task_id}"


def logs(task_id: str) -> str:
    """LIST: its log lines, oldest first."""
    return f"{PREFIX}logs:{task_id}"


def output(task_id: str) -> str:
    """STRING: its launcher output."""
    return f"{PREFIX}output:{task_id}"


def lane(service: str, user_id: str) -> str:
    """ZSET: a user's accepted tasks that wait for a slot of the service, oldest first."""
    return f"{PREFIX}lane:{service}:{user_id}"


def ring(service: str) -> str:
    """ZSET: the users who have a lane in the service, by their last turn."""
    return f"{PREFIX}ring:{service}"


def busy(service: str) -> str:
    """HASH: the service's tasks that were admitted or run, with their users."""
    return f"{PREFIX}busy:{service}"


def users(service: str) -> str:
    """HASH: user to the number of tasks that the user has in the service."""
    return f"{PREFIX}users:{service}"


def due(group: str) -> str:
    """ZSET: outbox events that a consumer group put off, scored by the ms at which they are due."""
    return f"{PREFIX}due:{group}"
