"""Asking before something is lost."""

import sys

import typer

from cli.errors import CliError, ExitCode
from cli.output import note


def check_present(remedy: str = "say --yes") -> None:
    """Raise CliError where nobody is there to be asked."""
    if not sys.stdin.isatty():
        raise CliError("nobody is there to be asked", remedy, ExitCode.USAGE)


def confirm(question: str, *, yes: bool) -> None:
    """Go on if `yes`, or if a person says so; else end the command, with nothing changed."""
    if yes:
        return
    check_present()
    if not typer.confirm(question, err=True):
        note("nothing was changed")
        raise typer.Exit
