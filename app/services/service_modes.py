"""The services, what waits and runs in each, and pause, drain and resume: not `app.services`."""

import logging
from dataclasses import dataclass, replace
from typing import Final, Literal

from app.services.deadline import store_deadline
from app.services.definitions import Definitions
from task_state.admission import EVERY_SERVICE, Admission, ServiceMode, ServiceState
from task_state.redis import RedisRepositoryProvider

log = logging.getLogger(__name__)

Change = Literal["pause", "drain", "resume"]
_DEFINITION_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class ServiceView:
    """A service's state, and whether it has a definition (None: the scheduler did not say, or it
    stands for every service)."""

    state: ServiceState
    defined: bool | None


class ServiceModes:
    """Shows services and changes their mode. Raises task_state's errors; a scheduler that is away
    costs `defined` alone."""

    def __init__(
        self,
        provider: RedisRepositoryProvider,
        definitions: Definitions,
        *,
        timeout_seconds: float,
    ) -> None:
        self._provider = provider
        self._definitions = definitions
        self._timeout = timeout_seconds

    async def all(self) -> list[ServiceView]:
        """Every service with a definition, with tasks, or with a mode; by name."""
        async with store_deadline(self._timeout):
            states = await self._states()
        defined = await self._definitions.ids(_DEFINITION_SECONDS)
        names = sorted({*states, *(defined or ())})
        return [_view(name, states, defined) for name in names]

    async def get(self, service: str) -> ServiceView:
        """One service; a name that nobody has used yet is an active one without tasks."""
        async with store_deadline(self._timeout):
            states = await self._states()
        return _view(service, states, await self._definitions.ids(_DEFINITION_SECONDS))

    async def change(self, service: str, change: Change, reason: str | None) -> ServiceView:
        """Pause, drain or resume a service, or `*` for all of them; doing it twice is harmless."""
        async with store_deadline(self._timeout):
            admission = await self._provider.get_admission()
            await _apply(admission, service, change, reason)
        log.info(
            "Service mode changed",
            extra={"action": f"service.{change}", "service": service, "reason": reason},
        )
        return await self.get(service)

    async def _states(self) -> dict[str, ServiceState]:
        admission = await self._provider.get_admission()
        return {state.service: state for state in await admission.states()}


async def _apply(admission: Admission, service: str, change: Change, reason: str | None) -> None:
    match change:
        case "pause":
            await admission.pause(service, reason)
        case "drain":
            await admission.drain(service, reason)
        case "resume":
            await admission.resume(service)


def _view(service: str, states: dict[str, ServiceState], defined: set[str] | None) -> ServiceView:
    state = states.get(service) or _unused(service, states.get(EVERY_SERVICE))
    if defined is None or service == EVERY_SERVICE:
        return ServiceView(state, None)
    return ServiceView(state, service in defined)


def _unused(service: str, every: ServiceState | None) -> ServiceState:
    """A service without tasks and without a mode of its own: what was said of all holds for it."""
    if every is None:
        return ServiceState(service, ServiceMode.ACTIVE, None, None, 0, 0, 0)
    return replace(every, service=service, waiting=0, delayed=0, running=0)
