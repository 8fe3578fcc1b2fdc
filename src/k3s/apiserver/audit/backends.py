"""Where events go, by the mode of each place: a request waits for it, or it happens beside the requests.

Source: "Audit backends" on the "Auditing" page of the Kubernetes documentation; the names in metrics are upstream's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from k3s.api.object import Object
from k3s.apiserver.audit.delivery import BATCH, Batching, Delivery, fitted, parts
from k3s.base.aio import Tasks

log = logging.getLogger(__name__)

#: Told what lost how many events, and why.
Lost = Callable[[str, int, str], None]


class Failed(Exception):
    """Events that a place did not take; says why."""


class Place(Protocol):
    """A log file or a webhook."""

    #: As metrics call it.
    name: str

    def open(self) -> None:
        """Events will come. Raises OSError."""

    def write(self, events: Sequence[Object]) -> Awaitable[None] | None:
        """Keeps events: at once, or it has to be waited for. Raises Failed."""

    def hurry(self) -> None:
        """The server is about to end: from now on everything is tried once."""

    async def close(self) -> None:
        """Nothing comes any more."""


class Backend:
    """A place with the way to it. `lost` is told of events that do not arrive."""

    def __init__(self, place: Place, delivery: Delivery, lost: Lost) -> None:
        self.strict = delivery.strict
        self._place = place
        self._limits = delivery.truncation
        self._lost = lost
        self._tasks = Tasks("audit")
        #: What is left to be sent at the end, which in batches is whatever waits.
        self._left = Batches(place, delivery, lost)
        self._batches = self._left if delivery.mode == BATCH else None

    def start(self) -> None:
        """Opens the place, begins to send. Raises OSError."""
        self._place.open()
        if self._batches is not None:
            self._tasks.spawn(self._batches.run(), self._place.name)

    def put(self, event: Object) -> asyncio.Task[bool] | bool:
        """Takes an event: whether it has arrived, or a task that will know; in batches that is nobody's business."""
        kept = event if self._limits is None else fitted(event, self._limits)
        if kept is None:
            self._lost("truncate", 1, "event is too large even after truncating")
            return True
        if self._batches is not None:
            self._batches.put(kept)
            return True
        try:
            work = self._place.write([kept])
        except Failed as error:
            self._lost(self._place.name, 1, str(error))
            return False
        return True if work is None else self._tasks.spawn(self._awaited(work, kept), self._place.name)

    async def _awaited(self, work: Awaitable[None], event: Object) -> bool:
        try:
            await work
        except Failed as error:
            self._lost(self._place.name, 1, str(error))
            return False
        except asyncio.CancelledError:
            # Told twice is better than not at all.
            self._left.put(event)
            raise
        return True

    async def close(self) -> None:
        """Sends what waits, once, and ends."""
        self._place.hurry()
        await self._tasks.close()
        await self._left.drain()
        await self._place.close()


class Batches:
    """Events that wait, and go together."""

    def __init__(self, place: Place, delivery: Delivery, lost: Lost) -> None:
        self._place = place
        self._said: Batching = delivery.batching
        self._limits = delivery.truncation
        self._lost = lost
        self._waiting: deque[Object] = deque()
        self._some, self._full = asyncio.Event(), asyncio.Event()
        self._allowed = float(self._said.burst)
        self._counted_at = 0.0

    def put(self, event: Object) -> None:
        """Takes an event; one that finds no room is lost."""
        if len(self._waiting) >= self._said.buffer:
            self._lost("buffered", 1, "audit buffer queue blocked")
            return
        self._waiting.append(event)
        self._some.set()
        if len(self._waiting) >= self._said.size:
            self._full.set()

    async def run(self) -> None:
        """Sends batch after batch, in order."""
        while True:
            await self._some.wait()
            if len(self._waiting) < self._said.size:
                self._full.clear()
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._full.wait(), self._said.wait_s)
            await self._throttled()
            batch = self._batch()
            if not self._waiting:
                self._some.clear()
            try:
                await self._send(batch)
            except asyncio.CancelledError:
                # Told twice is better than not at all.
                self._waiting.extendleft(reversed(batch))
                raise

    async def drain(self) -> None:
        """Sends what waits."""
        while batch := self._batch():
            await self._send(batch)

    async def _throttled(self) -> None:
        """Waits until one more batch may go: a bucket of `burst` that fills with `qps`."""
        if not self._said.qps:
            return
        now = asyncio.get_running_loop().time()
        self._allowed = min(float(self._said.burst), self._allowed + (now - self._counted_at) * self._said.qps)
        self._counted_at = now
        if self._allowed < 1:
            await asyncio.sleep((1 - self._allowed) / self._said.qps)
            self._counted_at, self._allowed = asyncio.get_running_loop().time(), 1.0
        self._allowed -= 1

    def _batch(self) -> list[Object]:
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), self._said.size))]

    async def _send(self, batch: list[Object]) -> None:
        for part in parts(batch, self._limits):
            try:
                work = self._place.write(part)
                if work is not None:
                    await work
            except Failed as error:
                self._lost(self._place.name, len(part), str(error))
