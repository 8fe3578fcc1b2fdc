"""An asyncio event loop with virtual time and an order of tasks that a seed decides.

Nothing ever waits: when no task is ready, the clock jumps to the next timer. So an hour of a cluster takes seconds, and
a race is a seed that repeats it. Production code runs unchanged, as long as its time comes from the loop.

What is ready together runs in a random order, where asyncio would serve who came first: a real cluster promises no
order either. That rules out real sockets and subprocesses, whose transports rely on it; a simulation has fakes instead.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import selectors
from collections import deque
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Deadlock(RuntimeError):
    """Every task waits for something that can no longer happen."""


class _TimelessSelector(selectors.BaseSelector):
    """Instead of waiting it moves the loop's clock. No file is ever ready."""

    def __init__(self) -> None:
        self.now = 0.0
        self._keys: dict[int, selectors.SelectorKey] = {}

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock
        self.now += max(timeout, 0.0)
        return []

    # The loop registers its own wake-up pipe, nothing else may come.

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        descriptor = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        if self._keys:
            raise RuntimeError("real sockets and pipes do not work under virtual time: use a fake")
        key = self._keys[descriptor] = selectors.SelectorKey(fileobj, descriptor, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj if isinstance(fileobj, int) else fileobj.fileno())

    def get_map(self) -> Any:
        return self._keys


class _Timer(asyncio.TimerHandle):
    """A timer that has its place among those of the same moment by lot."""

    lot: float = 0.0

    def __lt__(self, other: Any) -> bool:
        return (self.when(), self.lot) < (other.when(), other.lot)


class _Task(asyncio.Task[Any]):
    """A task whose hash is its number: asyncio keeps tasks in sets, whose order must not depend on addresses."""

    def __init__(self, *arguments: Any, number: int, **options: Any) -> None:
        self._number = number
        super().__init__(*arguments, **options)

    def __hash__(self) -> int:
        return self._number


class SimLoop(asyncio.SelectorEventLoop):
    """The loop; `time()` starts at zero and `seed` decides every choice between tasks that are ready together."""

    def __init__(self, seed: int | str) -> None:
        self._timeless = _TimelessSelector()
        super().__init__(self._timeless)
        self.seed = seed
        self._random = random.Random(seed)
        self._numbers = itertools.count()
        self.set_task_factory(self._make_task)

    def _make_task(self, loop: Any, coro: Any, **options: Any) -> asyncio.Task[Any]:
        return _Task(coro, loop=loop, number=next(self._numbers), **options)

    def time(self) -> float:
        """Virtual seconds since the start."""
        return self._timeless.now

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """As the base loop's, with a lot for those that are due together."""
        timer = _Timer(when, callback, args, self, context)
        timer.lot = self._random.random()
        heapq.heappush(self._scheduled, timer)  # type: ignore[attr-defined]
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Runs `func` here and now: a thread would bring real time and an order of its own."""
        future = self.create_future()
        future.set_result(func(*args))
        return future

    def _run_once(self) -> None:
        # The base loop runs its ready queue from the left: shuffled here, before each turn.
        ready: deque[Any] = self._ready  # type: ignore[attr-defined]
        if len(ready) > 1:
            self._random.shuffle(ready)
        try:
            super()._run_once()  # type: ignore[misc]
        except Deadlock:
            names = sorted(task.get_name() for task in asyncio.all_tasks(self))
            raise Deadlock(f"nothing is scheduled and these tasks wait for ever: {', '.join(names)}") from None


def run(seed: int | str, main: Coroutine[Any, Any, T]) -> T:
    """Runs `main` to its end under virtual time. Raises Deadlock, and whatever `main` raises.

    The same seed gives the same run, provided that `main` takes its chance from a seeded Entropy and that no order
    depends on the hash of a string (a set of names): PYTHONHASHSEED differs between processes.
    """
    with asyncio.Runner(loop_factory=lambda: SimLoop(seed)) as runner:
        return runner.run(main)
