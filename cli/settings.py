"""The settings for a command that starts something, their errors made a command's own."""

from typing import TYPE_CHECKING

from cli.errors import CliError

if TYPE_CHECKING:
    from app.core.config import Settings


def read_settings() -> "Settings":
    """The process's settings; raises CliError with the wrong variable and the remedy."""
    # Imported here: commands that only speak HTTP need no settings, and should start quickly.
    from app.core.config import get_settings
    from app.core.errors import DmsError

    try:
        return get_settings()
    except DmsError as error:
        raise CliError(str(error)) from error
