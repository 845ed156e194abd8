"""Further scheduler services beside the one of a `Stack`, as processes of their own."""

import http.client
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.cli import entry
from tests.support.servers import quiet_port
from tests.support.stack import START_SECONDS, eventually


class SchedulerProcess:
    """`with SchedulerProcess(stack.environment, log) as replica:`; leaving kills it."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._environment = {**environment, "DMS_SCHEDULER_PORT": str(quiet_port())}
        self._log = log
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                entry("scheduler"),
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        eventually(self.answers, START_SECONDS, "the replica answers")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        if error is not None:
            print(f"----- replica\n{self.logs()[-6000:]}")

    def answers(self) -> bool:
        """Whether it says that it is ready."""
        assert self.process.poll() is None, self.logs()
        port = int(self._environment["DMS_SCHEDULER_PORT"])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=3.0)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def metrics(self) -> str:
        """What it counts."""
        port = int(self._environment["DMS_SCHEDULER_PORT"])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30.0)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def logs(self) -> str:
        """What it has written, over all its starts."""
        return self._log.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it at once, stopped or not."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """Start it again after its end, without waiting until it works."""
        assert self.process.poll() is not None, "it runs"
        self.process = self._start()
