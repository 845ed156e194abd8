"""Whether a part can do its work: asked the way a load balancer would ask."""

from collections.abc import Callable

import httpx2

from cli.up.plan import FRONTEND, SCHEDULER, SERVER, Plan


def probe(plan: Plan, name: str) -> Callable[[], bool]:
    """The question for the part of this name; a worker has no address, so it counts at once."""
    match name:
        case _ if name == SERVER:
            return plan.server.answers
        case _ if name == FRONTEND:
            return lambda: _answers(f"{plan.address}/readyz")
        case _ if name == SCHEDULER:
            return lambda: _answers(f"{plan.scheduler_address}/readyz")
        case _:
            return lambda: True


def _answers(url: str) -> bool:
    try:
        # trust_env off: a proxy of the environment is not asked for this machine's own address.
        return httpx2.get(url, timeout=3.0, trust_env=False).status_code == 200
    except httpx2.HTTPError:
        return False
