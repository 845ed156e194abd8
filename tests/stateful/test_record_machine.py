"""Records with any content, written to before and after their end, beside a plain model: after each
step every way of reading tells what the model says, and nothing of a record is lost."""

import asyncio
import json
from collections.abc import Coroutine
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis import Redis

from task_state import TaskRecord, TaskResult, TaskSearch, TaskStatus, keys
from task_state.export import ExportForm
from task_state.managed import Checkpoint, Failing
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from task_state.testing import ServerAddress
from tests.stateful.record_model import Content, content_of, shown_of

# Around the sizes at which a value is cut up, stays whole, or keeps a record from being a line, and
# where a listing leaves it out.
SIZES = [63, 64, 65, 128, 511, 512, 513, 1023, 1024, 1025, 4096, 4097]
ODD = [
    *("null", '"', "\\", "/", ",\r", "a,\rb", ",\n", "]", "{", "\0", "\x7f", "\x85", "\u2028"),
    *("한글", "😀", "\ufffd", "[", "1e400", "NaN", "true", ":1", "error:1"),
]
PLAIN: st.SearchStrategy[str] = st.text(
    st.characters(exclude_categories=["Cs"]), min_size=1, max_size=90
)


def sized(size: int, end: str) -> str:
    """A text of so many bytes."""
    return "x" * (size - len(end.encode())) + end


SIZED = st.builds(sized, st.sampled_from(SIZES), st.sampled_from(["x", "\r", "끝", '"']))
TEXTS: st.SearchStrategy[str] = st.sampled_from(ODD) | PLAIN | SIZED
NUMBERS: st.SearchStrategy[float] = (
    st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([2**53 + 1, 0, -0.0, 1e22, 5e-324, 1.0])
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
OBJECTS: st.SearchStrategy[dict[str, Any]] = st.dictionaries(TEXTS, VALUES, max_size=3)
JOBS: st.SearchStrategy[list[str]] = st.lists(TEXTS, max_size=3)
RESULTS = st.sampled_from(["pod_status", "data", "error"])
CONTENT: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"parameters": OBJECTS, "description": st.none() | TEXTS, "jobs": JOBS},
    optional={"max_attempts": st.integers(1, 9)},
)
ENDS = st.sampled_from([TaskStatus.COMPLETED, TaskStatus.FAILED])
EMPTY: dict[str, Any] = {"parameters": {}, "jobs": []}  # None of what is not here
WORKER = "w"


