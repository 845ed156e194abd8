"""The form of one log line: `<iso-timestamp>,<message>`."""

from task_state.timezone import now


def format_log_entry(message: str) -> str:
    """The message behind the present time, as one line: line breaks are escaped, and so is what is
    no text (a lone surrogate, as in a file name that is not UTF-8)."""
    line = message.replace("\r", "\\r").replace("\n", "\\n")
    text = line.encode("utf-8", "backslashreplace").decode()
    return f"{now().isoformat(timespec='microseconds')},{text}"
