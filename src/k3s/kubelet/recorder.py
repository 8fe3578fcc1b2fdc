"""Telling people what happens: Event objects about pods and the node, counted instead of repeated."""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from dataclasses import dataclass

from k3s.api import times
from k3s.api.errors import ApiError, NotFound, OutcomeUnknown
from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.base.aio import Mailbox
from k3s.base.clock import Clock
from k3s.base.entropy import Entropy
from k3s.client.client import Client

log = logging.getLogger(__name__)

# Newest first to go when the API server is slower than what happens; enough for a hundred pods that start at once.
_QUEUE_LIMIT = 1000
# How many different events are remembered for counting, and for how long (upstream: 4096, 10 min).
_REMEMBER = 1024
_FORGET_S = 600.0


@dataclass(slots=True)
class _Known:
    name: str
    count: int
    at: float


class Recorder:
    """Writes events one after the other, in the background, so that no pod waits for them."""

    def __init__(self, client: Client, clock: Clock, entropy: Entropy, node: str) -> None:
        self._client = client
        self._clock = clock
        self._entropy = entropy
        self._node = node
        self._queue: deque[tuple[Object, str, str, str, float]] = deque(maxlen=_QUEUE_LIMIT)
        self._wake: Mailbox[str] = Mailbox()
        self._known: OrderedDict[tuple[str, ...], _Known] = OrderedDict()

    def tell(self, about: Object, kind: str, reason: str, message: str) -> None:
        """Records an event; `about` is an object reference (fieldPath: a container), `kind` Normal or Warning."""
        self._queue.append((about, kind, reason, message, self._clock.now()))
        self._wake.put("")

    async def run(self) -> None:
        """Writes what is told until cancelled."""
        while True:
            await self._wake.take()
            while self._queue:
                entry = self._queue.popleft()
                try:
                    await self._write(*entry)
                except (ApiError, OutcomeUnknown) as error:
                    # An event is a courtesy: its loss is told and life goes on.
                    log.debug("Event was not recorded", extra={"reason": entry[2], "error": str(error)})

    async def _write(self, about: Object, kind: str, reason: str, message: str, at: float) -> None:
        key = (about.get("uid", ""), about.get("fieldPath", ""), kind, reason, message)
        space = about.get("namespace") or "default"
        events = builtin("v1", "Event")
        known = self._known.get(key)
        if known is not None and at - known.at < _FORGET_S:
            known.count, known.at = known.count + 1, at
            try:
                change = {"count": known.count, "lastTimestamp": times.format(at)}
                await self._client.patch(events, space, known.name, change)
                return
            except NotFound:
                pass
        stamp = times.format(at)
        event: Object = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{about['name']}.{self._entropy.below(1 << 60):x}", "namespace": space},
            "involvedObject": about,
            "type": kind,
            "reason": reason,
            "message": message[:1024],
            "source": {"component": "kubelet", "host": self._node},
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
            "reportingComponent": "kubelet",
            "reportingInstance": self._node,
        }
        await self._client.create(events, event)
        self._known[key] = _Known(event["metadata"]["name"], 1, at)
        self._known.move_to_end(key)
        if len(self._known) > _REMEMBER:
            self._known.popitem(last=False)


def pod_reference(pod: Object, field_path: str = "") -> Object:
    """The reference to a pod, or to one of its containers, for an event."""
    meta = pod["metadata"]
    made = {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": meta.get("namespace", ""),
        "name": meta["name"],
        "uid": meta.get("uid", ""),
        "resourceVersion": meta.get("resourceVersion", ""),
        "fieldPath": field_path,
    }
    return {key: value for key, value in made.items() if value}
