"""The audit log at a webhook, which gets lists of events. Source: "Webhook backend" of "Auditing", Kubernetes
documentation."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from k3s.api.errors import ApiError
from k3s.api.object import Object
from k3s.apiserver.audit.backends import Failed
from k3s.client.transport import Request

if TYPE_CHECKING:
    from k3s.client.https import HttpsTransport

log = logging.getLogger(__name__)
# How often upstream tries, and how much longer each rest is than the one before.
_ATTEMPTS, _LONGER = 5, 1.5


class Webhook:
    """See `backends.Place`; after the first failure it rests for `backoff_s`."""

    name = "webhook"

    def __init__(self, transport: HttpsTransport, backoff_s: float) -> None:
        self._transport = transport
        self._backoff_s = backoff_s
        self._attempts = _ATTEMPTS

    def open(self) -> None:
        """Connects with the first event."""

    def hurry(self) -> None:
        """From now on everything is tried once."""
        self._attempts = 1

    async def write(self, events: Sequence[Object]) -> None:
        """Sends events until they are taken, a few times. Raises Failed."""
        failure: ApiError | None = None
        body = {"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": list(events)}
        for attempt in range(self._attempts):
            try:
                await self._transport.send(Request("POST", "", {}, body, accept="application/json"))
                return
            except ApiError as error:
                log.warning("The audit webhook takes no events: %s", error)
                failure = error
            if attempt + 1 >= self._attempts:
                break
            await asyncio.sleep(self._backoff_s * _LONGER**attempt)
        raise Failed(str(failure)) from failure

    async def close(self) -> None:
        """Ends the connections."""
        await self._transport.close()
