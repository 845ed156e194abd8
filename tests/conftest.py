"""What every test shares: a real server, the meaning of the markers, hypothesis without a clock."""

import gc
import os
import shutil
import signal
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["task_state.testing", "tests.support.fixtures"]

# No deadline and no speed check: a busy machine is not a failing property.
settings.register_profile("dms", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dms")


def pytest_configure() -> None:
    """Let the processes of the tests hear of Ctrl-C, also where these tests run in the background:
    a shell has those ignore it, and what ignores it hands that on."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Keep thousands of tests out of each later collection of garbage: 6% of the CPU."""
    gc.collect()
    gc.freeze()


def _missing_for(item: pytest.Item) -> str | None:
    if item.get_closest_marker("root") and os.geteuid() != 0:
        return "needs root"
    if item.get_closest_marker("redis_server") and shutil.which("redis-server") is None:
        return "needs redis-server (Debian: apt-get install redis-server)"
    return None


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Skip what this machine cannot run. CI has it all, so there nothing is skipped: it fails."""
    if os.environ.get("CI"):
        return
    for item in items:
        if reason := _missing_for(item):
            item.add_marker(pytest.mark.skip(reason=reason))
