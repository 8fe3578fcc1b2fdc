"""The only file that makes tasks and threads: tasks with names, a debounce, a latest-wins mailbox, blocking work.

Everything that runs for as long as its component lives goes through `spawn` inside a `Tasks` group; a task that
ends with an error is reported, never lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

# Blocking work is short (key generation, small files); two threads keep memory low and order simple.
_BLOCKING_THREADS = 2
_executor: ThreadPoolExecutor | None = None


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has nothing to wait for; raises what it raises, RuntimeError when it waits."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise RuntimeError(f"{work!r} waits, where it was said not to")


class Tasks:
    """A set of background tasks that live and die together.

    A task that fails is logged with its name and handed to `on_failure` (the supervisor's business); the others go on.
    `close()` cancels what is left and waits for it.
    """

    def __init__(self, name: str, on_failure: Callable[[str, BaseException], None] | None = None) -> None:
        self.name = name
        self._on_failure = on_failure
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, coro: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Starts `coro` as a task called `<group>/<name>`."""
        task = asyncio.get_running_loop().create_task(coro, name=f"{self.name}/{name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            return
        log.error("Task %s failed: %r", task.get_name(), error, exc_info=error)
        if self._on_failure is not None:
            self._on_failure(task.get_name(), error)

    def __len__(self) -> int:
        return len(self._tasks)

    async def close(self) -> None:
        """Cancels every task of the group and waits until all have ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)


class Mailbox(Generic[K]):
    """A queue of keys in which a key waits at most once: the reader looks at the newest state anyway."""

    def __init__(self) -> None:
        self._keys: dict[K, None] = {}
        self._wake: asyncio.Event = asyncio.Event()
        #: How often something was put here.
        self.puts = 0

    def put(self, key: K) -> None:
        """Adds `key`; nothing happens when it already waits."""
        self._keys[key] = None
        self.puts += 1
        self._wake.set()

    async def filled(self) -> None:
        """Waits until a key is there."""
        while not self._keys:
            self._wake.clear()
            await self._wake.wait()

    async def take(self) -> K:
        """Waits for the oldest key and removes it."""
        await self.filled()
        key = next(iter(self._keys))
        del self._keys[key]
        return key

    async def drain(self) -> list[K]:
        """Waits for at least one key and removes all."""
        await self.filled()
        keys = list(self._keys)
        self._keys.clear()
        return keys

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: K) -> bool:
        return key in self._keys


async def debounced(mailbox: Mailbox[K], quiet_s: float, at_most_s: float) -> AsyncIterator[list[K]]:
    """Yields the keys that gathered once `quiet_s` seconds brought none, or after `at_most_s` seconds."""
    # Looks after each quiet_s, not at each key: that costs a burst nothing, and its end is seen a little later.
    loop = asyncio.get_running_loop()
    while True:
        await mailbox.filled()
        end, puts = loop.time() + at_most_s, -1
        while mailbox.puts != puts and (left := min(quiet_s, end - loop.time())) > 0:
            puts = mailbox.puts
            await asyncio.sleep(left)
        yield await mailbox.drain()


async def blocking(function: Callable[..., T], *args: Any) -> T:
    """Runs a short blocking function on a thread of the small shared pool."""
    return await threaded(function, *args)


def threaded(function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
    """Begins a short blocking function on a thread of the small shared pool; any number may wait for its result."""
    global _executor
    if _executor is None:
        _executor = ThreadPoolExecutor(_BLOCKING_THREADS, thread_name_prefix="blocking")
    return asyncio.get_running_loop().run_in_executor(_executor, function, *args)


async def eternal(name: str, work: Awaitable[None]) -> None:
    """Awaits work that must not end: a normal return is as wrong as an error (RuntimeError)."""
    await work
    raise RuntimeError(f"{name} returned, though it has to run for as long as the process")
