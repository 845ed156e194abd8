"""Whether a part can do its work: asked the way a load balancer would ask."""

import http.client
from collections.abc import Callable

from cli.up.plan import FRONTEND, LOOPBACK, SCHEDULER, SERVER, Plan


def probe(plan: Plan, name: str) -> Callable[[], bool]:
    """The question for the part of this name; a worker has no address, so it counts at once."""
    match name:
        case _ if name == SERVER:
            return plan.server.answers
        case _ if name == FRONTEND:
            return lambda: _answers(plan.port)
        case _ if name == SCHEDULER:
            return lambda: _answers(plan.scheduler_port)
        case _:
            return lambda: True


def _answers(port: int) -> bool:
    # The standard library's client: it costs next to nothing while the parts need the processor to
    # start, and asks no proxy of the environment for this machine's own address.
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=3.0)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