class Records(RuleBasedStateMachine):
    """One record at a time, of an outside program's or of ours."""

    runner: asyncio.Runner
    provider: RedisRepositoryProvider
    client: "Redis"

    def __init__(self) -> None:
        super().__init__()
        self.model: Content | None = None

    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(call)

    @property
    def task(self) -> Content:
        assert self.model
        return self.model

    def draw(self, data: st.DataObject, name: str) -> Any:
        """A value for that field."""
        if name in {"pod_status", "error", "description"}:
            return data.draw(TEXTS, label=name)
        return data.draw({"data": VALUES, "jobs": JOBS}.get(name, OBJECTS), label=name)

    # --------------------------------------------------------------------------------------- begins
    @initialize()
    def start(self) -> None:
        self.client.flushall()
        self.repository = self.run(self.provider.get_repository())
        self.managed = self.run(self.provider.get_managed())

    @precondition(lambda self: self.model is None)
    @rule(data=st.data(), content=CONTENT, status=ENDS | st.just(TaskStatus.RUNNING))
    def save_new(self, data: st.DataObject, content: dict[str, Any], status: TaskStatus) -> None:
        names = data.draw(st.sets(RESULTS), label="results")
        result = {name: self.draw(data, name) for name in sorted(names)}
        self.run(
            self.repository.save(
                TaskRecord(
                    task_id="external", service="s", user_id="u@h", status=status,
                    result=TaskResult(**result), **content,
                )
            )
        )  # fmt: skip
        content["jobs"] = list(content["jobs"])
        self.model = Content("external", managed=False, status=status, **content, **result)

    @precondition(lambda self: self.model is None)
    @rule(parameters=OBJECTS, description=st.none() | TEXTS)
    def submit_and_begin(self, parameters: dict[str, Any], description: str | None) -> None:
        task_id = self.run(
            self.managed.submit(service="s", user_id="u@h", parameters=parameters)
        ).task_id
        self.model = Content(task_id, managed=True, status=TaskStatus.PENDING)
        self.task.parameters = parameters
        self._begin(description)

    def _begin(self, description: str | None = None) -> None:
        task = self.task
        task.epoch, task.attempts, task.status = task.epoch + 1, task.attempts + 1, _RUNNING
        task.revision += 1
        task.progress, task.error = None, None
        task.description = description or task.description
        assert self.run(
            self.managed.begin(
                task.task_id, task.epoch, worker=WORKER, lease_seconds=3600, description=description
            )
        )

    # ------------------------------------------------------------------------------------- attempts
    @precondition(lambda self: self.model and self.task.managed and not self._ended)
    @rule(progress=OBJECTS, checkpoint=st.none() | st.builds(Checkpoint, VALUES))
    def heartbeat(self, progress: dict[str, Any], checkpoint: Checkpoint | None) -> None:
        task = self.task
        self.run(
            self.managed.heartbeat(
                task.task_id, task.epoch, lease_seconds=3600, progress=progress,
                checkpoint=checkpoint,
            )
        )  # fmt: skip
        task.progress = progress
        if checkpoint is not None:
            task.checkpoint = checkpoint.value

    @precondition(lambda self: self.model and self.task.managed)
    @rule(lines=st.integers(1, 99), omitted=st.booleans(), failed=st.booleans())
    def report(self, lines: int, omitted: bool, failed: bool) -> None:
        task = self.task
        kept, lost = task.report or (0, 0)
        block = b"" if omitted else b"x"
        for _ in range(2):  # the second one is a repeat
            self.run(
                self.managed.append_report(
                    task.task_id, task.epoch, block, lines, failed=failed, before=kept + lost
                )
            )
        task.report = (kept, lost + lines) if omitted else (kept + lines, lost)

    @precondition(lambda self: self.model and self.task.managed and not self._ended)
    @rule(
        name=st.sampled_from(["bandwidth", "이름", 'a"b']),
        value=st.none() | st.integers(0, 2**53) | PLAIN,
    )
    def adjust(self, name: str, value: int | str | None) -> None:
        task = self.task
        told = self.run(self.managed.adjust(task.task_id, name, value, log_entry="changed"))
        others = {key: kept for key, kept in (task.adjust or {}).items() if key != name}
        assert told == others | ({} if value is None else {name: value})
        task.adjust = told or None
        task.logs.append(self._got().logs[-1])

    @precondition(lambda self: self.model and self.task.managed and not self._ended)
    @rule(reasons=st.lists(st.sampled_from(ODD) | PLAIN, min_size=1, max_size=4), error=TEXTS)
    def retry(self, reasons: list[str], error: str) -> None:
        task = self.task
        for reason in reasons:
            task.history.append((task.epoch, "failed", reason))
            failing = Failing("failed", reason)
            self.run(self.managed.retry(task.task_id, task.epoch, failing=failing, error=error))
            task.revision += 1
            self._begin()

    @precondition(lambda self: self.model and not self._ended)
    @rule(data=st.data(), status=ENDS)
    def end(self, data: st.DataObject, status: TaskStatus) -> None:
        task = self.task
        task.status, task.revision = status, task.revision + 1
        if not task.managed:
            self.run(self.repository.set_status(task.task_id, status))
            return
        names = data.draw(
            st.sets(st.sampled_from(["data", "error", "progress"])), label="ends with"
        )
        values = {name: self.draw(data, name) for name in sorted(names)}
        self.run(self.managed.finish(task.task_id, task.epoch, status, **values))
        self._keep(values)
        task.checkpoint = None

    @property
    def _ended(self) -> bool:
        return self.task.status.is_terminal

    def _keep(self, values: dict[str, Any]) -> None:
        """None leaves a field of a result as it is."""
        for name, value in values.items():
            if value is not None:
                setattr(self.task, name, value)

    # -------------------------------------------------------------------------- at any time, by all
    @precondition(lambda self: self.model)
    @rule(data=st.data(), names=st.sets(RESULTS, min_size=1), output=st.just("") | PLAIN)
    def update_result(self, data: st.DataObject, names: set[str], output: str) -> None:
        values = {name: self.draw(data, name) for name in sorted(names)}
        self.run(
            self.repository.update_result(
                self.task.task_id, launcher_output=output or None, **values
            )
        )
        self._keep(values)
        self.task.output += output
        if any(value is not None for value in values.values()):
            self.task.revision += 1

    @precondition(lambda self: self.model)
    @rule(jobs=st.lists(TEXTS, min_size=1, max_size=3))
    def add_jobs(self, jobs: list[str]) -> None:
        self.run(self.repository.add_jobs(self.task.task_id, jobs))
        self.task.add_jobs(jobs)
        self.task.revision += 1

    @precondition(lambda self: self.model)
    @rule(entries=st.lists(TEXTS, min_size=1, max_size=3))
    def append_logs(self, entries: list[str]) -> None:
        self.run(self.repository.append_logs(self.task.task_id, entries))
        self.task.logs += entries

    @precondition(lambda self: self.model and (self._ended or not self.task.managed))
    @rule(progress=OBJECTS)
    def set_progress(self, progress: dict[str, Any]) -> None:
        self.run(self.repository.set_progress(self.task.task_id, progress))
        self.task.progress = progress

    @precondition(lambda self: self.model)
    @rule(data=st.data(), listed=st.booleans(), names=st.sets(
        st.sampled_from(["parameters", "description", "jobs", "pod_status", "data", "error"])
    ), clear=st.booleans())  # fmt: skip
    def load_and_save(
        self, data: st.DataObject, listed: bool, names: set[str], clear: bool
    ) -> None:
        found = self._searched() if listed else self._got()
        for name in sorted(names):
            value = EMPTY.get(name) if clear else self.draw(data, name)
            owner = found.result if name in {"pod_status", "data", "error"} else found
            setattr(owner, name, value)
            setattr(self.task, name, value)
        self.task.jobs = list(self.task.jobs)
        self.run(self.repository.save(found))
        self.task.revision += 1

    @precondition(lambda self: self.model and (self._ended or not self.task.managed))
    @rule()
    def delete(self) -> None:
        assert self.run(self.repository.delete(self.task.task_id))
        self.model = None

    # ---------------------------------------------------------------------------------------- reads
    def _got(self) -> TaskRecord:
        found = self.run(self.repository.get(self.task.task_id))
        assert found
        return cast("TaskRecord", found)

    def _searched(self) -> TaskRecord:
        (found,) = self.run(self.repository.search(TaskSearch(task_id=self.task.task_id)))
        return cast("TaskRecord", found)

    async def _exported(self) -> dict[str, Any]:
        retention = await self.provider.get_retention()
        export = retention.export(self.task.task_id, ExportForm.JSONL)
        return json.loads(b"".join([chunk async for chunk in export.chunks()]))

    @invariant()
    def all_reads_agree(self) -> None:
        if self.model is None:
            return
        wanted = self.task.whole()
        whole = self._got()
        assert content_of(whole) == wanted
        assert whole.logs_total == len(self.task.logs)
        assert TaskRecord.model_validate(self.run(self._exported())).model_dump() == (
            whole.model_dump()
        )
        (by_id,) = self.run(self.repository.list_by_ids([self.task.task_id]))
        pages = [self._searched(), *self.run(self.repository.list_all())]
        pages += self.run(self.repository.search(TaskSearch(q="u@h", sort="updated_at")))
        assert len(pages) == 3
        assert not by_id.omitted
        for found in (by_id, *pages):
            shown = shown_of(found)
            assert shown == {name: wanted[name] for name in shown}
            assert found.logs_total == len(self.task.logs)

    @invariant()
    def it_lives_as_long_as_it_must(self) -> None:
        if self.model is None:
            return
        key = keys.task(self.task.task_id)
        expires = self._ended or not self.task.managed
        assert (self.client.pttl(key) > 0) is expires  # pyright: ignore[reportOperatorIssue]
        if not self._ended:
            assert self.client.type(key) == b"hash"

    def teardown(self) -> None:
        """Nothing differs that the doctor would find."""
        if self.model is None:
            return

        async def findings() -> list[Any]:
            audit = await self.provider.get_audit("dispatch", mend=False)
            return [found async for found in audit.walk()]

        assert self.run(findings()) == []


_RUNNING = TaskStatus.RUNNING


# Finding the shortest life that shows a defect takes longer than an ordinary test may.
@pytest.mark.timeout(900)
def test_records_of_any_content(dms_redis_server: ServerAddress) -> None:
    """A few hundred writes, each with all ways of reading after it."""
    redis_settings = RedisRepositorySettings(write_url=dms_redis_server.url, timeout_seconds=60)
    with asyncio.Runner() as runner, Redis.from_url(dms_redis_server.url) as client:
        provider = RedisRepositoryProvider(redis_settings)
        Records.runner, Records.provider, Records.client = runner, provider, client
        try:
            run_state_machine_as_test(
                Records, settings=settings(max_examples=40, stateful_step_count=12)
            )
        finally:
            runner.run(provider.close())
