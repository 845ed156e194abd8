"""docs/schedules.md says what is so: its file is read, its tables name what there is."""

import re
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from app.services.schedules_file import load_schedules
from app.services.schedules_plan import SchedulePlan
from task_state.schedules import Overlap, ScheduleSpec

PAGE = (Path(__file__).resolve().parents[2] / "docs/schedules.md").read_text("utf-8")


def test_the_file_is_read_as_it_stands_there(tmp_path: Path) -> None:
    (file,) = re.findall(r"(?ms)^```toml\n(.*?)^```", PAGE)
    path = tmp_path / "schedules.toml"
    path.write_text(file, "utf-8")
    (spec,) = load_schedules(path, "UTC").values()
    assert (spec.timezone, spec.overlap) == ("Asia/Seoul", Overlap.BUFFER_ONE)
    assert spec.parameters["dst"].startswith("/srv/data/safe/{{")


def test_every_field_and_every_overlap_is_named() -> None:
    named = set(re.findall(r"`(\w+)`", PAGE))
    assert ScheduleSpec.model_fields.keys() <= named
    assert {overlap.value for overlap in Overlap} <= named


def test_the_templates_come_out_as_the_table_says() -> None:
    rows = re.findall(r"(?m)^\| `(\{\{ slot[^`|]*\}\})` \| `([^`]+)` \|$", PAGE)
    assert len(rows) >= 3
    slot = int(datetime(2026, 1, 5, 9, tzinfo=ZoneInfo("Asia/Seoul")).timestamp())
    for template, shown in rows:
        spec = ScheduleSpec(
            cron="0 9 * * *",
            timezone="Asia/Seoul",
            service="sync",
            user_id="ops",
            parameters={"text": template},
        )
        assert SchedulePlan.of("nightly", spec).parameters(slot) == {"text": shown}
