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
ALIVE = PREFIX + "alive"  # the µs at which the store was last known to be alive
SILENCES = PREFIX + "silences"  # ZSET: the latest times without it: first µs, scored by the last
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
SCHEDULES = PREFIX + "schedules"  # ZSET: the names of all schedules, scored 0
SCHEDULE_REVISION = PREFIX + "schedule-revision"  # the last revision given to any schedule
SCHEDULE_CHANGES = PREFIX + "schedule-changes"  # ZSET: schedules by the version of a change
SCHEDULE_DELETED = PREFIX + "schedule-deleted"  # ZSET: those of them that are gone, the latest 1000
SCHEDULE_FLOOR = PREFIX + "schedule-floor"  # the version of the last one that was forgotten
SCHEDULE_WAITING = PREFIX + "schedule-waiting"  # ZSET: schedules with slots that wait; ms of a look
OLDER = PREFIX + "older"  # there may be records of an older layout

# 3: long values are cut up (`cut_into`), `log_lines`, `ids`. 5: a record that has ended is a line.
# The versions that wrote layouts 1 and 3 cannot read the next one, and refuse such a store; one of
# 2 or 4 they would have shared, so there were none.
SCHEMA_VERSION = 5
COUNTED_SCHEMA = 3  # the first one with `log_lines` and `ids`
OLDEST_SCHEMA = 1


def task(task_id: str) -> str:
    """HASH: the record; STRING: the line of one that has ended."""
    return f"{PREFIX}task:{task_id}"


def logs(task_id: str) -> str:
    """LIST: its log lines, oldest first."""
    return f"{PREFIX}logs:{task_id}"


def output(task_id: str) -> str:
    """STRING: its launcher output."""
    return f"{PREFIX}output:{task_id}"


def report(task_id: str) -> str:
    """STRING: its report, lines of JSON in gzip members."""
    return f"{PREFIX}report:{task_id}"


def series(task_id: str) -> str:
    """STRING: how its progress went over time, as JSON."""
    return f"{PREFIX}series:{task_id}"


def arriving(service: str) -> str:
    """SET: the service's managed tasks that were submitted, and not accepted by a scheduler yet."""
    return f"{PREFIX}arriving:{service}"


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


def schedule(schedule_id: str) -> str:
    """HASH: the schedule, spec and state."""
    return f"{PREFIX}schedule:{schedule_id}"


def schedule_active(schedule_id: str) -> str:
    """ZSET: its tasks that have not ended, scored by creation time."""
    return f"{PREFIX}schedule-active:{schedule_id}"


def schedule_buffer(schedule_id: str) -> str:
    """HASH: slots that wait for those tasks, each with all that its task will need."""
    return f"{PREFIX}schedule-buffer:{schedule_id}"


def schedule_fires(schedule_id: str) -> str:
    """LIST: what became of its slots, newest first."""
    return f"{PREFIX}schedule-fires:{schedule_id}"
