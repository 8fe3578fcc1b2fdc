"""The only file that makes tasks and threads: tasks with names, a debounce, a latest-wins mailbox, blocking work.

Everything that runs for as long as its component lives goes through `spawn` inside a `Tasks` group; a task that
ends with an error is reported, never lost.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Hashable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

# Blocking work is short (key generation, small files); two threads keep memory low and order simple.
_BLOCKING_THREADS = 2
_executor: ThreadPoolExecutor | None = None


def begun(work: Coroutine[Any, Any, T]) -> T | Awaitable[T]:
    """Runs a coroutine until it waits for the first time: its result, or what is left of it. Raises what it raises."""
    try:
        awaited = work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    return _Rest(work, awaited)


class _Rest(Awaitable[T]):
    """What is left of a coroutine that waits for `awaited`."""

    __slots__ = ("_awaited", "_work")

    def __init__(self, work: Coroutine[Any, Any, T], awaited: Any) -> None:
        self._work = work
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, T]:
        work = self._work
        try:
            yield self._awaited
        except GeneratorExit:
            work.close()
            raise
        except BaseException as error:  # noqa: BLE001 - not swallowed: it is raised in the coroutine, where it belongs
            try:
                awaited = work.throw(error)
            except StopIteration as end:
                result: T = end.value
                return result
            return (yield from _Rest(work, awaited).__await__())
        return (yield from work.__await__())


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


class _Line(Executor):
    """One thread for long work, one piece after the other: however much there is, the loop competes with one.

    A daemon: what takes long does not keep the process from ending.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        threading.Thread(target=self._work, name="lengthy", daemon=True).start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        """Runs `fn` when its turn comes, unless nobody waits for it any more."""
        future: Future[Any] = Future()
        self._jobs.put((future, lambda: fn(*args, **named)))
        return future

    def _work(self) -> None:
        while True:
            future, job = self._jobs.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(job())
            except BaseException as error:  # noqa: BLE001 - not swallowed: it is raised where the result is awaited
                future.set_exception(error)
            del future, job


_line: _Line | None = None
# In the thread for long work: the loop that waits for the piece under way.
_asker = threading.local()


def lengthy(function: Callable[[], T]) -> asyncio.Future[T]:
    """Begins a computation of seconds on the one thread for such work; the loop goes on meanwhile."""
    global _line
    if _line is None:
        _line = _Line()
    loop = asyncio.get_running_loop()

    def work() -> T:
        _asker.loop = loop
        return function()

    return loop.run_in_executor(_line, work)


def on_loop(function: Callable[[], T]) -> T:
    """The result of a function that has to run on the event loop, whichever thread asks for it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        loop: asyncio.AbstractEventLoop | None = getattr(_asker, "loop", None)
    else:
        loop = None
    if loop is None:
        return function()
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(function())
        except BaseException as error:  # noqa: BLE001 - not swallowed: it is raised where the answer is awaited
            answer.set_exception(error)

    loop.call_soon_threadsafe(run)
    return answer.result()


async def eternal(name: str, work: Awaitable[None]) -> None:
    """Awaits work that must not end: a normal return is as wrong as an error (RuntimeError)."""
    await work
    raise RuntimeError(f"{name} returned, though it has to run for as long as the process")
