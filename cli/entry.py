"""The console script: standard library only, so that it can say what is missing."""

import importlib.util
import os
import sys

# One module a dependency of the extra `server` that the command line cannot do without.
_NEEDED = ("typer", "httpx2", "rich", "pydantic_settings")
_INTERRUPTED = 130  # what shells say of a program that Ctrl-C ended


def main() -> None:
    """Run the command line; exits with its code, or 1 when the extra `server` is missing."""
    try:
        _main()
    except KeyboardInterrupt:  # before the command itself could answer it
        sys.exit(_INTERRUPTED)


def _main() -> None:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"error: dms-frontend is installed without what its commands need: {', '.join(missing)}"
            "\nInstall it: pip install 'dms-frontend[server]' (in a clone: pip install -e .[dev])",
            file=sys.stderr,
        )
        sys.exit(1)
    from cli.main import run

    # Help and shell completion speak of the name that was called.
    name = "dms" if sys.argv[0].endswith("/dms") else "dms-frontend"
    code = run(sys.argv[1:], name)
    _finish_output()
    sys.exit(code)


def _finish_output() -> None:
    """Write what is left; who read it may have gone (`| head`), which is nothing to complain of."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # Python tries once more at its end
        os.close(nowhere)


if __name__ == "__main__":
    main()
