"""The worker's event loop: nothing that a handler started in it ends it before the worker does."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

logger = logging.getLogger(__name__)


def run_to_its_end(main: Coroutine[Any, Any, None]) -> None:
    """`asyncio.run(main)` for a loop that also runs code of others.

    asyncio lets a SystemExit or KeyboardInterrupt of any task end the loop, and anybody may call
    its `stop()`: one inline handler would take every task of its worker with it. Here each is an
    outcome of the task that raised it, and the loop goes on until `main` has ended.
    """
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        work = loop.create_task(main)
        work.add_done_callback(lambda _: loop.stop())
        while not work.done():
            try:
                loop.run_forever()
            except (SystemExit, KeyboardInterrupt) as error:
                logger.error(
                    "Something that a handler started wanted to end this worker",
                    extra={"action": "worker.exit", "error": repr(error)},
                )
        work.result()
