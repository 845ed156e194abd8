"""A plain table for terminals and for docs/benchmarks.md."""

from collections.abc import Sequence


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print it as Markdown, its columns aligned."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    print(f"\n### {title}\n")
    print(line(head))
    print(f"|{'|'.join('-' * (width + 2) for width in widths)}|")
    for row in rows:
        print(line(row))


def verdict(value: float, goal: float, *, at_most: bool = True) -> str:
    """Whether the goal is met."""
    return "met" if (value <= goal if at_most else value >= goal) else "MISSED"
