"""One thread for blocking database calls, with a cheaper way there and back than an executor's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

# What a job is answered with: its result, or the error it raised.
Done = Callable[[Any, "Exception | None"], None]


class Worker:
    """Runs jobs one after the other; the answer comes on the event loop that was running when it was made."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Done] | None] = SimpleQueue()
        # A daemon: a disk that hangs must not keep the process from ending; what was answered is on it already.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], Any], done: Done) -> None:
        """Runs `job` on the thread, then `done(result, error)` on the loop."""
        self._jobs.put((job, done))

    async def run(self, job: Callable[[], Any]) -> Any:
        """Runs `job` on the thread and awaits its result."""
        future: asyncio.Future[Any] = self._loop.create_future()

        def done(result: Any, error: Exception | None) -> None:
            if future.done():  # whoever waited was cancelled
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        self.submit(job, done)
        return await future

    def stop(self) -> None:
        """Ends the thread after the jobs that it has."""
        self._jobs.put(None)

    def join(self) -> None:
        """Waits until the thread has ended, after `stop`."""
        self._thread.join()

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, done = item
            result: Any = None
            failure: Exception | None = None
            try:
                result = job()
            except Exception as error:  # noqa: BLE001 - not swallowed: it is raised on the loop, where it belongs
                failure = error
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(done, result, failure)
