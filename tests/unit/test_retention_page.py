"""What docs/retention.md says of an export's columns is what an export has."""

import re
from pathlib import Path

from task_state.export import FLAT_SCHEMA
from task_state.retention_policy import EXAMPLE, RetentionPolicy

PAGE = (Path(__file__).resolve().parents[2] / "docs/retention.md").read_text(encoding="utf-8")


def test_the_columns_are_documented_with_their_types() -> None:
    rows = re.findall(r"^\| (`[\w`, ]+`) \| ([^|]+) \|$", PAGE, re.MULTILINE)
    documented = {
        name: kind.strip() for names, kind in rows for name in re.findall(r"`(\w+)`", names)
    }
    assert documented == dict(FLAT_SCHEMA)


def test_the_example_of_a_policy_is_one() -> None:
    assert EXAMPLE in PAGE
    assert len(RetentionPolicy.parse(EXAMPLE.split(",")).rules) == 3
