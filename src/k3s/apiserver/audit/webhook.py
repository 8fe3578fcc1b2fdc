"""The audit log at a webhook: events go in batches, while requests go on.

Source: the webhook backend of "Auditing", Kubernetes documentation.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from k3s.api.errors import ApiError
from k3s.api.object import Object
from k3s.base.aio import Tasks
from k3s.client.transport import Request

if TYPE_CHECKING:
    from k3s.client.https import HttpsTransport

log = logging.getLogger(__name__)
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Batches:
    """How events are put together: at most `size` go at once, after `wait_s` at the latest; `buffer` of them wait."""

    buffer: int = 10000
    size: int = 400
    wait_s: float = 30.0
    backoff_s: float = 10.0


class Webhook:
    """Sends events; `lost`, once set, is told how many could not be sent."""

    def __init__(self, transport: HttpsTransport, batches: Batches) -> None:
        self._transport = transport
        self._batches = batches
        self.lost: Callable[[int], None] = lambda count: None
        self._waiting: deque[Object] = deque()
        self._full = asyncio.Event()
        self._some = asyncio.Event()
        self._tasks = Tasks("audit")

    def start(self) -> None:
        """Begins to send."""
        self._tasks.spawn(self._run(), "webhook")

    def put(self, event: Object) -> None:
        """Takes an event; one that finds no room is lost."""
        if len(self._waiting) >= self._batches.buffer:
            self.lost(1)
            return
        self._waiting.append(event)
        self._some.set()
        if len(self._waiting) >= self._batches.size:
            self._full.set()

    async def close(self) -> None:
        """Sends what waits, once, and ends."""
        await self._tasks.close()
        while batch := self._batch():
            await self._send(batch, attempts=1)
        await self._transport.close()

    async def _run(self) -> None:
        while True:
            await self._some.wait()
            if len(self._waiting) < self._batches.size:
                self._full.clear()
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._full.wait(), self._batches.wait_s)
            batch = self._batch()
            if not self._waiting:
                self._some.clear()
            try:
                await self._send(batch, _ATTEMPTS)
            except asyncio.CancelledError:
                # Told twice is better than not at all.
                self._waiting.extendleft(reversed(batch))
                raise

    def _batch(self) -> list[Object]:
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), self._batches.size))]

    async def _send(self, batch: list[Object], attempts: int) -> None:
        body = {"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": batch}
        for attempt in range(attempts):
            try:
                await self._transport.send(Request("POST", "", {}, body, accept="application/json"))
                return
            except ApiError as error:
                log.warning("The audit webhook takes no events: %s", error)
                if attempt < attempts - 1:
                    await asyncio.sleep(self._batches.backoff_s * 1.5**attempt)
        self.lost(len(batch))
