"""What is too much to be counted in one step: the doctor says so, and what is few it counts."""

import pytest

from app.core.events import DISPATCH_GROUP
from cli.doctor.report import Verdict
from cli.doctor.store import check_records
from task_state import audit, keys
from tests.contract.test_audit import Store, store

__all__ = ["store"]  # the fixture


async def test_what_is_not_counted_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.redis.hset(keys.HELD, "w", 7)
    monkeypatch.setattr(audit, "_MOST_COUNTED", 0)
    walked = await store.provider.get_audit(DISPATCH_GROUP)
    assert [finding async for finding in walked.walk()] == []
    assert walked.uncounted == {"1 leases", "1 delayed tasks", "1 users who wait for sync"}
    results = await check_records(store.provider, mend=False, say=print)
    (told,) = [each for each in results if each.name == "recount"]
    assert told.verdict is Verdict.WARNING
    assert "1 leases" in told.what


async def test_what_is_few_is_counted(store: Store) -> None:
    store.redis.hset(keys.HELD, "w", 7)
    walked = await store.provider.get_audit(DISPATCH_GROUP)
    (finding,) = [finding async for finding in walked.walk()]
    assert "held counts 7 for w" in finding.what
    assert walked.uncounted == set()
    results = await check_records(store.provider, mend=True, say=print)
    assert "recount" not in {each.name for each in results}
    assert store.redis.hget(keys.HELD, "w") == b"1"
