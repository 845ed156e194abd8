"""How to test an integration with task_state: patched clients, no network. And what the face is."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
import pytest_asyncio
from redis.exceptions import AuthenticationError, RedisError

import task_state
from task_state import ConfigurationError, StoreUnavailableError, TaskRepository
from task_state.managed import ManagedTasks
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from task_state.repository import RedisTaskRepository

URL = "redis://writer:6379/0"
SETTINGS = RedisRepositorySettings(write_url=URL, read_url="redis://reader:6379/0")


def client(**behaviour: Any) -> AsyncMock:
    """A stand-in for a Redis client: it answers PING and can be closed."""
    return AsyncMock(**{"ping.return_value": True, **behaviour})


@pytest.fixture
def from_url(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """`Redis.from_url` as the provider calls it: the writer first, then the reader."""
    patched = Mock(side_effect=[client(), client()])
    monkeypatch.setattr("task_state.redis.Redis.from_url", patched)
    return patched


@pytest_asyncio.fixture
async def provider() -> AsyncGenerator[RedisRepositoryProvider]:
    opened = RedisRepositoryProvider(SETTINGS)
    yield opened
    await opened.close()


def clients(from_url: Mock, *made: AsyncMock) -> tuple[AsyncMock, ...]:
    """Let the provider get these clients."""
    from_url.side_effect = list(made)
    return made


async def test_get_repository_pings_both_ends(
    from_url: Mock, provider: RedisRepositoryProvider
) -> None:
    writer, reader = clients(from_url, client(), client())
    repository = await provider.get_repository()
    assert isinstance(repository, RedisTaskRepository)
    assert isinstance(repository, TaskRepository)
    writer.ping.assert_awaited_once()
    reader.ping.assert_awaited_once()
    assert [call.args[0] for call in from_url.call_args_list] == [URL, "redis://reader:6379/0"]


async def test_clients_never_retry_by_themselves(
    from_url: Mock, provider: RedisRepositoryProvider
) -> None:
    await provider.get_repository()
    for call in from_url.call_args_list:
        assert call.kwargs["retry"].get_retries() == 0


async def test_the_clients_are_shared(from_url: Mock, provider: RedisRepositoryProvider) -> None:
    await provider.get_repository()
    assert isinstance(await provider.get_managed(), ManagedTasks)
    await provider.get_outbox()
    await provider.get_changes()
    await provider.ping()
    assert from_url.call_count == 2


async def test_without_a_read_url_the_writer_is_read(from_url: Mock) -> None:
    provider = RedisRepositoryProvider(RedisRepositorySettings(write_url=URL))
    await provider.get_repository()
    assert [call.args[0] for call in from_url.call_args_list] == [URL, URL]
    await provider.close()


async def test_close_closes_both_and_is_idempotent(
    from_url: Mock, provider: RedisRepositoryProvider
) -> None:
    writer, reader = clients(from_url, client(), client())
    await provider.get_repository()
    await provider.close()
    await provider.close()
    writer.aclose.assert_awaited_once()
    reader.aclose.assert_awaited_once()


async def test_closing_what_was_never_opened_is_harmless(from_url: Mock) -> None:
    await RedisRepositoryProvider(SETTINGS).close()
    from_url.assert_not_called()


async def test_both_are_closed_even_when_closing_one_fails(
    from_url: Mock, provider: RedisRepositoryProvider
) -> None:
    failing = client(**{"aclose.side_effect": RedisError("gone")})
    writer, _ = clients(from_url, client(), failing)
    await provider.get_repository()
    with pytest.raises(RedisError, match="gone"):
        await provider.close()
    writer.aclose.assert_awaited_once()
    await provider.close()


@pytest.mark.parametrize("broken", ["writer", "reader"])
@pytest.mark.parametrize(
    "error", [RedisError("x"), AuthenticationError("wrong password"), OSError("x"), TimeoutError()]
)
async def test_a_failing_connect_closes_both(
    from_url: Mock, provider: RedisRepositoryProvider, broken: str, error: Exception
) -> None:
    bad = {"ping.side_effect": error}
    writer, reader = clients(
        from_url,
        client(**bad if broken == "writer" else {}),
        client(**bad if broken == "reader" else {}),
    )
    with pytest.raises(StoreUnavailableError) as raised:
        await provider.get_repository()
    assert raised.value.__cause__ is error
    writer.aclose.assert_awaited_once()
    reader.aclose.assert_awaited_once()


async def test_a_failed_provider_may_try_again(
    from_url: Mock, provider: RedisRepositoryProvider
) -> None:
    clients(from_url, client(**{"ping.side_effect": RedisError("x")}), client(), client(), client())
    with pytest.raises(StoreUnavailableError):
        await provider.get_repository()
    assert await provider.get_repository()
    assert from_url.call_count == 4


async def test_a_closed_provider_opens_again(
    from_url: Mock, provider: RedisRepositoryProvider
) -> None:
    clients(from_url, client(), client(), client(), client())
    await provider.get_repository()
    await provider.close()
    await provider.ping()
    assert from_url.call_count == 4


async def test_ping_says_that_the_store_is_away(
    from_url: Mock, provider: RedisRepositoryProvider
) -> None:
    _, reader = clients(from_url, client(), client())
    await provider.ping()
    reader.ping.side_effect = ConnectionRefusedError("no")
    with pytest.raises(StoreUnavailableError, match="no"):
        await provider.ping()


async def test_a_hanging_connect_is_given_up(from_url: Mock) -> None:
    async def hang() -> None:
        await asyncio.get_running_loop().create_future()

    writer, reader = clients(from_url, client(**{"ping.side_effect": hang}), client())
    hasty = RedisRepositoryProvider(SETTINGS.model_copy(update={"timeout_seconds": 0.01}))
    with pytest.raises(StoreUnavailableError, match=r"did not answer within 0\.01 s"):
        await hasty.get_repository()
    writer.aclose.assert_awaited_once()
    reader.aclose.assert_awaited_once()


async def test_a_cancelled_open_is_closed_with_the_provider(
    from_url: Mock, provider: RedisRepositoryProvider
) -> None:
    reached, go = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        reached.set()
        await go.wait()

    writer, reader = clients(from_url, client(**{"ping.side_effect": wait}), client())
    opening = asyncio.create_task(provider.get_repository())
    await reached.wait()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    go.set()
    await provider.close()
    writer.aclose.assert_awaited_once()
    reader.aclose.assert_awaited_once()


async def test_calls_that_come_while_it_opens_share_the_attempt_and_its_failure(
    from_url: Mock,
) -> None:
    async def hang() -> None:
        await asyncio.get_running_loop().create_future()

    clients(from_url, client(**{"ping.side_effect": hang}), client())
    hasty = RedisRepositoryProvider(SETTINGS.model_copy(update={"timeout_seconds": 0.01}))
    answers = await asyncio.gather(*(hasty.ping() for _ in range(50)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {StoreUnavailableError}
    assert from_url.call_count == 2


async def test_closing_while_opening_leaves_nothing_open(
    from_url: Mock, provider: RedisRepositoryProvider
) -> None:
    go = asyncio.Event()
    writer, reader = clients(from_url, client(**{"ping.side_effect": go.wait}), client())
    opening = asyncio.create_task(provider.get_repository())
    await asyncio.sleep(0)
    closing = asyncio.create_task(provider.close())
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(opening, closing)
    writer.aclose.assert_awaited_once()
    reader.aclose.assert_awaited_once()


# ---------------------------------------------------------------------------------------- settings
def test_settings_from_the_environment_with_defaults() -> None:
    settings = RedisRepositorySettings.from_env({"DMS_REDIS_WRITE_URL": URL})
    assert settings.write_url == URL
    assert settings.read_url == URL, "its default is the value of DMS_REDIS_WRITE_URL"
    assert settings.task_ttl_seconds == 7_776_000
    assert settings.wait_replicas == 0
    assert settings.timeout_seconds == 2


def test_all_settings_from_the_environment() -> None:
    settings = RedisRepositorySettings.from_env(
        {
            "DMS_REDIS_WRITE_URL": URL,
            "DMS_REDIS_READ_URL": "redis://reader:6379/1",
            "DMS_REDIS_TASK_TTL_SECONDS": "60",
            "DMS_REDIS_WAIT_REPLICAS": "1",
            "SOMETHING_ELSE": "x",
        }
    )
    assert settings.read_url == "redis://reader:6379/1"
    assert (settings.task_ttl_seconds, settings.wait_replicas) == (60, 1)


def test_settings_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMS_REDIS_WRITE_URL", URL)
    monkeypatch.setenv("DMS_REDIS_READ_URL", "")
    monkeypatch.delenv("DMS_REDIS_TASK_TTL_SECONDS", raising=False)
    settings = RedisRepositorySettings.from_env()
    assert (settings.write_url, settings.read_url) == (URL, URL)


@pytest.mark.parametrize("environ", [{}, {"DMS_REDIS_WRITE_URL": ""}])
def test_the_write_url_is_required(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="DMS_REDIS_WRITE_URL is not set"):
        RedisRepositorySettings.from_env(environ)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DMS_REDIS_TASK_TTL_SECONDS", "ninety days"),
        ("DMS_REDIS_TASK_TTL_SECONDS", "0"),
        ("DMS_REDIS_TASK_TTL_SECONDS", "-5"),
        ("DMS_REDIS_TASK_TTL_SECONDS", "1.5"),
        ("DMS_REDIS_TASK_TTL_SECONDS", "9" * 18),
        ("DMS_REDIS_WAIT_REPLICAS", "-1"),
    ],
)
def test_a_wrong_value_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} is wrong"):
        RedisRepositorySettings.from_env({"DMS_REDIS_WRITE_URL": URL, name: value})


def test_settings_by_hand_are_checked_and_frozen() -> None:
    with pytest.raises(ValueError, match="write_url"):
        RedisRepositorySettings(write_url="")
    with pytest.raises(ValueError, match="frozen"):
        SETTINGS.write_url = "other"  # pyright: ignore[reportAttributeAccessIssue]


# -------------------------------------------------------------------------------------- public face
def test_the_public_face() -> None:
    assert set(task_state.__all__) == {
        "MAX_OFFSET", "MAX_PAGE", "MAX_TEXT", "TRANSITIONS", "AttemptNote", "AttemptOutcome",
        "ConfigurationError", "ConflictError", "FencedError", "IdempotencyMismatchError",
        "InvalidRequestError", "JsonObject", "LeaseHeldError", "LogPage", "Paging",
        "ScheduleConflictError", "ScheduleExistsError", "ScheduleNotFoundError",
        "ScheduleUnreadableError", "ServiceDrainingError", "StoreUnavailableError", "TaskCounts",
        "TaskEndedError", "TaskNotFoundError", "TaskPage", "TaskRecord", "TaskReport",
        "TaskRepository", "TaskResult", "TaskSearch", "TaskStateError", "TaskStatus",
        "TransitionError",
    }  # fmt: skip
    assert all(getattr(task_state, name) for name in task_state.__all__)


def test_one_error_base() -> None:
    errors = [getattr(task_state, name) for name in task_state.__all__ if name.endswith("Error")]
    assert all(issubclass(error, task_state.TaskStateError) for error in errors)
