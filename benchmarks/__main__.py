"""`python -m benchmarks [NAME ...]`: run all measurements, or those named."""

import sys

from benchmarks import accept, events, movers, search, task_state, throughput, triggers

ALL = {
    "task_state": task_state.main,
    "search": search.main,
    "events": events.main,
    "accept": accept.main,
    "throughput": throughput.main,
    "triggers": triggers.main,
    "movers": movers.main,
}


def main() -> None:
    """Run what the command line names, in the order of the table."""
    wanted = sys.argv[1:] or list(ALL)
    if unknown := [name for name in wanted if name not in ALL]:
        raise SystemExit(f"there is no benchmark {unknown[0]!r}: name some of {', '.join(ALL)}")
    for name in wanted:
        ALL[name]()


if __name__ == "__main__":
    main()
