"""The fields of a record in the order of its one-line form, which is also what readers are sent.

A line is JSON values with LINE_BREAK between them, without the brackets; missing values at its end
are left out. JSON as the store writes it never holds a bare CR, so a line can be parted unparsed.
New fields are added at the end: a version that does not know them reads the rest, and keeps them.
"""

LINE_BREAK = ",\r"

# The first ten are what the scripts need of every record (`from_line` in record_prelude.lua); then
# by how often a finished record has them.
FIELDS = (
    "status", "service", "user_id", "created_at", "updated_at", "revision", "epoch", "managed",
    "started_at", "log_bytes", "log_lines", "completed_at", "attempts", "max_attempts",
    "parameters", "batch", "data", "error", "jobs", "pod_status", "progress", "description",
    "retry_of", "schedule_id", "history", "deaths", "checkpoint", "worker", "omitted",
    "report", "adjust",
)  # fmt: skip

# Stored as they are; the others are stored as JSON: numbers, objects, lists, a list's inside.
TEXTS = (
    "status", "service", "user_id", "batch", "error", "pod_status", "description", "retry_of",
    "schedule_id", "worker", "omitted",
)  # fmt: skip


def lua_constants() -> dict[str, str]:
    """The same for the scripts, whose lists begin at 1."""
    place = {name: number for number, name in enumerate(FIELDS, start=1)}
    return {
        "$FIELDS": ", ".join(f"'{name}'" for name in FIELDS),
        "$PLACES": ", ".join(f"{name} = {number}" for name, number in place.items()),
        "$TEXTS": ", ".join(str(place[name]) for name in TEXTS),
        "$NONE": ", ".join("false" for _ in FIELDS),
    }
